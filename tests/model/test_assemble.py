"""From files to decoders: a GGUF is the checkpoint it was made of, and floats can be quantized."""

import shutil
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file, save_file

import sparing
from sparing.errors import ModelError, OptionError
from sparing.kernels.native import variants
from sparing.model.assemble import WEIGHTS, load_decoder
from sparing.model.compiled import CompiledDecoder
from sparing.model.torch_decoder import TorchDecoder
from sparing.options import Memory, Sampling, WeightsName
from tests.gguf_writer import write_model
from tests.model.passes import Slots, new, random_ids
from tests.tiny import tiny

WIDE = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}
FAMILIES = ["llama", "qwen2", "qwen3"]
needs_kernels = pytest.mark.skipif(not variants(), reason="no compiled kernels: no compiler here")


def logits(decoder, count=20):
    return decoder([new(random_ids(count))], Slots(decoder)).logits


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q5_0", "Q4_1"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_gguf_is_the_checkpoint_it_was_made_of(tmp_path, family, kind, compiled):
    """Rows of q and k in the other order, norms, biases, rope: to the bit beside the same weights
    quantized while they load."""
    path = tiny(family, **WIDE, tie_word_embeddings=family == "qwen2")
    file = tmp_path / "m.gguf"
    write_model(file, path, kind)
    weights = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}.get(kind, kind.lower())
    ours = load_decoder(file, compiled=compiled)
    theirs = load_decoder(path, weights, compiled=compiled)
    if compiled:
        assert set(ours.types) == set(theirs.types) == {kind}
    error = (logits(ours) - logits(theirs)).abs().max()
    if kind in ("F32", "F16", "BF16"):
        assert error == 0
    else:  # a code at a tie may have been rounded to either side
        assert error < 0.03 * logits(theirs).abs().max()


@pytest.mark.parametrize("compiled", [pytest.param(True, marks=needs_kernels), False])
@pytest.mark.parametrize("weights", ["q8_0", "q4_0", "q5_1"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_a_weight_that_cannot_be_quantized_is_named(tmp_path, bad, weights, compiled):
    path = tmp_path / "m"
    shutil.copytree(tiny("llama", **WIDE), path)
    file, name = path / "model.safetensors", "model.layers.1.mlp.up_proj.weight"
    tensors = load_file(file)
    tensors[name][5, 7] = bad
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ModelError, match=f"m, {name}: weights must be finite"):
        load_decoder(path, weights, compiled=compiled)
    load_decoder(path, "float32", compiled=compiled)


@needs_kernels
def test_types_may_differ_from_matrix_to_matrix(tmp_path):
    path = tiny("qwen2", **WIDE)
    file = tmp_path / "m.gguf"
    write_model(file, path, "Q8_0")
    assert load_decoder(file).types["Q8_0"] == 3 * 7 + 1


@pytest.mark.parametrize("compiled", [True, False])
def test_a_width_of_no_whole_blocks_keeps_its_floats(capsys, compiled):
    """48 columns are one and a half blocks: what is 64 wide is quantized, and it is said."""
    path = tiny("llama")
    capsys.readouterr()  # of transformers, where it was just written
    decoder = load_decoder(path, "q4_0", compiled=compiled)
    assert decoder.types == {"F32": 19, "Q4_0": 3}
    told = capsys.readouterr().err
    assert told == (
        f"sparing: 20 matrices of {path.name} stay floats: their width is no multiple "
        "of q4_0's block of 32\n"
    )


def test_a_packed_file_keeps_its_precision(tmp_path):
    file = tmp_path / "m.gguf"
    write_model(file, tiny("llama", **WIDE), "Q8_0")
    with pytest.raises(OptionError, match=r"weights must be auto .* got q4_0 for Q8_0"):
        load_decoder(file, "q4_0")


def test_another_dtype_is_torchs(tmp_path):
    """In float64 a packed file is unpacked: no activation is rounded."""
    file = tmp_path / "m.gguf"
    write_model(file, tiny("llama", **WIDE), "Q8_0")
    exact = load_decoder(file, dtype=torch.float64)
    assert isinstance(exact, TorchDecoder)
    assert exact.dtype == torch.float64
    near, size = logits(load_decoder(file)), logits(exact).abs().max()
    assert 0 < (near - logits(exact)).abs().max() < 0.1 * size


@needs_kernels
def test_load_generate_and_store(tmp_path):
    """The whole way: a folder with one GGUF, its own tokenizer, keys and values of each kind."""
    write_model(tmp_path / "m.gguf", tiny("qwen3", **WIDE), "Q8_0")
    engine = sparing.load(str(tmp_path))
    assert isinstance(engine.decoder, CompiledDecoder)
    sampling = Sampling(max_new_tokens=40, temperature=0, ignore_eos=True)
    found = {}
    for kv in ("auto", "float16", "float32", "q8"):
        [result] = engine.generate(["Hello"], Memory(kv=kv), sampling=sampling)
        found[kv] = result
    assert found["auto"].token_ids == found["float16"].token_ids
    full, half, eighth = (found[kv].stats.kv_bytes_peak for kv in ("float32", "float16", "q8"))
    assert full == 2 * half
    dim = engine.decoder.shape.head_dim
    assert eighth == pytest.approx(half * (dim + 4) / (2 * dim))


def test_one_call_has_one_way_to_store(tmp_path):
    engine = sparing.load(str(tiny("llama")))
    with pytest.raises(OptionError, match="kv must be the same for all prompts of a call"):
        engine.generate(["A", "B"], [Memory(kv="float32"), Memory(kv="float16")])


def test_a_model_without_kernels_is_said_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPARING_KERNELS", "none")
    from sparing.kernels import native

    native.load_build.cache_clear()
    native.announce.cache_clear()
    try:
        path = shutil.copytree(tiny("llama"), tmp_path / "m")
        assert isinstance(load_decoder(path), TorchDecoder)
        assert isinstance(load_decoder(path), TorchDecoder)
    finally:
        native.load_build.cache_clear()
    assert capsys.readouterr().err.count("no compiled kernels found") == 1


def test_the_precisions_that_can_be_asked_for():
    assert get_args(WeightsName) == ("auto", *WEIGHTS)

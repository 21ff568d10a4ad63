"""AWQ and GPTQ checkpoints are the float checkpoints of the same weights."""

import pytest
import torch
from safetensors.torch import load_file, save_file

import sparing
from sparing.errors import ModelError
from sparing.kernels import native
from sparing.kernels.native import variants
from sparing.model.assemble import load_decoder
from sparing.options import Sampling
from sparing.train.reason import load_base
from tests.model.passes import Slots, assert_close, new, random_ids
from tests.packed_checkpoint import changed, packed_checkpoint
from tests.tiny import tiny

WIDE = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 8}
ATTENTION = "model.layers.0.self_attn"
QUERY = f"{ATTENTION}.q_proj"
CASES = {
    "awq": ("awq", 128, {}),
    "awq in small groups": ("awq", 32, {}),
    "awq in rows": ("awq", -1, {}),
    "gptq": ("gptq", 128, {"symmetric": True}),
    "gptq in groups of 64": ("gptq", 64, {}),
    "gptq in rows": ("gptq", -1, {"symmetric": True}),
    "gptq, zeros as they are": ("gptq", 32, {"v2": True}),
    "gptq of some": ("gptq", 64, {"skip": "down_proj"}),
}
needs_kernels = pytest.mark.skipif(not variants(), reason="no compiled kernels: no compiler here")


def logits(decoder):
    return decoder([new(random_ids(12))], Slots(decoder)).logits


@pytest.fixture
def awq(tmp_path):
    return packed_checkpoint(tmp_path, tiny("llama", **WIDE), "awq")[0]


@pytest.mark.parametrize("case", CASES)
def test_the_weights_are_those_of_the_format(tmp_path, case):
    """In float64, where no activation is rounded, equal to the last digits."""
    method, group, options = CASES[case]
    packed, plain = packed_checkpoint(tmp_path, tiny("llama", **WIDE), method, group, **options)
    ours, theirs = (load_decoder(path, dtype=torch.float64) for path in (packed, plain))
    assert_close(logits(ours), logits(theirs), 1e-9)


@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_all_families(tmp_path, family, method):
    """With biases and norms of their own, which stay floats; a tied head as well."""
    source = tiny(family, **WIDE, tie_word_embeddings=family == "qwen2")
    packed, plain = packed_checkpoint(tmp_path, source, method)
    ours, theirs = (load_decoder(path, dtype=torch.float64) for path in (packed, plain))
    assert_close(logits(ours), logits(theirs), 1e-9)


@needs_kernels
@pytest.mark.parametrize(("case", "kind"), [("awq", "Q4_1"), ("gptq", "Q4_0")])
def test_the_kernels_run_them(tmp_path, case, kind):
    """To the rounding of activations; a zero that is 8 everywhere needs no minimum."""
    method, group, options = CASES[case]
    packed, plain = packed_checkpoint(tmp_path, tiny("llama", **WIDE), method, group, **options)
    ours, twin = load_decoder(packed), load_decoder(packed, compiled=False)
    assert ours.types == twin.types == {kind: 3 * 7, "F32": 1}
    exact = logits(load_decoder(plain))
    assert_close(logits(ours), logits(twin), 1e-3)
    assert 0 < (logits(ours) - exact).abs().max() < 0.05 * exact.abs().max()


def test_a_minimum_is_off_by_less_than_a_hundredth_of_a_step(tmp_path):
    packed, _ = packed_checkpoint(tmp_path, tiny("llama", **WIDE), "awq", 128)
    found = load_file(packed / "model.safetensors")
    codes, zeros = (
        torch.stack([found[f"{QUERY}.{part}"] >> 4 * i & 15 for i in (0, 4, 1, 5, 2, 6, 3, 7)], -1)
        for part in ("qweight", "qzeros")
    )
    scales = found[f"{QUERY}.scales"].double()
    exact = ((codes.flatten(1) - zeros.flatten(1)) * scales).t()
    ours = load_decoder(packed, dtype=torch.float64).layers[0].query.weight
    assert ((ours - exact).abs() <= 0.01 * scales.t()).all()


@pytest.mark.parametrize("compiled", [pytest.param(True, marks=needs_kernels), False])
def test_act_order_is_rounded_to_eight_bits(tmp_path, capsys, compiled):
    native.announce.cache_clear()
    packed, plain = packed_checkpoint(
        tmp_path, tiny("llama", **WIDE), "gptq", 32, shuffled=True, symmetric=True
    )
    ours = load_decoder(packed, compiled=compiled)
    assert ours.types == {"Q8_0": 3 * 7, "F32": 1}
    assert capsys.readouterr().err == (
        "sparing: 21 matrices of packed were packed in act-order: they are rounded once more, to 8 "
        "bits\n"
    )
    ids = torch.arange(128)
    exact = load_decoder(plain).layers[0].query.rows(ids)
    largest = exact.unflatten(1, (-1, 32)).abs().amax(-1).repeat_interleave(32, 1)
    error = (ours.layers[0].query.rows(ids) - exact).abs()
    assert error.max() > 0
    assert (error < 0.51 * largest / 127 + 1e-3 * largest).all()


def test_groups_in_order_need_no_second_rounding(tmp_path):
    """A g_idx of zeros says nothing, as in old files."""
    packed, plain = packed_checkpoint(tmp_path, tiny("llama", **WIDE), "gptq", 64)
    replaced(packed, lambda found: {n: t * 0 for n, t in found.items() if "g_idx" in n})
    ours, theirs = (load_decoder(path, dtype=torch.float64) for path in (packed, plain))
    assert_close(logits(ours), logits(theirs), 1e-9)


def test_load_and_generate(awq):
    sampling = Sampling(max_new_tokens=4, temperature=0, ignore_eos=True)
    [result] = sparing.load(awq).generate(["Hello"], sampling=sampling)
    assert len(result.token_ids) == 4


def test_training_needs_floats(awq):
    with pytest.raises(ModelError, match="a base must have float weights for training, got awq"):
        load_base(str(awq))


def replaced(path, new):
    """Replace tensors by what ``new`` makes of all; None takes one out."""
    file = path / "model.safetensors"
    found = load_file(file)
    kept = {name: t for name, t in (found | new(found)).items() if t is not None}
    save_file(kept, file, {"format": "pt"})


BROKEN = {
    "no zeros": ("qzeros", lambda t: None, "q_proj.qzeros [4, 16] of its config.json, got none"),
    "other groups": ("scales", lambda t: t[:2].clone(), "shape [4, 128] of config.json, got [2"),
    "no numbers": ("scales", lambda t: t * float("nan"), "scales must be numbers up to 4000"),
    "no integers": ("qweight", lambda t: t.float(), "q_proj.qweight must be I32, got F32"),
    "no such group": ("g_idx", lambda t: t + 1, "g_idx must name groups from 0 to 3, got 1 to 4"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_part_is_named(tmp_path, case):
    part, change, said = BROKEN[case]
    path, _ = packed_checkpoint(tmp_path, tiny("llama", **WIDE), "gptq")
    replaced(path, lambda found: {f"{QUERY}.{part}": change(found[f"{QUERY}.{part}"])})
    with pytest.raises(ModelError) as error:
        load_decoder(path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_packed_weights_without_a_word_in_the_config(awq):
    changed(awq, lambda found: {k: v for k, v in found.items() if k != "quantization_config"})
    with pytest.raises(ModelError, match=r"must have a quantization_config, got none; take the"):
        load_decoder(awq)


REFUSED = {
    "8 bits": ({"quant_method": "gptq", "bits": 8}, "bits must be 4, got 8"),
    "odd groups": ({"quant_method": "awq", "group_size": 48}, "group_size must be -1 or a multi"),
    "gemv": ({"quant_method": "awq", "version": "gemv"}, "version must be gemm, got 'gemv'"),
    "marlin": (
        {"quant_method": "gptq", "checkpoint_format": "marlin"},
        "checkpoint_format must be gptq or gptq_v2, got 'marlin'",
    ),
    "without zeros": ({"quant_method": "awq", "zero_point": False}, "zero_point must be true"),
    "fp8": ({"quant_method": "fp8"}, "got 'fp8'"),
    "bitsandbytes": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "got 'bitsandbytes'"),
    "old bitsandbytes": ({"load_in_4bit": True}, "got 'bitsandbytes'"),
    "compressed-tensors": ({"quant_method": "compressed-tensors"}, "got 'compressed-tensors'"),
    "mxfp4": ({"quant_method": "mxfp4"}, "got 'mxfp4'"),
    "no kind": ({"bits": 4}, "quant_method must be awq or gptq, or the checkpoint in floats, got"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_kinds_are_refused_with_advice(awq, case):
    config, said = REFUSED[case]
    changed(awq, lambda found: found | {"quantization_config": config})
    with pytest.raises(ModelError) as error:
        sparing.load(awq)
    assert str(error.value).startswith("config field quantization_config: ")
    assert said in str(error.value)
    assert str(error.value).endswith(
        "take the model's GGUF, or its checkpoint in bfloat16 with weights='q8_0' (--weights q8_0)"
    )

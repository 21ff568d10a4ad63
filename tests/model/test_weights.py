"""A checkpoint that is not whole, or not of its config, is refused: file or tensor are named."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import sparing
from sparing.errors import ModelError
from sparing.kernels.native import announce
from sparing.model.assemble import load_decoder
from tests.model.passes import Slots, assert_close, expected, new, random_ids
from tests.tiny import reference, tiny

INDEX = "model.safetensors.index.json"
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def single(tmp_path):
    """A directory with one weight file."""
    return shutil.copytree(tiny("llama"), tmp_path / "model")


@pytest.fixture
def sharded(tmp_path):
    """The same weights in several files."""
    shutil.copytree(tiny("llama"), tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    reference(tiny("llama"), "float32").save_pretrained(tmp_path / "model", max_shard_size="40KB")
    return tmp_path / "model"


def _change(directory, **tensors):
    """Replace tensors; None takes one out."""
    file = directory / "model.safetensors"
    held = {k: v for k, v in (load_file(file) | tensors).items() if v is not None}
    save_file(held, file, {"format": "pt"})


def _refused(directory):
    """The message of loading it, the same with and without the look at its files beforehand."""
    with pytest.raises(ModelError) as error:
        load_decoder(directory)
    assert "\n" not in str(error.value)
    with pytest.raises(ModelError) as again:
        sparing.load(str(directory))
    assert "\n" not in str(again.value)
    return str(error.value)


@pytest.mark.parametrize("kept", [0, 4, 8, 500, -1])
def test_a_truncated_file(single, kept):
    file = single / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    assert str(file) in _refused(single)


def test_a_file_of_another_format(single):
    torch.save({"a": torch.zeros(3)}, single / "model.safetensors")
    assert "model.safetensors must be a whole safetensors file" in _refused(single)


@pytest.mark.parametrize(
    "name",
    [
        UP,
        "model.norm.weight",
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.layers.2.self_attn.q_proj.weight",
    ],
)
def test_a_missing_tensor(single, name):
    _change(single, **{name: None})
    message = _refused(single)
    assert name in message
    assert "got none" in message


@pytest.mark.parametrize("shape", [(64,), (48, 64), (64, 47), (64, 48, 1)])
def test_a_wrong_shape(single, shape):
    _change(single, **{UP: torch.zeros(shape)})
    message = _refused(single)
    assert f"tensor {UP} must have the shape [64, 48]" in message
    assert f"got {list(shape)}" in message


EXTRA = ["model.layers.3.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.bias", "score"]


@pytest.mark.parametrize("names", [EXTRA[:1], EXTRA, [*EXTRA, "v_head.weight", "lm_head.qweight"]])
def test_tensors_too_many(single, names, capsys):
    """A layer, bias or head without a place is left out, as in transformers, and named once."""
    plain, ids = load_decoder(single), [new(random_ids(20))]
    _change(single, **{name: torch.full((64,), 9.0) for name in names})
    announce.cache_clear()
    ours = load_decoder(single)
    load_decoder(single)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "model holds tensors that its config has no place for, and they are left out: " in said
    assert all(name in said for name in sorted(names)[:3])
    assert (" and 2 more\n" in said) == (len(names) == 5)
    assert torch.equal(ours(ids, Slots(ours)).logits, plain(ids, Slots(plain)).logits)


def test_frequencies_in_old_checkpoints_are_no_weights(single, capsys):
    _change(single, **{"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)})
    load_decoder(single)
    assert capsys.readouterr().err == ""


def test_a_missing_shard(sharded):
    shard = sorted(sharded.glob("*.safetensors"))[2]
    shard.unlink()
    assert shard.name in _refused(sharded)


def test_a_truncated_shard(sharded):
    shard = sorted(sharded.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-7])
    assert shard.name in _refused(sharded)


def test_an_index_that_forgets_a_shard(sharded):
    index = json.loads((sharded / INDEX).read_text())
    forgotten = index["weight_map"][UP]
    names = [name for name, file in index["weight_map"].items() if file == forgotten]
    for name in names:
        del index["weight_map"][name]
    (sharded / INDEX).write_text(json.dumps(index))
    message = _refused(sharded)
    assert any(name in message for name in names)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {"a": 3, "b": "c"}}',
        '{"weight_map": {"a": 3}}',
    ],
)
def test_a_bad_index(sharded, text):
    (sharded / INDEX).write_text(text)
    message = _refused(sharded)
    assert INDEX in message or "3 must be" in message


def test_pickled_weights_are_refused(single):
    (single / "model.safetensors").rename(single / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"\*\.safetensors"):
        sparing.load(str(single))
    assert "model.safetensors" in _refused(single)


def test_weights_in_half_precision_are_widened(tmp_path):
    """As transformers does with the dtype that is asked for."""
    shutil.copytree(tiny("llama"), tmp_path / "half")
    file = tmp_path / "half" / "model.safetensors"
    held = {name: tensor.bfloat16() for name, tensor in load_file(file).items()}
    save_file(held, file, {"format": "pt"})
    ours, ids = load_decoder(tmp_path / "half"), random_ids(20)
    assert ours.dtype == torch.float32
    truth = expected(reference(tmp_path / "half", "float32"), ids).logits[0]
    assert_close(ours([new(ids)], Slots(ours)).logits, truth, 1e-4)


def test_a_loaded_model_does_not_depend_on_its_file(single):
    """Training may save to the same directory; pages of a mapped file would change, or vanish."""
    ours, ids = load_decoder(single), [new(random_ids(20))]
    before = ours(ids, Slots(ours)).logits
    size = (single / "model.safetensors").stat().st_size
    with (single / "model.safetensors").open("r+b") as file:
        file.write(bytes(size))
    assert torch.equal(ours(ids, Slots(ours)).logits, before)


@pytest.mark.parametrize("own", [False, True])
def test_a_head_beside_tied_embeddings(tmp_path, own):
    """A copy of the embeddings is one; another head is used, whatever the config says."""
    shutil.copytree(tiny("qwen2", tie_word_embeddings=True), tmp_path / "m")
    table = load_file(tmp_path / "m" / "model.safetensors")["model.embed_tokens.weight"]
    _change(tmp_path / "m", **{"lm_head.weight": table.flip(0).contiguous() if own else table})
    ours, ids = load_decoder(tmp_path / "m"), random_ids(20)
    truth = expected(reference(tmp_path / "m", "float32"), ids).logits[0]
    assert_close(ours([new(ids)], Slots(ours)).logits, truth, 1e-4)
    assert (ours.head is ours.embedding) != own


def test_a_tied_head_of_another_shape(tmp_path):
    shutil.copytree(tiny("qwen2", tie_word_embeddings=True), tmp_path / "m")
    _change(tmp_path / "m", **{"lm_head.weight": torch.zeros(7, 48)})
    assert "lm_head.weight" in _refused(tmp_path / "m")

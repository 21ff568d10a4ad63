"""Which model is which: the same whatever the files are called, another when a weight is."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from sparing.model import fingerprint as room
from sparing.model.checkpoint import read_tokenizer
from sparing.model.fingerprint import files_fingerprint, fingerprint
from sparing.model.gguf import Gguf
from sparing.model.sources import find_model
from tests.gguf_writer import write_model
from tests.tiny import tiny


@pytest.fixture
def model(tmp_path):
    return shutil.copytree(tiny(), tmp_path / "model")


def test_pockets_is_the_one_that_its_parts_were_made_for():
    pocket = find_model("pocket")
    here = fingerprint(pocket, AutoTokenizer.from_pretrained(pocket))
    for name in ("predictor.json", "layer_sets.json"):
        assert json.loads((pocket / name).read_text())["fingerprint"] == here


def test_the_weights_are_read_once_and_again_when_they_change(model, monkeypatch):
    tokenizer, read = AutoTokenizer.from_pretrained(model), []
    slices = room.tensor_slices
    monkeypatch.setattr(
        room, "tensor_slices", lambda directory: read.append(directory) or slices(directory)
    )
    first = fingerprint(model, tokenizer)
    assert [fingerprint(model, tokenizer) for _ in range(3)] == [first] * 3
    assert read == [model]
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    assert fingerprint(model, tokenizer) != first
    assert read == [model] * 2


def test_another_vocabulary_is_another_model(model):
    tokenizer = AutoTokenizer.from_pretrained(model)
    first = fingerprint(model, tokenizer)
    tokenizer.add_tokens(["<more>"])
    assert fingerprint(model, tokenizer) != first


# Of a GGUF


def hashed(path):
    return fingerprint(path, read_tokenizer(path))


@pytest.fixture
def gguf(tmp_path):
    return write_model(tmp_path / "model.gguf", tiny("qwen2"))


def test_a_ggufs_weights_are_covered(gguf):
    first = hashed(gguf)
    assert hashed(gguf) == first
    data = bytearray(gguf.read_bytes())
    with Gguf.open(gguf) as opened:
        row = opened.tensors["blk.1.ffn_down.weight"].data[:100].tobytes()
    data[data.index(row)] ^= 1
    gguf.write_bytes(data)
    assert hashed(gguf) != first


def test_its_place_is_not(gguf):
    first = hashed(gguf)
    (gguf.parent / "other").mkdir()
    assert hashed(gguf.rename(gguf.parent / "other" / "name.gguf")) == first


@pytest.mark.parametrize(
    "more",
    [{"qwen2.rope.freq_base": 5000.0}, {"qwen2.context_length": 7}],
    ids=["rope", "context"],
)
def test_its_metadata_is(gguf, more):
    first = hashed(gguf)
    assert hashed(write_model(gguf, tiny("qwen2"), **more)) != first


def test_other_types_are_another_model(gguf):
    source = tiny("qwen2", hidden_size=64, num_attention_heads=4)
    first = hashed(write_model(gguf, source))
    assert hashed(write_model(gguf, source, "Q8_0")) != first


def test_a_change_of_a_file_is_seen_without_reading_it(gguf):
    first = files_fingerprint(gguf)
    assert files_fingerprint(gguf) == first
    with gguf.open("ab") as file:
        file.write(b"0")
    assert files_fingerprint(gguf) != first

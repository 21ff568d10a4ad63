"""Which model is which: the same whatever the files are called, another when a weight is."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from sparing.model import fingerprint as room
from sparing.model.fingerprint import fingerprint
from sparing.model.sources import find_model
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

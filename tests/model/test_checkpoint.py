"""Both formats of a model, read by the same functions."""

import importlib.util
import json
import shutil

import pytest
import torch

from sparing.errors import ModelError
from sparing.model.checkpoint import (
    open_gguf,
    read_config,
    read_model,
    read_tokenizer,
    reading,
)
from sparing.model.gguf import Gguf
from sparing.model.hub_decoder import HubDecoder
from sparing.train.reason import load_base
from tests.gguf_writer import write_gguf, write_model
from tests.tiny import tiny


@pytest.fixture
def path(tmp_path):
    return write_model(tmp_path / "model.gguf", tiny("llama"))


def test_a_file_is_opened_once_while_somebody_reads_it(path):
    with reading(path):
        assert open_gguf(path) is open_gguf(path)
    assert read_config(path).layers == 3


def test_a_changed_file_is_opened_anew(path):
    first = open_gguf(path)
    write_model(path, tiny("llama", num_hidden_layers=2))
    assert open_gguf(path) is not first
    assert read_config(path).layers == 2


def test_a_directory_needs_no_opening():
    with reading(tiny("llama")):
        assert read_config(tiny("llama")).layers == 3


def same(model, source) -> bool:
    ours, theirs = model.state_dict(), read_model(source, torch.float32).state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_the_hub_decoder_runs_a_gguf(path):
    pytest.importorskip("gguf")
    assert same(HubDecoder.load(path).model, tiny("llama"))


def test_a_gguf_is_trained_on(path, tmp_path):
    """And saved as what it then is: a checkpoint without blocks."""
    pytest.importorskip("gguf")
    model, tokenizer = load_base(str(path))
    assert tokenizer.encode("a<think>") == [64, 257]
    model.save_pretrained(tmp_path / "out")
    assert same(model, tmp_path / "out")
    assert "quantization_config" not in (tmp_path / "out" / "config.json").read_text()


@pytest.mark.parametrize("load", [HubDecoder.load, lambda path: load_base(str(path))])
def test_without_its_package_transformers_reads_no_gguf(path, load, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "sparing.model.checkpoint.find_spec", lambda name: None if name == "gguf" else found(name)
    )
    with pytest.raises(ModelError) as error:
        load(path)
    assert str(error.value) == (
        "transformers must have the package gguf to read model.gguf, got none; "
        "run: pip install gguf accelerate"
    )


def test_transformers_reads_no_split_model(path, tmp_path):
    with Gguf.open(path) as gguf:
        whole = {t.name: (t.type, t.shape, t.data.tobytes()) for t in gguf.tensors.values()}
        fields = gguf.metadata
    names = list(whole)
    for part, kept in enumerate((names[:5], names[5:])):
        more = {"split.no": part, "split.count": 2}
        file = tmp_path / f"m-{part + 1:05}-of-00002.gguf"
        write_gguf(file, (fields if part == 0 else {}) | more, {n: whole[n] for n in kept})
    assert read_config(file).layers == 3
    with pytest.raises(ModelError, match=r"must have a GGUF in one file, got m-00002-of-00002"):
        read_model(file, torch.float32)


def test_a_rope_that_transformers_leaves_out(path, tmp_path):
    pytest.importorskip("gguf")
    factors = torch.tensor([1.0, 1.0, 4.0, 8.0]).numpy().tobytes()
    with Gguf.open(path) as gguf:
        tensors = {t.name: (t.type, t.shape, t.data.tobytes()) for t in gguf.tensors.values()}
        tensors["rope_freqs.weight"] = "F32", (4,), factors
        scaled = write_gguf(tmp_path / "scaled.gguf", gguf.metadata, tensors)
    with pytest.raises(ModelError, match=r"transformers must read the rope scaling of a GGUF"):
        read_model(scaled, torch.float32)


def test_a_byte_level_tokenizer_that_loses_spaces(tmp_path):
    """Read as SentencePiece, as by some versions of transformers: spaces are not in its words."""
    path = shutil.copytree(tiny("llama"), tmp_path / "model")
    assert read_tokenizer(path).encode(" a") == [220, 64]
    file = path / "tokenizer.json"
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always"}
    told = json.loads(file.read_text()) | {"pre_tokenizer": metaspace, "decoder": metaspace}
    file.write_text(json.dumps(told))
    config = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(
        json.dumps(config | {"tokenizer_class": "PreTrainedTokenizerFast"})
    )
    with pytest.raises(ModelError, match=r"must give ' a b' back, got 'ab': its spaces are lost"):
        read_tokenizer(path)

"""``load``: wrong arguments are refused in one line, and before the weights are looked at."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import sparing
from sparing.errors import ModelError, OptionError
from sparing.options import Sampling
from tests.tiny import tiny, unchecked

WRONG = [
    ({"dtype": "float8"}, "dtype"),
    ({"dtype": "fp32"}, "dtype"),
    ({"dtype": ["float32"]}, "dtype"),
    ({"decoder": "transformers"}, "decoder"),
    ({"decoder": None}, "decoder"),
    ({"weights": "int3"}, "weights"),
    ({"weights": "q4_k"}, "weights"),
    ({"weights": None}, "weights"),
    ({"decoder": "hub", "weights": "q8_0"}, "weights"),
    ({"threads": 0}, "threads"),
    ({"threads": -2}, "threads"),
    ({"threads": 1.5}, "threads"),
    ({"threads": "2"}, "threads"),
    ({"threads": True}, "threads"),
    ({"device": "tpu9"}, "device"),
    ({"device": "cuda:99"}, "device"),
    ({"device": None}, "device"),
    ({"decoder": "hub", "device": "cuda:99"}, "device"),
    ({"markers": ("<t>",)}, "markers"),
    ({"markers": ("<t>", "")}, "markers"),
    ({"markers": "<t>"}, "markers"),
    ({"markers": 3}, "markers"),
]


@pytest.fixture
def without_weights(tmp_path):
    """A model whose weights would be refused as soon as somebody looked at them."""
    path = shutil.copytree(tiny("llama"), tmp_path / "model")
    (path / "model.safetensors").write_bytes(b"nothing")
    return path


@pytest.mark.parametrize(("arguments", "name"), WRONG, ids=lambda value: str(value))
def test_a_wrong_argument(without_weights, arguments, name):
    threads = torch.get_num_threads()
    with unchecked(), pytest.raises(OptionError) as error:
        sparing.load(str(without_weights), **arguments)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"{name} must be ")
    assert str(arguments[name]) in message
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", torch.float64])
def test_dtypes(dtype):
    engine = sparing.load(str(tiny("llama")), dtype=dtype)
    assert str(engine.decoder.dtype).endswith(str(dtype))
    sampling = Sampling(max_new_tokens=3, ignore_eos=True)
    [result] = engine.generate([[1, 2]], sampling=sampling)
    assert len(result.token_ids) == 3


def test_names_of_version_0_1_still_load():
    with pytest.warns(DeprecationWarning, match="kind has no effect any more, got 'plain'"):
        engine = sparing.load(str(tiny("llama")), dtype="auto", kind="plain")
    assert engine.decoder.dtype == torch.float32
    assert "llama" in repr(engine)
    assert "3 layers" in repr(engine)


def test_threads():
    before = torch.get_num_threads()
    try:
        sparing.load(str(tiny("llama")), threads=before + 1)
        assert torch.get_num_threads() == before + 1
        sparing.load(str(tiny("llama")))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("decoder", ["fast", "hub"])
def test_a_path_object(decoder):
    engine = sparing.load(Path(tiny("llama")), decoder=decoder)
    assert engine.name == str(tiny("llama"))


@pytest.mark.parametrize("name", ["pockett", "smollm", "no/such/dir", "./nowhere", "", " ", "a b"])
def test_an_unknown_name(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError) as error:
        sparing.load(name)
    assert "\n" not in str(error.value)
    assert repr(name) in str(error.value)


def test_an_unknown_keyword_is_pythons():
    with pytest.raises(TypeError, match="dtpye"):
        sparing.load(str(tiny("llama")), dtpye="float32")


def test_nothing_is_printed(capfd, tmp_path):
    path = shutil.copytree(tiny("llama"), tmp_path / "model")
    config = json.loads((path / "config.json").read_text()) | {"unknown_field": 3}
    (path / "config.json").write_text(json.dumps(config))
    sparing.load(str(path))
    assert capfd.readouterr() == ("", "")

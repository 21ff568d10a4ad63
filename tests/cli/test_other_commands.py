"""`sparing models`, `chat` and `bench decode`."""

import io
import json
import os
import subprocess
import sys

import pytest

from sparing import Sampling, __version__, load
from sparing.cli.prompts import read_prompts
from sparing.model.hub_cache import cached_models
from sparing.model.sources import POCKET
from sparing.tasks.families import FAMILIES
from sparing.tasks.gym import create
from tests.cli.command import assert_one_line
from tests.tiny import checkpoint, tiny


def test_models(sparing):
    found = json.loads(sparing("models", "--json").out)
    assert found["smollm2"]["licence"] == "Apache-2.0"
    assert "smollm2" in sparing("models").out


def test_models_says_what_pocket_can_do(sparing):
    pocket = json.loads(sparing("models", "--json").out)["pocket"]
    assert pocket["families"].keys() == FAMILIES.keys()
    assert pocket["predictor"] is True
    for name, family in pocket["families"].items():
        for level in ("standard", "hard"):
            assert create(family["dataset"], family[level], seed=0, size=1)[0]["question"], name
    table = sparing("models").out
    assert all(f"{name}\n  " in table for name in FAMILIES)


@pytest.mark.parametrize("columns", [40, 80])
def test_models_fit_the_terminal(sparing, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = sparing("models").out.splitlines()
    for name in ("pocket", "pocket-latent", "pocket-cot", "smollm2"):
        assert lines.count(name) == 1
    assert all(len(line) <= columns for line in lines if "/" not in line)
    assert f"  {POCKET}" in [line.replace("Apache-2.0, ", "") for line in lines]


def test_models_of_the_hub_s_cache(sparing, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    files = {
        "models--org--one": ["config.json", "model.safetensors"],
        "models--org--two": ["two-Q4_K_M.gguf", "two-q8_0.gguf", "mmproj-f16.gguf"],
        "models--org--half": ["config.json"],
        "datasets--org--one": ["config.json", "model.safetensors"],
    }
    for name, inside in files.items():
        folder = tmp_path / name
        (folder / "snapshots" / "abc").mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("abc")
        for file in inside:
            (folder / "snapshots" / "abc" / file).write_text("")
    (tmp_path / "models--org--never-finished").mkdir()
    names = ["org/one", "org/two:Q4_K_M", "org/two:Q8_0"]
    assert list(cached_models()) == names
    table = sparing("models").out.splitlines()
    assert [line for line in table if line in names] == names
    found = json.loads(sparing("models", "--json").out)
    assert found["org/two:Q8_0"]["path"].endswith("/snapshots/abc/two-q8_0.gguf")


def test_question_outside_pockets_families_is_flagged(sparing):
    outcome = sparing("run", "Why is the sky blue?", "--max-new-tokens", 4)
    assert outcome.code == 0
    assert "note: pocket knows four families" in outcome.err
    content = json.loads(sparing("run", "Why?", "--max-new-tokens", 4, "--json").out)
    assert "means nothing" in content["notice"]


def test_help_says_what_there_is(sparing):
    outcome = sparing("--help")
    assert outcome.code == 0
    for command in ("run", "chat", "models", "bench"):
        assert command in outcome.out


def test_chat_goes_on_and_drops_thoughts(sparing, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("hi\nand now?\n/new\nhi\n/exit\n"))
    outcome = sparing("chat", "--model", tiny(), "--max-new-tokens", 5, "--temperature", 0)
    assert outcome.code == 0
    assert outcome.err.count("ended by") == 3
    sampling = Sampling(max_new_tokens=5, temperature=0)
    (alone,) = load(str(tiny())).generate([[{"role": "user", "content": "hi"}]], sampling=sampling)
    assert outcome.out.count(alone.text) >= 2  # a new chat begins where the first one did


def test_chat_flags_what_pocket_does_not_know(sparing, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("Why is the sky blue?\n"))
    outcome = sparing("chat", "--max-new-tokens", 4)
    assert "note: pocket knows four families" in outcome.err


def test_chat_needs_a_template(sparing, tmp_path):
    path = checkpoint(tmp_path, "llama")
    (path / "chat_template.jinja").unlink()
    outcome = sparing("chat", "--model", path)
    assert outcome.code == 2
    assert "chat template" in outcome.err


NAMES = [
    "speedup_vs_transformers",
    "bandwidth_share",
    "verify8_over_step_64",
    "verify8_over_step_4096",
    "last_over_first_quarter",
    "kv_bytes_share",
    "batch8_over_batch1",
]


MORE_NAMES = [
    "step_ms_64",
    "step_ms_4096",
    "prefill_tokens_per_s",
    "load_seconds",
    "load_peak_over_file",
    "two_engines_share",
]


def test_bench_decode_asks_a_task_s_questions(sparing, tmp_path, monkeypatch):
    """Or prompts, not both; eight at most, whatever the task has."""
    asked = []
    monkeypatch.setattr(
        "sparing.evaluate.bench_decode.bench_decode",
        lambda bench, *more: (asked.extend(bench.prompts), ([], {"left_out": {}}))[1],
    )
    outcome = sparing("bench", "decode", "--model", tiny(), "--task", "legs,sums")
    assert outcome.code == 0, outcome.err
    assert len(asked) == 8
    assert ["legs" in prompt for prompt in asked] == [True, False] * 4
    file = tmp_path / "prompts.txt"
    both = sparing("bench", "decode", "--model", tiny(), "--task", "legs", "--prompts", file)
    assert_one_line(both, "a task or prompts must be given, got both")


@pytest.mark.slow
def test_bench_decode_writes_its_rows_with_all_they_are_made_of(sparing, tmp_path):
    figures, picture = tmp_path / "out" / "decode.json", tmp_path / "decode.png"
    path = tiny("llama", max_position_embeddings=8192)
    outcome = sparing("bench", "decode", "--model", path, "--n", 1, "--json", figures,
                      "--plot", picture)  # fmt: skip
    assert outcome.code == 0, outcome.err
    found = json.loads(figures.read_text())
    names = [row["name"] for row in found["rows"]]
    assert names[: len(NAMES)] == NAMES
    assert names[len(NAMES) :] == MORE_NAMES
    assert found["model"] == path.name
    assert all(row["better"] in ("higher", "lower") and row["value"] > 0 for row in found["rows"])
    assert set(found) >= {"raw", "machine", "threads", "dtype", "versions", "commit", "command"}
    assert picture.exists()
    (share,) = (row["value"] for row in found["rows"] if row["name"] == "kv_bytes_share")
    raw = found["raw"]
    assert share == raw["bounded_stats"]["kv_bytes_peak"] / raw["full_kv_bytes"]
    assert len(raw["bounded_token_seconds"]) == 2048


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--llama-cpp", "no/python"), "--llama-cpp must be a Python interpreter"),
        (("--openvino", "no/python"), "--openvino must be a Python interpreter"),
        (("--text", "no.jsonl"), "--text must be a .jsonl file"),
    ],
)
def test_bench_decode_refuses_what_it_cannot_use(sparing, never_read, options, said):
    assert_one_line(sparing("bench", "decode", "--model", never_read, *options), said)


def test_a_baseline_that_cannot_be_measured_is_said(sparing, monkeypatch):
    monkeypatch.setattr("sparing.evaluate.bench_decode_parts.parts", lambda long: [])
    asked = ("bench", "decode", "--model", tiny(), "--llama-cpp", sys.executable)
    outcome = sparing(*asked)
    assert outcome.code == 0, outcome.err
    assert "llama-cpp is left out: the model is no GGUF\n" in outcome.err


@pytest.mark.parametrize("flag", ["--json", "--plot"])
def test_bench_refuses_a_file_that_it_could_not_write(sparing, tmp_path, never_read, flag):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "out.png"):
        outcome = sparing("bench", "decode", "--model", never_read, flag, path)
        assert outcome.code == 2
        assert "must be a file to write" in outcome.err


def test_bench_refuses_a_picture_of_no_known_kind(sparing, tmp_path, never_read):
    outcome = sparing("bench", "decode", "--model", never_read, "--plot", tmp_path / "a.txt")
    assert outcome.code == 2
    assert "--plot must end in .png" in outcome.err


def test_prompts_as_text_or_as_objects(tmp_path):
    text, objects = tmp_path / "a.txt", tmp_path / "a.jsonl"
    text.write_text("one\n\ntwo\n")
    objects.write_text('{"turns": ["one", "more"]}\n{"prompt": "two"}\n')
    assert read_prompts(text) == read_prompts(objects) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.txt", None), ("a.txt", ""), ("a.txt", "\n \n"), ("a.jsonl", "[]"), ("a.jsonl", "{}")],
)
def test_bench_prompts_that_are_none(sparing, tmp_path, name, content):
    file = tmp_path / name
    if content is not None:
        file.write_text(content)
    outcome = sparing("bench", "decode", "--model", tiny(), "--prompts", file)
    assert outcome.code == 2
    assert "--prompts must" in outcome.err


@pytest.mark.parametrize("group", [(), ("bench",), ("train",), ("tune",)])
def test_no_command_shows_the_help_once(sparing, group):
    outcome = sparing(*group)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("Usage: ") == 1
    assert "error" not in outcome.err


def test_help_is_a_command_too(sparing):
    assert sparing("help") == sparing("--help")
    assert sparing("help", "train", "reason") == sparing("train", "reason", "-h")
    assert_one_line(sparing("help", "rnu"), "No such command 'rnu'. Did you mean 'run'")


def test_a_shell_completes_commands_and_flags():
    def completed(typed):
        env = os.environ | {"_SPARING_COMPLETE": "complete_bash", "COMP_WORDS": typed}
        env["COMP_CWORD"] = str(len(typed.split()) - 1)
        command = [sys.executable, "-m", "sparing"]
        return subprocess.run(command, env=env, capture_output=True, text=True).stdout.split()

    assert completed("sparing be") == ["bench"]
    assert completed("sparing run --bud") == ["--budget"]


@pytest.mark.parametrize("short", ["-h", "--help"])
def test_help_by_either_name(sparing, short):
    outcome = sparing("run", short)
    assert outcome.code == 0
    assert "--max-new-tokens" in outcome.out


def test_version(sparing):
    assert sparing("--version") == (0, f"sparing {__version__}\n", "")


def test_as_a_module():
    outcome = subprocess.run(
        [sys.executable, "-m", "sparing", "--version"], capture_output=True, text=True
    )
    assert (outcome.returncode, outcome.stdout) == (0, f"sparing {__version__}\n")

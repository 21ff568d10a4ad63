"""The real programs, where the environment names an interpreter that has them and Sparing.

SPARING_LM_EVAL, SPARING_LLM, SPARING_KVPRESS: a Python each; the last one needs no Sparing
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

import sparing

WEIGHTS = Path(sparing.__file__).parent / "pocket" / "weights"
ROWS = [
    {"question": "What is 7 + 9?", "answer": "7 + 9 is 16\n#### 16"},
    {"question": "What is 12 - 4?", "answer": "12 - 4 is 8\n#### 8"},
]
TASK = """\
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
output_type: generate_until
test_split: test
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["Question:"], do_sample: false, max_gen_toks: 40}}
metric_list: [{{metric: exact_match}}]
"""


def python_of(name: str) -> str:
    found = os.environ.get(name)
    if not found:
        pytest.skip(f"{name} names no interpreter")
    return found


def run(command: list[object], cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **env}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True
    )


@pytest.mark.slow
def test_lm_eval(tmp_path):
    python = python_of("SPARING_LM_EVAL")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "sums.yaml").write_text(TASK.format(rows=rows))
    ask = ["--model", "sparing", "--tasks", "sums", "--include_path", tmp_path, "--limit", 2]
    command = [python, "-m", "sparing.plugins.lm_eval", *ask, "--output_path", tmp_path / "out"]
    done = run([*command, "--model_args", "pretrained=pocket,draft=lookup"], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    [found] = tmp_path.glob("out/**/results_*.json")
    assert "exact_match,none" in json.loads(found.read_text())["results"]["sums"]
    wrong = run([*command, "--model_args", "pretrained=pocket,bugdet=3"], tmp_path)
    assert wrong.stderr.splitlines()[-1].startswith("error: a model argument must be one of")
    theirs = run([*command, "--model", "dummy"], tmp_path)
    assert theirs.returncode == 0, "lm-eval's own models are still there"


@pytest.mark.slow
def test_llm(tmp_path):
    python = python_of("SPARING_LLM")
    own = tmp_path / "llm"

    def llm(*words: object) -> subprocess.CompletedProcess[str]:
        return run([python, "-m", "llm", *words], tmp_path, LLM_USER_PATH=str(own))

    assert "sparing/pocket" in llm("models").stdout
    asked = llm("-m", "sparing/pocket", "What is 382 - 197 + 415?", "-o", "budget", 200, "-u")
    assert asked.stdout.strip() == "600"
    assert "check" in asked.stderr, "the thought, apart from the answer"
    assert "Token usage" in asked.stderr
    assert llm("-c", "What is 5 + 6?").returncode == 0
    assert "must be at least" in llm("-m", "sparing/pocket", "hi", "-o", "budget", 3).stderr
    link = tmp_path / "link"
    link.symlink_to(WEIGHTS)  # as files in the hub's cache are: what they point to has no name
    added = llm("sparing", "add", "mine", "link")
    assert added.stdout == f"sparing/mine is {link}\n"
    assert llm("-m", "sparing/mine", "What is 5 + 6?").returncode == 0
    assert llm("sparing", "remove", "mine").returncode == 0
    assert "sparing/mine" not in llm("models").stdout


@pytest.mark.slow
def test_llm_finds_mistakes_before_a_model_loads(tmp_path):
    python = python_of("SPARING_LLM")
    for options, said in (
        (["bugdet", 3], "bugdet"),
        (["budget", "much"], "must be a count (512) or a share (0.25), got 'much'"),
        (["policy", "window"], "policy window needs a budget, got none"),
        (["weights", "q9"], "weights"),
    ):
        command = [python, "-m", "llm", "-m", "sparing/pocket", "hi", "-o", *options]
        done = run(command, tmp_path, LLM_USER_PATH=str(tmp_path))
        assert done.returncode == 1
        assert said in done.stderr
        assert "loading" not in done.stderr


@pytest.mark.slow
def test_llm_ends_an_answer_at_a_stop_string(tmp_path):
    python = python_of("SPARING_LLM")
    command = [python, "-m", "llm", "-m", "sparing/pocket", "-R", "What is 382 - 197 + 415?"]
    done = run([*command, "-o", "stop", "00"], tmp_path, LLM_USER_PATH=str(tmp_path))
    assert done.stdout.strip() == "6"
    assert "check" not in done.stderr, "the thought is hidden"


@pytest.mark.slow
def test_llm_runs_on_without_our_models_where_their_names_are_broken(tmp_path):
    python = python_of("SPARING_LLM")
    (tmp_path / "sparing.json").write_text("{")
    done = run([python, "-m", "llm", "models"], tmp_path, LLM_USER_PATH=str(tmp_path))
    assert done.returncode == 0
    assert "gpt" in done.stdout
    assert "sparing.json must be JSON" in done.stderr
    added = [python, "-m", "llm", "sparing", "add", "mine", WEIGHTS]
    assert "must be JSON" in run(added, tmp_path, LLM_USER_PATH=str(tmp_path)).stderr
    assert (tmp_path / "sparing.json").read_text() == "{"


def test_llm_models_imports_nothing_heavy(tmp_path):
    python = python_of("SPARING_LLM")
    code = """
import sys
from llm.cli import cli
cli(["models"], standalone_mode=False)
print([name for name in ("torch", "transformers", "tokenizers") if name in sys.modules])
"""
    done = run([python, "-c", code], tmp_path, LLM_USER_PATH=str(tmp_path))
    assert "sparing/pocket" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_kvpress(tmp_path):
    """The predictor keeps what the answer needs; a score that knows nothing of it does not."""
    python = python_of("SPARING_KVPRESS")
    example = Path(__file__).parents[2] / "examples" / "kvpress_learned.py"
    done = run([python, example, WEIGHTS, "What is 731 + 264 - 518 + 77 - 305?", 80], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    said = dict(line.split() for line in done.stdout.splitlines())
    assert said["full"] == said["learned"] == "249"
    assert said["knorm"] != "249"

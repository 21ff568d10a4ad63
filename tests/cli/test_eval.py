"""`sparing eval` and `compare`, from the shell's side."""

import json
import os

import pytest

from tests.cli.command import assert_one_line
from tests.tiny import tiny

FAST = ("--max-new-tokens", 8, "--temperature", 0)


def evaluated(sparing, file, *options):
    outcome = sparing("eval", "--model", tiny(), "--json", file, *FAST, *options)
    assert outcome.code == 0, outcome.err
    return json.loads(file.read_text())


def test_eval_of_all_families_and_compare_with_itself(sparing, tmp_path):
    file, figures = tmp_path / "a.json", tmp_path / "c.json"
    content = evaluated(sparing, file, "--task", "pocket", "--n", 2, "--seed", 3)
    assert list(content["tasks"]) == ["legs", "countdown", "sums", "times"]
    assert all({"accuracy", "low", "high", "n"} <= set(t) for t in content["tasks"].values())
    assert len(content["rows"]) == 8
    wanted = {"task", "id", "correct", "thinking_tokens", "seconds", "kv_bytes_peak"}
    assert all(wanted <= set(row) for row in content["rows"])
    assert os.listdir(tmp_path) == ["a.json"]
    outcome = sparing("compare", file, file, "--json", figures)
    assert outcome.code == 0
    found = json.loads(figures.read_text())
    assert [found[name] for name in ("difference", "low", "high", "n")] == [0, 0, 0, 8]
    for name in ("legs", "countdown", "sums", "times", "all"):
        assert name in outcome.out


def test_the_table_is_there_without_json(sparing):
    outcome = sparing("eval", "--model", tiny(), "--task", "sums", "--n", 2, *FAST)
    assert outcome.code == 0
    assert "sums" in outcome.out
    assert "0.0% to 65.8%" in outcome.out


def test_seed_chooses_problems_and_sample_seed_the_noise(sparing, tmp_path):
    options = ("--task", "sums", "--n", 2, "--temperature", 1)
    seeds = [(0, 0), (0, 1), (1, 0), (0, 0)]
    rows = [
        evaluated(sparing, tmp_path / f"{at}.json", *options, "--seed", s, "--sample-seed", noise)[
            "rows"
        ]
        for at, (s, noise) in enumerate(seeds)
    ]
    questions, answers = (
        [[row[name] for row in of_run] for of_run in rows] for name in ("question", "answer")
    )
    assert questions[0] == questions[1] == questions[3] != questions[2]
    assert answers[0] == answers[3] != answers[1]


def test_ctrl_c_leaves_the_rows_and_the_same_command_goes_on(sparing, tmp_path, ctrl_c_at_answer):
    ctrl_c_at_answer(3)
    file, part = tmp_path / "a.json", tmp_path / "a.json.part.jsonl"
    command = ("eval", "--model", tiny(), "--task", "sums", "--n", 6, "--json", file, *FAST)
    outcome = sparing(*command)
    assert outcome.code == 130
    assert "interrupted; 2 rows are kept in" in outcome.err
    assert "the same command goes on" in outcome.err
    assert not file.exists()
    assert len(part.read_text().splitlines()) == 3
    assert_one_line(sparing(*command, "--seed", 1), "got another seed (0 then, 1 now)")
    other = sparing(*command, "--weights", "bfloat16")
    assert_one_line(other, "got another weights ('auto' then, 'bfloat16' now)")
    assert sparing(*command).code == 0
    assert not part.exists()
    assert len(json.loads(file.read_text())["rows"]) == 6


WRONG = {
    "no task": ((), "Missing option"),
    "task": (("--task", "pokcet"), "did you mean pocket"),
    "file": (("--task", "none.jsonl"), "a task file must exist, got none.jsonl"),
    "n": (("--task", "sums", "--n", 0), "--n"),
    "batch": (("--task", "sums", "--batch-size", 0), "--batch-size"),
    "seed": (("--task", "sums", "--seed", -1), "--seed"),
    "option": (("--task", "sums", "--top-p", 0), "--top-p must be greater than 0"),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_line_before_weights_load(sparing, never_read, arguments, said):
    outcome = sparing("eval", *arguments, "--model", never_read)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert said in outcome.err


def test_what_this_model_cannot_do_is_one_line_too(sparing, tmp_path):
    model = tiny(markers=None)
    outcome = sparing("eval", "--model", model, "--task", "sums", "--think-budget", 0,
                      "--json", tmp_path / "a.json")  # fmt: skip
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert "--think-budget needs a model that marks its thoughts" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_json_that_cannot_be_written_is_refused_first(sparing, tmp_path):
    for command in (("eval", "--task", "sums"), ("compare", "a", "b")):
        outcome = sparing(*command, "--json", tmp_path)
        assert outcome.code == 2
        assert "must be a file to write" in outcome.err


def test_compare_of_what_is_no_result(sparing, tmp_path):
    outcome = sparing("compare", tmp_path / "a.json", tmp_path / "b.json")
    assert (outcome.code, outcome.out) == (2, "")
    assert "a.json must be the --json of a finished `sparing eval`" in outcome.err
    assert outcome.err.count("\n") == 1

"""`sparing bench memory`, from the shell's side."""

import json
import os

import pytest

from tests.memory.small import write_predictor
from tests.tiny import tiny

SHORT = {"num_hidden_layers": 2, "max_position_embeddings": 300}
CLOCK = ("--budget", 0.5, "--new-tokens", 60, "--rounds", 1)
TOLD = {"fit": {"target": "answer"}, "horizons": [16, 32]}


def command(*options):
    return ("bench", "memory", "--model", tiny(**SHORT), "--task", "sums,sums-hard", "--n", 2,
            "--max-new-tokens", 30, *CLOCK, *options)  # fmt: skip


@pytest.mark.slow
def test_bench_memory_writes_its_rows_with_all_they_are_made_of(sparing, tmp_path):
    write_predictor(tmp_path / "predictor", tiny(**SHORT), **TOLD)
    figures, picture = tmp_path / "out" / "memory.json", tmp_path / "memory.png"
    kept = ("--json", figures, "--plot", picture, "--trace-plot", tmp_path / "trace.png")
    arms = ("--shares", "0.25,0.5", "--policies", "window,learned")
    outcome = sparing(*command("--predictor", tmp_path / "predictor", *arms, *kept))
    assert outcome.code == 0, outcome.err
    found = json.loads(figures.read_text())
    rows = {row["name"]: row for row in found["rows"]}
    for policy in ("window", "learned"):
        for share in ("0.25", "0.5"):
            for level in ("", "/standard", "/hard", "/sums", "/sums-hard"):
                assert f"accuracy/{policy}/{share}{level}" in rows
                paired = rows[f"paired_vs_full/{policy}/{share}{level}"]
                assert paired["low"] <= paired["value"] <= paired["high"]
            assert 0 < rows[f"kv_share/{policy}/{share}"]["value"] < 1
    wanted = {"predictor_share_of_step", "time_vs_transformers", "kv_bytes_vs_transformers"}
    assert wanted <= rows.keys()
    assert not [name for name in rows if "0.1" in name]
    assert all(row["better"] in ("higher", "lower") for row in rows.values())
    assert set(found) >= {"raw", "machine", "threads", "dtype", "versions", "commit", "command"}
    of_rows = found["raw"]["rows"]
    assert len(of_rows) == 1 + 2 * 2
    kept = of_rows["learned/0.5"]["sums-hard"]
    assert {len(values) for values in kept.values()} == {2}
    assert rows["accuracy/learned/0.5/sums-hard"]["value"] == sum(kept["correct"]) / 2
    assert picture.exists()
    assert sorted(os.listdir(figures.parent)) == ["memory.json"]
    assert "no trace drawn: none of the first task was solved" in outcome.err
    assert "full cache" in outcome.out


@pytest.mark.slow
def test_several_processes_write_the_same_rows(sparing, tmp_path):
    found = []
    for workers in (1, 2):
        file = tmp_path / f"{workers}.json"
        arms = ("--policies", "window,rkv", "--shares", "0.5")
        outcome = sparing(*command(*arms, "--json", file, "--workers", workers))
        assert outcome.code == 0, outcome.err
        found.append(json.loads(file.read_text())["raw"])
    one, two = (raw["rows"] for raw in found)
    assert (found[0]["workers"], found[1]["workers"]) == (1, 2)
    for tasks in (*one.values(), *two.values()):
        for fields in tasks.values():
            del fields["seconds"]
    assert one == two


@pytest.mark.slow
def test_only_the_clock(sparing, tmp_path):
    """As for a model of which no task is known."""
    file, prompts = tmp_path / "a.json", tmp_path / "prompts.txt"
    prompts.write_text("Why?\nHow?\n")
    model = ("bench", "memory", "--model", tiny(**SHORT), *CLOCK, "--json", file)
    for more, asked in (((), 1), (("--prompts", prompts), 2)):
        outcome = sparing(*model, *more, "--overwrite")
        assert outcome.code == 0, outcome.err
        found = json.loads(file.read_text())
        names = [row["name"] for row in found["rows"]]
        assert names == ["time_vs_transformers", "kv_bytes_vs_transformers"]
        assert len(found["raw"]["speed_stats"]) == asked
    outcome = sparing(*model, "--overwrite", "--plot", tmp_path / "a.png")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "--plot needs problems to solve, got none; pass --task" in outcome.err


@pytest.mark.slow
def test_the_clock_has_a_budget_of_its_own(sparing, tmp_path):
    """What is timed where no --budget is given."""
    model = tiny(**SHORT | {"max_position_embeddings": 900})
    file, timed = tmp_path / "a.json", ("--new-tokens", 850, "--rounds", 1)
    outcome = sparing("bench", "memory", "--model", model, *timed, "--json", file)
    assert outcome.code == 0, outcome.err
    found = json.loads(file.read_text())
    assert found["raw"]["speed_stats"][0]["evictions"] > 0
    assert "at budget 768" in found["rows"][0]["what"]


@pytest.mark.slow
def test_ctrl_c_leaves_the_rows_and_the_same_command_goes_on(sparing, tmp_path, ctrl_c_at_answer):
    ctrl_c_at_answer(7)
    file, part = tmp_path / "a.json", tmp_path / "a.json.part.jsonl"
    asked = command("--policies", "window", "--shares", "0.5", "--json", file)
    outcome = sparing(*asked)
    assert outcome.code == 130
    assert "6 rows are kept in" in outcome.err
    assert len(part.read_text().splitlines()) == 7
    other = sparing(*asked, "--shares", 0.4)
    assert other.code == 2
    assert "got another shares ([0.5] then, [0.4] now)" in " ".join(other.err.split())
    assert sparing(*asked).code == 0
    assert not part.exists()
    kept = json.loads(file.read_text())["raw"]["rows"]
    assert [len(tasks["sums"]["id"]) for tasks in kept.values()] == [2, 2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--task", "pokcet"), "did you mean pocket"),
        (("--policies", "window,lerned"), "policies must be among"),
        (("--policies", "learned"), "policy learned needs a model with an importance predictor"),
        (("--shares", "a"), "--shares must be numbers with commas, got 'a'"),
        (("--shares", "2"), "shares must lie in (0, 1], got 2"),
        (("--split", "train"), "split must be test or validation"),
        (("--local", "1.0"), "local must leave room"),
        (("--plot", "a.txt"), "--plot must end in .png"),
        (("--trace-plot", "a.png"), "--trace-plot needs an importance predictor"),
        (("--predictor", "nowhere"), "must hold an importance predictor"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(sparing, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    outcome = sparing(*command(*options))
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert said in outcome.err
    assert os.listdir(tmp_path) == []

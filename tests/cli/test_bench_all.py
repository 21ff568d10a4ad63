"""`sparing bench all` and `sparing bench headline`, from the shell's side."""

import json
import os

import pytest

from sparing.evaluate.bench_all_arms import sparing_arms
from tests.cli.command import assert_one_line
from tests.latent.thinking import thinking
from tests.tiny import tiny

ASKED = ("--task", "sums,sums-hard", "--n", 1, "--new-tokens", 24, "--budget", 0.5)
PEERS = ("transformers", "transformers-lookup")


@pytest.mark.slow
def test_bench_all_writes_its_rows_with_all_they_are_made_of(sparing, tmp_path):
    file, picture = tmp_path / "out" / "all.json", tmp_path / "all.png"
    bench = ("bench", "all", "--model", thinking(tau=0.4), *ASKED)
    outcome = sparing(*bench, "--json", file, "--plot", picture)
    assert outcome.code == 0, outcome.err
    found = json.loads(file.read_text())
    rows = {row["name"]: row for row in found["rows"]}
    arms = [*PEERS, *sparing_arms(True)]
    for arm in arms:
        for name in ("text_tokens", "distinct4", "seconds", "accuracy"):
            assert rows[f"{name}/{arm}"]["value"] >= 0
        for name in ("time", "token_time", "kv_bytes"):
            assert (f"{name}_vs_transformers/{arm}" in rows) == (arm != "transformers")
        assert (f"time_vs_undrafted/{arm}" in rows) == ("depth" in arm)
    assert all(row["bar"] is None for row in rows.values())
    assert not [name for name in rows if "openvino" in name]
    assert found["raw"]["left_out"]["openvino"] == "no --openvino given"
    assert set(found) >= {"raw", "machine", "threads", "dtype", "versions", "commit", "command"}
    kept = found["raw"]["rows"]
    assert list(kept) == arms
    assert (
        rows["text_tokens/off"]["value"]
        == sum(kept["off"][task]["text_tokens"][0] for task in ("sums", "sums-hard")) / 2
    )
    assert picture.exists()
    assert sorted(os.listdir(file.parent)) == ["all.json"]
    assert "memory + depth + latent" in outcome.out
    again = sparing("bench", "headline", file, file, "--plot", tmp_path / "two.png")
    assert again.code == 0, again.err
    assert again.out.count("memory + depth + latent") == 2
    assert (tmp_path / "two.png").exists()


@pytest.mark.slow
def test_prompts_are_answered_at_length(sparing, tmp_path):
    file, prompts = tmp_path / "a.json", tmp_path / "prompts.txt"
    prompts.write_text("Why?\nHow?\n")
    bench = ("bench", "all", "--model", tiny(), "--arms", "transformers,off,memory", "--prompts",
             prompts, "--n", 3, "--new-tokens", 120, "--budget", 100, "--json", file)  # fmt: skip
    assert sparing(*bench).code == 0
    found = json.loads(file.read_text())
    asked = found["raw"]["rows"]["memory"]["prompts"]
    assert asked["text_tokens"] == [120] * 3
    assert min(asked["evictions"]) > 0
    assert found["raw"]["left_out"]["depth"] == "not asked for"
    assert not [row for row in found["rows"] if row["name"].startswith("accuracy")]
    greedy = sparing(*bench, "--greedy", "--overwrite")
    assert greedy.code == 0
    rows = json.loads(file.read_text())["raw"]["rows"]
    same = [rows[arm]["prompts"]["tokens"] for arm in ("transformers", "off")]
    assert same[0] == same[1]


@pytest.mark.slow
def test_ctrl_c_leaves_the_rows_and_the_same_command_goes_on(sparing, tmp_path, ctrl_c_at_answer):
    ctrl_c_at_answer(4)
    file, part = tmp_path / "a.json", tmp_path / "a.json.part.jsonl"
    bench = (
        "bench",
        "all",
        "--model",
        tiny(),
        *ASKED,
        "--arms",
        "off,memory,depth",
        "--json",
        file,
    )
    outcome = sparing(*bench)
    assert outcome.code == 130
    assert "rows are kept in" in outcome.err
    assert len(part.read_text().splitlines()) == 1 + 4 + 3  # four thoughts' lengths
    assert_one_line(sparing(*bench, "--sample-seed", 4), "got another seed (0 then, 4 now)")
    assert_one_line(sparing(*bench, "--threads", 1), "got another threads (None then, 1 now)")
    assert sparing(*bench).code == 0
    assert not part.exists()
    kept = json.loads(file.read_text())["raw"]["rows"]
    assert [len(tasks["sums"]["id"]) for tasks in kept.values()] == [1] * 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model", "nowhere"), "a model must be one of"),
        (("--task", "pokcet"), "did you mean pocket"),
        (("--arms", "off,latent"), "arms must be among transformers"),
        (("--arms", "openvino"), "no --openvino given; leave it out"),
        (("--openvino", "no/python"), "--openvino must be a Python interpreter"),
        (("--budget", "1.5"), "or a share above 0 and at most 1"),
        (("--plot", "a.txt"), "--plot must end in .png"),
        (("--prompts", "nowhere.txt"), "got both; leave one out"),
        (("--predictor", "nowhere"), "must hold an importance predictor"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(sparing, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    outcome = sparing("bench", "all", "--model", tiny(), *ASKED, *options)
    assert_one_line(outcome, said)
    assert os.listdir(tmp_path) == []


def test_headline_refuses_what_is_no_report(sparing, tmp_path):
    file = tmp_path / "a.json"
    file.write_text("{}")
    assert_one_line(sparing("bench", "headline", file), "must be a report of `sparing bench all`")
    assert_one_line(sparing("bench", "headline", file, "--plot", "a.txt"), "must end in .png")

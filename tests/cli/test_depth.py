"""`sparing bench depth` and `sparing tune depth`, from the shell's side."""

import json
import shutil
from itertools import count

import pytest

from sparing import Depth, Sampling, load
from sparing.cli.prompts import CHAT, read_groups
from sparing.depth.layer_sets import sets_file
from sparing.depth.swift import RATIO
from sparing.evaluate import bench_depth_cold, tune_depth
from sparing.kernels.native import announce
from sparing.model.checkpoint import read_tokenizer
from sparing.model.fingerprint import fingerprint
from tests.cli.command import assert_one_line
from tests.depth.planted import LAYERS, planted
from tests.tiny import tiny

PROMPTS = [
    {"category": "writing", "turns": ["Compose a post.", "Again."]},
    {"category": "math", "turns": ["What is 3 + 4?"]},
    {"category": "qa", "turns": ["Who was it?"]},
    {"category": "qa", "turns": ["Who else?"]},
    {"category": "qa", "turns": ["Where was it?"]},
]


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, PROMPTS)))
    return file


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Sets that are tuned here are of this test alone."""
    monkeypatch.setenv("SPARING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.slow
def test_bench_depth_writes_its_rows_with_all_they_are_made_of(
    sparing, tmp_path, prompts, monkeypatch
):
    monkeypatch.setattr(bench_depth_cold, "LONGEST", 700)
    figures, picture = tmp_path / "depth.json", tmp_path / "depth.png"
    outcome = sparing(
        "bench", "depth", "--model", planted(), "--prompts", prompts, "--n", 2, "--rounds", 1,
        "--new-tokens", 64, "--json", figures, "--plot", picture,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    found = json.loads(figures.read_text())
    rows = {row["name"]: row for row in found["rows"]}
    for drafter in ("lookup", "layers", "hybrid", "auto"):
        for group in ("writing", "math", "qa", "worst", "mean"):
            row = rows[f"speedup/{drafter}/{group}"]
            assert row["low"] <= row["value"] <= row["high"]
        worst = min(rows[f"speedup/{drafter}/{g}"]["value"] for g in ("writing", "math", "qa"))
        assert rows[f"speedup/{drafter}/worst"]["value"] == worst
        shares = [rows[f"time_share/{p}/{drafter}"]["value"] for p in ("search", "draft", "verify")]
        assert sum(shares) == pytest.approx(1)
        assert min(shares) >= 0
        for name in ("vs_transformers", "vs_transformers_lookup", "accepted_length", "acceptance"):
            assert rows[f"{name}/{drafter}/mean"]["value"] >= 0
    assert rows["speedup/hybrid/batch1"]["value"] > 0, "as many rows as the smallest group has"
    assert 0 <= rows["search_share"]["value"] < 1
    assert rows["speedup_cold/layers"]["value"] > 0
    runs = found["raw"]["runs"]
    assert [run["group"] for run in runs] == ["writing", "math", "qa", "qa"]
    assert all(all(run["same"].values()) for run in runs), "drafts change no token"
    cold = found["raw"]["cold_layers"]
    assert cold["timeline"][0]["phase"] == "accumulation"
    assert 512 <= cold["early"]["tokens"] < cold["total"]["tokens"]
    assert picture.exists()


def test_the_eight_categories_of_chat_are_one_group(tmp_path):
    file = tmp_path / "prompts.jsonl"
    kinds = ["qa", *sorted(CHAT), *sorted(CHAT)]
    lines = [{"category": kind, "prompt": f"{kind} {at}"} for at, kind in enumerate(kinds)]
    file.write_text("\n".join(map(json.dumps, lines)))
    groups = read_groups(file)
    assert list(groups) == ["chat", "qa"]
    assert {prompt.split()[0] for prompt in groups["chat"][:8]} == CHAT
    assert len(groups["chat"]) == 16


def test_bench_depth_refuses_what_cannot_be(sparing, tmp_path, prompts):
    asks = ("bench", "depth", "--prompts", prompts, "--model")
    picture = ("--plot", tmp_path / "a.png")
    for options, said in (
        ((planted(), "--drafters", "layers,magic"), "drafters must be among"),
        ((planted(), "--confidence", 2), "confidence must be"),
        ((planted(), "--plot", tmp_path / "a.txt"), "must end in"),
        ((planted(), "--drafters", "lookup,auto", *picture), "a timeline is of drafter layers"),
        (
            (tiny(num_hidden_layers=2),),
            "a model of 3 layers or more that can be left out; pass --drafters lookup",
        ),
    ):
        assert_one_line(sparing(*asks, *options), said)
    assert_one_line(sparing(*asks[:2], "--model", planted()), "a task or prompts must be given")


@pytest.mark.parametrize("command", ["bench", "tune"])
@pytest.mark.parametrize(
    "line", ['{"turns": "abc"}', '{"prompt": 5}', '{"turns": []}', '{"text": "Q"}', "5", "{"]
)
def test_prompts_that_are_none_are_refused(sparing, tmp_path, command, line):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "Q"}\n' + line + "\n")
    outcome = sparing(command, "depth", "--model", planted(), "--prompts", file)
    assert_one_line(outcome, "a .jsonl file with prompt or turns in each", str(file))


@pytest.fixture
def nothing_is_said(monkeypatch):
    """Whoever lets the model answer fails the test."""
    monkeypatch.setattr(tune_depth, "spoken", lambda *asked: pytest.fail("the model was asked"))


def test_tune_depth_refuses_what_cannot_be(sparing, prompts, nothing_is_said):
    small, asks = tiny(num_hidden_layers=2), ("tune", "depth", "--model")
    for options, said in (
        ((planted(),), "a task or prompts must be given, one of them"),
        ((planted(), "--prompts", prompts, "--task", "legs"), "one of them"),
        ((small, "--prompts", prompts), "of a model of 3 layers or more that can be left out"),
    ):
        assert_one_line(sparing(*asks, *options), said)


@pytest.mark.parametrize(
    ("content", "said"),
    [('{"fingerprint": "another", "layers": 6, "sets": {}}', "for the model another"), ("{", "")],
    ids=["foreign", "broken"],
)
def test_tune_depth_leaves_a_file_of_others_alone(
    sparing, tmp_path, prompts, nothing_is_said, content, said
):
    file = tmp_path / "layer_sets.json"
    file.write_text(content)
    outcome = sparing(
        "tune", "depth", "--model", planted(), "--prompts", prompts, "--out", tmp_path
    )
    assert_one_line(outcome, str(file), said)
    assert file.read_text() == content


@pytest.mark.parametrize(("passes", "tried"), [(1, 0), (3, 0), (5, 2)])
def test_tune_depth_interrupted_keeps_the_best_so_far(
    sparing, tmp_path, prompts, monkeypatch, passes, tried
):
    """The first three passes are the whole model's and those of the sets it begins with."""
    done, likeliest = count(), tune_depth.likeliest

    def interrupted(*asked):
        if next(done) == passes:
            raise KeyboardInterrupt
        return likeliest(*asked)

    monkeypatch.setattr(tune_depth, "likeliest", interrupted)
    outcome = sparing(
        "tune", "depth", "--model", planted(), "--prompts", prompts, "--n", 1, "--new-tokens", 12,
        "--name", "mine", "--out", tmp_path / "out",
    )  # fmt: skip
    assert outcome.code == 130
    assert ("the best so far is kept" if tried else "nothing was tried yet") in outcome.err
    file = tmp_path / "out" / "layer_sets.json"
    assert file.exists() == bool(tried)
    assert ("mine: " in outcome.out) == bool(tried)
    assert not tried or list(json.loads(file.read_text())["sets"]) == ["mine"]


def test_tune_depth_by_the_papers_own_search(sparing, tmp_path, prompts):
    asks = (
        "tune", "depth", "--model", planted(), "--prompts", prompts, "--n", 1, "--tries", 3,
        "--new-tokens", 12, "--name", "mine", "--out", tmp_path / "out", "--objective",
    )  # fmt: skip
    assert_one_line(sparing(*asks, "size"), "objective must be 'speed' or 'matchness'")
    outcome = sparing(*asks, "matchness")
    assert outcome.code == 0, outcome.err
    [found] = json.loads((tmp_path / "out" / "layer_sets.json").read_text())["sets"].values()
    assert len(found["skipped"]) == min(round(2 * LAYERS * RATIO), 2 * (LAYERS - 2)), "one ratio"


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["cache", "directory"])
def test_tuned_sets_are_used_from_then_on(sparing, tmp_path, prompts, cache, kept):
    model = tmp_path / "model"
    model.symlink_to(planted())
    out = ("--out", tmp_path / "out") if kept == "directory" else ()
    outcome = sparing(
        "tune", "depth", "--model", model, "--prompts", prompts, "--tries", 30, "--name", "mine",
        "--new-tokens", 40, *out,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "mine: " in outcome.out
    if kept == "directory":
        [file] = (tmp_path / "out").iterdir()
        assert file.name == "layer_sets.json"
        return
    engine = load(str(model), dtype="float64")
    [(name, tuned)] = engine.drafting.sets.items()
    assert name == "mine"
    sampling = Sampling(temperature=0, max_new_tokens=12, ignore_eos=True)
    [result] = engine.generate(["Q"], depth=Depth(draft="layers"), sampling=sampling)
    told = [event for event in result.events if event.type == "layers"]
    assert (told[0].skipped, told[0].phase) == (tuned.layer_set.names, "acceleration")


STALE = {
    "foreign": json.dumps({"fingerprint": "another", "layers": LAYERS, "sets": {}}),
    "broken": "{",
}


@pytest.mark.parametrize("where", ["model", "cache"])
@pytest.mark.parametrize("content", STALE.values(), ids=STALE)
def test_a_set_for_another_model_is_left_out(sparing, tmp_path, cache, content, where):
    """With a warning; asked for by its task it is an error."""
    model = tmp_path / "model"
    shutil.copytree(planted(), model)
    here = fingerprint(model, read_tokenizer(model))
    file = model / "layer_sets.json" if where == "model" else sets_file(here)
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(content)
    announce.cache_clear()
    run = ("run", "Q", "--model", model, "--max-new-tokens", 2)
    outcome = sparing(*run)
    assert outcome.code == 0, outcome.err
    assert f"sparing: going on without: {'layer sets' if 'ano' in content else file}" in outcome.err
    assert str(file) in outcome.err
    outcome = sparing(*run, "--draft", "layers", "--depth-task", "mine")
    assert outcome.code == 2
    assert outcome.err.endswith(
        "task must be one with a tuned layer set (none), got 'mine'; make one with `sparing tune "
        "depth`, or leave it out\n"
    )


def test_tune_depth_writes_into_no_other_model(sparing, tmp_path, prompts, nothing_is_said):
    other = tmp_path / "other"
    shutil.copytree(tiny(), other)
    ask = ("tune", "depth", "--model", planted(), "--prompts", prompts, "--out", other)
    said = f"--out must be the model's own folder, or one without a model, {other} holds another"
    assert_one_line(sparing(*ask), said)
    assert not (other / "layer_sets.json").exists()


def test_layers_need_some_layers(sparing):
    small = tiny(num_hidden_layers=2)
    outcome = sparing("run", "Q", "--model", small, "--draft", "layers")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "draft layers needs a model of 3 layers or more that can be left out" in outcome.err

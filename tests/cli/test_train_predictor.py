"""`sparing train predictor`: from a model to one that remembers; stopped, resumed, refused."""

import json
import os
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

from sparing.kernels.native import announce
from sparing.memory.fit import Fit
from sparing.memory.traces import SHARD, TraceSource
from sparing.train import checkpoint as checkpoints
from tests.cli.command import assert_one_line
from tests.memory.small import thinker, write_predictor
from tests.tiny import NARROW, checkpoint
from tests.train.killed import run as run_to_be_killed
from tests.train.processes import one_and_two

pytestmark = pytest.mark.usefixtures("anew")
QUESTIONS = SHARD + 8  # two shards
QUICK = ("--accept", "any", "--max-new-tokens", 24, "--temperature", 1, "--horizons", "3,9",
         "--epochs", 3, "--batch", 8, "--threads", 1)  # fmt: skip
MOMENTS = 8


@pytest.fixture
def model(tmp_path):
    return thinker(tmp_path / "model", **NARROW)


@pytest.fixture
def command(tmp_path, model):
    """The arguments of a run of 15 steps on two shards."""
    rows = [{"question": f"{i} and {i}?", "answer": f"#### {2 * i}"} for i in range(QUESTIONS)]
    task = tmp_path / "gsm8k.jsonl"
    task.write_text("\n".join(map(json.dumps, rows)))
    return ("train", "predictor", "--model", model, "--task", task, *QUICK)


def shards(folder):
    return {path.name: path.read_bytes() for path in folder.glob("shard-*.safetensors")}


def weights(out):
    return (out / "predictor.safetensors").read_bytes()


def folders(out):
    return sorted(path.name for path in out.iterdir() if path.is_dir())


@pytest.mark.slow
def test_from_a_model_to_a_run_that_remembers_what_it_learnt(sparing, tmp_path, model, command):
    out = tmp_path / "out"
    outcome = sparing(*command, "--out", out, "--local", 0.3)
    assert outcome.code == 0, outcome.err
    *reports, done = outcome.err.splitlines()
    accepted = reports.pop(0)
    config = json.loads((out / "predictor.json").read_text())
    assert f"of {QUESTIONS} traces accepted, " in accepted
    epoch = json.loads(reports[0])["step"]
    assert [json.loads(line)["step"] for line in reports] == [epoch, 2 * epoch, 3 * epoch]
    assert done.startswith(f"{out} is done: ")
    assert json.loads(done.partition(": ")[2])["traces"] == config["held_out"]["traces"] > 0
    assert (config["model"], config["width"], config["horizons"]) == (str(model), 16, [3, 9])
    assert config["traces"]["accept"] == "any"
    assert config["memory"] == {"local": 0.3}
    assert (config["fit"]["epochs"], config["fit"]["target"]) == (3, "future-max")
    assert set(load_file(out / "predictor.safetensors")) == {f"maps.{i}.weight" for i in range(3)}
    assert folders(out) == ["traces"]
    assert len(shards(out / "traces")) == 2

    run = ("run", "3 and 3?", "--model", model, "--budget", 40, "--max-new-tokens", 60, "--json")
    ignored = (*run, "--ignore-eos", "--events")
    with_it = json.loads(sparing(*ignored, "--predictor", out).out)
    without = json.loads(sparing(*ignored).out)
    assert with_it["stats"]["policy"] == "learned"
    assert without["stats"]["policy"] == "window"
    assert with_it["stats"]["evictions"] > 1 < without["stats"]["evictions"]
    scores = [event["score"] for event in with_it["events"] if event["type"] == "score"]
    assert len(scores) > 50
    assert all(score > 0 for score in scores)
    missing = tmp_path / "none"
    assert_one_line(sparing(*run, "--predictor", missing), f"{missing} must hold an importance")
    assert_one_line(sparing(*run, "--policy", "learned"), "train one with `sparing train")


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["fast", "hub"])
@pytest.mark.parametrize("target", ["answer", "future-mean"])
def test_other_targets_and_the_other_decoder(sparing, tmp_path, command, target, decoder):
    out = tmp_path / "out"
    outcome = sparing(*command, "--out", out, "--target", target, "--decoder", decoder)
    assert outcome.code == 0, outcome.err
    assert json.loads((out / "predictor.json").read_text())["fit"]["target"] == target


def test_without_markers_all_is_thought(sparing, tmp_path, command):
    """And nothing is the answer, so that no answer can look back."""
    plain, out = checkpoint(tmp_path / "plain", markers=None, **NARROW), tmp_path / "out"
    outcome = sparing(*command, "--model", plain, "--out", out, "--target", "answer")
    assert_one_line(outcome, "target answer needs a model that marks its thoughts, and")
    assert not out.exists()
    assert sparing(*command, "--model", plain, "--out", out).code == 0
    config = json.loads((out / "predictor.json").read_text())
    assert config["held_out"]["traces"] > 0


@pytest.mark.slow
def test_stopped_and_resumed_it_is_the_same(sparing, tmp_path, command):
    assert sparing(*command, "--out", tmp_path / "unbroken").code == 0
    out = tmp_path / "out"
    outcome = sparing(*command, "--out", out, "--stop-at", 7)
    assert outcome.code == 0
    assert "stopped at 7; --resume goes on" in outcome.err
    assert not (out / "predictor.json").exists()
    (out / "traces" / "shard-00001.safetensors").unlink()
    for _ in range(2):  # the second finds it done
        again = sparing(*command, "--out", out, "--resume")
        assert again.code == 0, again.err
        assert f"{out} is done" in again.err
        assert weights(out) == weights(tmp_path / "unbroken")
    assert shards(out / "traces") == shards(tmp_path / "unbroken" / "traces")
    assert folders(out) == ["traces"]


def test_traces_of_an_earlier_run_are_fitted_anew(sparing, tmp_path, command, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    assert sparing(*command, "--out", first).code == 0
    monkeypatch.setattr(TraceSource, "shard", None)  # nothing is to be sampled
    outcome = sparing(*command, "--out", second, "--traces", first / "traces", "--kendall", 1)
    assert outcome.code == 0, outcome.err
    assert folders(second) == []
    assert weights(second) != weights(first)
    outcome = sparing(*command, "--out", tmp_path / "third", "--traces", tmp_path / "none")
    assert_one_line(outcome, "--traces must hold those of an earlier run, got none in")
    assert not (tmp_path / "third").exists()
    assert not (tmp_path / "none").exists()


INTERRUPTED = {"sampling": (TraceSource, "shard", 2), "fitting": (Fit, "_step", 4)}


@pytest.mark.slow
@pytest.mark.parametrize(("of", "name", "nth"), INTERRUPTED.values(), ids=INTERRUPTED)
def test_ctrl_c_keeps_the_run(sparing, tmp_path, command, monkeypatch, of, name, nth):
    """A real SIGINT in the second shard, or in the fourth step."""
    assert sparing(*command, "--out", tmp_path / "unbroken").code == 0
    function, calls = getattr(of, name), []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == nth:
            os.kill(os.getpid(), signal.SIGINT)
        return function(*arguments)

    out = tmp_path / "out"
    monkeypatch.setattr(of, name, interrupted)
    outcome = sparing(*command, "--out", out)
    monkeypatch.undo()
    assert outcome.code == 130
    assert f"interrupted, kept in {out}; the same command with --resume goes on" in outcome.err
    assert len(shards(out / "traces")) == (1 if name == "shard" else 2)
    assert checkpoints.steps(out) == ([] if name == "shard" else [4])
    assert_one_line(sparing(*command, "--out", out), "pass --resume to go on with it")
    assert sparing(*command, "--out", out, "--resume").code == 0
    assert weights(out) == weights(tmp_path / "unbroken")


@pytest.fixture
def stopped(sparing, tmp_path, command):
    """A run that has not come to its end."""
    assert sparing(*command, "--out", tmp_path / "out", "--stop-at", 2).code == 0
    return tmp_path / "out"


def test_what_does_not_go_on_is_one_line(sparing, tmp_path, model, command, stopped):
    assert_one_line(sparing(*command, "--out", stopped), "pass --resume to go on with it")
    for more, said in (
        (("--lr", 0.1), "was begun with lr 0.0005, got 0.1"),
        (("--target", "future-mean"), "was begun with target 'future-max', got 'future-mean'"),
        (("--n", 39), "traces was begun with n 300, got 39"),
        (("--horizons", "4"), "traces was begun with horizons [3, 9], got [4]"),
        (("--seed", 4), "traces was begun with seed 0, got 4"),
    ):
        assert_one_line(sparing(*command, "--out", stopped, "--resume", *more), said)
    outcome = sparing(*command, "--out", stopped, "--resume", "--dtype", "bfloat16")
    assert outcome.code == 2
    assert "was begun with dtype 'float32', got 'bfloat16'" in outcome.err.splitlines()[-1]
    other = checkpoint(tmp_path / "other", **NARROW)
    traces, elsewhere = stopped / "traces", tmp_path / "elsewhere"
    outcome = sparing(*command, "--model", other, "--out", elsewhere, "--traces", traces)
    assert_one_line(outcome, f"begun with model '{model}', got '{other}'")
    checkpoint(model, seed=5, **NARROW)  # another model under the same name
    for out, more in ((elsewhere, ("--traces", traces)), (stopped, ("--resume",))):
        assert_one_line(sparing(*command, "--out", out, *more), "was begun with fingerprint '")
    assert not elsewhere.exists()


def test_a_broken_shard_is_one_line(sparing, command, stopped):
    path = stopped / "traces" / "shard-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    assert_one_line(sparing(*command, "--out", stopped, "--resume"), f"{path} must be a whole")
    path.unlink()
    assert sparing(*command, "--out", stopped, "--resume").code == 0


FEW = {
    "a family": (("--task", "sums", "--n", 4), "got 4 and 0 with --n 4; pass --n 10"),
    "two": (("--task", "sums,legs", "--n", 9), "got 18 and 0 with --n 9; pass --n 10"),
    "a file": (("--n", 3), "got 3 and 0 with --n 3; pass --n 8"),
    "a file of few": (("--task", "FEW"), "got 9 and 0 with --n 300; pass a larger --task"),
}


@pytest.mark.parametrize(("more", "said"), FEW.values(), ids=FEW)
def test_too_few_questions_are_found_before_the_model_loads(
    sparing, tmp_path, command, model, more, said
):
    (model / "model.safetensors").write_bytes(b"not read")
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join((tmp_path / "gsm8k.jsonl").read_text().splitlines()[:9]))
    given = [few if argument == "FEW" else argument for argument in more]
    outcome = sparing(*command, "--out", tmp_path / "out", *given)
    assert_one_line(outcome, "--n must give questions to train on and, every tenth, to hold out, ")
    assert said in outcome.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_failed_run_leaves_its_out_to_the_next(sparing, tmp_path, command):
    """No trace is accepted, so that none can be of use."""
    out = tmp_path / "out"
    outcome = sparing(*command, "--out", out, "--accept", "verified")
    assert_one_line(outcome, "needs accepted traces to train on and to hold out", "--accept any")
    outcome = sparing(*command, "--out", out, "--epochs", 1)
    assert outcome.code == 0, outcome.err


def test_a_run_that_failed_at_once_leaves_its_out_to_the_next(
    sparing, tmp_path, command, monkeypatch
):
    def fails(self, index):
        raise OSError("disk full")

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(TraceSource, "shard", fails)
        with pytest.raises(OSError, match="disk full"):
            sparing(*command, "--out", out)
    outcome = sparing(*command, "--out", out, "--epochs", 1, "--seed", 1)
    assert outcome.code == 0, outcome.err


def test_a_predictor_goes_into_no_other_model(sparing, tmp_path, command):
    other = checkpoint(tmp_path / "other", seed=5, **NARROW)
    before = sorted(other.iterdir())
    said = f"--out must be the model's own folder, or one without a model, {other} holds another"
    assert_one_line(sparing(*command, "--out", other), said)
    assert sorted(other.iterdir()) == before


@pytest.mark.slow
def test_traces_of_an_interrupted_run_are_not_overwritten(sparing, tmp_path, command, stopped):
    shutil.rmtree(stopped / "step-2")
    (stopped / "training.json").unlink()
    outcome = sparing(*command, "--out", stopped, "--n", 39)
    assert_one_line(outcome, f"--out must be new, {stopped / 'traces'} holds a training run; pass")


@pytest.mark.slow
def test_a_model_with_a_predictor_of_another_gets_a_new_one(sparing, tmp_path, model, command):
    """As after training the model on: its old predictor must not be in the way."""
    write_predictor(model, model, fingerprint="of another")
    run = ("run", "Q", "--model", model, "--max-new-tokens", 4)
    announce.cache_clear()
    outcome = sparing(*run)
    assert outcome.code == 0
    assert "sparing: going on without: an importance predictor must be trained for" in outcome.err
    assert_one_line(sparing(*run, "--predictor", model), "is for the model of another")
    learned = sparing(*run, "--budget", 40, "--policy", "learned")
    assert_one_line(learned, "policy learned needs a model with an importance predictor")
    out = tmp_path / "out"
    outcome = sparing(*command, "--out", out)
    assert outcome.code == 0, outcome.err
    assert sparing(*run, "--predictor", out).code == 0


WRONG = {
    "no out": ((), "Missing option"),
    "target": (("--target", "future"), "target must be 'answer', 'future-mean' or 'future-max'"),
    "accept": (("--accept", "some"), "accept must be 'verified' or 'any', got 'some'"),
    "n": (("--n", 0), "n must be greater than or equal to 1, got 0"),
    "horizon": (("--horizons", "-1,3"), "must be greater than or equal to 0, got -1"),
    "falling": (
        ("--horizons", "9,3"),
        "horizons must be one or more numbers that rise, got [9, 3]",
    ),
    "no numbers": (
        ("--horizons", "a,b"),
        "must be whole numbers with commas, got 'a,b'",
    ),
    "local": (("--local", 1), "local must be less than 1"),
    "epochs": (("--epochs", 0), "epochs must be greater than or equal to 1, got 0"),
    "lr": (("--lr", 0), "lr must be greater than 0"),
    "task": (("--task", "pokcet"), "did you mean pocket"),
    "file": (("--task", "none.jsonl"), "a task file must exist"),
    "predictor": (("--predictor", "OUT"), "No such option: --predictor"),
    "out": (("--out", "FILE"), "--out must be a directory, got the file"),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_line_before_weights_load(sparing, tmp_path, model, arguments, said):
    file, out = tmp_path / "file", tmp_path / "out"
    file.touch()
    (model / "model.safetensors").write_bytes(b"not read")
    given = [{"OUT": out, "FILE": file}.get(a, a) for a in arguments]
    where = () if not given or "--out" in given else ("--out", out)
    assert_one_line(sparing("train", "predictor", "--model", model, *where, *given), said)
    assert not out.exists()


def text(*arguments):
    return [str(argument) for argument in arguments]


@pytest.mark.slow
def test_killed_at_any_move_and_resumed(tmp_path, command):
    """Killed while it writes settings, traces, checkpoints or weights, or clears up; and again."""
    command = text(*command, "--save-every", 4)
    unbroken = tmp_path / "unbroken"
    code, moves = run_to_be_killed([*command, "--out", str(unbroken)], unbroken)
    assert (code, moves > 20) == (0, True)
    for number in range(MOMENTS):
        out = tmp_path / f"out-{number}"
        kill_at = 1 + number * (moves - 1) // (MOMENTS - 1)
        here = [*command, "--out", str(out)]
        assert run_to_be_killed(here, out, kill_at) == (-9, kill_at)
        assert run_to_be_killed([*here, "--resume"], out, kill_at=9)[0] in (0, -9)
        assert run_to_be_killed([*here, "--resume"], out)[0] == 0
        assert weights(out) == weights(unbroken), kill_at
        assert shards(out / "traces") == shards(unbroken / "traces")
        assert folders(out) == ["traces"]


@pytest.mark.slow
def test_two_processes_end_where_one_does(tmp_path, command):
    """The same traces to the byte; the same weights up to the order of sums."""
    options = text(*command, "--lr", 0.01, "--kendall", 1)
    one_and_two(tmp_path, lambda out: [*options, "--out", str(out)], stop_at=7)
    assert shards(tmp_path / "two" / "traces") == shards(tmp_path / "one" / "traces")
    ours, theirs = (load_file(tmp_path / n / "predictor.safetensors") for n in ("one", "two"))
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, atol=1e-5, rtol=0)
    assert folders(tmp_path / "two") == ["traces"]
    found = [json.loads((tmp_path / n / "predictor.json").read_text()) for n in ("one", "two")]
    assert found[0]["held_out"] == pytest.approx(found[1]["held_out"], abs=1e-3)

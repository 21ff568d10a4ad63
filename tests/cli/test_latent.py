"""`--latent`, `sparing train latent`, `sparing train ablations`, `sparing bench latent`."""

import io
import json
import sys

import pytest

from sparing import Latent, Sampling
from sparing.cli.view import LiveView
from sparing.cli.view import thought as word
from sparing.engine.events import LatentEvent
from sparing.latent.ablations import read_trained
from sparing.latent.arms import ARMS
from sparing.tasks.datasets import RowsTask
from tests.cli.command import assert_one_line
from tests.latent.thinking import thinker, thinking
from tests.memory.small import write_predictor
from tests.tiny import NARROW, checkpoint, tiny
from tests.train.small import forget_accelerate

pytestmark = pytest.mark.usefixtures("anew")
QUICK = ("--batch-tokens", 400, "--lr", 0.05, "--tau", 0.5, "--threads", 1, "--precision",
         "float32", "--save-every", 2)  # fmt: skip

PROMISED = (
    "paired_low_vs_cot/latent",
    "paired_vs_pause/latent",
    "paired_vs_no-stage-3/latent",
    "text_saved/words-for-latents",
    "paired_low_vs_cot/words-for-latents",
)


@pytest.fixture
def base(tmp_path):
    path = checkpoint(tmp_path / "base", "qwen2", **NARROW)
    write_predictor(path, path)
    return path


def test_run_tells_its_latents(sparing):
    run = ("run", "2 and 2?", "--model", thinking(tau=0.4), "--max-new-tokens", 30, "--ignore-eos")
    outcome = sparing(*run, "--latent", "confidence", "--json", "--events")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    latents = [event for event in found["events"] if event["type"] == "latent"]
    assert len(latents) == found["stats"]["latent_tokens"] > 3
    assert all(len(event["top"]) > 0 for event in latents)
    assert found["stats"]["new_tokens"] == 30 - len(latents)
    shown = sparing(*run, "--latent", "confidence")
    assert f"{len(latents)} latent steps" in shown.err
    assert "~" not in shown.out.replace(found["text"], "")
    assert json.loads(sparing(*run, "--json").out)["stats"]["latent_tokens"] == 0


def test_refused_before_weights_load(sparing, tmp_path, task):
    plain = checkpoint(tmp_path / "plain")
    (plain / "model.safetensors").write_bytes(b"never read")
    refusal = "latent learned needs a model with learned latent steps"
    for command in (
        ("run", "hello", "--model", plain),
        ("chat", "--model", plain),
        ("eval", "--model", plain, "--task", task),
    ):
        assert_one_line(sparing(*command, "--latent", "learned"), refusal)
    wrong = sparing("run", "hello", "--model", plain, "--latent", "often")
    assert_one_line(wrong, "must be 'off', 'learned' or 'confidence', got 'often'")
    prompt = sparing("run", "<thinking>", "--model", thinking())
    assert_one_line(prompt, "a prompt must do without <thinking>")


@pytest.mark.slow
def test_train_stop_resume_and_run(sparing, tmp_path, base, task):
    command = ("train", "latent", "--base", base, "--task", task, "--steps", "2,2,3", *QUICK)
    one, two = tmp_path / "one", tmp_path / "two"
    assert sparing(*command, "--out", one).err.splitlines()[-1] == f"{one} is done"
    stopped = sparing(*command, "--out", two, "--stop-at", 3)
    assert stopped.err.splitlines()[-1] == "stopped at 3; --resume goes on"
    assert_one_line(sparing(*command, "--out", two), "pass --resume to go on")
    forget_accelerate()
    assert sparing(*command, "--out", two, "--resume").code == 0
    for file in ("model.safetensors", "latent.json"):
        assert (one / file).read_bytes() == (two / file).read_bytes()
    ran = sparing("run", "3 and 3?", "--model", one, "--latent", "learned", "--json",
                  "--max-new-tokens", 20)  # fmt: skip
    assert ran.code == 0, ran.err


def test_train_refuses(sparing, tmp_path, base, task):
    command = ("train", "latent", "--base", base, "--task", task, "--out", tmp_path / "out")
    assert_one_line(sparing(*command, "--stages", "3,1"), "stages must be among 1, 2, 3, in order")
    assert_one_line(sparing(*command, "--steps", "1,2"), "--steps must have one value, or one for")
    assert_one_line(sparing(*command, "--arm", "banned"), "arm must be one of cot, latent")
    far = sparing(*command, "--alpha", "2")
    assert_one_line(far, "alpha must be less than or equal to 1, got 2")
    assert_one_line(sparing(*command, "--task", "times"), "training needs pocket or a file")
    (base / "predictor.json").unlink()
    words = sparing(*command, "--arm", "words-for-latents")
    assert_one_line(words, "needs a base with an importance predictor")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_ablations_and_their_bench(sparing, tmp_path, base, task):
    """Every arm, stopped and resumed, stages shared; then figures by the names of the contract."""
    out, result, picture = tmp_path / "out", tmp_path / "latent.json", tmp_path / "latent.png"
    command = ("train", "ablations", "--base", base, "--task", task, "--out", out, "--seeds",
               "0,1", "--steps", "2,2,4", *QUICK)  # fmt: skip
    bench = ("bench", "latent", "--from", out, "--task", task, "--n", 6, "--max-new-tokens", 24,
             "--json", result, "--threads", 1)  # fmt: skip
    assert_one_line(sparing(*bench), "--from must be the --out of `sparing train ablations`")
    stopped = sparing(*command, "--stop-at", 9)
    assert stopped.err.splitlines()[-1] == "stopped at 9; --resume goes on", stopped.err
    assert_one_line(sparing(*bench, "--arms", "cot,pause"), "every arm must have a trained model")
    for more in (("--only-seeds", "0"), ("--only-seeds", "1"), ()):
        forget_accelerate()
        done = sparing(*command, "--resume", *more)
        assert done.err.splitlines()[-1] == f"{out} is done", done.err
        seeds = {(model.arm, model.seed) for model in read_trained(out, None)}
        assert (("cot", 1) in seeds) == (more != ("--only-seeds", "0"))
        assert ("ignore", 0) in seeds
    assert len(list(out.glob("seed-*/1-none"))) == 2
    assert len(list(out.glob("seed-0/1-none/2-hidden/3-*"))) == 3
    assert len(list(out.glob("seed-1/1-none/2-hidden/3-*"))) == 2
    outcome = sparing(*bench, "--model", base, "--plot", picture)
    assert outcome.code == 0, outcome.err
    content = json.loads(result.read_text())
    rows = {row["name"]: row for row in content["rows"]}
    for arm in ("base", *ARMS):
        for name in ("accuracy", "text_tokens", "latent_tokens", "steps", "seconds"):
            assert f"{name}/{arm}" in rows
        assert (f"paired_vs_cot/{arm}" in rows) == (arm != "cot")
    assert rows.keys() >= set(PROMISED)
    assert "latent minus pause, all" in outcome.out
    assert rows["latent_tokens/cot"]["value"] == rows["latent_tokens/banned"]["value"] == 0
    assert rows["latent_tokens/ignore"]["value"] > 0
    assert rows["norm_embedding/ignore"]["value"] > 0
    raw = content["raw"]["rows"]
    assert sorted(raw)[:3] == ["banned/0", "banned/1", "base/0"]
    [of_task] = raw["latent/1"].values()
    assert len(of_task["correct"]) == 6
    assert picture.exists()
    assert not list(tmp_path.glob("*.part.jsonl"))


def test_the_seeds_of_ablations(sparing, tmp_path, base, task):
    """Three from the one that is given, or those that are named."""
    command = ("train", "ablations", "--base", base, "--task", task, "--arms", "cot",
               "--steps", "1", *QUICK)  # fmt: skip
    for name, flags, seeds in (
        ("a", (), [0, 1, 2]),
        ("b", ("--seed", 5), [5, 6, 7]),
        ("c", ("--seeds", "4,2"), [4, 2]),
    ):
        forget_accelerate()
        out = tmp_path / name
        sparing(*command, "--out", out, *flags, "--stop-at", 1)
        assert json.loads((out / "training.json").read_text())["seeds"] == seeds
    wrong = sparing(*command, "--out", tmp_path / "d", "--seed", 5, "--only-seeds", "0")
    assert_one_line(wrong, "--only-seeds must be among the seeds [5, 6, 7], got 0")
    both = sparing(*command, "--out", tmp_path / "d", "--seed", 0, "--seeds", "0,1")
    assert_one_line(both, "--seed or --seeds must be given, got both")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_latent_is_a_dim_word_on_a_terminal(monkeypatch):
    """Between the words, with a wave before it; elsewhere the text alone is written."""
    engine = thinker(thinking(tau=0.4))
    sampling = Sampling(max_new_tokens=30, temperature=0.0, ignore_eos=True)
    events = list(engine.stream("2 and 2?", None, None, Latent(mode="confidence"), sampling))
    [first, *_] = [event for event in events if event.type == "latent"]
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    view = LiveView(engine, None)
    with view:
        for event in events:
            view.show(event)
    shown = sys.stdout.getvalue()
    assert f"~{first.top[0][0].strip()}" in shown
    assert "latent steps" in shown
    assert word(LatentEvent(3, [(" two words", 0.5)])) == "~two words"
    assert word(LatentEvent(3, [])) == "~"


def test_an_interrupted_bench_goes_on(sparing, tmp_path, base, task, ctrl_c_at_answer):
    """Rows that were done are kept and not computed again; other settings are refused."""
    out, result = tmp_path / "out", tmp_path / "latent.json"
    train = ("train", "ablations", "--base", base, "--task", task, "--out", out, "--seeds", "0",
             "--arms", "cot,pause", "--steps", "1,1,1", *QUICK)  # fmt: skip
    assert sparing(*train).code == 0
    bench = ("bench", "latent", "--from", out, "--task", task, "--n", 6, "--max-new-tokens", 12,
             "--json", result, "--threads", 1)  # fmt: skip
    ended = ctrl_c_at_answer(9, RowsTask)
    outcome = sparing(*bench)
    assert (outcome.code, outcome.err.count("8 rows are kept")) == (130, 1)
    assert_one_line(sparing(*bench, "--seed", 1), "holds 8 rows of an unfinished evaluation")
    assert sparing(*bench).code == 0
    assert len(ended) == 9 + 4
    workers = ("--workers", 2, "--threads", 2)
    assert sparing(*bench[:-4], "--json", tmp_path / "two.json", *workers).code == 0
    ours, theirs = (json.loads(p.read_text()) for p in (result, tmp_path / "two.json"))
    for arm in ("cot/0", "pause/0"):
        [a], [b] = (content["raw"]["rows"][arm].values() for content in (ours, theirs))
        assert a["correct"] == b["correct"]
        assert a["text_tokens"] == b["text_tokens"]


def test_models_without_latents_are_as_before(sparing):
    found = json.loads(sparing("run", "a", "--model", tiny(), "--json", "--max-new-tokens", 3).out)
    assert found["stats"]["latent_tokens"] == 0

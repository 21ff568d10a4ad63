"""`sparing train reason`: any base and any solutions, stopped, resumed, refused in a line."""

import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from sparing.cli.train import finish_pocket
from sparing.options import Sampling
from sparing.tasks.splits import QuestionSet, training_questions
from sparing.train.loop import Trainer
from tests.model.passes import Slots, assert_close, decoder, expected, new, oracle
from tests.tiny import (
    NARROW,
    assert_same_tokens,
    checkpoint,
    engine,
    next_logits,
    reference,
    reference_tokens,
    tokenizer,
)
from tests.train.small import SUMS

pytestmark = pytest.mark.usefixtures("anew")
QUICK = ("--steps", 6, "--batch-tokens", 600, "--threads", 1, "--lr", 0.1)


@pytest.fixture
def base(tmp_path):
    return checkpoint(tmp_path / "base", "qwen2", **NARROW)


def weights(out):
    return (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(("family", "lora"), [("llama", 0), ("qwen2", 0), ("qwen3", 4)])
def test_a_base_becomes_a_model_that_both_load(sparing, tmp_path, task, family, tied, lora):
    base = checkpoint(tmp_path / "base", family, tie_word_embeddings=tied, **NARROW)
    out = tmp_path / "out"
    outcome = sparing("train", "reason", "--base", base, "--task", task, "--out", out,
                      "--lora-rank", lora, *QUICK)  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert f"{out} is done" in " ".join(outcome.err.split())
    loaded, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(info.values())
    assert loaded.config.tie_word_embeddings == tied
    ids = tokenizer().encode("[user] 3 and 3?\n[assistant] ")
    ours = decoder(out)([new(ids)], Slots(decoder(out))).logits
    theirs = expected(oracle(out), ids).logits[0]
    assert_close(ours.view_as(theirs), theirs, 1e-10)
    assert not torch.allclose(theirs, expected(oracle(base), ids).logits[0], atol=1e-2)
    greedy = Sampling(temperature=0, max_new_tokens=20, ignore_eos=True)
    [result] = engine(out).generate([ids], sampling=greedy)
    wanted = reference_tokens(reference(out), ids, 20)
    assert_same_tokens(result.token_ids, wanted, next_logits(reference(out), ids))


def test_stopped_and_resumed_it_is_the_same_model(sparing, tmp_path, task, base):
    command = ("train", "reason", "--base", base, "--task", task, *QUICK, "--save-every", 2)
    assert sparing(*command, "--out", tmp_path / "unbroken").code == 0
    out = tmp_path / "out"
    outcome = sparing(*command, "--out", out, "--stop-at", 3)
    assert outcome.code == 0
    assert "stopped at 3; --resume goes on" in outcome.err
    assert sparing(*command, "--out", out, "--resume").code == 0
    assert weights(out) == weights(tmp_path / "unbroken")
    again = sparing(*command, "--out", out)
    assert (again.code, again.out) == (2, "")
    assert "pass --resume to go on with it" in again.err
    kept = json.loads((out / "training.json").read_text())
    assert (kept["base"], kept["task"], kept["steps"], kept["lr"]) == (str(base), str(task), 6, 0.1)


def test_ctrl_c_keeps_the_run(sparing, tmp_path, task, base, monkeypatch):
    """A real SIGINT in the fourth step."""
    command = ("train", "reason", "--base", base, "--task", task, *QUICK)
    assert sparing(*command, "--out", tmp_path / "unbroken").code == 0
    step, steps = Trainer._step, []

    def interrupted(trainer, *arguments):
        steps.append(arguments)
        if len(steps) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return step(trainer, *arguments)

    out = tmp_path / "out"
    monkeypatch.setattr(Trainer, "_step", interrupted)
    outcome = sparing(*command, "--out", out)
    monkeypatch.undo()
    assert outcome.code == 130
    assert "interrupted, kept in" in outcome.err
    assert [path.name for path in out.glob("step-*")] == ["step-4"]
    assert sparing(*command, "--out", out, "--resume").code == 0
    assert weights(out) == weights(tmp_path / "unbroken")


def test_progress_for_a_log(sparing, tmp_path, task, base):
    outcome = sparing("train", "reason", "--base", base, "--task", task, "--out", tmp_path / "out",
                      *QUICK, "--validate-every", 3)  # fmt: skip
    reports = [json.loads(line) for line in outcome.err.splitlines() if line.startswith("{")]
    assert [report["step"] for report in reports] == [3, 6]
    for report in reports:
        assert report["loss"] > 0
        assert report["tokens_per_s"] > 0
        assert set(report["validation"]) == {"gsm8k"}
        assert set(report["validation"]["gsm8k"]) == {"token", "trace"}
    assert len(outcome.err.splitlines()) == 3  # and that it is done


WRONG = {
    "no out": (("--task", "TASK"), "Missing option"),
    "steps": (("--out", "OUT", "--steps", 0), "steps must be greater than or equal to 1, got 0"),
    "optimizer": (("--out", "OUT", "--optimizer", "sgd"), "optimizer must be 'adamw' or 'muon'"),
    "precision": (
        ("--out", "OUT", "--precision", "half"),
        "precision must be 'auto', 'float32' or",
    ),
    "share": (("--out", "OUT", "--share", 0), "share must be greater than 0"),
    "dropout": (("--out", "OUT", "--layer-dropout", 2), "--layer-dropout must be less than"),
    "threads": (("--out", "OUT", "--threads", 0), "--threads"),
    "task": (("--out", "OUT", "--task", "pokcet"), "training needs pocket or a file"),
    "file": (("--out", "OUT", "--task", "none.jsonl"), "a task file must exist"),
    "base": (("--out", "OUT", "--task", "TASK", "--base", "./none"), "does not exist"),
    "out": (("--out", "TASK"), "--out must be a directory"),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_line_and_nothing_is_written(sparing, tmp_path, task, arguments, said):
    out = tmp_path / "out"
    given = [{"OUT": out, "TASK": task}.get(a, a) for a in arguments]
    base = () if "--base" in given else ("--base", tmp_path / "org/never-loaded")
    outcome = sparing("train", "reason", *given, *base)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert said in " ".join(outcome.err.split())
    assert not out.exists()


def broken_tokenizer(base):
    fast = tokenizer()
    fast.add_tokens(["one", "more"])
    fast.save_pretrained(base)


def no_template(base):
    (base / "chat_template.jinja").unlink()


def foreign(base):
    (base / "config.json").write_text('{"model_type": "gpt2"}')


def truncated(base):
    (base / "model.safetensors").write_bytes(weights(base)[:-100])


BASES = {
    "tokenizer": (broken_tokenizer, "has vocab_size 259 and a tokenizer of 261 tokens"),
    "template": (no_template, "must have a chat template for training"),
    "foreign": (foreign, "config field model_type must be one of llama"),
    "truncated": (truncated, "must be a readable checkpoint, got: "),
}


@pytest.mark.parametrize(("spoil", "said"), BASES.values(), ids=BASES)
def test_an_unusable_base_is_one_line(sparing, tmp_path, task, base, spoil, said):
    spoil(base)
    outcome = sparing("train", "reason", "--base", base, "--task", task, "--out", tmp_path / "out",
                      *QUICK)  # fmt: skip
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert said in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_resumed_run_that_differs_names_the_field(sparing, tmp_path, task, base):
    command = ("train", "reason", "--base", base, "--task", task, "--out", tmp_path / "out", *QUICK)
    assert sparing(*command, "--stop-at", 2).code == 0
    task.write_text("\n".join(map(json.dumps, SUMS[:-1])))
    for more, said in ((("--seed", 3), "with seed 0, got 3"), ((), "was begun with examples")):
        outcome = sparing(*command, "--resume", *more)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.count("\n") == 1
        assert said in outcome.err


def test_the_weights_moved(sparing, tmp_path, task, base):
    out = tmp_path / "out"
    sparing("train", "reason", "--base", base, "--task", task, "--out", out, *QUICK)
    before, after = load_file(base / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("base", ["SCRATCH", "pocket", "stranger"])
def test_what_the_base_was_trained_on_stays_known(tmp_path, base):
    asked, out = QuestionSet.build(["new"]), tmp_path / "out"
    out.mkdir()
    origin = base
    if base == "stranger":
        origin = str(checkpoint(tmp_path / "base", "qwen2", **NARROW))
    finish_pocket(out, asked, origin)
    known = QuestionSet.load(out / "questions.safetensors")
    assert "new" in known
    before = len(training_questions()) if base == "pocket" else 0
    assert len(known) == before + 1
    assert (out / "scope.json").exists() == (base != "stranger")

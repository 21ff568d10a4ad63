"""The training loop: interrupted and resumed, it ends at the weights of an unbroken run."""

import os
import signal
from itertools import accumulate

import pytest
import torch
from torch.optim import Optimizer

from sparing.train import checkpoint
from sparing.train.batches import endless
from sparing.train.examples import Corpus
from sparing.train.layer_dropout import LayerDropout
from sparing.train.loop import Pace, Trainer
from sparing.train.objective import ChainOfThought, Exits
from sparing.train.optimizers import make_optimizers
from tests.train.small import (
    STEPS,
    assert_identical,
    ctrl_c_at,
    forget_accelerate,
    small_corpus,
    small_model,
    small_settings,
    train,
    weights,
)

KINDS = {
    "adamw": {},
    "muon": {"optimizer": "muon"},
    "layer dropout": {"layer_dropout": 0.6, "exit_weight": 0.1},
    "bfloat16": {"precision": "bfloat16"},
    "pocket's": {
        "optimizer": "muon",
        "precision": "bfloat16",
        "layer_dropout": 0.3,
        "exit_weight": 0.1,
    },
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
SELDOM = Pace(save_every=100, validate_every=100)
OFTEN = Pace(save_every=3, validate_every=2)


def unbroken(tmp_path, **kind):
    model = weights(train(tmp_path / "unbroken", SELDOM, **kind))
    forget_accelerate()
    return model


@every_kind
def test_stopped_and_resumed(tmp_path, kind):
    expected = unbroken(tmp_path, **kind)
    untrained = weights(small_model())
    assert all(not torch.equal(expected[name], untrained[name]) for name in expected)
    for stop_at in (1, 5, 8, 0):
        model = train(tmp_path / "out", Pace(3, 2, stop_at), **kind)
        reached = checkpoint.steps(tmp_path / "out")[-1]
        assert reached == (stop_at or STEPS)
    assert_identical(weights(model), expected)


@every_kind
def test_interrupted_between_steps(tmp_path, kind):
    expected = unbroken(tmp_path, **kind)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "out", OFTEN, ctrl_c_at(7), **kind)
    assert checkpoint.steps(tmp_path / "out") == [6, 7]
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "out", OFTEN, ctrl_c_at(8), **kind)
    assert_identical(weights(train(tmp_path / "out", OFTEN, **kind)), expected)


def test_ctrl_c_in_the_middle_of_a_step(tmp_path):
    """One optimizer has stepped and the other has not: that is no state to go on from."""
    kind = {"optimizer": "muon"}
    expected = unbroken(tmp_path, **kind)
    trainer = Trainer(small_model(), small_corpus(), small_settings(**kind), tmp_path / "out")
    steps = []

    def pressed(optimizer: Optimizer, args, options):
        steps.append(optimizer)
        if len(steps) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    trainer.optimizers[0].optimizer.register_step_post_hook(pressed)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(SELDOM)
    assert checkpoint.steps(tmp_path / "out") == [5]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert_identical(weights(train(tmp_path / "out", SELDOM, **kind)), expected)


def test_a_half_written_checkpoint_is_ignored(tmp_path):
    expected, out = unbroken(tmp_path), tmp_path / "out"
    train(out, Pace(2, 100, 6))
    for name in ("step-8.partial", "step-4.removed"):
        (out / name).mkdir()
        (out / name / "model.safetensors").write_bytes(b"half a mod")
    assert checkpoint.steps(out) == [4, 6]
    assert_identical(weights(train(out, Pace(2, 100))), expected)
    assert checkpoint.steps(out) == [10, 12]


def test_each_step_is_plain_descent_on_its_batch(tmp_path):
    """The loop against the same few lines without accelerate, checkpoints or processes."""
    settings, examples = small_settings(optimizer="muon"), small_corpus().examples
    model = small_model()
    objective, optimizers = ChainOfThought(model, Exits()), make_optimizers(model, "muon", 1, 0.01)
    batches = endless(examples.lengths, settings.batch_tokens, settings.seed)
    losses = []
    for step in range(STEPS):
        rows = next(batches)
        loss = objective(*examples.batch(rows), total=examples.taught(rows))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = settings.lr_at(step)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    reports = []
    trained = train(tmp_path, SELDOM, reports.append, optimizer="muon")
    for name, value in weights(trained).items():
        torch.testing.assert_close(value, weights(model)[name], atol=1e-3, rtol=1e-2)
    smoothed = list(accumulate(losses, lambda mean, loss: 0.98 * mean + 0.02 * loss))
    assert [report["loss"] for report in reports] == pytest.approx(smoothed, rel=1e-3)
    assert [report["step"] for report in reports] == list(range(1, STEPS + 1))
    assert all(report["tokens_per_s"] > 0 for report in reports)


def test_it_learns(tmp_path):
    """Eight rows by heart: the loss falls, and validation on the same rows sees it."""
    examples = small_corpus(8).examples
    reports = []
    settings = small_settings(steps=60, lr=1e-2)
    seen = Corpus(examples, examples)
    Trainer(small_model(), seen, settings, tmp_path, reports.append).run(Pace(1000, 10))
    said = [report["validation"] for report in reports if "validation" in report]
    assert len(said) == 6
    assert set(said[0]) == {"task-0", "task-1"}
    shares = [sum(v[task]["token"] for task in v) / 2 for v in said]
    assert shares[-1] > 0.9
    assert shares[-1] > shares[0]
    assert reports[-1]["loss"] < 0.8 * reports[0]["loss"]


def test_validation_sees_the_whole_model(tmp_path):
    """No layer is dropped there, whatever the last step dropped."""
    corpus = small_corpus()
    trainer = Trainer(small_model(), corpus, small_settings(layer_dropout=1.0), tmp_path)
    trainer.dropout.draw(5, 0)
    plain = Trainer(small_model(), corpus, small_settings(), tmp_path)
    assert trainer.validate() == plain.validate()
    assert trainer.dropout.keep is None


def test_dropout_is_drawn_anew_each_step(tmp_path, monkeypatch):
    drawn = []
    draw = LayerDropout.draw

    def noted(dropout, rows, *seed):
        draw(dropout, rows, *seed)
        drawn.append((seed, dropout.keep.clone()))

    monkeypatch.setattr(LayerDropout, "draw", noted)
    train(tmp_path, SELDOM, layer_dropout=0.6)
    assert len({seed for seed, _ in drawn}) == STEPS
    assert len({str(keep[2:, 0].tolist()) for _, keep in drawn}) > 1


def test_the_learning_rate_rises_stays_and_falls():
    settings = small_settings(steps=1000, lr=0.5, warmup=100, decay=0.3)
    rates = [settings.lr_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.005)
    assert rates[:100] == sorted(rates[:100])
    assert set(rates[100:700]) == {0.5}
    assert rates[700:] == sorted(rates[700:], reverse=True)
    assert 0 < rates[-1] < 0.01
    flat = small_settings(lr=0.5, warmup=0, decay=0.0)
    assert {flat.lr_at(step) for step in range(STEPS)} == {0.5}
    assert small_settings(optimizer="muon").plateau > small_settings().plateau > 0

"""Fitting finds planted importance, as plain descent would; interrupted, it ends at the same."""

import math
import os
import signal
from itertools import chain

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.nn.functional import softplus
from transformers import AutoModelForCausalLM

from sparing.memory.fit import PAIRED_TOKENS, Fit, evaluate, kendall, top_recall
from sparing.memory.predictor import CONFIG_FILE, WEIGHTS_FILE, ImportancePredictor
from sparing.memory.settings import FitSettings
from sparing.memory.targets import TARGETS, importance, length_free
from sparing.memory.train import train_predictor
from sparing.train import checkpoint
from sparing.train.loop import Pace
from tests.memory.small import HORIZONS, made_up, random_predictor, write_traces
from tests.tiny import checkpoint as write_checkpoint
from tests.tiny import engine
from tests.train.small import ctrl_c_at, forget_accelerate

WIDTH = 12
SELDOM = Pace(save_every=1000)


def planted(count=40, seed=0, marked=0.2):
    """Random hidden states; for each horizon a direction marks the tokens with a large target."""
    random, columns = np.random.default_rng(seed), len(HORIZONS)
    marks = np.linalg.qr(np.random.default_rng(99).standard_normal((WIDTH, columns)))[0].T
    for _ in range(count):
        length = int(random.integers(20, 60))
        important = np.zeros((length, columns), bool)
        for column in important.T:
            column[random.choice(length, int(marked * length), replace=False)] = True
        hidden = random.standard_normal((length, WIDTH)) + important @ (4 * marks)
        raw = random.uniform(0, 1, important.shape) + 5 * important
        yield made_up(torch.tensor(hidden, dtype=torch.float32), torch.tensor(raw / length).float())


@pytest.fixture
def traces(tmp_path):
    return write_traces(tmp_path / "traces", planted())


def settings(**changed):
    return FitSettings(**{"epochs": 3, "batch": 8, "lr": 1e-2, "seed": 5} | changed)


def fitted(traces, out, chosen=None, on_report=lambda report: None, pace=SELDOM):
    """A run in ``out``, or what is left of it; its predictor's weights, None if it stopped."""
    chosen = chosen or settings()
    found = train_predictor(traces, chosen, {}, out, resume=True, on_report=on_report, pace=pace)
    forget_accelerate()
    return found and (out / WEIGHTS_FILE).read_bytes()


# What it learns


@pytest.mark.parametrize("kendall_weight", [0.0, 1.0])
@pytest.mark.parametrize("target", TARGETS)
def test_it_finds_what_was_planted(traces, tmp_path, target, kendall_weight):
    chosen = settings(epochs=15, target=target, kendall=kendall_weight)
    reports = []
    found = train_predictor(traces, chosen, {}, tmp_path / "out", on_report=reports.append)
    assert found["traces"] == len(traces.held_out) == 4
    assert found["top20_recall"] > 0.9
    assert found["spearman"] > 0.4  # of the unmarked, the order is noise
    assert kendall_weight or found["mse"] < 0.5 * found["mse_of_constant"]
    said = [report["validation"] for report in reports if "validation" in report]
    assert len(said) == 15
    assert said[-1] == found
    assert reports[-1]["loss"] < reports[0]["loss"]
    [before] = [
        evaluate(fit.predictor, traces, chosen) for fit in [Fit(traces, chosen, tmp_path / "new")]
    ]
    assert before["top20_recall"] < 0.6, "what it learns must not be there before"
    assert before["mse_of_constant"] == found["mse_of_constant"]


ATTENDED = 65  # the token that every position of the planted model looks at
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "rope_parameters": {"rope_theta": 1e12, "rope_type": "default"},
}


@pytest.fixture
def looking(tmp_path):
    """A llama whose every head looks at one token, by weights set by hand.

    Dimension 0 of the residual stream is 1 for all tokens, dimension 1 for the attended one alone.
    Of a head's dimensions only the slowest is used, which rotates by less than a thousandth.
    """
    path = write_checkpoint(tmp_path / "looking", gain=0.5, **SHAPE)
    model = AutoModelForCausalLM.from_pretrained(path)
    slowest = [3, 11]  # of each head's 8, its second half is the first's partner
    with torch.no_grad():
        embedding = model.model.embed_tokens.weight
        embedding[:, 0], embedding[:, 1] = 1.0, 0.0
        embedding[ATTENDED, 1] = 1.0
        for layer in model.model.layers:
            layer.input_layernorm.weight.fill_(1.0)
            query, key = layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight
            query.zero_()
            key.zero_()
            query[slowest, 0], key[slowest, 1] = 4.0, 4.0
            for out in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
                out[:2] = 0.0
    model.save_pretrained(path)
    return engine(path, "float32").decoder


@pytest.mark.parametrize("target", TARGETS)
def test_it_finds_what_a_model_looks_at(looking, tmp_path, target):
    """Random traces through the planted model; the predictor has its hidden states alone."""
    noise = torch.Generator().manual_seed(0)
    marked, measured = [], []
    for _ in range(40):
        ids = torch.randint(66, 250, (100,), generator=noise)
        ids[torch.randperm(80, generator=noise)[:16] + 10] = ATTENDED
        measured.append(importance(looking, ids.tolist(), 10, 90, HORIZONS))
        marked.append(ids[10:90] == ATTENDED)
    attended = [m.target("answer")[at].sum() for m, at in zip(measured, marked, strict=True)]
    assert min(attended) > 0.5, "the answer must look at the marked tokens"
    traces = write_traces(tmp_path / "traces", measured)
    chosen = settings(epochs=20, target=target)
    fit = Fit(traces, chosen, tmp_path / "out")

    def recall():
        found = []
        for trace in traces.held_out:
            wanted = set(marked[trace.id - 1].nonzero()[:, 0].tolist())
            for scores in fit.predictor(trace.read("hidden")).T:
                best = set(scores.topk(len(wanted)).indices.tolist())
                found.append(len(wanted & best) / len(wanted))
        return np.mean(found)

    assert len(traces.held_out) == 4
    assert recall() < 0.7
    fit.run(SELDOM)
    assert recall() > 0.9


# Its parts


def test_the_pairwise_term_is_a_double_loop():
    noise = torch.Generator().manual_seed(0)
    for length in (1, 2, 7, 40):
        p = torch.rand(length, generator=noise)
        y = torch.randint(0, 4, (length,), generator=noise).float()  # with ties
        for temperature in (0.5, 2.0):
            terms = [
                math.log1p(math.exp(-float(p[i] - p[j]) / temperature))
                for i in range(length)
                for j in range(length)
                if y[i] > y[j]
            ]
            expected = sum(terms) / max(len(terms), 1)
            seen = torch.ones(length, 2, dtype=torch.bool)
            found = kendall(p[:, None], y[:, None], seen[:, :1], temperature)
            assert float(found) == pytest.approx(expected, rel=1e-5)
            two = torch.stack([p, p], 1), torch.stack([y, 0 * y], 1)
            assert float(kendall(*two, seen, temperature)) == pytest.approx(expected / 2, rel=1e-5)
            some = torch.arange(length)[:, None] < (length + 1) // 2
            early = [of_all[: len(of_all[some])] for of_all in (p[:, None], y[:, None], some)]
            found = kendall(p[:, None], y[:, None], some, temperature)
            torch.testing.assert_close(found, kendall(*early, temperature))


def test_the_pairwise_term_of_long_traces_takes_every_nth_token():
    noise = torch.Generator().manual_seed(0)
    p, y = (torch.rand(2 * PAIRED_TOKENS + 9, 1, generator=noise) for _ in range(2))
    seen = torch.rand(len(p), 1, generator=noise) < 0.9
    given = p, y, seen

    def term(part):
        return kendall(*(of_all[part] for of_all in given), 0.5)

    assert term(slice(None)) == term(slice(None, None, 3))
    assert term(slice(PAIRED_TOKENS)) != term(slice(511))


def test_better_order_is_a_lower_pairwise_term():
    y = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    seen = torch.ones_like(y, dtype=torch.bool)
    found = [float(kendall(sign * y, y, seen, 0.5)) for sign in (1, 0, -1)]
    assert found == sorted(found)
    assert found[1] == pytest.approx(math.log(2))


@pytest.mark.parametrize("kendall_weight", [0.0, 1.0])
def test_each_step_is_plain_descent_on_all_its_tokens(traces, tmp_path, kendall_weight):
    """The loop against the same few lines without accelerate, checkpoints or processes."""
    chosen = settings(batch=100, epochs=12, warmup=0.25, weight_decay=0.1, clip=0.05,
                      kendall=kendall_weight, temperature=0.7)  # fmt: skip
    reports = []
    fit = Fit(traces, chosen, tmp_path, reports.append)
    weights = [w.detach().clone().requires_grad_() for w in fit.predictor.parameters()]
    optimizer = torch.optim.AdamW(weights, 1.0, (0.9, 0.95), weight_decay=0.1)
    losses = []
    for step in range(12):
        errors, terms = [], []
        for trace in traces.train:
            p, y = trace.read("hidden"), length_free(trace.read("future-max"))
            for w in weights:
                p = softplus(p @ w.T)
            seen = trace.seen(HORIZONS)
            errors.append(((p - y) ** 2)[seen])
            terms.append(kendall(p, y, seen, 0.7))
        loss = torch.cat(errors).mean() + kendall_weight * torch.stack(terms).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 0.05)
        optimizer.param_groups[0]["lr"] = fit.lr_at(step)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert fit.run(SELDOM) == fit.steps == 12
    assert [report["loss"] for report in reports] == pytest.approx(losses, rel=1e-4)
    assert [report["step"] for report in reports] == list(range(1, 13))
    for ours, expected in zip(fit.predictor.parameters(), weights, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-3)


def test_an_epoch_takes_every_trace_once_and_in_another_order(traces, tmp_path):
    fit = Fit(traces, settings(), tmp_path)
    assert (fit.epoch_steps, fit.steps) == (5, 15)
    batches = [[trace.id for trace in fit._batch(step)] for step in range(fit.steps)]
    epochs = [[*chain.from_iterable(batches[at : at + 5])] for at in range(0, 15, 5)]
    everything = [trace.id for trace in traces.train]
    assert [sorted(epoch) for epoch in epochs] == [everything] * 3
    assert len({tuple(epoch) for epoch in [*epochs, everything]}) == 4


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("epochs", [1, 2, 3, 7])
def test_the_learning_rate_rises_and_falls(traces, tmp_path, epochs, warmup):
    """Never above what was asked for, however the warm-up falls between the steps."""
    fit = Fit(traces, settings(epochs=epochs, warmup=warmup, lr=0.5), tmp_path)
    rates = [fit.lr_at(step) for step in range(fit.steps)]
    rise = max(warmup * fit.steps, 1)
    top = rates.index(max(rates))
    assert rates[0] == pytest.approx(0.5 / rise)
    assert max(rates) <= 0.5
    assert max(rates) > 0.5 * (1 - 1 / rise) if rise > 1 else max(rates) == 0.5
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates) > 0
    if warmup == 0.1 and epochs == 7:
        assert rates[-1] < 0.01 * 0.5
        assert rates[top + (35 - top) // 2] == pytest.approx(0.25, rel=0.1)


def test_evaluation_is_as_written_out(tmp_path):
    traces = write_traces(tmp_path, planted(), answer=2)
    predictor = random_predictor(WIDTH)
    found = evaluate(predictor, traces, settings())
    known = [
        torch.cat(
            [length_free(t.read("future-max"))[t.seen(HORIZONS)[:, k], k] for t in traces.train]
        )
        for k in range(len(HORIZONS))
    ]
    constant = [values.mean() for values in known]
    squares, flat, ranks, recalls = [], [], [], []
    for trace in traces.held_out:
        truth = length_free(trace.read("future-max"))
        said = predictor(trace.read("hidden"))
        for p, y, c, seen in zip(said.T, truth.T, constant, trace.seen(HORIZONS).T, strict=True):
            p, y = p[seen], y[seen]
            squares += [float(a - b) ** 2 for a, b in zip(p, y, strict=True)]
            flat += [float(c - b) ** 2 for b in y]
            ranks.append(spearmanr(p, y).statistic)
            count = int(0.2 * len(y))
            ours, theirs = (sorted(range(len(y)), key=lambda i, v=v: -v[i])[:count] for v in (p, y))
            recalls.append(len(set(ours) & set(theirs)) / count)
    assert found == {
        "mse": pytest.approx(np.mean(squares), rel=1e-5),
        "mse_of_constant": pytest.approx(np.mean(flat), rel=1e-5),
        "spearman": pytest.approx(np.mean(ranks)),
        "top20_recall": pytest.approx(np.mean(recalls)),
        "traces": 4,
    }


def test_a_constant_prediction_has_no_order(traces):
    predictor = ImportancePredictor(WIDTH, HORIZONS)
    for weight in predictor.parameters():
        weight.data.zero_()
    assert evaluate(predictor, traces, settings())["spearman"] == 0.0


@pytest.mark.parametrize("kendall_weight", [0.0, 1.0])
def test_ages_that_a_token_never_reached_teach_nothing(tmp_path, kendall_weight):
    traces = write_traces(tmp_path / "traces", planted(), answer=2)
    fit = Fit(traces, settings(kendall=kendall_weight), tmp_path / "fit")
    hidden, y, seen, lengths = fit._read(traces.train)
    assert seen.sum().item() == sum(
        min(trace.generated - 1 - h, trace.length) for trace in traces.train for h in HORIZONS
    )
    told = seen, lengths, int(seen.sum()), len(lengths)
    loss = fit.loss(hidden, y, *told)
    assert fit.loss(hidden, y + 7 * ~seen, *told) == loss
    assert fit.loss(hidden, y + 7 * seen, *told) != loss


def test_recall_of_the_top():
    y = torch.arange(20.0)
    assert top_recall(y, y) == 1
    assert top_recall(-y, y) == 0
    assert top_recall(torch.where(y >= 18, y, -y), y) == 0.5  # 19, 18 and then 0, 1
    assert top_recall(y[:3], y[:3]) == 1  # of less than five tokens, one


# Interrupted and resumed


def test_stopped_and_resumed_it_is_the_same(traces, tmp_path):
    expected = fitted(traces, tmp_path / "unbroken")
    out = tmp_path / "out"
    for stop_at in (1, 4, 5, 11, 15):
        last = fitted(traces, out, pace=Pace(save_every=3, stop_at=stop_at))
        assert (last is None) == (stop_at < 15)
        if stop_at < 15:
            assert checkpoint.steps(out)[-1] == stop_at
    assert last == expected
    assert [path.name for path in out.iterdir() if path.is_dir()] == []
    assert fitted(traces, tmp_path / "other", settings(seed=6)) != expected


def test_ctrl_c_keeps_a_checkpoint(traces, tmp_path):
    expected = fitted(traces, tmp_path / "unbroken")
    out = tmp_path / "out"
    for at in (4, 9):
        with pytest.raises(KeyboardInterrupt):
            fitted(traces, out, on_report=ctrl_c_at(at))
        forget_accelerate()
        assert checkpoint.steps(out)[-1] == at
        assert not (out / CONFIG_FILE).exists()
    assert fitted(traces, out) == expected


def test_ctrl_c_in_the_middle_of_a_step(traces, tmp_path):
    """A real SIGINT as the optimizer steps: it takes effect behind the step."""
    expected = fitted(traces, tmp_path / "unbroken")
    out = tmp_path / "out"
    fit = Fit(traces, settings(), out)
    steps = []

    def pressed(optimizer, args, options):
        steps.append(optimizer)
        if len(steps) == 6:
            os.kill(os.getpid(), signal.SIGINT)

    fit.optimizer.optimizer.register_step_post_hook(pressed)
    with pytest.raises(KeyboardInterrupt):
        fit.run(SELDOM)
    assert checkpoint.steps(out) == [6]
    forget_accelerate()
    assert fitted(traces, out) == expected


def test_what_was_saved_says_how_it_came_about(traces, tmp_path):
    from sparing.files import read_json

    about = {"fingerprint": "f", "model": "m", "traces": {"n": 40}}
    found = train_predictor(traces, settings(), about, tmp_path)
    config = read_json(tmp_path / CONFIG_FILE)
    assert config["width"] == WIDTH
    assert config["held_out"] == found
    assert {name: config[name] for name in about} == about
    assert config["fit"]["target"] == "future-max"
    assert "log1p" in config["scale"]
    again = train_predictor(traces, settings(), about, tmp_path, resume=True)
    assert again == found

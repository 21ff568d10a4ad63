"""How sure the model of the stage before is of each token: what decides where latents go."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sparing.latent import token_probabilities
from sparing.latent.insertion import insert
from sparing.latent.settings import StageSettings
from sparing.latent.token import FAR, RIDGE, aim_row
from sparing.latent.token_probabilities import gold_probabilities, kept_probabilities, unsure_at
from sparing.train.examples import SHOWN, TAUGHT, ExampleSet
from tests.train.small import small_model, small_rows

ROWS = small_rows(12)
SETTINGS = StageSettings(stage=2, latents="hidden", batch_tokens=60, precision="float32")


@torch.no_grad()
def test_equal_to_row_by_row():
    examples, model = ExampleSet(ROWS), small_model()
    found = gold_probabilities(model, examples, SETTINGS)
    plain = small_model()
    for row, start in zip(ROWS, examples.starts, strict=False):
        p = plain(torch.tensor([row.ids])).logits[0].softmax(-1)
        for at, role in enumerate(row.roles):
            wanted = 1.0 if role == SHOWN else float(p[at - 1, row.ids[at]])
            assert found[start + at] == pytest.approx(wanted, abs=1e-5)
    assert model.training


@torch.no_grad()
def test_a_latent_token_is_no_word():
    """It has no probability; the likeliest of the words is asked for in its place."""
    examples, model, token = ExampleSet(ROWS), small_model(), 7
    found = gold_probabilities(model, examples, SETTINGS, token, likeliest=True)
    plain = small_model()
    for row, start in zip(ROWS, examples.starts, strict=False):
        logits = plain(torch.tensor([row.ids])).logits[0]
        logits[:, token] = float("-inf")
        best = logits.softmax(-1).amax(1)
        for at, role in enumerate(row.roles):
            wanted = 1.0 if role == SHOWN else float(best[at - 1])
            assert found[start + at] == pytest.approx(wanted, abs=1e-5)


def test_as_often_unsure_as_there_were_latents():
    model, token = small_model(), 39
    rows = [replace(row, ids=[id_ % token for id_ in row.ids]) for row in ROWS]
    examples = ExampleSet(rows)
    taught = examples.roles != SHOWN
    thinking = ExampleSet(
        insert(row, {row.roles.index(TAUGHT): 2}, token, taught=False) for row in rows
    )
    tau = unsure_at(model, examples, thinking, token, SETTINGS)
    found = gold_probabilities(model, examples, SETTINGS, token, likeliest=True)[taught]
    assert (found < tau).sum() == pytest.approx(len(ROWS), abs=1)


@pytest.mark.parametrize("near", [0.0, 4.0])
@torch.no_grad()
def test_the_token_s_row_is_the_ridge_regression_of_where_it_belongs(near):
    """Against least squares over all positions at once, both kinds weighing the same."""
    examples, model = ExampleSet(ROWS), small_model(tie_word_embeddings=False)
    gold = gold_probabilities(model, examples, SETTINGS)
    tau = float(np.median(gold[gold < 1]))
    plain = small_model(tie_word_embeddings=False)
    x, y, kinds = [], [], []
    for row, start in zip(ROWS, examples.starts, strict=False):
        out = plain(torch.tensor([row.ids]), output_hidden_states=True)
        for at, role in enumerate(row.roles):
            if role != SHOWN:
                kind = int(gold[start + at] >= tau)
                x.append(out.hidden_states[-1][0, at - 1].double())
                y.append(float(out.logits[0, at - 1].logsumexp(0)) + (near, -FAR)[kind])
                kinds.append(kind)
    weights = torch.tensor([1 / kinds.count(kind) for kind in kinds], dtype=torch.float64)
    x, y = torch.stack(x), torch.tensor(y, dtype=torch.float64)
    a = x.T @ (weights[:, None] * x)
    more = (RIDGE * a.diagonal().mean()).sqrt() * torch.eye(16, dtype=torch.float64)
    rows = torch.cat([weights.sqrt()[:, None] * x, more])
    wanted = torch.cat([weights.sqrt() * y, torch.zeros(16, dtype=torch.float64)])
    expected = torch.linalg.lstsq(rows, wanted[:, None]).solution[:, 0]
    aim_row(model, 39, examples, gold < tau, near)
    found = model.get_output_embeddings().weight
    assert torch.allclose(found[39].double(), expected, atol=1e-3)
    assert torch.equal(found[:39], plain.get_output_embeddings().weight[:39])
    before = found.clone()
    aim_row(model, 39, examples, np.zeros(len(gold), bool), near)
    assert torch.equal(found, before)  # it aims at nothing


def test_kept_for_the_same_model_and_examples_alone(tmp_path, monkeypatch):
    """A resumed run reads them; other examples, or another model, are scored anew."""
    counted = []
    as_it_is = token_probabilities.gold_probabilities

    def counting(*given):
        counted.append(given)
        return as_it_is(*given)

    monkeypatch.setattr(token_probabilities, "gold_probabilities", counting)
    path, examples, model = tmp_path / "gold.safetensors", ExampleSet(ROWS), small_model()
    first = kept_probabilities(path, model, "a", examples, SETTINGS)
    assert np.array_equal(kept_probabilities(path, model, "a", examples, SETTINGS), first)
    assert len(counted) == 1
    kept_probabilities(path, model, "b", examples, SETTINGS)
    kept_probabilities(path, model, "b", ExampleSet(ROWS[:5]), SETTINGS)
    assert len(counted) == 3

"""How sure the model of the stage before is of each token: what decides where latents go."""

import numpy as np
import pytest
import torch

from sparing.latent import scores
from sparing.latent.scores import gold_probabilities, kept_probabilities
from sparing.latent.settings import StageSettings
from sparing.train.examples import SHOWN, ExampleSet
from tests.train.small import small_model, small_rows

ROWS = small_rows(12)
SETTINGS = StageSettings(stage=2, latents="hidden", batch_tokens=60, precision="float32")


@torch.no_grad()
def test_equal_to_row_by_row():
    examples, model = ExampleSet(ROWS), small_model()
    found = gold_probabilities(model, examples, 60, "float32")
    plain = small_model()
    for row, start in zip(ROWS, examples.starts, strict=False):
        p = plain(torch.tensor([row.ids])).logits[0].softmax(-1)
        for at, role in enumerate(row.roles):
            wanted = 1.0 if role == SHOWN else float(p[at - 1, row.ids[at]])
            assert found[start + at] == pytest.approx(wanted, abs=1e-5)
    assert model.training


def test_kept_for_the_same_model_and_examples_alone(tmp_path, monkeypatch):
    """A resumed run reads them; other examples, or another model, are scored anew."""
    counted = []
    as_it_is = scores.gold_probabilities

    def counting(*given):
        counted.append(given)
        return as_it_is(*given)

    monkeypatch.setattr(scores, "gold_probabilities", counting)
    path, examples, model = tmp_path / "gold.safetensors", ExampleSet(ROWS), small_model()
    first = kept_probabilities(path, model, "a", examples, SETTINGS)
    assert np.array_equal(kept_probabilities(path, model, "a", examples, SETTINGS), first)
    assert len(counted) == 1
    kept_probabilities(path, model, "b", examples, SETTINGS)
    kept_probabilities(path, model, "b", ExampleSet(ROWS[:5]), SETTINGS)
    assert len(counted) == 3

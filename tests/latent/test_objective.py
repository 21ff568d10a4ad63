"""The loss with latents: the plain one without any, and the oracle's with some."""

import pytest
import torch
import torch.nn.functional as F

from sparing.latent.fusion import LatentVector
from sparing.latent.objective import LatentThought, wanted
from sparing.latent.vector_config import Recipe
from sparing.train.attention import NAME as CAUSAL
from sparing.train.examples import SHOWN, ExampleSet
from sparing.train.layer_dropout import LayerDropout
from sparing.train.objective import ChainOfThought, Exits
from tests.latent.oracle import recomputed
from tests.latent.small import LATENT
from tests.latent.small import model as exact_model
from tests.latent.small import vector as exact_vector
from tests.train.small import small_model, small_rows

EXITS = Exits((1,), 0.1)


def batch(rows):
    examples = ExampleSet(rows)
    ids, roles = examples.batch(range(len(rows)))
    return ids, roles, examples.taught(range(len(rows)))


@pytest.mark.parametrize("vector", ["hidden", "fused", "pause"])
def test_without_latents_it_is_the_plain_loss_to_the_last_bit(vector):
    ids, roles, total = batch(small_rows(8))
    plain, ours = small_model(), small_model()
    plain.set_attn_implementation(CAUSAL)
    made = LatentVector(Recipe(id=39, vector=vector), 16)
    ids = ids.masked_fill(ids == 39, 38)
    expected = ChainOfThought(plain, EXITS)(ids, roles, total)
    loss = LatentThought(ours, EXITS, made)(ids, roles, total)
    assert torch.equal(loss, expected)
    loss.backward()
    expected.backward()
    for (name, a), (_, b) in zip(ours.named_parameters(), plain.named_parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), name
    assert all(weight.grad is not None for weight in made.parameters())  # for several processes


def latent_rows():
    """Rows of examples, some of their tokens latents: taught in one, shown in another."""
    rows = small_rows(6, seed=4)
    for at, row in enumerate(rows):
        for place in range(2 + at, len(row.ids) - 1, 4):
            row.ids[place] = LATENT
            row.roles[place] = at % 2
    assert sum(row.ids.count(LATENT) for row in rows) > 8
    return rows


@torch.no_grad()
def test_the_oracle_s_loss():
    """Row by row and position by position; what is shown is in no loss."""
    net, made, rows = exact_model(), exact_vector(), latent_rows()
    ids, roles, total = batch(rows)
    loss = LatentThought(net, Exits(), made)(ids, roles, total)
    expected = 0.0
    for row in rows:
        logits = recomputed(net, made, row.ids).logits[0]
        for at, role in enumerate(row.roles):
            if role != SHOWN:
                expected += F.cross_entropy(logits[at - 1].float(), torch.tensor(row.ids[at]))
    assert abs(float(loss) - float(expected) / total) < 1e-5
    right = LatentThought(net, Exits(), made).right(ids, roles)
    for found, row in zip(right, rows, strict=True):
        likeliest = recomputed(net, made, row.ids).logits[0].argmax(-1).tolist()
        for at, role in enumerate(row.roles):
            if role != SHOWN:
                assert bool(found[at]) == (likeliest[at - 1] == row.ids[at])


@torch.no_grad()
def test_a_latent_is_taught_its_words_by_hand():
    """Cross-entropy over the words alone, those of a latent weighing one together."""
    net, made, rows = exact_model(), exact_vector(), latent_rows()
    ids, roles, total = batch(rows)
    at = rows[0].ids.index(LATENT)
    dropped = torch.tensor([[0, 0, 3], [at, at, rows[3].ids.index(LATENT)], [7, 9, 8]])
    plain = LatentThought(net, Exits(), made)(ids, roles, total, dropped=dropped)
    loss = LatentThought(net, Exits(), made, words_weight=0.5)(ids, roles, total, dropped=dropped)
    missing = 0.0
    for row, position, words in ((0, at, [7, 9]), (3, int(dropped[1, 2]), [8])):
        logits = recomputed(net, made, rows[row].ids).logits[0, position - 1].clone()
        logits[LATENT] = float("-inf")
        missing -= float(logits.float().log_softmax(0)[words].mean())
    assert float(loss - plain) * total == pytest.approx(0.5 * missing, rel=1e-5)
    none = torch.zeros(3, 0, dtype=torch.long)
    again = LatentThought(net, Exits(), made, words_weight=0.5)(ids, roles, total, dropped=none)
    assert torch.equal(again, plain)
    exact = LatentThought(net, Exits(), made, rounds=1)(ids, roles, total, dropped=none)
    assert torch.equal(exact, plain), "latents that stand for no words are not iterated"


def test_layer_dropout_drops_the_same_for_all_tokens_of_a_row():
    """In many passes as in one: rows whose sub-layers are drawn, against each alone."""
    net, made, rows = (
        small_model(vocab_size=LATENT + 1),
        LatentVector(Recipe(id=LATENT), 16),
        latent_rows(),
    )
    dropout = LayerDropout(net, 0.9)
    objective = LatentThought(net, EXITS, made, dropout)
    ids, roles, _ = batch(rows)
    dropout.draw(len(rows), 1, 2)
    keep = dropout.keep
    together = objective.states(ids, roles, [1])
    assert dropout.rows is None
    for at, row in enumerate(rows):
        dropout.keep = keep[:, at : at + 1]
        alone = objective.states(*batch([row])[:2], [1])
        length = len(row.ids)
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[at, :length], b[0, :length], atol=1e-5, rtol=1e-4)
    dropout.off()
    assert (objective.states(ids, roles, [1])[1] - together[1]).abs().max() > 1e-2


def test_what_is_wanted_ends_with_what_is_taught():
    roles = torch.tensor([[0, 0, 1, 0, 2, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]])
    assert wanted(roles).tolist() == [5, 1, 6]

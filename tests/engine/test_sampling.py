"""The sampler draws from the distribution that transformers' processors make, and nothing else
than (seed, position, token id) decides what it draws."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation import logits_process as theirs

from sparing.engine.sampling import Sampler, gumbel, penalized, uniform
from tests.tiny import unchecked

VOCABULARY = 60
IDS = torch.arange(VOCABULARY)


def logits_of(seed: int, spread: float = 2.0) -> Tensor:
    return spread * torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed)).double()


def target(sampler: Sampler, logits: Tensor, seen: Tensor | None = None) -> Tensor:
    """Probabilities ``[V]`` after the processors of transformers, in its order."""
    scores = logits[None].clone()
    steps: list[theirs.LogitsProcessor] = []
    if seen is not None:
        steps.append(theirs.RepetitionPenaltyLogitsProcessor(sampler.repetition_penalty))
    steps.append(theirs.TemperatureLogitsWarper(sampler.temperature))
    if sampler.top_k is not None:
        steps.append(theirs.TopKLogitsWarper(sampler.top_k))
    if sampler.top_p < 1:
        steps.append(theirs.TopPLogitsWarper(sampler.top_p))
    if sampler.min_p > 0:
        steps.append(theirs.MinPLogitsWarper(sampler.min_p))
    prefix = torch.zeros(1, 0, dtype=torch.long) if seen is None else seen.nonzero().T
    for step in steps:
        scores = step(prefix, scores)
    return scores[0].softmax(-1)


@unchecked()
def test_frequencies_of_20_000_draws():
    """Chi-square with every filter on; the noise is a function, so this never flickers."""
    sampler = Sampler(
        temperature=1.3, top_k=30, top_p=0.95, min_p=0.02, repetition_penalty=1.4, seed=11
    )
    logits, seen = logits_of(0), IDS % 4 == 0
    expected = 20_000 * target(sampler, logits, seen)
    draws = torch.tensor([sampler.pick(logits, position, seen) for position in range(20_000)])
    counts = draws.bincount(minlength=VOCABULARY).double()
    kept = expected > 0
    assert 12 < kept.sum() < 30
    assert (expected[kept] > 20).all()
    assert (counts[~kept] == 0).all()
    statistic = ((counts - expected)[kept] ** 2 / expected[kept]).sum()
    freedom = (kept.sum() - 1).double()
    assert 0.001 < torch.special.gammaincc(freedom / 2, statistic / 2) < 0.999


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    temperature=st.floats(0.1, 3.0),
    top_k=st.none() | st.integers(1, 2 * VOCABULARY),
    top_p=st.floats(0.01, 1.0),
    min_p=st.floats(0.0, 1.0),
)
def test_filters_are_those_of_transformers(seed, temperature, top_k, top_p, min_p):
    sampler = Sampler(temperature, top_k, top_p, min_p)
    logits = logits_of(seed)
    ids, log_p = sampler.filtered(logits)
    found = torch.zeros(VOCABULARY).double().index_put((ids,), log_p.softmax(0))
    torch.testing.assert_close(found, target(sampler, logits), rtol=0, atol=1e-12)


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.2, 3.0])
def test_penalty_is_that_of_transformers(penalty):
    logits, seen = logits_of(1), IDS % 3 == 0
    step = theirs.RepetitionPenaltyLogitsProcessor(penalty)
    expected = step(seen.nonzero().T, logits[None].clone())[0]
    assert torch.equal(penalized(logits, seen, penalty), expected)
    greedy = Sampler(repetition_penalty=penalty)
    assert greedy.pick(logits, 0, seen) == expected.argmax()
    assert greedy.is_argmax == (penalty == 1.0)


def test_greedy_is_the_argmax_whatever_the_seed_and_the_filters():
    logits = logits_of(2)
    for sampler in (Sampler(), Sampler(seed=9, top_k=5), Sampler(temperature=1.0, top_k=1)):
        assert sampler.pick(logits, 3, None) == logits.argmax()


def test_bfloat16_logits_are_drawn_from_as_they_are():
    logits = logits_of(3).bfloat16()
    sampler = Sampler(temperature=1.0, seed=1)
    assert sampler.pick(logits, 5, None) == sampler.pick(logits.double(), 5, None)


@given(seed=st.integers(0, 2**63 - 1), position=st.integers(0, 2**31))
def test_noise_is_a_function_of_seed_position_and_id(seed, position):
    noise = uniform(seed, position, IDS)
    assert torch.equal(noise, uniform(seed, position, IDS))
    some = torch.tensor([41, 3, 17])
    assert torch.equal(noise[some], uniform(seed, position, some)), "not of the ids beside it"
    assert ((noise > 0) & (noise < 1)).all()
    assert gumbel(seed, position, IDS).isfinite().all()


def test_noise_is_uniform():
    """Kolmogorov and Smirnov's distance of a million numbers to the diagonal."""
    noise = torch.cat([uniform(7, position, torch.arange(50_000)) for position in range(20)])
    count = len(noise)
    distance = (noise.sort().values - (torch.arange(count) + 0.5) / count).abs().max()
    assert 0.2 < distance * count**0.5 < 1.95  # p = 0.001 at 1.95


@pytest.mark.parametrize("lag", [1, 2, 64, 1 << 20])
def test_neighbouring_positions_and_seeds_are_independent(lag):
    """Correlation of 100,000 numbers with those one seed, one position or one id away."""
    ids = torch.arange(100_000)
    base = uniform(5, 9, ids)
    others = {
        "seed": uniform(5 + lag, 9, ids),
        "position": uniform(5, 9 + lag, ids),
        "id": uniform(5, 9, ids + lag),
        "swapped": uniform(9, 5, ids),
    }
    for name, other in others.items():
        correlation = torch.corrcoef(torch.stack([base, other]))[0, 1]
        assert abs(correlation) < 4 / len(ids) ** 0.5, name


@unchecked()
def test_draws_at_positions_in_a_row_are_independent():
    """Of 5,000 draws as many repeat the one before as the probabilities have it."""
    sampler = Sampler(temperature=1.0, seed=3)
    logits = logits_of(4, spread=1.0)
    draws = torch.tensor([sampler.pick(logits, position, None) for position in range(5_000)])
    repeats = (draws[1:] == draws[:-1]).double().mean()
    expected = (logits.softmax(0) ** 2).sum()
    assert abs(repeats - expected) < 4 * (expected * (1 - expected) / 5_000) ** 0.5


FILTERS = [{}, {"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.3}]


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("temperature", [5e-324, 1e-310, 1e-300, 1e-9])
@unchecked()
def test_the_lowest_temperatures_are_greedy(temperature, filters):
    logits = logits_of(3)
    sampler = Sampler(temperature=temperature, seed=2, **filters)
    assert {sampler.pick(logits, position, None) for position in range(50)} == {
        int(logits.argmax())
    }


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("penalty", [5e-324, 1e-310, 1e300])
@pytest.mark.parametrize("every", [1, 4])
@unchecked()
def test_a_penalty_beyond_all_bounds_still_leaves_a_token(penalty, every, filters):
    sampler = Sampler(temperature=1.0, repetition_penalty=penalty, seed=2, **filters)
    logits = logits_of(3).float() - 9 * (penalty > 1)
    assert 0 <= sampler.pick(logits, 7, IDS % every == 0) < VOCABULARY
    assert len(sampler.ranked(logits, 7, IDS % every == 0, 3)) >= 1


def test_ties_at_the_edge_of_a_filter():
    """top_k keeps all that tie with the last; top_p keeps as few as reach it."""
    logits = torch.zeros(8).double()
    assert len(Sampler(1.0, top_k=3).filtered(logits)[0]) == 8
    assert len(Sampler(1.0, top_p=0.5).filtered(logits)[0]) == 4
    assert len(Sampler(1.0, min_p=1.0).filtered(logits)[0]) == 8


@pytest.mark.parametrize(
    "filters", [*FILTERS[1:], {"top_p": 1 - 1e-9}, {"top_k": 300, "min_p": 0.01}]
)
@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0, 3.0, 10.0])
def test_what_is_not_sorted_is_behind_the_nucleus(spread, filters):
    """With all of 20,000 tokens sorted the same ones pass, in the same order."""
    logits = spread * torch.randn(20_000, generator=torch.Generator().manual_seed(4)).double()
    sampler = Sampler(temperature=0.8, **filters)
    scaled = (logits - logits.max()) / 0.8
    if "top_k" in filters:
        scaled[scaled < scaled.topk(filters["top_k"]).values[-1]] = -torch.inf
    scaled, order = scaled.sort(descending=True, stable=True)
    p = scaled.softmax(0)
    kept = scaled > -torch.inf
    kept &= p.cumsum(0) - p < sampler.top_p
    kept &= p >= sampler.min_p * p[0]
    ids, _ = sampler.filtered(logits)
    assert ids.equal(order[kept])


@pytest.mark.parametrize("count", [0, 1, 5, 100])
def test_logprobs_are_the_models_own_before_any_filter(count):
    logits = logits_of(3)
    sampler = Sampler(temperature=2.0, top_k=2, logprobs=count)
    expected = logits.softmax(-1).log()
    found = sampler.told(logits.float(), 17)
    assert found.token == pytest.approx(float(expected[17]), abs=1e-6)
    assert len(found.top) == min(count, VOCABULARY)
    assert [id_ for id_, _ in found.top] == expected.argsort(descending=True)[:count].tolist()
    for id_, log_p in found.top:
        assert log_p == pytest.approx(float(expected[id_]), abs=1e-6)


def test_logprobs_are_not_told_unless_asked_for():
    assert Sampler(temperature=1.0).told(logits_of(0), 0) is None

"""The sampler draws from the distribution that transformers' processors make, and nothing else
than (seed, position, token id) decides what it draws."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation import logits_process as theirs

from sparing.engine.filters import passing
from sparing.engine.sampling import Draw, Sampler, draw, gumbel, penalized, uniform
from sparing.engine.sums import top_probability
from tests.tiny import unchecked

VOCABULARY = 60
IDS = torch.arange(VOCABULARY)


def logits_of(seed: int, spread: float = 2.0) -> Tensor:
    return spread * torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed)).double()


def passed(sampler: Sampler, logits: Tensor) -> tuple[Tensor, Tensor]:
    """The ids that pass and their log p up to a constant, likeliest first."""
    ids, log_p = passing(logits[None], [sampler])
    there = log_p > -torch.inf
    return ids[there], log_p[there]


def one_by_one(
    sampler: Sampler, logits: Tensor, position: int, seen: Tensor | None, count: int
) -> list[int]:
    """The sampler in the words of its definition, over the whole vocabulary in float64."""
    if sampler.repetition_penalty != 1.0 and seen is not None:
        logits = penalized(logits, seen, sampler.repetition_penalty)
    if sampler.temperature == 0:
        return logits.topk(count).indices.tolist()
    scaled = (logits.double() - logits.double().max()) / sampler.temperature
    ids = torch.arange(len(scaled))
    if sampler.top_k is not None:
        least = scaled.topk(min(sampler.top_k, len(scaled))).values[-1]
        ids = (scaled >= least).nonzero()[:, 0]
    p, order = scaled[ids].softmax(0).sort(descending=True, stable=True)
    stays = (p.cumsum(0) - p < sampler.top_p) & (p >= sampler.min_p * p[0])
    ids = ids[order[stays]]
    noisy = scaled[ids] + gumbel(sampler.seed, position, ids)
    best: list[int] = ids[noisy.topk(min(count, len(ids))).indices].tolist()
    return best


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


@pytest.mark.slow
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
    ids, log_p = passed(sampler, logits)
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
    [best] = draw([Draw(sampler, 7, IDS % every == 0)], logits[None], 3)
    assert 1 <= len(best) <= 3


def test_ties_at_the_edge_of_a_filter():
    """top_k keeps all that tie with the last; top_p keeps as few as reach it."""
    logits = torch.zeros(8).double()
    assert len(passed(Sampler(1.0, top_k=3), logits)[0]) == 8
    assert len(passed(Sampler(1.0, top_p=0.5), logits)[0]) == 4
    assert len(passed(Sampler(1.0, min_p=1.0), logits)[0]) == 8


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
    ids, _ = passed(sampler, logits)
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


@st.composite
def samplers(pick: Any) -> Sampler:
    return Sampler(
        temperature=pick(st.sampled_from([0.0, 0.3, 0.8, 1.0, 1.7])),
        top_k=pick(st.none() | st.integers(1, 400)),
        top_p=pick(st.sampled_from([1.0, 0.99, 0.9, 0.3])),
        min_p=pick(st.sampled_from([0.0, 0.0, 0.02, 0.3])),
        repetition_penalty=pick(st.sampled_from([1.0, 1.0, 1.3])),
        seed=pick(st.integers(0, 2**63 - 1)),
    )


@settings(max_examples=60, deadline=None)
@given(
    options=st.lists(samplers(), min_size=32, max_size=32),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    count=st.sampled_from([1, 1, 5]),
)
@unchecked()
def test_32_rows_at_once_are_drawn_as_each_alone_and_as_defined(options, seed, dtype, count):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(32, 300, generator=generator, dtype=dtype)
    seen = torch.rand(32, 300, generator=generator) < 0.2
    draws = [Draw(o, 7 + at, seen[at]) for at, o in enumerate(options)]
    together = draw(draws, logits, count)
    for one, row, found in zip(draws, logits, together, strict=True):
        assert [found] == draw([one], row[None], count)
        assert found == one_by_one(one.sampler, row, one.position, one.seen, count)


@unchecked()
def test_of_some_words_it_draws_what_it_draws_of_all_when_the_others_cannot_be_drawn():
    words = torch.randperm(300, generator=torch.Generator().manual_seed(1))[:40]
    logits, seen = logits_of(5)[:40].float(), torch.arange(300) % 3 == 0
    whole = torch.full((300,), -torch.inf).scatter(0, words, logits)
    for at, filters in enumerate([{}, {"top_k": 7}, {"top_p": 0.8}, {"min_p": 0.1}]):
        one = Draw(Sampler(1.0, repetition_penalty=1.2, seed=at, **filters), at, seen)
        assert draw([one], logits[None], 3, words) == draw([one], whole[None], 3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@unchecked()
def test_confidence_is_the_softmax_of_the_likeliest(dtype):
    logits = (4 * torch.randn(9, 5_001, generator=torch.Generator().manual_seed(1))).to(dtype)
    found = top_probability(logits, logits.amax(-1))
    truth = logits.double().softmax(-1).amax(-1)
    torch.testing.assert_close(found.double(), truth, rtol=1e-5, atol=0)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for row, expected in zip(logits.repeat(1, 40), found, strict=True):
                wide = top_probability(row[None], row.amax()[None])
                assert torch.allclose(40 * wide[0], expected, rtol=1e-5)
                assert torch.equal(
                    wide[0], top_probability(row.expand(7, -1), row.amax()[None].expand(7))[3]
                )
    finally:
        torch.set_num_threads(threads)

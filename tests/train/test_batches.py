"""Batches: every row once an epoch, within the limit, and resumable at any of them."""

from itertools import islice

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sparing.train.batches import POOL, bucketed, endless

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)
TOKENS, SEEDS = st.integers(1, 120), st.integers(0, 2**31)


@settings(deadline=None)
@given(LENGTHS, TOKENS, SEEDS, st.integers(0, 9))
def test_an_epoch_has_every_row_once_within_the_limit(lengths, tokens, seed, epoch):
    batches = bucketed(lengths, tokens, seed, epoch)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= tokens
    assert bucketed(np.array(lengths), tokens, seed, epoch) == batches


@settings(deadline=None)
@given(LENGTHS, TOKENS, SEEDS, st.integers(0, 80))
def test_from_any_batch_on_it_goes_on_as_if_unbroken(lengths, tokens, seed, start):
    unbroken = endless(lengths, tokens, seed)
    expected = list(islice(unbroken, start, start + 12))
    assert list(islice(endless(lengths, tokens, seed, start), 12)) == expected


def test_more_rows_than_a_pool_are_sorted_enough_to_waste_little():
    lengths = np.random.default_rng(0).integers(5, 400, size=3 * POOL + 100)
    batches = bucketed(lengths, 4000, seed=1, epoch=0)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    assert padded < 1.1 * lengths.sum()


def test_epochs_and_seeds_have_orders_of_their_own():
    lengths = np.random.default_rng(0).integers(5, 400, size=200)
    orders = [bucketed(lengths, 4000, seed, epoch) for seed in (1, 2) for epoch in (0, 1)]
    assert len({str(order) for order in orders}) == 4

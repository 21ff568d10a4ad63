"""Training with holes in the cache: what goes, when, and that attention does not see it."""

import numpy as np
import pytest
import torch

from sparing.train.attention import NAME
from sparing.train.cache_dropout import LOCALS, SHARES, copied_later, holes, last_seen
from sparing.train.examples import SHOWN, TAUGHT
from tests.train.small import small_model

LENGTH, PROMPT = 120, 15


def drawn_ids(seed, rows=None):
    noise = np.random.default_rng(seed)
    return noise.integers(0, 40, LENGTH if rows is None else (rows, LENGTH))


def roles(rows):
    found = torch.full((rows, LENGTH), TAUGHT)
    found[:, :PROMPT] = SHOWN
    return found


@pytest.mark.parametrize("seed", range(50))
def test_a_row_keeps_to_a_budget_its_prompt_and_its_last_tokens(seed):
    seen = last_seen(drawn_ids(seed), PROMPT, np.random.default_rng(seed))
    response = LENGTH - PROMPT
    room = max(int(np.random.default_rng(seed).uniform(*SHARES) * response), 8)
    at = np.arange(LENGTH)
    assert (seen[:PROMPT] == LENGTH).all()
    assert (seen > at).all()  # its own query and the next one at least
    for query in range(PROMPT, LENGTH):
        cached = int((seen[PROMPT : query + 1] >= query).sum())
        assert cached <= room
    gone = seen[seen < LENGTH]
    assert len(gone)
    local = max(int(LOCALS[0] * room), 1)
    assert (gone - at[seen < LENGTH] >= local).all()


def test_shortest_of_rows():
    for response in range(1, 12):
        seen = last_seen(np.zeros(3 + response, int), 3, np.random.default_rng(0))
        assert (seen[:3] == 3 + response).all()


def test_what_is_copied_later():
    ids = np.array([5, 1, 2, 3, 9, 1, 2, 3, 7])
    assert copied_later(ids).tolist() == [0, 1, 1, 1, 0, 0, 0, 0, 0]
    assert copied_later(ids[:2]).tolist() == [0, 0]


def test_mask_is_the_seeds_alone_and_of_as_many_rows_as_asked():
    ids = torch.from_numpy(drawn_ids(1, rows=64))
    first = holes(ids, roles(64), 0.5, 3, 4, 0)
    assert torch.equal(first, holes(ids, roles(64), 0.5, 3, 4, 0))
    assert not torch.equal(first, holes(ids, roles(64), 0.5, 3, 5, 0))
    causal = torch.full((LENGTH, LENGTH), float("-inf")).triu(1)
    whole = (first[:, 0] == causal).flatten(1).all(1)
    assert 16 <= int(whole.sum()) <= 48
    assert holes(ids, roles(64), 0.0, 3, 4, 0) is None


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_training_attention_sees_the_same_holes_as_transformers(groups):
    model = small_model(num_key_value_heads=groups, max_position_embeddings=LENGTH)
    ids = torch.from_numpy(drawn_ids(2, rows=3))
    mask = holes(ids, roles(3), 1.0, 0)
    expected = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    whole = model(input_ids=ids, use_cache=False).logits
    model.set_attn_implementation(NAME)
    ours = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    assert (ours - whole).abs().max() > 1e-3

"""Importance targets equal those of a full attention map, which they never hold."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sparing.memory.predictor import ImportancePredictor
from sparing.memory.targets import TARGETS, importance, length_free
from sparing.model.decoder import Decoder
from sparing.model.hub_decoder import HubDecoder
from sparing.model.torch_decoder import TorchDecoder
from tests.model.passes import assert_close, decoder, exact_norms, expected, oracle, random_ids
from tests.tiny import reference, tiny

PATHS = {"llama, group of 3": tiny("llama"), "qwen2": tiny("qwen2"), "qwen3": tiny("qwen3")}
IDS = random_ids(50)
SPAN = (11, 37)
# Other traces: no question; a lone thought; an answer of one token; no answer; nothing but thought.
SPANS = [SPAN, (0, 20), (30, 31), (5, 49), (11, 50), (0, 50)]
HORIZONS = [(0,), (5,), (0, 3, 12), (12, 25), (7, 1000), (1000,)]


def eager(path: Path) -> Any:
    return exact_norms(reference(path, "float64", "eager"))


def naive(path, ids, begin, end, horizons):
    """answer, future-mean and future-max of every thought, column by column of the whole map."""
    maps = expected(eager(path), ids, output_attentions=True).attentions
    attention = torch.cat(maps).mean((0, 1))
    answer = [attention[end:, j].mean() if end < len(ids) else 0.0 for j in range(begin, end)]
    later = [[attention[j + h + 1 :, j] for h in horizons] for j in range(begin, end)]
    mean = [[column.mean() if len(column) else 0.0 for column in token] for token in later]
    most = [[column.max() if len(column) else 0.0 for column in token] for token in later]
    values = ([[value] for value in answer], mean, most)
    return {n: torch.tensor(v, dtype=torch.float64) for n, v in zip(TARGETS, values, strict=True)}


def assert_targets(found, truth, within):
    for name in TARGETS:
        assert_close(found.target(name), truth[name], within)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("horizons", HORIZONS, ids=str)
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_targets_are_those_of_the_whole_map(path, horizons, chunk):
    found = importance(decoder(path), IDS, *SPAN, horizons, chunk)
    assert_targets(found, naive(path, IDS, *SPAN, horizons), 1e-7)


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("horizons", HORIZONS, ids=str)
def test_any_span(span, horizons):
    path = PATHS["qwen3"]
    found = importance(decoder(path), IDS, *span, horizons, 8)
    assert_targets(found, naive(path, IDS, *span, horizons), 1e-7)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("chunk", [1, 7, 11, 64])
def test_hidden_is_the_last_hidden_state(path, chunk):
    truth = expected(oracle(path), IDS, output_hidden_states=True).hidden_states[-1][0]
    found = importance(decoder(path), IDS, *SPAN, [3], chunk)
    assert_close(found.hidden, truth[slice(*SPAN)], 1e-9)


def test_through_transformers():
    path = PATHS["qwen2"]
    hub = HubDecoder.load(path, torch.float64)
    exact_norms(hub.model)
    found = importance(hub, IDS, *SPAN, [5], 8)
    assert_targets(found, naive(path, IDS, *SPAN, [5]), 1e-7)


@pytest.mark.parametrize(("dtype", "within"), [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_lower_precision_gives_float32(dtype, within):
    path = PATHS["llama, group of 3"]
    found = importance(decoder(path, dtype), IDS, *SPAN, [5], 8)
    assert_targets(found, naive(path, IDS, *SPAN, [5]), within)
    assert {t.dtype for t in vars(found).values()} == {torch.float32}


def test_a_predictor_can_learn_from_it():
    """What a pass in inference mode returns could not be saved for backward."""
    found = importance(decoder(PATHS["qwen3"], "float32"), IDS, *SPAN, [5, 9])
    predictor = ImportancePredictor(found.hidden.shape[1], [5, 9])
    (predictor(found.hidden) - length_free(found.future_max)).pow(2).mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in predictor.parameters())


class Watched(TorchDecoder):
    """A decoder that remembers what it was asked."""

    def __init__(self, ours: Decoder) -> None:
        vars(self).update(vars(ours), asked=[])

    def __call__(self, inputs, *others, **options):
        self.asked += inputs
        return super().__call__(inputs, *others, **options)


@pytest.mark.parametrize(
    ("horizons", "rows"), [([0], 38), ([9], 29), ([9, 20], 29), ([25], 13), ([1000], 13)]
)
def test_only_rows_that_count_are_attended(horizons, rows):
    watched = Watched(decoder(PATHS["qwen3"]))
    importance(watched, IDS, *SPAN, horizons, 8)
    assert sum(i.attended for i in watched.asked) == rows
    assert [token for i in watched.asked for token in i.ids] == IDS
    assert not any(i.scored for i in watched.asked)


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.numel = max([self.numel, *sizes])
        return out


def test_no_full_map_is_ever_made():
    path, ids, chunk = PATHS["llama, group of 3"], random_ids(600), 32
    ours, theirs = decoder(path), eager(path)
    config = ours.config
    bound = config.heads * len(ids) * max(chunk, config.head_dim)
    assert bound < config.heads * len(ids) ** 2 / 4
    with Largest() as chunked:
        importance(ours, ids, 40, 500, [20, 99], chunk)
    assert chunked.numel <= bound
    with Largest() as at_once:
        importance(ours, ids, 40, 500, [20], len(ids))
    assert at_once.numel > bound
    with Largest() as full:
        expected(theirs, ids, output_attentions=True)
    assert full.numel > bound


def test_length_free():
    """The mean is the first column's in both: a second one half as large stays so."""
    raw = torch.tensor([[0.0, 0.0], [1.0, 0.5], [3.0, 1.5], [4.0, 2.0]])
    wanted = torch.tensor([[0.0, 0.0], [0.5, 0.25], [1.5, 0.75], [2.0, 1.0]])
    assert_close(length_free(raw), torch.log1p(wanted), 1e-6)
    assert_close(length_free(raw / 1000), length_free(raw), 1e-6)
    assert_close(length_free(torch.zeros(3, 2)), torch.zeros(3, 2), 1e-12)


@pytest.mark.parametrize(
    ("span", "options", "message"),
    [
        ((20, 20), {}, "thinking must be at least one token of the 50, got those from 20 to 20"),
        ((21, 20), {}, "thinking must be at least one token"),
        ((-1, 20), {}, "thinking must be at least one token"),
        ((20, 51), {}, "thinking must be at least one token"),
        (SPAN, {"horizons": [-1, 5]}, "horizons must be 0 or more"),
        (SPAN, {"horizons": []}, "horizons must be 0 or more"),
        (SPAN, {"chunk": 0}, "chunk 1 or more"),
    ],
)
def test_refused(span, options, message):
    with pytest.raises(ValueError, match=message):
        importance(decoder(PATHS["qwen3"]), IDS, *span, **{"horizons": [5]} | options)


def test_unknown_target():
    found = importance(decoder(PATHS["qwen3"]), IDS, *SPAN, [5])
    with pytest.raises(ValueError, match="one of answer, future-mean, future-max, got future"):
        found.target("future")

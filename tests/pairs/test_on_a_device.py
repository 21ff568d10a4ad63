"""Cells on a device and in a dtype, against float64 on the CPU.

    SPARING_DEVICE=cuda SPARING_DTYPE=bfloat16 pytest tests/pairs/test_on_a_device.py

Other sums round otherwise. So a row may part from its oracle where the two likeliest tokens are as
close as the dtype's noise, and nowhere else; behind that place it is another text. It may also
evict another slot of a score that is as close, and say something else from there on.
"""

import os
from collections import Counter
from itertools import zip_longest

import pytest

from sparing.engine.events import EvictEvent, TokenEvent
from sparing.engine.result import Result
from tests.elsewhere import device
from tests.families import HUB
from tests.pairs import cells
from tests.pairs.cells import AXES, Cell
from tests.pairs.covering import covering

DEVICE = os.environ.get("SPARING_DEVICE")
DTYPE = os.environ.get("SPARING_DTYPE", "float32" if DEVICE else "float64")
TIE = {"float64": 1e-6, "float32": 1e-3, "float16": 0.05, "bfloat16": 0.3}[DTYPE]  # of log p
ALL = {
    "family": [*AXES["family"], *HUB],
    "policy": AXES["policy"],
    "draft": ["off", "lookup", "layers", "hybrid"],
}
FEW = {"family": ["llama", "gemma3"], "policy": ["random"], "draft": ["layers"]}
compared: Counter[str] = Counter()


@pytest.mark.slow
@pytest.mark.parametrize(
    "row", covering(ALL if DEVICE else FEW, 2), ids=lambda row: "-".join(row.values())
)
def test_parts_at_ties_alone(row, monkeypatch):
    greedy = cells.SAMPLINGS["greedy"].model_copy(update={"logprobs": 2})
    monkeypatch.setitem(cells.SAMPLINGS, "greedy", greedy)
    cell = Cell(**row, latent="off", picks="greedy", rows="together")
    expected = cells.answers(cell.plain)
    found = cells.answers(cell, model=cells.engine(cell.family, DTYPE, DEVICE or device()))
    for ours, theirs in zip(found, expected, strict=True):
        same = agreed(ours.token_ids, theirs.token_ids)
        compared["same"] += same
        compared["all"] += len(theirs.token_ids)
        if same < min(len(theirs.token_ids), evicted_alike(ours, theirs)):
            assert margin(theirs, same) < TIE, f"parted at {same}, where nothing is close"


@pytest.mark.slow
def test_enough_was_compared():
    """Runs last: ties did not make the comparison an empty one."""
    if not compared:
        pytest.skip("the cells ran in other processes, or not at all")
    least = 0.25 if DTYPE in ("float16", "bfloat16") else 0.95
    assert compared["same"] >= least * compared["all"], compared


def agreed(ours: list[int], theirs: list[int]) -> int:
    """Tokens until the first that differs."""
    pairs = zip(ours, theirs, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))


def evicted_alike(ours: Result, theirs: Result) -> int:
    """Tokens until the first eviction that frees other slots."""
    pairs = zip_longest(evictions(ours), evictions(theirs))
    start = len(theirs.prompt_token_ids)
    places = [min(e.at for e in pair if e) - start + 1 for pair in pairs if freed(pair)]
    return min(places, default=len(theirs.token_ids))


def evictions(result: Result) -> list[EvictEvent]:
    return [event for event in result.events if isinstance(event, EvictEvent)]


def freed(pair: tuple[EvictEvent | None, EvictEvent | None]) -> bool:
    """Whether the two free other slots."""
    return len({tuple(e.positions) if e else () for e in pair}) > 1


def margin(result: Result, at: int) -> float:
    """Log p of the likeliest token over the next, where a token was picked."""
    said = [event for event in result.events if isinstance(event, TokenEvent)][at]
    assert said.logprobs is not None
    (_, first), (_, second) = said.logprobs.top[:2]
    return first - second

"""Cells on a device and in its dtypes, against float64 on the CPU.

    SPARING_DEVICE=cuda SPARING_DTYPES=float32,bfloat16 pytest tests/pairs/test_on_a_device.py

Other sums round otherwise. So a row may part from its oracle where the two likeliest tokens are as
close as the dtype's noise, and nowhere else; behind that place it is another text. It may also
evict another slot of a score that is as close, and say something else from there on.
"""

import os
from collections import Counter
from functools import cache
from itertools import zip_longest

import pytest

from sparing.engine.events import EvictEvent, TokenEvent
from sparing.engine.result import Result
from tests.elsewhere import device
from tests.pairs import cells
from tests.pairs.cells import AXES, Cell
from tests.pairs.covering import covering

DEVICE = os.environ.get("SPARING_DEVICE")
DTYPES = os.environ.get("SPARING_DTYPES", "float32,bfloat16") if DEVICE else "float64"
TIES = {"float64": 1e-6, "float32": 1e-3, "float16": 0.05, "bfloat16": 0.3}  # of log p
LEAST = {"float64": 1.0, "float32": 0.95, "float16": 0.25, "bfloat16": 0.25}  # compared
MANY = {
    "family": ["llama", "qwen3", "gemma3", "gpt_oss", "qwen3_moe", "phi3"],
    "policy": AXES["policy"],
    "draft": ["off", "lookup", "layers", "hybrid"],
}
EXPERTS = {"gpt_oss", "qwen3_moe", "mixtral"}
HALF = {"float16", "bfloat16"}
FEW = {"family": ["llama", "gemma3"], "policy": ["random"], "draft": ["layers"]}
CELLS = [
    Cell(**row, latent="off", picks="greedy", rows="together")
    for row in covering(MANY if DEVICE else FEW, 2)
]
compared: dict[str, Counter[str]] = {}


@cache
def oracle(cell: Cell) -> list[Result]:
    return cells.answers(cell)


@pytest.fixture(autouse=True)
def _with_margins(monkeypatch):
    greedy = cells.SAMPLINGS["greedy"].model_copy(update={"logprobs": 2})
    monkeypatch.setitem(cells.SAMPLINGS, "greedy", greedy)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES.split(","))
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_parts_at_ties_alone(cell, dtype):
    found = cells.answers(cell, model=cells.engine(cell.family, dtype, DEVICE or device()))
    counts = compared.setdefault(dtype, Counter())
    for ours, theirs in zip(found, oracle(cell.plain), strict=True):
        same = agreed(ours.token_ids, theirs.token_ids)
        counts["same"] += same
        counts["all"] += len(theirs.token_ids)
        if dtype in HALF and cell.family in EXPERTS:
            continue  # a router's tie chooses another expert: transformers' own logits jump there
        if same < min(len(theirs.token_ids), evicted_alike(ours, theirs)):
            assert margin(theirs, same) < TIES[dtype], f"parted at {same}, where nothing is close"


@pytest.mark.slow
def test_enough_was_compared():
    """Runs last: ties did not make the comparison an empty one."""
    if not compared:
        pytest.skip("the cells ran in other processes, or not at all")
    for dtype, counts in compared.items():
        print(dtype, dict(counts))
        assert counts["same"] >= LEAST[dtype] * counts["all"], dtype


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

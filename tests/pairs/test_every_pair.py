"""Every policy with every drafter, every mode of latent steps, greedy and sampled, alone and in a
batch, in every family: equal to its oracle.

Without drafts, rows together, a cell is checked against transformers (``oracle.check``); with
drafts or alone it is the same to the last token, eviction and latent. Here stands every triple of
values; ``SPARING_PAIRS=all pytest tests/pairs`` runs the whole product.
"""

from functools import cache
from typing import Any

import pytest

from sparing.engine.events import TokenEvent, scores_by_position
from sparing.engine.result import Result
from tests.engine.driving import Recorder
from tests.families import HUB
from tests.latent.thinking import said
from tests.model.passes import MAPS, exact_norms
from tests.pairs.cells import (
    COUNT,
    HUB_AXES,
    PROMPTS,
    SAMPLINGS,
    Cell,
    answers,
    cells,
    checkpoint,
    engine,
    memories,
)
from tests.pairs.oracle import check
from tests.tiny import assert_same_tokens, next_logits, reference, reference_tokens, unchecked


@pytest.mark.slow
@pytest.mark.parametrize("cell", cells(HUB_AXES, 2), ids=str)
@unchecked()
def test_equal_to_its_oracle_through_transformers(cell):
    """Windows, capped logits, sinks and experts: every pair of values."""
    check_cell(cell)


@pytest.mark.parametrize("cell", cells(), ids=str)
@unchecked()
def test_equal_to_its_oracle(cell):
    check_cell(cell)


def check_cell(cell):
    expected = found = plain(cell.plain)
    if cell != cell.plain:
        found = answers(cell, [r.prompt_token_ids + r.token_ids for r in expected])
    for ours, theirs in zip(found, expected, strict=True):
        assert said(ours) == said(theirs)
        assert numbers(ours) == pytest.approx(numbers(theirs), rel=1e-6, abs=1e-6)
    assert_not_in_vain(cell, found)


@cache
def plain(cell: Cell) -> list[Result]:
    """What has to be said at the cell, checked."""
    model, transformers = engine(cell.family), with_maps(cell.family)
    recorder, latent = Recorder(model.decoder), cell.thoughts
    results = answers(cell, decoder=recorder)
    within = 1e-5 if cell.family in HUB else 1e-8  # modules of transformers go through float32
    for row, (prompt, memory) in enumerate(zip(PROMPTS, memories(cell), strict=True)):
        request = model.request(prompt, memory, sampling=SAMPLINGS[cell.picks])
        result = results[row]
        check(model, transformers, request, latent, result, recorder, row, within)
        if (cell.policy, cell.latent, cell.picks) == ("full", "off", "greedy"):
            ids, masked = request.prompt.ids, [model.latents[0].id]
            theirs = reference_tokens(transformers, ids, COUNT, suppress_tokens=masked)
            assert_same_tokens(result.token_ids, theirs, next_logits(transformers, ids))
    return results


def with_maps(family: str) -> Any:
    """The checkpoint in transformers, which tells its attention; the HubDecoder runs the same
    norms, in float32."""
    model = reference(checkpoint(family), attention=MAPS)
    return model if family in HUB else exact_norms(model)


def numbers(result: Result) -> list[float]:
    """Predicted importance and confidence of every token."""
    tokens = [event for event in result.events if isinstance(event, TokenEvent)]
    scores = scores_by_position(result.events)
    return [*(scores[position] for position in sorted(scores)), *(e.confidence for e in tokens)]


def assert_not_in_vain(cell: Cell, found: list[Result]) -> None:
    """Rows evict, think latents and accept drafts, where the cell says so and only there."""
    draft = cell.depth.draft
    assert {(r.stats.policy, r.stats.draft) for r in found} == {(cell.policy, draft)}
    for result in found:
        stats = result.stats
        assert stats.new_tokens + stats.latent_tokens == COUNT
        assert stats.evictions > 1 if cell.policy != "full" else stats.evictions == 0
    thought, accepted = (
        sum(getattr(r.stats, name) for r in found) for name in ("latent_tokens", "accepted")
    )
    assert thought > 3 if cell.latent != "off" else thought == 0
    if draft != "auto":  # it takes whoever is the fastest
        assert accepted > 5 if draft != "off" else accepted == 0

"""What a row had to say: transformers over its whole sequence, the evicted masked, each latent's
prefix run anew; then every token, latent and eviction by definition."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sparing.api import Engine
from sparing.engine.cache import Kind
from sparing.engine.events import EvictEvent, LatentEvent, TokenEvent, scores_by_position
from sparing.engine.eviction import NO_TOKEN, AttentionRecord, SlotView, select
from sparing.engine.result import Result
from sparing.engine.row import Request
from sparing.engine.verify import PLACEHOLDER
from sparing.options import Latent
from tests.engine.driving import Recorder
from tests.engine.test_eviction_exact import visible
from tests.latent.oracle import recomputed
from tests.latent.thinking import with_latents

KINDS = {"thought": Kind.THOUGHT, "answer": Kind.ANSWER}


@torch.inference_mode()
def check(
    engine: Engine,
    model: Any,
    request: Request,
    latent: Latent,
    result: Result,
    recorder: Recorder,
    row: int,
    within: float,
) -> None:
    """The ``result`` of a ``request`` is what ``model``, in transformers, would say.

    ``recorder``: of what the engine's decoder computed meanwhile, in that ``row`` of the cache.
    ``within``: of logits, absolute.
    """
    assert engine.latents
    assert engine.predictor
    config, vector = engine.latents
    ids, start = with_latents(result, config.id), len(request.prompt.ids)
    evictions = [event for event in result.events if isinstance(event, EvictEvent)]
    out = recomputed(model, vector, ids, visible(len(ids), evictions))
    along = recorder.logits_along([PLACEHOLDER if t == config.id else t for t in ids], row)
    assert sorted(along) == list(range(start - 1, len(ids) - 1))
    ours = torch.stack([along[position] for position in sorted(along)])
    torch.testing.assert_close(ours, out.logits[0, start - 1 : -1], rtol=0, atol=within)
    options = config.options(latent)
    assert ids[start:] == picked(out.logits[0], ids, request, options, config.id)
    predicted = engine.predictor(out.hidden_states[-1][0])
    scores = scores_by_position(result.events)
    assert sorted(scores) == list(range(start, len(ids) - 1))  # the last never went through it
    assert scores == pytest.approx(
        {p: float(predicted[p, 0]) for p in scores}, abs=max(within, 1e-6)
    )
    whole = whole_view(out, ids, predicted, result, request, config.id)
    assert [(e.positions, e.at) for e in evictions] == evicted(whole, out, request)


def picked(
    logits: Tensor, ids: Sequence[int], request: Request, latent: Latent, token: int
) -> list[int]:
    """What follows each prefix of ``ids`` behind the prompt; ``token`` where that is a latent."""
    assert latent.in_a_row is not None
    assert latent.most is not None
    found, start = [], len(request.prompt.ids)
    for position in range(start, len(ids)):
        words = logits[position - 1].clone()
        words[token] = float("-inf")
        said = request.sampler.pick(words, position, None)
        before = ids[start:position]
        in_a_row = next((n for n, t in enumerate(reversed(before)) if t != token), len(before))
        if in_a_row < latent.in_a_row and before.count(token) < latent.most:
            if latent.mode == "learned":
                said = request.sampler.pick(logits[position - 1], position, None)
            elif latent.mode == "confidence" and float(words.softmax(-1).max()) < latent.tau:
                said = token
        found.append(said)
    return found


def whole_view(
    out: Any, ids: Sequence[int], predicted: Tensor, result: Result, request: Request, token: int
) -> SlotView:
    """All that policies may look at, of every position, as transformers has it."""
    steps = [event for event in result.events if isinstance(event, TokenEvent | LatentEvent)]
    kinds = [Kind.LATENT if isinstance(e, LatentEvent) else KINDS[e.kind] for e in steps]
    return SlotView(
        positions=np.arange(len(ids)),
        kinds=np.array([Kind.PROMPT] * len(request.prompt.ids) + kinds, np.int8),
        ids=np.array([NO_TOKEN if t == token else t for t in ids]),
        scores=predicted.numpy().astype(np.float32),
        seed=request.sampler.seed,
        keys=[layer.keys[0] for layer in out.past_key_values.layers],
    )


def evicted(whole: SlotView, out: Any, request: Request) -> list[tuple[list[int], int]]:
    """What goes, and before which position: whenever the budget is reached and the row goes on."""
    budget, policy, start = request.budget, request.policy, len(request.prompt.ids)
    if budget is None or policy is None:
        return []
    attention = torch.stack([layer[0].mean(0) for layer in out.attentions]).mean(0)
    live, found = list(range(start)), []
    for at in range(start + 1, len(whole.positions) - 1):
        live.append(at - 1)
        if len(live) < budget.slots:
            continue
        record = AttentionRecord(policy.watches)
        record.add(attention[start:at][:, live])
        view = SlotView(
            positions=whole.positions[live],
            kinds=whole.kinds[live],
            ids=whole.ids[live],
            scores=whole.scores[live],
            seed=whole.seed,
            keys=[layer[:, live] for layer in whole.keys],
            attention=record if policy.watches else None,
        )
        keep = select(policy.score(view), view.kinds, budget)
        assert keep is not None
        found.append((view.positions[~keep].tolist(), at))
        live = view.positions[keep].tolist()
    return found

"""What a row had to say, step by step: transformers over its whole sequence, the evicted masked and
each latent's prefix run anew; then every token and every latent picked by definition."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from sparing.api import Engine
from sparing.engine.accept import PLACEHOLDER
from sparing.engine.events import EvictEvent, TokenEvent
from sparing.engine.result import Result
from sparing.engine.sampling import Sampler
from sparing.options import Latent, Sampling
from tests.engine.driving import Recorder
from tests.engine.test_eviction_exact import visible
from tests.latent.oracle import recomputed
from tests.latent.thinking import with_latents


@torch.inference_mode()
def check(
    engine: Engine,
    model: Any,
    latent: Latent,
    sampling: Sampling,
    result: Result,
    recorder: Recorder,
    row: int,
) -> None:
    """The ``result`` of a ``row`` of the cache is what the transformers ``model`` would say.

    ``recorder``: what the engine's decoder computed meanwhile.
    """
    assert engine.latents
    assert engine.predictor
    config, vector = engine.latents
    ids = with_latents(result, config.id)
    evictions = [event for event in result.events if isinstance(event, EvictEvent)]
    out = recomputed(model, vector, ids, visible(len(ids), evictions))
    logits, start = out.logits[0], len(result.prompt_token_ids)
    along = recorder.logits_along([PLACEHOLDER if t == config.id else t for t in ids], row)
    assert sorted(along) == list(range(start - 1, len(ids) - 1))
    ours = torch.stack([along[position] for position in sorted(along)])
    torch.testing.assert_close(ours, logits[start - 1 : -1], rtol=0, atol=1e-5)
    assert ids[start:] == picked(logits, ids, start, config.options(latent), config.id, sampling)
    predicted = engine.predictor(out.hidden_states[-1][0])[:, 0].tolist()
    scores = {e.position: e.score for e in result.events if isinstance(e, TokenEvent)}
    scores.pop(len(ids) - 1, None)  # the last one never went through the model
    assert scores == pytest.approx({p: predicted[p] for p in scores}, abs=1e-5)


def picked(
    logits: Tensor, ids: Sequence[int], start: int, latent: Latent, token: int, sampling: Sampling
) -> list[int]:
    """What follows each prefix of ``ids`` from ``start`` on; ``token`` where that is a latent."""
    assert latent.in_a_row is not None
    assert latent.most is not None
    values = sampling.model_dump(include={"temperature", "top_p", "seed"}, exclude_none=True)
    sampler, found = Sampler(**values), []
    for position in range(start, len(ids)):
        words = logits[position - 1].clone()
        words[token] = float("-inf")
        said = sampler.pick(words, position, None)
        before = ids[start:position]
        in_a_row = next((n for n, t in enumerate(reversed(before)) if t != token), len(before))
        if in_a_row < latent.in_a_row and before.count(token) < latent.most:
            if latent.mode == "learned":
                said = sampler.pick(logits[position - 1], position, None)
            elif latent.mode == "confidence" and float(words.softmax(-1).max()) < latent.tau:
                said = token
        found.append(said)
    return found

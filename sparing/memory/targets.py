"""Targets of the importance predictor: the attention that later tokens pay to each thought."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sparing.engine.cache import SlotCache
from sparing.engine.eviction import NO_TOKEN
from sparing.engine.latent_switch import Thinks
from sparing.model.inputs import Forward, Output, RowInput

TARGETS = ("answer", "future-mean", "future-max")


@dataclass(frozen=True)
class Importance:
    """Input and raw targets of the predictor, for each thinking token.

    ``hidden``: the last hidden state, after the final norm.
    ``answer``: attention from the answer.
    ``future_mean``, ``future_max``: from all later tokens beyond each of K horizons.
    """

    hidden: Float[Tensor, "T E"]
    answer: Float[Tensor, "T 1"]
    future_mean: Float[Tensor, "T K"]
    future_max: Float[Tensor, "T K"]

    def target(self, name: str) -> Float[Tensor, "T K"]:
        """One of ``TARGETS``; that of the answer always has one column."""
        if name not in TARGETS:
            raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {name}")
        return getattr(self, name.replace("-", "_"))


def importance(
    decoder: Forward,
    ids: Sequence[int],
    begin: int,
    end: int,
    horizons: Sequence[int],
    chunk: int = 64,
    thinks: Thinks | None = None,
) -> Importance:
    """The targets of a trace with the thinking ``ids[begin:end]``, in one teacher-forced pass.

    ``NO_TOKEN`` in ``ids`` marks a latent. ``thinks`` makes it again from the position before, so
    the pass is split there.

    With A the mean attention map over all layers and heads, i attending to j:

    answer        I_j = mean of A[i, j] over end <= i, 0 without an answer  (DynTS, 2601.18383)
    future mean   F_jh = mean of A[i, j] over i - j > h, and 0 where there is no such i
    future max    M_jh = the largest of them, or 0

    with a column for each h of ``horizons``: the future of token j when it is h positions old. The
    paper zeroes the diagonal; no answer token is a thinking token, so it never counts here. Future
    targets are ours. Only ``chunk`` rows of A exist at a time: the extra memory is O(H chunk S).
    Float32, or float64 from a float64 decoder.
    """
    _check(len(ids), begin, end, horizons, chunk)
    dtype = torch.promote_types(decoder.dtype, torch.float32)
    total = torch.zeros(end - begin, len(horizons), dtype=dtype, device=decoder.device)
    answer, most, hidden = torch.zeros_like(total[:, 0]), torch.zeros_like(total), []
    first = min(begin + min(horizons) + 1, end)
    for new, output in _passes(decoder, ids, chunk, first, thinks):
        cached, stop = new.cached, new.cached + len(new.ids)
        hidden.append(output.hidden[max(begin - cached, 0) : max(end - cached, 0)].to(dtype))
        if new.attended:
            received = output.attention[0].to(dtype)[:, begin:end]
            i = torch.arange(stop - new.attended, stop, device=decoder.device)[:, None]
            j = torch.arange(begin, min(end, stop), device=decoder.device)
            answer[: len(j)] += received[i[:, 0] >= end].sum(0)
            for column, horizon in enumerate(horizons):
                far = received.masked_fill(i - j <= horizon, 0)
                total[: len(j), column] += far.sum(0)
                most[: len(j), column] = most[: len(j), column].maximum(far.amax(0))
    at = torch.arange(begin, end, device=decoder.device)
    later = len(ids) - 1 - at[:, None] - torch.tensor(horizons, device=decoder.device)
    answer = answer[:, None] / max(len(ids) - end, 1)
    return Importance(torch.cat(hidden), answer, total / later.clamp(1), most)


def length_free(raw: Float[Tensor, "T K"]) -> Float[Tensor, "T K"]:
    """A target on a scale that does not shrink as traces grow: y_jh = log1p(I_jh / mean_j(I_j0)).

    All columns share the mean of the first, so that tokens of different age can be ranked together.
    0 where the mean is 0. The scale is ours.
    """
    mean = raw[:, 0].mean()
    return torch.zeros_like(raw) if mean == 0 else torch.log1p(raw / mean)


def _check(length: int, begin: int, end: int, horizons: Sequence[int], chunk: int) -> None:
    if not 0 <= begin < end <= length:
        raise ValueError(
            f"thinking must be at least one token of the {length}, got those from {begin} to {end}"
        )
    if not horizons or min(horizons) < 0 or chunk < 1:
        raise ValueError(
            f"horizons must be 0 or more and chunk 1 or more, got {list(horizons)}, chunk {chunk}"
        )


def _passes(
    decoder: Forward,
    ids: Sequence[int],
    chunk: int,
    first: int,
    thinks: Thinks | None,
) -> Iterator[tuple[RowInput, Output]]:
    """The pass in chunks; a latent begins a new one. Attention is that of the tokens from ``first``
    on; logits exist only where a latent needs them."""
    shape = decoder.shape
    cache = SlotCache(
        shape.layers,
        1,
        shape.kv_heads,
        shape.head_dim,
        len(ids),
        dtype=decoder.dtype,
        device=decoder.device,
    )
    latents = [at for at, token in enumerate(ids) if token == NO_TOKEN]
    start, vectors = 0, dict[int, Tensor]()
    while start < len(ids):
        stop = next((at for at in latents if at > start), len(ids))
        stop = min(stop, start + chunk)
        layer = thinks.layer if thinks and stop in latents else None
        i = RowInput(
            row=0,
            cached=start,
            ids=[max(token, 0) for token in ids[start:stop]],
            positions=list(range(start, stop)),
            scored=0 if layer is None else 1,
            vectors=vectors,
            attended=min(max(stop - first, 0), stop - start),
        )
        output = decoder([i], cache, layer=layer)
        yield i, output
        vectors = {}
        if thinks and output.layer_hidden is not None:
            vectors = {0: thinks(output.layer_hidden[-1], output.logits[-1]).vector}
        start = stop

"""What the importance predictor learns: the attention that later tokens pay to each thought."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sparing.engine.cache import SlotCache
from sparing.model.decoder import Decoder
from sparing.model.inputs import Output, RowInput
from sparing.model.reference import ReferenceDecoder

TARGETS = ("answer", "future-mean", "future-max")


@dataclass(frozen=True)
class Importance:
    """Of each thinking token: what the predictor reads, and the raw targets it can learn.

    ``hidden``: the last hidden state, after the final norm. ``answer``: attention from the answer.
    ``future_mean``, ``future_max``: from all later tokens outside its local window.
    """

    hidden: Float[Tensor, "T E"]
    answer: Float[Tensor, " T"]
    future_mean: Float[Tensor, " T"]
    future_max: Float[Tensor, " T"]

    def target(self, name: str) -> Float[Tensor, " T"]:
        """One of ``TARGETS``."""
        if name not in TARGETS:
            raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {name}")
        return getattr(self, name.replace("-", "_"))


def importance(
    decoder: Decoder | ReferenceDecoder,
    ids: Sequence[int],
    begin: int,
    end: int,
    window: int,
    chunk: int = 64,
) -> Importance:
    """The targets of a trace, whose thinking is ``ids[begin:end]``, in one teacher-forced pass.

    With A the mean attention map over all layers and heads, i attending to j:

    answer        I_j = mean of A[i, j] over end <= i, 0 without an answer  (DynTS, 2601.18383)
    future mean   F_j = mean of A[i, j] over i - j > window, and 0 where there is no such i
    future max    M_j = the largest of them, or 0

    The paper zeroes the diagonal; no answer token is a thinking token, so it never counts here.
    Future targets are ours. Of A only ``chunk`` rows ever exist: the extra memory is O(H chunk S).
    Float32, or float64 from a float64 decoder.
    """
    _check(len(ids), begin, end, window, chunk)
    dtype = torch.promote_types(decoder.dtype, torch.float32)
    zeros = torch.zeros(end - begin, dtype=dtype, device=decoder.device)
    answer, total, most = zeros, zeros.clone(), zeros.clone()
    hidden = []
    for i, output in _passes(decoder, ids, chunk, first=min(begin + window + 1, end)):
        hidden.append(output.hidden[max(begin - i.cached, 0) : max(end - i.cached, 0)].to(dtype))
        if i.attended:
            from_answer, far = _received(output.attention[0].to(dtype), begin, end, window)
            seen = far.shape[1]
            answer[:seen] += from_answer
            total[:seen] += far.sum(0)
            most[:seen] = most[:seen].maximum(far.amax(0))
    later = len(ids) - 1 - window - torch.arange(begin, end, device=decoder.device)
    return Importance(
        torch.cat(hidden), answer / max(len(ids) - end, 1), total / later.clamp(1), most
    )


def length_free(raw: Float[Tensor, " T"]) -> Float[Tensor, " T"]:
    """A target on a scale that does not shrink as traces grow: y_j = log1p(I_j / mean_j(I)).

    0 where the mean is 0. The scale is ours.
    """
    mean = raw.mean()
    return torch.zeros_like(raw) if mean == 0 else torch.log1p(raw / mean)


def _check(length: int, begin: int, end: int, window: int, chunk: int) -> None:
    if not 0 <= begin < end <= length:
        raise ValueError(
            f"thinking must be at least one token of the {length}, got those from {begin} to {end}"
        )
    if window < 0 or chunk < 1:
        raise ValueError(
            f"window must be 0 or more and chunk 1 or more, got window {window}, chunk {chunk}"
        )


def _passes(
    decoder: Decoder | ReferenceDecoder, ids: Sequence[int], chunk: int, first: int
) -> Iterator[tuple[RowInput, Output]]:
    """Chunk by chunk, with the attention of the tokens from ``first`` on and without logits."""
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
    for start in range(0, len(ids), chunk):
        new = list(ids[start : start + chunk])
        stop = start + len(new)
        attended = min(max(stop - first, 0), len(new))
        positions = list(range(start, stop))
        i = RowInput(0, start, new, positions, scored=0, attended=attended)
        yield i, decoder([i], cache)


def _received(
    attention: Float[Tensor, "m S"], begin: int, end: int, window: int
) -> tuple[Float[Tensor, " n"], Float[Tensor, "m n"]]:
    """What the thinking tokens seen so far get from the last m tokens.

    First the sum over those of the answer; then each one's share, 0 within the window.
    """
    rows, slots = attention.shape
    i = torch.arange(slots - rows, slots, device=attention.device)[:, None]
    j = torch.arange(begin, min(end, slots), device=attention.device)
    thoughts = attention[:, begin:end]
    return thoughts[i[:, 0] >= end].sum(0), thoughts.masked_fill(i - j <= window, 0)

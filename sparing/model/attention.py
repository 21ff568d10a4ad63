"""Attention of new tokens over a cache, for rows of unequal length and number of tokens.

Keys are not repeated for grouped queries. The ``T`` tokens of the ``H / G`` query heads of one key
head form one block ``[T * H / G, D]``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int8, Shaped
from torch import Tensor

from sparing.model.inputs import KeyValues, RowInput

PADDED_TOKENS = 16  # a row with more new tokens is its own segment, to keep padding cheap
MANY, SHORT = 16, 1024  # two products from MANY key heads (of all rows), up to SHORT slots


@dataclass
class RowSegment:
    """A run of neighbouring cache rows, attended in one call and padded to ``tokens`` each."""

    first: int
    rows: int
    tokens: int
    slots: int
    count: int  # new tokens, without padding
    pad: Int[Tensor, " BT"] | None  # flat offset of each padded token; None: no padding
    unpad: Int[Tensor, " n"] | None
    mask: Float[Tensor, "B _G _TH S"] | None
    parts: int  # equal parts of a single row's queries, one a thread
    products: bool  # whether two batched products are faster than the fused attention
    attended: bool  # whether any row asks for its attention weights
    watched: Float[Tensor, "R T S"] | None = None  # weights: mean over heads, sum over layers
    layers: int = 0  # layers in that sum


class Attention:
    """The plan of one pass, made once and used in every layer."""

    def __init__(
        self,
        inputs: Sequence[RowInput],
        key_heads: int,
        group: int,
        like: Float[Tensor, "..."],
    ) -> None:
        """``group``: query heads per key head; ``like``: dtype and device of the masks."""
        self.key_heads, self.group = key_heads, group
        self._inputs, self._watching = inputs, any(i.attended for i in inputs)
        self._segments = [self._segment(run, like) for run in runs(inputs)]
        self._single = inputs[0] if len(inputs) == 1 else None
        if self._single is None:
            rows = [i.row for i in inputs for _ in i.ids]
            slots = [i.cached + t for i in inputs for t in range(len(i.ids))]
            self._rows = torch.tensor(rows, device=like.device)
            self._slots = torch.tensor(slots, device=like.device)

    def write(self, cache: KeyValues, layer: int, new: Float[Tensor, "N KV D"]) -> None:
        """Write the new tokens' keys and values into the slots behind each row's cached ones."""
        kv = cache.kv[layer]
        new = new.view(new.shape[0], 2, self.key_heads, -1)
        if kv.dtype == torch.int8:
            new, scales = quantized(new)
            self._put(cache.scales[layer][..., None], scales)
        self._put(kv, new)

    def _put(self, kv: Shaped[Tensor, "2 B G S _D"], new: Shaped[Tensor, "N 2 G _D"]) -> None:
        if self._single is not None:
            begin, count = self._single.cached, len(self._single.ids)
            of_row = kv.select(1, self._single.row)
            if count == 1:
                of_row.select(2, begin).copy_(new[0])
            else:
                of_row.narrow(2, begin, count).copy_(new.permute(1, 2, 0, 3))
        else:
            kv[:, self._rows, :, self._slots] = new

    def __call__(
        self, queries: Float[Tensor, "N H D"], kv: Float[Tensor, "2 B G S D"]
    ) -> Float[Tensor, "N HD"]:
        """softmax(q k^T / sqrt(D)) v, each token over its row's cache and its own ancestors."""
        if len(self._segments) == 1:
            return self._attend(self._segments[0], queries, kv)
        parts = queries.split([s.count for s in self._segments])
        return torch.cat(
            [self._attend(s, q, kv) for s, q in zip(self._segments, parts, strict=True)]
        )

    def watch(self, queries: Float[Tensor, "N H D"], kv: Float[Tensor, "2 B G S D"]) -> None:
        """Add a layer's attention weights to ``watched``, where a row asks for them."""
        if not self._watching:
            return
        parts = queries.split([s.count for s in self._segments])
        for s, q in zip(self._segments, parts, strict=True):
            if s.attended:
                weights = self._weights(s, q, kv)
                s.watched = weights if s.watched is None else s.watched + weights
                s.layers += 1

    def watched(self) -> list[Float[Tensor, "_m _S"]]:
        """softmax(q k^T / sqrt(D)), the mean over the watched layers and all heads.

        One matrix a row: its ``attended`` last tokens over its slots. Empty if no row asks.
        """
        if not self._watching:
            return []
        found, rows = [], iter(self._inputs)
        for s in self._segments:
            for at in range(s.rows):
                i = next(rows)
                count, slots = len(i.ids), i.cached + len(i.ids)
                if s.watched is None:
                    found.append(torch.zeros(0, slots))
                else:
                    found.append(s.watched[at, count - i.attended : count, :slots] / s.layers)
        return found

    def _weights(
        self, s: RowSegment, q: Float[Tensor, "n H D"], kv: Float[Tensor, "2 B G S D"]
    ) -> Float[Tensor, "_R _T _S"]:
        k = kv[0].narrow(2, 0, s.slots).narrow(0, s.first, s.rows)
        packed = self._pack(s, q)
        logits = packed @ k.transpose(2, 3) / q.shape[2] ** 0.5
        weights = (logits if s.mask is None else logits + s.mask).softmax(-1)
        if s.parts > 1:
            weights = weights.transpose(0, 1)
        weights = weights.reshape(s.rows, self.key_heads, s.tokens, self.group, s.slots)
        return weights.mean((1, 3))

    def _attend(
        self, s: RowSegment, q: Float[Tensor, "n H D"], kv: Float[Tensor, "2 B G S D"]
    ) -> Float[Tensor, "n HD"]:
        kv = kv.narrow(3, 0, s.slots)
        if s.rows < kv.shape[1]:
            kv = kv.narrow(1, s.first, s.rows)
        k, v = kv.unbind(0)
        q = self._pack(s, q)
        if s.parts > 1:
            k, v = k.expand(s.parts, -1, -1, -1), v.expand(s.parts, -1, -1, -1)
        if s.products:
            return self._unpack(s, two_products(q, k, v, s.mask))
        return self._unpack(s, F.scaled_dot_product_attention(q, k, v, attn_mask=s.mask))

    def _pack(self, s: RowSegment, q: Float[Tensor, "n H D"]) -> Float[Tensor, "R G _TH D"]:
        """Queries grouped by their key head; R is rows, or a single row's parts."""
        dim = q.shape[2]
        if s.tokens == 1:
            return q.view(s.rows, self.key_heads, self.group, dim)
        q = q if s.pad is None else q[s.pad]
        q = q.view(s.rows, s.tokens, self.key_heads, self.group, dim).transpose(1, 2)
        if s.parts > 1:
            return q.reshape(self.key_heads, s.parts, -1, dim).transpose(0, 1)
        return q.reshape(s.rows, self.key_heads, s.tokens * self.group, dim)

    def _unpack(self, s: RowSegment, out: Float[Tensor, "R G _TH D"]) -> Float[Tensor, "n HD"]:
        dim = out.shape[3]
        if s.tokens == 1:
            return out.reshape(s.rows, -1)
        if s.parts > 1:
            out = out.transpose(0, 1)
        out = out.reshape(s.rows, self.key_heads, s.tokens, self.group, dim).transpose(1, 2)
        out = out.reshape(s.rows * s.tokens, -1)
        return out if s.unpad is None else out[s.unpad]

    def _segment(self, run: Sequence[RowInput], like: Tensor) -> RowSegment:
        counts = [len(i.ids) for i in run]
        tokens, count = max(counts), sum(counts)
        slots = max(i.cached + len(i.ids) for i in run)
        parts = self._parts(len(run), tokens, like)
        mask = additive_mask(run, tokens, slots, like)
        if mask is not None and tokens > 1:
            mask = mask.repeat_interleave(self.group, dim=2)
            if parts > 1:
                mask = mask.view(parts, 1, -1, slots)
        products = self._products(len(run), tokens, slots, like)
        if products and mask is not None:
            mask = mask.expand(-1, self.key_heads, -1, -1)
            if tokens == 1:
                mask = mask.expand(-1, -1, self.group, -1)
            mask = mask.contiguous()
        pad = unpad = None
        if count != len(run) * tokens:
            pad, unpad = padding(counts, tokens, like.device)
        attended = any(i.attended for i in run)
        return RowSegment(
            run[0].row, len(run), tokens, slots, count, pad, unpad, mask, parts, products, attended
        )

    def _parts(self, rows: int, tokens: int, like: Tensor) -> int:
        """Number of parts of a single row's queries where its key heads leave threads idle."""
        threads = torch.get_num_threads()
        idle = rows == 1 and 1 < tokens <= PADDED_TOKENS and self.key_heads % threads
        divides = tokens * self.group % threads == 0
        return threads if idle and divides and like.device.type == "cpu" else 1

    def _products(self, rows: int, tokens: int, slots: int, like: Tensor) -> bool:
        """Whether to take two products: on CPUs, over many short rows, twice as fast as fused."""
        cpu = like.device.type == "cpu" and like.dtype in (torch.float32, torch.float64)
        few = tokens <= PADDED_TOKENS and slots <= SHORT
        return cpu and few and rows > 1 and rows * self.key_heads >= MANY


def quantized(x: Float[Tensor, "N 2 G D"]) -> tuple[Int8[Tensor, "N 2 G D"], Tensor]:
    """Quantize to 8 bits, one scale a head: round(x / scale), scale = max |x| / 127."""
    most = x.abs().amax(-1, keepdim=True)
    by = (127 / most).nan_to_num(posinf=0.0)
    return (x * by).round().to(torch.int8), most * (1 / 127)


def floats(cache: KeyValues, layer: int, dtype: torch.dtype) -> Float[Tensor, "2 B G S D"]:
    """A layer's keys and values in ``dtype``, dequantized."""
    kv = cache.kv[layer]
    if kv.dtype == torch.int8:
        return kv.to(dtype) * cache.scales[layer][..., None].to(dtype)
    return kv.to(dtype)


def two_products(
    q: Float[Tensor, "R G _T D"],
    k: Float[Tensor, "R G S D"],
    v: Float[Tensor, "R G S D"],
    mask: Float[Tensor, "R G _T S"] | None,
) -> Float[Tensor, "R G _T D"]:
    """softmax(q k^T / sqrt(D) + mask) v, all rows and key heads as one batch."""
    keys, values, scale = k.flatten(0, 1).mT, v.flatten(0, 1), q.shape[3] ** -0.5
    queries = q.reshape(len(keys), -1, q.shape[3])
    if mask is None:
        logits = queries @ keys * scale
    else:
        logits = torch.baddbmm(mask.flatten(0, 1), queries, keys, alpha=scale)
    return (logits.softmax(-1) @ values).view(q.shape)


def runs(inputs: Sequence[RowInput]) -> list[list[RowInput]]:
    """Split into runs of neighbouring rows with few tokens each; a long row is a run of one."""
    found: list[list[RowInput]] = []
    for i in inputs:
        last = found[-1][-1] if found else None
        short = max(len(i.ids), len(last.ids) if last else 0) <= PADDED_TOKENS
        if last and short and i.row == last.row + 1:
            found[-1].append(i)
        else:
            found.append([i])
    return found


def padding(
    counts: Sequence[int], tokens: int, device: torch.device
) -> tuple[Int[Tensor, " BT"], Int[Tensor, " n"]]:
    """Indices from flat to padded order (a row's last token is its padding), and back."""
    pad, unpad, start = [], [], 0
    for row, count in enumerate(counts):
        pad += [start + min(t, count - 1) for t in range(tokens)]
        unpad += [row * tokens + t for t in range(count)]
        start += count
    return torch.tensor(pad, device=device), torch.tensor(unpad, device=device)


def additive_mask(
    run: Sequence[RowInput], tokens: int, slots: int, like: Float[Tensor, "..."]
) -> Float[Tensor, "B 1 T S"] | None:
    """0 where a token sees a slot, -inf elsewhere; None if every token sees every slot."""
    if tokens == 1 and all(i.cached + 1 == slots and i.visible is None for i in run):
        return None
    last = [[i.cached + min(t, len(i.ids) - 1) for t in range(tokens)] for i in run]
    hidden = torch.arange(slots) > torch.tensor(last)[:, :, None]
    for row, i in enumerate(run):
        if i.visible is not None:
            hidden[row, :, i.visible : i.cached] = True
        if i.ancestors is not None:
            count = len(i.ids)
            hidden[row, :count, i.cached : i.cached + count] = ~i.ancestors
            hidden[row, count:] = hidden[row, count - 1]
    mask = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
    return mask.masked_fill_(hidden.to(like.device), float("-inf"))[:, None]

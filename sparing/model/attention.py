"""Attention of new tokens over a cache, for rows of unequal length and number of tokens.

Keys are not repeated for grouped queries. The ``T`` tokens of the ``H / G`` query heads of one key
head form one block ``[T * H / G, D]``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Int8, Shaped
from torch import Tensor

from sparing.model.devices import moved, placed
from sparing.model.inputs import KeyValues, RowInput

PADDED_TOKENS = 16  # a row with more new tokens is its own segment, to keep padding cheap
MANY, SHORT = 16, 1024  # two products from MANY key heads (of all rows), up to SHORT slots

# Whether tokens see slots, by positions ``[R, T, 1]`` and ``[R, 1, S]``: a window, a chunk.
Rule = Callable[[Int[Tensor, "R T 1"], Int[Tensor, "R 1 S"]], Bool[Tensor, "R T S"]]


@dataclass(frozen=True)
class Scores:
    """How a layer's attention logits come from queries and keys.

    ``scale``: of the products; None: 1 / sqrt(D)
    ``cap``: c in c tanh(logit / c) (Gemma 2, arXiv 2408.00118, sec. 2)
    ``sinks``: a logit a head that takes weight and has no value (gpt-oss)
    """

    scale: float | None = None
    cap: float | None = None
    sinks: Float[Tensor, " H"] | None = None

    @property
    def plain(self) -> bool:
        """Whether the fused attention of torch computes them."""
        return self.cap is None and self.sinks is None


PLAIN = Scores()


@dataclass
class RowSegment:
    """A run of neighbouring cache rows, attended in one call and padded to ``tokens`` each."""

    first: int
    rows: int
    tokens: int
    begin: int  # the first slot that any of the tokens sees
    slots: int  # from there on
    count: int  # new tokens, without padding
    pad: Int[Tensor, " BT"] | None  # flat offset of each padded token; None: no padding
    unpad: Int[Tensor, " n"] | None
    mask: Float[Tensor, "B _G _TH S"] | None
    parts: int  # equal parts of a single row's queries, one a thread
    by_head: bool  # a single query, each of its heads for itself
    products: bool  # whether two batched products are faster than the fused attention
    attended: bool  # whether any row asks for its attention weights
    watched: Float[Tensor, "R T S"] | None = None  # weights: mean over heads, sum over layers
    layers: int = 0  # layers in that sum


class Writer:
    """Writes new keys and values into the slots behind each row's cached ones."""

    def __init__(self, inputs: Sequence[RowInput], device: torch.device) -> None:
        self._single = inputs[0] if len(inputs) == 1 else None
        if self._single is None:
            rows = [i.row for i in inputs for _ in i.ids]
            slots = [i.cached + t for i in inputs for t in range(len(i.ids))]
            self._rows, self._slots = placed([rows, slots], device)

    def __call__(self, cache: KeyValues, layer: int, new: Float[Tensor, "N 2 G D"]) -> None:
        """``new``: keys and values of all new tokens."""
        kv = cache.kv[layer]
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
            kv[:, self._rows, :, self._slots] = new.to(kv.dtype)


class Attention:
    """The plan of one pass, made once and used in every layer that sees the same."""

    def __init__(
        self,
        inputs: Sequence[RowInput],
        key_heads: int,
        group: int,
        like: Float[Tensor, "..."],
        rule: Rule | None = None,
        positions: Int[np.ndarray, "B S"] | None = None,
    ) -> None:
        """``group``: query heads per key head; ``like``: dtype and device of the masks; ``rule``:
        narrows what a token sees, by the ``positions`` of the cached slots."""
        self.key_heads, self.group = key_heads, group
        self._rule, self._positions, self.like = rule, positions, like
        self._inputs, self._watching = inputs, any(i.attended for i in inputs)
        self.segments = [self._segment(run, like) for run in runs(inputs)]

    def __call__(
        self,
        queries: Float[Tensor, "N H D"],
        keys: Float[Tensor, "B G S D"],
        values: Float[Tensor, "B G S Dv"],
        scores: Scores = PLAIN,
    ) -> Float[Tensor, "N HDv"]:
        """softmax(q k^T / sqrt(D)) v, each token over its row's cache and its own ancestors."""
        if len(self.segments) == 1:
            return self._attend(self.segments[0], queries, keys, values, scores)
        parts = queries.split([s.count for s in self.segments])
        return torch.cat(
            [
                self._attend(s, q, keys, values, scores)
                for s, q in zip(self.segments, parts, strict=True)
            ]
        )

    def watch(
        self,
        queries: Float[Tensor, "N H D"],
        keys: Float[Tensor, "B G S D"],
        scores: Scores = PLAIN,
    ) -> None:
        """Add a layer's attention weights to those of the layers before, where a row asks."""
        if not self._watching:
            return
        parts = queries.split([s.count for s in self.segments])
        for s, q in zip(self.segments, parts, strict=True):
            if s.attended:
                weights = self._weights(s, q, keys, scores)
                s.watched = weights if s.watched is None else s.watched + weights
                s.layers += 1

    def watched(self) -> list[Float[Tensor, "_m _S"]]:
        """Of each row, see ``mean_weights``."""
        return mean_weights([self], self._inputs)

    def _weights(
        self,
        s: RowSegment,
        q: Float[Tensor, "n H D"],
        keys: Float[Tensor, "B G S D"],
        scores: Scores,
    ) -> Float[Tensor, "_R _T _S"]:
        weights = self._softmax(s, self._pack(s, q), self._seen(s, keys), scores)
        if s.parts > 1:
            weights = weights.transpose(0, 1)
        weights = weights.reshape(s.rows, self.key_heads, s.tokens, self.group, s.slots)
        return weights.mean((1, 3))

    def _seen(self, s: RowSegment, kv: Float[Tensor, "B G S D"]) -> Float[Tensor, "R G _S D"]:
        """The slots that a segment sees; for a single row in parts, once a part."""
        kv = kv.narrow(2, s.begin, s.slots)
        if s.rows < kv.shape[0]:
            kv = kv.narrow(0, s.first, s.rows)
        return kv.expand(s.parts, -1, -1, -1) if s.parts > 1 else kv

    def _attend(
        self,
        s: RowSegment,
        q: Float[Tensor, "n H D"],
        keys: Float[Tensor, "B G S D"],
        values: Float[Tensor, "B G S Dv"],
        scores: Scores,
    ) -> Float[Tensor, "n HDv"]:
        k, v = self._seen(s, keys), self._seen(s, values)
        if s.by_head and scores.plain:
            mixed = F.scaled_dot_product_attention(
                q[:, :, None], k, v, s.mask, scale=scores.scale, enable_gqa=True
            )
            return mixed.reshape(1, -1)
        q = self._pack(s, q)
        if not scores.plain:
            return self._unpack(s, self._softmax(s, q, k, scores) @ v)
        if s.products:
            return self._unpack(s, two_products(q, k, v, s.mask, scores.scale))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=s.mask, scale=scores.scale)
        return self._unpack(s, mixed)

    def _softmax(
        self,
        s: RowSegment,
        q: Float[Tensor, "R G _TH D"],
        k: Float[Tensor, "R G _S D"],
        scores: Scores,
    ) -> Float[Tensor, "R G _TH _S"]:
        """The attention weights, as ``Scores`` says."""
        logits = q @ k.transpose(2, 3) * (scores.scale or q.shape[3] ** -0.5)
        if scores.cap is not None:
            logits = scores.cap * (logits / scores.cap).tanh()
        if s.mask is not None:
            logits = logits + s.mask
        if scores.sinks is None:
            return logits.softmax(-1)
        sinks = scores.sinks.to(logits.dtype).view(1, self.key_heads, 1, self.group)
        sinks = sinks.expand(len(q), -1, logits.shape[2] // self.group, -1)
        sinks = sinks.reshape(*logits.shape[:3], 1)
        return torch.cat((logits, sinks), -1).softmax(-1)[..., :-1]

    def _pack(self, s: RowSegment, q: Float[Tensor, "n H D"]) -> Float[Tensor, "R G _TH D"]:
        """Queries grouped by their key head; R is rows, or a single row's parts."""
        dim = q.shape[2]
        if s.tokens == 1:
            return q.reshape(s.rows, self.key_heads, self.group, dim)
        q = q if s.pad is None else q[s.pad]
        q = q.reshape(s.rows, s.tokens, self.key_heads, self.group, dim).transpose(1, 2)
        if s.parts > 1:
            return q.reshape(self.key_heads, s.parts, -1, dim).transpose(0, 1)
        return q.reshape(s.rows, self.key_heads, s.tokens * self.group, dim)

    def _unpack(self, s: RowSegment, out: Float[Tensor, "R G _TH Dv"]) -> Float[Tensor, "n HDv"]:
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
        end = max(i.cached + len(i.ids) for i in run)
        hidden, begin = hidden_slots(run, tokens, end, like.device), 0
        if self._rule is not None:
            hidden, begin = self._narrowed(hidden, run, tokens, end)
        mask, slots = additive(hidden, like), end - begin
        parts, by_head = self._parts(len(run), tokens, like), self._by_head(len(run), tokens, like)
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
            run[0].row,
            len(run),
            tokens,
            begin,
            slots,
            count,
            pad,
            unpad,
            mask,
            parts,
            by_head,
            products,
            attended,
        )

    def _narrowed(
        self, hidden: Bool[Tensor, "R T S"] | None, run: Sequence[RowInput], tokens: int, slots: int
    ) -> tuple[Bool[Tensor, "R T _S"] | None, int]:
        """What is hidden by the rule, too, from the first slot on that any token sees.

        A device other than the CPU is not waited for: there it is from the first slot of all.
        """
        device = self.like.device
        assert self._rule is not None
        assert self._positions is not None
        of_slots = np.zeros((len(run), 1, slots), np.int64)
        of_tokens = np.zeros((len(run), tokens, 1), np.int64)
        for at, i in enumerate(run):
            count = len(i.ids)
            of_slots[at, 0, : i.cached] = self._positions[i.row, : i.cached]
            of_slots[at, 0, i.cached : i.cached + count] = i.positions
            of_tokens[at, :, 0] = [*i.positions, *i.positions[-1:] * (tokens - count)]
        at_tokens, at_slots = (moved(torch.from_numpy(of), device) for of in (of_tokens, of_slots))
        sees = self._rule(at_tokens, at_slots)
        if hidden is not None:
            sees = sees & ~hidden
        if device.type != "cpu":
            return ~sees, 0
        begin = int(sees.any(1).any(0).int().argmax())
        sees = sees[:, :, begin:]
        return (None if bool(sees.all()) else ~sees), begin

    def _parts(self, rows: int, tokens: int, like: Tensor) -> int:
        """Number of parts of a single row's queries where its key heads leave threads idle."""
        threads = torch.get_num_threads()
        idle = rows == 1 and 1 < tokens <= PADDED_TOKENS and self.key_heads % threads
        divides = tokens * self.group % threads == 0
        return threads if idle and divides and like.device.type == "cpu" else 1

    def _by_head(self, rows: int, tokens: int, like: Tensor) -> bool:
        """Whether key heads leave threads idle where a single row has a single query."""
        idle = rows == 1 and tokens == 1 and self.key_heads % torch.get_num_threads()
        return bool(idle) and like.device.type == "cpu"

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
    v: Float[Tensor, "R G S Dv"],
    mask: Float[Tensor, "R G _T S"] | None,
    scale: float | None = None,
) -> Float[Tensor, "R G _T Dv"]:
    """softmax(q k^T / sqrt(D) + mask) v, all rows and key heads as one batch."""
    keys, values, scale = k.flatten(0, 1).mT, v.flatten(0, 1), scale or q.shape[3] ** -0.5
    queries = q.reshape(len(keys), -1, q.shape[3])
    if mask is None:
        logits = queries @ keys * scale
    else:
        logits = torch.baddbmm(mask.flatten(0, 1), queries, keys, alpha=scale)
    return (logits.softmax(-1) @ values).view(*q.shape[:3], -1)


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
    return placed(pad, device), placed(unpad, device)


def mean_weights(
    plans: Sequence[Attention], inputs: Sequence[RowInput]
) -> list[Float[Tensor, "_m _S"]]:
    """softmax(q k^T / sqrt(D)), the mean over all layers that were watched and all heads.

    One matrix a row: its ``attended`` last tokens over its slots. Empty if no row asks.
    ``plans``: of one pass, each of some of its layers
    """
    if not any(i.attended for i in inputs):
        return []
    found, rows = [], iter(inputs)
    for segments in zip(*(plan.segments for plan in plans), strict=True):
        for at in range(segments[0].rows):
            i = next(rows)
            count, slots = len(i.ids), i.cached + len(i.ids)
            mean = plans[0].like.new_zeros(i.attended, slots)
            for s in segments:
                if i.attended and s.watched is not None:
                    weights = s.watched[at, count - i.attended : count, : slots - s.begin]
                    mean = mean.to(weights)
                    mean[:, s.begin :] += weights
            found.append(mean / max(sum(s.layers for s in segments), 1))
    return found


def hidden_slots(
    run: Sequence[RowInput], tokens: int, slots: int, device: torch.device
) -> Bool[Tensor, "R T S"] | None:
    """Which slots a token does not see; None if every token sees every slot."""
    if tokens == 1 and all(i.cached + 1 == slots and i.visible is None for i in run):
        return None
    last = [[i.cached + min(t, len(i.ids) - 1) for t in range(tokens)] for i in run]
    hidden = torch.arange(slots, device=device) > placed(last, device)[:, :, None]
    for row, i in enumerate(run):
        if i.visible is not None:
            hidden[row, :, i.visible : i.cached] = True
        if i.ancestors is not None:
            count = len(i.ids)
            sees = moved(i.ancestors, device)
            hidden[row, :count, i.cached : i.cached + count] = ~sees
            hidden[row, count:] = hidden[row, count - 1]
    return hidden


def additive(
    hidden: Bool[Tensor, "R T S"] | None, like: Float[Tensor, "..."]
) -> Float[Tensor, "R 1 T S"] | None:
    """-inf where a slot is hidden, else 0."""
    if hidden is None:
        return None
    mask = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
    return mask.masked_fill_(hidden, float("-inf"))[:, None]

"""The SlotCache: keys and values in slots. Eviction frees slots; it does not mask them.

Slots are physical, positions logical: a kept key stays in the rotary position of its write.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparing.kernels.native import load_build
from sparing.model.devices import moved, placed

BLOCK_SLOTS = 256


class Kind(IntEnum):
    """The kind of a slot's content."""

    PROMPT = 0
    THOUGHT = 1
    LATENT = 2
    ANSWER = 3


class SlotCache:
    """Keys and values of all rows, with a position, scores and a kind for each slot.

    ``kv``: keys and values ``[2, B, G, S, D]``, a tensor a layer; ``dtype`` is a float or int8
    ``scales``: with int8, ``[2, B, G, S]``, float32, a tensor a layer: a key is its codes times its
        scale
    ``lengths``: slots in use by row, in position order; the slots behind them are free for drafts
    ``capacity``: slots allocated to each row
    ``limit``: the most slots a row can get from ``reserve``, which allocates in blocks; with a
        budget, capacity and limit are the budget, so the bytes never change
    ``nbytes``: of all keys and values, measured at allocation
    ``scores``: as an argument, the number of scores of a slot
    """

    def __init__(
        self,
        layers: int,
        rows: int,
        kv_heads: int,
        head_dim: int,
        capacity: int,
        limit: int | None = None,
        scores: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.rows, self.limit = rows, max(capacity, limit or 0)
        self._like = torch.empty(2, 0, kv_heads, 0, head_dim, dtype=dtype, device=device)
        self.kv = [self._slots(capacity) for _ in range(layers)]
        self.scales = [self._scales(capacity) for _ in range(layers)] if self.packed else []
        self.nbytes = self._measure()
        self.lengths = [0] * rows
        self.positions = np.zeros((rows, capacity), np.int64)
        self.scores = np.zeros((rows, capacity, scores), np.float32)
        self.kinds = np.zeros((rows, capacity), np.int8)

    @property
    def capacity(self) -> int:
        """Slots allocated to each row."""
        return self.kv[0].shape[3]

    @property
    def slot_bytes(self) -> int:
        """Bytes of a slot in all layers."""
        two, _, heads, _, dim = self._like.shape
        a_head = dim * self._like.element_size() + (torch.float32.itemsize if self.packed else 0)
        return len(self.kv) * two * heads * a_head

    @property
    def packed(self) -> bool:
        """Whether keys and values are codes of 8 bits."""
        return self._like.dtype == torch.int8

    @property
    def stored(self) -> str:
        """The storage of keys and values, by its name in ``Memory.kv``."""
        return "q8" if self.packed else str(self._like.dtype).removeprefix("torch.")

    @property
    def keys(self) -> list[Tensor]:
        """Per layer ``[B, G, S, D]``, each key in the rotary position of its write."""
        return [layer[0] for layer in self.kv]

    @property
    def values(self) -> list[Tensor]:
        """Per layer ``[B, G, S, D]``."""
        return [layer[1] for layer in self.kv]

    def row_keys(self, row: int) -> "Keys":
        """A row's keys in use, layer by layer."""
        return Keys(self, row)

    def _measure(self) -> int:
        """Bytes of all keys and values, measured from their storages."""
        return sum(t.untyped_storage().nbytes() for t in self._tensors())

    def _tensors(self) -> list[Tensor]:
        """All tensors with slots as their fourth axis."""
        return [*self.kv, *self.scales]

    def reserve(self, slots: int) -> None:
        """Make room for ``slots`` in every row, a layer at a time.

        Raises ValueError beyond ``limit``.
        """
        if slots <= self.capacity:
            return
        if slots > self.limit:
            raise ValueError(f"slots must be at most {self.limit}, got {slots}")
        self._lay_out(range(self.rows), self.rows, self._blocks(slots))

    def resize(self, rows: int, limit: int, keep: Sequence[int] = ()) -> None:
        """Change the number of rows and their limit; the rows ``keep`` become the first, in order.

        The other rows are dropped. The new capacity is the longest kept row, rounded up to blocks.
        The copy takes the memory of one more layer while it runs. Raises ValueError if the kept
        rows do not fit.
        """
        used = max((self.lengths[row] for row in keep), default=0)
        if len(keep) > rows or used > limit:
            raise ValueError(
                f"{len(keep)} rows of {used} slots must fit into {rows} rows of {limit} slots"
            )
        self.limit = limit
        self._lay_out(keep, rows, self._blocks(used))

    def commit(
        self,
        row: int,
        path: Sequence[int],
        positions: Sequence[int],
        kinds: Sequence[Kind],
        scores: Sequence[Sequence[float]] | None = None,
    ) -> None:
        """Keep the new tokens at the offsets ``path`` behind the row's length; drop the others.

        The decoder wrote the new tokens to the slots behind the length. ``path`` ascends; the kept
        slots of a path with gaps (a draft tree) are moved together, in every layer.
        """
        begin, count = self.lengths[row], len(path)
        if list(path) != list(range(count)):
            source = placed([begin + offset for offset in path], self.kv[0].device)
            self._gather(row, source, begin)
        used = slice(begin, begin + count)
        self.positions[row, used] = positions
        self.kinds[row, used] = kinds
        self.scores[row, used] = scores or 0.0
        self.lengths[row] = begin + count

    def evict(self, row: int, keep: np.ndarray) -> list[int]:
        """Free the slots with False in ``keep [length]`` and move the others to the front.

        Returns the freed positions. Every layer and head keeps the same slots.
        """
        length = self.lengths[row]
        gone = self.positions[row, :length][~keep].tolist()
        kept = np.flatnonzero(keep)
        first = int(np.argmin(keep)) if gone else length
        self._gather(row, moved(torch.from_numpy(kept[first:]), self.kv[0].device), first)
        for values in (self.positions, self.scores, self.kinds):
            values[row, : len(kept)] = values[row, kept]
        self.lengths[row] = len(kept)
        return gone

    def reset(self, row: int) -> None:
        """Empty a row; zeros its keys and values, so that none reach the next row."""
        for tensor in self._tensors():
            tensor[:, row].zero_()
        self.lengths[row] = 0

    def check(self) -> None:
        """Assert the invariants: lengths within capacity, positions rising, scores finite."""
        for row, length in enumerate(self.lengths):
            assert 0 <= length <= self.capacity, (row, length, self.capacity)
            assert (np.diff(self.positions[row, :length]) > 0).all(), (row, "positions must rise")
            assert np.isfinite(self.scores[row, :length]).all(), (row, "scores must be finite")
            assert np.isin(self.kinds[row, :length], list(Kind)).all(), (row, "unknown kind")

    def _blocks(self, slots: int) -> int:
        """``slots`` rounded up to whole blocks, at most the limit."""
        return min(-(-slots // BLOCK_SLOTS) * BLOCK_SLOTS, self.limit)

    def _slots(self, count: int) -> Tensor:
        two, _, heads, _, dim = self._like.shape
        found = self._like.new_empty(two, self.rows, heads, count, dim)
        if (kernels := load_build()) and found.device.type == "cpu":
            kernels.huge(found.data_ptr(), found.nbytes)  # before the first touch
        return found.zero_()

    def _scales(self, count: int) -> Tensor:
        two, _, heads, _, _ = self._like.shape
        return self._like.new_zeros(two, self.rows, heads, count, dtype=torch.float32)

    def _lay_out(self, keep: Sequence[int], rows: int, capacity: int) -> None:
        """Allocate new storage, a layer at a time, and copy the rows ``keep`` to its front."""
        self.rows, shared = rows, min(self.capacity, capacity)
        chosen = list(keep)
        in_place = chosen == list(range(len(chosen)))
        taken = slice(0, len(chosen)) if in_place else chosen
        for tensors, empty in ((self.kv, self._slots), (self.scales, self._scales)):
            for layer, old in enumerate(tensors):
                tensors[layer] = empty(capacity)
                tensors[layer][:, : len(chosen), :, :shared] = old[:, taken, :, :shared]
        self.nbytes = self._measure()
        for name in ("positions", "scores", "kinds"):
            old = getattr(self, name)
            new = np.zeros((rows, capacity, *old.shape[2:]), old.dtype)
            new[: len(chosen), :shared] = old[chosen, :shared]
            setattr(self, name, new)
        self.lengths = [self.lengths[row] for row in chosen] + [0] * (rows - len(chosen))

    def _gather(self, row: int, source: Tensor, begin: int) -> None:
        """Move the slots ``source`` (ascending, none before ``begin``) to ``begin`` onwards."""
        for tensor in self._tensors():
            of_row = tensor[:, row]
            of_row[:, :, begin : begin + len(source)] = of_row.index_select(2, source)


class Keys(Sequence[Tensor]):
    """A row's keys ``[G, S, D]``, layer by layer, as floats; each layer is converted on access."""

    def __init__(self, cache: SlotCache, row: int) -> None:
        self.cache, self.row, self.length = cache, row, cache.lengths[row]

    def __len__(self) -> int:
        return len(self.cache.kv)

    def __getitem__(self, layer: Any) -> Any:
        found = self.cache.kv[layer][0, self.row, :, : self.length]
        if self.cache.packed:
            return found * self.cache.scales[layer][0, self.row, :, : self.length, None]
        return found.float() if found.dtype == torch.float16 else found

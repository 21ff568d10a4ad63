"""The SlotCache: keys and values in slots that are really freed, not masked.

Slots are physical, positions logical: a kept key stays in the rotary position it was written with.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparing.kernels.native import load_build

BLOCK_SLOTS = 256


class Kind(IntEnum):
    """What a slot holds."""

    PROMPT = 0
    THOUGHT = 1
    LATENT = 2
    ANSWER = 3


class SlotCache:
    """Keys and values ``[2, B, G, S, D]`` a layer, with per slot a position, scores and a kind.

    ``dtype`` is a float, or int8: then ``scales [2, B, G, S]``, float32, go with each layer, and a
    key or value is its codes times its scale.

    ``lengths[row]`` slots of a row are in use, in position order; whatever lies behind them is
    free to drafts. ``capacity`` slots a row are allocated; up to ``limit`` are taken in blocks by
    ``reserve``. With a budget both are the budget, so the bytes never change. ``resize`` changes
    how many rows there are. ``nbytes``: of all keys and values, measured when they are allocated.
    ``scores``: how many each slot has.
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
        """What each further slot of a row takes, in all layers."""
        two, _, heads, _, dim = self._like.shape
        a_head = dim * self._like.element_size() + (torch.float32.itemsize if self.packed else 0)
        return len(self.kv) * two * heads * a_head

    @property
    def packed(self) -> bool:
        """Whether keys and values are codes of 8 bits."""
        return self._like.dtype == torch.int8

    @property
    def stored(self) -> str:
        """How keys and values are stored, as ``Memory.kv`` calls it."""
        return "q8" if self.packed else str(self._like.dtype).removeprefix("torch.")

    @property
    def keys(self) -> list[Tensor]:
        """Per layer ``[B, G, S, D]``, each key in the rotary position it was written with."""
        return [layer[0] for layer in self.kv]

    @property
    def values(self) -> list[Tensor]:
        """Per layer ``[B, G, S, D]``."""
        return [layer[1] for layer in self.kv]

    def row_keys(self, row: int) -> "Keys":
        """A row's keys in use, layer by layer."""
        return Keys(self, row)

    def _measure(self) -> int:
        """Bytes of all keys and values, read off their storages."""
        return sum(t.untyped_storage().nbytes() for t in self._tensors())

    def _tensors(self) -> list[Tensor]:
        """Everything that has slots as its fourth axis."""
        return [*self.kv, *self.scales]

    def reserve(self, slots: int) -> None:
        """Make room for ``slots`` in every row, a layer at a time; raises beyond ``limit``."""
        if slots <= self.capacity:
            return
        if slots > self.limit:
            raise ValueError(f"slots must be at most {self.limit}, got {slots}")
        self._lay_out(range(self.rows), self.rows, self._blocks(slots))

    def resize(self, rows: int, limit: int, keep: Sequence[int] = ()) -> None:
        """Lay out ``rows`` of up to ``limit`` slots; those in ``keep`` become the first, in order.

        All others are dropped. Slots are those that the kept rows use, in blocks; while it works, a
        layer is there twice.
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
        """Keep the new tokens at the offsets ``path`` behind the row's length; roll back the rest.

        The decoder wrote the new tokens to the slots behind the length. ``path`` rises; where it
        leaves gaps (a draft tree) the kept entries are moved together, in every layer.
        """
        begin, count = self.lengths[row], len(path)
        if list(path) != list(range(count)):
            source = torch.tensor([begin + offset for offset in path], device=self.kv[0].device)
            self._gather(row, source, begin)
        used = slice(begin, begin + count)
        self.positions[row, used] = positions
        self.kinds[row, used] = kinds
        self.scores[row, used] = scores or 0.0
        self.lengths[row] = begin + count

    def evict(self, row: int, keep: np.ndarray) -> list[int]:
        """Free the slots where ``keep [length]`` is False: gather the rest to the front.

        Returns the positions that are gone. Every layer and head keeps the same slots.
        """
        length = self.lengths[row]
        gone = self.positions[row, :length][~keep].tolist()
        kept = np.flatnonzero(keep)
        first = int(np.argmin(keep)) if gone else length
        self._gather(row, torch.from_numpy(kept[first:]).to(self.kv[0].device), first)
        for values in (self.positions, self.scores, self.kinds):
            values[row, : len(kept)] = values[row, kept]
        self.lengths[row] = len(kept)
        return gone

    def reset(self, row: int) -> None:
        """Empty a row, its old values zeroed so that nothing of them reaches the next one."""
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
        """So many slots or a few more: whole blocks, within the limit."""
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
        """New storage, a layer at a time: the rows ``keep`` come first, as far as they reach."""
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
        """Move the slots ``source`` (rising, none before ``begin``) to ``begin`` and on."""
        for tensor in self._tensors():
            of_row = tensor[:, row]
            of_row[:, :, begin : begin + len(source)] = of_row.index_select(2, source)


class Keys(Sequence[Tensor]):
    """A row's keys ``[G, S, D]``, layer by layer, floats; each is read when it is asked for."""

    def __init__(self, cache: SlotCache, row: int) -> None:
        self.cache, self.row, self.length = cache, row, cache.lengths[row]

    def __len__(self) -> int:
        return len(self.cache.kv)

    def __getitem__(self, layer: Any) -> Any:
        found = self.cache.kv[layer][0, self.row, :, : self.length]
        if self.cache.packed:
            return found * self.cache.scales[layer][0, self.row, :, : self.length, None]
        return found.float() if found.dtype == torch.float16 else found

"""Which rows can be live together within a number of bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

from sparing.engine.cache import BLOCK_SLOTS
from sparing.errors import OptionError


@dataclass(frozen=True)
class KvBudget:
    """The memory for keys and values.

    ``slot_bytes``: bytes of a slot in all layers
    ``kv_bytes``: the most bytes of all rows together
    ``rows``: the most rows

    The rows of a cache share one tensor, so every row takes the bytes of the longest.
    """

    slot_bytes: int
    kv_bytes: int
    rows: int

    def __post_init__(self) -> None:
        if self.kv_bytes < self.slot_bytes * BLOCK_SLOTS:
            raise OptionError(
                f"kv_bytes must be at least {self.slot_bytes * BLOCK_SLOTS} for this model, "
                f"{BLOCK_SLOTS} slots of {self.slot_bytes} bytes, got {self.kv_bytes}; "
                "pass a larger --kv-bytes"
            )

    @property
    def longest(self) -> int:
        """The most slots of a single row."""
        return self.kv_bytes // self.slot_bytes

    def fits(self, slots: Sequence[int]) -> bool:
        """Whether rows with these largest numbers of slots can be live together."""
        longest = max(slots, default=0)
        return len(slots) <= self.rows and len(slots) * longest <= self.longest

    def layout(self, slots: Sequence[int], *, exact: bool) -> tuple[int, int]:
        """The number of rows, and of slots a row, of a cache for rows that fit.

        Unless ``exact`` the cache has spare rows and slots if they fit, because every new layout
        copies the slots in use.
        """
        longest = max(slots)
        if exact:
            return len(slots), longest
        blocks = -(-longest // BLOCK_SLOTS) * BLOCK_SLOTS
        limit = blocks if len(slots) * blocks <= self.longest else longest
        return min(2 * len(slots), self.rows, self.longest // limit), limit

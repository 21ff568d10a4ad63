"""How many rows of which length may be live together, within a number of bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

from sparing.engine.cache import BLOCK_SLOTS
from sparing.errors import OptionError


@dataclass(frozen=True)
class KvBudget:
    """``rows`` at most, and ``kv_bytes`` for the keys and values of all of them.

    ``slot_bytes``: of one slot, in all layers. The rows of a cache share one storage in which each
    is as long as the longest, so that is what they are counted as.
    """

    slot_bytes: int
    kv_bytes: int
    rows: int

    def __post_init__(self) -> None:
        if self.kv_bytes < self.slot_bytes * BLOCK_SLOTS:
            raise OptionError(
                f"kv_bytes must be at least {self.slot_bytes * BLOCK_SLOTS} for this model, "
                f"{BLOCK_SLOTS} slots of {self.slot_bytes} bytes, got {self.kv_bytes}"
            )

    @property
    def longest(self) -> int:
        """Slots that a row may have when it is alone."""
        return self.kv_bytes // self.slot_bytes

    def fits(self, slots: Sequence[int]) -> bool:
        """Whether rows that may come to use so many slots each can be live together."""
        longest = max(slots, default=0)
        return len(slots) <= self.rows and len(slots) * longest <= self.longest

    def layout(self, slots: Sequence[int], *, exact: bool) -> tuple[int, int]:
        """Rows and slots a row for rows that fit. Unless it is to be ``exact`` there is more than
        is needed where it can be had: a new layout copies what is in use."""
        longest = max(slots)
        if exact:
            return len(slots), longest
        blocks = -(-longest // BLOCK_SLOTS) * BLOCK_SLOTS
        limit = blocks if len(slots) * blocks <= self.longest else longest
        return min(2 * len(slots), self.rows, self.longest // limit), limit

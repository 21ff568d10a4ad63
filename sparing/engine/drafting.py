"""Drafts: tokens proposed for the full model to verify. A wrong one costs time, never a token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor

from sparing.engine.events import Event

if TYPE_CHECKING:
    from sparing.engine.row import Row

PENDING = -1  # the parent of a draft's first nodes: the token before the draft


@dataclass(frozen=True)
class Draft:
    """A tree of proposed tokens in an order that puts parents first; a chain is the usual case.

    ``parents[i]`` is the node before node i, or ``PENDING``. ``forced``: the loop put it there, to
    be accepted whatever the model says.
    """

    ids: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    forced: bool = False

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.parents):
            raise ValueError(
                f"a draft must have one parent a node, got {len(self.ids)} and {len(self.parents)}"
            )
        if any(not PENDING <= parent < node for node, parent in enumerate(self.parents)):
            raise ValueError(f"a draft's parents must come before their nodes, got {self.parents}")

    @classmethod
    def chain(cls, ids: Sequence[int], forced: bool = False) -> "Draft":
        return cls(tuple(ids), tuple(range(PENDING, len(ids) - 1)), forced)

    def __len__(self) -> int:
        return len(self.ids)

    def cut(self, room: int) -> "Draft":
        """The first ``room`` nodes; with their parents before them they are a draft too."""
        if len(self) <= room:
            return self
        room = max(room, 0)
        return Draft(self.ids[:room], self.parents[:room], self.forced)

    def child(self, node: int, token: int) -> int | None:
        """The node that proposes ``token`` after ``node``; None where there is none."""
        for child in range(node + 1, len(self)):
            if self.parents[child] == node and self.ids[child] == token:
                return child
        return None

    @property
    def depths(self) -> list[int]:
        """How many tokens after the pending one each node stands: 1 for the first."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(1 if parent == PENDING else depths[parent] + 1)
        return depths

    @property
    def is_chain(self) -> bool:
        return all(parent == node - 1 for node, parent in enumerate(self.parents))

    def ancestors(self, before: int) -> Bool[Tensor, "T T"] | None:
        """Which new tokens each sees: ``before`` pending ones, then the tree. None: causal."""
        if self.is_chain:
            return None
        total = before + len(self)
        sees = torch.eye(total, dtype=torch.bool)
        sees[:before, :before] = torch.ones(before, before, dtype=torch.bool).tril()
        for node, parent in enumerate(self.parents):
            sees[before + node] |= sees[before + parent] if parent != PENDING else sees[before - 1]
        return sees


@dataclass
class DraftTime:
    """Seconds of the steps that a row took part in: on drafts, and on the search for layer sets."""

    draft: float = 0.0
    search: float = 0.0


@runtime_checkable
class Drafter(Protocol):
    """Proposes for all rows at once; ``rooms`` bounds each row's nodes. May return empty drafts."""

    name: str

    def propose(self, rows: "Sequence[Row]", rooms: Sequence[int]) -> list[Draft]: ...

    def learn(self, row: "Row", drafted: int, accepted: int) -> Sequence[Event]:
        """How a row's last draft fared, an empty one too; what there is to tell about it."""
        ...


class NoDrafter:
    """Plain decoding."""

    name = "off"

    def propose(self, rows: "Sequence[Row]", rooms: Sequence[int]) -> list[Draft]:
        return [Draft() for _ in rows]

    def learn(self, row: "Row", drafted: int, accepted: int) -> Sequence[Event]:
        return ()

"""A draft: tokens proposed for the full model to verify. A wrong one costs time, never a token."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

PENDING = -1  # the parent of a draft's first nodes: the token before the draft


@dataclass(frozen=True)
class Draft:
    """A tree of proposed tokens, parents before children; usually a chain.

    ``ids``: the token of each node.
    ``parents``: the node before each node, or ``PENDING``.
    ``forced``: made by the loop itself, accepted whatever the model picks.
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

    @property
    def drafted(self) -> int:
        """Nodes that a drafter proposed: none of a forced draft."""
        return 0 if self.forced else len(self)

    def cut(self, room: int) -> "Draft":
        """The first ``room`` nodes. Parents come first, so this is a draft as well."""
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
        """Distance of each node from the pending token: 1 for the first."""
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

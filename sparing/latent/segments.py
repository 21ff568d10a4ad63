"""Which tokens of a batch can be run together, where inputs at latent positions depend on outputs.

Pass i runs every row from its i-th latent to before its next one: as many passes as the largest
number of latents in a row, and one more, whatever the batch.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class PassSegment:
    """The tokens of one pass, flat, row by row: ``rows`` and ``positions`` [N] say whose they are.

    ``count``: rows that take part, the first ones; ``starts``, ``ends`` [count]: their positions,
    the end not included. ``holes`` [B, 1, T, T], if any, is added to the attention's scores.
    """

    rows: Int[Tensor, " N"]
    positions: Int[Tensor, " N"]
    starts: Int[Tensor, " R"]
    ends: Int[Tensor, " R"]
    holes: Float[Tensor, "B 1 T T"] | None = None

    @property
    def count(self) -> int:
        return len(self.starts)

    @cached_property
    def slots(self) -> int:
        """Of the longest of its rows, behind this pass."""
        return int(self.ends.max())

    @cached_property
    def lengths(self) -> Int[Tensor, " R"]:
        return self.ends - self.starts

    @cached_property
    def firsts(self) -> Int[Tensor, " R"]:
        """Where each row's tokens begin."""
        return self.lengths.cumsum(0) - self.lengths

    @property
    def lasts(self) -> Int[Tensor, " R"]:
        """Where each row's tokens end."""
        return self.firsts + self.lengths - 1

    @cached_property
    def padded(self) -> Int[Tensor, "R T"]:
        """The flat place of each padded token; padding repeats a row's last one."""
        offsets = torch.arange(int(self.lengths.max()), device=self.rows.device)
        return self.firsts[:, None] + offsets.minimum(self.lengths[:, None] - 1)

    @cached_property
    def unpadded(self) -> Int[Tensor, " N"]:
        """The place of each flat token in ``padded``, flattened."""
        return self.rows * self.padded.shape[1] + self.positions - self.starts[self.rows]

    @cached_property
    def mask(self) -> Float[Tensor, "R 1 T S"] | None:
        """0 where a padded token sees a slot, which has its position's number; else -inf. None for
        a pass of whole beginnings, which is causal."""
        if self.holes is None and not bool(self.starts.any()):
            return None
        at = self.positions[self.padded]
        ahead = torch.arange(self.slots, device=at.device) > at[:, :, None]
        if self.holes is None:
            mask = torch.zeros(ahead.shape, device=at.device)
        else:
            rows = torch.arange(self.count, device=at.device)[:, None]
            mask = self.holes[rows, 0, at][:, :, : self.slots]
        return mask.masked_fill(ahead, float("-inf"))[:, None]


def segments(
    latent: Bool[Tensor, "B T"],
    lengths: Int[Tensor, " B"],
    holes: Float[Tensor, "B 1 T T"] | None = None,
) -> list[PassSegment]:
    """The passes of a batch whose rows come with the most latents first; ``lengths`` without
    padding. No row may begin with a latent."""
    assert not bool(latent[:, 0].any())
    width = latent.shape[1]
    inside = torch.arange(width, device=latent.device) < lengths[:, None]
    number = latent.cumsum(1).masked_fill(~inside, -1)  # of the pass that runs each token
    passes = []
    for index in range(int(number.max()) + 1):
        mine = number == index
        rows, positions = mine.nonzero(as_tuple=True)
        count = int(rows.max()) + 1
        starts = mine[:count].int().argmax(1)
        passes.append(PassSegment(rows, positions, starts, starts + mine[:count].sum(1), holes))
    return passes

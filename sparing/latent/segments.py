"""Split a batch with latents into passes: the input of a latent depends on an earlier output.

Pass i runs every row from its i-th latent up to its next one. A batch takes one pass more than the
largest number of latents of a row.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class PassSegment:
    """The tokens of one pass, flat, row by row.

    ``rows``, ``positions``: [N], of each token
    ``count``: number of rows in the pass, the first ones of the batch
    ``starts``, ``ends``: [count], the range of their positions, without the end
    ``holes``: [B, 1, T, T], added to the attention's scores
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
        """Slots of its longest row, this pass included."""
        return int(self.ends.max())

    @cached_property
    def lengths(self) -> Int[Tensor, " R"]:
        return self.ends - self.starts

    @cached_property
    def firsts(self) -> Int[Tensor, " R"]:
        """The flat place of each row's first token."""
        return self.lengths.cumsum(0) - self.lengths

    @property
    def lasts(self) -> Int[Tensor, " R"]:
        """The flat place of each row's last token."""
        return self.firsts + self.lengths - 1

    @cached_property
    def padded(self) -> Int[Tensor, "R T"]:
        """The flat place of each padded token; a row's last token is its padding."""
        offsets = torch.arange(int(self.lengths.max()), device=self.rows.device)
        return self.firsts[:, None] + offsets.minimum(self.lengths[:, None] - 1)

    @cached_property
    def unpadded(self) -> Int[Tensor, " N"]:
        """The place of each flat token in ``padded``, flattened."""
        return self.rows * self.padded.shape[1] + self.positions - self.starts[self.rows]

    @cached_property
    def mask(self) -> Float[Tensor, "R 1 T S"] | None:
        """0 where a padded token sees a slot, else -inf; a slot's number is its position.

        None for the first pass without holes, which is causal.
        """
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
    """The passes of a batch.

    The rows must be in descending order of their number of latents, and must not begin with one.
    ``lengths``: without padding
    """
    assert not bool(latent[:, 0].any())
    width = latent.shape[1]
    inside = torch.arange(width, device=latent.device) < lengths[:, None]
    number = latent.cumsum(1).masked_fill(~inside, -1)  # of each token's pass
    passes = []
    for index in range(int(number.max()) + 1):
        mine = number == index
        rows, positions = mine.nonzero(as_tuple=True)
        count = int(rows.max()) + 1
        starts = mine[:count].int().argmax(1)
        passes.append(PassSegment(rows, positions, starts, starts + mine[:count].sum(1), holes))
    return passes

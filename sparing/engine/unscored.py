"""Hidden states that wait for the importance predictor: it scores a row's tokens together."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

TOGETHER = 16  # tokens a call: the predictor's weights are read once for all of them


class Unscored:
    """A row's committed tokens that have no score yet, the last ``len`` ones of its cache.

    They leave in groups of ``TOGETHER``, counted from the row's start and from each eviction. So
    a token is scored beside the same tokens, with the same last bit, whatever was drafted, in any
    batch, and however its prompt was read.
    """

    def __init__(self) -> None:
        self._positions: list[int] = []
        self._hidden: list[Float[Tensor, "_n E"]] = []

    def __len__(self) -> int:
        return len(self._positions)

    def add(self, positions: Sequence[int], hidden: Float[Tensor, "_n E"]) -> None:
        """Committed tokens of a pass, in the order of their positions."""
        self._positions += positions
        self._hidden.append(hidden)

    def groups(self, *, all_of_them: bool) -> Iterator[tuple[list[int], Float[Tensor, "_n E"]]]:
        """Positions and hidden states of whole groups, the rest too where ``all_of_them``."""
        if len(self) < TOGETHER and not all_of_them:
            return
        hidden = torch.cat(self._hidden) if self._hidden else None
        while hidden is not None and (len(self) >= TOGETHER or (self and all_of_them)):
            group, self._positions = self._positions[:TOGETHER], self._positions[TOGETHER:]
            yield group, hidden[:TOGETHER]
            hidden = hidden[TOGETHER:]
            self._hidden = [hidden] if len(hidden) else []

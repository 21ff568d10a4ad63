"""Hidden states waiting for the importance predictor, which scores tokens in groups."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

TOGETHER = 16  # tokens a call, for one read of the predictor's weights


class Unscored:
    """A row's committed tokens without a score: the last ``len`` slots of its cache.

    They leave in groups of ``TOGETHER``, counted from the row's start and from each eviction. So
    the group of a token, and the last bit of its score, depend neither on drafts, nor on the batch,
    nor on the chunks of the prompt.
    """

    def __init__(self) -> None:
        self._positions: list[int] = []
        self._hidden: list[Float[Tensor, "_n E"]] = []

    def __len__(self) -> int:
        return len(self._positions)

    def add(self, positions: Sequence[int], hidden: Float[Tensor, "_n E"]) -> None:
        """Add the committed tokens of a pass, in the order of their positions."""
        self._positions += positions
        self._hidden.append(hidden)

    def groups(self, *, all_of_them: bool) -> Iterator[tuple[list[int], Float[Tensor, "_n E"]]]:
        """Remove whole groups; yields their positions and hidden states.

        ``all_of_them`` includes the last, incomplete group.
        """
        if len(self) < TOGETHER and not all_of_them:
            return
        hidden = torch.cat(self._hidden) if self._hidden else None
        while hidden is not None and (len(self) >= TOGETHER or (self and all_of_them)):
            group, self._positions = self._positions[:TOGETHER], self._positions[TOGETHER:]
            yield group, hidden[:TOGETHER]
            hidden = hidden[TOGETHER:]
            self._hidden = [hidden] if len(hidden) else []

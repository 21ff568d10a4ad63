"""The loss of sequences with latent steps: cross-entropy of the taught tokens."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparing.latent.attention import NAME
from sparing.latent.forward import iterated_forward, segmented_forward
from sparing.latent.fusion import LatentVector, of_words
from sparing.train.examples import SHOWN
from sparing.train.layer_dropout import LayerDropout
from sparing.train.objective import ChainOfThought, Exits


class LatentThought(ChainOfThought):
    """The loss of stage 1 for examples with latents, marked by the latent token in their ids.

    The paper's ``latent_targets`` is the role of a latent: taught, or shown. Without latents it is
    exactly the loss of stage 1.
    """

    def __init__(
        self,
        model: Any,
        exits: Exits,
        vector: LatentVector,
        dropout: LayerDropout | None = None,
        words_weight: float = 0.0,
        rounds: int | None = None,
    ) -> None:
        super().__init__(model, exits)
        self.vector, self.dropout = vector, dropout
        self.words_weight, self.rounds = words_weight, rounds
        model.set_attn_implementation(NAME)

    def states(
        self,
        ids: Tensor,
        roles: Tensor,
        depths: Sequence[int],
        mask: Tensor | None = None,
        dropped: Tensor | None = None,
    ) -> list[Tensor]:
        if not bool((ids == self.vector.recipe.id).any()):
            unused = sum(0 * weight.sum() for weight in self.vector.parameters())
            return [states + unused for states in super().states(ids, roles, depths, mask)]
        if self.rounds is not None and dropped is not None and dropped.shape[1]:
            return iterated_forward(
                self.model, self.vector, ids, dropped, self.rounds, depths, mask
            )
        try:
            return segmented_forward(
                self.model, self.vector, ids, wanted(roles), depths, mask, self._deal
            )
        finally:
            self._deal(None)

    def more(self, states: Tensor, dropped: Tensor) -> Tensor:
        """The loss of each latent's mixture (ours): the cross-entropy of the words in its place,
        equally likely, at the position before it, without the latent token."""
        if not self.words_weight or not dropped.shape[1]:
            return super().more(states, dropped)
        rows, positions, words = dropped
        places, of = (rows * states.shape[1] + positions - 1).unique(return_inverse=True)
        logits = self.model.get_output_embeddings()(states.flatten(0, 1)[places]).float()
        share = 1 / of.bincount().to(logits.dtype)
        missing = -of_words(logits, self.vector.recipe.id).log_softmax(-1)[of, words] * share[of]
        return self.words_weight * missing.sum()

    def right(self, ids: Tensor, roles: Tensor) -> Tensor:
        with torch.no_grad():
            [states] = self.states(ids, roles, ())
            likeliest = self.model.get_output_embeddings()(states[:, :-1]).argmax(-1)
        right = torch.zeros_like(ids, dtype=torch.bool)
        right[:, 1:] = likeliest == ids[:, 1:]
        return right

    def _deal(self, rows: Tensor | None) -> None:
        """Tell layer dropout the row of each token in the next pass."""
        if self.dropout is not None:
            self.dropout.rows = rows


def wanted(roles: Tensor) -> Tensor:
    """The number of tokens of each row ``[B, T]`` up to its last taught one, at least 1."""
    at = torch.arange(1, roles.shape[1] + 1, device=roles.device)
    return ((roles != SHOWN) * at).amax(1).clamp(min=1)

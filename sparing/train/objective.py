"""The loss of stage 1, with LayerSkip's early exits, and the accuracy on given traces."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparing.train.examples import RECALL, SHOWN


@dataclass(frozen=True)
class Exits:
    """Early exits.

    ``depths``: number of layers before each exit
    ``weight``: of each exit's loss; the last layer's has weight 1
    """

    depths: Sequence[int] = ()
    weight: float = 0.0


class ChainOfThought(nn.Module):
    """The loss of stage 1 as a module for `accelerate`: ids and roles in, loss out."""

    def __init__(self, model: Any, exits: Exits) -> None:
        super().__init__()
        self.model, self.exits = model, exits

    def forward(
        self,
        ids: Tensor,
        roles: Tensor,
        total: float,
        mask: Tensor | None = None,
        dropped: Tensor | None = None,
    ) -> Tensor:
        """Cross-entropy of the taught tokens, summed and divided by ``total``.

        With exits e of weight w: ``L = CE(h_last) + w * sum_e CE(h_e)``, each h through the model's
        own final norm and head (LayerSkip, arXiv 2404.16710, eq. 3 and 4; w is constant here).

        ``ids``, ``roles``: [B, T]
        ``mask``: [B, 1, T, T], added to the attention's scores
        ``dropped``: of ``ExampleSet.dropped_of``, for ``more``
        """
        taught = roles[:, 1:] != SHOWN
        wanted = ids[:, 1:][taught]
        early = self.exits.depths if self.exits.weight else ()
        weights = [*[self.exits.weight] * len(early), 1.0]
        head = self.model.get_output_embeddings()
        loss = torch.zeros((), device=ids.device)
        for states, weight in zip(
            self.states(ids, roles, early, mask, dropped), weights, strict=True
        ):
            logits = head(states[:, :-1][taught])
            loss = loss + weight * F.cross_entropy(logits.float(), wanted, reduction="sum")
        if dropped is not None:
            loss = loss + self.more(states, dropped)
        return loss / total

    def more(self, states: Tensor, dropped: Tensor) -> Tensor:
        """A further loss on the inputs of the head [B, T, E]; none in stage 1."""
        return torch.zeros((), device=states.device)

    def states(
        self,
        ids: Tensor,
        roles: Tensor,
        depths: Sequence[int],
        mask: Tensor | None = None,
        dropped: Tensor | None = None,
    ) -> list[Tensor]:
        """See ``hidden_states``."""
        return hidden_states(self.model, ids, depths, mask)

    @torch.no_grad()
    def right(self, ids: Tensor, roles: Tensor) -> Tensor:
        """Whether each token of ``ids`` [B, T] is the likeliest after the tokens before it."""
        return teacher_forced(self.model, ids)


def hidden_states(
    model: Any, ids: Tensor, depths: Sequence[int], mask: Tensor | None = None
) -> list[Tensor]:
    """The inputs of the head after each of ``depths`` layers and at the end, each [B, T, E]."""
    body = model.get_decoder()
    out = body(
        input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=bool(depths)
    )
    early = [body.norm(out.hidden_states[depth]) for depth in depths]
    return [*early, out.last_hidden_state]


@dataclass
class Score:
    """Counts of correct tokens, correct recalled tokens and correct whole traces."""

    tokens: int = 0
    tokens_right: int = 0
    recalls: int = 0
    recalls_right: int = 0
    traces: int = 0
    traces_right: int = 0

    def add(self, right: Tensor, roles: Tensor) -> None:
        """Add one trace; ``right`` and ``roles`` [T] of its tokens."""
        taught, recall = roles != SHOWN, roles == RECALL
        self.tokens += int(taught.sum())
        self.tokens_right += int((right & taught).sum())
        self.recalls += int(recall.sum())
        self.recalls_right += int((right & recall).sum())
        self.traces += 1
        self.traces_right += int(bool((right | ~taught).all()))

    def shares(self) -> dict[str, float]:
        shares = {
            "token": self.tokens_right / max(self.tokens, 1),
            "trace": self.traces_right / max(self.traces, 1),
        }
        return shares | ({"recall": self.recalls_right / self.recalls} if self.recalls else {})


@torch.no_grad()
def teacher_forced(model: Any, ids: Tensor) -> Tensor:
    """Whether each token of ``ids`` [B, T] is the likeliest after the tokens before it.

    False for the first token of a row.
    """
    likeliest = model(input_ids=ids, use_cache=False).logits[:, :-1].argmax(-1)
    right = torch.zeros_like(ids, dtype=torch.bool)
    right[:, 1:] = likeliest == ids[:, 1:]
    return right

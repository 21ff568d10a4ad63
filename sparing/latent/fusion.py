"""The input vector of a latent step, from the position before it (LT-Tuning, arXiv 2602.10229).

Axes: N latent steps, E width, V vocabulary. Training and inference share this code.
"""

from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sparing.latent.vector_config import Nucleus, Recipe
from sparing.model.matrix import WithRows


@runtime_checkable
class Embeddings(Protocol):
    """The input embedding matrix E: a weight with gradients, or a matrix of the Decoder."""

    def mix(self, q: Float[Tensor, "N V"]) -> Float[Tensor, "N E"]:
        """sum_w q(w) E[w]"""
        ...

    def norm(self) -> Float[Tensor, ""]:
        """The mean norm of its rows."""
        ...


class Table:
    """Embeddings as a weight with gradients."""

    def __init__(self, weight: Float[Tensor, "V E"], scale: float = 1.0) -> None:
        self.weight, self.scale = weight, scale

    @classmethod
    def of(cls, model: Any) -> "Table":
        """The input embeddings of a transformers model, as it scales them (Gemma does)."""
        module = model.get_input_embeddings()
        return cls(module.weight, float(getattr(module, "embed_scale", 1.0)))

    def mix(self, q: Float[Tensor, "N V"]) -> Float[Tensor, "N E"]:
        mixed = q @ self.weight.to(q.dtype)
        return mixed if self.scale == 1 else mixed * self.scale

    def norm(self) -> Float[Tensor, ""]:
        return self.weight.detach().norm(dim=1).mean() * self.scale


class Rows:
    """Embeddings of a Decoder: ``mix`` reads only the rows it needs."""

    def __init__(self, matrix: WithRows, vocabulary: int) -> None:
        self.matrix, self.vocabulary = matrix, vocabulary

    def mix(self, q: Float[Tensor, "N V"]) -> Float[Tensor, "N E"]:
        used = q.sum(0).nonzero()[:, 0]
        return q[:, used] @ self.matrix.rows(used).to(q.dtype)

    def norm(self) -> Float[Tensor, ""]:
        every = torch.arange(self.vocabulary)
        return torch.cat([self.matrix.rows(ids).norm(dim=1) for ids in every.split(4096)]).mean()


class LatentVector(nn.Module):
    """The vector z of each latent step, by a ``recipe``, with the recipe's learned weights.

    ``pause [E]``: z of every latent step with the recipe's vector pause
    ``down``, ``up``: the adapter of untied embeddings, h' = W_up GELU(W_down h) in place of h
    """

    def __init__(self, recipe: Recipe, width: int) -> None:
        super().__init__()
        self.recipe = recipe
        if recipe.vector == "pause":
            self.pause = nn.Parameter(torch.zeros(width))
        elif recipe.adapter:
            self.down = nn.Linear(width, recipe.adapter, bias=False)
            self.up = nn.Linear(recipe.adapter, width, bias=False)

    def forward(
        self,
        hidden: Float[Tensor, "N E"],
        logits: Float[Tensor, "N V"],
        embeddings: Embeddings,
    ) -> Float[Tensor, "N E"]:
        """z = h (hidden), alpha h + (1 - alpha) e (fused), or the pause vector.

        h is the ``hidden`` state at the recipe's layer, not detached; e is the mean embedding of
        ``mixture``. With ``match_norms`` (ours) h is rescaled to the mean norm of an embedding.
        Never in mixed precision, since decoding is not either.
        """
        recipe = self.recipe
        if recipe.vector == "pause":
            return self.pause.to(hidden.dtype).expand_as(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            h = self._adapted(hidden) if recipe.adapter else hidden
            if recipe.match_norms:
                h = h * (embeddings.norm().to(h.dtype) / h.norm(dim=1, keepdim=True))
            if recipe.vector == "hidden":
                return h
            e = embeddings.mix(mixture(logits, recipe))
            return recipe.alpha * h + (1 - recipe.alpha) * e.to(h.dtype)

    def _adapted(self, hidden: Float[Tensor, "N E"]) -> Float[Tensor, "N E"]:
        return self.up(F.gelu(self.down(hidden.to(self.down.weight.dtype))))


def mixture(logits: Float[Tensor, "N V"], recipe: Recipe) -> Float[Tensor, "N V"]:
    """Q: the softmax of ``logits`` / T without the latent token, cut to its nucleus, renormalised.

    No gradient flows through the choice of the nucleus.
    """
    exact = torch.promote_types(logits.dtype, torch.float32)
    p = of_words(logits.to(exact) / recipe.temperature, recipe.id).softmax(1)
    q = p * nucleus(p.detach(), recipe.top_p, recipe.nucleus)
    return q / q.sum(1, keepdim=True)


def of_words(logits: Float[Tensor, "N V"], token: int) -> Float[Tensor, "N V"]:
    """The logits with minus infinity for the latent ``token``."""
    latent = torch.arange(logits.shape[1], device=logits.device) == token
    return logits.masked_fill(latent, float("-inf"))


def nucleus(p: Float[Tensor, "N V"], top_p: float, convention: Nucleus) -> Bool[Tensor, "N V"]:
    """Mark the likeliest tokens with a total probability of ``top_p``.

    ``standard`` keeps the token that crosses it (Holtzman et al., arXiv 1904.09751, sec. 3.1).
    ``reference``, like the code of the paper, leaves it out, but never the likeliest token.
    """
    ordered, order = p.sort(dim=1, descending=True, stable=True)
    total = ordered.cumsum(1)
    kept = total - ordered < top_p if convention == "standard" else total <= top_p
    kept[:, 0] = True
    return torch.zeros_like(kept).scatter(1, order, kept)

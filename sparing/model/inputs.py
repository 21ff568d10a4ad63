"""What one forward pass is given and what it returns, shared by the Decoder and its reference.

Axes: B rows, T new tokens of a row, N new tokens of all rows, S slots, H heads, G key-value heads,
D head dim, L layers, V vocabulary, E width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparing.model.layer_set import LayerSet


@dataclass
class RowInput:
    """The new tokens of one row: a prompt chunk, or the pending token and a draft behind it.

    ``row``: its row in the cache; ``cached``: its slots in use. ``vectors``: offset in ``ids`` ->
    input vector ``[E]`` that stands in for the token's embedding (latent steps). ``ancestors``:
    which of the new tokens each new token sees, itself included (a draft tree); None is causal.
    ``scored``: logits are wanted for so many of the last tokens; ``attended``: their attention is.
    ``visible``: only so many of the cached slots are seen, from the first; None: all of them.
    """

    row: int
    cached: int
    ids: list[int]
    positions: list[int]
    scored: int = 1
    ancestors: Bool[Tensor, "T T"] | None = None
    vectors: dict[int, Float[Tensor, " E"]] = field(default_factory=dict)
    attended: int = 0
    visible: int | None = None


@dataclass(frozen=True)
class Batch:
    """The new tokens of all rows as arrays, int32: what a pass is, for compiled code.

    By token ``ids`` and ``positions``; by row its cache ``row``, its ``count`` of tokens, and what
    RowInput says; ``scored`` and ``vector_tokens``: which of all tokens.
    """

    ids: np.ndarray
    positions: np.ndarray
    row: np.ndarray
    count: np.ndarray
    cached: np.ndarray
    visible: np.ndarray
    attended: np.ndarray
    scored: np.ndarray
    vector_tokens: np.ndarray

    @classmethod
    def of(cls, inputs: Sequence[RowInput]) -> "Batch":
        ids: list[int] = []
        positions: list[int] = []
        scored: list[int] = []
        vectors: list[int] = []
        for i in inputs:
            first = len(ids)
            ids += i.ids
            positions += i.positions
            scored += range(len(ids) - i.scored, len(ids))
            vectors += (first + offset for offset in i.vectors)
        by_row = [
            (i.row, len(i.ids), i.cached, i.cached if i.visible is None else i.visible, i.attended)
            for i in inputs
        ]
        of_rows = np.array(by_row, np.int32).T.copy()
        tokens = (np.array(values, np.int32) for values in (ids, positions))
        return cls(*tokens, *of_rows, *(np.array(v, np.int32) for v in (scored, vectors)))

    @property
    def tokens(self) -> int:
        return len(self.ids)


@dataclass
class Output:
    """Of one pass: ``hidden`` after the final norm, ``logits`` of the scored tokens, row by row.

    ``layer_hidden``: on request the residual stream at a layer, numbered as transformers'
    ``hidden_states`` (0: embeddings, -1: after the final norm). ``attention``: per row the
    mean over all layers and heads of the attention of its ``attended`` last tokens over its slots,
    cached and new; no map of more than one layer is ever held.
    """

    hidden: Float[Tensor, "N E"]
    logits: Float[Tensor, "M V"]
    layer_hidden: Float[Tensor, "N E"] | None = None
    attention: list[Float[Tensor, "_m _S"]] = field(default_factory=list)


@runtime_checkable
class KeyValues(Protocol):
    """Where a pass reads and writes: per layer keys and values ``[2, B, G, S, D]``, and of those
    of 8 bits their ``scales [2, B, G, S]``."""

    kv: list[Tensor]
    scales: list[Tensor]


@runtime_checkable
class Forward(Protocol):
    """A model that can be run in parts: the Decoder, or the reference through transformers."""

    def __call__(
        self,
        inputs: Sequence[RowInput],
        cache: KeyValues,
        layer_set: LayerSet | None = None,
        *,
        layer: int | None = None,
    ) -> Output: ...


def split(flat: Tensor, inputs: Sequence[RowInput]) -> tuple[Tensor, ...]:
    """The flat tokens, row by row."""
    return flat.split([len(i.ids) for i in inputs])


def scored(hidden: Float[Tensor, "N E"], inputs: Sequence[RowInput]) -> Float[Tensor, "M E"]:
    """The hidden states whose logits are wanted, in row order."""
    if all(i.scored == len(i.ids) for i in inputs):
        return hidden
    parts = [
        row[len(row) - i.scored :] for row, i in zip(split(hidden, inputs), inputs, strict=True)
    ]
    return torch.cat(parts)

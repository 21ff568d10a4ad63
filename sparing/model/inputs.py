"""Inputs and outputs of one forward pass, shared by all decoders.

Axes: B rows, T new tokens of a row, N new tokens of all rows, S slots, H heads, G key-value heads,
D head dim, L layers, V vocabulary, E width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor

from sparing.model.config import Shape
from sparing.model.layer_set import LayerSet
from sparing.model.matrix import Matrix, WithRows


@dataclass
class RowInput:
    """The new tokens of one row: a prompt chunk, or the pending token and a draft behind it.

    ``row``: the row in the cache
    ``cached``: number of slots in use
    ``ids``, ``positions``: of the new tokens
    ``scored``: number of last tokens with logits
    ``ancestors``: the new tokens seen by each new token, itself included (a draft tree); None is
        causal
    ``vectors``: offset in ``ids`` -> input vector ``[E]`` in place of the embedding (latent steps)
    ``attended``: number of last tokens with attention weights in the output
    ``visible``: number of cached slots seen, from the first; None: all of them
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
    """The new tokens of all rows as int32 arrays, for compiled code.

    ``ids``, ``positions``: by token
    ``row``: by row, its row in the cache
    ``count``: by row, its new tokens
    ``cached``, ``visible``, ``attended``: by row, as in RowInput
    ``scored``: indices of the tokens with logits
    ``vector_tokens``: indices of the tokens with an input vector
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
    """The output of one pass, row by row.

    ``hidden``: after the final norm
    ``logits``: of the scored tokens
    ``layer_hidden``: the residual stream at the layer asked for, numbered as transformers'
        ``hidden_states`` (0: embeddings, -1: after the final norm)
    ``attention``: a matrix a row: attention weights of its ``attended`` last tokens over its slots,
        cached and new, the mean over all layers and heads; no more than one layer's weights are
        in memory at a time
    ``top``: the likeliest token of each scored one, and its probability; None: not computed
    """

    hidden: Float[Tensor, "N E"]
    logits: Float[Tensor, "M V"]
    layer_hidden: Float[Tensor, "N E"] | None = None
    attention: list[Float[Tensor, "_m _S"]] = field(default_factory=list)
    top: tuple[Int32[Tensor, " M"], Float[Tensor, " M"]] | None = None


@runtime_checkable
class KeyValues(Protocol):
    """The cache as a pass reads and writes it, a tensor a layer.

    ``kv``: keys and values ``[2, B, G, S, D]``
    ``scales``: ``[2, B, G, S]``, of keys and values of 8 bits
    ``positions``: ``[B, S]``, of the cached slots
    """

    kv: list[Tensor]
    scales: list[Tensor]
    positions: np.ndarray


@runtime_checkable
class Forward(Protocol):
    """A model that can be run in parts: the Decoder, or the HubDecoder.

    ``dtype``: of hidden states and logits; ``cache_dtype``: of keys and values by default
    ``embedding``: the rows of the input embeddings
    ``step_bytes``: of weights that a step reads
    ``can_skip``: whether layers can be left out; the first and the last one always run
    """

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def shape(self) -> Shape: ...

    @property
    def step_bytes(self) -> int: ...

    @property
    def cache_dtype(self) -> torch.dtype: ...

    @property
    def can_skip(self) -> bool: ...

    @property
    def embedding(self) -> WithRows: ...

    def __call__(
        self,
        inputs: Sequence[RowInput],
        cache: KeyValues,
        layer_set: LayerSet | None = None,
        *,
        layer: int | None = None,
        head: Matrix | None = None,
    ) -> Output: ...


def split(flat: Tensor, inputs: Sequence[RowInput]) -> tuple[Tensor, ...]:
    """Split a flat tensor of all new tokens by row."""
    return flat.split([len(i.ids) for i in inputs])


def scored(hidden: Float[Tensor, "N E"], inputs: Sequence[RowInput]) -> Float[Tensor, "M E"]:
    """The hidden states of the scored tokens, in row order."""
    if all(i.scored == len(i.ids) for i in inputs):
        return hidden
    parts = [
        row[len(row) - i.scored :] for row, i in zip(split(hidden, inputs), inputs, strict=True)
    ]
    return torch.cat(parts)

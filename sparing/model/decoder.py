"""The forward pass of llama, mistral, qwen2 and qwen3 over new tokens and a cache.

``Decoder`` holds the weights. The pass is compiled code (``compiled.py``) or torch
(``torch_decoder.py``), with the same arithmetic.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sparing.model.config import ModelConfig
from sparing.model.inputs import KeyValues, Output, RowInput
from sparing.model.layer_set import LayerSet
from sparing.model.matrix import Matrix

MATRICES = ("query", "key", "value", "output", "gate", "up", "down")  # fields of a Layer


@dataclass
class Layer:
    """The weights of one layer; only qwen3 has ``query_norm`` and ``key_norm``."""

    query: Matrix
    key: Matrix
    value: Matrix
    output: Matrix
    gate: Matrix
    up: Matrix
    down: Matrix
    attention_norm: Float[Tensor, " E"]
    mlp_norm: Float[Tensor, " E"]
    query_norm: Float[Tensor, " D"] | None = None
    key_norm: Float[Tensor, " D"] | None = None

    @property
    def matrices(self) -> list[Matrix]:
        return [getattr(self, name) for name in MATRICES]


class Decoder:
    """A transformer in eval mode.

    ``dtype``: of hidden states and logits
    ``torch_threads``: torch's threads outside of the passes; None leaves them as they are
    """

    torch_threads: int | None = None

    def __init__(
        self,
        config: ModelConfig,
        layers: list[Layer],
        embedding: Matrix,
        head: Matrix,
        norm: Float[Tensor, " E"],
    ) -> None:
        self.config, self.shape, self.layers = config, config, layers
        self.embedding, self.head, self.norm = embedding, head, norm
        self.dtype, self.device = norm.dtype, norm.device

    @property
    def types(self) -> dict[str, int]:
        """Number of matrices of each precision; an untied embedding is not counted."""
        found: dict[str, int] = {}
        for matrix in self._matrices():
            found[matrix.type] = found.get(matrix.type, 0) + 1
        return found

    @property
    def step_bytes(self) -> int:
        """Bytes of weights read in one step."""
        return sum(matrix.nbytes for matrix in self._matrices())

    @property
    def can_skip(self) -> bool:
        """Whether layers can be left out; the first and the last one always run."""
        return self.shape.layers > 2

    @property
    def cache_dtype(self) -> torch.dtype:
        """Default dtype of keys and values: float16 beside weights of fewer than 32 bits.

        A decoder in another dtype than float32 keeps its own.
        """
        exact = {"F32", "F64"} >= set(self.types)
        return self.dtype if exact or self.dtype != torch.float32 else torch.float16

    def __call__(
        self,
        inputs: Sequence[RowInput],
        cache: KeyValues,
        layer_set: LayerSet | None = None,
        *,
        layer: int | None = None,
        head: Matrix | None = None,
    ) -> Output:
        """Run the new tokens of all rows and write their keys and values behind the cached slots.

        The caller owns the lengths: a new slot counts as cached once the cache commits it.

        ``layer_set``: the sub-layers to run; None runs all
        ``layer``: the layer of ``Output.layer_hidden``
        ``head``: the output matrix in place of the model's own, for example of fewer tokens
        """
        raise NotImplementedError

    def _matrices(self) -> list[Matrix]:
        return [m for layer in self.layers for m in layer.matrices] + [self.head]

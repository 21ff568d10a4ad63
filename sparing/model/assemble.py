"""From a checkpoint to a Decoder: what is stacked, and which kind of product each matrix gets."""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from sparing.errors import ModelError, OptionError, reason
from sparing.model.config import ModelConfig, read_config
from sparing.model.decoder import EXACT_DTYPES, ROLES, Decoder, Layer
from sparing.model.matrix import KINDS, TIMED_MATRICES, Matrix, PlainMatrix, fastest_kind, runs
from sparing.model.weights import EMBEDDING, HEAD, Checkpoint, expected_shapes

# role -> the matrices of the checkpoint that are stacked into it
PARTS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "output": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
# role -> the norm before it, whose weight is multiplied into it where the dtype is exact enough
NORMS = {"qkv": "input_layernorm", "gate_up": "post_attention_layernorm"}


def load_decoder(
    directory: Path,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    kind: str = "auto",
) -> Decoder:
    """Read a Hugging Face checkpoint, matrix by matrix; ``kind`` auto picks each by timing.

    Raises ModelError where config or weights cannot be used, OptionError where this processor has
    no product of that kind in that dtype.
    """
    config = read_config(directory)
    if kind != "auto" and not runs(kind, dtype, device):
        raise OptionError(
            f"kind must be one that runs in {dtype} on this {device}, got {kind}; "
            "take another, or auto"
        )
    with Checkpoint(directory, config, dtype) as checkpoint:
        config = replace(config, tied=config.tied and not checkpoint.has_own_head)
        return Assembly(config, lambda name: checkpoint(name).to(device), kind).decoder()


class Assembly:
    """Builds a Decoder from ``tensors``, which gives a tensor by its name in the checkpoint."""

    def __init__(self, config: ModelConfig, tensors: Callable[[str], Tensor], kind: str) -> None:
        self.config, self.tensors, self.kind = config, tensors, kind

    @torch.inference_mode()
    def decoder(self) -> Decoder:
        kinds = {role: self._choose(role) for role in ROLES}
        layers = [self._layer(index, kinds) for index in range(self.config.layers)]
        embedding, head = self._embedding_and_head()
        return Decoder(self.config, layers, embedding, head, self.tensors("model.norm.weight"))

    def _layer(self, index: int, kinds: dict[str, str]) -> Layer:
        matrices = {role: build(kinds[role], *self._stacked(index, role)) for role in ROLES}
        return Layer(
            **matrices,
            qkv_norm=self._norm(index, "qkv"),
            gate_up_norm=self._norm(index, "gate_up"),
            qk_norm=self._head_norms(index),
        )

    def _stacked(self, layer: int, role: str) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of a role's product, the norm before it multiplied in."""
        prefix = f"model.layers.{layer}"
        weight = torch.cat([self.tensors(f"{prefix}.{part}.weight") for part in PARTS[role]])
        if role in NORMS and weight.dtype in EXACT_DTYPES:
            weight *= self.tensors(f"{prefix}.{NORMS[role]}.weight")
        if not self._has_bias(role):
            return weight, None
        return weight, torch.cat([self.tensors(f"{prefix}.{part}.bias") for part in PARTS[role]])

    def _has_bias(self, role: str) -> bool:
        config = self.config
        return {"qkv": config.qkv_bias, "output": config.output_bias}.get(role, config.mlp_bias)

    def _norm(self, layer: int, role: str) -> Tensor | None:
        """The weight of the norm before a product; None where it has been multiplied in."""
        weight = self.tensors(f"model.layers.{layer}.{NORMS[role]}.weight")
        return None if weight.dtype in EXACT_DTYPES else weight

    def _head_norms(self, layer: int) -> Tensor | None:
        """Qwen3's norms of queries and keys as one weight a head ``[H + G, D]``."""
        if not self.config.qk_norm:
            return None
        query, key = (
            self.tensors(f"model.layers.{layer}.self_attn.{name}.weight").expand(heads, -1)
            for name, heads in (("q_norm", self.config.heads), ("k_norm", self.config.kv_heads))
        )
        return torch.cat([query, key])

    def _embedding_and_head(self) -> tuple[Matrix, Matrix]:
        """Where the head is tied, one matrix serves as both, a packed one excepted."""
        table = self.tensors(EMBEDDING)
        weight = table if self.config.tied else self.tensors(HEAD)
        kind = self._fastest([(weight, None)])
        head = build(kind, weight, None)
        return (head if self.config.tied and kind != "packed" else PlainMatrix(table)), head

    def _choose(self, role: str) -> str:
        """The kind of product for a role in every layer."""
        if self.kind != "auto":
            return self.kind
        sample = range(min(self.config.layers, TIMED_MATRICES))
        return self._fastest([self._stacked(layer, role) for layer in sample])

    def _fastest(self, sample: list[tuple[Tensor, Tensor | None]]) -> str:
        if self.kind != "auto":
            return self.kind
        return fastest_kind(sample, self._bytes())

    def _bytes(self) -> int:
        """What a step reads, at 4 bytes a weight."""
        return 4 * sum(prod(shape) for shape in expected_shapes(self.config).values())


def build(kind: str, weight: Tensor, bias: Tensor | None) -> Matrix:
    """A product of this kind; raises ModelError where dtype or device refuse it."""
    try:
        return KINDS[kind](weight, bias)
    except RuntimeError as error:
        raise ModelError(
            f"kind {kind} must be one that {weight.dtype} has on {weight.device}, "
            f"got: {reason(error)}; pass kind auto"
        ) from None

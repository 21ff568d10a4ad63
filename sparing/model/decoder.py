"""Our forward for llama, mistral, qwen2 and qwen3: one pass over new tokens and a cache."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sparing.model.attention import Attention
from sparing.model.config import ModelConfig
from sparing.model.inputs import KeyValues, Output, RowInput, scored
from sparing.model.layer_set import LayerSet
from sparing.model.matrix import Matrix

ROLES = ("qkv", "output", "gate_up", "down")  # the products of a layer
EXACT_DTYPES = (torch.float32, torch.float64)  # where the order of products is free


@dataclass
class Layer:
    """The weights of one layer; queries, keys and values are one product, gate and up another.

    A norm is None where its weight went into the matrix behind it.
    """

    qkv_norm: Float[Tensor, " E"] | None
    qkv: Matrix
    output: Matrix
    gate_up_norm: Float[Tensor, " E"] | None
    gate_up: Matrix
    down: Matrix
    qk_norm: Float[Tensor, "HG D"] | None


class Decoder:
    """A transformer in eval mode, on weights laid out for decoding.

    ``kinds`` says which kind of product each role (qkv, output, gate_up, down, head) got.
    """

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
        self.kinds = {role: getattr(layers[0], role).kind for role in ROLES} | {"head": head.kind}
        self._numbers = self.dtype in EXACT_DTYPES and self.device.type == "cpu"
        self._frequencies = config.inverse_frequencies.to(self.device)

    @property
    def step_bytes(self) -> int:
        """Bytes of weights that one step reads."""
        matrices = [getattr(layer, role) for layer in self.layers for role in ROLES]
        return sum(matrix.nbytes for matrix in [*matrices, self.head])

    @torch.inference_mode()
    def __call__(
        self,
        inputs: Sequence[RowInput],
        cache: KeyValues,
        layer_set: LayerSet | None = None,
        *,
        layer: int | None = None,
        head: Matrix | None = None,
    ) -> Output:
        """Run the new tokens of all rows; their keys and values go behind each row's cached slots.

        The caller owns the lengths: nothing counts as cached until the cache commits it.
        ``layer``: see ``Output``. ``head``: scores other words than the model's own, or fewer.
        """
        config = self.config
        assert layer_set is None or len(layer_set.attention) == config.layers
        x = self.embed(inputs)
        cos, sin = self._rotary(inputs)
        attention = Attention(inputs, config.kv_heads, config.heads // config.kv_heads, x)
        wanted = None if layer is None else range(config.layers + 1)[layer]
        kept = x.clone() if wanted == 0 else None
        for index, block in enumerate(self.layers):
            if layer_set is None or layer_set.attention[index]:
                kv = cache.kv[index]
                q = self._project(block, x, cos, sin, attention, kv)
                block.output.add(x, attention(q, kv))
                attention.watch(q, kv)
            if layer_set is None or layer_set.mlp[index]:
                self._mlp(block, x)
            if wanted == index + 1 and wanted < config.layers:
                kept = x.clone()
        hidden = F.rms_norm(x, x.shape[1:], self.norm, config.norm_eps)
        return Output(
            hidden=hidden,
            logits=(head or self.head)(scored(hidden, inputs)),
            layer_hidden=hidden if wanted == config.layers else kept,
            attention=attention.watched(),
        )

    def embed(self, inputs: Sequence[RowInput]) -> Float[Tensor, "N E"]:
        """The input vectors: embeddings, with the given vectors in their places."""
        ids = torch.tensor([token for i in inputs for token in i.ids], device=self.device)
        x = self.embedding.rows(ids)
        start = 0
        for i in inputs:
            for offset, vector in i.vectors.items():
                x[start + offset] = vector
            start += len(i.ids)
        return x

    def _rotary(self, inputs: Sequence[RowInput]) -> tuple[Tensor, Tensor]:
        """cos and sin ``[N, 1, D]``, the first half of sin negated: x cos + roll(x, D/2) sin."""
        positions = torch.tensor([p for i in inputs for p in i.positions], device=self.device)
        angles = positions[:, None].float() * self._frequencies
        cos, sin = angles.cos() * self.config.rope_scale, angles.sin() * self.config.rope_scale
        both = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
        return both[0][:, None].to(self.dtype), both[1][:, None].to(self.dtype)

    def _normed(
        self, x: Float[Tensor, "N E"], weight: Tensor | None, matrix: Matrix
    ) -> Float[Tensor, "N out"]:
        """The product with x / sqrt(mean x^2 + eps) * weight (RMSNorm, arXiv 1910.07467, eq. 4).

        A lone token's norm is a number, which the product takes along: less small operations.
        """
        eps = self.config.norm_eps
        if x.shape[0] > 1 or weight is not None or not self._numbers:
            return matrix(F.rms_norm(x, x.shape[1:], weight, eps))
        length = float(torch.linalg.vector_norm(x))
        return matrix(x, (length * length / x.shape[1] + eps) ** -0.5)

    def _project(
        self,
        block: Layer,
        x: Float[Tensor, "N E"],
        cos: Tensor,
        sin: Tensor,
        attention: Attention,
        kv: Float[Tensor, "2 B G S D"],
    ) -> Float[Tensor, "N H D"]:
        """Queries of the new tokens; their keys and values are written to the cache."""
        heads, groups, dim = self.config.heads, self.config.kv_heads, self.config.head_dim
        qkv = self._normed(x, block.qkv_norm, block.qkv).view(x.shape[0], heads + 2 * groups, dim)
        qk = qkv[:, : heads + groups]
        if block.qk_norm is not None:
            qk.copy_(F.rms_norm(qk, (dim,), None, self.config.norm_eps) * block.qk_norm)
        turned = qk.roll(dim // 2, -1)
        qk.mul_(cos).addcmul_(turned, sin)
        attention.write(kv, qkv[:, heads:])
        return qkv[:, :heads]

    def _mlp(self, block: Layer, x: Float[Tensor, "N E"]) -> None:
        gate, up = self._normed(x, block.gate_up_norm, block.gate_up).chunk(2, dim=-1)
        block.down.add(x, F.silu(gate).mul_(up))

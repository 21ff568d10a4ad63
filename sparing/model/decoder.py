"""Our forward for llama, mistral, qwen2 and qwen3: one pass over new tokens and a cache."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sparing.errors import ModelError
from sparing.model.attention import Attention, additive_mask
from sparing.model.config import ModelConfig, read_config
from sparing.model.inputs import KeyValues, Output, RowInput, scored, split
from sparing.model.layer_set import LayerSet
from sparing.model.matrix import KINDS, TIMED_MATRICES, Matrix, PlainMatrix, fastest_kind
from sparing.model.weights import Checkpoint

Tensors = Callable[[str], Tensor]  # a tensor by its name in the checkpoint


@dataclass
class Layer:
    """The weights of one layer; queries, keys and values are one product, gate and up another."""

    attention_norm: Float[Tensor, " E"]
    qkv: Matrix
    output: Matrix
    mlp_norm: Float[Tensor, " E"]
    gate_up: Matrix
    down: Matrix
    qk_norm: Float[Tensor, "H+G D"] | None


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
        attention_of: int = 0,
    ) -> Output:
        """Run the new tokens of all rows; their keys and values go behind each row's cached slots.

        The caller owns the lengths: nothing counts as cached until the cache commits it.
        ``layer``, ``attention_of``: see ``Output``.
        """
        config = self.config
        x = self.embed(inputs)
        cos, sin = self._rotary(inputs)
        attention = Attention(inputs, config.kv_heads, config.heads // config.kv_heads, x)
        maps: list[list[Tensor]] = []
        wanted = None if layer is None else layer % (config.layers + 1)
        kept = x.clone() if wanted == 0 else None
        for index, block in enumerate(self.layers):
            if layer_set is None or layer_set.attention[index]:
                q = self._project(block, x, cos, sin, attention, cache, index)
                keys, values = cache.keys[index], cache.values[index]
                x += block.output(attention(q, keys, values))
                if attention_of:
                    maps.append(
                        [
                            attention_map(i, q_row, keys, attention_of)
                            for i, q_row in zip(inputs, split(q, inputs), strict=True)
                        ]
                    )
            if layer_set is None or layer_set.mlp[index]:
                x += self._mlp(block, x)
            if wanted == index + 1 and wanted < config.layers:
                kept = x.clone()
        hidden = self._norm(x, self.norm)
        return Output(
            hidden=hidden,
            logits=self.head(scored(hidden, inputs)),
            layer_hidden=hidden if wanted == config.layers else kept,
            attention=[torch.stack(row) for row in zip(*maps, strict=True)] if maps else None,
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

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.config.norm_eps)

    def _project(
        self,
        block: Layer,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        attention: Attention,
        cache: KeyValues,
        index: int,
    ) -> Float[Tensor, "N H D"]:
        """Queries of the new tokens; their keys and values are written to the cache."""
        heads, groups, dim = self.config.heads, self.config.kv_heads, self.config.head_dim
        qkv = block.qkv(self._norm(x, block.attention_norm)).view(len(x), heads + 2 * groups, dim)
        qk = qkv[:, : heads + groups]
        if block.qk_norm is not None:
            qk = F.rms_norm(qk, (dim,), None, self.config.norm_eps) * block.qk_norm
        qk = torch.addcmul(qk * cos, qk.roll(dim // 2, -1), sin)
        attention.write(cache.keys[index], qk[:, heads:])
        attention.write(cache.values[index], qkv[:, heads + groups :])
        return qk[:, :heads]

    def _mlp(self, block: Layer, x: Tensor) -> Tensor:
        gate, up = block.gate_up(self._norm(x, block.mlp_norm)).chunk(2, dim=-1)
        return block.down(F.silu(gate).mul_(up))

    @classmethod
    def load(
        cls,
        directory: Path,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        kind: str = "auto",
    ) -> "Decoder":
        """Read a Hugging Face checkpoint, matrix by matrix; ``kind`` auto picks each by timing.

        Raises ModelError where config or weights cannot be used.
        """
        config = read_config(directory)
        with Checkpoint(directory, config, dtype) as checkpoint:
            return assemble(config, lambda name: checkpoint(name).to(device), kind)


# role -> the matrices of the checkpoint that are stacked into it
ROLES = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "output": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}


@torch.inference_mode()
def assemble(config: ModelConfig, tensors: Tensors, kind: str = "auto") -> Decoder:
    """Build a Decoder from named tensors, choosing each role's kind of product."""
    if kind != "auto" and kind not in KINDS:
        raise ModelError(f"kind must be auto, {', '.join(KINDS)}, got {kind!r}")
    biased = {
        "qkv": config.qkv_bias,
        "output": config.output_bias,
        "gate_up": config.mlp_bias,
        "down": config.mlp_bias,
    }

    def stacked(layer: int, role: str) -> tuple[Tensor, Tensor | None]:
        names = [f"model.layers.{layer}.{part}" for part in ROLES[role]]
        weight = torch.cat([tensors(f"{name}.weight") for name in names])
        bias = torch.cat([tensors(f"{name}.bias") for name in names]) if biased[role] else None
        return weight, bias

    def choose(role: str) -> str:
        if kind != "auto":
            return kind
        sample = [stacked(layer, role) for layer in range(min(config.layers, TIMED_MATRICES))]
        return fastest_kind([weight for weight, _ in sample], [bias for _, bias in sample])

    chosen = {role: KINDS[choose(role)] for role in ROLES}
    layers = []
    for index in range(config.layers):
        prefix = f"model.layers.{index}"
        matrices = {role: chosen[role](*stacked(index, role)) for role in ROLES}
        layers.append(
            Layer(
                attention_norm=tensors(f"{prefix}.input_layernorm.weight"),
                mlp_norm=tensors(f"{prefix}.post_attention_layernorm.weight"),
                qk_norm=head_norms(config, tensors, prefix),
                **matrices,
            )
        )
    embedding, head = embedding_and_head(config, tensors, kind)
    return Decoder(config, layers, embedding, head, tensors("model.norm.weight"))


def embedding_and_head(config: ModelConfig, tensors: Tensors, kind: str) -> tuple[Matrix, Matrix]:
    """A tied head that is packed is a second copy of the embeddings; every other kind shares."""
    table = tensors("model.embed_tokens.weight")
    weight = table if config.tied else tensors("lm_head.weight")
    chosen = fastest_kind([weight], [None]) if kind == "auto" else kind
    head = KINDS[chosen](weight)
    shares = config.tied and chosen == "transposed"
    return (head if shares else PlainMatrix(table)), head


def head_norms(config: ModelConfig, tensors: Tensors, prefix: str) -> Tensor | None:
    """Qwen3's norms of queries and keys as one weight a head ``[H + G, D]``."""
    if not config.qk_norm:
        return None
    query = tensors(f"{prefix}.self_attn.q_norm.weight").expand(config.heads, -1)
    return torch.cat(
        [query, tensors(f"{prefix}.self_attn.k_norm.weight").expand(config.kv_heads, -1)]
    )


def attention_map(
    i: RowInput, queries: Float[Tensor, "T H D"], keys: Float[Tensor, "B G S D"], last: int
) -> Float[Tensor, "H m S"]:
    """softmax(q k^T / sqrt(D)) of a row's last tokens over its slots, cached and new."""
    slots = i.cached + len(i.ids)
    k = keys[i.row, :, :slots]
    q = queries[-last:].transpose(0, 1)  # [H, m, D]
    k = k.repeat_interleave(q.shape[0] // k.shape[0], dim=0)
    logits = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    mask = additive_mask([i], len(i.ids), slots, q)
    if mask is not None:
        logits = logits + mask[0, :, -last:]
    return logits.softmax(-1)

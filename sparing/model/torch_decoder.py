"""A pass in torch, for any dtype and device: the slower oracle of the compiled pass."""

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sparing.model.attention import Attention, Writer, floats
from sparing.model.decoder import Decoder, Layer
from sparing.model.devices import placed
from sparing.model.inputs import KeyValues, Output, RowInput, scored
from sparing.model.layer_set import LayerSet
from sparing.model.matrix import Matrix


class TorchDecoder(Decoder):
    """A Decoder in torch."""

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
        config = self.config
        assert layer_set is None or len(layer_set.attention) == config.layers
        x = self._embed(inputs)
        cos, sin = self._rotary(inputs)
        write = Writer(inputs, x.device)
        attention = Attention(inputs, config.kv_heads, config.heads // config.kv_heads, x)
        wanted = None if layer is None else range(config.layers + 1)[layer]
        kept = None
        for index, block in enumerate(self.layers):
            if wanted == index:
                kept = x.clone()
            if layer_set is None or layer_set.attention[index]:
                q, new = self._project(block, x, cos, sin)
                write(cache, index, new.view(len(x), 2, config.kv_heads, -1))
                keys, values = floats(cache, index, x.dtype)
                x = x + block.output(attention(q, keys, values))
                attention.watch(q, keys)
            if layer_set is None or layer_set.mlp[index]:
                h = self._normed(x, block.mlp_norm)
                x = x + block.down(F.silu(block.gate(h)) * block.up(h))
        hidden = self._normed(x, self.norm)
        return Output(
            hidden=hidden,
            logits=(head or self.head)(scored(hidden, inputs)),
            layer_hidden=hidden if wanted == config.layers else kept,
            attention=attention.watched(),
        )

    def _embed(self, inputs: Sequence[RowInput]) -> Float[Tensor, "N E"]:
        """The embeddings of the new tokens, with the given vectors in their places."""
        ids = placed([token for i in inputs for token in i.ids], self.device)
        x = self.embedding.rows(ids).to(self.dtype)
        start = 0
        for i in inputs:
            for offset, vector in i.vectors.items():
                x[start + offset] = vector
            start += len(i.ids)
        return x

    @cached_property
    def _frequencies(self) -> Tensor:
        return self.config.inverse_frequencies.to(self.device)

    def _rotary(self, inputs: Sequence[RowInput]) -> tuple[Tensor, Tensor]:
        """cos and sin ``[N, 1, D]``, the first half of sin negated: x cos + roll(x, D/2) sin."""
        positions = placed([p for i in inputs for p in i.positions], self.device)
        angles = positions[:, None].float() * self._frequencies
        cos, sin = angles.cos() * self.config.rope_scale, angles.sin() * self.config.rope_scale
        both = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
        return both[0][:, None].to(self.dtype), both[1][:, None].to(self.dtype)

    def _normed(self, x: Float[Tensor, "*N E"], weight: Tensor) -> Float[Tensor, "*N E"]:
        """x / sqrt(mean x^2 + eps) * weight (RMSNorm, arXiv 1910.07467, eq. 4)."""
        return F.rms_norm(x, weight.shape, weight, self.config.norm_eps)

    def _project(
        self,
        block: Layer,
        x: Float[Tensor, "N E"],
        cos: Tensor,
        sin: Tensor,
    ) -> tuple[Float[Tensor, "N H D"], Float[Tensor, "N KV D"]]:
        """Queries of the new tokens, and their keys and values in one tensor, keys first."""
        h, dim = self._normed(x, block.attention_norm), self.config.head_dim
        q = block.query(h).view(len(x), -1, dim)
        k = block.key(h).view(len(x), -1, dim)
        v = block.value(h).view(len(x), -1, dim)
        if block.query_norm is not None and block.key_norm is not None:
            q, k = self._normed(q, block.query_norm), self._normed(k, block.key_norm)
        q, k = (z * cos + z.roll(dim // 2, -1) * sin for z in (q, k))
        return q, torch.cat((k, v), 1)

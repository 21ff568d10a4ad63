"""Read a Hugging Face checkpoint tensor by tensor, sharded or not, after a check of its shapes."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from sparing.errors import ModelError
from sparing.model.config import ModelConfig

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
IGNORED_SUFFIXES = ("rotary_emb.inv_freq",)


class Checkpoint:
    """The tensors of a directory's safetensors files, opened lazily.

    Raises ModelError if a file is missing, truncated or no safetensors file, or if the names and
    shapes do not match ``config``.
    """

    def __init__(self, directory: Path, config: ModelConfig) -> None:
        self.directory = directory
        self._files = {name: self._open(name) for name in shard_names(directory)}
        self._where = {key: file for file in self._files.values() for key in file.keys()}  # noqa: SIM118
        expected = expected_shapes(config)
        if HEAD in self._where:
            expected[HEAD] = expected[EMBEDDING]
        self._check(expected)

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._where.clear()
        self._files.clear()

    def __call__(self, name: str) -> torch.Tensor:
        """A copy of one tensor: the mapped file may change later."""
        tensor: torch.Tensor = self._where[name].get_tensor(name)
        return tensor.clone()

    def described(self, name: str) -> tuple[str, tuple[int, ...]]:
        """A tensor's dtype, by its name in safetensors, and shape."""
        found = self._where[name].get_slice(name)
        return found.get_dtype(), tuple(found.get_shape())

    @property
    def has_own_head(self) -> bool:
        """Whether the checkpoint has a head unlike its embedding; it is then used, even where
        config.json ties them, as in transformers."""
        return HEAD in self._where and not torch.equal(self(HEAD), self(EMBEDDING))

    def _open(self, name: str) -> Any:
        path = self.directory / name
        try:
            return safe_open(path, framework="pt")
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"{path} must be a whole safetensors file, got: {error}; fetch it again"
            ) from None

    def _check(self, expected: dict[str, tuple[int, ...]]) -> None:
        for name, shape in expected.items():
            if name not in self._where:
                raise ModelError(
                    f"{self.directory} must hold the tensor {name} {list(shape)} of its "
                    "config.json, got none; config and weights do not match"
                )
            found = tuple(self._where[name].get_slice(name).get_shape())
            if found != shape:
                raise ModelError(
                    f"tensor {name} must have the shape {list(shape)} of config.json, "
                    f"got {list(found)}; config and weights do not match"
                )
        for name in self._where:
            if name not in expected and not name.endswith(IGNORED_SUFFIXES):
                raise ModelError(
                    f"every tensor must belong to the model of config.json, got {name}; this "
                    "checkpoint is of another architecture"
                )


def shard_names(directory: Path) -> list[str]:
    """The file names in a checkpoint's index, else the name of its single file."""
    index = directory / "model.safetensors.index.json"
    if not index.exists():
        return ["model.safetensors"]
    try:
        named = json.loads(index.read_text())["weight_map"].values()
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(
            f"{index} must be JSON with a weight_map, got: {error}; fetch it again"
        ) from None
    return sorted({str(name) for name in named})


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name, as in transformers, and shape of every tensor of the Decoder."""
    shapes: dict[str, tuple[int, ...]] = {
        EMBEDDING: (config.vocabulary, config.width),
        "model.norm.weight": (config.width,),
    }
    if not config.tied:
        shapes[HEAD] = (config.vocabulary, config.width)
    for layer in range(config.layers):
        for name, shape in layer_shapes(config).items():
            shapes[f"model.layers.{layer}.{name}"] = shape
    return shapes


def layer_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    width, queries = config.width, config.heads * config.head_dim
    keys, mlp = config.kv_heads * config.head_dim, config.mlp_width
    matrices = {
        "self_attn.q_proj": (queries, width, config.qkv_bias),
        "self_attn.k_proj": (keys, width, config.qkv_bias),
        "self_attn.v_proj": (keys, width, config.qkv_bias),
        "self_attn.o_proj": (width, queries, config.output_bias),
        "mlp.gate_proj": (mlp, width, config.mlp_bias),
        "mlp.up_proj": (mlp, width, config.mlp_bias),
        "mlp.down_proj": (width, mlp, config.mlp_bias),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (width,),
        "post_attention_layernorm.weight": (width,),
    }
    for name, (rows, columns, bias) in matrices.items():
        shapes[f"{name}.weight"] = (rows, columns)
        if bias:
            shapes[f"{name}.bias"] = (rows,)
    if config.qk_norm:
        shapes["self_attn.q_norm.weight"] = shapes["self_attn.k_norm.weight"] = (config.head_dim,)
    return shapes

"""Read a Hugging Face checkpoint tensor by tensor, sharded or not, after a check of its shapes."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from sparing.errors import ModelError
from sparing.kernels.native import announce
from sparing.model.config import ModelConfig
from sparing.model.packed_linear import PARTS, PackedLinear, packed_shapes
from sparing.model.quantization import ADVICE, BLOCK

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
IGNORED_SUFFIXES = ("rotary_emb.inv_freq",)  # without a word, as in transformers
NAMED = 3  # tensors of a warning


class Checkpoint:
    """The tensors of a directory's safetensors files, opened lazily.

    Raises ModelError if a file is missing, truncated or no safetensors file, if a tensor of
    ``config`` is missing, or has another shape. Other tensors are left out, with a warning.
    """

    def __init__(self, directory: Path, config: ModelConfig) -> None:
        self.directory, self.quantization = directory, config.quantization
        self._files = {name: self._open(name) for name in shard_names(directory)}
        self._where = {key: file for file in self._files.values() for key in file.keys()}  # noqa: SIM118
        self._shapes = expected_shapes(config)
        if HEAD in self._where or self._is_packed(HEAD):
            self._shapes[HEAD] = self._shapes[EMBEDDING]
        self._check()

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

    def packed(self, name: str) -> PackedLinear | None:
        """The matrix as AWQ or GPTQ have it; None if it is in floats."""
        if not self._is_packed(name):
            return None
        assert self.quantization is not None

        def read(part: str) -> torch.Tensor | None:
            found = part_of(name, part)
            return self(found) if found in self._where else None

        rows, columns = self._shapes[name]
        return PackedLinear(name.removesuffix(".weight"), self.quantization, rows, columns, read)

    @property
    def has_own_head(self) -> bool:
        """Whether the checkpoint has a head unlike its embedding; it is then used, even where
        config.json ties them, as in transformers."""
        if self._is_packed(HEAD):
            return True
        return HEAD in self._where and not torch.equal(self(HEAD), self(EMBEDDING))

    def _is_packed(self, name: str) -> bool:
        return self.quantization is not None and part_of(name, "qweight") in self._where

    def _open(self, name: str) -> Any:
        path = self.directory / name
        try:
            return safe_open(path, framework="pt")
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"{path} must be a whole safetensors file, got: {error}; fetch it again"
            ) from None

    def _check(self) -> None:
        for name, shape in self._shapes.items():
            if self._is_packed(name):
                self._check_packed(name, *shape)
            else:
                self._check_tensor(name, shape)
        known = {part_of(name, part) for name in self._shapes for part in PARTS}
        if self.quantization is None:
            known.clear()
        extra = self._where.keys() - self._shapes.keys() - known
        warn_of_extra(
            self.directory, [name for name in extra if not name.endswith(IGNORED_SUFFIXES)]
        )

    def _check_tensor(self, name: str, shape: tuple[int, ...]) -> None:
        if name not in self._where and part_of(name, "qweight") in self._where:
            raise ModelError(
                f"{self.directory} holds packed weights ({part_of(name, 'qweight')}), so its "
                f"config.json must have a quantization_config, got none; {ADVICE}"
            )
        if name not in self._where:
            raise ModelError(
                f"{self.directory} must hold the tensor {name} {list(shape)} of its "
                "config.json, got none; config and weights do not match"
            )
        _, found = self.described(name)
        if found != shape:
            raise ModelError(
                f"tensor {name} must have the shape {list(shape)} of config.json, "
                f"got {list(found)}; config and weights do not match"
            )

    def _check_packed(self, name: str, rows: int, columns: int) -> None:
        assert self.quantization is not None
        if rows % 8 or columns % BLOCK:
            raise ModelError(
                f"a packed matrix must have multiples of 8 rows and {BLOCK} columns, got {rows} "
                f"and {columns} for {name}; {ADVICE}"
            )
        for part, shape in packed_shapes(self.quantization, rows, columns).items():
            tensor = part_of(name, part)
            if part == "g_idx" and tensor not in self._where:
                continue
            self._check_tensor(tensor, shape)
            if part != "scales" and self.described(tensor)[0] != "I32":
                raise ModelError(
                    f"tensor {tensor} must be I32, got {self.described(tensor)[0]}; {ADVICE}"
                )


def part_of(name: str, part: str) -> str:
    """The name of a packed matrix's tensor: ``lm_head.qweight`` of ``lm_head.weight``."""
    return f"{name.removesuffix('.weight')}.{part}"


def warn_of_extra(path: Path, names: Sequence[str]) -> None:
    """Say, once, which tensors the config has no place for."""
    if not names:
        return
    first, more = ", ".join(sorted(names)[:NAMED]), len(names) - NAMED
    announce(
        f"{path.name} holds tensors that its config has no place for, and they are left out: "
        f"{first}{f' and {more} more' if more > 0 else ''}"
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

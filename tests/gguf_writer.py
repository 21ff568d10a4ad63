"""Writes GGUF files: any metadata and tensors, and tiny models out of checkpoints."""

import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from sparing.files import read_json
from sparing.kernels.block_types import BLOCKS
from sparing.model.config import read_config
from sparing.model.gguf_config import gguf_name, row_order
from sparing.model.weights import HEAD

Tensors = Mapping[str, tuple[str | int, tuple[int, ...], bytes]]
KINDS = {"u1": 0, "i1": 1, "u2": 2, "i2": 3, "u4": 4, "i4": 5, "f4": 6, "b1": 7} | {
    "u8": 10,
    "i8": 11,
    "f8": 12,
}
CONTROL, USER_DEFINED = 3, 4


def write_gguf(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Tensors,
    version: int = 3,
    alignment: int | None = None,
) -> Path:
    """``tensors``: by name, type (or ggml's number of one), shape as in torch, blocks."""
    path.write_bytes(gguf_bytes(metadata, tensors, version, alignment))
    return path


def gguf_bytes(
    metadata: Mapping[str, Any],
    tensors: Tensors,
    version: int = 3,
    alignment: int | None = None,
) -> bytes:
    if alignment is not None:
        metadata = {**metadata, "general.alignment": alignment}
    step = alignment or 32
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for key, value in metadata.items():
        header += text(key) + typed(value)
    weights = b""
    for name, (kind, shape, data) in tensors.items():
        weights += b"\0" * (-len(weights) % step)
        number = kind if isinstance(kind, int) else BLOCKS[kind].ggml_id
        sizes = struct.pack(f"<{len(shape)}Q", *shape[::-1])
        header += text(name) + struct.pack("<I", len(shape)) + sizes
        header += struct.pack("<IQ", number, len(weights))
        weights += data
    return header + b"\0" * (-len(header) % step) + weights


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def typed(value: Any) -> bytes:
    """A value behind its type: numpy numbers and arrays keep theirs, Python's take 32 bits."""
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    array = as_array(value)
    kind = KINDS[array.dtype.str[1:]]
    if array.ndim:
        return struct.pack("<IIQ", 9, kind, len(array)) + array.tobytes()
    return struct.pack("<I", kind) + array.tobytes()


def as_array(value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    array = np.asarray(value)
    if array.dtype == np.bool_:
        return array
    if array.dtype == np.float64:
        return array.astype(np.float32)
    return array.astype(np.int32 if array.ndim or value < 0 else np.uint32)


def blocks(kind: str, shape: tuple[int, ...], seed: int = 0) -> bytes:
    """Random weights of a type."""
    random = np.random.default_rng(seed)
    if kind == "F32":
        return random.standard_normal(shape, np.float32).tobytes()
    of = BLOCKS[kind]
    return random.bytes(prod(shape) // of.weights * of.bytes)


def write_model(path: Path, source: Path, kind: str = "F32", **more: Any) -> Path:
    """The checkpoint in ``source`` as a GGUF, its matrices of one type; ``more`` metadata."""
    weights = load_file(source / "model.safetensors")
    config, tensors = read_config(source), {}
    for name, weight in weights.items():
        if name == HEAD and config.tied:
            continue
        order = row_order(config, name)
        rows = weight if order is None else weight[np.argsort(order)]
        used = kind if weight.ndim == 2 else "F32"
        tensors[gguf_name(name)] = used, weight.shape, as_blocks(rows.astype(np.float32), used)
    return write_gguf(path, model_metadata(source) | tokenizer_metadata(source) | more, tensors)


def as_blocks(rows: np.ndarray, kind: str) -> bytes:
    if kind == "F32":
        return rows.tobytes()
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    return quantize(rows, GGMLQuantizationType[kind]).tobytes()


def model_metadata(source: Path) -> dict[str, Any]:
    config, theirs = read_config(source), read_json(source / "config.json")
    fields = {
        "block_count": config.layers,
        "context_length": config.context,
        "embedding_length": config.width,
        "feed_forward_length": config.mlp_width,
        "attention.head_count": config.heads,
        "attention.head_count_kv": config.kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "rope.freq_base": float(theirs["rope_parameters"]["rope_theta"]),
    }
    fields = {f"{config.family}.{name}": value for name, value in fields.items()}
    return {"general.architecture": config.family} | fields


def tokenizer_metadata(source: Path) -> dict[str, Any]:
    """Byte-level BPE whose words are split as GPT-2 does it."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = read_json(source / "tokenizer.json")["model"]
    ids = tokenizer.get_vocab()
    added = {str(t): CONTROL if t.special else USER_DEFINED for t in added_tokens(tokenizer)}
    tokens = sorted(ids, key=ids.__getitem__)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [added.get(token, 1) for token in tokens],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]],
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.chat_template": tokenizer.chat_template or "",
    }


def added_tokens(tokenizer: Any) -> list[Any]:
    return list(tokenizer.added_tokens_decoder.values())

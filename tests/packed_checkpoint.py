"""Writes AWQ and GPTQ checkpoints from float ones, after the description of their formats.

A number of 32 bits holds eight codes of 4 bits, from the low bits up. GPTQ packs inputs, in order;
AWQ packs outputs, in the order 0 2 4 6 1 3 5 7. Zeros are packed along the outputs.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

IN_ORDER, AWQ_ORDER = range(8), (0, 2, 4, 6, 1, 3, 5, 7)
Rounded = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # codes, scales, zeros, g_idx


def packed_checkpoint(
    directory: Path,
    source: Path,
    method: str,
    group: int = 32,
    *,
    symmetric: bool = False,
    shuffled: bool = False,
    v2: bool = False,
    skip: str = "never",
    **config: Any,
) -> tuple[Path, Path]:
    """Pack the matrices of the layers; returns the packed checkpoint and one of the same weights in
    floats, where ``-scale * zero`` has been rounded to float16.

    ``shuffled``: act-order, so that the columns of a group lie apart
    ``skip``: part of the names of matrices that stay in floats
    """
    packed, plain = directory / "packed", directory / "plain"
    for folder in (packed, plain):
        shutil.copytree(source, folder)
    tensors = load_file(source / "model.safetensors")
    floats = dict(tensors)
    for name in [n for n in tensors if n.endswith("_proj.weight") and skip not in n]:
        rounded = quantize(tensors.pop(name), group, symmetric, shuffled)
        floats[name] = weights(*rounded)
        for part, value in parts(method, not v2, *rounded).items():
            tensors[name.replace("weight", part)] = value
    save_file(tensors, packed / "model.safetensors", {"format": "pt"})
    save_file(floats, plain / "model.safetensors", {"format": "pt"})
    described = {"quant_method": method, "bits": 4, "group_size": group}
    if method == "gptq":
        form = {"checkpoint_format": "gptq_v2"} if v2 else {}
        described |= {"sym": symmetric, "desc_act": shuffled, **form}
    else:
        described |= {"zero_point": True, "version": "gemm"}
    changed(packed, lambda found: found | {"quantization_config": described | config})
    return packed, plain


def changed(directory: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Rewrite a checkpoint's config.json."""
    file = directory / "config.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))


def quantize(weight: Tensor, group: int, symmetric: bool, shuffled: bool) -> Rounded:
    """Codes ``[N, K]``, scales and zeros ``[N, G]``, and the group of each column."""
    w = weight.double().numpy()
    columns = w.shape[1]
    groups = np.arange(columns) // (columns if group == -1 else group)
    if shuffled:
        groups = np.random.default_rng(0).permutation(groups)
    codes = np.empty(w.shape, np.uint32)
    scales = np.empty((len(w), groups.max() + 1), np.float16)
    zeros = np.empty(scales.shape, np.uint32)
    for g in range(scales.shape[1]):
        mine = w[:, groups == g]
        low, high = np.minimum(mine.min(1), 0), np.maximum(mine.max(1), 0)
        if symmetric:
            high = np.maximum(-low, high)
            low = -high
        scales[:, g] = (high - low) / 15
        scale = scales[:, g].astype(np.float64)
        zeros[:, g] = 8 if symmetric else np.clip(np.round(-low / scale), 1, 15)
        code = np.round(mine / scale[:, None]) + zeros[:, g, None]
        codes[:, groups == g] = np.clip(code, 0, 15)
    return codes, scales, zeros, groups


def weights(codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray, groups: np.ndarray) -> Tensor:
    scale = scales.astype(np.float64)
    shift = (-scale * zeros).astype(np.float16).astype(np.float64)
    return torch.from_numpy(codes * scale[:, groups] + shift[:, groups]).float()


def parts(
    method: str,
    one_less: bool,
    codes: np.ndarray,
    scales: np.ndarray,
    zeros: np.ndarray,
    groups: np.ndarray,
) -> dict[str, Tensor]:
    """The tensors of a matrix; GPTQ's first format stores zeros ``one_less``."""
    scale = torch.from_numpy(np.ascontiguousarray(scales.T))
    if method == "awq":
        return {
            "qweight": packed(codes.T, AWQ_ORDER),
            "qzeros": packed(zeros.T, AWQ_ORDER),
            "scales": scale,
        }
    return {
        "qweight": packed(codes, IN_ORDER).t().contiguous(),
        "qzeros": packed(zeros.T - one_less, IN_ORDER),
        "scales": scale,
        "g_idx": torch.from_numpy(groups.astype(np.int32)),
    }


def packed(codes: np.ndarray, order: Any) -> Tensor:
    """int32 ``[R, C / 8]`` of codes ``[R, C]``: the one at ``order[i]`` lies in bits 4 i and up."""
    numbers = sum(codes[:, place::8].astype(np.uint32) << 4 * i for i, place in enumerate(order))
    return torch.from_numpy(np.ascontiguousarray(numbers).view(np.int32))

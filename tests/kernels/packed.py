"""Random blocks and weights of a type, and ggml's own reading of them."""

import gguf
import numpy as np
import torch

from sparing.kernels.block_types import BLOCKS
from sparing.kernels.blocks import decode

FLOATS = ["F32", "F16", "BF16"]
PACKED = [name for name in BLOCKS if name not in FLOATS]
K_TYPES = [name for name in PACKED if name.endswith("K")]
ENCODED = [name for name in BLOCKS if name not in K_TYPES]


def normal(rows, columns, seed=0):
    noise = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=noise)


def raw(name, rows, columns, seed=0):
    """Every bit random, but for float16 numbers of either sign around 0.01."""
    noise = np.random.default_rng(seed)
    block = BLOCKS[name]
    made = noise.integers(0, 256, (rows, block.row_bytes(columns)), np.uint8)
    blocks = made.view(block.layout)
    for field in {"d", "m", "dmin"} & set(block.layout.names):
        blocks[field] = noise.normal(0, 0.01, blocks.shape)
    return made


def codes(name, rows, columns, seed=0):
    return decode(name, raw(name, rows, columns, seed), columns)


def ggml_weights(name, made):
    """What the gguf package de-quantizes the bytes to."""
    made = made.numpy() if isinstance(made, torch.Tensor) else made
    return torch.tensor(gguf.quants.dequantize(made, gguf.GGMLQuantizationType[name]))


def ggml_bytes(name, weight):
    made = gguf.quants.quantize(weight.numpy(), gguf.GGMLQuantizationType[name])
    return torch.tensor(made.view(np.uint8))

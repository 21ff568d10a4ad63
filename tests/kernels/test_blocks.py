"""The bytes of every block type are read and written as ggml does it, to the bit."""

import gguf
import numpy as np
import pytest
import torch

from sparing.kernels.block_types import BLOCKS
from sparing.kernels.blocks import decode, encode, floats, weights
from tests.kernels.packed import (
    ENCODED,
    FLOATS,
    K_TYPES,
    PACKED,
    codes,
    ggml_bytes,
    ggml_weights,
    normal,
    raw,
)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_table_is_ggmls(name):
    block = BLOCKS[name]
    number = gguf.GGMLQuantizationType[name]
    assert block.ggml_id == number
    assert (block.weights, block.bytes) == gguf.GGML_QUANT_SIZES[number]
    assert block.row_bytes(512) == 512 // block.weights * block.bytes


@pytest.mark.parametrize("columns", [256, 1024])
@pytest.mark.parametrize("name", PACKED)
def test_weights_are_ggmls(name, columns):
    made = raw(name, 9, columns)
    read = decode(name, made, columns)
    assert read.group == (16 if name == "Q6_K" else 32)
    assert torch.equal(weights(read), ggml_weights(name, made))


@pytest.mark.parametrize("name", PACKED)
def test_every_code_occurs(name):
    bits = 2 ** int(name[1])
    assert codes(name, 40, 1024).codes.unique().tolist() == list(range(bits))


@pytest.mark.parametrize("name", FLOATS)
def test_floats_are_ggmls(name):
    made = encode(name, normal(5, 37))
    read = floats(name, made, 37)
    assert read.dtype == {"F32": torch.float32, "F16": torch.float16}.get(name, torch.bfloat16)
    assert torch.equal(read.float(), ggml_weights(name, made))


@pytest.mark.parametrize("name", BLOCKS)
def test_a_file_is_read_where_it_lies(name):
    """A map of a file cannot be written, and its rows may be a part of a wider array."""
    made = raw(name, 4, 256)
    wide = np.concatenate((made, made), axis=1)
    wide.setflags(write=False)
    read = floats if name in FLOATS else decode
    narrow = read(name, wide[:, : made.shape[1]], 256)
    whole = read(name, torch.from_numpy(made), 256)
    if name in FLOATS:
        assert torch.equal(narrow.view(torch.uint8), whole.view(torch.uint8))
    else:
        assert torch.equal(weights(narrow), weights(whole))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("name", ENCODED)
def test_encoding_is_ggmls(name, scale):
    weight = normal(33, 1024) * scale
    weight[0, :32] = 0
    weight[1, :32] = 0.5
    weight[2, :32] = -0.5
    weight[3, :16], weight[3, 16:32] = -0.25, 0.25
    weight[4, :32] = torch.arange(32) / 2 + 0.25
    weight[4, 31] = 127
    assert torch.equal(encode(name, weight), ggml_bytes(name, weight))


@pytest.mark.parametrize("name", ENCODED)
def test_encoding_is_close(name):
    """A code is at most half a step off; the centred types cut the far end off at a whole one."""
    weight = normal(16, 256)
    made = encode(name, weight)
    if name in FLOATS:
        step = weight.abs() * {"F32": 0, "F16": 2**-10, "BF16": 2**-7}[name]
        found = floats(name, made, 256).float()
    else:
        read = decode(name, made, 256)
        step = read.scale.abs().repeat_interleave(32, 1) * (2 if name in ("Q4_0", "Q5_0") else 1)
        found = weights(read)
    assert ((found - weight).abs() <= 0.5 * step + weight.abs().max() * 2e-3 * (step > 0)).all()


def test_many_rows_are_encoded_in_slices(monkeypatch):
    weight = normal(10, 64)
    whole = encode("Q5_1", weight)
    monkeypatch.setattr("sparing.kernels.blocks.ENCODED_ROWS", 3)
    assert torch.equal(encode("Q5_1", weight), whole)


@pytest.mark.parametrize("name", ENCODED)
def test_tiny_weights_become_zero(name):
    made = encode(name, torch.full((1, 32), 1e-42))
    found = floats(name, made, 32).float() if name in FLOATS else weights(decode(name, made, 32))
    assert found.abs().max() <= 1e-41


@pytest.mark.parametrize("name", [name for name in ENCODED if name not in FLOATS])
def test_a_row_must_end_with_a_block(name):
    with pytest.raises(ValueError, match=f"columns must be a multiple of 32 in {name}, got 48"):
        encode(name, normal(2, 48))


@pytest.mark.parametrize("name", K_TYPES)
def test_k_types_are_only_read(name):
    with pytest.raises(ValueError, match=f"type must be one of F32, .* got {name}"):
        encode(name, normal(1, 256))


@pytest.mark.parametrize("worst", [float("inf"), float("nan"), 1e30])
@pytest.mark.parametrize("name", [name for name in ENCODED if name not in ("F32", "BF16")])
def test_scales_beyond_float16_are_refused(name, worst):
    weight = normal(2, 64)
    weight[1, 40] = worst
    with pytest.raises(ValueError, match="weights must be finite, with scales in the range of"):
        encode(name, weight)

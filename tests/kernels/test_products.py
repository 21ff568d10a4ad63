"""Compiled products: equal to their twin in torch, and to the bit whatever is multiplied beside."""

import numpy as np
import pytest
import torch

from sparing.kernels.block_types import BLOCKS
from sparing.kernels.blocks import decode, encode, floats, weights
from sparing.kernels.native import FORMATS, load_build, variants
from sparing.kernels.packed import KernelMatrix, Kernels
from sparing.kernels.twin import PackedMatrix
from sparing.model.matrix import PlainMatrix
from tests.kernels.packed import FLOATS, PACKED
from tests.kernels.packed import raw as random_blocks

pytestmark = pytest.mark.skipif(not variants(), reason="no compiled kernels: no compiler was here")


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def blocks(name, rows, columns):
    """Random rows as a file has them, uint8."""
    if name in FLOATS:
        return encode(name, noise(rows, columns)).numpy()
    return random_blocks(name, rows, columns)


def compiled(name, raw, columns, bias=None, threads=1, variant=None):
    matrix = KernelMatrix(Kernels(load_build(variant), threads), name, len(raw), columns, bias)
    matrix.pack(name, np.ascontiguousarray(raw), raw.shape[1])
    return matrix


def twin(name, raw, columns, bias=None):
    if name in FLOATS:
        return PlainMatrix(floats(name, raw, columns).float(), bias)
    return PackedMatrix(name, decode(name, raw, columns), bias)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("variant", variants())
@pytest.mark.parametrize(("rows", "columns"), [(8, 256), (29, 512), (1, 256), (70, 1280)])
def test_a_product_equals_its_twin(variant, name, rows, columns):
    raw, bias = blocks(name, rows, columns), noise(rows, seed=1)
    ours, theirs = (
        compiled(name, raw, columns, bias, variant=variant),
        twin(name, raw, columns, bias),
    )
    x = noise(13, columns, seed=2)
    expected = theirs(x)
    assert (ours(x) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", [n for n in FORMATS if BLOCKS[n].weights <= 32])
def test_any_width(name):
    """Widths of whole blocks; floats of any."""
    for columns in (32, 96, 992) if name in PACKED else (1, 7, 48, 100):
        raw, x = blocks(name, 20, columns), noise(3, columns)
        expected = twin(name, raw, columns)(x)
        assert (
            compiled(name, raw, columns)(x) - expected
        ).abs().max() < 2e-5 * expected.abs().max()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("variant", variants())
def test_a_token_is_the_same_to_the_bit_in_any_company(variant, name):
    raw = blocks(name, 133, 512)
    x = noise(41, 512)
    alone = torch.cat([compiled(name, raw, 512, variant=variant)(one[None]) for one in x])
    for threads in (1, 2, 5):
        ours = compiled(name, raw, 512, threads=threads, variant=variant)
        for count in (2, 3, 4, 5, 6, 7, 8, 9, 16, 41):
            assert torch.equal(ours(x[:count]), alone[:count])
        assert torch.equal(ours(x[7:30]), alone[7:30])


@pytest.mark.parametrize("name", PACKED)
def test_builds_for_one_processor_give_the_same_bits(name):
    """Sums of integers are exact, those of floats have eight lanes everywhere; plain has no FMA."""
    fused = [variant for variant in variants() if variant != "plain"]
    if len(fused) < 2:
        pytest.skip(f"this processor runs one build with FMA, {fused}")
    raw, x = blocks(name, 40, 512), noise(9, 512)
    first, *others = (compiled(name, raw, 512, variant=variant)(x) for variant in fused)
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("name", FORMATS)
def test_rows_are_the_files(name):
    raw = blocks(name, 21, 256)
    ours, every = compiled(name, raw, 256), torch.arange(21)
    expected = floats(name, raw, 256).float() if name in FLOATS else weights(decode(name, raw, 256))
    if name in ("Q6_K", "Q4_K", "Q5_K", "Q4_1", "Q5_1"):  # scale * code - shift rounds twice
        assert (ours.rows(every) - expected).abs().max() < 1e-6 * expected.abs().max()
    else:
        assert torch.equal(ours.rows(every), expected)
    assert torch.equal(ours.rows(torch.tensor([20, 3])), ours.rows(every)[[20, 3]])


@pytest.mark.parametrize("name", FORMATS)
def test_rows_that_are_taken_and_replaced(name):
    raw, x = blocks(name, 50, 256), noise(4, 256)
    ours = compiled(name, raw, 256, noise(50, seed=3))
    ids = torch.tensor([49, 0, 17, 18, 8, 7, 31, 2, 40])
    some = ours.take(ids)
    assert torch.equal(some(x), ours(x)[:, ids])
    some.put(4, ours, 33)
    assert torch.equal(some.rows(torch.tensor([4])), ours.rows(torch.tensor([33])))
    assert torch.equal(some.rows(torch.tensor([3, 5])), ours.rows(ids[[3, 5]]))


@pytest.mark.parametrize("name", ["F32", "Q5_0", "Q4_K"])
def test_rows_in_another_order(name):
    raw, order = blocks(name, 30, 256), np.random.default_rng(0).permutation(30).astype(np.int32)
    matrix = KernelMatrix(Kernels(load_build(), 2), name, 30, 256)
    matrix.pack(name, np.ascontiguousarray(raw), raw.shape[1], order)
    whole = compiled(name, raw, 256)
    every = torch.arange(30)
    assert torch.equal(matrix.rows(every), whole.rows(torch.from_numpy(order).long()))


@pytest.mark.parametrize("source", FLOATS)
@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_floats_are_quantized_as_torch_does(name, source):
    """But for a code at a tie, where a product rounds once more or less."""
    values = floats(source, encode(source, noise(24, 64)).numpy(), 64).float()
    raw = encode(source, values).numpy()
    ours = KernelMatrix(Kernels(load_build(), 1), name, 24, 64)
    ours.pack(source, raw, raw.shape[1])
    theirs = encode(name, values).numpy()
    expected = (
        floats(name, theirs, 64).float() if name in FLOATS else weights(decode(name, theirs, 64))
    )
    differs = (ours.rows(torch.arange(24)) - expected).abs() > 1e-6
    assert differs.float().mean() < 0.005


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_stays_none_and_hurts_no_other(name, bad):
    raw, x = blocks(name, 24, 256), noise(9, 256)
    ours, whole = compiled(name, raw, 256), x.clone()
    x[4, 77] = bad
    found, expected = ours(x), ours(whole)
    assert not found[4].isfinite().any()
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    assert torch.equal(found[others], expected[others])

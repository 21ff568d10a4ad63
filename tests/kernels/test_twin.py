"""The torch twin does the arithmetic that its docstring says, and a row knows no other row."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparing.kernels.block_types import BLOCKS
from sparing.kernels.blocks import Codes, weights
from sparing.kernels.twin import PackedMatrix, product, quantize
from sparing.model.matrix import Matrix
from tests.kernels.packed import PACKED, codes, normal

NARROW = 256  # the shortest row that every type has


def looped(matrix, x):
    """The docstring, one number at a time, in float32."""
    packed, one = matrix.codes, np.float32
    code, scale, shift = (part.numpy() for part in (packed.codes.int(), packed.scale, packed.shift))
    run = BLOCKS[matrix.type].weights
    y = np.zeros((len(x), len(code)), one)
    for m, row in enumerate(x.numpy()):
        for n in range(len(code)):
            for b in range(0, x.shape[1], run):
                amax = abs(row[b : b + run]).max()
                inverse = one(127) / amax if amax else one(0)
                t = None
                for start in range(b, b + run, packed.group):
                    inside, g = range(start, start + packed.group), start // packed.group
                    a = {k: int(np.rint(row[k] * inverse)) for k in inside}
                    dot = sum(int(code[n, k]) * a[k] for k in inside)
                    term = scale[n, g] * one(dot) - shift[n, g] * one(sum(a.values()))
                    t = term if t is None else t + term
                y[m, n] += amax * one(1 / 127) * t
    return torch.from_numpy(y)


@pytest.mark.parametrize("name", PACKED)
def test_equal_to_a_plain_loop(name):
    matrix = PackedMatrix(name, codes(name, 5, 2 * NARROW))
    x = normal(3, 2 * NARROW, seed=1)
    x[1, :256] = 0
    assert torch.equal(matrix(x), looped(matrix, x))


@pytest.mark.parametrize("name", PACKED)
def test_near_the_float_product(name):
    packed = codes(name, 64, 4 * NARROW)
    x = normal(8, 4 * NARROW, seed=1)
    truth = x.double() @ weights(packed).double().t()
    found = PackedMatrix(name, packed)(x)
    assert (found - truth).abs().max() <= 0.01 * truth.abs().max()


@pytest.mark.parametrize("name", PACKED)
def test_a_row_is_alone(name):
    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(st.integers(1, 70), st.integers(1, 20), st.integers(1, 3), st.data())
    def check(out, rows, blocks, data):
        matrix = PackedMatrix(name, codes(name, out, blocks * NARROW))
        x = normal(rows, blocks * NARROW, seed=2)
        row = data.draw(st.integers(0, rows - 1))
        together = matrix(x)
        x[:row] *= 1000
        assert torch.equal(matrix(x)[row], together[row])
        assert torch.equal(matrix(x[row : row + 1])[0], together[row])

    check()


@pytest.mark.parametrize("name", PACKED)
def test_bias(name):
    packed, bias = codes(name, 7, NARROW), normal(1, 7)[0]
    x = normal(3, NARROW, seed=1)
    plain, biased = PackedMatrix(name, packed), PackedMatrix(name, packed, bias)
    before = x.clone()
    assert isinstance(biased, Matrix)
    assert biased.type == name
    assert torch.equal(biased(x), plain(x) + bias)
    assert torch.equal(x, before)
    assert biased.nbytes == plain.nbytes + 28
    assert plain.nbytes == 7 * NARROW * (1 + 8 / packed.group)


@pytest.mark.parametrize("name", PACKED)
def test_rows_are_those_of_the_weight(name):
    packed = codes(name, 7, NARROW)
    ids = torch.tensor([6, 0, 6])
    assert torch.equal(PackedMatrix(name, packed).rows(ids), weights(packed)[ids])


def test_rounding_is_to_even_and_never_beyond_127():
    x = torch.zeros(1, 32)
    x[0, :5] = torch.tensor([127.0, 0.5, 1.5, 2.5, -2.5])
    a, d = quantize(x, 32)
    assert a[0, :5].tolist() == [127, 0, 2, 2, -2]
    assert d.item() == pytest.approx(1)
    a, _ = quantize(normal(500, 64) * torch.logspace(-30, 30, 500)[:, None], 32)
    assert a.unflatten(1, (-1, 32)).abs().amax(-1).unique().tolist() == [127]


@pytest.mark.parametrize("least", [0.0, 1e-45, 1e-40])
def test_rows_of_nothing_give_nothing(least):
    a, d = quantize(torch.full((2, 32), least), 32)
    assert not a.any()
    assert d.isfinite().all()


@pytest.mark.parametrize("worst", [float("inf"), float("nan")])
def test_what_is_not_finite_stays_so_in_its_row(worst):
    matrix = PackedMatrix("Q4_1", codes("Q4_1", 6, 64))
    x = normal(3, 64)
    before = matrix(x)
    x[1, 5] = worst
    found = matrix(x)
    assert not found[1].isfinite().any()
    assert torch.equal(found[[0, 2]], before[[0, 2]])


def test_the_largest_dots_are_exact():
    full = Codes(torch.full((1, 32), 255, dtype=torch.uint8), torch.ones(1, 1), torch.zeros(1, 1))
    a = torch.full((1, 32), 127, dtype=torch.int8)
    assert product(full, a, torch.ones(1, 1)).item() == 32 * 255 * 127

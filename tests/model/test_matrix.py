"""A plain matrix multiplies, gives its rows, and counts the bytes that it holds."""

import pytest
import torch

from sparing.model.decoder import MATRICES
from sparing.model.matrix import PlainMatrix
from tests.model.passes import decoder
from tests.tiny import tiny


def made(bias=True):
    noise = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 24, generator=noise)
    return PlainMatrix(weight, torch.randn(40, generator=noise) if bias else None)


@pytest.mark.parametrize("bias", [True, False])
def test_product(bias):
    matrix, x = made(bias), torch.randn(5, 24)
    expected = x @ matrix.weight.T
    if bias:
        expected += matrix.bias
    assert torch.allclose(matrix(x), expected, atol=1e-5)


def test_rows_that_are_taken_and_replaced():
    matrix = made()
    some = matrix.take(torch.tensor([7, 0, 39]))
    assert torch.equal(some.weight, matrix.weight[[7, 0, 39]])
    assert torch.equal(some.bias, matrix.bias[[7, 0, 39]])
    some.put(1, matrix, 11)
    assert torch.equal(some.rows(torch.tensor([1])), matrix.rows(torch.tensor([11])))


@pytest.mark.parametrize("tied", [True, False])
def test_bytes_of_a_step_are_those_of_its_matrices(tied):
    path = tiny("llama", tie_word_embeddings=tied, attention_bias=True, mlp_bias=True)
    ours = decoder(path, "float64")
    config = ours.config
    width, keys, mlp = config.width, config.kv_heads * config.head_dim, config.mlp_width
    layer = width * (2 * width + 2 * keys + 3 * mlp) + 2 * width + 2 * keys + 2 * mlp + width
    words = config.layers * layer + config.vocabulary * width
    assert ours.step_bytes == words * 8
    assert (ours.head is ours.embedding) == tied


def test_no_storage_is_held_twice():
    ours = decoder(tiny("llama", tie_word_embeddings=True, attention_bias=True), "float64")
    held = {}
    for matrix in [ours.head, *(getattr(b, name) for b in ours.layers for name in MATRICES)]:
        for tensor in (matrix.weight, matrix.bias):
            if tensor is not None:
                held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    assert sum(held.values()) == ours.step_bytes

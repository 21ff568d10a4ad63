"""Every kind of matrix product is the same product, and counts the bytes that it holds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from sparing.errors import OptionError
from sparing.model.assemble import PARTS
from sparing.model.matrix import KINDS, fastest_kind, runs
from tests.model.passes import decoder
from tests.tiny import tiny

DTYPES = ["float32", "float64", "bfloat16", "float16"]
# oneDNN packs no float64 anywhere, and halves only where the processor multiplies them.
PAIRS = [(k, d) for k in KINDS for d in DTYPES if runs(k, getattr(torch, d))]
WITHIN = {"float32": 1e-5, "float64": 1e-12, "bfloat16": 2e-2, "float16": 3e-3}


def weights(out, width, dtype="float32", bias=True, seed=0):
    noise = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, width, generator=noise, dtype=torch.float64) / width**0.5
    offset = torch.randn(out, generator=noise, dtype=torch.float64) if bias else None
    as_dtype = getattr(torch, dtype)
    return weight.to(as_dtype), None if offset is None else offset.to(as_dtype)


def made(kind, weight, bias):
    with torch.inference_mode():
        return KINDS[kind](weight, bias)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kind", "dtype"), PAIRS)
def test_products_equal_float64(kind, dtype, bias):
    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 20))
    @torch.inference_mode()
    def check(out, width, rows):
        weight, offset = weights(out, width, dtype, bias)
        x, _ = weights(rows, width, dtype, seed=1)
        truth = x.double() @ weight.double().t() + (0 if offset is None else offset.double())
        before = x.clone()
        found = made(kind, weight, offset)(x)
        assert found.dtype == weight.dtype
        assert found.shape == (rows, out)
        assert ((found.double() - truth).abs() <= WITHIN[dtype] * (1 + truth.abs())).all()
        close = WITHIN[dtype] * (1 + truth.abs())
        residual, _ = weights(rows, out, dtype, seed=2)
        added = residual.clone()
        made(kind, weight, offset).add(added, x)
        assert ((added.double() - residual.double() - truth).abs() <= 3 * close).all()
        halved = made(kind, weight, offset)(x, 0.5).double()
        without = x.double() @ weight.double().t()
        assert ((halved - truth + without / 2).abs() <= close).all()
        assert torch.equal(x, before)

    check()


@pytest.mark.parametrize(("kind", "dtype"), PAIRS)
@pytest.mark.parametrize("ids", [[0], [29], [7, 7, 0, 29, 11], []])
def test_rows_are_those_of_the_weight(kind, dtype, ids):
    weight, bias = weights(30, 12, dtype)
    matrix, expected = made(kind, weight, bias), weight[ids].clone()
    found = matrix.rows(torch.tensor(ids, dtype=torch.long))
    assert torch.equal(found, expected)
    found += 1  # what is embedded is added to, in place
    assert torch.equal(matrix.rows(torch.tensor(ids, dtype=torch.long)), expected)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kind", "dtype"), PAIRS)
def test_bytes(kind, dtype, bias):
    weight, offset = weights(96, 64, dtype, bias)
    held = (96 * 64 + 96 * bias) * weight.element_size()
    assert made(kind, weight, offset).nbytes == held


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_of_a_part_of_something_larger(kind):
    """What keeps a larger storage alive must say so, or hold a copy of its own."""
    whole, _ = weights(960, 64)
    matrix = made(kind, whole[96:192], None)
    dense = not matrix.weight.is_mkldnn
    shares = dense and matrix.weight.untyped_storage().data_ptr() == whole.data_ptr()
    assert matrix.nbytes == (whole.nbytes if shares else whole.nbytes // 10)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_fastest_kind_runs(dtype, bias):
    pairs = [weights(48, 32, dtype, bias, seed) for seed in range(3)]
    with torch.inference_mode():
        kind = fastest_kind(pairs, 1)
    assert kind in KINDS
    if dtype == "float64":
        assert kind != "packed"
    matrix = made(kind, *pairs[0])
    x, _ = weights(2, 32, dtype)
    with torch.inference_mode():
        assert matrix(x).isfinite().all()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("kind", "dtype"), [*PAIRS, *(("auto", dtype) for dtype in DTYPES)])
def test_bytes_of_a_step_are_those_of_its_matrices(kind, tied, dtype):
    path = tiny("llama", tie_word_embeddings=tied, attention_bias=True, mlp_bias=True)
    ours = decoder(path, dtype, kind)
    config = ours.config
    width, keys, mlp = config.width, config.kv_heads * config.head_dim, config.mlp_width
    layer = width * (2 * width + 2 * keys + 3 * mlp) + 2 * width + 2 * keys + 2 * mlp + width
    words = config.layers * layer + config.vocabulary * width
    assert ours.step_bytes == words * ours.norm.element_size()


@pytest.mark.parametrize("kind", KINDS)
def test_a_tied_head_is_no_second_copy(kind):
    """oneDNN's layout has no rows to look up, so that one keeps the table beside it."""
    tied = decoder(tiny("llama", tie_word_embeddings=True), "float32", kind)
    untied = decoder(tiny("llama"), "float32", kind)
    assert untied.embedding is not untied.head
    table = 259 * 48 * 4
    assert tied.head.nbytes == tied.embedding.nbytes == table
    if kind != "packed":
        where = [m.weight.untyped_storage().data_ptr() for m in (tied.head, tied.embedding)]
        assert where[0] == where[1]


@pytest.mark.parametrize("kind", KINDS)
def test_no_storage_is_held_twice(kind):
    """The weights' storages together are the checkpoint, a packed tied head excepted."""
    path = tiny("llama", tie_word_embeddings=True, attention_bias=True)
    ours = decoder(path, "float32", kind)
    held = {}
    for matrix in [ours.head, ours.embedding, *(getattr(b, r) for b in ours.layers for r in PARTS)]:
        for tensor in (matrix.weight, matrix.bias):
            if tensor is None:
                continue
            if tensor.is_mkldnn:
                held[id(tensor)] = tensor.numel() * 4
            else:
                held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    extra = ours.head.nbytes if kind == "packed" else 0
    assert sum(held.values()) == ours.step_bytes + extra


def test_the_pieces_of_a_stacked_matrix_stand_in_order():
    """Queries, keys, values; gate, up: checked against the checkpoint itself."""
    path = tiny("mistral")
    tensors = load_file(path / "model.safetensors")
    ours = decoder(path, "bfloat16")  # whose norms are not multiplied in
    for role, parts in PARTS.items():
        stacked = torch.cat([tensors[f"model.layers.1.{part}.weight"] for part in parts])
        found = getattr(ours.layers[1], role).rows(torch.arange(len(stacked)))
        assert torch.equal(found, stacked.bfloat16())


def test_all_kinds_but_the_packed_run_anywhere():
    assert {(k, d) for k in KINDS for d in DTYPES} - set(PAIRS) <= {("packed", d) for d in DTYPES}
    assert ("packed", "float32") in PAIRS


def test_a_kind_that_the_processor_lacks_is_refused():
    with pytest.raises(OptionError, match=r"one that runs in torch\.float64 on this cpu"):
        decoder(tiny(), "float64", "packed")

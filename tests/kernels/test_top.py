"""The likeliest token and its probability, as the compiled pass gives them."""

import pytest
import torch

from sparing.engine.sums import likeliest
from sparing.kernels.native import load_build, variants

pytestmark = pytest.mark.skipif(not variants(), reason="no compiled kernels: no compiler was here")


def top(logits, variant=None, threads=1):
    native = load_build(variant)
    context = native.open(threads)
    rows, count = logits.shape
    argmax, confidence = torch.empty(rows, dtype=torch.int32), torch.empty(rows)
    addresses = (logits.data_ptr(), rows, count, argmax.data_ptr(), confidence.data_ptr())
    native.top(context, *addresses)
    native.close(context)
    return argmax, confidence


def noise(rows, count, scale=3.0):
    return scale * torch.randn(rows, count, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("variant", variants())
@pytest.mark.parametrize("count", [1, 7, 8, 100, 8192, 8193, 49152, 151936])
def test_as_torch_has_it(variant, count):
    logits = noise(5, count)
    argmax, confidence = top(logits, variant)
    expected, probability = likeliest(logits.double())
    assert torch.equal(argmax.long(), expected)
    assert (confidence - probability).abs().max() < 1e-5


def test_the_first_of_equals():
    logits = torch.zeros(1, 20000)
    logits[0, [19, 8191, 8192, 19999]] = 1.0
    assert top(logits)[0].tolist() == [19]
    logits[0, 19] = logits[0, 8191] = 0.0
    assert top(logits)[0].tolist() == [8192]


def test_a_row_is_the_same_alone_and_with_any_threads():
    logits = noise(9, 30001)
    together = top(logits, threads=3)
    for row in range(9):
        alone = top(logits[row : row + 1].clone())
        assert torch.equal(alone[0], together[0][row : row + 1])
        assert torch.equal(alone[1], together[1][row : row + 1])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [3, 9000, 19999])
def test_a_logit_that_is_no_number_has_no_confidence(bad, place):
    logits = noise(3, 20000)
    logits[1, place] = bad
    confidence = top(logits)[1]
    assert confidence[1].isnan()
    assert confidence[[0, 2]].isfinite().all()


def test_tokens_that_cannot_be_said():
    logits = noise(1, 20000)
    logits[0, :9000] = float("-inf")
    argmax, confidence = top(logits)
    expected, probability = likeliest(logits.double())
    assert argmax.tolist() == expected.tolist()
    assert confidence.item() == pytest.approx(probability.item(), rel=1e-5)

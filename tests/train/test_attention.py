"""The training attention against one written out, values and gradients."""

import pytest
import torch

from sparing.train.attention import NAME, attend, causal_attention, products
from tests.train.small import small_model

EXACT = {"atol": 1e-6, "rtol": 1e-5}


def by_hand(query, key, value, mask, scale):
    """Each head on its own, softmax written out."""
    heads, groups = query.shape[1], key.shape[1]
    found = []
    for head in range(heads):
        k, v = (x[:, head * groups // heads] for x in (key, value))
        scores = (query[:, head] @ k.mT * scale + mask[:, 0]).exp()
        found.append(scores / scores.sum(-1, keepdim=True) @ v)
    return torch.stack(found, 1)


def drawn(heads, groups, length, slots, dtype):
    """Query, key, value, and a gradient of what comes out."""
    noise = torch.Generator().manual_seed(heads * groups)
    shapes = (heads, length), (groups, slots), (groups, slots), (heads, length)
    return [torch.randn(3, *shape, 8, generator=noise, dtype=dtype) for shape in shapes]


def check(attention, heads, groups, length, slots, mask, scale, dtype):
    """Values and gradients of ``attention`` against those by hand."""
    *inputs, given = drawn(heads, groups, length, slots, dtype)
    inputs = [x.requires_grad_() for x in inputs]
    found = []
    for function in (attention, lambda *x: by_hand(*x, mask, scale)):
        out = function(*inputs)
        found.append([out, *torch.autograd.grad((out * given).sum(), inputs)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)


def causal(length, dtype):
    return torch.full((1, 1, length, length), float("-inf"), dtype=dtype).triu_(1)


GROUPS = pytest.mark.parametrize(("heads", "groups"), [(1, 1), (4, 4), (4, 1), (6, 2), (6, 3)])


@pytest.mark.parametrize("options", [{}, {"scaling": 0.3}], ids=["own scale", "given scale"])
@pytest.mark.parametrize("length", [1, 9])
@GROUPS
def test_causal_is_attention_by_hand(heads, groups, length, options):
    def ours(query, key, value):
        out, no_weights = causal_attention(None, query, key, value, None, **options)
        assert no_weights is None
        return out.transpose(1, 2)

    scale, dtype = options.get("scaling", 8**-0.5), torch.float32
    check(ours, heads, groups, length, length, causal(length, dtype), scale, dtype)


@pytest.mark.parametrize("function", [attend, products])
@GROUPS
def test_a_mask_for_fewer_queries_than_slots(heads, groups, function):
    """As the products that are for bfloat16 do it too, here exactly."""
    mask = torch.randn(3, 1, 5, 11, generator=torch.Generator().manual_seed(1)).double()
    mask[:, :, :, 7] = float("-inf")

    def ours(query, key, value):
        if function is products:
            return products(query * 0.3, key, value, mask)
        return attend(query, key, value, mask, 0.3)

    check(ours, heads, groups, 5, 11, mask, 0.3, torch.float64)


@pytest.mark.parametrize("scale", [None, 0.3])
def test_bfloat16_is_the_same_but_for_its_rounding(scale):
    query, key, value, _ = drawn(4, 2, 9, 9, torch.float32)
    found = attend(*(x.bfloat16() for x in (query, key, value)), None, scale)
    assert found.dtype == torch.bfloat16
    expected = by_hand(query, key, value, causal(9, torch.float32), scale or 8**-0.5)
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_model_with_it_says_the_same(groups):
    model = small_model(num_key_value_heads=groups)
    ids = torch.randint(0, 40, (3, 17), generator=torch.Generator().manual_seed(1))
    expected = model(input_ids=ids, use_cache=False).logits
    model.set_attn_implementation(NAME)
    ours = model(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)

"""The training attention against torch's own, values and gradients."""

import pytest
import torch
from torch.nn import functional as F

from sparing.train.attention import NAME, causal_attention
from tests.train.small import small_model

EXACT = {"atol": 1e-6, "rtol": 1e-5}


@pytest.mark.parametrize("options", [{}, {"scaling": 0.3}], ids=["own scale", "given scale"])
@pytest.mark.parametrize("length", [1, 9])
@pytest.mark.parametrize(("heads", "groups"), [(1, 1), (4, 4), (4, 1), (6, 2), (6, 3)])
def test_values_and_gradients_are_those_of_torch(heads, groups, length, options):
    noise = torch.Generator().manual_seed(heads * groups)
    query, key, value = (
        torch.randn(3, count, length, 8, generator=noise, requires_grad=True)
        for count in (heads, groups, groups)
    )
    given = torch.randn(3, length, heads, 8, generator=noise)
    ours, no_weights = causal_attention(None, query, key, value, None, **options)
    expected = F.scaled_dot_product_attention(
        query, key, value, is_causal=True, enable_gqa=True, scale=options.get("scaling")
    ).transpose(1, 2)
    assert no_weights is None
    torch.testing.assert_close(ours, expected, **EXACT)
    gradients, wanted = (
        torch.autograd.grad((out * given).sum(), (query, key, value)) for out in (ours, expected)
    )
    for ours_, theirs in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(ours_, theirs, **EXACT)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_model_with_it_says_the_same(groups):
    model = small_model(num_key_value_heads=groups)
    ids = torch.randint(0, 40, (3, 17), generator=torch.Generator().manual_seed(1))
    expected = model(input_ids=ids, use_cache=False).logits
    model.set_attn_implementation(NAME)
    ours = model(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)

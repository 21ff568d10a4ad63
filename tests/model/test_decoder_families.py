"""Every option of the four families gives the logits of transformers."""

import pytest
import torch

from sparing.model.compiled import CompiledDecoder
from sparing.model.torch_decoder import TorchDecoder
from tests.model.passes import (
    Slots,
    assert_close,
    decoder,
    expected,
    new,
    oracle,
    random_ids,
)
from tests.tiny import reference, tiny

YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
SHORT = {"original_max_position_embeddings": 16}  # the 50 tokens below go beyond it
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "factor": 8.0}
CASES = {
    "llama": ("llama", {}),
    "mistral": ("mistral", {}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "group of 1": ("llama", {"num_key_value_heads": 6}),
    "group of 9": (
        "qwen2",
        {"hidden_size": 72, "num_attention_heads": 9, "num_key_value_heads": 1},
    ),
    "tied": ("llama", {"tie_word_embeddings": True}),
    "tied qwen3": ("qwen3", {"tie_word_embeddings": True}),
    "wide heads": ("qwen3", {"head_dim": 16}),
    "narrow heads": ("mistral", {"head_dim": 4}),
    "llama biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama attention bias": ("llama", {"attention_bias": True}),
    "qwen3 biases": ("qwen3", {"attention_bias": True}),
    "theta": ("qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "eps": ("llama", {"rms_norm_eps": 0.1}),
    "one layer": ("llama", {"num_hidden_layers": 1}),
    "linear": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
    ),
    "llama3": (
        "llama",
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3, **SHORT}},
    ),
    "yarn": ("qwen2", {"rope_parameters": {**YARN, **SHORT}}),
    "yarn qwen3": ("qwen3", {"rope_parameters": {**YARN, **SHORT}}),
    "yarn attention factor": ("llama", {"rope_parameters": {**YARN, "attention_factor": 0.7}}),
    "yarn betas": (
        "llama",
        {"rope_parameters": {**YARN, **SHORT, "beta_fast": 16.0, "beta_slow": 2.0}},
    ),
    "yarn mscale": (
        "llama",
        {"rope_parameters": {**YARN, **SHORT, "mscale": 0.7, "mscale_all_dim": 1.3}},
    ),
    "yarn untruncated": ("qwen3", {"rope_parameters": {**YARN, **SHORT, "truncate": False}}),
}
IDS = random_ids(50)


def _logits(path, dtype):
    """Half of the tokens as a first chunk, then the rest one by one and in a few more."""
    ours = decoder(path, dtype)
    slots, done, parts = Slots(ours), 0, []
    for count in (25, 1, 4, 1, 19):
        parts.append(ours([new(IDS[done : done + count], done)], slots).logits)
        done += count
    return torch.cat(parts)


@pytest.mark.parametrize("case", CASES)
def test_float64_logits_equal_transformers(case):
    family, config = CASES[case]
    path = tiny(family, **config)
    assert_close(_logits(path, "float64"), expected(oracle(path), IDS).logits[0], 1e-10)


@pytest.mark.parametrize("case", CASES)
def test_float32_logits_equal_transformers(case):
    family, config = CASES[case]
    path = tiny(family, **config)
    theirs = expected(reference(path, "float32"), IDS).logits[0]
    assert_close(_logits(path, "float32"), theirs, 1e-4)
    compiled = case != "narrow heads"  # of 4: the kernels want a multiple of 8
    assert isinstance(decoder(path, "float32"), CompiledDecoder if compiled else TorchDecoder)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_half_precision_is_as_near_the_truth_as_transformers(family, dtype):
    path = tiny(family)
    rounded = reference(path, dtype)
    theirs = expected(rounded, IDS).logits[0].double()
    truth = expected(_widened(path, rounded), IDS).logits[0]
    error = (_logits(path, dtype).double() - truth).square().mean().sqrt()
    assert error < 1.25 * (theirs - truth).square().mean().sqrt()
    assert error < 0.05 * truth.square().mean().sqrt()


def _widened(path, rounded):
    """The float64 oracle with the weights of a rounded model."""
    from copy import deepcopy

    model = deepcopy(oracle(path))
    model.load_state_dict(rounded.state_dict())
    return model


def test_a_sharded_checkpoint_is_the_same_model(tmp_path):
    path = tiny("qwen3")
    reference(path, "float32").save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    ours, sharded = decoder(path), decoder(tmp_path)
    ids = [new(IDS)]
    assert torch.equal(ours(ids, Slots(ours)).logits, sharded(ids, Slots(sharded)).logits)

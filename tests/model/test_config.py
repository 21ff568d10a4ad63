"""A config field that would change the maths is implemented or refused by name, in one line."""

import json

import pytest
import torch

import sparing
from sparing.errors import ModelError
from sparing.model.config import read_config
from tests.model.passes import Slots, assert_close, decoder, exact_norms, expected, new, random_ids
from tests.tiny import reference, tiny

ROPE = {"rope_theta": 1e4}
LONG = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "factor": 2.0}
REFUSED = {
    "another architecture": ("llama", {"model_type": "gpt2"}, "model_type"),
    "no architecture": ("llama", {"model_type": None}, "model_type"),
    "dynamic": ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type"),
    "longrope": ("llama", {"rope_scaling": {"rope_type": "longrope", **LONG}}, "rope_type"),
    "unknown rope": ("qwen2", {"rope_scaling": {"rope_type": "spiral"}}, "rope_type"),
    "old dynamic": ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type"),
    "old mrope": ("qwen2", {"rope_scaling": {"type": "mrope"}}, "rope_type"),
    "no factor": ("llama", {"rope_scaling": {"rope_type": "linear"}}, "factor"),
    "llama3 without its factors": ("llama", {"rope_scaling": {"rope_type": "llama3"}}, "factor"),
    "partial rotary": ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    "partial rotary inside": (
        "llama",
        {"rope_parameters": {**ROPE, "rope_type": "default", "partial_rotary_factor": 0.5}},
        "partial_rotary_factor",
    ),
    "mistral window": ("mistral", {"sliding_window": 2047}, "sliding_window"),
    "qwen2 windows": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
        "layer_types",
    ),
    "qwen3 windows": (
        "qwen3",
        {
            "use_sliding_window": True,
            "sliding_window": 16,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        },
        "layer_types",
    ),
    "gelu": ("llama", {"hidden_act": "gelu"}, "hidden_act"),
    "quantized": (
        "llama",
        {"quantization_config": {"quant_method": "fp8"}},
        "quantization_config",
    ),
    "clipped": ("llama", {"clip_qkv": 8.0}, "clip_qkv"),
    "attention softcap": ("llama", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    "final softcap": ("qwen2", {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    "logit scale": ("llama", {"logit_scale": 0.1}, "logit_scale"),
    "logits scaling": ("llama", {"logits_scaling": 8.0}, "logits_scaling"),
    "embedding multiplier": ("llama", {"embedding_multiplier": 12.0}, "embedding_multiplier"),
    "residual multiplier": ("llama", {"residual_multiplier": 0.2}, "residual_multiplier"),
    "attention multiplier": ("llama", {"attention_multiplier": 0.1}, "attention_multiplier"),
    "no rope in a layer": ("llama", {"no_rope_layers": [1, 0, 1]}, "no_rope_layers"),
    "experts": ("mistral", {"num_local_experts": 8}, "num_local_experts"),
    "cross attention": ("llama", {"add_cross_attention": True}, "add_cross_attention"),
    "heads that do not group": ("llama", {"num_key_value_heads": 4}, "num_key_value_heads"),
    "heads that do not divide": ("llama", {"num_attention_heads": 5}, "attention heads"),
    "an odd head": ("llama", {"head_dim": 7}, "head_dim"),
    "no layers": ("llama", {"num_hidden_layers": 0}, "layers"),
    "no heads": ("llama", {"num_attention_heads": 0}, ""),
    "no key heads": ("llama", {"num_key_value_heads": -1}, "kv_heads"),
    "a word for a number": ("llama", {"hidden_size": "wide"}, "hidden_size"),
    "null for a number": ("llama", {"vocab_size": None}, "vocab_size"),
    "null for a yes or no": ("qwen3", {"tie_word_embeddings": None}, "tie_word_embeddings"),
    "too few layer types": ("qwen3", {"layer_types": ["full_attention"]}, "layer_types"),
}
NEUTRAL = {
    "no window": ("mistral", {"sliding_window": None}),
    "a window as wide as the context": ("mistral", {"sliding_window": 2048}),
    "a window that llama does not have": ("llama", {"sliding_window": 16}),
    "a window that is off": ("qwen2", {"use_sliding_window": False, "sliding_window": 16}),
    "a window above the last layer": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 28},
    ),
    "layer types without windows": ("qwen3", {"layer_types": ["full_attention"] * 3}),
    "whole rotary": ("llama", {"partial_rotary_factor": 1.0}),
    "neutral factors": (
        "llama",
        {"logits_scaling": 1.0, "embedding_multiplier": 1.0, "clip_qkv": None},
    ),
    "unknown fields": ("llama", {"pretraining_tp": 4, "my_note": {"a": [1]}, "_name": "x"}),
    "code of its own": ("llama", {"auto_map": {"AutoModelForCausalLM": "modeling_x.X"}}),
    "no scaling": ("llama", {"rope_scaling": None}),
    "dropout": ("qwen2", {"attention_dropout": 0.5}),
}
OLD_ROPE = {
    "theta": {"rope_theta": 5e5},
    "linear": {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}},
    "yarn": {
        "rope_theta": 1e6,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    },
    "llama3": {
        "rope_theta": 5e5,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
}


@pytest.fixture
def write(tmp_path):
    """Writes a tiny model's directory with another config."""

    def directory(family, without=(), **fields):
        source = tiny(family)
        config = json.loads((source / "config.json").read_text())
        config = {k: v for k, v in config.items() if k not in without} | fields
        (tmp_path / "config.json").write_text(json.dumps(config))
        for file in source.glob("*"):
            if file.name != "config.json":
                (tmp_path / file.name).symlink_to(file)
        return tmp_path

    return directory


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_decoder_does_not_do_is_refused_by_name(write, case):
    family, fields, name = REFUSED[case]
    without = ["layer_types"] + ["rope_parameters"] * ("rope_scaling" in fields)
    with pytest.raises(ModelError) as error:
        sparing.load(str(write(family, without, **fields)), decoder="fast")
    message = str(error.value)
    assert "\n" not in message
    assert name in message
    assert "not supported" not in message, "it says what to do"


@pytest.mark.parametrize("case", NEUTRAL)
def test_what_changes_nothing_is_accepted(write, case):
    family, fields = NEUTRAL[case]
    directory = write(family, **fields)
    ids = random_ids(40)
    ours = decoder(directory)
    with torch.inference_mode():
        truth = expected(exact_norms(reference(directory)), ids).logits[0]
    assert_close(ours([new(ids)], Slots(ours)).logits, truth, 1e-9)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("rope", OLD_ROPE)
def test_rope_fields_of_old_checkpoints(write, rope, family):
    directory = write(family, ("rope_parameters",), **OLD_ROPE[rope])
    ids = random_ids(40)
    ours = decoder(directory)
    truth = expected(exact_norms(reference(directory)), ids).logits[0]
    assert_close(ours([new(ids)], Slots(ours)).logits, truth, 1e-9)
    default = decoder(tiny(family))
    other = default([new(ids)], Slots(default)).logits
    assert (other - truth).abs().max() > 0.01  # the fields were read


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"llama"', "{}", "\x00"])
def test_a_corrupt_config_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match="config") as error:
        read_config(tmp_path)
    assert "\n" not in str(error.value)


def test_a_config_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match=r"config\.json must be JSON"):
        read_config(tmp_path)


def test_an_unknown_architecture_hears_of_transformers(write):
    with pytest.raises(
        ModelError, match=r"decoder auto or hub \(--decoder\), with weights auto, runs it"
    ):
        read_config(write("llama", model_type="gpt2"))


def test_what_was_read():
    config = read_config(tiny("qwen3", head_dim=16, max_position_embeddings=512))
    assert (config.family, config.layers, config.heads, config.kv_heads) == ("qwen3", 3, 6, 2)
    assert (config.head_dim, config.width, config.mlp_width) == (16, 48, 64)
    assert (config.context, config.vocabulary) == (512, 259)
    assert (config.qk_norm, config.tied) == (True, False)
    assert (config.qkv_bias, config.output_bias, config.mlp_bias) == (False, False, False)

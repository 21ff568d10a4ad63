"""A GGUF's config and its tensors: those of the checkpoint that it was made of."""

import random

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from sparing.errors import ModelError
from sparing.kernels.native import announce
from sparing.model.checkpoint import read_config, read_model
from sparing.model.gguf import Gguf
from sparing.model.gguf_config import FREQUENCIES, gguf_config, gguf_name, row_order
from tests.gguf_writer import blocks, model_metadata, tokenizer_metadata, write_gguf, write_model
from tests.tiny import tiny

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
SIZES = ("layers", "kv_heads", "head_dim", "vocabulary", "context", "family", "width", "mlp_width")
FLAGS = ("heads", "tied", "qkv_bias", "output_bias", "mlp_bias", "qk_norm", "rope_scale")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.gguf"


def assert_same_config(found, expected):
    for name in SIZES + FLAGS:
        assert getattr(found, name) == getattr(expected, name), name
    assert found.norm_eps == pytest.approx(expected.norm_eps, rel=1e-6)
    torch.testing.assert_close(found.inverse_frequencies, expected.inverse_frequencies)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [False, True])
def test_the_config_is_the_checkpoints(path, family, tied):
    source = tiny(family, tie_word_embeddings=tied)
    assert_same_config(read_config(write_model(path, source)), read_config(source))


def test_biases_are_told_by_their_tensors(path):
    source = tiny("llama", attention_bias=True, mlp_bias=True)
    config = read_config(write_model(path, source))
    assert (config.qkv_bias, config.output_bias, config.mlp_bias) == (True, True, True)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_is_found_in_the_order_of_our_rows(path, family):
    source = tiny(family)
    weights = load_file(source / "model.safetensors")
    with Gguf.open(write_model(path, source)) as gguf:
        config = gguf_config(gguf)
        for name, expected in weights.items():
            tensor, order = gguf.tensors[gguf_name(name)], row_order(config, name)
            rows = tensor.data.view("<f4").reshape(tensor.shape)
            np.testing.assert_array_equal(rows if order is None else rows[order], expected, name)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [False, True])
def test_transformers_reads_the_same_model(path, family, tied):
    """By its own names and its own order of rows; it knows no architecture called mistral."""
    pytest.importorskip("gguf")
    source = tiny(family, tie_word_embeddings=tied)
    found = read_model(write_model(path, source), torch.float32).state_dict()
    for name, expected in load_file(source / "model.safetensors").items():
        np.testing.assert_array_equal(found[name].numpy(), expected, name)


# Rope scaling

LINEAR = {"rope_type": "linear", "factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
SCALED = {
    "linear": (LINEAR, {"scaling.type": "linear", "scaling.factor": 4.0}),
    "linear without its name": (LINEAR, {"scaling.factor": 4.0}),
    "linear of old": (LINEAR, {"scale_linear": 4.0}),
    "yarn": (
        YARN,
        {
            "scaling.type": "yarn",
            "scaling.factor": 4.0,
            "scaling.original_context_length": 512,
        },
    ),
    "yarn with betas": (
        YARN | {"beta_fast": 16.0, "beta_slow": 2.0},
        {
            "scaling.type": "yarn",
            "scaling.factor": 4.0,
            "scaling.original_context_length": 512,
            "scaling.yarn_beta_fast": 16.0,
            "scaling.yarn_beta_slow": 2.0,
        },
    ),
    "none": ({"rope_type": "default"}, {"scaling.type": "none", "scaling.factor": 4.0}),
}


@pytest.mark.parametrize("case", SCALED)
def test_rope_scaling(path, case):
    theirs, fields = SCALED[case]
    source = tiny("qwen2", head_dim=32, rope_parameters={"rope_theta": 10000.0} | theirs)
    more = {f"qwen2.rope.{name}": value for name, value in fields.items()}
    assert_same_config(read_config(write_model(path, source, **more)), read_config(source))


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}


def test_llama_3_scales_by_a_tensor(path):
    """Plain frequencies over the scaled ones are the factors that llama.cpp writes."""
    plain, scaled = tiny("llama", head_dim=32), tiny("llama", head_dim=32, rope_parameters=LLAMA3)
    expected = read_config(scaled)
    factors = read_config(plain).inverse_frequencies / expected.inverse_frequencies
    tensors = plain_tensors(scaled) | {FREQUENCIES: ("F32", (16,), factors.numpy().tobytes())}
    write_gguf(path, model_metadata(scaled) | tokenizer_metadata(scaled), tensors)
    assert_same_config(read_config(path), expected)


def test_factors_of_another_size(path):
    source = tiny("llama")
    tensors = plain_tensors(source) | {FREQUENCIES: ("F32", (3,), bytes(12))}
    write_gguf(path, model_metadata(source), tensors)
    assert "tensor rope_freqs.weight must be F32 [4], got F32 [3]" in message(path)


# What is refused


def plain_tensors(source):
    shapes = {gguf_name(k): v.shape for k, v in load_file(source / "model.safetensors").items()}
    return {name: ("F32", shape, blocks("F32", shape)) for name, shape in shapes.items()}


def message(path) -> str:
    with pytest.raises(ModelError) as error:
        read_config(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def changed(path, **fields):
    """A tiny llama whose metadata fields, dots as double underscores, are changed or removed."""
    source = tiny("llama")
    metadata = model_metadata(source)
    for name, value in fields.items():
        metadata[f"llama.{name.replace('__', '.')}"] = value
    kept = {name: value for name, value in metadata.items() if value is not None}
    return write_gguf(path, kept, plain_tensors(source))


REFUSED = {
    "expert_count": (8, "0"),
    "attention__scale": (0.5, "0.0"),
    "attention__causal": (False, "True"),
    "logit_scale": (0.25, "0.0"),
    "attention__sliding_window": (128, "at least the context"),
    "attention__head_count_kv": ([2, 2, 2], "one number"),
    "block_count": (0, "1 or more"),
    "attention__head_count": (5, "48 rows of blk.0.attn_q / 8"),
    "attention__key_length": (1 << 30, None),
    "attention__value_length": (4, "the size of a head, 8"),
    "rope__dimension_count": (4, "the size of a head, 8"),
    "rope__scaling__type": ("longrope", "one of none, linear, yarn"),
    "rope__freq_base": (float("nan"), "one number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_field_that_is_not_supported_is_named(path, name):
    value, must = REFUSED[name]
    key = f"llama.{name.replace('__', '.')}"
    said = message(changed(path, **{name: value}))
    if must:
        assert f"{path}: {key} must be {must}, got " in said
    else:
        assert "llama.attention.head_count must be 48 rows of blk.0.attn_q / 1073741824" in said


@pytest.mark.parametrize(
    "name",
    [
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention__head_count",
        "attention__layer_norm_rms_epsilon",
    ],
)
def test_a_missing_field_is_named(path, name):
    key = f"llama.{name.replace('__', '.')}"
    assert message(changed(path, **{name: None})) == (
        f"{path}: the metadata must have {key}, got none; "
        "convert the model again with a current llama.cpp"
    )


@pytest.mark.parametrize("name", ["gemma3", "phi3", None])
def test_another_architecture(path, name):
    metadata = {"general.architecture": name} if name else {}
    assert message(write_gguf(path, metadata, {})) == (
        f"{path}: general.architecture must be one of llama, mistral, qwen2, qwen3, got {name!r}; "
        "decoder auto or hub (--decoder), with weights auto, runs it through transformers"
    )


@pytest.mark.parametrize(
    "name", ["token_embd.weight", "blk.1.ffn_up.weight", "blk.0.attn_q.weight"]
)
def test_a_missing_tensor_is_named(path, name):
    source = tiny("llama")
    tensors = plain_tensors(source)
    del tensors[name]
    assert message(write_gguf(path, model_metadata(source), tensors)) == (
        f"{path}: the model must hold the tensor {name}, got none; fetch the file again"
    )


def test_more_layers_than_there_are_tensors(path):
    said = message(changed(path, block_count=1 << 31))
    assert "the model must hold the tensor blk.2147483647.attn_q.weight, got none" in said


def test_a_tensor_of_another_shape(path):
    source = tiny("llama")
    tensors = plain_tensors(source) | {"blk.1.ffn_up.weight": ("F32", (3, 48), bytes(3 * 48 * 4))}
    assert message(write_gguf(path, model_metadata(source), tensors)) == (
        f"{path}: tensor blk.1.ffn_up.weight must have the shape [64, 48] of the metadata, "
        "got [3, 48]; fetch the file again"
    )


@pytest.mark.parametrize(
    "name", ["blk.0.attn_sinks.weight", "blk.1.attn_q.bias", "rope_factors_long.weight"]
)
def test_a_tensor_that_llama_cpp_would_compute_with(path, name):
    source = tiny("llama")
    tensors = plain_tensors(source) | {name: ("F32", (6,), bytes(24))}
    said = message(write_gguf(path, model_metadata(source), tensors))
    assert f"every tensor must belong to the model of the metadata, got {name}; run the" in said


@pytest.mark.parametrize("name", ["blk.3.nextn.eh_proj.weight", "v_head.weight"])
def test_a_tensor_without_a_place(path, name, capsys):
    source = tiny("llama")
    tensors = plain_tensors(source) | {
        name: ("F32", (6,), bytes(24)),
        "blk.0.rope_freqs.weight": ("F32", (4,), bytes(16)),
    }
    announce.cache_clear()
    with Gguf.open(write_gguf(path, model_metadata(source), tensors)) as gguf:
        assert gguf_config(gguf).layers == gguf_config(gguf).layers == 3
    said = capsys.readouterr().err
    assert said == (
        f"sparing: {path.name} holds tensors that its config has no place for, and they are left "
        f"out: {name}\n"
    )


def test_three_hundred_wrong_fields(path):
    """Values of the wrong kind or size: read, or refused in a line, and never slow."""
    source, noise = tiny("llama"), random.Random(0)
    metadata, tensors = model_metadata(source), plain_tensors(source)
    values = (0, -1, 1, 7, 1 << 31, 0.5, float("inf"), "x", True, [1, 2], ["a"], np.uint64(1 << 63))
    for _ in range(300):
        wrong = {noise.choice(list(metadata)): noise.choice(values) for _ in range(2)}
        with Gguf.open(write_gguf(path, metadata | wrong, tensors)) as gguf:
            try:
                gguf_config(gguf)
            except ModelError as error:
                said = str(error)
                assert "\n" not in said, wrong

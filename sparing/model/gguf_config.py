"""A GGUF's metadata as a ModelConfig, and its tensor names as those of transformers."""

from dataclasses import replace
from math import isfinite
from typing import Any

import numpy as np
import torch

from sparing.errors import ModelError, UnknownArchitecture, reason
from sparing.model.config import FAMILIES, HUB, ModelConfig, from_transformers, plain_config
from sparing.model.gguf import Gguf, GgufTensor
from sparing.model.weights import EMBEDDING, HEAD, expected_shapes, warn_of_extra

PERMUTED = ("llama", "mistral")  # architectures with the rows of q and k in adjacent pairs
FREQUENCIES = "rope_freqs.weight"
IGNORED = (FREQUENCIES, "attn_rot_embd.weight")  # not in ModelConfig's list of tensors
COMPUTED = (  # what llama.cpp would compute with; other tensors can be left out
    ".bias",
    ".attn_sinks.weight",
    "_q_norm.weight",
    "_k_norm.weight",
    "post_attention_norm.weight",
    "post_ffw_norm.weight",
    "rope_factors_long.weight",
    "rope_factors_short.weight",
)
LLAMA_CPP = "run the file with llama.cpp"
OUTER = {
    EMBEDDING: "token_embd.weight",
    HEAD: "output.weight",
    "model.norm.weight": "output_norm.weight",
}
INNER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
# Fields that would change the forward pass: refused unless neutral, as in config.py.
NEUTRAL_FIELDS: dict[str, Any] = {
    "expert_count": 0,
    "attention.causal": True,
    "attention.logit_softcapping": 0.0,
    "attn_logit_softcapping": 0.0,
    "final_logit_softcapping": 0.0,
    "attention.clamp_kqv": 0.0,
    "attention.scale": 0.0,
    "attention.temperature_scale": 0.0,
    "logit_scale": 0.0,
    "embedding_scale": 0.0,
    "residual_scale": 0.0,
}
SCALING_TYPES = ("none", "linear", "yarn")


def gguf_config(gguf: Gguf) -> ModelConfig:
    """Read the ModelConfig of an open file and check the file's tensors against it.

    Raises ModelError with the name of a missing or unusable field or tensor.
    """
    fields = Fields(gguf)
    fields.refuse_unsupported()
    try:
        described = description(fields)
        config = from_transformers(plain_config(described) or as_transformers(fields))
    except ModelError:
        raise
    except Exception as error:  # transformers' checks of single fields raise many types
        raise ModelError(
            f"{gguf.path}: the metadata must describe a valid model, got: {reason(error)}; "
            "fetch the file again"
        ) from None
    has = gguf.tensors.__contains__
    config = replace(
        config,
        qkv_bias=has("blk.0.attn_q.bias"),
        output_bias=has("blk.0.attn_output.bias"),
        mlp_bias=has("blk.0.ffn_down.bias"),
    )
    if has(FREQUENCIES):
        config = with_factors(config, gguf.tensors[FREQUENCIES])
    check_tensors(gguf, config)
    return config


class Fields:
    """The architecture's metadata, read by name without the prefix ``llama.`` and the like."""

    def __init__(self, gguf: Gguf) -> None:
        self.path, self.metadata, self.tensors = gguf.path, gguf.metadata, gguf.tensors

    @property
    def architecture(self) -> str:
        name = self.metadata.get("general.architecture")
        if not isinstance(name, str) or name not in FAMILIES:
            raise UnknownArchitecture(
                f"{self.path}: general.architecture must be one of {', '.join(FAMILIES)}, "
                f"got {name!r}; {HUB}",
                f"general.architecture {name!r}",
            )
        return name

    def number(self, name: str, default: int | float | None = None) -> Any:
        """A number; raises ModelError if it is missing without a default, or is no number."""
        value = self.metadata.get(self._key(name), default)
        if value is None:
            raise ModelError(
                f"{self.path}: the metadata must have {self._key(name)}, got none; "
                "convert the model again with a current llama.cpp"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            shown = "a list" if isinstance(value, list | np.ndarray) else value
            raise self.refuse(name, "one number", shown)
        return value

    def size(self, name: str, default: int | None = None) -> int:
        """A whole number, 1 or more."""
        value = self.number(name, default)
        if not isinstance(value, int) or value < 1:
            raise self.refuse(name, "1 or more", value)
        return value

    def text(self, name: str, default: str) -> str:
        return str(self.metadata.get(self._key(name), default))

    def refuse(self, name: str, must: object, got: object) -> ModelError:
        return ModelError(
            f"{self.path}: {self._key(name)} must be {must}, got {got!r}; {LLAMA_CPP}"
        )

    def unlike_ours(self, name: str, must: object, got: object) -> UnknownArchitecture:
        return UnknownArchitecture(str(self.refuse(name, must, got)), f"{self._key(name)} {got!r}")

    def refuse_unsupported(self) -> None:
        for name, neutral in NEUTRAL_FIELDS.items():
            value = self.metadata.get(self._key(name), neutral)
            if isinstance(value, np.ndarray) or value not in (neutral, 1.0):
                raise self.unlike_ours(name, neutral, value)
        window = self.number("attention.sliding_window", 0)
        if 0 < window < self.number("context_length"):
            raise self.unlike_ours("attention.sliding_window", "at least the context", window)

    def _key(self, name: str) -> str:
        return f"{self.architecture}.{name}"

    def rows(self, tensor: str) -> int:
        """Number of rows of a tensor in the file."""
        if tensor not in self.tensors:
            raise missing(self.path, tensor)
        return self.tensors[tensor].shape[0]


def as_transformers(fields: Fields) -> Any:
    """The same config as a transformers object; its rope goes through `rotary_frequencies`."""
    from transformers import AutoConfig

    return AutoConfig.for_model(
        **description(fields), use_sliding_window=False, sliding_window=None
    )


def description(fields: Fields) -> dict[str, Any]:
    """The fields of ``config.json``, from the metadata."""
    return {
        "model_type": fields.architecture,
        **head_sizes(fields),
        "hidden_size": fields.size("embedding_length"),
        "intermediate_size": fields.size("feed_forward_length"),
        "num_hidden_layers": layers(fields),
        "vocab_size": fields.rows(OUTER[EMBEDDING]),
        "max_position_embeddings": fields.size("context_length"),
        "rms_norm_eps": float(fields.number("attention.layer_norm_rms_epsilon")),
        "rope_parameters": rope_parameters(fields),
        "tie_word_embeddings": OUTER[HEAD] not in fields.tensors,
        "attention_bias": "blk.0.attn_q.bias" in fields.tensors,
        "mlp_bias": "blk.0.ffn_down.bias" in fields.tensors,
    }


def head_sizes(fields: Fields) -> dict[str, int]:
    """Number and size of the heads, checked against the rows of the query tensor."""
    heads = fields.size("attention.head_count")
    size = fields.size("attention.key_length", max(fields.size("embedding_length") // heads, 1))
    if (rows := fields.rows("blk.0.attn_q.weight")) != heads * size:
        raise fields.refuse("attention.head_count", f"{rows} rows of blk.0.attn_q / {size}", heads)
    kv_heads = fields.size("attention.head_count_kv", heads)
    if heads % kv_heads:
        raise fields.refuse("attention.head_count_kv", f"a divisor of the {heads} heads", kv_heads)
    for name in ("attention.value_length", "rope.dimension_count"):
        if (other := fields.size(name, size)) != size:
            raise fields.refuse(name, f"the size of a head, {size}", other)
    return {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": size}


def layers(fields: Fields) -> int:
    count = fields.size("block_count")
    if count > len(fields.tensors):
        raise missing(fields.path, f"blk.{count - 1}.attn_q.weight")
    return count


def rope_parameters(fields: Fields) -> dict[str, Any]:
    """Base and scaling, with llama.cpp's default: a factor without a type is linear."""
    base = {"rope_theta": float(fields.number("rope.freq_base", 10000.0))}
    kind = fields.text("rope.scaling.type", "linear")
    if kind not in SCALING_TYPES:
        raise fields.refuse("rope.scaling.type", f"one of {', '.join(SCALING_TYPES)}", kind)
    given = fields.number("rope.scaling.factor", fields.number("rope.scale_linear", 0.0))
    factor = float(given) or 1.0
    if kind == "none" or factor == 1.0:
        return base | {"rope_type": "default"}
    if kind == "linear":
        return base | {"rope_type": kind, "factor": factor}
    for name, neutral in (("yarn_ext_factor", 1.0), ("yarn_log_multiplier", 0.0)):
        if (value := fields.number(f"rope.scaling.{name}", neutral)) != neutral:
            raise fields.refuse(f"rope.scaling.{name}", neutral, value)
    attention = fields.number("rope.scaling.attn_factor", 1.0)
    attention *= fields.number("rope.scaling.yarn_attn_factor", 1.0)
    return base | {
        "rope_type": kind,
        "factor": factor,
        "original_max_position_embeddings": fields.number(
            "rope.scaling.original_context_length", fields.number("context_length")
        ),
        "attention_factor": attention * (1.0 + 0.1 * float(np.log(factor))),
        "beta_fast": fields.number("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": fields.number("rope.scaling.yarn_beta_slow", 1.0),
    }


def with_factors(config: ModelConfig, tensor: GgufTensor) -> ModelConfig:
    """Divide the frequencies by the file's factors: a GGUF's form of Llama 3's scaling."""
    expected = (config.head_dim // 2,)
    if tensor.type != "F32" or tensor.shape != expected:
        raise ModelError(
            f"tensor {tensor.name} must be F32 {list(expected)}, got {tensor.type} "
            f"{list(tensor.shape)}; fetch the file again"
        )
    factors = torch.from_numpy(tensor.data.view("<f4").copy())
    return replace(config, inverse_frequencies=config.inverse_frequencies / factors)


def check_tensors(gguf: Gguf, config: ModelConfig) -> None:
    """Raise ModelError for a missing tensor, a wrong shape, or one that changes the maths.

    Other tensors are left out, with a warning.
    """
    expected = {gguf_name(name): shape for name, shape in expected_shapes(config).items()}
    for name, shape in expected.items():
        if name not in gguf.tensors:
            raise missing(gguf.path, name)
        if (found := gguf.tensors[name].shape) != shape:
            raise ModelError(
                f"{gguf.path}: tensor {name} must have the shape {list(shape)} of the metadata, "
                f"got {list(found)}; fetch the file again"
            )
    extra = [n for n in gguf.tensors if n not in expected and not n.endswith(IGNORED)]
    if changing := next((name for name in extra if name.endswith(COMPUTED)), None):
        raise ModelError(
            f"{gguf.path}: every tensor must belong to the model of the metadata, got {changing}; "
            f"{LLAMA_CPP}"
        )
    warn_of_extra(gguf.path, extra)


def missing(path: object, name: str) -> ModelError:
    return ModelError(
        f"{path}: the model must hold the tensor {name}, got none; fetch the file again"
    )


def gguf_name(name: str) -> str:
    """The file's name of a tensor: ``blk.0.attn_q.weight`` for layer 0's ``q_proj``."""
    if name in OUTER:
        return OUTER[name]
    _, _, layer, rest = name.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{INNER[part]}.{kind}"


def row_order(config: ModelConfig, name: str) -> np.ndarray | None:
    """The file's row for each of our rows; None if the order is the same.

    llama.cpp rotates adjacent pairs of a head, we rotate its halves: our row ``half * D/2 + pair``
    is the file's row ``2 * pair + half``.
    """
    part = name.split(".")[-2]
    if config.family not in PERMUTED or part not in ("q_proj", "k_proj"):
        return None
    heads = config.heads if part == "q_proj" else config.kv_heads
    pairs = np.arange(heads * config.head_dim, dtype=np.int32).reshape(heads, -1, 2)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(-1)

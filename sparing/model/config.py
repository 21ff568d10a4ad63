"""Read a checkpoint's ``config.json``; a field that changes the maths is supported or refused."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from sparing.errors import ModelError, UnknownArchitecture, reason
from sparing.files import read_json
from sparing.model.quantization import Quantization, read_quantization

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
HUB = "decoder auto or hub (--decoder), with weights auto, runs it through transformers"
ROPE_TYPES = ("default", "linear", "llama3", "yarn")
# Fields of other architectures that would change the forward pass: refused unless neutral.
NEUTRAL_FIELDS: dict[str, Any] = {
    "partial_rotary_factor": 1.0,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "logit_scale": None,
    "logits_scaling": 1.0,
    "embedding_multiplier": 1.0,
    "residual_multiplier": 1.0,
    "attention_multiplier": None,
    "clip_qkv": None,
    "no_rope_layers": None,
    "num_local_experts": None,
    "add_cross_attention": False,
    "hidden_act": "silu",
}


# Fields required by `plain_config`, and further fields without effect here.
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
)
OTHERS = {
    "rms_norm_eps": float,
    "tie_word_embeddings": bool,
    "attention_bias": bool,
    "mlp_bias": bool,
}
UNREAD = (
    "architectures",
    "attention_dropout",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "initializer_range",
    "pad_token_id",
    "pretraining_tp",
    "transformers_version",
    "use_cache",
)


@dataclass(frozen=True)
class Shape:
    """The sizes of any decoder's cache, vocabulary and context."""

    layers: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int  # trained positions

    @classmethod
    def of(cls, config: Any) -> "Shape":
        """The shape of a transformers config."""
        return cls(**shape_fields(config))


@dataclass(frozen=True)
class ModelConfig(Shape):
    """The config of a decoder-only transformer of one of ``FAMILIES``."""

    family: str
    width: int
    mlp_width: int
    heads: int
    norm_eps: float
    tied: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    qk_norm: bool
    inverse_frequencies: torch.Tensor  # [D / 2], float32
    rope_scale: float  # yarn's attention factor; 1.0 elsewhere
    quantization: Quantization | None = None  # of the matrices of a checkpoint

    def __post_init__(self) -> None:
        for name in ("layers", "kv_heads", "head_dim", "vocabulary", "context", "width", "heads"):
            if getattr(self, name) < 1:
                raise ModelError(
                    f"{name} must be 1 or more, got {getattr(self, name)}; correct config.json"
                )
        if self.heads % self.kv_heads:
            raise ModelError(
                f"num_attention_heads must be a multiple of num_key_value_heads, got {self.heads} "
                f"and {self.kv_heads}; correct config.json"
            )


def read_config(directory: Path) -> ModelConfig:
    """Read ``config.json`` of a Hugging Face checkpoint.

    Raises ModelError with the name of an unsupported architecture or field.
    """
    try:
        fields = read_json(directory / "config.json")
        refuse_family(fields.get("model_type"))
        return from_transformers(plain_config(fields) or transformers_config(directory))
    except ModelError:
        raise
    except Exception as error:  # transformers' checks of single fields raise many types
        raise ModelError(
            f"{directory}/config.json must be readable, got: {reason(error)}"
        ) from None


def transformers_config(directory: Path) -> Any:
    """The config, completed by transformers."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(directory)


def plain_config(fields: dict[str, Any]) -> SimpleNamespace | None:
    """A config with all required fields; None if transformers must complete it.

    The import of transformers takes longer than a short answer.
    """
    if any(type(fields.get(name)) is not int or fields[name] < 1 for name in SIZES):
        return None
    if any(type(fields.get(name)) is not kind for name, kind in OTHERS.items()):
        return None
    if fields.keys() - {*SIZES, *OTHERS, *UNREAD, "model_type", "rope_parameters", "hidden_act"}:
        return None
    rope = fields.get("rope_parameters")
    if not isinstance(rope, dict) or rope.keys() != {"rope_type", "rope_theta"}:
        return None
    whole_heads = fields["hidden_size"] % fields["num_attention_heads"] == 0
    if rope["rope_type"] != "default" or not whole_heads or fields["head_dim"] % 2:
        return None
    return SimpleNamespace(**fields)


def refuse_family(family: str | None) -> None:
    """Raise UnknownArchitecture for one without a Decoder."""
    if family not in FAMILIES:
        raise unlike_ours("model_type", f"one of {', '.join(FAMILIES)}", family)


def unlike_ours(field: str, must: Any, got: Any) -> UnknownArchitecture:
    """A config field that our decoder does not compute."""
    return UnknownArchitecture(
        f"config field {field} must be {must}, got {got!r}; {HUB}", f"{field} {got!r}"
    )


def from_transformers(config: Any) -> ModelConfig:
    """The ModelConfig of a transformers config object; refuses unsupported fields."""
    family = config.model_type
    refuse_family(family)
    refuse_unsupported(config)
    packing = getattr(config, "quantization_config", None)
    frequencies, scale = rotary_frequencies(config)
    return ModelConfig(
        **shape_fields(config),
        family=family,
        width=config.hidden_size,
        mlp_width=config.intermediate_size,
        heads=config.num_attention_heads,
        norm_eps=config.rms_norm_eps,
        tied=config.tie_word_embeddings,
        qkv_bias=family == "qwen2" or (family in ("llama", "qwen3") and config.attention_bias),
        output_bias=family in ("llama", "qwen3") and config.attention_bias,
        mlp_bias=family == "llama" and config.mlp_bias,
        qk_norm=family == "qwen3",
        inverse_frequencies=frequencies,
        rope_scale=scale,
        quantization=read_quantization(packing or getattr(config, "compression_config", None)),
    )


def shape_fields(config: Any) -> dict[str, int]:
    heads = config.num_attention_heads
    return {
        "layers": config.num_hidden_layers,
        "kv_heads": getattr(config, "num_key_value_heads", None) or heads,
        "head_dim": head_dim(config),
        "vocabulary": config.vocab_size,
        "context": config.max_position_embeddings,
    }


def head_dim(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def refuse_unsupported(config: Any) -> None:
    """Raise UnknownArchitecture for the first field that changes the maths and is not ours."""
    for field, neutral in NEUTRAL_FIELDS.items():
        value = getattr(config, field, neutral)
        if value is not None and value != neutral:
            raise unlike_ours(field, neutral, value)
    refuse_sliding_windows(config)
    rope = config.rope_parameters or {}
    rope_type = rope.get("rope_type", "default")
    if rope_type not in ROPE_TYPES:
        raise unlike_ours("rope_type", f"one of {', '.join(ROPE_TYPES)}", rope_type)
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise unlike_ours("partial_rotary_factor", 1.0, rope["partial_rotary_factor"])


def refuse_sliding_windows(config: Any) -> None:
    """Raise UnknownArchitecture if a layer attends to less than the whole context."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise unlike_ours("layer_types", "full_attention in every layer", ", ".join(sorted(kinds)))
    if config.model_type == "llama" or getattr(config, "layer_types", None):
        return  # llama has no window, and layer_types decide where they are given
    window = getattr(config, "sliding_window", None)
    if window is not None and window < config.max_position_embeddings:
        raise unlike_ours("sliding_window", "null or unused", window)


def rotary_frequencies(config: Any) -> tuple[torch.Tensor, float]:
    """Inverse frequencies ``[D / 2]`` and the attention factor of the config's rope scaling.

    default: ``theta^(-2i/D)`` (Su et al., arXiv 2104.09864). linear, llama3 and yarn (Peng et al.,
    arXiv 2309.00071): from transformers.
    """
    rope = config.rope_parameters or {}
    rope_type = rope.get("rope_type", "default")
    if rope_type != "default":
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        return ROPE_INIT_FUNCTIONS[rope_type](config, torch.device("cpu"))
    theta = float(rope.get("rope_theta") or 10000.0)
    dim = head_dim(config)
    return 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.int64).float() / dim), 1.0

"""A checkpoint's ``quantization_config``: AWQ and GPTQ in 4 bits are read, others are refused."""

from dataclasses import dataclass
from typing import Any, Literal

from sparing.errors import ModelError

FIELD = "config field quantization_config"
ADVICE = "take the model's GGUF, or its checkpoint in bfloat16 with weights='q8_0' (--weights q8_0)"
BLOCK = 32  # columns; a group must hold whole blocks
GPTQ_OFFSETS = {"gptq": 1, "gptq_v2": 0}  # format -> what is added to a stored zero


@dataclass(frozen=True)
class Quantization:
    """How a checkpoint packs its matrices.

    ``group``: columns with one scale and one zero; None: all
    ``offset``: what is added to a stored zero
    """

    method: Literal["awq", "gptq"]
    group: int | None
    offset: int = 0

    def groups(self, columns: int) -> int:
        """Number of groups in a row."""
        return -(-columns // (self.group or columns))


def read_quantization(config: Any) -> Quantization | None:
    """The packing that a config names; None for a checkpoint in floats.

    Raises ModelError with the name of an unsupported kind or field.
    """
    if not config:
        return None
    fields: dict[str, Any] = config if isinstance(config, dict) else config.to_dict()
    kind = kind_of(fields)
    if kind not in ("awq", "gptq"):
        raise refused("quant_method", "awq or gptq, or the checkpoint in floats", kind)
    bits = fields.get("bits", fields.get("w_bit", 4))
    if bits != 4:
        raise refused("bits", "4", bits)
    group = fields.get("group_size", fields.get("q_group_size", 128))
    if type(group) is not int or (group != -1 and (group < 1 or group % BLOCK)):
        raise refused("group_size", f"-1 or a multiple of {BLOCK}", group)
    return Quantization(kind, None if group == -1 else group, zero_offset(kind, fields))


def kind_of(fields: dict[str, Any]) -> Any:
    """The name of the method; bitsandbytes may leave it out."""
    if any(fields.get(name) for name in ("load_in_4bit", "load_in_8bit")):
        return "bitsandbytes"
    return fields.get("quant_method")


def zero_offset(kind: str, fields: dict[str, Any]) -> int:
    """What is added to a stored zero; raises ModelError for another layout of the numbers."""
    layout = fields.get("version") if kind == "awq" else fields.get("checkpoint_format")
    layout = layout or fields.get("format") or ("gemm" if kind == "awq" else "gptq")
    if fields.get("is_marlin_format"):
        layout = "marlin"
    if fields.get("backend") == "llm-awq":
        layout = "llm-awq"
    layout = str(layout).lower()
    known = {"gemm": 0} if kind == "awq" else GPTQ_OFFSETS
    if layout not in known:
        raise refused(
            "version" if kind == "awq" else "checkpoint_format", " or ".join(known), layout
        )
    if kind == "awq" and not fields.get("zero_point", True):
        raise refused("zero_point", "true", False)
    return known[layout]


def refused(name: str, must: str, got: object) -> ModelError:
    return ModelError(f"{FIELD}: {name} must be {must}, got {got!r}; {ADVICE}")

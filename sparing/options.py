"""The options of Python, command line and server: one vocabulary, checked before weights load.

Every field that is ``None`` means "as the model or the method would have it".
"""

from importlib.metadata import entry_points
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sparing.errors import OptionError

PolicyName = Literal[
    "auto",
    "full",
    "window",
    "streaming",
    "h2o",
    "snapkv",
    "rkv",
    "sepllm",
    "random",
    "bottom",
    "learned",
]
POLICY_GROUP = "sparing.policies"  # entry points of packages that bring a policy of their own
DraftName = Literal["auto", "off", "lookup", "layers", "hybrid"]
KvName = Literal["auto", "float32", "float16", "q8"]
LatentMode = Literal["off", "learned", "confidence"]


class Options(BaseModel):
    """Frozen, closed to unknown names; a wrong value raises ``OptionError`` with one line."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise OptionError(one_line(type(self), error)) from None


def one_line(options: type[BaseModel], error: ValidationError) -> str:
    """The first complaint of a pydantic error as `what must hold, what came, what to do`."""
    first = error.errors()[0]
    field = str(first["loc"][0]) if first["loc"] else options.__name__.lower()
    if first["type"] == "extra_forbidden":
        known = ", ".join(options.model_fields)
        return f"{options.__name__} has no option {field}; it has {known}"
    message = first["msg"].removeprefix("Value error, ")
    if message.startswith("Input should be "):
        expected = [first]
        if isinstance(first["loc"][-1], str):  # a union fails once a member: (field, "int"), ...
            expected = [e for e in error.errors() if e["loc"][:1] == first["loc"][:1]]
        message = "must be " + " or ".join(
            e["msg"].removeprefix("Input should be ") for e in expected
        )
    if first["type"] == "value_error":
        return message if field == options.__name__.lower() else f"{field} {message}"
    return f"{field} {message}, got {first['input']!r}"


def known_policies() -> list[str]:
    """Policies by name: the built-in ones, then those that installed packages bring."""
    known = get_args(PolicyName)
    return [*known, *sorted(entry_points(group=POLICY_GROUP).names - set(known))]


def is_policy(value: Any) -> bool:
    """Whether it has what an ``EvictionPolicy`` must have; a class is none yet."""
    parts = (getattr(value, name, None) for name in ("name", "watches", "score"))
    name, watches, score = (None,) * 3 if isinstance(value, type) else parts
    return isinstance(name, str) and isinstance(watches, int) and watches >= 0 and callable(score)


class Memory(Options):
    """KV memory: what a row may hold, and who chooses what stays (spec/memory.md, DynTS).

    ``budget``: cached tokens that trigger an eviction; an int counts tokens, a float is a share
    ``s`` and means ``question + s * max_new_tokens``; ``None`` keeps everything.
    ``local``: how many of the most recent tokens are protected, a count or a ratio of what the
    budget leaves beside the question. ``selection``: how many of the unprotected survive an
    eviction, a count or a ratio of them. By default both are what the model's importance predictor
    says, else 0.4, the paper's. ``policy``: a name of ``known_policies``, or one's own
    ``EvictionPolicy``. ``kv``: how keys and values are stored; auto is float32 beside float32
    weights, else float16; q8 has 8 bits and a scale for each head and slot.
    """

    budget: int | float | None = None
    local: int | float | None = None
    selection: int | float | None = None
    policy: Annotated[Any, Field(json_schema_extra=lambda s: s.update(enum=known_policies()))] = (
        "auto"
    )
    kv: KvName = "auto"

    @field_validator("policy")
    @classmethod
    def _policy(cls, value: Any) -> Any:
        if isinstance(value, str) and (value in get_args(PolicyName) or value in known_policies()):
            return value
        if isinstance(value, str) or not is_policy(value):
            *names, last = map(repr, known_policies())
            raise ValueError(
                f"must be {', '.join(names)} or {last}, or an object with name, watches and score, "
                f"got {value!r}"
            )
        return value

    @field_validator("budget", "local", "selection")
    @classmethod
    def _count_or_share(cls, value: int | float | None) -> int | float | None:
        if isinstance(value, float) and not 0 < value <= 1:
            raise ValueError(f"as a share must lie in (0, 1], got {value}; give a count as an int")
        if isinstance(value, int) and value < 0:
            raise ValueError(f"must be 0 tokens or more, got {value}")
        return value

    @field_validator("local")
    @classmethod
    def _some(cls, value: int | float | None) -> int | float | None:
        if value == 0:
            raise ValueError("must be 1 token or more, got 0")
        return value

    @model_validator(mode="after")
    def _pairs(self) -> "Memory":
        if self.budget is None:
            for name in ("local", "selection"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} needs a budget, got none; pass a budget too")
            if self.policy not in ("auto", "full"):
                name = getattr(self.policy, "name", self.policy)
                raise ValueError(f"policy {name} needs a budget, got none; pass a budget too")
        elif self.policy == "full":
            raise ValueError("policy full keeps everything: pass no budget, or another policy")
        return self


class Depth(Options):
    """Drafting: which drafter proposes tokens that the full model verifies (nothing is lost).

    ``lookup`` goes on as the text did before, ``layers`` leaves sub-layers out (spec/depth.md,
    SWIFT), ``hybrid`` is the first where it finds something, else the second; ``auto`` the fastest.
    ``max_draft`` bounds a draft's tokens; ``confidence``: of the drafting layers, below which a
    draft ends; ``trees``: likely siblings are verified too. The set is the one known for ``task``,
    else looked for: ``interval`` tokens before each of ``blocks`` rounds, on the last ``window``
    tokens; ``objective``: speed, or matchness at one ratio, as the paper.
    """

    draft: DraftName = "auto"
    max_draft: Annotated[int, Field(ge=1, le=64)] = 25
    confidence: Annotated[float, Field(ge=0, le=1)] = 0.8
    trees: bool = False
    task: str | None = None
    window: Annotated[int, Field(ge=8, le=256)] = 32
    interval: Annotated[int, Field(ge=1)] = 64
    blocks: Annotated[int, Field(ge=1)] = 8
    objective: Literal["speed", "matchness"] = "speed"

    @model_validator(mode="after")
    def _pairs(self) -> "Depth":
        if self.trees and self.draft in ("off", "lookup"):
            raise ValueError(
                f"trees needs draft layers, hybrid or auto, got {self.draft}; leave trees out"
            )
        if self.task is not None and self.objective == "matchness":
            raise ValueError(
                f"task needs objective speed: matchness looks for a set of its own, got task "
                f"{self.task!r}; leave one of them out"
            )
        return self


class Latent(Options):
    """Thinking without words, for models that have learned it (spec/latent.md, LT-Tuning).

    ``learned``: a latent step where the model says so; ``confidence``: where its likeliest word has
    a probability below ``tau``. ``in_a_row``: at most so many before a word; ``most``: in all. By
    default as the model was trained.
    """

    mode: LatentMode = "off"
    tau: Annotated[float, Field(ge=0, le=1)] | None = None
    in_a_row: Annotated[int, Field(ge=1)] | None = None
    most: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _pairs(self) -> "Latent":
        for name, modes in (
            ("tau", ["confidence"]),
            ("in_a_row", ["learned", "confidence"]),
            ("most", ["learned", "confidence"]),
        ):
            if getattr(self, name) is not None and self.mode not in modes:
                raise ValueError(f"{name} needs latent {' or '.join(modes)}, got {self.mode}")
        return self


class Sampling(Options):
    """How the next token is drawn and when a row ends; ``None``: as ``generation_config.json``.

    ``temperature`` 0 is greedy. A filter (top_k, top_p, min_p) given without a temperature draws
    at temperature 1. ``seed``: the noise of the row, a fresh one where none is given.
    ``think_budget``: most tokens a thought may have, its end marker included; then it is closed.
    ``logprobs``: tell each token's log-probability, and so many of the likeliest tokens beside it.
    """

    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: list[str] = Field(default_factory=list)
    stop_token_ids: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list)
    ignore_eos: bool = False
    think_budget: Annotated[int, Field(ge=0)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, value: list[str]) -> list[str]:
        if any(not stop for stop in value):
            raise ValueError("strings must have a character or more, got an empty one")
        return value

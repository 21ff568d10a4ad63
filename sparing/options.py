"""The options of Python, command line and server: one vocabulary, checked before weights load.

A field's description is the help of its flag. ``None`` leaves the choice to the model or the
method. Nothing here imports torch.
"""

import inspect
import textwrap
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from sparing.errors import OptionError

POLICY_CLASSES = {  # as paths, so that names are known without importing torch
    name: f"sparing.memory.policies.{name}.{cls}"
    for name, cls in {
        "window": "Window",
        "streaming": "Streaming",
        "h2o": "H2O",
        "snapkv": "SnapKV",
        "rkv": "RKV",
        "sepllm": "SepLLM",
        "random": "Random",
        "bottom": "Bottom",
        "learned": "Learned",
    }.items()
}
POLICY_NAMES = ("auto", "full", *POLICY_CLASSES)
POLICY_GROUP = "sparing.policies"  # entry points of packages that bring a policy of their own
DraftName = Literal["auto", "off", "lookup", "layers", "hybrid"]
KvName = Literal["auto", "float32", "float16", "q8"]
LatentMode = Literal["off", "learned", "confidence"]
WeightsName = Literal[
    "auto", "float32", "float16", "bfloat16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"
]
DtypeName = Literal["float32", "bfloat16", "float16", "float64"]
DecoderName = Literal["auto", "fast", "hub"]
Given = TypeVar("Given", bound="Options")
INDENTED: Any = {"initial_indent": "    ", "subsequent_indent": "        "}


class Options(BaseModel):
    """Frozen, closed to unknown names; a wrong value raises ``OptionError`` with one line."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """A signature of names, and a docstring with the fields, for ``help``."""
        fields = cls.model_fields.items()
        defaults = {name: f.get_default(call_default_factory=True) for name, f in fields}
        lines = [
            textwrap.fill(f"{name} ({defaults[name]!r}): {field.description}", 96, **INDENTED)
            for name, field in fields
        ]
        by_name = inspect.Parameter.KEYWORD_ONLY
        cls.__signature__ = inspect.Signature(
            [inspect.Parameter(name, by_name, default=d) for name, d in defaults.items()]
        )
        cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__ or ""), "", "Fields:", *lines])

    def __init__(self, *given: Any, **values: Any) -> None:
        """By name alone; raises OptionError."""
        if given:
            first = next(iter(type(self).model_fields))
            raise OptionError(
                f"{type(self).__name__} takes its options by name, as in {type(self).__name__}"
                f"({first}=...), got {given[0]!r} without one"
            )
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise OptionError(one_line(type(self), error)) from None


def as_options(name: str, value: Any, of: type[Given]) -> Given:
    """``value`` as options: the options themselves, a dict of them, or None for the defaults.

    Raises OptionError for anything else, naming the argument.
    """
    if value is None:
        return of()
    if isinstance(value, Mapping):
        return of(**value)
    if not isinstance(value, of):
        kind = type(value).__name__
        advice = f"pass it as {kind.lower()}=" if isinstance(value, Options) else "see its fields"
        raise OptionError(f"{name} must be a {of.__name__} or a dict, got a {kind}; {advice}")
    return value


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
    brought = entry_points(group=POLICY_GROUP).names - set(POLICY_NAMES)
    return [*POLICY_NAMES, *sorted(brought)]


def is_policy(value: Any) -> bool:
    """Whether it is an ``EvictionPolicy``: an object, not its class."""
    parts = (getattr(value, name, None) for name in ("name", "watches", "score"))
    name, watches, score = (None,) * 3 if isinstance(value, type) else parts
    return isinstance(name, str) and isinstance(watches, int) and watches >= 0 and callable(score)


class Loading(Options):
    """How a model is loaded: the arguments of ``load`` that need no torch to be checked."""

    weights: WeightsName = Field(
        default="auto", description="precision of the weights; auto keeps what the file has"
    )
    dtype: DtypeName = Field(
        default="float32", description="what is computed in; torch computes in all but float32"
    )
    threads: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="threads of torch and of the kernels"
    )
    decoder: DecoderName = Field(
        default="auto",
        description="hub runs any causal model through transformers; auto does where fast cannot",
    )
    device: str = Field(default="cpu", description="what torch calls it: cpu, cuda, cuda:1")
    trust_remote_code: bool = Field(default=False, description="run code that comes with a model")

    @model_validator(mode="after")
    def _hub_takes_what_is_there(self) -> "Loading":
        if self.decoder == "hub" and self.weights != "auto":
            raise ValueError(f"weights must be auto with decoder hub, got {self.weights!r}")
        return self


class Memory(Options):
    """KV memory: what a row may hold, and what stays (DynTS, arXiv 2601.18383).

    A budget share ``s`` means ``question + s * max_new_tokens``; without a budget everything is
    kept. ``local`` and ``selection`` are by default what the model's importance predictor says,
    else 0.4, the paper's. ``policy``: a name of ``known_policies``, or an ``EvictionPolicy``.
    """

    budget: int | float | None = Field(
        default=None,
        description="cached tokens at most; a share s is question + s * max_new_tokens",
    )
    local: int | float | None = Field(
        default=None,
        description="most recent tokens, never evicted; a share is of budget - question",
    )
    selection: int | float | None = Field(
        default=None, description="older tokens that survive an eviction, as a count or a share"
    )
    policy: Any = Field(
        default="auto",
        description=f"what stays: {', '.join(POLICY_NAMES)}, or an installed policy",
        json_schema_extra=lambda schema: schema.update(enum=list[Any](known_policies())),
    )
    kv: KvName = Field(
        default="auto",
        description="how keys and values are stored; auto: float32 beside float32 weights, else "
        "float16",
    )

    @field_validator("policy")
    @classmethod
    def _policy(cls, value: Any) -> Any:
        if isinstance(value, str) and (value in POLICY_NAMES or value in known_policies()):
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
    def _count_or_share(cls, value: int | float | None, info: ValidationInfo) -> int | float | None:
        if isinstance(value, float) and not 0 < value <= 1:
            raise ValueError(f"as a share must lie in (0, 1], got {value}; give a count as an int")
        least = 0 if info.field_name == "selection" else 1
        if isinstance(value, int) and value < least:
            raise ValueError(f"must be {least} token{'' if least else 's'} or more, got {value}")
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
    """Drafting: cheap tokens that the full model verifies. Drafting never changes a token.

    ``lookup`` continues as the text did before. ``layers`` leaves sub-layers out (SWIFT, arXiv
    2410.06916). ``hybrid`` is lookup where it finds something, else layers. ``auto`` is the fastest
    by the clock. A layer set that is not known for ``task`` is searched for while decoding.
    """

    draft: DraftName = Field(default="auto", description="drafter; drafting never changes a token")
    max_draft: int = Field(default=25, ge=1, le=64, description="tokens of a draft at most")
    confidence: float = Field(
        default=0.8, ge=0, le=1, description="drafting by layers stops below this probability"
    )
    trees: bool = Field(default=False, description="verify likely siblings too")
    task: str | None = Field(
        default=None,
        description="task whose tuned layer set drafts; by default the first that is known",
    )
    window: int = Field(
        default=32,
        ge=8,
        le=256,
        description="recent tokens on which the search compares layer sets",
    )
    interval: int = Field(default=64, ge=1, description="tokens before each round of the search")
    blocks: int = Field(default=8, ge=1, description="rounds of the search")
    objective: Literal["speed", "matchness"] = Field(
        default="speed",
        description="what the search looks for: speed, or matchness at one ratio, as the paper",
    )

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
    """Thinking without words, for models that have learned it (LT-Tuning, arXiv 2602.10229).

    ``learned``: a latent step where the model says so. ``confidence``: where its likeliest word has
    a probability below ``tau``. The other fields are by default as the model was trained.
    """

    mode: LatentMode = Field(
        default="off", description="thinking without words, where the model says so or is unsure"
    )
    tau: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="with confidence: a latent step below this probability"
    )
    in_a_row: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="latent steps between two words at most"
    )
    most: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="latent steps at most"
    )

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

    A filter (top_k, top_p, min_p) given without a temperature draws at temperature 1. Without a
    ``seed`` each row has a fresh one. The end marker of a thought counts in ``think_budget``.
    """

    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None, description="0 is greedy"
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="draw among the likeliest tokens of this total probability"
    )
    top_k: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="draw among this many likeliest tokens"
    )
    min_p: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="least probability, as a share of the likeliest token's"
    )
    repetition_penalty: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="above 1: repeat less"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = Field(
        default=None, description="of the noise; the same seed draws the same tokens"
    )
    max_new_tokens: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="end after this many new tokens; by default as the model says, else what the "
        "context leaves for a thinking model, and 1024 for others",
    )
    stop: list[str] = Field(
        default_factory=list, description="end where this text appears (repeatable)"
    )
    stop_token_ids: list[Annotated[int, Field(ge=0)]] = Field(
        default_factory=list, description="end at this token id (repeatable)"
    )
    stop_in: Literal["answer", "text"] | None = Field(
        default=None,
        description="where stop strings count: in the answer (default for chats) or in all text",
    )
    ignore_eos: bool = Field(default=False, description="continue after the end token")
    think_budget: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="close the thought after this many tokens"
    )
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(
        default=None, description="log-probability of each token, and of this many likeliest ones"
    )

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, value: list[str]) -> list[str]:
        if any(not stop for stop in value):
            raise ValueError("strings must have a character or more, got an empty one")
        return value

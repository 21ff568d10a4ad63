"""Fields that clients of other servers send: each is ignored, neutral, or moved to its own place.

A neutral value asks for nothing that is not done anyway; any other one is refused by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import PydanticCustomError

FIELD_ERROR = "field"  # the type of the errors of ``wrong``
EVERY_TOKEN = 2**31 - 1  # a top_k that leaves out none


@dataclass(frozen=True)
class Ignored:
    """Names something for the client or its provider; it changes no answer."""


@dataclass(frozen=True)
class Neutral:
    """Not supported: only ``values`` are accepted."""

    values: tuple[Any, ...] = ()

    def check(self, name: str, value: Any) -> None:
        if any(same(value, neutral) for neutral in self.values):
            return
        if not self.values:
            raise wrong(name, "is not supported here; leave it out", "unsupported_parameter")
        shown = " or ".join(map(ascii, self.values))
        said = f"must be {shown} here, got {ascii(value)[:80]}; leave it out"
        raise wrong(name, said, "unsupported_parameter")


@dataclass(frozen=True)
class Moved:
    """Another name of a field within ``sparing``.

    ``instead``: values with another meaning there
    """

    path: tuple[str, ...]
    instead: Mapping[Any, Any] = field(default_factory=dict)


Rule = Ignored | Neutral | Moved
CLIENTS = (
    "user",
    "metadata",
    "store",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "service_tier",
    "cache_salt",
    "priority",
    "request_id",
)
OF_ALL: dict[str, Rule] = {
    **dict.fromkeys(CLIENTS, Ignored()),
    "frequency_penalty": Neutral((0,)),
    "presence_penalty": Neutral((0,)),
    "logit_bias": Neutral(({},)),
    "best_of": Neutral((1,)),
    "echo": Neutral((False,)),
    "length_penalty": Neutral((1,)),
    "use_beam_search": Neutral((False,)),
    "min_tokens": Neutral((0,)),
    "bad_words": Neutral(([],)),
    "skip_special_tokens": Neutral((True,)),
    "spaces_between_special_tokens": Neutral((True, False)),
    "include_stop_str_in_output": Neutral((False,)),
    "top_k": Moved(("sampling", "top_k"), {-1: EVERY_TOKEN, 0: EVERY_TOKEN}),
    "min_p": Moved(("sampling", "min_p")),
    "repetition_penalty": Moved(("sampling", "repetition_penalty")),
    "stop_token_ids": Moved(("sampling", "stop_token_ids")),
    "ignore_eos": Moved(("sampling", "ignore_eos")),
    "thinking_token_budget": Moved(("sampling", "think_budget")),
}
OF_CHAT: dict[str, Rule] = OF_ALL | {
    "tools": Neutral(([],)),
    "tool_choice": Neutral(("none", "auto")),
    "parallel_tool_calls": Neutral((True, False)),
    "functions": Neutral(([],)),
    "function_call": Neutral(("none", "auto")),
    "response_format": Neutral(({"type": "text"},)),
    "modalities": Neutral((["text"],)),
    "verbosity": Neutral(("medium",)),
    "documents": Neutral(([],)),
    "add_generation_prompt": Neutral((True,)),
    "continue_final_message": Neutral((False,)),
    "include_reasoning": Neutral((True,)),
    "chat_template_kwargs": Moved(("template_options",)),
    "enable_thinking": Moved(("template_options", "enable_thinking")),
    "reasoning_effort": Moved(("template_options", "reasoning_effort")),
}
OF_TEXT: dict[str, Rule] = OF_ALL | {"suffix": Neutral(("",))}
OF_STREAMS: dict[str, Rule] = {
    "include_obfuscation": Ignored(),
    "continuous_usage_stats": Neutral((False,)),
}
OF_MESSAGES: dict[str, Rule] = {
    "tool_calls": Neutral(([],)),
    "function_call": Neutral(),
    "audio": Neutral(),
}


def wrong(name: str, said: str, code: str = "invalid_value") -> PydanticCustomError:
    """The error of a field, for a validator of its model."""
    return PydanticCustomError(FIELD_ERROR, "{said}", {"field": name, "said": said, "code": code})


def without_others(given: Mapping[str, Any], rules: Mapping[str, Rule]) -> dict[str, Any]:
    """The fields of a body, those of other servers checked and moved."""
    fields = {name: value for name, value in given.items() if name not in rules}
    for name, value in given.items():
        match rules.get(name):
            case Neutral() as rule:
                rule.check(name, value)
            case Moved() as rule:
                hashable = isinstance(value, int | float | str) and not isinstance(value, bool)
                value = rule.instead.get(value, value) if hashable else value
                put(fields, ("sparing", *rule.path), value, name)
    return fields


def put(fields: dict[str, Any], path: tuple[str, ...], value: Any, name: str) -> None:
    """Set the field at a path, in copies of the dicts on the way; other dicts are merged.

    Raises the error of the field ``name`` if another value is there.
    """
    key, *rest = path
    if rest or isinstance(value, dict):
        below = fields.get(key)
        if below is not None and not isinstance(below, dict):
            return  # refused later, for its type
        fields[key] = dict(below or {})
        for inner, one in [(rest[0], value)] if rest else list(value.items()):
            put(fields[key], (inner, *rest[1:]), one, name)
    elif fields.get(key) is not None and not same(fields[key], value):
        raise wrong(name, "must be given once, got two values; leave one of them out")
    else:
        fields[key] = value


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal; true is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def schema_of(rule: Rule) -> dict[str, Any]:
    """The JSON schema of a field."""
    if isinstance(rule, Neutral):
        return {"enum": [*rule.values, None]}
    return {"description": "ignored" if isinstance(rule, Ignored) else
            f"the same as sparing.{'.'.join(rule.path)}"}  # fmt: skip

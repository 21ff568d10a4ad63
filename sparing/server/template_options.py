"""The options that a request gives to the chat template: whether and how long the model thinks."""

import re
from typing import Any

from sparing.model.chat import ChatFormat
from sparing.server.errors import Refused

OURS = (  # variables and arguments of the rendering that are not a request's
    "messages",
    "tools",
    "documents",
    "chat_template",
    "add_generation_prompt",
    "continue_final_message",
    "tokenize",
    "tokenizer_kwargs",
    "return_dict",
    "return_tensors",
    "return_assistant_tokens_mask",
    "padding",
    "truncation",
    "max_length",
)
USUAL_EFFORT = "medium"  # of a model without levels


def template_options(
    given: dict[str, Any], no_think: bool | None, no_think_default: bool, chat: ChatFormat
) -> dict[str, Any] | None:
    """The variables for the template of ``chat``; None without any.

    ``no_think``: the request's own. Variables that the template does not read change nothing and
    are left out. Raises Refused for those that would, but cannot be done.
    """
    options, read = dict(given), names(chat)
    for name in options:
        if name in OURS:
            raise refused(f"template_options.{name}", "is set by the server; leave it out")
    if options.get("reasoning_effort") == "none":
        del options["reasoning_effort"]
        no_think = True
    effort = options.get("reasoning_effort", USUAL_EFFORT)
    if effort != USUAL_EFFORT and "reasoning_effort" not in read:
        raise refused(
            "reasoning_effort",
            f"must be none or {USUAL_EFFORT} for this model, whose chat template has no levels, "
            f"got {ascii(effort)[:80]}; limit its thinking with thinking_token_budget",
        )
    thinks = thinking(options.pop("enable_thinking", None), no_think)
    if thinks is False and "enable_thinking" not in read and chat.markers is not None:
        raise refused(
            "no_think",
            "(enable_thinking false, reasoning_effort none) needs a chat template with "
            "enable_thinking, and this model has none; leave it out",
        )
    options = {name: value for name, value in options.items() if name in read}
    if thinks is None and no_think_default:
        thinks = False
    return options if thinks is None else options | {"enable_thinking": thinks}


def thinking(enabled: Any, no_think: bool | None) -> bool | None:
    """Whether the model is asked to think; None: as the template has it."""
    if enabled is not None and not isinstance(enabled, bool):
        raise refused("enable_thinking", f"must be true or false, got {ascii(enabled)[:80]}")
    if None not in (enabled, no_think) and enabled == no_think:
        raise refused("enable_thinking", "and no_think must agree; leave one of them out")
    return enabled if no_think is None else not no_think


def names(chat: ChatFormat) -> set[str]:
    """The words of the chat template: all variables that it can read, and more."""
    return set(re.findall(r"\w+", str(chat.tokenizer.chat_template or "")))


def refused(name: str, said: str) -> Refused:
    return Refused(400, f"{name} {said}", param=name, code="unsupported_parameter")

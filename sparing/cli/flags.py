"""The flags that several commands share: each group a dataclass that a command takes whole."""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import typer

from sparing.errors import OptionError
from sparing.options import (
    Depth,
    DraftName,
    KvName,
    Latent,
    LatentMode,
    Memory,
    PolicyName,
    Sampling,
)

N = TypeVar("N", int, float)


def count_or_share(given: str | float) -> int | float:
    """``512`` is a count, ``0.25`` a share; a flag's default comes through here as a number."""
    text = str(given)
    try:
        return float(text) if any(mark in text for mark in ".eE") else int(text)
    except ValueError:
        raise typer.BadParameter(f"must be a count (512) or a share (0.25), got {text!r}") from None


def flag(help_: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help_, **more)


def numbers(name: str, text: str, of: type[N]) -> list[N]:
    """What ``--name`` gives with commas between; raises OptionError."""
    try:
        return [of(part) for part in text.split(",")]
    except ValueError:
        kind = "whole numbers" if of is int else "numbers"
        raise OptionError(f"--{name} must be {kind} with commas, got {text!r}") from None


def number(help_: str) -> Any:
    return flag(help_, parser=count_or_share, metavar="COUNT|SHARE")


@dataclass
class ModelFlags:
    """How a model is loaded that is to have no predictor: it is yet to be trained."""

    model: Annotated[
        str, flag("a name of `sparing models`, a directory in Hugging Face format, or a hub id")
    ] = "pocket"
    weights: Annotated[
        str,
        flag(
            "precision: auto as the file has it, float32, bfloat16, float16, q8_0, q5_0, q4_0 ..."
        ),
    ] = "auto"
    dtype: Annotated[
        str, flag("computed in float32, or by torch in bfloat16, float16 or float64")
    ] = "float32"
    threads: Annotated[int | None, flag("threads")] = None
    decoder: Annotated[
        str, flag("auto, fast, or hub: any architecture, slowly, through transformers")
    ] = "auto"

    def load(self) -> Any:
        """The engine."""
        return load_quietly(self, False)


@dataclass
class LoadingFlags(ModelFlags):
    """How a model is loaded."""

    predictor: Annotated[
        str | None, flag("directory of an importance predictor; by default the model's own")
    ] = None

    def load(self) -> Any:
        """The engine."""
        return load_quietly(self, self.predictor)


def load_quietly(flags: ModelFlags, predictor: Any) -> Any:
    """The engine; transformers keeps quiet meanwhile."""
    from sparing.api import load

    quiet_transformers()
    return load(
        flags.model,
        flags.weights,
        flags.dtype,
        threads=flags.threads,
        decoder=flags.decoder,
        predictor=predictor,
    )


def quiet_transformers() -> None:
    """No warnings and no bars of its own: what is wrong with a model is said by us."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@dataclass
class SeedlessFlags:
    """What is spared, and how the next token is drawn: all but the seed of the noise."""

    budget: Annotated[
        Any, number("KV cache in tokens; a share s means question + s * max-new-tokens")
    ] = None
    local: Annotated[Any, number("most recent tokens, protected from eviction")] = None
    selection: Annotated[Any, number("how many of the unprotected survive an eviction")] = None
    policy: Annotated[
        str, flag(f"which slots stay: {', '.join(get_args(PolicyName))}, or an installed one")
    ] = "auto"
    kv: Annotated[str, flag(f"how keys and values are stored: {', '.join(get_args(KvName))}")] = (
        "auto"
    )
    draft: Annotated[str, flag(f"who drafts: {', '.join(get_args(DraftName))}")] = "auto"
    depth_task: Annotated[
        str | None, flag("whose tuned layer set drafts; by default the first that is known")
    ] = None
    objective: Annotated[
        str, flag("how a set is looked for: speed, or matchness, the paper's schedule")
    ] = "speed"
    latent: Annotated[str, flag(f"thinking without words: {', '.join(get_args(LatentMode))}")] = (
        "off"
    )
    max_new_tokens: Annotated[int | None, flag("end after so many new tokens")] = None
    ignore_eos: Annotated[bool, flag("go on after the end token", "--ignore-eos")] = False
    temperature: Annotated[float | None, flag("0 is greedy")] = None
    top_p: Annotated[float | None, flag("nucleus sampling")] = None
    top_k: Annotated[int | None, flag("draw among the k likeliest")] = None
    min_p: Annotated[float | None, flag("least share of the likeliest token's probability")] = None
    repetition_penalty: Annotated[float | None, flag("over 1: say less again")] = None
    stop: Annotated[list[str] | None, flag("end where this text appears (may be repeated)")] = None
    think_budget: Annotated[int | None, flag("close the thought after so many tokens")] = None
    no_think: Annotated[
        bool, flag("ask the chat template to leave the thought out", "--no-think")
    ] = False

    def options(self) -> dict[str, Any]:
        """The keyword arguments of ``Engine.stream``; raises OptionError before weights load."""
        return {
            "memory": Memory(**self._values(Memory)),
            "depth": Depth(draft=self.draft, task=self.depth_task, objective=self.objective),  # type: ignore[arg-type]
            "latent": Latent(mode=self.latent),  # type: ignore[arg-type]
            "sampling": Sampling(**self._values(Sampling)),
            "template_options": {"enable_thinking": False} if self.no_think else None,
        }

    def _values(self, options: type) -> dict[str, Any]:
        """The flags that this group of options knows; those not given are left to it."""
        names = options.model_fields  # type: ignore[attr-defined]
        values = {name: getattr(self, name, None) for name in names}
        return {name: value for name, value in values.items() if value is not None}


@dataclass
class DecodingFlags(SeedlessFlags):
    """The same with the seed, for commands whose ``--seed`` means the noise."""

    seed: Annotated[int | None, flag("of the noise; the same seed draws the same tokens")] = None


def takes_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command have dataclasses of flags as parameters: the command line sees their fields."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if is_dataclass(hint)}

    @wraps(command)
    def run(**values: Any) -> Any:
        for name, group in groups.items():
            taken = {f.name: values.pop(f.name) for f in fields(group)}
            values[name] = group(**taken)  # type: ignore[operator]
        return command(**values)

    parameters: list[Parameter] = []
    for name, parameter in signature(command).parameters.items():
        if name not in groups:
            parameters.append(parameter.replace(annotation=hints[name]))
            continue
        field_hints = get_type_hints(groups[name], include_extras=True)
        for f in fields(groups[name]):
            parameters.append(
                Parameter(
                    f.name,
                    Parameter.KEYWORD_ONLY,
                    default=f.default,
                    annotation=field_hints[f.name],
                )
            )
    parameters.sort(key=lambda p: p.kind)
    run.__signature__ = signature(command).replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run

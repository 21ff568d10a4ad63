"""Flags made from the fields of options: name, type, default and help are the field's.

A command's parameter of a class of ``Options`` gives it a flag for each field; the command is
called with the options, checked. Dataclasses of flags are taken whole in the same way.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from functools import wraps
from inspect import Parameter, signature
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeGuard, TypeVar, Union, get_args, get_origin
from typing import get_type_hints as hints_of

import typer
from pydantic.fields import FieldInfo
from typer.models import OptionInfo

from sparing.errors import OptionError, PromptError
from sparing.options import Options

N = TypeVar("N", int, float)
FIELD = re.compile(r"^[a-z_]+(?= )|(?<![\w.'\"/-])[a-z]+(_[a-z]+)+(?![\w(='\"/]|\.\w)")


@dataclass(frozen=True)
class Flags:
    """Which flags stand for a group of options, beside it in ``Annotated``.

    of: the options, where the parameter is a dict: of their values, to be completed and checked
    without: fields that have no flag
    renamed: flags by field, where they differ from it
    """

    of: type[Options] | None = None
    without: Collection[str] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)


EVERY = Flags()


def flags_of(options: type[Options], how: Flags = EVERY) -> dict[str, FieldInfo]:
    """The fields that have flags, by the flags' names; those of groups within it too."""
    found: dict[str, FieldInfo] = {}
    for name, info in options.model_fields.items():
        if name in how.without:
            continue
        if is_options(info.annotation):
            found |= flags_of(info.annotation, flags_in(info.metadata))
        else:
            found[how.renamed.get(name, name)] = info
    return found


def values_of(
    options: type[Options],
    values: dict[str, Any],
    how: Flags,
    shown: Callable[[str], str] | None = None,
) -> dict[str, Any]:
    """What the flags gave, taken out of ``values``, by field; raises OptionError."""
    found: dict[str, Any] = {}
    for name, info in options.model_fields.items():
        if name in how.without:
            continue
        if is_options(inner := info.annotation):
            found[name] = built(inner, values, flags_in(info.metadata), shown)
        elif (value := values.pop(how.renamed.get(name, name))) not in (None, [], ()):
            found[name] = value
    return found


def fields_of(options: type[Options], how: Flags = EVERY) -> dict[str, str]:
    """The flags by field; those of groups within it too."""
    found: dict[str, str] = {}
    for name, info in options.model_fields.items():
        if is_options(info.annotation):
            found |= fields_of(info.annotation, flags_in(info.metadata))
        elif name not in how.without:
            found[name] = how.renamed.get(name, name)
    return found


def built(
    options: type[Options],
    values: dict[str, Any],
    how: Flags,
    shown: Callable[[str], str] | None = None,
) -> Options:
    """The options that the flags ask for; an error names the flags, as ``shown`` writes them."""
    given = values_of(options, values, how, shown)
    with named(fields_of(options, how), shown):
        return options(**given)


@contextmanager
def named(flags: Mapping[str, str], shown: Callable[[str], str] | None = None) -> Iterator[None]:
    """An error of options or prompts from within names flags instead of fields.

    ``flags``: by field. The error's first word is a field, and so is a name with an underscore
    wherever it stands. ``shown``: how a flag is written; by default with dashes.
    """
    write = shown or as_flag

    def flag_of(found: re.Match[str]) -> str:
        return write(flags[found[0]]) if found[0] in flags else found[0]

    try:
        yield
    except (OptionError, PromptError) as error:
        error.args = (FIELD.sub(flag_of, str(error)),)
        raise


def is_flag(parameter: Parameter) -> bool:
    """Whether a command's parameter is no argument."""
    return any(isinstance(each, OptionInfo) for each in get_args(parameter.annotation)[1:])


def as_flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def flags_in(metadata: Collection[Any]) -> Flags:
    return next((each for each in metadata if isinstance(each, Flags)), EVERY)


def is_options(annotation: Any) -> TypeGuard[type[Options]]:
    return isinstance(annotation, type) and issubclass(annotation, Options)


def flag(help_: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help_, **more)


def parameter(name: str, info: FieldInfo) -> Parameter:
    """A field as a parameter of a command."""
    kind, more = read_as(info.annotation)
    default: Any = Parameter.empty if info.is_required() else info.default
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    if default is None or info.default_factory:
        kind, default = kind if kind is Any else kind | None, None
    option = flag(info.description or "", as_flag(name), **more)
    return Parameter(
        name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def read_as(annotation: Any) -> tuple[Any, dict[str, Any]]:
    """How the command line reads a field of this type, and how the help shows it.

    Choices are shown here and checked by the options: Python gets the same message.
    """
    kinds = set(members(annotation))
    if kinds == {int, float}:
        return Any, {"parser": count_or_share, "metavar": "COUNT|SHARE"}
    [kind] = kinds
    if get_origin(kind) is Literal:
        return str, {"metavar": f"[{'|'.join(get_args(kind))}]"}
    if get_origin(kind) is tuple:
        whole = set(members(get_args(kind)[0])) == {int}
        return Any, {"parser": whole_numbers if whole else any_numbers, "metavar": "N,N,..."}
    if get_origin(kind) is list:
        [item] = members(get_args(kind)[0])
        return list[item], {}  # type: ignore[valid-type]
    return (str, {"metavar": "NAME"}) if kind is Any else (kind, {})


def members(annotation: Any) -> Iterator[Any]:
    """The types that a value may have, without None and without constraints."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from members(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for part in get_args(annotation):
            yield from members(part)
    elif annotation is not NoneType:
        yield annotation


def count_or_share(given: str | float) -> int | float:
    """``512`` is a count, ``0.25`` a share; a flag's default comes through here as a number."""
    text = str(given)
    try:
        number = int(text) if re.fullmatch(r"\s*[+-]?\d+\s*", text) else float(text)
    except ValueError:
        raise typer.BadParameter(f"must be a count (512) or a share (0.25), got {text!r}") from None
    if isinstance(number, float) and not 0 < number <= 1:
        raise typer.BadParameter(
            f"must be a count in digits (512), or a share above 0 and at most 1 (0.25), got {text}"
        )
    return number


def whole_numbers(given: str) -> tuple[int, ...]:
    """``16,32``."""
    return tuple(split(given, int))


def any_numbers(given: str) -> tuple[float, ...]:
    """``0.25,0.5``."""
    return tuple(split(given, float))


def split(text: str, of: type[N]) -> list[N]:
    try:
        return [of(part) for part in text.split(",")]
    except ValueError:
        kind = "whole numbers" if of is int else "numbers"
        raise typer.BadParameter(f"must be {kind} with commas, got {text!r}") from None


def numbers(name: str, text: str, of: type[N]) -> list[N]:
    """What ``--name`` gives with commas between; raises OptionError."""
    try:
        return split(text, of)
    except typer.BadParameter as error:
        raise OptionError(f"--{name} {error.message}") from None


Take = Callable[[dict[str, Any]], Any]  # a group out of the values of its flags


def split_hint(hint: Any) -> tuple[Any, Flags]:
    """A parameter's type, the options of a dict of their values, and which flags they have."""
    base, *metadata = get_args(hint) if get_origin(hint) is Annotated else [hint]
    how = flags_in(metadata)
    return how.of or base, how


def group_of(hint: Any) -> tuple[list[Parameter], Take] | None:
    """The flags of a parameter that is a group, and how to build it; None for a plain parameter."""
    options, how = split_hint(hint)
    if is_options(options):
        flags = [parameter(*each) for each in flags_of(options, how).items()]
        if how.of is None:
            return flags, lambda values: built(options, values, how)
        return flags, lambda values: values_of(options, values, how)
    if is_dataclass(options):
        hints = hints_of(options, include_extras=True)
        flags = [
            Parameter(
                each.name, Parameter.KEYWORD_ONLY, default=each.default, annotation=hints[each.name]
            )
            for each in fields(options)
        ]
        names = [each.name for each in flags]
        group: Any = options
        return flags, lambda values: group(**{name: values.pop(name) for name in names})
    return None


def takes_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command have groups of flags as parameters: the command line sees each flag.

    A group that has a ``check`` is asked before the command runs, and so before anything slow is
    imported: it raises what is wrong with what was given.
    """
    hints = hints_of(command, include_extras=True)
    takes: dict[str, Take] = {}
    parameters: list[Parameter] = []
    flags: dict[str, str] = {}  # by field
    for name, own in signature(command).parameters.items():
        if group := group_of(hints[name]):
            parameters += group[0]
            takes[name] = group[1]
            options, how = split_hint(hints[name])
            flags |= fields_of(options, how) if is_options(options) else {}
        else:
            parameters.append(own.replace(annotation=hints[name]))
    parameters.sort(key=lambda each: each.kind)
    names = [each.name for each in parameters]
    assert len(names) == len(set(names)), sorted(names)
    flags |= {each.name: each.name.rstrip("_") for each in parameters if is_flag(each)}

    @wraps(command)
    def run(**values: Any) -> Any:
        with named(flags):
            groups = {name: take(values) for name, take in takes.items()}
            for group in reversed(groups.values()):  # the model, which comes first, is last
                if check := getattr(group, "check", None):
                    check()
            return command(**values, **groups)

    run.__signature__ = signature(command).replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run

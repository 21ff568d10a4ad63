"""Models of Sparing in Datasette's ``llm``: ``llm -m sparing/pocket "..."``.

Nothing here imports torch before a model is asked. A thought is llm's ``reasoning``, which its flag
``--hide-reasoning`` hides.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import click
import llm
from pydantic import BeforeValidator, Field, create_model, model_validator
from typer import BadParameter

from sparing.cli.fields import Flags, count_or_share, flags_of, members
from sparing.cli.flags import DecodingFlags, LoadingFlags
from sparing.errors import ModelError, OptionError, PromptError, SparingError
from sparing.files import read_json, write_atomically
from sparing.model.hub_cache import cached_models
from sparing.model.sources import EMBEDDED, find_here, list_models
from sparing.options import Sampling
from sparing.plugins.named_options import named_options

PREFIX = "sparing/"
FILE = "sparing.json"  # in llm's folder: the user's own models, by name


class Settings(DecodingFlags):
    """``llm -o NAME VALUE``: the flags of `sparing run` without the model's name."""

    loading: Annotated[LoadingFlags, Flags(without=["model"])] = LoadingFlags()
    sampling: Annotated[Sampling, Flags(without=["logprobs"])] = Sampling()


def number(value: Any) -> Any:
    """A count or a share out of what was typed; raises ValueError."""
    try:
        return count_or_share(value)
    except BadParameter as error:
        raise ValueError(error.message) from None


def one_or_more(value: Any) -> Any:
    """A text alone is a list of one."""
    return value if isinstance(value, list) or value is None else [value]


def option(info: Any) -> tuple[Any, Any]:
    """A field of ours as one of llm's: it may be left out, and text is read as what it says."""
    kinds = set(members(info.annotation))
    kind: Any = info.annotation
    if kinds == {int, float}:
        kind = Annotated[int | float, BeforeValidator(number)]
    elif kind is Any:
        kind = str
    elif any(getattr(each, "__origin__", None) is list for each in kinds):
        kind = Annotated[kind, BeforeValidator(one_or_more)]
    return kind | None, Field(default=None, description=info.description)


class CheckedOptions(llm.Options):
    """llm's options, checked by ours as soon as they are given."""

    @model_validator(mode="after")
    def _fit_together(self) -> "CheckedOptions":
        self.settings().check()
        return self

    def settings(self) -> Settings:
        """The same as options of ours; raises OptionError."""
        given = {name: value for name, value in self if value is not None}
        return named_options(Settings, given, "model option")


FIELDS: dict[str, Any] = {name: option(info) for name, info in flags_of(Settings).items()}
SparingOptions = create_model("SparingOptions", __base__=CheckedOptions, **FIELDS)


class SparingModel(llm.Model):
    """A model by its name here, ``model_id``, and by its name for ``sparing``, ``source``."""

    can_stream = True
    Options = SparingOptions

    def __init__(self, model_id: str, source: str) -> None:
        self.model_id, self.source = model_id, source
        self._loaded: tuple[LoadingFlags, Any] | None = None

    def engine(self, loading: LoadingFlags) -> Any:
        """The engine, loaded on first use; kept while the same loading is asked for."""
        if self._loaded is None or self._loaded[0] != loading:
            self._loaded = None  # the old one's memory first
            self._loaded = loading, loading.load()
        return self._loaded[1]

    def execute(
        self, prompt: Any, stream: bool, response: Any, conversation: Any = None
    ) -> Iterator[Any]:
        if not hasattr(prompt, "messages"):
            raise OptionError("llm must be 0.32 or newer, got an older one; pip install -U llm")
        settings = prompt.options.settings()
        loading = settings.loading.model_copy(update={"model": self.source})
        loading.check()
        settings.check_for(loading)
        engine = self.engine(loading)
        asked = as_prompt(engine, prompt.messages)
        with engine.stream(asked, raw=True, **settings.options()) as events:
            if events.notice:
                click.echo(f"note: {events.notice}", err=True)
            yield from new_text(events)
            result = events.result()
        stats = result.stats
        response.set_usage(
            input=len(result.prompt_token_ids),
            output=stats.new_tokens,
            details={"reasoning_tokens": stats.thinking_tokens, "kv_bytes": stats.kv_bytes_peak},
        )
        response.response_json = {"finish_reason": result.finish_reason, **stats.to_dict()}


def new_text(events: Any) -> Iterator[Any]:
    """What each event adds to the thought and to the answer."""
    from llm.parts import StreamEvent

    told = ("", "")
    for _ in events:
        parts = events.parts
        for kind, before, now in zip(("reasoning", "text"), told, parts, strict=True):
            if len(now) > len(before):
                yield StreamEvent(type=kind, chunk=now[len(before) :])
        told = parts


def as_prompt(engine: Any, messages: list[Any]) -> Any:
    """llm's messages as ours, without earlier thoughts; a lone question for a model without a chat
    template."""
    said = [{"role": m.role, "content": text_of(m)} for m in messages]
    if engine.chat.has_template:
        return said
    if [message["role"] for message in said] != ["user"]:
        raise PromptError(
            f"{engine.name} has no chat template, so it takes a question alone, got "
            f"{', '.join(message['role'] for message in said)}; leave the others out"
        )
    return said[0]["content"]


def text_of(message: Any) -> str:
    """A message's text; raises PromptError for what is neither text nor a thought."""
    from llm.parts import ReasoningPart, TextPart

    parts = [part for part in message.parts if not isinstance(part, ReasoningPart)]
    for part in parts:
        if not isinstance(part, TextPart):
            raise PromptError(f"a message must be of text, got {type(part).__name__}")
    return "".join(part.text for part in parts)


def own_models() -> dict[str, str]:
    """The user's own, by name; raises ModelError where the file is broken."""
    return read_json(llm.user_dir() / FILE)


def write_own(models: Mapping[str, str]) -> None:
    write_atomically(llm.user_dir() / FILE, json.dumps(models, indent=1) + "\n")


def known_models() -> dict[str, str]:
    """Installed models, those of the hub's cache, and the user's own, whose names come first."""
    installed = {model.name: model.name for model in list_models() if model.path}
    return installed | {name: name for name in cached_models()} | own_models()


@contextmanager
def readable() -> Iterator[None]:
    """An error of ours as llm shows its own."""
    try:
        yield
    except SparingError as error:
        raise click.ClickException(str(error)) from None


@llm.hookimpl
def register_models(register: Any) -> None:
    try:
        found = known_models()
    except ModelError as error:  # llm must still run
        click.echo(f"note: no models of Sparing: {error}", err=True)
        return
    for name, source in found.items():
        register(SparingModel(PREFIX + name, source))


@llm.hookimpl
def register_commands(cli: Any) -> None:
    @cli.group(name="sparing")
    def group() -> None:
        """Models that run in Sparing"""

    @group.command()
    @click.argument("name")
    @click.argument("model")
    def add(name: str, model: str) -> None:
        """Let NAME stand for MODEL: a GGUF file, a folder, or a name on the hub"""
        with readable():
            find_here(model)
            path = Path(model).expanduser().absolute()
            source = str(path) if model not in EMBEDDED and path.exists() else model
            write_own(own_models() | {name: source})
        click.echo(f"{PREFIX}{name} is {source}")

    @group.command()
    @click.argument("name")
    def remove(name: str) -> None:
        """Forget NAME; the model's files stay"""
        with readable():
            models = own_models()
        if name not in models:
            known = ", ".join(models) or "none"
            raise click.ClickException(f"a name must be one that was added ({known}), got {name}")
        write_own({other: source for other, source in models.items() if other != name})

    @group.command(name="list")
    def list_() -> None:
        """List the names, and what they stand for"""
        with readable():
            found = known_models()
        for name, source in found.items():
            click.echo(f"{PREFIX}{name}: {source}")

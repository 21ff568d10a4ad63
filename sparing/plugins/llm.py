"""Models of Sparing in Datasette's ``llm``: ``llm -m sparing/pocket "..."``.

Thoughts stream as reasoning, which ``llm`` shows apart from the answer. Nothing heavy is imported
before a model is asked.
"""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Union

import click
import llm
from llm.parts import StreamEvent, TextPart
from pydantic import Field, create_model

from sparing.cli.fields import Flags, flags_of
from sparing.cli.flags import DecodingFlags, ModelFlags, load_quietly
from sparing.errors import PromptError
from sparing.files import read_json, write_atomically
from sparing.model.hub_cache import cached_models
from sparing.model.sources import find_model, list_models
from sparing.options import Loading
from sparing.plugins.named_options import named_options

PREFIX = "sparing/"
NAMES_FILE = "sparing.json"  # in llm's directory: models that were added, by name
MANY = {"stop", "stop_token_ids", "logprobs"}  # fields that are no single value, or of no use here


class Asked(DecodingFlags):
    """The options of ``-o``, as far as they have a single value."""

    loading: Annotated[Loading, Flags(without=["trust_remote_code"])] = Loading()


def single_options() -> Any:
    """The class of options that ``llm`` checks and lists, a field for each flag of ours."""
    fields: dict[str, Any] = {
        name: (Union[info.annotation, None], Field(default=None, description=info.description))  # noqa: UP007
        for name, info in flags_of(Asked).items()
        if name not in MANY
    }
    return create_model("Options", __base__=llm.Options, **fields)


class SparingModel(llm.Model):
    """A model by the name or path ``source``."""

    can_stream = True
    Options = single_options()

    def __init__(self, name: str, source: str) -> None:
        self.model_id, self.source = PREFIX + name, source

    def execute(
        self, prompt: Any, stream: bool, response: Any, conversation: Any
    ) -> Iterator[StreamEvent]:
        given = prompt.options.model_dump(exclude_none=True)
        asked = named_options(Asked, given, "model option")
        asked.check()
        engine = loaded(self.source, asked.loading)
        with engine.stream(turns(prompt.messages, engine), **asked.options()) as told:
            thinking = answer = ""
            for _ in told:
                known, (thinking, answer) = (thinking, answer), told.parts
                if more := thinking[len(known[0]) :]:
                    yield StreamEvent(type="reasoning", chunk=more)
                if more := answer[len(known[1]) :]:
                    yield StreamEvent(type="text", chunk=more)
            result = told.result()
        stats = result.stats
        details = {"thinking": stats.thinking_tokens, "kv_bytes": stats.kv_bytes_peak}
        response.set_usage(
            input=len(result.prompt_token_ids), output=stats.new_tokens, details=details
        )
        response.response_json = {"finish_reason": result.finish_reason}


@lru_cache(maxsize=1)  # another model takes its place
def loaded(source: str, loading: Loading) -> Any:
    """The engine, which stays for the next prompt."""
    flags = ModelFlags(model=source, **loading.model_dump())
    return load_quietly(flags, None)


def turns(messages: Any, engine: Any) -> Any:
    """A conversation as turns; its last words as they stand where a model has no chat template."""
    found = [{"role": each.role, "content": text_of(each)} for each in messages]
    if engine.chat.has_template:
        return found
    if len(found) > 1:
        raise PromptError(
            f"{engine.name} has no chat template, so a prompt must be one text, got "
            f"{len(found)} turns; leave the system prompt and the conversation out"
        )
    return found[0]["content"]


def text_of(message: Any) -> str:
    """A message's own words; thoughts of earlier turns are left out, as templates do."""
    return "".join(part.text for part in message.parts if isinstance(part, TextPart))


def names_file() -> Path:
    return Path(llm.user_dir()) / NAMES_FILE


def added() -> Mapping[str, str]:
    """Names and paths that ``llm sparing add`` has kept."""
    return read_json(names_file()) if names_file().exists() else {}


@llm.hookimpl
def register_models(register: Any) -> None:
    known = {entry.name: entry.name for entry in list_models() if entry.path}
    known |= {name: name for name in cached_models()}
    for name, source in {**known, **added()}.items():
        register(SparingModel(name, source))


@llm.hookimpl
def register_commands(cli: Any) -> None:
    @cli.group(name="sparing")
    def group() -> None:
        """Models of Sparing: add a GGUF file, a folder or a hub id."""

    @group.command()
    @click.argument("name")
    @click.argument("model")
    def add(name: str, model: str) -> None:
        """Call MODEL (a GGUF file, a folder, a hub id) sparing/NAME from now on."""
        path = Path(model).expanduser()
        source = str(path.resolve()) if path.exists() else model
        try:
            find_model(source)
        except Exception as error:
            raise click.ClickException(str(error)) from None
        keep({**added(), name: source})
        click.echo(f"{PREFIX}{name} is {source}")

    @group.command()
    @click.argument("name")
    def remove(name: str) -> None:
        """Forget a name that was added."""
        left = dict(added())
        if left.pop(name, None) is None:
            known = ", ".join(left) or "none"
            raise click.ClickException(f"a name must have been added ({known}), got {name}")
        keep(left)


def keep(names: Mapping[str, str]) -> None:
    names_file().parent.mkdir(parents=True, exist_ok=True)
    write_atomically(names_file(), json.dumps(names, indent=1) + "\n")

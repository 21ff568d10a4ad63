"""`sparing models`: what can be named, where it is and what it can do."""

import textwrap
from shutil import get_terminal_size
from typing import Annotated, Any

import typer

from sparing.cli.fields import flag
from sparing.cli.streams import print_json
from sparing.latent.files import has_latents
from sparing.memory.files import has_predictor
from sparing.model.hub_cache import cached_models
from sparing.model.sources import ModelEntry, list_models
from sparing.tasks.families import FAMILIES, LEVELS


def models(
    json_: Annotated[bool, flag("print one JSON object instead of a table", "--json")] = False,
) -> None:
    """List the embedded models, and those that the hub's cache holds.

    A GGUF file, a directory in Hugging Face format or a hub id serves as a model as well.
    """
    cached = cached_models()
    if json_:
        found = [*list_models(), *(ModelEntry(name, path, "", "") for name, path in cached.items())]
        print_json({model.name: as_json(model) for model in found})
        return
    for model in list_models():
        show(model.name, model.description, f"{model.licence}, {model.path or 'not installed'}")
    if cached:
        typer.echo("\nFrom the hub, downloaded:\n")
        for name, path in cached.items():
            show(name, str(path))
    typer.echo()
    say("pocket, pocket-latent and pocket-cot answer questions of these families only:")
    typer.echo()
    for name, family in FAMILIES.items():
        show(name, family.about)


def show(name: str, *lines: str) -> None:
    """A name, and what is said of it below."""
    typer.echo(name)
    for line in lines:
        say(line, "  ")


def say(text: str, indent: str = "") -> None:
    """A text in as many columns as there are; a path is not broken."""
    typer.echo(
        textwrap.fill(
            text,
            max(get_terminal_size().columns, 20),
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def as_json(model: ModelEntry) -> dict[str, Any]:
    """Where a model is and what it can do."""
    content: dict[str, Any] = {
        "path": str(model.path) if model.path else None,
        "licence": model.licence,
        "description": model.description,
        "predictor": has_predictor(model.path) if model.path else False,
        "latent": has_latents(model.path) if model.path else False,
    }
    if model.name.startswith("pocket"):
        content["families"] = {
            name: {level: family.config(level) for level in LEVELS}
            | {"dataset": family.dataset, "about": family.about}
            for name, family in FAMILIES.items()
        }
    return content

"""`sparing models`: what can be named, where it is and what it can do."""

import json
from typing import Annotated, Any

from sparing.cli.fields import flag
from sparing.latent.files import has_latents
from sparing.memory.files import has_predictor
from sparing.model.sources import ModelEntry, list_models
from sparing.tasks.families import FAMILIES, LEVELS


def models(
    json_: Annotated[bool, flag("print one JSON object instead of a table", "--json")] = False,
) -> None:
    """List the embedded models.

    A GGUF file, a directory in Hugging Face format or a hub id serves as a model as well.
    """
    from rich.console import Console
    from rich.table import Table

    found = list_models()
    if json_:
        print(json.dumps({model.name: as_json(model) for model in found}))
        return
    table = Table("model", "where", "licence", "what it is")
    for model in found:
        table.add_row(
            model.name, str(model.path or "not installed"), model.licence, model.description
        )
    console = Console()
    console.print(table)
    console.print("pocket, pocket-latent and pocket-cot answer questions of these families only:")
    for name, family in FAMILIES.items():
        console.print(f"  {name}: {family.about}", highlight=False)


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

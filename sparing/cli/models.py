"""`sparing models`: what can be named, where it is and what it can do."""

import json
from typing import Annotated

from rich.console import Console
from rich.table import Table

from sparing.cli.flags import flag
from sparing.model.sources import list_models


def models(
    json_: Annotated[bool, flag("print one JSON object instead of a table", "--json")] = False,
) -> None:
    """List the embedded models; any Hugging Face directory or hub id works as well."""
    found = list_models()
    if json_:
        content = {
            m.name: {
                "path": str(m.path) if m.path else None,
                "licence": m.licence,
                "description": m.description,
            }
            for m in found
        }
        print(json.dumps(content))
        return
    table = Table("model", "where", "licence", "what it is")
    for model in found:
        table.add_row(
            model.name, str(model.path or "made at first use"), model.licence, model.description
        )
    Console().print(table)

"""`sparing run`: one prompt, answered live."""

import json
from typing import Annotated, Any

import typer

from sparing.cli.fields import flag
from sparing.cli.flags import DecodingFlags, LoadingFlags
from sparing.cli.view import LiveView, summary
from sparing.errors import OptionError, PromptError
from sparing.latent.files import check_latent

INTERRUPTED = 130


def run(
    prompt: Annotated[str, typer.Argument(help="the question")],
    loading: LoadingFlags,
    decoding: DecodingFlags,
    raw: Annotated[bool, flag("without the chat template", "--raw")] = False,
    json_: Annotated[bool, flag("print one JSON object instead of text", "--json")] = False,
    events: Annotated[bool, flag("with --json: the events too", "--events")] = False,
) -> None:
    """Answer PROMPT, and show the thinking as it comes."""
    if events and not json_:
        raise OptionError("--events belongs to --json, got it alone; pass --json too")
    if not prompt:
        raise PromptError("a prompt must have a token or more, got none; pass some text")
    check_latent(loading.model, decoding.latent)
    engine = loading.load()
    stream = engine.stream(engine.chat.question(prompt, raw=raw), **decoding.options())
    view = None if json_ else LiveView(engine, decoding.memory.budget)
    interrupted = follow(stream, view)
    result = stream.result()
    if json_:
        content = {"model": loading.model, **result.to_dict(events)}
        print(json.dumps(content, ensure_ascii=False))
    else:
        typer.echo(summary(result), err=True)
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def follow(stream: Any, view: LiveView | None) -> bool:
    """Show a stream to its end, its notice first; True where Ctrl-C ended it."""
    if stream.notice:
        typer.echo(f"note: {stream.notice}", err=True)
    try:
        if view is None:
            for _ in stream:
                pass
        else:
            with view:
                for event in stream:
                    view.show(event)
    except KeyboardInterrupt:
        stream.close()
        return True
    return False

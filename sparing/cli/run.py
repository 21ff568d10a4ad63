"""`sparing run`: one prompt, answered live."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparing.cli.fields import flag
from sparing.cli.flags import DecodingFlags, LoadingFlags, SeedlessFlags
from sparing.cli.prompts import given_prompt
from sparing.cli.signals import INTERRUPTED
from sparing.cli.streams import print_json
from sparing.cli.view import LiveView, cut, summary
from sparing.errors import OptionError

if TYPE_CHECKING:
    from sparing.engine.result import Result
    from sparing.engine.run import Stream


def run(
    loading: LoadingFlags,
    decoding: DecodingFlags,
    prompt: Annotated[str | None, typer.Argument(help="the question; - or a pipe: stdin")] = None,
    file: Annotated[Path | None, flag("read the prompt from this file")] = None,
    raw: Annotated[bool, flag("without the chat template", "--raw")] = False,
    json_: Annotated[bool, flag("print one JSON object instead of text", "--json")] = False,
    events: Annotated[bool, flag("with --json: the events too", "--events")] = False,
) -> None:
    """Answer PROMPT, and show the thinking as it comes."""
    if events and not json_:
        raise OptionError("--events belongs to --json, got it alone; pass --json too")
    text = given_prompt(prompt, file)
    decoding.check_for(loading)
    engine = loading.load()
    say_without_effect(engine, decoding, raw)
    with engine.stream(text, raw=raw, **decoding.options()) as stream:
        interrupted, result = follow(engine, stream, shown=not json_)
    if json_ and result:
        print_json({"model": loading.model, **result.to_dict(events)})
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def follow(engine: Any, stream: "Stream", shown: bool = True) -> tuple[bool, "Result | None"]:
    """Show a stream to its end, its notice first and a summary last.

    True where Ctrl-C ended it, and the result; None before there is any.
    """
    if stream.notice:
        note(stream.notice)
    slots = stream.budget.slots if stream.budget else None
    interrupted = False
    try:
        if shown:
            with LiveView(engine, slots) as view:
                for event in stream:
                    view.show(event)
        else:
            for _ in stream:
                pass
    except KeyboardInterrupt:
        stream.close()
        interrupted = True
    if not stream.begun:
        return interrupted, None
    result = stream.result()
    if said := cut(result, engine.chat.markers is not None):
        note(said)
    if shown:
        typer.echo(summary(result, slots), err=True)
    return interrupted, result


def say_without_effect(engine: Any, decoding: SeedlessFlags, raw: bool = False) -> None:
    """Say where --no-think changes nothing."""
    if not decoding.no_think:
        return
    if raw:
        note("--no-think has no effect with --raw")
    elif not engine.chat.can_skip_thinking:
        note(f"--no-think has no effect: {engine.name} has no template that knows enable_thinking")


def note(text: str) -> None:
    typer.echo(f"note: {text}", err=True)

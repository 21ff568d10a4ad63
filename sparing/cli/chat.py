"""`sparing chat`: many turns; what was thought in earlier ones is dropped."""

from typing import Annotated

import typer

from sparing.cli.fields import flag
from sparing.cli.flags import DecodingFlags, LoadingFlags
from sparing.cli.run import follow
from sparing.cli.view import LiveView, summary
from sparing.errors import PromptError
from sparing.latent.files import check_latent


def chat(
    loading: LoadingFlags,
    decoding: DecodingFlags,
    system: Annotated[str | None, flag("a system message to begin with")] = None,
) -> None:
    """Talk over many turns.

    Ctrl-C ends an answer, Ctrl-D or /exit ends the chat, /new begins another.
    """
    check_latent(loading.model, decoding.latent)
    engine = loading.load()
    if not engine.chat.has_template:
        raise PromptError(
            f"chat needs a model with a chat template, and {loading.model} has none; use "
            "`sparing run --raw`"
        )
    opening = [{"role": "system", "content": system}] if system else []
    messages = list(opening)
    for text in turns():
        if text == "/new":
            messages = list(opening)
            continue
        asked = [*messages, {"role": "user", "content": text}]
        try:
            stream = engine.stream(asked, **decoding.options())
        except PromptError as error:
            typer.echo(f"error: {error}", err=True)
            continue
        follow(stream, LiveView(engine, decoding.memory.budget))
        result = stream.result()
        typer.echo(summary(result), err=True)
        messages = [*asked, {"role": "assistant", "content": result.answer}]


def turns():
    """What the user says, until the end of input."""
    while True:
        try:
            text = input("> ").strip()
        except EOFError:
            return
        if text == "/exit":
            return
        if text:
            yield text

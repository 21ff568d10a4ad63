"""`sparing chat`: many turns; what was thought in earlier ones is dropped."""

import io
import re
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from sparing.cli.fields import fields_of, flag, named
from sparing.cli.flags import DecodingFlags, LoadingFlags
from sparing.cli.run import follow, say_without_effect
from sparing.errors import PromptError

COMMANDS = {
    "/help": "this list",
    "/clear": "begin anew: what was said is forgotten (/new)",
    "/exit": "end the chat (/quit, Ctrl-D)",
}
HELP = "\n".join(
    [
        *(f"  {name:8}{what}" for name, what in COMMANDS.items()),
        "  Ctrl-C  end an answer; it is forgotten with its question",
        '  A line that ends in \\ goes on in the next. """ begins and ends a text of many lines.',
    ]
)
BLOCK = '"""'


def chat(
    loading: LoadingFlags,
    decoding: DecodingFlags,
    system: Annotated[str | None, flag("a system message to begin with")] = None,
) -> None:
    """Talk over many turns; /help lists what can be typed.

    Ctrl-C ends an answer, Ctrl-D or /exit ends the chat, /clear begins another. From a pipe each
    line is a turn.
    """
    decoding.check_for(loading)
    engine = loading.load()
    if not engine.chat.has_template:
        raise PromptError(
            f"chat needs a model with a chat template, and {loading.model} has none; use "
            "`sparing run --raw`"
        )
    say_without_effect(engine, decoding)
    talk(engine, decoding, [{"role": "system", "content": system}] if system else [])


def talk(engine: Any, decoding: DecodingFlags, opening: list[dict[str, str]]) -> None:
    """Answer turn by turn, to the end of input."""
    prompter = Prompter()
    if prompter.live:
        typer.echo(banner(engine, decoding), err=True)
    messages = list(opening)
    for text in prompter.turns():
        if text is None:
            messages = list(opening)
            continue
        asked = [*messages, {"role": "user", "content": text}]
        try:
            with named(fields_of(DecodingFlags)):
                stream = engine.stream(asked, **decoding.options())
        except PromptError as error:
            typer.echo(f"error: {error}", err=True)
            continue
        with stream:
            interrupted, result = follow(engine, stream)
        if result and not interrupted:
            messages = [*asked, {"role": "assistant", "content": result.answer}]


def banner(engine: Any, decoding: DecodingFlags) -> str:
    """The model, its budget, and where help is."""
    memory = decoding.memory
    budget = "no budget" if memory.budget is None else f"budget {memory.budget}"
    return f"{engine.name}, {budget}; /help lists the commands, Ctrl-D ends"


class Prompter:
    """What is typed, or comes through a pipe. ``live``: there is somebody to answer to."""

    def __init__(self) -> None:
        self.live = sys.stdin.isatty()
        self._shows = self.live and sys.stdout.isatty()
        if self._shows:
            import readline  # noqa: F401  # input() has history and editing from now on
        elif isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")  # a stray byte is its turn's error

    def turns(self) -> Iterator[str | None]:
        """Each text; None: begin anew. Ends with the input, or where it is said."""
        while (text := self._text()) is not None:
            name = text.strip()
            if not re.fullmatch(r"/[A-Za-z]*", name):
                if name:
                    yield text
            elif name in ("/exit", "/quit"):
                return
            elif name in ("/clear", "/new"):
                yield None
            else:
                unknown = "" if name == "/help" else f"no command {name}; there are:\n"
                typer.echo(unknown + HELP, err=True)

    def _text(self) -> str | None:
        """One text of a line or more; None at the end of input."""
        line = self._line("> ")
        if line is None:
            return None
        if line.lstrip().startswith(BLOCK):
            return self._block(line.lstrip().removeprefix(BLOCK))
        lines = [line]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(self._line(". ") or "")
        return "\n".join(lines).strip()

    def _block(self, line: str) -> str:
        """The text to the next triple quote, or to the end of input; commands are none in it."""
        lines: list[str] = []
        more: str | None = line
        while more is not None and BLOCK not in more:
            lines.append(more)
            more = self._line(". ")
        lines.append((more or "").partition(BLOCK)[0])
        return "\n".join(lines).strip("\n")

    def _line(self, sign: str) -> str | None:
        try:
            return input(sign if self._shows else "")
        except EOFError:
            if self._shows:
                typer.echo()
            return None
        except KeyboardInterrupt:
            if not self.live:
                raise
            typer.echo("\n(Ctrl-D or /exit ends the chat)", err=True)
            return ""

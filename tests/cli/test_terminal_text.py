"""Text on a terminal: all of it once, in any width, with one line redrawn."""

import io
import random

import pytest

from sparing.cli.terminal_text import TerminalText
from tests.cli.screen import Screen

STATUS = " 12.3 tokens/s · KV 1.0 MB, 99 slots in use "
WORDS = [
    "a",
    "word",
    "unbelievably-long-word" * 3,
    "naïve",
    "日本語の文章",
    "🎉",
    "e\u0301te\u0301",
    "x=1",
    "👩‍💻",
]


class Terminal(io.StringIO):
    """Its output goes to a screen."""

    def __init__(self, screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.screen, self._monkeypatch = screen, monkeypatch
        self.resize(screen.columns)

    def resize(self, columns: int) -> None:
        self._monkeypatch.setenv("COLUMNS", str(columns))
        self.screen.resize(columns)

    def write(self, text: str) -> int:
        self.screen.feed(text)
        return len(text)


def said(seed: int, count: int = 150) -> list[str]:
    """Pieces of one long paragraph, with a few line breaks and tabs."""
    draw = random.Random(seed)
    gaps = [" "] * 12 + ["\n", "\t", "  "]
    text = "".join(draw.choice(WORDS) + draw.choice(gaps) for _ in range(count))
    pieces = []
    while text:
        size = draw.randint(1, 9)
        pieces.append(text[:size])
        text = text[size:]
    return pieces


def bare(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("columns", [20, 21, 33, 80, 200])
def test_every_character_is_there_once(columns, monkeypatch):
    screen = Screen(columns)
    shown = TerminalText(Terminal(screen, monkeypatch))
    pieces = said(columns)
    for piece in pieces:
        shown.add(piece, "2")
        shown.draw(STATUS)
        assert screen.hidden
        *above, last = screen.rows()
        assert last == STATUS[: columns - 1]
        assert not any("tokens" in row for row in above)
    shown.close()
    assert not screen.hidden
    assert bare("".join(screen.rows())) == bare("".join(pieces))


def test_a_paragraph_is_broken_between_words(monkeypatch):
    screen = Screen(20, 4)
    shown = TerminalText(Terminal(screen, monkeypatch))
    shown.add("The quick brown fox jumps over it,\nand\tagain. " + "y" * 25)
    shown.draw(STATUS)
    shown.close()
    lines = ["The quick brown fox", "jumps over it,", "and     again.", "y" * 19, "y" * 6, ""]
    assert screen.rows() == lines


def test_the_line_so_far_is_shown_before_it_is_full(monkeypatch):
    screen = Screen(40)
    shown = TerminalText(Terminal(screen, monkeypatch))
    for word in ("one ", "two ", "three"):
        shown.add(word)
        shown.draw(STATUS)
    assert screen.rows() == ["one two three", STATUS[:39]]


@pytest.mark.parametrize("columns", [20, 60, 120])
def test_a_resize_repeats_nothing(columns, monkeypatch):
    screen = Screen(80)
    terminal = Terminal(screen, monkeypatch)
    shown = TerminalText(terminal)
    words = [f"w{number}" for number in range(300)]
    for number, word in enumerate(words):
        if number in (55, 130):
            terminal.resize(columns if number == 55 else 80)
        shown.add(f"{word} ")
        shown.draw(STATUS)
    shown.close()
    assert bare("".join(screen.rows())) == "".join(words)


def test_no_control_code_of_the_text_reaches_the_terminal(monkeypatch):
    screen = Screen(40)
    shown = TerminalText(Terminal(screen, monkeypatch))
    shown.add("red \x1b[31mred\x07\r\nnext\x9b2J")
    shown.close()
    assert screen.rows() == ["red [31mred", "next2J", ""]

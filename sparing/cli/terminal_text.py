"""Text that grows on a terminal: a line is printed once as it fills, only the last is redrawn.

    finished line            printed once; it scrolls away
    last line so far         redrawn, with the cursor at its first column
    status                   redrawn

The last line and the status are drawn with the terminal's own wrapping off, so that each is one
row whatever it takes a character's width for. Where a resize wraps them again, the cursor stays
with the last line's beginning, and everything from there on is erased.
"""

import os
import unicodedata
from itertools import groupby
from shutil import get_terminal_size
from typing import NamedTuple, TextIO

from rich.cells import get_character_cell_size

TAB = 8
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"  # the cursor
ONE_ROW, WRAPPED = "\x1b[?7l", "\x1b[?7h"
ERASE, UP = "\r\x1b[J", "\x1b[1A\r"
REVERSE = "7"


class Cell(NamedTuple):
    """A character with what combines with it."""

    text: str
    width: int
    style: str  # an SGR code; empty: plain


class TerminalText:
    """The text so far, and the terminal that shows it."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._line, self._finished = out, list[Cell](), list[str]()

    def add(self, text: str, style: str = "") -> None:
        """Take text in; lines that are full are printed by the next ``draw``."""
        room = max(self.columns() - 1, 1)
        for char in text:
            if char == "\n":
                self._finish(len(self._line))
            elif char == "\t":
                at = sum(cell.width for cell in self._line)
                self._put(Cell(" " * (TAB - at % TAB), TAB - at % TAB, style), room)
            elif unicodedata.category(char) != "Cc":  # no control code of a model's reaches it
                self._put(Cell(char, get_character_cell_size(char), style), room)

    def draw(self, status: str) -> None:
        """Print finished lines, and redraw the last one over the status."""
        room = self.columns() - 1
        shown = "".join(f"{line}\n" for line in self._finished)
        below = painted([*cells(status, REVERSE, room)])
        last = f"{ONE_ROW}{painted(self._line)}\n{below}{WRAPPED}{UP}"
        self._send(f"{HIDE}{ERASE}{shown}{last}")
        self._finished.clear()

    def close(self) -> None:
        """Print what is left; the status disappears."""
        lines = [*self._finished, painted(self._line)]
        self._send(ERASE + "".join(f"{line}\n" for line in lines) + SHOW)

    def columns(self) -> int:
        try:
            return os.get_terminal_size(self._out.fileno()).columns or 80
        except (OSError, ValueError):  # a terminal only by name
            return get_terminal_size().columns

    def _put(self, cell: Cell, room: int) -> None:
        if not cell.width and self._line:
            last = self._line[-1]
            self._line[-1] = last._replace(text=last.text + cell.text)
            return
        self._line.append(cell)
        while sum(each.width for each in self._line) > room and len(self._line) > 1:
            self._finish(broken_at(self._line))

    def _finish(self, end: int) -> None:
        """The cells before ``end`` are a line; a space that it is broken at is left out."""
        self._finished.append(painted(self._line[:end]))
        rest = self._line[end:]
        self._line = rest[1:] if rest and not rest[0].text.strip() else rest

    def _send(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def broken_at(line: list[Cell]) -> int:
    """Where a line that is too long by its last cell ends: at its last space, else there."""
    spaces = [at for at, cell in enumerate(line) if not cell.text.strip()]
    words = next((at for at, cell in enumerate(line) if cell.text.strip()), len(line))
    return spaces[-1] if spaces and spaces[-1] > words else len(line) - 1


def cells(text: str, style: str, room: int) -> list[Cell]:
    """The beginning of a text that has room."""
    found, width = list[Cell](), 0
    for char in text:
        width += get_character_cell_size(char)
        if width > room:
            break
        found.append(Cell(char, 1, style))
    return found


def painted(line: list[Cell]) -> str:
    """The cells in their styles."""
    parts = []
    for style, group in groupby(line, lambda cell: cell.style):
        text = "".join(cell.text for cell in group)
        parts.append(f"\x1b[{style}m{text}\x1b[0m" if style else text)
    return "".join(parts)

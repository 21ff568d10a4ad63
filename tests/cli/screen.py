"""A small terminal that wraps its lines again when it is resized."""

import re

from rich.cells import get_character_cell_size

TOKEN = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|(.)", re.DOTALL)


class Screen:
    """Lines of cells, each one row or more; a wide character takes two cells, the second empty.

    ``height``: rows that are not scrolled away. ``hidden``: whether the cursor is.
    """

    def __init__(self, columns: int, height: int = 8) -> None:
        self.columns, self.height = columns, height
        self.lines: list[list[str]] = [[]]
        self.line, self.start, self.column = 0, 0, 0  # the cursor; start: of its row in its line
        self.wraps, self.hidden = True, False

    def feed(self, text: str) -> None:
        for numbers, code, char in TOKEN.findall(text):
            if char:
                self._put(char)
            elif code == "J":
                del self.lines[self.line][self.start + self.column :], self.lines[self.line + 1 :]
            elif code == "A":
                self._up()
            elif numbers == "?7":
                self.wraps = code == "h"
            elif numbers == "?25":
                self.hidden = code == "l"
            else:
                assert code == "m", (numbers, code)

    def resize(self, columns: int) -> None:
        at = self.start + self.column
        self.columns = columns
        self.start, self.column = at // columns * columns, at % columns

    def rows(self) -> list[str]:
        """All of them, from the first one ever."""
        return [
            "".join(line[start : start + self.columns])
            for line in self.lines
            for start in range(0, max(len(line), 1), self.columns)
        ]

    def _put(self, char: str) -> None:
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self._down()
        elif width := get_character_cell_size(char):
            self._write(char, width)
        else:
            self.lines[self.line][self.start + self.column - 1] += char

    def _write(self, char: str, width: int) -> None:
        row = self.lines[self.line]
        if self.column + width > self.columns:
            if self.wraps:
                row += [""] * (self.start + self.columns - len(row))
                self.start, self.column = self.start + self.columns, 0
            else:
                self.column = self.columns - width
        at = self.start + self.column
        row[at : at + width] = [char, *[""] * (width - 1)]
        self.column += width

    def _down(self) -> None:
        if self.start + self.columns < len(self.lines[self.line]):
            self.start += self.columns
        else:
            self.line, self.start = self.line + 1, 0
            if self.line == len(self.lines):
                self.lines.append([])
        self.column = 0

    def _up(self) -> None:
        if self.start:
            self.start -= self.columns
        else:
            self.line -= 1
            last = max(len(self.lines[self.line]) - 1, 0)
            self.start = last // self.columns * self.columns
        above = sum(-(-max(len(line), 1) // self.columns) for line in self.lines[: self.line])
        assert above >= len(self.rows()) - self.height, "the cursor is above the screen"

"""Rows of data files: JSON, JSON lines, CSV; their encodings and their faults."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from sparing.errors import OptionError, reason
from sparing.files import decode_text

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
DELIMITERS = ",;\t"


def check_suffix(path: Path) -> None:
    """Raise OptionError for a file of no known ending."""
    if path.suffix.lower() not in SUFFIXES:
        raise OptionError(
            f"a file of questions must end in {', '.join(SUFFIXES)}, got {path}; "
            "convert or rename it"
        )


def text_rows(path: Path) -> list[Any]:
    """The rows of a .json (a list of objects), .jsonl or .csv file (a header, then a row each);
    raises OptionError."""
    content = read_text(path)
    if path.suffix.lower() == ".json":
        return whole(path, content)
    if path.suffix.lower() == ".csv":
        return csv_rows(path, content)
    filled = [line for line in content.split("\n") if line.strip()]
    return [parsed(f"{path}, row {id_}", line) for id_, line in enumerate(filled, 1)]


def read_text(path: Path) -> str:
    """UTF-8, or what a byte order mark says; raises OptionError for any other text."""
    try:
        return decode_text(path.read_bytes())
    except OSError as error:
        raise OptionError(f"{path} must be a readable file, got: {reason(error)}") from None
    except ValueError as error:
        raise OptionError(
            f"{path} must be UTF-8, or UTF-16 with a byte order mark, got: {reason(error)}; "
            f"convert it, for example: iconv -f latin1 -t utf8 {path.name}"
        ) from None


def whole(path: Path, content: str) -> list[Any]:
    """The rows of a file with one JSON list."""
    rows = parsed(str(path), content)
    if not isinstance(rows, list):
        raise OptionError(f"{path} must hold a list of objects, got a {type(rows).__name__}")
    return rows


def parsed(where: str, content: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise OptionError(f"{where} must be JSON, got: {reason(error)}; correct it") from None


def csv_rows(path: Path, content: str) -> list[Any]:
    """The rows under a header; the delimiter is the one of ``,;`` and tab that it has most of."""
    csv.field_size_limit(2**31 - 1)  # a question may be longer than csv's 128 KiB
    header_line = content.lstrip().partition("\n")[0]
    delimiter = max(DELIMITERS, key=header_line.count)
    lines = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    try:
        header, *rows = [line for line in lines if line] or [[]]
    except csv.Error as error:
        raise OptionError(
            f"{path}, line {lines.line_num} must be CSV, got: {reason(error)}; correct it"
        ) from None
    names = [name.strip() for name in header]
    for id_, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise OptionError(
                f"{path}, row {id_} must have {len(names)} fields as its header, "
                f"got {len(row)}; correct it"
            )
    return [dict(zip(names, row, strict=True)) for row in rows]

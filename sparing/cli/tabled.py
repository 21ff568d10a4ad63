"""Where `sparing eval` and `sparing compare` write: JSON and CSV, never over another result."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from sparing.cli.fields import flag
from sparing.cli.output import JsonFlag, RowsFlag, check_writable, is_filled
from sparing.errors import OptionError
from sparing.evaluate.partial_results import differences
from sparing.evaluate.report import json_text
from sparing.files import write_atomically


@dataclass
class TabledFlag(JsonFlag):
    """JSON, and rows as CSV; to write the same again is no loss."""

    csv: Annotated[Path | None, flag("write the rows to this file, as CSV")] = None

    def check(self) -> None:
        """Refuse files that could not be written; what they hold is looked at later."""
        for path in (self.json_, self.csv):
            if path:
                check_writable(path)

    def write(self, content: dict[str, Any]) -> None:
        if self.json_:
            self.write_text(self.json_, json_text(content))

    def write_csv(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """A line a row, under a header of all their fields."""
        if self.csv:
            self.write_text(self.csv, csv_text(rows))

    def write_text(self, path: Path, text: str) -> None:
        """Raises OptionError where the file is there and says something else."""
        if not is_filled(path) or path.read_bytes() != text.encode():
            self.check_new(path)
            write_atomically(path, text)


@dataclass
class EvalFlag(TabledFlag, RowsFlag):
    """The same, of an evaluation: a finished one is found again."""

    def finished(self, fingerprint: Mapping[str, Any]) -> dict[str, Any] | None:
        """The report that is there, where it is of these settings; None where there is none.

        Raises OptionError, naming what differs, where it is of others, and where a CSV file is in
        the way of rows that are yet to come.
        """
        if not self.json_ or self.overwrite or not is_filled(self.json_):
            self.check_new(self.csv)
            return None
        content = read_report(self.json_)
        differ = differences(content["fingerprint"], json.loads(json.dumps(fingerprint)))
        if len(differ) > 1:  # other questions follow from other settings
            differ = [each for each in differ if not each.startswith("questions ")]
        if differ:
            more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
            raise OptionError(
                f"{self.json_} holds a finished evaluation, which must have the same settings, "
                f"got another {', '.join(differ[:3])}{more}; pass --overwrite, or another --json"
            )
        typer.echo(f"{self.json_} holds this evaluation already; --overwrite does it again")
        return content


def read_report(path: Path) -> dict[str, Any]:
    """A finished report with its fingerprint; raises OptionError for any other file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        dict(content["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        raise OptionError(
            f"{path} must not be there yet, or hold this evaluation, got something else; "
            "pass --overwrite, or another --json"
        ) from None
    return content


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV; a field that a row has not is empty."""
    header = list(dict.fromkeys(field for row in rows for field in row))
    told = io.StringIO(newline="")
    writer = csv.DictWriter(told, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return told.getvalue()

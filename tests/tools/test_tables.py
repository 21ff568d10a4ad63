"""Tables made from reports, beside the bars of a file."""

import json
from pathlib import Path

import pytest
import torch

from sparing.evaluate.report import Figure, report, write_json
from tools.tables import against_bar, judged, markdown, model_of

RESULTS = Path(__file__).parents[2] / "results"


@pytest.mark.parametrize(
    ("better", "value", "missed"),
    [("higher", 1.9, "missed"), ("higher", 2.0, ""), ("lower", 2.1, "missed"), ("lower", 2.0, "")],
)
def test_a_bar_is_judged(better, value, missed):
    row = {"better": better, "value": value, "bar": 2.0}
    assert against_bar(row) == (">= 2.0" if better == "higher" else "<= 2.0", missed)


def test_bars_of_a_table_lie_in_a_file_beside_the_report(tmp_path):
    """By command, by the beginning of a model's name, and by row."""
    bars = {"decode": {"": {"a": 1.0, "b": 2.0}, "qwen": {"b": 3.0}, "other": {"a": 9.0}}}
    write_json(tmp_path / "bars.json", bars)
    rows = [
        {"name": name, "value": 2.5, "unit": "x", "better": "higher", "bar": None, "what": name}
        for name in "abc"
    ]
    content = {
        "model": "Qwen-1.gguf",
        "rows": rows,
        "command": "sparing bench decode --threads 2",
    }
    write_json(tmp_path / "mine.json", content)
    found = judged(tmp_path / "mine.json")["rows"]
    assert [row["bar"] for row in found] == [1.0, 3.0, None]
    write_json(tmp_path / "mine.json", content | {"command": "sparing bench memory"})
    assert [row["bar"] for row in judged(tmp_path / "mine.json")["rows"]] == [None] * 3


def test_a_line_says_its_bar_and_whether_it_was_missed(tmp_path):
    figures = [Figure(name, 2.5, "x", "higher", name) for name in "abc"]
    content = report("mine", figures, {}, torch.float32)
    write_json(tmp_path / "mine.json", content | {"command": "sparing bench depth"})
    write_json(tmp_path / "bars.json", {"depth": {"mine": {"a": 2.0, "b": 3.0}}})
    table = markdown(str(tmp_path / "mine.json")).splitlines()
    assert table[2:5] == [
        "| a | 2.50 x | >= 2.0 |  |",
        "| b | 2.50 x | >= 3.0 | missed |",
        "| c | 2.50 x |  |  |",
    ]
    assert len(markdown(str(tmp_path / "mine.json"), bars=True).splitlines()) == len(table) - 1


def test_an_older_report_says_its_model_in_its_command():
    for content, model in (
        ({"model": "a/B.gguf"}, "b.gguf"),
        ({"command": "sparing bench memory --model smollm2 --threads 2"}, "smollm2"),
        ({"command": "sparing bench memory --threads 2"}, "pocket"),
    ):
        assert model_of(content) == model


def test_every_bar_is_of_a_figure_that_there_is():
    """In some report of its command, where the command has one for that model."""
    bars = json.loads((RESULTS / "bars.json").read_text())
    contents = [json.loads(file.read_text()) for file in RESULTS.glob("*.json")]
    for command, models in bars.items():
        of_command = [c for c in contents if c.get("command", "").split()[2:3] == [command]]
        for model, of_rows in models.items():
            found = [c for c in of_command if model_of(c).startswith(model)]
            names = {row["name"] for content in found for row in content["rows"]}
            missing = of_rows.keys() - names
            assert not (found and missing) or command == "decode", (command, model, missing)

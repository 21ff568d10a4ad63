"""Reports: atomic files, bars judged, tables made from files."""

import json

import pytest

from sparing.evaluate.report import Figure, against_bar, report, write_json
from sparing.evaluate.tables import judged, markdown


def test_a_report_says_where_it_comes_from(tmp_path):
    import torch

    figures = [Figure("a", 2.5, "x", "higher", 2.0, "tokens/s"), Figure("b", 0.5, "share", "lower")]
    content = report(figures, {"seconds": [1.0]}, torch.float32)
    assert content["dtype"] == "float32"
    assert content["threads"] == torch.get_num_threads()
    assert {"python", "sparing", "torch", "transformers"} <= set(content["versions"])
    file = tmp_path / "sub" / "figures.json"
    write_json(file, content)
    assert json.loads(file.read_text()) == content
    assert [path.name for path in file.parent.iterdir()] == ["figures.json"]
    table = markdown(str(file))
    assert "| tokens/s | 2.50 x | >= 2.0 |  |" in table


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


def test_a_file_is_the_old_one_or_the_whole_new_one(tmp_path):
    file = tmp_path / "figures.json"
    write_json(file, {"old": 1})
    with pytest.raises(TypeError):
        write_json(file, {"new": object()})
    assert json.loads(file.read_text()) == {"old": 1}

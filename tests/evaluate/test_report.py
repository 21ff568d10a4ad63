"""Reports: what they say, and files that are written whole or not at all."""

import json

import pytest

from sparing.evaluate.report import Figure, report, write_json


def test_a_report_says_where_it_comes_from(tmp_path):
    import torch

    figures = [Figure("a", 2.5, "x", "higher", "tokens/s"), Figure("b", 0.5, "share", "lower")]
    content = report("/home/me/mine.gguf", figures, {"seconds": [1.0]}, torch.float32)
    assert content["model"] == "mine.gguf"
    assert [row["bar"] for row in content["rows"]] == [None, None]
    assert content["dtype"] == "float32"
    assert content["threads"] == torch.get_num_threads()
    assert {"python", "sparing", "torch", "transformers"} <= set(content["versions"])
    file = tmp_path / "sub" / "figures.json"
    write_json(file, content)
    assert json.loads(file.read_text()) == content
    assert [path.name for path in file.parent.iterdir()] == ["figures.json"]


def test_a_file_is_the_old_one_or_the_whole_new_one(tmp_path):
    file = tmp_path / "figures.json"
    write_json(file, {"old": 1})
    with pytest.raises(TypeError):
        write_json(file, {"new": object()})
    assert json.loads(file.read_text()) == {"old": 1}

"""`sparing bench serve`: its rows, and all that they are made of."""

import json
from statistics import median

import pytest

from sparing.cli.bench_serve import server_flags
from sparing.cli.flags import LoadingFlags
from tests.tiny import checkpoint

NAMES = [
    "finished/32",
    "tokens_per_s/1",
    "tokens_per_s/32",
    "throughput_32_over_1",
    "finished/32/off",
    "tokens_per_s/1/off",
    "tokens_per_s/32/off",
    "throughput_32_over_1/off",
    "first_token_s/idle",
    "first_token_8_over_idle",
    "server_over_engine/off",
    "server_over_engine/auto",
    "resident_late_over_early",
]


@pytest.mark.slow
def test_bench_serve_writes_its_rows_with_all_they_are_made_of(sparing, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    path = checkpoint(tmp_path / "model", "llama", max_position_embeddings=256)
    questions = tmp_path / "questions.txt"
    questions.write_text("\n".join(f"what is {n}?" for n in range(5)))
    outcome = sparing("bench", "serve", "--model", path, "--prompts", questions, "--new-tokens", 8,
                      "--rounds", 1, "--probes", 3, "--requests", 20, "--threads", 1,
                      "--json", tmp_path / "serve.json")  # fmt: skip
    assert outcome.code == 0, outcome.err
    found = json.loads((tmp_path / "serve.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    raw = found["raw"]
    assert list(rows) == NAMES
    assert all(row["value"] > 0 for row in rows.values())
    assert {row["bar"] for row in rows.values()} == {None}, "bars are of our own results"
    assert list(raw["throughput"]) == ["default", "off"]
    for [round_] in raw["throughput"].values():
        assert round_["together"]["finished"] == 32
        assert round_["together"]["tokens"] == round_["alone"]["tokens"] > 32
    assert len(raw["first token"]["idle"]) == len(raw["first token"]["loaded"]) == 3
    over = median(raw["first token"]["loaded"]) / median(raw["first token"]["idle"])
    assert rows["first_token_8_over_idle"]["value"] == over
    memory = raw["memory"]
    assert rows["resident_late_over_early"]["value"] == memory["late"] / memory["early"]


def test_the_server_loads_the_same_model():
    given = {"model": "mine", "weights": "q8_0", "dtype": "bfloat16", "threads": 3}
    flags = server_flags(LoadingFlags(**given))
    found = dict(zip(flags[::2], flags[1::2], strict=True))
    assert found == {f"--{name}": str(value) for name, value in given.items()} | {
        "--decoder": "auto"
    }


def test_it_asks_for_questions_where_it_knows_none(sparing, tmp_path):
    outcome = sparing("bench", "serve", "--model", checkpoint(tmp_path, "llama"))
    assert outcome.code == 2
    assert "pass --prompts FILE" in outcome.err

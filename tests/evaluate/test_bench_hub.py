"""`sparing bench hub`: the rows, by seconds that are known, and the command."""

import json

import pytest

from sparing import load
from sparing.evaluate import bench_hub
from tests.families import HUB
from tests.model.passes import random_ids
from tests.tiny import reference


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(bench_hub, "NEW_TOKENS", 6)
    monkeypatch.setattr(bench_hub, "WARM", 300)
    monkeypatch.setattr(bench_hub, "BUDGETED", 310)


def test_ratios_are_of_medians_round_by_round(short, monkeypatch):
    engine = load(str(HUB["gemma3"]()), dtype="float64")
    seconds = {"generate": [4.0, 2.0, 9.0], "custom_generate": [2.0] * 3, "engine": [1.0, 1.0, 5.0]}
    monkeypatch.setattr(
        bench_hub,
        "in_turns",
        lambda arms, rounds: {name: [seconds[name]] * rounds for name in arms},
    )
    figures, raw = bench_hub.bench_hub(engine, None, random_ids(64), [8, 32], 2)
    values = {figure.name: figure.value for figure in figures}
    assert values["hub_vs_generate/8"] == 4.0
    assert values["custom_generate_vs_generate/32"] == 2.0
    assert raw["budget_kv_bytes"] == 256 * engine.cache(1, 1).slot_bytes
    assert values["budget_growth_share"] == raw["budget_growth_bytes"] / raw["budget_kv_bytes"]


def test_every_arm_gives_the_seconds_between_its_tokens(short):
    path = HUB["gemma3"]()
    engine, other = load(str(path), dtype="float64"), reference(path)
    ids = random_ids(20)
    for found in (
        bench_hub.by_generate(other, ids),
        bench_hub.by_generate(other, ids, custom_generate=bench_hub.generate),
        bench_hub.by_engine(engine, ids),
    ):
        assert len(found) == 5
        assert all(seconds > 0 for seconds in found)


@pytest.mark.slow
def test_the_command(sparing, tmp_path):
    out = tmp_path / "hub.json"
    model = HUB["gemma3"]()
    assert sparing("bench", "hub", "--model", model, "--n", 1, "--json", out).code == 0
    content = json.loads(out.read_text())
    names = [row["name"] for row in content["rows"]]
    assert names == [
        "hub_vs_generate/64",
        "custom_generate_vs_generate/64",
        "hub_vs_generate/1024",
        "custom_generate_vs_generate/1024",
        "budget_growth_share",
    ]

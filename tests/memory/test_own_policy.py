"""A policy of one's own: the one of docs/memory.md, and broken ones."""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparing import Depth, Memory
from sparing.engine.events import EvictEvent
from sparing.engine.eviction import EvictionPolicy, SlotView
from sparing.errors import OptionError
from sparing.evaluate.bench_memory_rows import MemoryExperiment
from sparing.memory.find import POLICIES, PREDICTED
from tests.cli.command import assert_one_line
from tests.engine.driving import Recorder, greedy, run, said
from tests.engine.test_eviction_exact import masked_logits
from tests.memory.steady import Steady
from tests.tiny import engine, tiny

PAGE = (Path(__file__).parents[2] / "docs" / "memory.md").read_text()
SECTION = PAGE.split("## A policy of your own\n")[1].split("\n## ")[0]
CODE = (Path(__file__).parent / "steady.py").read_text()
PROMPT = list(b"a question of 24 bytes..")
COUNT = 50
SAMPLING = greedy(COUNT)


def blocks(language: str) -> list[str]:
    """The section's code in a language."""
    return [part.split("```")[0] for part in SECTION.split(f"```{language}\n")[1:]]


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """Installs a module as ``steady``, with the page's entry point, as pip would leave it."""

    def install(code: str) -> None:
        [declared] = map(tomllib.loads, blocks("toml"))
        [(group, names)] = declared["project"]["entry-points"].items()
        lines = [f"[{group}]", *(f"{name} = {value}" for name, value in names.items())]
        home = tmp_path / "steady-1.0.dist-info"
        home.mkdir()
        (home / "METADATA").write_text("Metadata-Version: 2.1\nName: steady\nVersion: 1.0\n")
        (home / "entry_points.txt").write_text("\n".join(lines) + "\n")
        (tmp_path / "steady.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)

    yield install
    sys.modules.pop("steady", None)


def test_the_readme_has_these_very_lines():
    assert blocks("python")[0] == CODE
    assert len(CODE.splitlines()) <= 20


def test_what_the_readme_does_with_it_runs(packaged):
    packaged(CODE)
    names: dict[str, Any] = {}
    exec(blocks("python")[1], names)
    stats = names["result"].stats
    assert stats.policy == "steady"
    assert stats.evictions > 1


def test_evicting_by_it_is_masking():
    path = tiny("llama", markers=None)
    model, steady = engine(path), Steady()
    assert isinstance(steady, EvictionPolicy)
    recorder = Recorder(model.decoder)
    memory = Memory(budget=len(PROMPT) + 20, policy=steady)
    [result] = run(model, [PROMPT], SAMPLING, memory, decoder=recorder)
    evictions = [event for event in result.events if isinstance(event, EvictEvent)]
    assert len(evictions) > 2
    assert result.stats.policy == "steady"
    expected = masked_logits(path, result, evictions)
    along = recorder.logits_along(PROMPT + result.token_ids)
    for position, logits in along.items():
        assert (logits - expected[position]).abs().max() < 1e-4
    others = [
        run(model, [PROMPT], SAMPLING, Memory(budget=memory.budget, policy=policy))[0]
        for policy in POLICIES
        if policy not in PREDICTED
    ]
    assert all(evicted(other) != evicted(result) for other in others), "it is none of ours"
    [drafted] = model.generate(
        [PROMPT], memory, Depth(draft="layers", confidence=0.0), None, SAMPLING
    )
    assert said(drafted) == said(result)


def test_by_its_name_in_python_and_on_the_command_line(packaged, sparing):
    packaged(CODE)
    path, budget = tiny("llama", markers=None), len(PROMPT) + 20
    own, named = (Memory(budget=budget, policy=policy) for policy in (Steady(), "steady"))
    [expected] = engine(path).generate([PROMPT], own, None, None, SAMPLING)
    [found] = engine(path).generate([PROMPT], named, None, None, SAMPLING)
    assert said(found) == said(expected)
    flags = f"--budget {budget} --max-new-tokens {COUNT} --ignore-eos --temperature 0 --raw --json"
    told = sparing("run", bytes(PROMPT).decode(), "--model", path, "--policy", "steady",
                   *flags.split())  # fmt: skip
    assert told.code == 0, told.err
    content = json.loads(told.out)
    assert content["stats"]["policy"] == "steady"
    assert content["stats"]["evictions"] == expected.stats.evictions
    assert "steady" in Memory.model_json_schema()["properties"]["policy"]["enum"]
    experiment = MemoryExperiment([], 1, 0, ["steady", "window"], [0.5])
    assert experiment.arms[1] == ("steady", 0.5)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise RuntimeError('not today')", "not today"),
        ("Other = None", "no attribute 'Steady'"),
        ("Steady = 3", "not callable"),
        ("def Steady(): return 3", "3, without name, watches and score"),
        ("def Steady(tokenizer): return None", "missing 1 required positional argument"),
        (CODE.replace("watches = 1", "watches = -1"), "without name, watches and score"),
    ],
)
def test_a_package_that_brings_none(packaged, sparing, code, said):
    packaged(code)
    told = sparing("run", "hi", "--model", tiny("llama"), "--policy", "steady", "--budget", "60")
    assert_one_line(told, "policy steady must be a policy when steady:Steady is called, got", said)


@pytest.mark.parametrize("policy", [Steady, object(), 3, ["window"], {"name": "steady"}])
def test_what_is_no_policy(policy):
    with pytest.raises(OptionError, match=r"^policy must be 'auto', 'full', .* or an object with"):
        Memory(budget=60, policy=policy)


def test_it_needs_a_budget_too():
    with pytest.raises(OptionError, match="policy steady needs a budget, got none"):
        Memory(policy=Steady())


class Scoring(Steady):
    """As ``make`` makes of the positions."""

    def __init__(self, make: Any) -> None:
        object.__setattr__(self, "make", make)

    def score(self, view: SlotView) -> Any:
        return self.make(view.positions)


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (lambda positions: positions * np.nan, "got 44 of which 0 are finite"),
        (lambda positions: np.where(positions == 9, np.inf, 1.0), "got 44 of which 43 are finite"),
        (lambda positions: positions[1:], "got 43 of which 43 are finite"),
        (lambda positions: positions[:, None], "got 44 x 1 of which 44 are finite"),
        (lambda positions: 1.0, "got one of which 1 are finite"),
    ],
)
def test_scores_that_are_none(make, got):
    memory = Memory(budget=len(PROMPT) + 20, policy=Scoring(make))
    with pytest.raises(OptionError) as error:
        run(engine(tiny("llama", markers=None)), [PROMPT], SAMPLING, memory)
    said = f"policy steady must give each of 44 slots a finite number, {got}; correct its score"
    assert str(error.value) == said


def test_scores_may_be_a_list_of_whole_numbers():
    model = engine(tiny("llama", markers=None))
    whole = Memory(budget=len(PROMPT) + 20, policy=Scoring(lambda positions: positions.tolist()))
    window = Memory(budget=len(PROMPT) + 20, policy="window")
    ours, theirs = (run(model, [PROMPT], SAMPLING, memory)[0] for memory in (whole, window))
    assert evicted(ours) == evicted(theirs) != []


def evicted(result: Any) -> list[list[int]]:
    return [event.positions for event in result.events if isinstance(event, EvictEvent)]

"""Traces in shards: the same bytes whatever interrupts them and however many processes write."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparing.cli.train_predictor import find_problems, questions
from sparing.errors import OptionError
from sparing.memory import traces as module
from sparing.memory.settings import TraceSettings
from sparing.memory.targets import TARGETS, importance
from sparing.memory.traces import (
    LEAST_THINKING,
    TraceSet,
    TraceSource,
    collect,
    shard_path,
    thought,
)
from sparing.memory.train import sample_traces
from sparing.options import Sampling
from sparing.tasks.problem import Problem
from tests.memory.small import thinker
from tests.tiny import engine, tiny, unchecked

SHARD = 4
HORIZONS = (3, 5)
COUNT = 14


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "SHARD", SHARD)
    with unchecked():
        yield


@dataclass
class Sampled:
    """A tiny model's answers; problem ``id`` closes its thought after ``id`` tokens, if at all.

    ``asked``: what it was asked for, question by question; ``stop_at``: Ctrl-C at so many.
    """

    model: Any
    asked: list[int] = field(default_factory=list)
    stop_at: int | None = None

    def __call__(self, problems):
        results = []
        for problem in problems:
            if len(self.asked) == self.stop_at:
                raise KeyboardInterrupt
            self.asked.append(problem.id)
            sampling = Sampling(temperature=1.0, seed=problem.id, max_new_tokens=20,
                                think_budget=problem.id, ignore_eos=True)  # fmt: skip
            results += self.model.generate([problem.question], sampling=sampling)
        return results


def problems(count=COUNT):
    return [Problem("task", i, f"question {i} <think>", str(i)) for i in range(1, count + 1)]


def asked(sample=None, count=COUNT, **changed):
    model = engine(tiny(num_hidden_layers=2), "float32")
    plain = TraceSource(
        problems(count), sample or Sampled(model), lambda p, r: True, model.decoder, HORIZONS
    )
    return replace(plain, **changed)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def whole(tmp_path):
    """All shards of an unbroken run."""
    collect(asked(), tmp_path / "whole")
    return contents(tmp_path / "whole")


def test_a_trace_is_what_its_model_said_and_what_it_was_worth(tmp_path):
    """One after the other, over shards, in the order of the questions."""
    given = asked()
    collect(given, tmp_path)
    found = TraceSet(tmp_path, given.shards)
    assert given.shards == 4 == len(list(tmp_path.iterdir()))
    assert (found.sampled, found.horizons) == (COUNT, HORIZONS)
    assert [trace.id for trace in found.traces] == list(range(LEAST_THINKING, COUNT + 1))
    assert found.tokens == sum(range(LEAST_THINKING, COUNT + 1))
    for trace, problem in zip(found.traces, problems()[LEAST_THINKING - 1 :], strict=True):
        [result] = given.sample([problem])
        end = begin = len(result.prompt_token_ids)
        end += problem.id
        ids = result.prompt_token_ids + result.token_ids
        assert ids[end - 1] == given.sample.model.chat.markers.end_ids[0]
        truth = importance(given.decoder, ids, begin, end, HORIZONS)
        assert (trace.task, trace.length) == ("task", problem.id)
        for name in TARGETS:
            assert torch.equal(trace.read(name), truth.target(name))
        assert torch.equal(trace.read("hidden"), truth.hidden)
        assert truth.answer.sum() > 0


def test_a_thought_without_an_end_and_an_answer_without_a_thought():
    model = engine(tiny(num_hidden_layers=2), "float32")
    for text, options, wanted in (
        ("Q <think>", {}, 20),
        ("Q <think>", {"think_budget": 9}, 9),
        ("Q", {}, 0),
    ):
        sampling = Sampling(max_new_tokens=20, temperature=0, ignore_eos=True, **options)
        [result] = model.generate([text], sampling=sampling)
        assert thought(result) == wanted
    plain = engine(tiny(num_hidden_layers=2, markers=None), "float32")
    [result] = plain.generate(["Q"], sampling=Sampling(max_new_tokens=20, ignore_eos=True))
    assert thought(result, marked=False) == 20


@pytest.mark.parametrize("index", range(4))
def test_a_missing_shard_alone_is_sampled_anew(tmp_path, whole, index):
    folder = tmp_path / "whole"
    shard_path(folder, index).unlink()
    again = asked()
    done = []
    collect(again, folder, on_shard=done.append)
    assert contents(folder) == whole
    assert again.sample.asked == [p.id for p in problems()[index * SHARD : (index + 1) * SHARD]]
    assert done == [1, 2, 3, 4]


@pytest.mark.parametrize("stop_at", [0, 1, 7, 8, 13])
def test_interrupted_it_keeps_whole_shards(tmp_path, whole, stop_at):
    model = engine(tiny(num_hidden_layers=2), "float32")
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        collect(asked(Sampled(model, stop_at=stop_at)), folder)
    first = list(whole)[: stop_at // SHARD] if stop_at else []
    assert set(contents(folder)) == {f"shard-{i:05d}.safetensors" for i in range(len(first))}
    again = asked()
    collect(again, folder)
    assert contents(folder) == whole
    assert again.sample.asked == list(range(1 + stop_at // SHARD * SHARD, COUNT + 1))


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_several_processes_write_what_one_does(tmp_path, whole, processes):
    folder = tmp_path / "out"
    sampled = []
    for process in reversed(range(processes)):
        given = asked()
        collect(given, folder, process, processes)
        sampled += given.sample.asked
    assert sorted(sampled) == list(range(1, COUNT + 1))
    assert contents(folder) == whole


def test_every_tenth_question_is_held_out(tmp_path):
    given = asked(Sampled(engine(tiny(num_hidden_layers=2), "float32")), count=32)
    collect(given, tmp_path)
    found = TraceSet(tmp_path, given.shards)
    assert [trace.id for trace in found.held_out] == [10, 20, 30]
    assert [trace.id for trace in found.train] == [i for i in range(8, 33) if i % 10]


def test_nothing_accepted(tmp_path):
    """Shards without a trace are shards; they count what was sampled."""
    given = asked(accept=lambda problem, result: problem.id == 12)
    collect(given, tmp_path)
    found = TraceSet(tmp_path, given.shards)
    assert (found.sampled, [trace.id for trace in found.traces]) == (COUNT, [12])
    [trace] = found.traces
    assert trace.read("hidden").shape == (12, 48)


@dataclass(frozen=True)
class Even:
    """Questions; an answer with an even number of characters is right."""

    name: str = "even"

    def problems(self, n, seed, split="test"):
        assert split == "traces"
        return [Problem(self.name, i, f"question {i} of {seed}", "even") for i in range(1, n + 1)]

    def grade(self, problem, answer_text):
        return len(answer_text) % 2 == 0


@pytest.mark.parametrize("seed", [0, 1])
def test_accepted_are_the_right_answers_or_all(tmp_path, seed):
    """Through the command's own parts: problems, sampling and grading."""
    given = {"model": "m", "n": 24, "max_new_tokens": 40, "temperature": 1.0, "seed": seed}
    kept, model = {}, engine(thinker(tmp_path / "model", num_hidden_layers=2), "float32")
    for accept in ("any", "verified"):
        settings = TraceSettings(accept=accept, **given)
        problems = find_problems([Even()], settings)
        wanted = questions(model, [Even()], problems, settings, 5)
        collect(wanted, tmp_path / accept)
        found = TraceSet(tmp_path / accept, wanted.shards)
        assert found.sampled == 24
        kept[accept] = [trace.id for trace in found.traces]
    results = dict(zip(range(1, 25), wanted.sample(wanted.problems), strict=True))
    long = [id_ for id_, result in results.items() if thought(result) >= LEAST_THINKING]
    assert kept["any"] == long
    assert kept["verified"] == [id_ for id_ in long if len(results[id_].answer) % 2 == 0]
    assert 3 < len(kept["verified"]) < len(long) - 3 < len(results) - 3
    assert all(problem.question.endswith(f" of {seed}") for problem in wanted.problems)


def no_metadata(path):
    save_file(load_file(path), path)


def told(**content):
    return lambda path: save_file(load_file(path), path, {"told": json.dumps(content)})


BROKEN = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "no safetensors": lambda path: path.write_bytes(b"traces" * 100),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
    "told nothing": no_metadata,
    "told no JSON": lambda path: save_file(load_file(path), path, {"told": "nothing"}),
    "told too little": told(sampled=4),
    "told of none": told(sampled=4, traces=[], horizons=[3, 5]),
    "told no horizons": told(sampled=4, traces=[]),
    "no lengths": lambda path: save_file({"x": torch.ones(1)}, path, {"told": "{}"}),
}


@pytest.mark.parametrize("spoil", BROKEN.values(), ids=BROKEN)
def test_a_broken_shard_is_one_line(tmp_path, whole, spoil):
    path = shard_path(tmp_path / "whole", 2)
    spoil(path)
    with pytest.raises(OptionError) as error:
        TraceSet(tmp_path / "whole", 4)
    said = str(error.value)
    assert said.startswith(f"{path} must be a whole shard of traces, got: ")
    assert "delete it and pass --resume" in said
    assert "\n" not in said


def sampled(folder, given=None, fingerprint="f", **options):
    settings = {"model": "m", "n": COUNT} | options.pop("settings", {})
    return sample_traces(
        given or asked(), TraceSettings(**settings), fingerprint, folder, **options
    )


def test_another_run_is_refused_and_the_same_goes_on(tmp_path):
    """Of other settings, of another model under the same name, or not asked to go on."""
    found = sampled(tmp_path)
    assert [trace.id for trace in found.held_out] == [10]
    again = asked()
    assert len(sampled(tmp_path, again, resume=True).traces) == len(found.traces)
    assert again.sample.asked == []
    for options, said in (
        ({"resume": False}, "pass --resume to go on with it"),
        ({"settings": {"n": 9}}, "was begun with n 14, got 9"),
        ({"settings": {"model": "n"}}, "was begun with model 'm', got 'n'"),
        ({"settings": {"horizons": (4,)}}, r"was begun with horizons \[16, 32"),
        ({"settings": {"max_new_tokens": 9}}, "was begun with max_new_tokens None, got 9"),
        ({"fingerprint": "g"}, "was begun with fingerprint 'f', got 'g'"),
    ):
        with pytest.raises(OptionError, match=said):
            sampled(tmp_path, **{"resume": True} | options)


@pytest.mark.parametrize(
    ("count", "accept", "said"),
    [
        (9, lambda p: True, "got 2 and 0 of 9 questions; pass a larger --n"),
        (14, lambda p: p.id == 10, "got 0 and 1 of 14 questions"),
        (14, lambda p: False, "got 0 and 0 of 14 questions"),
    ],
)
def test_too_few_to_hold_any_out(tmp_path, count, accept, said):
    given = asked(count=count, accept=lambda problem, result: accept(problem))
    with pytest.raises(OptionError, match=said):
        sampled(tmp_path, given)

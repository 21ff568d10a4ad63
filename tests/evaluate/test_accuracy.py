"""Evaluation: rows as generate would give them, whatever the batch, and resumable."""

import json
from dataclasses import replace

import pytest

from sparing import __version__
from sparing.errors import OptionError, PromptError
from sparing.evaluate.accuracy import AccuracyExperiment, evaluate, summary
from sparing.evaluate.batch_generate import Settings, answers
from sparing.evaluate.partial_results import PartialResults
from sparing.evaluate.statistics import wilson
from sparing.options import Depth, Memory, Sampling
from tests.evaluate.questions import Asked, Interrupt, Words
from tests.tiny import engine, tiny, unchecked

MODEL = {"num_hidden_layers": 2}
SAMPLED = Settings(
    sampling=Sampling(temperature=1.0, max_new_tokens=40), batch_size=3, sample_seed=7
)


def model():
    return engine(tiny(**MODEL))


def timeless(rows):
    return [{name: v for name, v in row.items() if name != "seconds"} for row in rows]


@pytest.mark.parametrize(
    "memory", [None, Memory(budget=0.5), Memory(budget=150, policy="random")], ids=str
)
@pytest.mark.parametrize("batch_size", [1, 2, 5])
@unchecked()
def test_rows_are_what_generate_says_of_each_alone(memory, batch_size):
    settings = replace(SAMPLED, memory=memory or Memory(), batch_size=batch_size)
    sampling = Sampling(temperature=1.0, max_new_tokens=230)
    settings = replace(settings, sampling=sampling, depth=Depth(draft="off"))
    experiment = AccuracyExperiment([Words()], 5, 0, settings)
    content = evaluate(model(), experiment)
    for row, problem in zip(content["rows"], experiment.problems, strict=True):
        noise = Sampling(**sampling.model_dump() | {"seed": settings.noise_seed(problem)})
        chat = [{"role": "user", "content": problem.question}]
        [alone] = model().generate([chat], memory, settings.depth, None, noise)
        stats = alone.stats
        assert row["answer"] == alone.answer
        assert row["correct"] == (len(alone.answer) % 2 == 0)
        assert row["finish_reason"] == alone.finish_reason
        assert row["prompt_tokens"] == len(alone.prompt_token_ids)
        for name in ("new_tokens", "thinking_tokens", "evictions", "kv_bytes_peak"):
            assert row[name] == getattr(stats, name), name
    assert content["seconds"] == pytest.approx(sum(row["seconds"] for row in content["rows"]))


def test_every_problem_has_noise_of_its_own():
    problems = AccuracyExperiment([Words(), Words("others")], 5, 0, SAMPLED).problems
    seeds = {replace(SAMPLED, sample_seed=s).noise_seed(p) for s in (0, 1) for p in problems}
    assert len(seeds) == 20
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_raw_and_template_options_reach_the_prompt():
    [chat, raw] = (
        evaluate(model(), AccuracyExperiment([Words()], 1, 0, replace(SAMPLED, raw=raw)))["rows"][0]
        for raw in (False, True)
    )
    assert chat["prompt_tokens"] > raw["prompt_tokens"]


@pytest.mark.parametrize("budget", [0, 1, 5])
@pytest.mark.parametrize("opened", [True, False])
def test_a_thought_that_is_forbidden_ends_at_once(budget, opened):
    tiny_engine = model()
    question = "<think>" if opened else "x"
    sampling = Sampling(temperature=1.0, max_new_tokens=30, think_budget=budget, ignore_eos=True)
    settings = replace(SAMPLED, sampling=sampling, raw=True)
    experiment = AccuracyExperiment([Asked(question=question)], 1, 0, settings)
    [row] = evaluate(tiny_engine, experiment)["rows"]
    assert row["thinking_tokens"] <= (max(budget, 1) if opened else max(budget, 2))
    if opened:
        [answered] = answers(tiny_engine, experiment.problems, settings, [0])
        assert answered.result.text.startswith("</think>" if budget < 2 else "")
        assert row["thinking_tokens"] == max(budget, 1)
        assert row["new_tokens"] == 30


def test_a_summary_says_what_its_rows_add_up_to():
    content = evaluate(model(), AccuracyExperiment([Words(), Words("others")], 6, 3, SAMPLED))
    assert list(content["tasks"]) == ["words", "others"]
    assert [row["id"] for row in content["rows"]] == [1, 2, 3, 4, 5, 6] * 2
    for name, found in content["tasks"].items():
        rows = [row for row in content["rows"] if row["task"] == name]
        solved = sum(row["correct"] for row in rows)
        assert 0 < solved < 6  # else this test says little: take another seed
        assert found["accuracy"] == solved / 6
        assert (found["low"], found["high"]) == wilson(solved, 6)
        for cost in ("thinking_tokens", "new_tokens", "seconds", "kv_bytes_peak"):
            total = sum(row[cost] for row in rows)
            assert found[cost] == total / 6
            assert found[f"{cost}_per_solved"] == total / solved
    assert content["all"]["n"] == 12
    assert set(content) >= {"machine", "threads", "dtype", "versions", "commit", "command"}


def test_nothing_solved_costs_nothing_that_could_be_said():
    [row] = evaluate(model(), AccuracyExperiment([Words()], 1, 0, SAMPLED))["rows"]
    found = summary([row | {"correct": False}])
    assert found["accuracy"] == found["low"] == 0
    assert found["seconds_per_solved"] is None


def test_a_summary_says_what_was_cut_off_and_what_the_memory_was():
    sampling = Sampling(temperature=1.0, max_new_tokens=60, ignore_eos=True)
    memory = Memory(budget=0.5, policy="window", local=8, selection=0.5)
    settings = replace(SAMPLED, sampling=sampling, memory=memory)
    content = evaluate(model(), AccuracyExperiment([Words()], 4, 0, settings, thoughts=True))
    rows, found = content["rows"], content["all"]
    assert content["policy"] == "window"
    assert found["cut_off"] == 4
    assert found["evictions"] == sum(row["evictions"] for row in rows) / 4 > 0
    for row in rows:
        assert row["budget"] == row["prompt_tokens"] + 30
        assert row["slots_peak"] == row["budget"]
        assert row["max_new_tokens"] == 60
        assert "thinking" in row
    slots = [row["budget"] for row in rows]
    assert found["budget"] == {"low": min(slots), "mean": sum(slots) / 4, "high": max(slots)}
    assert found["budget"]["low"] < found["budget"]["high"]
    assert found["slots_peak"] == max(slots)


def test_without_a_budget_the_slots_in_use_are_those_of_all_tokens_but_the_last():
    sampling = Sampling(temperature=1.0, max_new_tokens=30, ignore_eos=True)
    [row] = evaluate(
        model(), AccuracyExperiment([Words()], 1, 0, replace(SAMPLED, sampling=sampling))
    )["rows"]
    assert row["slots_peak"] == row["prompt_tokens"] + 29
    assert row["budget"] is None
    assert "thinking" not in row
    assert summary([row])["budget"] is None


def test_a_prompt_that_does_not_fit_is_named_and_leaves_nothing(tmp_path):
    experiment = AccuracyExperiment([Asked(question="x" * 3000)], 1, 0, SAMPLED)
    part = PartialResults(tmp_path / "a.json", experiment.fingerprint({}))
    with pytest.raises(PromptError, match="words, problem 1: a prompt must be shorter than"), part:
        evaluate(model(), experiment, part)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("memory", [Memory(), Memory(budget=120)], ids=str)
@pytest.mark.parametrize("stops", [[0], [3], [1, 2, 2], [7]])
def test_going_on_gives_what_an_unbroken_run_gives(tmp_path, memory, stops):
    settings = replace(SAMPLED, memory=memory)
    unbroken = evaluate(model(), AccuracyExperiment([Words()], 8, 0, settings))
    result = tmp_path / "out" / "a.json"
    done = 0
    for stop in stops:
        experiment = AccuracyExperiment([Words(watch=Interrupt(stop))], 8, 0, settings)
        part = PartialResults(result, experiment.fingerprint({}))
        assert len(part.rows) == done
        with pytest.raises(KeyboardInterrupt), part:
            evaluate(model(), experiment, part)
        done += stop
        if done:
            assert len(part.path.read_text().splitlines()) == 1 + done
        else:
            assert not part.path.exists()
    experiment = AccuracyExperiment([Words(watch=Interrupt(8 - done))], 8, 0, settings)
    with PartialResults(result, experiment.fingerprint({})) as part:
        content = evaluate(model(), experiment, part)
    assert timeless(content["rows"]) == timeless(unbroken["rows"])
    assert {t: s["accuracy"] for t, s in content["tasks"].items()} == {
        t: s["accuracy"] for t, s in unbroken["tasks"].items()
    }
    part.remove()
    assert list(result.parent.iterdir()) == []


def test_a_line_cut_short_is_done_again(tmp_path):
    experiment = AccuracyExperiment([Words()], 4, 0, SAMPLED)
    result = tmp_path / "a.json"
    with PartialResults(result, experiment.fingerprint({})) as part:
        whole = evaluate(model(), experiment, part)
    lines = part.path.read_bytes()
    for kept in (0, 10, lines.index(b"\n") + 1, len(lines) - 1, len(lines)):
        part.path.write_bytes(lines[:kept])
        with PartialResults(result, experiment.fingerprint({})) as part:
            assert len(part.rows) == max(lines[:kept].count(b"\n") - 1, 0)
            again = evaluate(model(), experiment, part)
        assert timeless(again["rows"]) == timeless(whole["rows"])


BASE = AccuracyExperiment([Words()], 4, 0, SAMPLED)
CHANGES = {
    "n": replace(BASE, n=5),
    "seed": replace(BASE, seed=1),
    "thoughts": replace(BASE, thoughts=True),
    "task": replace(BASE, tasks=[Words("others")]),
    "batch_size": replace(BASE, how=replace(SAMPLED, batch_size=2)),
    "sample_seed": replace(BASE, how=replace(SAMPLED, sample_seed=8)),
    "raw": replace(BASE, how=replace(SAMPLED, raw=True)),
    "memory.budget": replace(BASE, how=replace(SAMPLED, memory=Memory(budget=99))),
    "depth.draft": replace(BASE, how=replace(SAMPLED, depth=Depth(draft="off"))),
    "sampling.temperature": replace(
        BASE, how=replace(SAMPLED, sampling=Sampling(temperature=0, max_new_tokens=40))
    ),
    "sampling.stop": replace(
        BASE,
        how=replace(SAMPLED, sampling=Sampling(temperature=1.0, max_new_tokens=40, stop=["x"])),
    ),
    "template_options": replace(
        BASE, how=replace(SAMPLED, template_options={"enable_thinking": False})
    ),
    "questions": replace(BASE, tasks=[Asked(question="something else")]),
}


@pytest.mark.parametrize("field", CHANGES)
def test_rows_of_other_settings_are_refused_by_the_field(tmp_path, field):
    result = tmp_path / "a.json"
    with PartialResults(result, BASE.fingerprint({"model": "a"})) as part:
        part.append({})
    with pytest.raises(OptionError, match=rf"got another {field} \(.* then, .* now\)") as error:
        PartialResults(result, CHANGES[field].fingerprint({"model": "a"}))
    assert "delete a.json.part.jsonl, or pass another --json" in str(error.value)
    with pytest.raises(OptionError, match=r"got another model \('a' then, 'b' now\)"):
        PartialResults(result, BASE.fingerprint({"model": "b"}))


def test_another_version_or_file_is_refused(tmp_path):
    result = tmp_path / "a.json"
    fingerprint = BASE.fingerprint({})
    assert fingerprint["version"] == __version__
    with PartialResults(result, fingerprint | {"version": "0.0.1"}) as part:
        part.append({})
    with pytest.raises(OptionError, match="got another version"):
        PartialResults(result, fingerprint)
    for content in ("rubbish\n", "[]\n", "{}\n", json.dumps({"fingerprint": None}) + "\n{}\n"):
        part.path.write_text(content)
        with pytest.raises(OptionError, match="must hold the rows of an unfinished evaluation"):
            PartialResults(result, fingerprint)

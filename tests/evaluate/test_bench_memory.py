"""`sparing bench memory`: equal budgets, rows that survive a kill, figures from made-up rows."""

import json
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.progress import Progress

from sparing.api import load
from sparing.engine.events import EvictEvent, TokenEvent, scores_by_position
from sparing.engine.eviction import Budget
from sparing.errors import OptionError, PromptError
from sparing.evaluate.batch_generate import answers
from sparing.evaluate.bench_memory import in_effect, memory_figures
from sparing.evaluate.bench_memory_rows import (
    FULL,
    LEAST_ROOM,
    MemoryExperiment,
    chosen_policies,
)
from sparing.evaluate.bench_memory_speed import Clock, against_transformers, predictor_share
from sparing.evaluate.bench_memory_trace import Target, read, trace
from sparing.evaluate.partial_results import PartialResults
from sparing.evaluate.plots_memory import draw_accuracy
from sparing.evaluate.plots_trace import LONGEST, NEW_LINE, draw_trace, lay_out, ranks
from sparing.evaluate.report import report
from sparing.evaluate.statistics import paired_bootstrap, wilson
from sparing.memory.find import POLICIES
from sparing.memory.targets import importance
from sparing.options import Depth, Memory, Sampling
from tests.evaluate.questions import Asked, Interrupt, Words
from tests.memory import small
from tests.tiny import reference, tiny, unchecked
from tools.tables import memory_table

QUIET = {"disable": True}
SMALL = {"num_hidden_layers": 2}


@dataclass(frozen=True)
class Opened(Asked):
    """A question that opens its thought; any answer is right."""

    def grade(self, problem, answer_text):
        return True


def predicting(markers=None, dtype="float64", **config):
    """A tiny model with a random predictor; without markers every token is a thought."""
    return small.predicting(tiny(markers=markers, **SMALL | config), dtype)


def plan_of(*tasks, policies=tuple(POLICIES), shares=(0.25, 0.5), n=3, **options):
    options = {"max_new_tokens": 70, "batch_size": 4} | options
    return MemoryExperiment(tasks or [Words()], n, 0, policies, shares, **options)


def collected(plan, part=None):
    return plan.collect(predicting(), part, Progress(**QUIET))


@unchecked()
def test_every_policy_has_the_same_budget_and_says_what_generate_says():
    engine, plan = predicting(), plan_of(n=2)
    runs = collected(plan)
    assert list(runs) == [FULL, *((p, s) for s in (0.25, 0.5) for p in POLICIES)]
    peaks = {}
    for (policy, share), rows in runs.items():
        for problem, row, full in zip(plan.problems, rows, runs[FULL], strict=True):
            budget = full["prompt_tokens"] + round(share * full["thinking_tokens"])
            memory = None if policy == "full" else Memory(budget=budget, policy=policy)
            chat = [{"role": "user", "content": problem.question}]
            noise = plan.settings(FULL, None).noise_seed(problem)  # of the policy random
            sampling = Sampling(temperature=0, max_new_tokens=70, seed=noise)
            [alone] = engine.generate([chat], memory, Depth(draft="off"), None, sampling)
            assert row["correct"] == (len(alone.answer) % 2 == 0)
            assert row["finish_reason"] == alone.finish_reason
            for name in ("new_tokens", "evictions", "kv_bytes_peak"):
                assert row[name] == getattr(alone.stats, name), (policy, share, name)
            assert row["thinking_tokens"] == alone.stats.new_tokens  # none is marked
            assert (row["policy"], row["share"], row["id"]) == (policy, share, problem.id)
            assert row["kv_bytes_full"] == full["kv_bytes_peak"]
            assert policy == "full" or row["evictions"] > 0
            peaks.setdefault((share, problem.id), set()).add(row["kv_bytes_peak"])
    assert all(len(found) == 1 for found in peaks.values())


def test_the_report_says_which_local_and_selection_were_in_effect(monkeypatch):
    engine = predicting()
    assert in_effect(engine, plan_of()) == {"local": 0.4, "selection": 0.4}
    monkeypatch.setattr(engine.predictor, "memory", {"local": 0.3, "selection": 0.6})
    assert in_effect(engine, plan_of()) == {"local": 0.3, "selection": 0.6}
    assert in_effect(engine, plan_of(local=7)) == {"local": 7, "selection": 0.6}


def timeless(runs):
    return {arm: [row | {"seconds": 0} for row in rows] for arm, rows in runs.items()}


@pytest.mark.parametrize("stops", [[0], [2], [1, 3, 4], [13]])
@unchecked()
def test_going_on_gives_what_an_unbroken_run_gives(tmp_path, stops):
    policies, total = ("window", "learned"), 3 * (1 + 2 * 2)
    unbroken = collected(plan_of(policies=policies))
    result, done = tmp_path / "a.json", 0
    for stop in stops:
        plan = plan_of(Words(watch=Interrupt(stop)), policies=policies)
        part = PartialResults(result, plan.fingerprint({}))
        assert len(part.rows) == done
        with pytest.raises(KeyboardInterrupt), part:
            collected(plan, part)
        done += stop
    plan = plan_of(Words(watch=Interrupt(total - done)), policies=policies)
    with PartialResults(result, plan.fingerprint({})) as part:
        assert timeless(collected(plan, part)) == timeless(unbroken)
    assert len(part.rows) == total


@pytest.mark.parametrize(
    "change",
    [
        {"policies": ("window",)},
        {"shares": (0.5,)},
        {"n": 4},
        {"split": "validation"},
        {"local": 0.3},
        {"selection": 2},
        {"max_new_tokens": 71},
        {"batch_size": 5},
    ],
    ids=str,
)
def test_rows_of_other_settings_are_refused(tmp_path, change):
    [field] = change
    with PartialResults(tmp_path / "a.json", plan_of().fingerprint({})) as part:
        part.append({})
    with pytest.raises(OptionError, match=f"got another {field} "):
        PartialResults(tmp_path / "a.json", plan_of(**change).fingerprint({}))


@given(
    st.integers(1, 300),
    st.integers(0, 2000),
    st.floats(0.01, 1),
    st.none() | st.integers(1, 400) | st.floats(0.01, 0.99),
)
@settings(max_examples=200, deadline=None)
def test_a_budget_is_never_refused(question, thinking, share, local):
    plan = plan_of(local=local)
    memory = plan.memory(("window", share), question, thinking)
    budget = Budget.of(memory, question, 0)
    least = local + 1 if isinstance(local, int) else 0
    assert budget.slots == question + max(round(share * thinking), LEAST_ROOM, least)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"policies": ("window", "lerned")}, "policies must be among .*learned, got 'lerned'"),
        ({"policies": ("full",)}, "policies must be among"),
        ({"shares": (0.1, 1.5)}, r"shares must lie in \(0, 1\], got 1.5"),
        ({"shares": (0.0,)}, "got 0"),
        ({"split": "train"}, "split must be test or validation, got 'train'"),
        ({"local": 1.0}, "local must leave room"),
        ({"local": 0}, "local must be 1 token or more"),
        ({"selection": -1}, "selection must be 0 tokens or more"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(options, said):
    with pytest.raises(OptionError, match=said):
        plan_of(**options)


def test_policies_that_need_a_predictor():
    assert chosen_policies(None, True) == list(POLICIES)
    assert set(POLICIES) - set(chosen_policies(None, False)) == {"bottom", "learned"}
    assert chosen_policies(["learned", "window", "learned"], True) == ["learned", "window"]
    with pytest.raises(OptionError, match="policy learned needs a model with an importance"):
        chosen_policies(["window", "learned"], False)


def test_what_cannot_be_asked_is_refused_before_anything_is_shown(tmp_path, capfd):
    @dataclass(frozen=True)
    class Long(Words):
        def problems(self, n, seed, split="test"):
            return [replace(p, question="x" * 3000) for p in super().problems(n, seed)]

    plan = plan_of(Long())
    part, engine = PartialResults(tmp_path / "a.json", plan.fingerprint({})), predicting()
    capfd.readouterr()  # what making the checkpoint says, where no test before it has
    with pytest.raises(PromptError, match="words, problem 1: a prompt must be shorter"), part:
        plan.collect(engine, part, Progress())
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def made_up(solved, kv=5):
    """Rows from ``{(policy, share): {task: which are right}}``, as strings of 0 and 1."""
    return {
        arm: [
            {
                "policy": arm[0],
                "share": arm[1],
                "task": task,
                "id": i,
                "correct": right == "1",
                "new_tokens": 100 + i,
                "seconds": 0.5,
                "kv_bytes_peak": kv if arm != FULL else 20,
                "kv_bytes_full": 20,
            }
            for task, rights in tasks.items()
            for i, right in enumerate(rights, 1)
        ]
        for arm, tasks in solved.items()
    }


SOLVED = {
    FULL: {"legs": "1111", "sums": "1110", "sums-hard": "1100"},
    ("window", 0.1): {"legs": "0000", "sums": "1000", "sums-hard": "0001"},
    ("h2o", 0.1): {"legs": "1000", "sums": "0000", "sums-hard": "0000"},
    ("learned", 0.1): {"legs": "1110", "sums": "1000", "sums-hard": "0001"},
    ("window", 0.25): {"legs": "1100", "sums": "1100", "sums-hard": "0000"},
    ("h2o", 0.25): {"legs": "1000", "sums": "1000", "sums-hard": "1000"},
    ("learned", 0.25): {"legs": "1110", "sums": "1110", "sums-hard": "1110"},
}


def figures_of(solved):
    return {figure.name: figure for figure in memory_figures(made_up(solved))}


def test_accuracy_over_all_over_levels_and_over_tasks():
    found = figures_of(SOLVED)
    assert found["accuracy/full"].value == 9 / 12
    assert found["accuracy/full/standard"].value == 7 / 8
    assert found["accuracy/full/sums-hard"].value == 2 / 4
    learned = found["accuracy/learned/0.1"]
    assert (learned.value, learned.low, learned.high) == (5 / 12, *wilson(5, 12))
    assert found["accuracy/window/0.25/hard"].value == 0
    assert "uniform variant" in found["accuracy/h2o/0.1"].what


def test_against_the_full_cache():
    found = figures_of(SOLVED)
    standard = found["paired_vs_full/learned/0.25/standard"]
    differences = [0, 0, 0, -1, 0, 0, 0, 0]
    assert standard.value == -1 / 8
    assert (standard.low, standard.high) == paired_bootstrap(differences)
    assert found["paired_vs_full/learned/0.25/sums-hard"].value == 1 / 4
    assert found["paired_vs_full/window/0.1"].value == -7 / 12
    low = found["paired_low_vs_full/learned/0.25/standard"]
    assert (low.value, low.better) == (standard.low, "higher")


def test_against_the_best_other_of_each_share():
    found = figures_of(SOLVED)
    assert found["paired_vs_best/learned/0.1/standard"].value == 3 / 8  # window is first of two
    assert found["paired_vs_best/learned/0.1/hard"].value == 0  # window
    assert found["paired_vs_best/learned/0.25/hard"].value == 2 / 4  # h2o
    assert found["paired_vs_best/learned/0.1/legs"].value == 2 / 4  # h2o
    mean = found["paired_vs_best/learned/mean/hard"]
    by_problem = [0, 1 / 2, 1 / 2, 0]
    assert mean.value == 1 / 4
    assert (mean.low, mean.high) == paired_bootstrap(by_problem)
    assert found["paired_low_vs_best/learned/mean/hard"].value == mean.low


def test_costs():
    found = figures_of(SOLVED)
    assert found["tokens_per_solved/full"].value == 12 * 102.5 / 9
    assert found["seconds_per_solved/learned/0.1"].value == 6 / 5
    assert found["kv_share/h2o/0.25"].value == 0.25
    assert "kv_share/full" not in found
    nothing = figures_of({arm: {"legs": "00"} for arm in SOLVED})
    assert not [name for name in nothing if "per_solved" in name]


@pytest.mark.parametrize(
    ("keep", "absent"),
    [
        (lambda arm: arm[0] != "learned", ("learned", "paired_vs_best", "paired_low")),
        (lambda arm: arm[0] in ("full", "learned"), ("paired_vs_best", "paired_low_vs_best")),
        (lambda arm: arm[1] != 0.25, ("0.25", "paired_low_vs_full")),
        (lambda arm: arm == FULL, ("paired", "kv_share")),
    ],
    ids=["no learned", "no other", "no 0.25", "no policy"],
)
def test_figures_of_what_was_not_asked_for_are_absent(keep, absent):
    found = figures_of({arm: tasks for arm, tasks in SOLVED.items() if keep(arm)})
    assert "accuracy/full" in found
    assert not [name for name in found if any(part in name for part in absent)]
    hard = {arm: {"sums-hard": tasks["sums-hard"]} for arm, tasks in SOLVED.items()}
    assert not [name for name in figures_of(hard) if "standard" in name or "legs" in name]


def report_of(solved):
    """As the command writes it, less the rows."""
    arms = [arm for arm in solved if arm != FULL]
    plan = {
        "policies": list(dict.fromkeys(policy for policy, _ in arms)),
        "shares": list(dict.fromkeys(share for _, share in arms)),
    }
    return report("mine", memory_figures(made_up(solved)), {"plan": plan}, torch.float32)


def test_the_table_has_a_row_a_policy(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(report_of(SOLVED)))
    assert memory_table(str(file)).splitlines() == [
        "| policy | standard at 0.1 | hard at 0.1 | standard at 0.25 | hard at 0.25 |",
        "|---|---|---|---|---|",
        "| full cache | 87.5% | 50.0% | 87.5% | 50.0% |",
        "| window | 12.5% | 25.0% | 50.0% | 0.0% |",
        "| h2o (uniform variant) | 12.5% | 0.0% | 25.0% | 25.0% |",
        "| learned | 50.0% | 25.0% | 75.0% | 75.0% |",
    ]


@pytest.mark.parametrize(
    "keep", [lambda arm: True, lambda arm: arm[0] in ("full", "window"), lambda arm: arm[1] != 0.1]
)
@pytest.mark.parametrize("tasks", [("legs", "sums", "sums-hard"), ("sums-hard",)])
def test_accuracy_is_drawn_for_what_there_is(tmp_path, keep, tasks):
    solved = {arm: {t: SOLVED[arm][t] for t in tasks} for arm in SOLVED if keep(arm)}
    found = figures_of(solved)
    drawn = draw_accuracy(report_of(solved), tmp_path / "a.png")
    levels = ["standard", "hard"] if len(tasks) > 1 else ["hard"]
    assert [axes.get_title() for axes in drawn.axes] == levels
    shares = sorted({share for policy, share in solved if policy != "full"})
    for axes, level in zip(drawn.axes, levels, strict=True):
        full, *lines = axes.lines
        assert set(full.get_ydata()) == {found[f"accuracy/full/{level}"].value}
        policies = {policy for policy, _ in solved} - {"full"}
        assert {line.get_label().split()[0] for line in lines} == policies
        for line in lines:
            policy = line.get_label().split()[0]
            values = [found[f"accuracy/{policy}/{share}/{level}"].value for share in shares]
            assert (list(line.get_xdata()), list(line.get_ydata())) == (shares, values)


@unchecked()
def test_the_clock_and_the_bytes_against_transformers():
    engine = predicting(dtype="float32", max_position_embeddings=200)
    other = reference(tiny(markers=None, **SMALL, max_position_embeddings=200), "float32")
    clock = Clock(["2 and 2?"], budget=0.25)
    figures, raw = against_transformers(engine, other, clock)
    time, kv = figures
    assert [time.name, kv.name] == ["time_vs_transformers", "kv_bytes_vs_transformers"]
    question = len(engine.chat.encode(engine.chat.question(clock.questions[0])).ids)
    count = 200 - question
    assert kv.value == (question + int(0.25 * count)) / (question + count - 1)
    assert raw["speed_stats"][0]["policy"] == "learned"
    assert raw["speed_stats"][0]["evictions"] > 1
    assert {name: len(seconds) for name, seconds in raw["speed_seconds"].items()} == {
        "ours": 2,
        "theirs": 2,
    }
    assert time.value > 0


@unchecked()
def test_a_budget_under_which_a_row_cannot_go_on_gives_no_ratio():
    engine = predicting(dtype="float32", max_position_embeddings=200)
    other = reference(tiny(markers=None, **SMALL, max_position_embeddings=200), "float32")
    clock = Clock(["2 and 2?"], budget=60, selection=1.0, rounds=1)
    figures, raw = against_transformers(engine, other, clock)
    assert figures == []
    assert raw["speed_stats"][0]["evictions"] == 0


def test_the_clock_is_of_4096_tokens_at_budget_768_by_default():
    assert (Clock([]).budget, Clock([]).new_tokens) == (768, 4096)


def test_the_predictor_is_timed_where_there_is_one():
    [figure], raw = predictor_share(predicting())
    assert figure.name == "predictor_share_of_step"
    assert 0 < figure.value < 1
    assert set(raw["predictor_seconds"]) == {"predictor", "step"}
    without = load(str(tiny(markers=None, **SMALL)))
    assert predictor_share(without) == ([], {})


THOUGHT = 40  # tokens, then it is closed by force


def opened(**options):
    """A plan whose one question opens a thought that is closed by force, and how it is asked."""
    plan = plan_of(Opened(question="<think>"), n=1, **options)
    sampling = Sampling(temperature=0, max_new_tokens=70, think_budget=THOUGHT, ignore_eos=True)
    return plan, replace(plan.settings(FULL, None), raw=True, sampling=sampling)


@unchecked()
def test_a_trace_tells_of_each_thinking_token_what_was_predicted_and_what_came_true():
    engine = predicting("single")
    plan, how = opened()
    memory = plan.memory(("learned", 0.8), 1, THOUGHT)
    [spared] = answers(engine, plan.problems, replace(how, memory=memory))
    found = read(engine, plan.problems[0], spared.result, Target("future-mean", 3))
    said = [event for event in spared.result.events if isinstance(event, TokenEvent)]
    assert found["tokens"] == [event.text for event in said[:THOUGHT]]
    assert found["tokens"][-1].endswith("</think>")
    scores = scores_by_position(spared.result.events)
    assert found["predicted"] == [scores[event.position] for event in said[:THOUGHT]]
    ids = spared.result.prompt_token_ids + spared.result.token_ids
    truth = importance(engine.decoder, ids, 1, 1 + THOUGHT, [3]).future_mean
    assert found["true"] == truth[:, 0].tolist()
    gone = [p for e in spared.result.events if isinstance(e, EvictEvent) for p in e.positions]
    assert len(gone) > 2
    assert [at for at, out in enumerate(found["evicted"], 1) if out] == [
        position for position in sorted(gone) if position <= THOUGHT
    ]


def test_a_trace_is_drawn_whatever_it_says(tmp_path):
    tokens = ["<think>", "\n", "$5", " and ", "$6^{$", "\x01", "x" * 300, "\n\n", "</think>"]
    found = {
        "tokens": tokens,
        "predicted": list(range(9)),
        "true": [0.5] * 9,
        "evicted": [True, False] * 4 + [True],
        "share": 0.25,
        "target": "future-max",
    }
    predicted, true = draw_trace(found, tmp_path / "a.png").axes
    shown = [text.get_text() for text in true.texts]
    assert shown == [cell.text for cell in lay_out(tokens)]
    assert predicted.get_title(loc="left") == "predicted importance"
    assert true.get_title(loc="left") == "true importance (future-max)"
    struck = [cell for cell in lay_out(tokens) if found["evicted"][cell.token]]
    assert (len(predicted.lines), len(true.lines)) == (len(struck) + 1, 0)  # and one in the key


@pytest.mark.slow
@unchecked()
def test_the_trace_is_the_first_tasks_first_that_was_solved_with_an_answer(tmp_path):
    engine = small.predicting(small.thinker(tmp_path, **SMALL))
    plan = plan_of(Opened(question="x"), Opened("others", question="x"), n=2)
    rows = plan.collect(engine, None, Progress(**QUIET))[FULL]
    assert 0 < rows[0]["thinking_tokens"] < rows[0]["new_tokens"]  # else take another question
    target = Target("answer", 3)
    wrong, silent = {"correct": False}, {"thinking_tokens": 70, "new_tokens": 70}
    for first, expected in (({}, 1), (wrong, 2), (silent, 2)):
        found = trace(engine, plan, [rows[0] | first, *rows[1:]], target)
        assert (found["task"], found["id"]) == ("words", expected)
    assert trace(engine, plan, [row | wrong for row in rows[:2]] + rows[2:], target) is None


def test_a_trace_needs_a_predictor_that_says_what_it_was_trained_on(tmp_path):
    fit, horizons = {"target": "future-mean"}, [3, 9]
    for content in (
        {},
        {"fit": fit},
        {"fit": None, "horizons": horizons},
        {"fit": fit, "horizons": []},
    ):
        (tmp_path / "predictor.json").write_text(json.dumps(content))
        with pytest.raises(OptionError, match="--trace-plot needs an importance predictor"):
            Target.of(tmp_path)
    with pytest.raises(OptionError, match="--trace-plot needs an importance predictor"):
        Target.of(None)
    (tmp_path / "predictor.json").write_text(json.dumps({"fit": fit, "horizons": horizons}))
    assert Target.of(tmp_path) == Target("future-mean", 3)


def test_tokens_are_laid_out_on_lines():
    cells = lay_out(["a", "\n", "b" * (LONGEST - 1), "cd\n\x01", ""])
    found = [(cell.token, cell.text, cell.column, cell.line) for cell in cells]
    assert found == [
        (0, "a", 0, 0),
        (1, NEW_LINE, 1, 0),
        (2, "b" * (LONGEST - 1), 0, 1),
        (3, "cd" + NEW_LINE, 0, 2),
        (3, "\u00b7", 0, 3),
    ]


def test_ranks_run_from_0_to_1():
    assert ranks([0.3, 9.0, 0.1]).tolist() == [0.5, 1.0, 0.0]
    assert ranks([2.0]).tolist() == [0.0]

"""`sparing bench all`: every arm says what it says elsewhere; figures, table, picture by hand."""

import json
from dataclasses import dataclass, replace

import pytest
import torch
from rich.progress import Progress

from sparing.api import Engine
from sparing.errors import OptionError, PromptError
from sparing.evaluate.baselines.answer import transcribe
from sparing.evaluate.baselines.start import Baselines
from sparing.evaluate.baselines.transformers import Transformers
from sparing.evaluate.bench_all import headline_figures, left_out
from sparing.evaluate.bench_all_arms import (
    BASELINES,
    LoadedArms,
    SparingArm,
    chosen_arms,
    load_arms,
    savings,
    sparing_arms,
)
from sparing.evaluate.bench_all_rows import (
    LENGTH,
    SavingsExperiment,
    distinct,
    draw_with_warm_up,
    prompt_problems,
    rotated,
)
from sparing.evaluate.experiment import digest
from sparing.evaluate.headline import as_headline, read_headlines
from sparing.evaluate.partial_results import PartialResults
from sparing.evaluate.plots_all import draw_headline, share
from sparing.evaluate.report import report
from sparing.evaluate.statistics import wilson
from sparing.options import Depth, Latent, Memory, Sampling
from tests.evaluate.baselines.fake import fake_baselines
from tests.evaluate.questions import Interrupt, Words
from tests.latent.thinking import thinking
from tests.memory import small
from tests.tiny import reference, reference_tokens, tiny, unchecked
from tools.tables import headline_table

QUIET = {"disable": True}
TOKENS = 60
MEASURED = ["transformers", "transformers-lookup", *sparing_arms(True)]


def engine_of(path, dtype="float64"):
    """With a random predictor, and all else that the checkpoint brings."""
    bare = small.engine(path, dtype)
    predictor = small.random_predictor(bare.decoder.shape.width, 0, bare.decoder.dtype)
    return Engine(bare.decoder, bare.chat, bare.name, predictor, None, bare.latents)


def plan_of(*tasks, arms=MEASURED, n=2, budget=0.5, **options):
    tasks = tasks or (Words(),)
    return SavingsExperiment(
        arms, *draw_with_warm_up(tasks, n, 0), tasks, budget, TOKENS, **options
    )


def thoughtful():
    """A checkpoint with latent steps all of whose tokens are thoughts."""
    return thinking(source=tiny(markers=None))


def collected(plan, part=None, path=None):
    path = path or thoughtful()
    engine = engine_of(path)
    return plan.collect(load_arms(plan.arms, engine, path), part, Progress(**QUIET))


def test_every_set_of_savings_is_an_arm():
    assert sparing_arms(False) == ["off", "memory", "depth", "memory+depth"]
    assert sparing_arms(True) == [
        "off", "memory", "depth", "latent", "memory+depth", "memory+latent", "depth+latent",
        "memory+depth+latent",
    ]  # fmt: skip
    assert savings("memory+depth") == {"memory", "depth"}
    assert not any(savings(arm) for arm in ("off", *BASELINES))


def test_arms_are_chosen_among_those_that_can_be_measured():
    none = Baselines()
    assert chosen_arms(None, none, False) == MEASURED[:2] + sparing_arms(False)
    assert chosen_arms("off, memory,off", none, False) == ["off", "memory"]
    with pytest.raises(OptionError, match=r"arms must be among transformers, .*got 'latent'"):
        chosen_arms("off,latent", none, False)
    with pytest.raises(OptionError, match=r"arm openvino must be measurable, but no --openvino"):
        chosen_arms("openvino", none, False)


def test_a_baseline_that_is_not_there_is_left_out_and_the_report_says_why():
    started = Baselines.start("pocket", 1, "python", None, 0.25)
    assert started.left_out == {"llama-cpp": "the model is no GGUF"}
    arms = chosen_arms(None, started, False)
    assert not {"llama-cpp", "openvino", "openvino-eviction"} & set(arms)
    rows = {arm: made_up(arm) for arm in arms if arm != "depth"}
    assert left_out(rows, started, False) == {
        "llama-cpp": "the model is no GGUF",
        "openvino": "no --openvino given",
        "openvino-eviction": "no --openvino given",
        "depth": "not asked for",
    }
    shared = Baselines.start("pocket", 1, None, "python", 0.25)
    assert shared.missing("openvino-eviction") == "its budget must be slots, got a share"


def test_a_baseline_elsewhere_is_an_arm():
    path = tiny()
    engine = engine_of(path)
    with fake_baselines() as started:
        arms = chosen_arms("off,llama-cpp", started, False)
        plan = SavingsExperiment(arms, *prompt_problems(["a"], 2, ["b"]), (), 40, 12)
        loaded = load_arms(arms, engine, path, started)
        rows = plan.collect(loaded, None, Progress(**QUIET))
    assert [row["text_tokens"] for row in rows["llama-cpp"]] == [12, 12]
    found = {figure.name: figure.value for figure in headline_figures(rows)}
    spent = [sum(row["seconds"] for row in rows[arm]) for arm in arms]
    assert found["time_vs_llama_cpp/off"] == spent[0] / spent[1]
    assert left_out(rows, started, False)["depth"] == "not asked for"


@pytest.mark.parametrize(
    ("ids", "share"),
    [
        ([1, 2, 3, 4, 5, 6], 1.0),
        ([1, 2, 1, 2, 1, 2, 1], 2 / 4),  # 1212, 2121, 1212, 2121
        ([7] * 13, 1 / 10),
        ([1, 2, 3, 4, 9, 1, 2, 3, 4], 5 / 6),  # 1234 comes twice
        ([1, 2, 3, 4], 1.0),
        ([1, 2, 3], 1.0),
        ([], 1.0),
    ],
)
def test_distinct_runs_of_four(ids, share):
    assert distinct(ids) == share


@pytest.mark.slow
@pytest.mark.parametrize("greedy", [True, False])
@unchecked()
def test_every_arm_says_what_generate_says(greedy):
    engine, plan = engine_of(thoughtful()), plan_of(greedy=greedy)
    rows = collected(plan)
    assert list(rows) == MEASURED
    for place, problem in enumerate(plan.problems):
        chat = [{"role": "user", "content": problem.question}]
        sampling = plan.settings.sampling.model_copy(
            update={"seed": plan.settings.noise_seed(problem)}
        )
        full = rows["off"][place]
        # this model marks no thoughts, so all of its text may be evicted
        budget = full["prompt_tokens"] + round(0.5 * full["text_tokens"])
        for arm in sparing_arms(True):
            spared, row = savings(arm), rows[arm][place]
            [alone] = engine.generate(
                [chat],
                Memory(budget=budget) if "memory" in spared else None,
                Depth(draft="auto" if "depth" in spared else "off"),
                Latent(mode="learned" if "latent" in spared else "off"),
                sampling,
            )
            assert row["text_tokens"] == len(alone.token_ids), arm
            assert row["tokens"] == digest(alone.token_ids), arm
            assert row["distinct4"] == distinct(alone.token_ids), arm
            assert row["correct"] == (len(alone.answer) % 2 == 0)
            for name in ("latent_tokens", "thinking_tokens", "evictions"):
                assert row[name] == getattr(alone.stats, name), (arm, name)
            assert row["kv_bytes"] == alone.stats.kv_bytes_peak
            assert (row["arm"], row["task"], row["id"]) == (arm, problem.task, problem.id)
        for baseline in BASELINES[:2]:
            assert rows[baseline][place]["kv_bytes"] > 0
            if greedy:  # the same tokens, and noise of its own where it is sampled
                same = ("text_tokens", "thinking_tokens", "tokens", "correct", "finish_reason")
                assert {n: rows[baseline][place][n] for n in same} == {n: full[n] for n in same}
    assert any(row["evictions"] for row in rows["memory+depth+latent"])
    assert any(row["latent_tokens"] for row in rows["latent"])


@pytest.mark.slow
def test_without_tasks_all_answers_are_of_just_as_many_tokens():
    plan = SavingsExperiment(
        ("transformers", "off", "memory"), *prompt_problems(["a", "b"], 3, ["c"]), (), 40, TOKENS
    )
    rows = collected(plan, path=tiny())
    assert [p.question for p in plan.problems] == ["a", "b", "a"]
    for of_arm in rows.values():
        assert [row["text_tokens"] for row in of_arm] == [TOKENS] * 3
        assert [row["correct"] for row in of_arm] == [None] * 3
        assert of_arm[0]["tokens"] != of_arm[2]["tokens"], "the same prompt, other noise"


def test_arms_take_turns_in_coming_first():
    assert [rotated("abc", by) for by in range(4)] == [[*"abc"], [*"bca"], [*"cab"], [*"abc"]]
    plan = SavingsExperiment(
        ("off", "memory", "depth"), *prompt_problems(["a"], 2, ["c"]), (), 40, 8
    )
    jobs = plan.jobs(plan.arms, {})
    assert [(job.arm, plan.problems[place].id) for job in jobs for place in job.places] == [
        ("off", 1), ("memory", 1), ("depth", 1), ("memory", 2), ("depth", 2), ("off", 2),
    ]  # fmt: skip


def test_drafts_know_the_warm_up_and_no_measured_answer_and_nothing_is_kept(state):
    engine = engine_of(tiny())
    arm = SparingArm(engine, {"depth"})
    plan = SavingsExperiment(("depth",), *prompt_problems(["a"], 1, ["c"]), (), 40, TOKENS)
    loaded = LoadedArms(engine, {"depth": arm})
    plan.get_warm(loaded, "depth")
    warm = dict(arm.drafting.ngrams._after)
    assert warm
    for _ in range(2):
        answer = arm(plan.question(loaded, plan.problems[0], TOKENS))
        assert len(answer.ids) == TOKENS
    assert dict(arm.ngrams._after) == warm
    assert arm.drafting is not engine.drafting
    assert not engine.drafting.ngrams._after
    assert list(state.rglob("*.json")) == []


def timeless(rows):
    """Less what depends on the clock: who drafts, too."""
    gone = {"seconds": 0, "drafted": 0, "accepted": 0}
    return {arm: [row | gone for row in of_arm] for arm, of_arm in rows.items()}


@pytest.mark.parametrize("stops", [[0], [2], [1, 3, 2]])
@unchecked()
def test_going_on_gives_what_an_unbroken_run_gives(tmp_path, stops):
    arms, result, done = ("off", "memory", "depth", "transformers"), tmp_path / "a.json", 0
    unbroken = collected(plan_of(arms=arms), path=tiny())
    for stop in stops:
        plan = plan_of(Words(watch=Interrupt(stop)), arms=arms)
        part = PartialResults(result, plan.fingerprint({}))
        assert len([row for row in part.rows if row["arm"] != LENGTH]) == done
        with pytest.raises(KeyboardInterrupt), part:
            collected(plan, part, tiny())
        done += stop
    plan = plan_of(Words(watch=Interrupt(8 - done)), arms=arms)
    with PartialResults(result, plan.fingerprint({})) as part:
        assert timeless(collected(plan, part, tiny())) == timeless(unbroken)
    assert len([row for row in part.rows if row["arm"] == LENGTH]) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"arms": ["off"]},
        {"problems": []},
        {"budget": 0.3},
        {"new_tokens": 70},
        {"greedy": True},
        {"seed": 1},
    ],
    ids=str,
)
def test_rows_of_other_settings_are_refused(tmp_path, change):
    [field] = change
    other = {{"arms": "chosen", "problems": "measured"}.get(n, n): v for n, v in change.items()}
    with PartialResults(tmp_path / "a.json", plan_of().fingerprint({})) as part:
        part.append({})
    with pytest.raises(OptionError, match=f"got another {field} "):
        PartialResults(tmp_path / "a.json", replace(plan_of(), **other).fingerprint({}))


def test_what_cannot_be_asked_is_refused_before_anything_is_shown(tmp_path, capfd):
    path = tiny()
    engine = engine_of(path)
    for question, budget, said in (
        ("x" * 3000, 40, "prompts, problem 1: a prompt must be shorter than the context"),
        ("x" * 100, 40, "budget must be at least"),
    ):
        plan = SavingsExperiment(
            ("off", "memory"), *prompt_problems([question], 1, ["y"]), (), budget, 9
        )
        arms = load_arms(plan.arms, engine, path)
        part = PartialResults(tmp_path / "a.json", plan.fingerprint({}))
        capfd.readouterr()
        with pytest.raises((PromptError, OptionError), match=said), part:
            plan.collect(arms, part, Progress())
        assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("budget", "said"), [(1.5, "must lie in"), (-1, "must be 1 token")])
def test_a_budget_that_cannot_be_is_refused(budget, said):
    with pytest.raises(OptionError, match=said):
        plan_of(budget=budget)


def test_a_task_must_have_a_problem_to_warm_up_on():
    @dataclass(frozen=True)
    class One(Words):
        def problems(self, n, seed, split="test"):
            return super().problems(1, seed)

    with pytest.raises(OptionError, match="words must have 2 problems or more, got 1"):
        draw_with_warm_up([One()], 3, 0)
    measured, warm_up = draw_with_warm_up([Words(), Words("more")], 2, 0)
    assert [(p.task, p.id) for p in measured] == [
        ("words", 1), ("words", 2), ("more", 1), ("more", 2),
    ]  # fmt: skip
    assert [(p.task, p.id) for p in warm_up] == [("words", 3), ("more", 3)]


def test_prompts_are_repeated_and_others_warm_up():
    measured, warm_up = prompt_problems(["a", "b"], 3, ["b", "c", "d"])
    assert [(p.task, p.id, p.question) for p in measured] == [
        ("prompts", 1, "a"), ("prompts", 2, "b"), ("prompts", 3, "a"),
    ]  # fmt: skip
    assert [(p.task, p.id, p.question) for p in warm_up] == [
        ("warm-up", 1, "c"), ("warm-up", 2, "d"),
    ]  # fmt: skip


def request_of(engine, **sampling):
    options = {"seed": 3, "max_new_tokens": 40} | sampling
    return engine.request("so, 7 + 9 is", sampling=Sampling(**options))


def test_transformers_is_asked_as_the_engine_is():
    path = tiny(gain=1.0)
    engine, baseline = engine_of(path), Transformers.load(path, torch.float64)
    request = request_of(engine, temperature=0.0, ignore_eos=True)
    expected = reference_tokens(reference(path), request.prompt.ids, 40)
    said = baseline(request)
    assert said.ids == expected
    shape = engine.decoder.shape
    slots = len(request.prompt.ids) + 40 - 1  # the last token has not been through the model
    assert said.kv_bytes == 2 * shape.layers * shape.kv_heads * slots * shape.head_dim * 8
    stops = replace(request.limits, end_ids=frozenset([expected[5]]))
    at = expected.index(expected[5])
    assert baseline(replace(request, limits=stops)).ids == expected[: at + 1]
    assert Transformers(baseline.model, prompt_lookup_num_tokens=3)(request).ids == expected


def test_transformers_draws_by_the_seed_and_the_same_filters():
    path = tiny(gain=1.0)
    engine, baseline = engine_of(path), Transformers.load(path, torch.float64)
    drawn = [
        baseline(request_of(engine, temperature=1.0, seed=seed, ignore_eos=True)).ids
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(ids) == 40 for ids in drawn)
    greedy = baseline(request_of(engine, temperature=0.0, ignore_eos=True)).ids
    narrow = {"temperature": 1.0, "ignore_eos": True}
    for filters in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
        assert baseline(request_of(engine, **narrow, **filters)).ids == greedy, filters


def test_a_baseline_s_tokens_are_heard_as_our_own():
    engine = engine_of(tiny())
    text = "<think>so</think>16<|endoftext|>x"
    ids = engine.chat.tokenizer.encode(text, add_special_tokens=False)
    found = transcribe(engine.chat, request_of(engine), ids, engine.decoder.shape.vocabulary)
    assert (found.thinking_tokens, found.new_tokens, found.finish_reason) == (4, 7, "stop")
    assert found.split(found.text) == ("so", "16")


COSTS = {  # seconds, KV bytes, text tokens, latent ones, distinct-4, right ones of four
    "transformers": (8.0, 400, 100, 0, 0.9, "1110"),
    "transformers-lookup": (10.0, 480, 100, 0, 0.9, "1110"),
    "openvino": (4.0, None, 100, 0, 0.9, "1110"),
    "off": (4.0, 400, 100, 0, 0.9, "1110"),
    "memory": (2.0, 80, 100, 0, 0.5, "1100"),
    "depth": (3.0, 400, 100, 0, 0.9, "1110"),
    "latent": (3.0, 300, 60, 20, 0.9, "1110"),
    "memory+depth": (1.0, 80, 100, 0, 0.5, "1100"),
}


def made_up(arm, graded=True, finish="stop"):
    """Four rows of an arm."""
    seconds, kv, text, latents, new, right = COSTS[arm]
    return [
        {
            "arm": arm,
            "task": "words",
            "id": i,
            "correct": mark == "1" if graded else None,
            "seconds": seconds * i,
            "kv_bytes": kv and kv * i,
            "text_tokens": text * i,
            "latent_tokens": latents * i,
            "distinct4": new,
            "finish_reason": finish,
        }
        for i, mark in enumerate(right, 1)
    ]


def figures_of(arms=tuple(COSTS), **how):
    rows = {arm: made_up(arm, **how) for arm in arms}
    return {figure.name: figure for figure in headline_figures(rows)}


def test_ratios_are_of_totals():
    found = figures_of()
    assert found["time_vs_transformers/memory"].value == 2 / 8
    assert found["kv_bytes_vs_transformers/memory"].value == 80 / 400
    assert found["kv_bytes_vs_transformers/transformers-lookup"].value == 480 / 400
    assert found["time_vs_openvino/memory+depth"].value == 1 / 4
    assert found["time_vs_openvino/transformers"].value == 8 / 4
    assert found["token_time_vs_transformers/memory"].value == 2 / 8
    assert found["token_time_vs_transformers/latent"].value == (3 / 80) / (8 / 100)
    assert found["time_vs_undrafted/memory+depth"].value == 1 / 2
    assert found["time_vs_undrafted/depth"].value == 3 / 4
    assert {found[name].better for name in found if "_vs_" in name} == {"lower"}
    absent = ("time_vs_transformers/transformers", "kv_bytes_vs_transformers/openvino",
              "time_vs_openvino/openvino", "time_vs_undrafted/memory")  # fmt: skip
    assert not found.keys() & set(absent)


def test_costs_and_quality():
    found = figures_of()
    assert found["text_tokens/latent"].value == 150
    assert found["latent_tokens/latent"].value == 50
    assert found["seconds/memory"].value == 5
    assert found["distinct4/memory"].value == 0.5
    right = found["accuracy/memory"]
    assert (right.value, right.low, right.high) == (0.5, *wilson(2, 4))
    assert "latent_tokens/off" not in found
    assert not [name for name in figures_of(graded=False) if name.startswith("accuracy")]


def test_without_the_other_there_is_no_ratio():
    found = figures_of(("off", "memory", "openvino"))
    assert [name for name in found if "_vs_" in name] == [
        "time_vs_openvino/off", "time_vs_openvino/memory",
    ]  # fmt: skip


def test_what_its_budget_cut_short_has_no_ratio_and_is_named():
    rows = {arm: made_up(arm, graded=False) for arm in COSTS}
    rows["memory"] = made_up("memory", graded=False, finish="budget")
    names = [figure.name for figure in headline_figures(rows)]
    assert not [n for n in names if "_vs_" in n and n.endswith("/memory")]
    assert "time_vs_undrafted/memory+depth" not in names
    found = left_out(rows, Baselines(), False)
    assert {"memory": found["memory"]} == {"memory": "cut short by its budget"}
    graded = figures_of(finish="budget")  # an answer without an end is wrong, and that is told
    assert "time_vs_transformers/memory" in graded


def report_of(model="runs/mine", arms=tuple(COSTS), **how):
    """As the command writes it."""
    rows = {arm: made_up(arm, **how) for arm in arms}
    tasks = (Words(),) if how.get("graded", True) else ()
    plan = SavingsExperiment(
        arms, Words().problems(4, 0), [], tasks, 768 if not tasks else 0.25, 4096
    )
    raw = {
        "plan": plan.to_dict(),
        "left_out": {"openvino": "openvino_genai is not installed"},
        "policy": "learned",
        "rows": plan.columns(rows),
    }
    return report(model, headline_figures(rows), raw, torch.float32)


def written(tmp_path, *contents):
    paths = []
    for content in contents:
        paths.append(tmp_path / f"{len(paths)}.json")
        paths[-1].write_text(json.dumps(content))
    return [str(path) for path in paths]


def test_reports_of_several_models_are_one_table(tmp_path):
    few = ("transformers", "off", "memory")
    paths = written(tmp_path, report_of(), report_of("smollm2", few, graded=False))
    lines = headline_table(*paths).splitlines()
    assert lines[0] == (
        "| model |  | time | time a token | KV bytes | words | distinct-4 | solved "
        "| time over OpenVINO |"
    )
    assert lines[1] == "|---" * 9 + "|"
    low, high = wilson(2, 4)
    assert (
        f"| mine | memory | 25 % | 25 % | 20 % | 250 | 0.50 | 50% ({low:.0%} to {high:.0%}) "
        "| 50 % |"
    ) in lines
    assert "| mine | OpenVINO GenAI | 50 % | 50 % |  | 250 | 0.90 | 75% (30% to 95%) |  |" in lines
    assert "| smollm2 | transformers | 100 % | 100 % | 100 % | 250 | 0.90 |  |  |" in lines
    assert len([line for line in lines if line.startswith("| ")]) == 1 + len(COSTS) + 3
    notes = [line for line in lines if line and not line.startswith("|")]
    assert notes[0].startswith(
        "mine: 4 problems of words, each to its end, sampled (T 0.8, top-p 0.95), budget 0.25 of "
        "the full thought (learned), batch 1. "
    )
    assert notes[0].endswith("No openvino: openvino_genai is not installed.")
    assert notes[1].startswith("smollm2: 4 answers of 4,096 tokens, sampled")
    narrow = headline_table(paths[1]).splitlines()[0]
    assert "OpenVINO" not in narrow


def test_no_report_is_refused(tmp_path):
    for content in ({}, {"rows": [], "raw": {"rows": {}}}, {"rows": [], "raw": {"rows": {"a": 1}}}):
        [path] = written(tmp_path, content)
        with pytest.raises(OptionError, match="must be a report of `sparing bench all`"):
            read_headlines([path])
    with pytest.raises(OptionError, match=r"nowhere\.json must be a report"):
        read_headlines([tmp_path / "nowhere.json"])


def test_the_picture_shows_each_cost_of_each_arm(tmp_path):
    content = as_headline(report_of())
    assert share(content, "time", "memory+depth") == 1 / 8
    assert share(content, "kv_bytes", "memory") == 1 / 5
    assert share(content, "text_tokens", "latent") == 60 / 100
    assert share(content, "kv_bytes", "openvino") is None
    both = [content, as_headline(report_of("smollm2", graded=False))]
    drawn = draw_headline(both, tmp_path / "a.png")
    assert len(drawn.axes) == 2 * 3
    time, kv_bytes, words = drawn.axes[:3]
    assert [axes.get_title() for axes in (time, kv_bytes, words)] == ["time", "KV cache", "words"]
    assert widths(time) == [10 / 8, 4 / 8, 4 / 8, 2 / 8, 3 / 8, 3 / 8, 1 / 8]
    assert widths(words) == [1, 1, 1, 1, 1, 0.6, 1]
    assert len(widths(kv_bytes)) == 6, "OpenVINO does not report its bytes"
    alone = as_headline(report_of(arms=("off", "memory")))  # no transformers to compare with
    assert [widths(axes) for axes in draw_headline([alone], tmp_path / "b.png").axes] == [[]] * 3


def widths(axes):
    """Of the bars."""
    return [bar.get_width() for bar in axes.patches]

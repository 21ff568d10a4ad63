"""`sparing bench pocket`: whether a reasoning model does what the rest is measured on."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import mean
from typing import Any

import torch
from rich.progress import Progress

from sparing.api import Engine
from sparing.evaluate.baselines.transformers import generate
from sparing.evaluate.batch_generate import FinishedRow, Settings, answers
from sparing.evaluate.bench_pocket_layers import layer_figures
from sparing.evaluate.report import Figure
from sparing.evaluate.statistics import wilson
from sparing.evaluate.timing import interleaved, paired_ratio
from sparing.options import Depth, Memory, Sampling
from sparing.tasks.families import FAMILIES
from sparing.tasks.problem import Problem, Task

MOST_TOKENS = 1400
GREEDY = Settings(
    depth=Depth(draft="off"),
    sampling=Sampling(temperature=0, max_new_tokens=MOST_TOKENS),
    batch_size=32,
)
NGRAM = 3
EARLY = "legs"  # the family whose answer needs what was found early
FIRST_TOKEN = """
import json, sys, time
from sparing import load
import torch, transformers
start = time.perf_counter()
engine = load(sys.argv[1])
next(iter(engine.stream(engine.chat.question(sys.argv[2]))))
print(json.dumps(time.perf_counter() - start))
"""


@dataclass(frozen=True)
class Solved:
    """A task's problems with what the model said, in order, and which were right."""

    task: Task
    problems: Sequence[Problem]
    answered: Sequence[FinishedRow]

    @cached_property
    def correct(self) -> list[bool]:
        pairs = zip(self.problems, self.answered, strict=True)
        return [self.task.grade(problem, a.result.answer) for problem, a in pairs]

    @property
    def accuracy(self) -> float:
        return mean(self.correct)

    @property
    def seconds(self) -> float:
        return sum(a.seconds for a in self.answered)


def bench_pocket(
    engine: Engine,
    other: Any,
    controls: Mapping[str, Engine],
    tasks: Mapping[str, Task],
    n: int,
    seed: int,
    progress: Progress,
) -> tuple[list[Figure], dict[str, Any]]:
    """All figures. ``tasks``: both levels of each family; ``other``: the model in transformers;
    ``controls``: two models trained alike but for layer dropout and early exits, by how."""
    solved: dict[str, Solved] = {}
    for name, task in progress.track(tasks.items(), description="full cache", total=len(tasks)):
        solved[name] = solve(engine, task, task.problems(n, seed), GREEDY)
    standard = {name: solved[name] for name in FAMILIES}
    parts: list[Callable[[], list[Figure]]] = [
        lambda: accuracy_figures(solved),
        lambda: thinking_figures(solved),
        lambda: [f for s in standard.values() for f in without_thinking(engine, s)],
        lambda: [window_figure(engine, standard[EARLY])],
        lambda: layer_figures(engine, seed),
        lambda: [f for how, e in controls.items() for f in layer_figures(e, seed, how)],
        lambda: speed_figures(engine, other, standard),
    ]
    figures = [f for part in progress.track(parts, description="pocket") for f in part()]
    raw = {
        name: {
            "correct": s.correct,
            "thinking_tokens": [a.result.stats.thinking_tokens for a in s.answered],
            "seconds": s.seconds,
        }
        for name, s in solved.items()
    }
    return figures, {"full": raw, "seed": seed, "n": n}


def solve(
    engine: Engine,
    task: Task,
    problems: Sequence[Problem],
    settings: Settings | Sequence[Settings],
) -> Solved:
    """Answer all problems; the rows in the problems' order."""
    found = sorted(answers(engine, problems, settings), key=lambda answered: answered.index)
    return Solved(task, problems, found)


def accuracy_figures(solved: Mapping[str, Solved]) -> list[Figure]:
    """Full cache, greedy, at both levels; and what 200 problems take."""
    figures = []
    for name, s in solved.items():
        low, high = wilson(sum(s.correct), len(s.correct))
        what = f"{name}: solved ({low:.0%} to {high:.0%})"
        what += "" if name in FAMILIES else ", meant to be 50 to 80 %"
        figures.append(Figure(f"accuracy/{name}", s.accuracy, "share", "higher", what))
    overall = mean(solved[name].accuracy for name in FAMILIES)
    figures.append(Figure("accuracy/mean", overall, "share", "higher", "mean of the families"))
    slowest = max(solved.values(), key=lambda s: s.seconds)
    per_200 = slowest.seconds / len(slowest.problems) * 200
    what = f"200 problems of the slowest, {slowest.task.name}, 32 at a time"
    return [*figures, Figure("seconds_per_200", per_200, "s", "lower", what)]


def thinking_figures(solved: Mapping[str, Solved]) -> list[Figure]:
    """How long the thoughts are, and how much of them a 3-gram lookup predicts."""
    figures = []
    for name, s in solved.items():
        lengths = [a.result.stats.thinking_tokens for a in s.answered]
        what = f"{name}: thinking tokens, mean (longest {max(lengths)})"
        figures.append(Figure(f"thinking_tokens/{name}", mean(lengths), "tokens", "higher", what))
        share = mean(lookup_share(a) for a in s.answered)
        what = f"{name}: thinking tokens that a {NGRAM}-gram lookup predicts"
        figures.append(Figure(f"lookup_share/{name}", share, "share", "lower", what))
    return figures


def lookup_share(answered: FinishedRow) -> float:
    """Share of thinking tokens that follow their last three tokens' previous occurrence."""
    result = answered.result
    ids = [*result.prompt_token_ids, *result.token_ids]
    start = len(result.prompt_token_ids)
    stop = start + max(result.stats.thinking_tokens, 1)
    followed: dict[tuple[int, ...], int] = {}
    hits = 0
    for at in range(NGRAM, stop):
        before = tuple(ids[at - NGRAM : at])
        hits += at >= start and followed.get(before) == ids[at]
        followed[before] = ids[at]
    return hits / (stop - start)


def without_thinking(engine: Engine, full: Solved) -> list[Figure]:
    """The thought left out by the template and by force; and cut to half of its length."""
    asked = replace(GREEDY, template_options={"enable_thinking": False})
    halves = [thinking_at_most(max(a.result.stats.thinking_tokens // 2, 1)) for a in full.answered]
    arms: dict[str, tuple[Settings | list[Settings], str]] = {
        "no_think": (asked, "an empty thought, which was trained for"),
        "think_budget_0": (thinking_at_most(0), "the thought closed by force at once"),
        "half_think": (halves, "the thought closed by force at half of its length"),
    }
    figures = []
    for arm, (settings, how) in arms.items():
        value = solve(engine, full.task, full.problems, settings).accuracy
        name, what = f"{arm}/{full.task.name}", f"{full.task.name}: solved with {how}"
        figures.append(Figure(name, value, "share", "lower", what))
    return figures


def thinking_at_most(tokens: int) -> Settings:
    sampling = Sampling(**GREEDY.sampling.model_dump() | {"think_budget": tokens})
    return replace(GREEDY, sampling=sampling)


def window_figure(engine: Engine, full: Solved) -> Figure:
    """Only the question and the last quarter of the thought in the cache."""
    settings = []
    for a in full.answered:
        question, thinking = len(a.result.prompt_token_ids), a.result.stats.thinking_tokens
        quarter = max(thinking // 4, 16)
        local = 3 * quarter // 4
        memory = Memory(budget=question + quarter, local=local, selection=0, policy="window")
        settings.append(replace(GREEDY, memory=memory))
    found = solve(engine, full.task, full.problems, settings)
    what = f"{EARLY}: solved with a recency window of a quarter of the trace"
    return Figure(f"window_quarter/{EARLY}", found.accuracy, "share", "lower", what)


def speed_figures(engine: Engine, other: Any, solved: Mapping[str, Solved]) -> list[Figure]:
    """Batch 1, greedy, against transformers.generate in this process; and the first token."""
    asked = [engine.chat.question(s.problems[0].question) for s in solved.values()]
    prompts = [torch.tensor([engine.chat.encode(a).ids]) for a in asked]
    said: dict[str, list[list[int]]] = {}

    def ours() -> None:
        found = [engine.generate([a], None, GREEDY.depth, None, GREEDY.sampling) for a in asked]
        said["ours"] = [r[0].token_ids for r in found]

    def theirs() -> None:
        found = [generate(other, prompt, MOST_TOKENS, min_new_tokens=0) for prompt in prompts]
        said["theirs"] = [
            r.sequences[0, p.shape[1] :].tolist() for r, p in zip(found, prompts, strict=True)
        ]

    first = first_token_seconds(engine, next(iter(solved.values())).problems[0].question)
    seconds = interleaved({"ours": ours, "theirs": theirs}, 5)
    same = said["ours"] == said["theirs"]
    ratio = paired_ratio(seconds["theirs"], seconds["ours"])
    what = f"batch 1 over transformers.generate, {'the same' if same else 'OTHER'} tokens"
    after = "from the end of the imports to the first token, weights loaded between"
    return [
        Figure("speedup_vs_transformers", ratio, "x", "higher", what),
        Figure("first_token_s", first, "s", "lower", after),
    ]


def first_token_seconds(engine: Engine, question: str) -> float:
    """In a process of its own, as for a user."""
    command = [sys.executable, "-c", FIRST_TOKEN, engine.name, question]
    return float(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))

"""The arms of `sparing bench all`: baselines, and Sparing with every set of savings."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from sparing.api import Engine
from sparing.depth.ngram_cache import NgramCache
from sparing.depth.state import DraftingState
from sparing.errors import OptionError
from sparing.evaluate.baselines.answer import Baseline, transcribe
from sparing.evaluate.baselines.llama_cpp import LLAMA_CPP
from sparing.evaluate.baselines.openvino import OPENVINO, OPENVINO_EVICTION
from sparing.evaluate.baselines.start import Baselines
from sparing.evaluate.baselines.transformers import LOOKUP_TOKENS, Transformers
from sparing.model.chat import PromptLike
from sparing.options import Depth, Latent, Memory, Sampling

MEMORY, DEPTH, LATENT = "memory", "depth", "latent"
OFF = "off"  # Sparing with every saving off
TRANSFORMERS, LOOKUP = "transformers", "transformers-lookup"
ELSEWHERE = (LLAMA_CPP, OPENVINO, OPENVINO_EVICTION)  # in other interpreters
BASELINES = (TRANSFORMERS, LOOKUP, *ELSEWHERE)


def sparing_arms(latent: bool) -> list[str]:
    """Everything off, each saving alone, each pair, all together; ``latent``: of a model that has
    learned latent steps."""
    known = (MEMORY, DEPTH, LATENT) if latent else (MEMORY, DEPTH)
    sets = (some for size in range(len(known) + 1) for some in combinations(known, size))
    return ["+".join(some) or OFF for some in sets]


def savings(arm: str) -> set[str]:
    """What an arm spares; a baseline nothing."""
    return set() if arm in (OFF, *BASELINES) else set(arm.split("+"))


def chosen_arms(given: str | None, started: Baselines, latent: bool) -> list[str]:
    """Those named, with commas; by default all that can be measured. Raises OptionError."""
    known = [*BASELINES, *sparing_arms(latent)]
    missing = {name: why for name in ELSEWHERE if (why := started.missing(name))}
    if given is None:
        return [arm for arm in known if arm not in missing]
    names = list(dict.fromkeys(name.strip() for name in given.split(",")))
    if wrong := [name for name in names if name not in known]:
        raise OptionError(f"arms must be among {', '.join(known)}, got {wrong[0]!r}")
    for name in names:
        if name in missing:
            raise OptionError(f"arm {name} must be measurable, but {missing[name]}; leave it out")
    return names


@dataclass(frozen=True)
class ArmQuestion:
    """A question with its noise and its end; ``memory``: for the arms that spare it."""

    prompt: PromptLike
    sampling: Sampling
    memory: Memory


@dataclass(frozen=True)
class ArmAnswer:
    """New tokens and what they took.

    ``answer``: as text, without the thought.
    ``kv_bytes``: at their peak; None where an engine does not report them.
    ``more``: other counts.
    """

    ids: list[int]
    answer: str
    finish_reason: str
    seconds: float
    kv_bytes: int | None
    more: Mapping[str, int]


class SparingArm:
    """Sparing with some savings on: drafts by ``auto``, latents by the model's own switch.

    What drafting learns is this arm's own and on no disk. It persists across requests, except
    n-grams of measured answers, which would be replayed.
    """

    def __init__(self, engine: Engine, spared: set[str]) -> None:
        self.engine, self.spared = engine, spared
        self.drafting = DraftingState(engine.decoder, engine.drafting.sets)
        self.ngrams: NgramCache | None = None

    def remember(self) -> None:
        """Keep the n-grams of all answers so far."""
        self.ngrams = self.drafting.ngrams

    def __call__(self, asked: ArmQuestion) -> ArmAnswer:
        if self.ngrams is not None:
            self.drafting.ngrams = self.ngrams.copy()
        memory = asked.memory if MEMORY in self.spared else None
        depth = Depth(draft="auto" if DEPTH in self.spared else "off")
        begun = time.perf_counter()
        [found] = self.engine.generate(
            [asked.prompt], memory, depth, self._latent, asked.sampling, drafting=self.drafting
        )
        seconds, stats = time.perf_counter() - begun, found.stats
        names = ("thinking_tokens", "latent_tokens", "drafted", "accepted", "evictions")
        counts = {name: getattr(stats, name) for name in names}
        counts["prompt_tokens"] = len(found.prompt_token_ids)
        return ArmAnswer(
            found.token_ids, found.answer, found.finish_reason, seconds, stats.kv_bytes_peak, counts
        )

    @property
    def _latent(self) -> Latent:
        if LATENT not in self.spared:
            return Latent()
        assert self.engine.latents is not None
        return Latent(mode=self.engine.latents[0].switch)


class BaselineArm:
    """A baseline, whose prompts and answers are formatted as the engine's."""

    def __init__(self, engine: Engine, baseline: Baseline) -> None:
        self.engine, self.baseline = engine, baseline

    def remember(self) -> None:
        """Baselines keep nothing between requests."""

    def __call__(self, asked: ArmQuestion) -> ArmAnswer:
        request = self.engine.request(asked.prompt, sampling=asked.sampling)
        begun = time.perf_counter()
        said = self.baseline(request)
        seconds = time.perf_counter() - begun
        found = transcribe(
            self.engine.chat, request, said.ids, self.engine.decoder.shape.vocabulary
        )
        _, answer = found.split(found.text)
        counts = {
            "thinking_tokens": found.thinking_tokens,
            "latent_tokens": 0,
            "prompt_tokens": found.question,
        }
        why = found.finish_reason or "interrupted"
        return ArmAnswer(said.ids, answer, why, seconds, said.kv_bytes, counts)


@dataclass
class LoadedArms:
    """Arms by name, the names of the warm ones, and an engine to measure lengths of thoughts."""

    engine: Engine
    arms: Mapping[str, SparingArm | BaselineArm]
    warm: set[str] = field(default_factory=set)


def load_arms(
    names: Sequence[str], engine: Engine, directory: Path, started: Baselines | None = None
) -> LoadedArms:
    """Raises ModelError where transformers cannot load the model.

    The token of latent steps is no word to transformers either.
    """
    baselines: dict[str, Baseline] = dict(started.engines) if started else {}
    if {TRANSFORMERS, LOOKUP} & set(names):
        more = {"suppress_tokens": [engine.latents[0].id]} if engine.latents else {}
        plain = Transformers.load(directory, engine.decoder.dtype, **more)
        looking = Transformers(plain.model, prompt_lookup_num_tokens=LOOKUP_TOKENS, **more)
        baselines |= {TRANSFORMERS: plain, LOOKUP: looking}
    arms = {
        name: BaselineArm(engine, baselines[name])
        if name in baselines
        else SparingArm(engine, savings(name))
        for name in names
    }
    return LoadedArms(engine, arms)

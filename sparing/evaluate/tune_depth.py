"""`sparing tune depth`: a layer set for a model and a task, found beforehand."""

import random
from collections.abc import Callable, Sequence

from sparing.api import Engine
from sparing.depth.candidates import changed, every_second, later_half
from sparing.depth.costs import VERIFIED, Costs, measure
from sparing.depth.layer_sets import TunedLayerSet
from sparing.depth.swift import Optimization
from sparing.evaluate.agreement import Spoken, likeliest
from sparing.evaluate.own import filled_cache
from sparing.model.chat import PromptLike
from sparing.model.decoder import Decoder
from sparing.model.layer_set import LayerSet
from sparing.options import Depth, Sampling

CACHED = 256  # slots in use where a pass's cost is measured
Measure = Callable[[LayerSet], TunedLayerSet]
OnTry = Callable[[TunedLayerSet], None]


def spoken(engine: Engine, prompts: Sequence[PromptLike], new_tokens: int) -> list[Spoken]:
    """The whole model's greedy answers to the prompts."""
    sampling = Sampling(temperature=0, max_new_tokens=new_tokens)
    results = engine.generate(prompts, None, Depth(draft="off"), None, sampling)
    return [Spoken.of(result) for result in results]


def costs(engine: Engine) -> Costs:
    """What this model's passes cost on this machine."""
    assert isinstance(engine.decoder, Decoder)
    cache = filled_cache(engine, CACHED, VERIFIED)
    cache.lengths[0] = CACHED
    return measure(engine.decoder, cache, 0, CACHED, engine.drafting.draft_head)


def tune(
    engine: Engine,
    said: Sequence[Spoken],
    tries: int,
    seed: int,
    most: int,
    on_try: OnTry = lambda best: None,
    objective: str = "speed",
) -> TunedLayerSet:
    """A layer set tuned on ``said``.

    ``tries``: candidates at most.
    ``most``: tokens of a draft.
    ``on_try``: called with the best set after each candidate.
    ``objective``: speed, the most expected tokens a second, or matchness, SWIFT's own search.
    """
    decoder, worth = engine.decoder, costs(engine)
    whole = likeliest(decoder, said, None)

    def measured(layer_set: LayerSet) -> TunedLayerSet:
        agreed = likeliest(decoder, said, layer_set) == whole
        matchness = float(agreed.float().mean())
        speed = worth.cautious_speed(layer_set, matchness, len(agreed), most)
        return TunedLayerSet(layer_set, matchness, speed)

    search = by_matchness if objective == "matchness" else by_speed
    return search(decoder.shape.layers, measured, tries, seed, on_try)


def by_speed(layers: int, measured: Measure, tries: int, seed: int, on_try: OnTry) -> TunedLayerSet:
    """From every second layer or the later half skipped, changed a little at a time; a change stays
    where it is faster."""
    source = random.Random(seed)
    starts = [measured(start(layers)) for start in (every_second, later_half)]
    best = max(starts, key=lambda found: found.speed)
    for _ in range(tries):
        found = measured(changed(best.layer_set, source))
        best = max(best, found, key=lambda tuned: tuned.speed)
        on_try(best)
    return best


def by_matchness(
    layers: int, measured: Measure, tries: int, seed: int, on_try: OnTry
) -> TunedLayerSet:
    """The paper's random and Bayesian search, until it is done or has tried enough."""
    optimization = Optimization(layers, seed)
    best = measured(optimization.best)
    while optimization.tried < tries and not optimization.done:
        found = measured(optimization.next())
        if optimization.learn(found.matchness):
            best = found
        on_try(best)
    return best

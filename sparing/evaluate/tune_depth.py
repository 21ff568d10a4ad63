"""`sparing tune depth`: a layer set for a model and a task, found beforehand."""

from collections.abc import Callable, Sequence

from sparing.api import Engine
from sparing.depth.candidates import Mask, Proposals, as_layer_set
from sparing.depth.costs import VERIFIED, Costs, measure
from sparing.depth.layer_sets import TunedLayerSet
from sparing.evaluate.agreement import Spoken, likeliest
from sparing.evaluate.bench_decode import filled_cache
from sparing.model.chat import PromptLike
from sparing.model.decoder import Decoder
from sparing.options import Depth, Sampling

CACHED = 256  # slots in use where a pass's cost is measured


def spoken(engine: Engine, prompts: Sequence[PromptLike], new_tokens: int) -> list[Spoken]:
    """What the whole model says to the prompts, greedily."""
    sampling = Sampling(temperature=0, max_new_tokens=new_tokens)
    results = engine.generate(prompts, None, Depth(draft="off"), None, sampling)
    return [Spoken(r.prompt_token_ids + r.token_ids, len(r.token_ids)) for r in results]


def costs(engine: Engine) -> Costs:
    """Of this model's passes on this machine."""
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
    on_try: Callable[[TunedLayerSet], None] = lambda best: None,
) -> TunedLayerSet:
    """The set with the most expected tokens a second on ``said``: from the paper's start or the
    later half of the layers left out, changed a little at a time (``Proposals``), each change kept
    where it is better. ``most``: tokens of a draft; ``on_try`` hears of the best so far.
    """
    decoder, worth = engine.decoder, costs(engine)
    proposals = Proposals(decoder.shape.layers, near=True, seed=seed)
    whole = likeliest(decoder, said, None)

    def tried(mask: Mask) -> TunedLayerSet:
        layer_set = as_layer_set(mask)
        agreed = likeliest(decoder, said, layer_set) == whole
        matchness = float(agreed.float().mean())
        speed = worth.cautious_speed(layer_set, matchness, len(agreed), most)
        proposals.scores.append((mask, speed))
        return TunedLayerSet(layer_set, matchness, speed)

    starts = [proposals.first(), proposals.late()]
    best, mask = max(((tried(s), s) for s in starts), key=lambda pair: pair[0].speed)
    for _ in range(tries):
        candidate = proposals.next(mask)
        found = tried(candidate)
        if found.speed > best.speed:
            best, mask = found, candidate
        on_try(best)
    return best

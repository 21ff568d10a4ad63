"""From a policy's name to the policy."""

from collections.abc import Callable, Sequence
from typing import Any

from sparing.engine.eviction import EvictionPolicy
from sparing.errors import OptionError
from sparing.memory.policies.bottom import Bottom
from sparing.memory.policies.h2o import H2O
from sparing.memory.policies.learned import Learned
from sparing.memory.policies.random import Random
from sparing.memory.policies.rkv import RKV
from sparing.memory.policies.sepllm import SepLLM, separator_ids
from sparing.memory.policies.snapkv import SnapKV
from sparing.memory.policies.streaming import Streaming
from sparing.memory.policies.window import Window
from sparing.options import Memory

PREDICTED = ("learned", "bottom")  # policies that need a predictor
POLICIES: dict[str, Callable[[Any, Sequence[int]], EvictionPolicy]] = {
    "window": lambda tokenizer, horizons: Window(),
    "streaming": lambda tokenizer, horizons: Streaming(),
    "h2o": lambda tokenizer, horizons: H2O(),
    "snapkv": lambda tokenizer, horizons: SnapKV(),
    "rkv": lambda tokenizer, horizons: RKV(),
    "sepllm": lambda tokenizer, horizons: SepLLM(separator_ids(tokenizer)),
    "random": lambda tokenizer, horizons: Random(),
    "bottom": lambda tokenizer, horizons: Bottom(horizons),
    "learned": lambda tokenizer, horizons: Learned(horizons),
}


def find_policy(
    memory: Memory, tokenizer: Any, horizons: Sequence[int] | None
) -> EvictionPolicy | None:
    """The policy that the options ask for; None keeps everything.

    ``auto`` is learned where the model predicts importance, for some ``horizons``, else window.
    Raises OptionError where a policy needs a predictor and there is none.
    """
    if memory.budget is None:
        return None
    name = memory.policy
    if name == "auto":
        name = "learned" if horizons else "window"
    if name in PREDICTED and not horizons:
        raise OptionError(
            f"policy {name} needs a model with an importance predictor, got one without; "
            "use window, or train one with `sparing train predictor`"
        )
    return POLICIES[name](tokenizer, horizons or ())

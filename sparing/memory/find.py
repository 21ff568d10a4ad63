"""From a policy's name to the policy."""

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any

from sparing.engine.eviction import EvictionPolicy
from sparing.errors import OptionError, reason
from sparing.memory.policies.bottom import Bottom
from sparing.memory.policies.h2o import H2O
from sparing.memory.policies.learned import Learned
from sparing.memory.policies.random import Random
from sparing.memory.policies.rkv import RKV
from sparing.memory.policies.sepllm import SepLLM, separator_ids
from sparing.memory.policies.snapkv import SnapKV
from sparing.memory.policies.streaming import Streaming
from sparing.memory.policies.window import Window
from sparing.options import POLICY_GROUP, Memory, is_policy

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
    Raises OptionError where a policy needs a predictor and there is none, or cannot be loaded.
    """
    if memory.budget is None:
        return None
    name = memory.policy
    if not isinstance(name, str):
        own: EvictionPolicy = name
        return own
    if name == "auto":
        name = "learned" if horizons else "window"
    if name in PREDICTED and not horizons:
        raise OptionError(
            f"policy {name} needs a model with an importance predictor, got one without; "
            "use window, or train one with `sparing train predictor`"
        )
    return POLICIES[name](tokenizer, horizons or ()) if name in POLICIES else brought(name)


def brought(name: str) -> EvictionPolicy:
    """The policy that an installed package brings under a name: its entry point, called.

    Raises OptionError where that gives none.
    """
    [found, *_] = entry_points(group=POLICY_GROUP, name=name)
    try:
        policy = found.load()()
        if not is_policy(policy):
            raise ValueError(f"{policy!r}, without name, watches and score")
    except Exception as error:  # whatever the package raises
        raise OptionError(
            f"policy {name} must be a policy when {found.value} is called, got: {reason(error)}; "
            "mend the package that brings it"
        ) from None
    own: EvictionPolicy = policy
    return own

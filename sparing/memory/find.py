"""From a policy's name to the policy."""

from collections.abc import Callable
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
POLICIES: dict[str, Callable[[Any], EvictionPolicy]] = {  # each made for a tokenizer
    "window": lambda tokenizer: Window(),
    "streaming": lambda tokenizer: Streaming(),
    "h2o": lambda tokenizer: H2O(),
    "snapkv": lambda tokenizer: SnapKV(),
    "rkv": lambda tokenizer: RKV(),
    "sepllm": lambda tokenizer: SepLLM(separator_ids(tokenizer)),
    "random": lambda tokenizer: Random(),
    "bottom": lambda tokenizer: Bottom(),
    "learned": lambda tokenizer: Learned(),
}


def find_policy(memory: Memory, tokenizer: Any, predicts: bool) -> EvictionPolicy | None:
    """The policy that the options ask for; None keeps everything.

    ``auto`` is learned where the model ``predicts`` importance, else window. Raises OptionError
    where a policy needs a predictor and there is none.
    """
    if memory.budget is None:
        return None
    name = memory.policy
    if name == "auto":
        name = "learned" if predicts else "window"
    if name in PREDICTED and not predicts:
        raise OptionError(
            f"policy {name} needs a model with an importance predictor, got one without; "
            "use window, or train one with `sparing train predictor`"
        )
    return POLICIES[name](tokenizer)

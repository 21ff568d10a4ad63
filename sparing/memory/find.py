"""From a policy's name to the policy."""

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from sparing.engine.eviction import EvictionPolicy
from sparing.errors import OptionError, reason
from sparing.memory.policies.policy import BuiltInPolicy
from sparing.options import POLICY_CLASSES, POLICY_GROUP, Memory, is_policy


def imported(path: str) -> type[BuiltInPolicy]:
    """The class at a path of ``POLICY_CLASSES``."""
    module, _, name = path.rpartition(".")
    found: type[BuiltInPolicy] = getattr(import_module(module), name)
    return found


POLICIES = {name: imported(path) for name, path in POLICY_CLASSES.items()}
PREDICTED = tuple(name for name, policy in POLICIES.items() if policy.needs_predictor)


def find_policy(
    memory: Memory, tokenizer: Any, horizons: Sequence[int] | None
) -> EvictionPolicy | None:
    """The policy that the options ask for; None keeps everything.

    ``horizons``: of the model's importance predictor; None without one. ``auto`` is learned with a
    predictor, else window. Raises OptionError where a policy needs a predictor and there is none,
    or cannot be loaded.
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
        raise without_predictor(name)
    if name not in POLICIES:
        return load_entry_point(name)
    return POLICIES[name].for_model(tokenizer, horizons or ())


def without_predictor(name: str) -> OptionError:
    return OptionError(
        f"policy {name} needs a model with an importance predictor, got one without; "
        "use window, or train one with `sparing train predictor`"
    )


def load_entry_point(name: str) -> EvictionPolicy:
    """The policy of an installed package: its entry point, called.

    Raises OptionError where the result is no policy.
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

"""What the policies that come with Sparing have in common: the facts that are shown of them."""

from collections.abc import Sequence
from typing import Any

from sparing.engine.eviction import EvictionPolicy


class BuiltInPolicy(EvictionPolicy):
    """An eviction policy that can be asked for by name.

    ``name``: in the options.
    ``label``: on the server's page.
    ``needs_predictor``: reads predicted importance.
    ``per_head_in_paper``: each head keeps its own slots in the paper; here all keep the same.
    """

    label: str
    needs_predictor = False
    per_head_in_paper = False

    @classmethod
    def for_model(cls, tokenizer: Any, horizons: Sequence[int]) -> EvictionPolicy:
        """The policy for a model's tokenizer and the horizons of its predictor."""
        return cls()

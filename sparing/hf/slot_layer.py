"""A cache layer of transformers that evicts: ``past_key_values`` where eviction alone is wanted.

    cache = Cache(layer_class_to_replicate=partial(SlotCacheLayer, budget=512))
    model.generate(**inputs, past_key_values=cache)

The loop, the masks and the attention stay those of transformers.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from sparing.engine.cache import Kind
from sparing.engine.eviction import NO_TOKEN, Budget, SlotView, scores_of, select
from sparing.errors import OptionError
from sparing.memory.find import find_policy
from sparing.model.devices import moved
from sparing.options import Memory


class SlotCacheLayer(CacheLayerMixin):
    """Keys and values of a layer in ``budget`` slots a row, allocated once.

    The first tokens are the prompt and never go. When all slots are in use the policy chooses what
    stays, the same in each layer and row; the bytes of the rest are freed for later tokens. A key
    keeps the rotary position of its write.

    ``policy``: one that looks at neither attention nor predicted importance: window, streaming,
    random. ``local``, ``selection``: as in ``Memory``.

    For rows of equal length, without padding, and layers of full attention. Raises OptionError for
    a policy that needs more, and for a prompt that leaves no room.
    """

    is_sliding = False

    def __init__(
        self,
        budget: int,
        local: int | float | None = None,
        selection: int | float | None = None,
        policy: Any = "window",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._positions = np.zeros(0, np.int64)
        self._question: int | None = None
        self._seen = 0
        self.memory = Memory(budget=budget, local=local, selection=selection, policy=policy)
        found = find_policy(self.memory, None, None)
        if found is None or found.watches:
            raise OptionError(
                f"policy of a cache layer must look at positions alone, got {policy}; pass "
                "custom_generate=sparing.hf.generate to generate, which has all policies"
            )
        self.policy, self.seed, self.budget = found, seed, budget

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self._keys, self._values = (
            x.new_zeros(*x.shape[:2], self.budget, x.shape[3]) for x in (key_states, value_states)
        )
        self.is_initialized = True

    @property
    def used(self) -> int:
        """Slots in use."""
        return len(self._positions)

    def update(
        self,
        key_states: Float[Tensor, "B G T D"],
        value_states: Float[Tensor, "B G T Dv"],
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Write new tokens; returns the slots in use."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        count = key_states.shape[2]
        if self._question is None:
            self._question = count
            Budget.of(self.memory, count, 0)  # raises where nothing could ever go
        while self.used + count > self.budget:
            self._evict()
        new = slice(self.used, self.used + count)
        self._keys[:, :, new], self._values[:, :, new] = key_states, value_states
        self._positions = np.append(self._positions, np.arange(self._seen, self._seen + count))
        self._seen += count
        return self._told()

    def _told(self) -> tuple[Tensor, Tensor]:
        self.keys, self.values = self._keys[:, :, : self.used], self._values[:, :, : self.used]
        return self.keys, self.values

    def _evict(self) -> None:
        budget = self._budget()
        kinds = np.where(self._positions < budget.question, Kind.PROMPT, Kind.THOUGHT).astype(
            np.int8
        )
        view = SlotView(
            positions=self._positions,
            kinds=kinds,
            ids=np.full(self.used, NO_TOKEN),
            scores=np.zeros((self.used, 1), np.float32),
            seed=self.seed,
        )
        keep = select(scores_of(self.policy, view), kinds, budget)
        if keep is None:
            raise self._full(self.used)
        kept = moved(torch.from_numpy(np.flatnonzero(keep)), self.device)
        for slots in (self._keys, self._values):
            slots[:, :, : len(kept)] = slots.index_select(2, kept)
        self._positions = self._positions[keep]

    def get_seq_length(self) -> int:
        """Tokens seen, evicted ones included: the position of the next one."""
        return self._seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Slots after the next pass, and by how much they are fewer than the tokens seen."""
        used = self.used
        while self._question is not None and used + query_length > self.budget:
            used = self._left(used)
        return used + query_length, self._seen - used

    def _budget(self) -> Budget:
        assert self._question is not None
        return Budget.sized(self.memory, self._question, self.budget)

    def _left(self, used: int) -> int:
        """Slots in use after an eviction at ``used``; raises OptionError where none is possible."""
        budget = self._budget()
        unprotected = max(used - budget.question - budget.local, 0)
        freed = unprotected - budget.survivors(unprotected)
        if freed < budget.least_freed:
            raise self._full(used)
        return used - freed

    def _full(self, used: int) -> OptionError:
        return OptionError(
            f"a pass must fit beside {used} slots in use into {self.budget}; pass a larger budget"
        )

    def get_max_length(self) -> int:
        return -1

    def reset(self) -> None:
        self._positions = np.zeros(0, np.int64)
        self._question, self._seen = None, 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        raise OptionError("beams must not be reordered over slots that evict; pass num_beams=1")

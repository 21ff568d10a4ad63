"""Where a model of transformers meets our slots: its cache, its masks and its attention.

Each pass packs the new tokens of all rows into one sequence ``[1, N]``. The model's modules run on
it as they are. Three calls of theirs come here: ``Cache.update`` writes keys and values into slots,
the mask says by positions what a token may see, and the attention reads the slots.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.masking_utils import causal_mask_function

from sparing.model.attention import Attention, Rule, Scores, Writer, floats, mean_weights
from sparing.model.inputs import KeyValues, RowInput
from sparing.model.layer_set import LayerSet

NAME = "sparing"  # of the attention implementation
_PASS: ContextVar["HubPass"] = ContextVar("pass")


class HubPass:
    """One pass: where new keys and values go, and what each layer sees.

    ``slots``: the layer's place in the cache, by its number in the model
    """

    def __init__(
        self,
        inputs: Sequence[RowInput],
        cache: KeyValues,
        slots: dict[int, int],
        like: Float[Tensor, "..."],
        layer_set: LayerSet | None = None,
    ) -> None:
        self.inputs, self.cache, self.slots, self.like = inputs, cache, slots, like
        self.layer_set = layer_set
        self.length = max(i.cached for i in inputs)
        self._plans: dict[Any, Attention] = {}
        self._write = Writer(inputs, like.device)

    @contextmanager
    def running(self) -> Iterator[None]:
        token = _PASS.set(self)
        try:
            yield
        finally:
            _PASS.reset(token)

    def write(
        self, layer: int, keys: Float[Tensor, "1 G N D"], values: Float[Tensor, "1 G N D"]
    ) -> tuple[Float[Tensor, "B G S D"], Float[Tensor, "B G S D"]]:
        """Write new keys and values behind the cached ones; returns all slots of the layer."""
        at = self.slots[layer]
        self._write(self.cache, at, torch.stack((keys[0], values[0])).permute(2, 0, 1, 3))
        kv = floats(self.cache, at, keys.dtype)
        return kv[0], kv[1]

    def plan(self, seen: "Seen | None", key_heads: int, heads: int) -> Attention:
        """What the rows see under a mask, made once a pass."""
        key = seen, heads // key_heads
        if key not in self._plans:
            self._plans[key] = Attention(
                self.inputs,
                key_heads,
                heads // key_heads,
                self.like,
                seen.rule if seen else None,
                self.cache.positions,
            )
        return self._plans[key]

    def attention(self) -> list[Float[Tensor, "_m _S"]]:
        """As ``Output.attention``."""
        return mean_weights(list(self._plans.values()), self.inputs)


class Seen:
    """A mask of transformers, as a function of indices; ours are positions."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    @property
    def rule(self) -> Rule:
        def rule(tokens: Int[Tensor, "R T 1"], slots: Int[Tensor, "R 1 S"]) -> Bool[Tensor, "..."]:
            first = tokens.new_zeros(())  # row and head: the mask is the same for all
            seen: Tensor = self.function(first, first, tokens, slots)
            return seen.expand(len(tokens), tokens.shape[1], slots.shape[2])

        return rule


class SlotLayer(CacheLayerMixin):
    """A layer of the cache that transformers sees; all of it lies in our slots."""

    is_sliding = False

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.layer = layer

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the slots are there."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        return _PASS.get().write(self.layer, key_states, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return _PASS.get().length + query_length, 0

    def get_seq_length(self) -> int:
        return _PASS.get().length

    def get_max_length(self) -> int:
        return -1


def slot_layers(layers: int) -> Cache:
    """The cache for ``past_key_values``; it is the same in every pass."""
    return Cache(layers=[SlotLayer(layer) for layer in range(layers)])


def mask(*args: Any, mask_function: Callable[..., Any] = causal_mask_function, **_: Any) -> Any:
    """A mask function of ``AttentionMaskInterface``: what it sees beside the past; None: all."""
    return None if mask_function is causal_mask_function else Seen(mask_function)


def attention(
    module: Any,
    query: Float[Tensor, "1 H N D"],
    key: Float[Tensor, "B G S D"],
    value: Float[Tensor, "B G S D"],
    attention_mask: Any,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Float[Tensor, "1 N H D"], None]:
    """An attention of ``AttentionInterface``; ``key`` and ``value`` are what ``update`` gave."""
    now = _PASS.get()
    plan = now.plan(attention_mask, key.shape[1], query.shape[1])
    queries, scores = query[0].transpose(0, 1), Scores(scaling, softcap, s_aux)
    mixed = plan(queries, key, value, scores)
    plan.watch(queries, key, scores)
    return mixed.view(1, len(queries), query.shape[1], -1), None


def skippable(part: Any, kind: str, layer: int, returns: int) -> None:
    """Let the passes of a LayerSet leave out a sub-layer, whose output then is zero.

    ``returns``: values that the module returns beside its output
    """
    forward = part.forward

    def run(*args: Any, **kwargs: Any) -> Any:
        now = _PASS.get(None)
        chosen = now.layer_set if now else None
        if chosen is None or getattr(chosen, kind)[layer]:
            return forward(*args, **kwargs)
        nothing = torch.zeros_like(args[0] if args else kwargs["hidden_states"])
        return (nothing, *[None] * returns) if returns else nothing

    part.forward = run


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, mask)

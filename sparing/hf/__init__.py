"""Sparing for users of transformers: their model object, their ``generate``, their caches."""

from sparing.hf.generating import generate
from sparing.hf.slot_layer import SlotCacheLayer

__all__ = ["SlotCacheLayer", "generate"]

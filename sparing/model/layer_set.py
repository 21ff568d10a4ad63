"""Which sub-layers run: depth drafting skips sub-layers (SWIFT, arXiv 2410.06916, sec. 3)."""

from collections.abc import Sequence
from dataclasses import dataclass

KINDS = ("attention", "mlp")  # kinds of sub-layers, in the order of a layer


@dataclass(frozen=True)
class LayerSet:
    """The sub-layers to run; skipping one leaves the residual stream unchanged.

    ``attention[l]`` and ``mlp[l]`` say whether layer ``l`` runs that sub-layer.
    """

    attention: tuple[bool, ...]
    mlp: tuple[bool, ...]

    def __post_init__(self) -> None:
        if len(self.attention) != len(self.mlp):
            raise ValueError(
                "a LayerSet must have one attention and one MLP sub-layer a layer, "
                f"got {len(self.attention)} and {len(self.mlp)}"
            )

    @classmethod
    def full(cls, layers: int) -> "LayerSet":
        return cls((True,) * layers, (True,) * layers)

    @classmethod
    def skipping(cls, layers: int, attention: set[int], mlp: set[int]) -> "LayerSet":
        """All sub-layers but the attention of the layers ``attention`` and the MLP of ``mlp``."""
        outside = {index for index in attention | mlp if not 0 <= index < layers}
        if outside:
            raise ValueError(f"layers must lie in 0..{layers - 1}, got {sorted(outside)}")
        everything = range(layers)
        return cls(
            tuple(i not in attention for i in everything), tuple(i not in mlp for i in everything)
        )

    @classmethod
    def named(cls, layers: int, names: Sequence[str]) -> "LayerSet":
        """All sub-layers without ``names``, in the form of the property; raises ValueError."""
        parts = [name.rpartition(".") for name in names]
        if wrong := [name for name, part in zip(names, parts, strict=True) if part[0] not in KINDS]:
            raise ValueError(
                f"a sub-layer must be {' or '.join(KINDS)} and a number, got {wrong[0]!r}"
            )
        found = {kind: {int(index) for of, _, index in parts if of == kind} for kind in KINDS}
        return cls.skipping(layers, *(found[kind] for kind in KINDS))

    @property
    def names(self) -> list[str]:
        """The skipped sub-layers, such as ``mlp.3``, in the order of the pass."""
        pairs = enumerate(zip(self.attention, self.mlp, strict=True))
        return [
            f"{kind}.{layer}"
            for layer, runs in pairs
            for kind, here in zip(KINDS, runs, strict=True)
            if not here
        ]

    @property
    def skipped(self) -> int:
        """Number of skipped sub-layers."""
        return self.attention.count(False) + self.mlp.count(False)

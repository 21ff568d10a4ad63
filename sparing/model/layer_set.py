"""Which sub-layers run: the unit that depth drafting skips (SWIFT, arXiv 2410.06916, sec. 3)."""

from dataclasses import dataclass


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
                "a LayerSet must have as many attention as MLP sub-layers, "
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

    @property
    def skipped(self) -> int:
        """How many sub-layers do not run."""
        return self.attention.count(False) + self.mlp.count(False)

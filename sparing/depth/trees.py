"""How many words stand side by side at a drafted position (SWIFT, arXiv 2410.06916, sec. 4.3)."""

STEPS = ((0.95, 3, 1), (0.8, 5, 3), (0.5, 8, 5), (0.0, 10, 10))  # above, greedy, sampled


def tree_width(confidence: float, sampled: bool) -> int:
    """Of a tree where the drafting model's top-1 probability is ``confidence``: the surer, the
    narrower. The reference's numbers; only the first word is followed by others."""
    for above, greedy, drawn in STEPS:
        if confidence > above:
            return drawn if sampled else greedy
    return STEPS[-1][2]

"""Few combinations of values in which every pair, or every triple, of them stands together."""

from collections.abc import Mapping, Sequence
from itertools import combinations, product

Row = dict[str, str]
Part = frozenset[tuple[str, str]]  # some of a row's axes with their values


def covering(axes: Mapping[str, Sequence[str]], strength: int) -> list[Row]:
    """Rows in which each choice of values of any ``strength`` axes occurs; always the same ones.

    Greedy: a row begins with the first part that no row has yet, then each other axis takes the
    value that completes the most of them, of equals the one that has been used least.
    """
    missing = dict.fromkeys(parts(axes, strength))  # a set that keeps its order
    used = {(axis, value): 0 for axis, values in axes.items() for value in values}
    largest_first = sorted(axes, key=lambda name: -len(axes[name]))
    rows: list[Row] = []
    while missing:
        row = dict(next(iter(missing)))
        for axis in (name for name in largest_first if name not in row):
            gains = {v: gain(row | {axis: v}, axis, missing, strength) for v in axes[axis]}
            row[axis] = min(gains, key=lambda v: (-gains[v], used[axis, v]))
        for part in combinations(row.items(), strength):
            missing.pop(frozenset(part), None)
        for choice in row.items():
            used[choice] += 1
        rows.append({axis: row[axis] for axis in axes})
    return rows


def parts(axes: Mapping[str, Sequence[str]], strength: int) -> list[Part]:
    """Everything that has to occur."""
    return [
        frozenset(zip(names, values, strict=True))
        for names in combinations(axes, strength)
        for values in product(*(axes[name] for name in names))
    ]


def gain(row: Row, axis: str, missing: Mapping[Part, None], strength: int) -> int:
    """How many missing parts the value of ``axis`` completes, given the others."""
    others = [choice for choice in row.items() if choice[0] != axis]
    chosen = (axis, row[axis])
    return sum(frozenset((chosen, *some)) in missing for some in combinations(others, strength - 1))

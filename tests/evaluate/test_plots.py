"""Pictures: the series handed to matplotlib are those of the report."""

import pytest

from sparing.evaluate.plots import WINDOW, draw_decode
from sparing.evaluate.plots_depth import COLOURS, draw_timeline
from sparing.evaluate.plots_latent import draw_latent


def test_the_bounded_run_is_drawn_as_a_rate(tmp_path):
    times = [0.1 * at for at in range(3 * WINDOW + 1)]
    raw = {"bounded_token_seconds": times, "bounded_stats": {"kv_bytes_peak": 2_000_000}}
    [axes] = draw_decode({"raw": raw}, tmp_path / "a.png").axes
    [line] = axes.lines
    assert list(line.get_xdata()) == [WINDOW, 2 * WINDOW, 3 * WINDOW]
    assert list(line.get_ydata()) == pytest.approx([10, 10, 10])
    assert axes.get_title() == f"{len(times)} tokens in 2.0 MB of KV cache"
    assert (tmp_path / "a.png").exists()


def test_a_timeline_has_a_span_a_phase_and_steps_between(tmp_path):
    timeline = [
        {"at": 0, "phase": "accumulation", "skipped": [], "matchness": 0.0},
        {"at": 50, "phase": "optimization", "skipped": ["a", "b"], "matchness": 0.5},
        {"at": 90, "phase": "acceleration", "skipped": ["a", "b", "c"], "matchness": 0.9},
    ]
    speeds = [{"at": 60, "tokens_per_s": 10.0}, {"at": 120, "tokens_per_s": 25.0}]
    cold = {"timeline": timeline, "speeds": speeds, "total": {"tokens": 128}}
    above, below, twin = draw_timeline(cold, tmp_path / "a.png").axes
    for axes, values in ((above, [0, 2, 3, 3]), (twin, [0.0, 0.5, 0.9, 0.9])):
        [line] = axes.lines
        assert (list(line.get_xdata()), list(line.get_ydata())) == ([0, 50, 90, 128], values)
    assert len(above.patches) == len(below.patches) == len(COLOURS)
    [line] = below.lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([60, 120], [10.0, 25.0])


def figure(name, value, low=None, high=None):
    return {"name": name, "value": value, "low": low, "high": high}


def test_arms_are_points_and_distances_lines(tmp_path):
    rows = [
        figure("accuracy/cot", 0.5, 0.4, 0.7),
        figure("text_tokens/cot", 100.0),
        figure("accuracy/latent", 0.25, 0.2, 0.4),
        figure("text_tokens/latent", 60.0),
    ]
    vectors = {
        "latent/0": {"distances": [[0.2, 0.4], [0.6]]},
        "latent/1": {"distances": [[0.1]]},
        "pause/0": {"distances": []},
    }
    content = {"rows": rows, "raw": {"vectors": vectors}}
    left, right = draw_latent(content, tmp_path / "a.png").axes
    points = {points.get_label(): points.lines[0] for points in left.containers}
    found = {arm: (*line.get_xdata(), *line.get_ydata()) for arm, line in points.items()}
    assert found == {"cot": (100.0, 0.5), "latent": (60.0, 0.25)}
    first, second = right.lines
    assert list(first.get_xdata()) == [2, 3]
    assert list(first.get_ydata()) == pytest.approx([0.4, 0.4])
    assert list(second.get_ydata()) == [0.1]

"""The figures of `sparing bench depth`, by hand from made-up runs; what it counts as a pass."""

import pytest
import torch

from sparing.evaluate.bench_depth import passes
from sparing.evaluate.bench_depth_figures import depth_figures
from sparing.evaluate.report import Figure, report, write_json
from tests.engine.drafters import Knowing
from tests.engine.driving import Recorder, greedy, run
from tests.tiny import engine, tiny, unchecked
from tools.tables import depth_table

DRAFTERS = ("off", "lookup", "hybrid")


@pytest.mark.parametrize(
    ("longest", "stopped", "origin"),
    [(9, True, "draft"), (4, True, "draft"), (3, True, "model"), (9, False, "model")],
)
@unchecked()
def test_passes_are_those_of_the_model(longest, stopped, origin):
    """Also where the last token was drafted, so that its pass brought none of its own."""
    model, prompt = engine(tiny(markers=None, num_hidden_layers=2)), list(b"Q")
    [plain] = run(model, [prompt], greedy(20))
    assert len(set(plain.token_ids[:5])) == 5
    sampling = greedy(20, stop_token_ids=plain.token_ids[4:5] if stopped else [])
    recorder = Recorder(model.decoder)
    drafter = Knowing([prompt + plain.token_ids], 1.0, longest)
    [result] = run(model, [prompt], sampling, drafter=drafter, decoder=recorder)
    assert result.token_ids == plain.token_ids[: 5 if stopped else 20]
    last = [event for event in result.events if event.type == "token"][-1]
    assert last.origin == origin
    assert passes(result) == len(recorder.passes)


def made_up(group, seconds, accepted):
    """An answer of 12 tokens: ``seconds`` of all arms, ``accepted`` of 10 drafted ones."""
    arms = (*DRAFTERS, "transformers", "transformers-lookup")
    right = dict(zip(DRAFTERS, (0, *accepted), strict=True))
    same = {"new_tokens": 12, "drafted": 10, "seconds": 10.0}
    same |= {"search_seconds": 1.0, "draft_seconds": 3.0}
    return {
        "group": group,
        "seconds": {arm: [9 * s, s, s] for arm, s in zip(arms, seconds, strict=True)},
        "stats": {d: same | {"accepted": right[d]} for d in right},
        "same": {d: d != "lookup" or group == "qa" for d in right},
        "steps": {d: 12 - right[d] for d in right},
    }


RUNS = [
    made_up("qa", (8, 4, 2, 16, 12), (4, 9)),
    made_up("qa", (8, 4, 8, 16, 12), (2, 5)),
    made_up("math", (6, 8, 3, 12, 6), (0, 9)),
]
TABLE = """\
| speed over plain decoding | lookup | hybrid |
|---|---|---|
| qa | 2.00 | 2.00 |
| math | 0.75 | 2.00 |
| **mean** | 1.44 (0.75 to 2.00) | 2.00 (1.00 to 4.00) |
| over transformers.generate | 2.88 (1.50 to 4.00) | 4.00 (2.00 to 8.00) |
| over its prompt lookup | 1.89 (0.75 to 3.00) | 2.62 (1.50 to 6.00) |
| mean, 2 rows at a time |  | 2.83 (2.00 to 4.00) |
| a cold start, 512 tokens | 1.10 |  |
| tokens a pass of the full model | 1.20 | 2.77 |
| drafted tokens accepted | 20% | 77% |
"""


def test_figures_and_their_table(tmp_path):
    """Speeds are geometric means of medians; tokens and seconds are added up first."""
    figures = depth_figures(RUNS, DRAFTERS[1:], {"off": [6.0, 8.0], "hybrid": [3.0, 2.0]}, 2)
    found = {figure.name: figure.value for figure in figures}
    for name, expected in {
        "speedup/lookup/worst": 0.75,
        "speedup/hybrid/worst": 2.0,
        "speedup/hybrid/batch2": 8**0.5,
        "vs_transformers/hybrid/qa": 16**0.5,
        "accepted_length/hybrid/qa": 24 / (3 + 7),
        "accepted_length/hybrid/mean": 36 / (3 + 7 + 3),
        "acceptance/lookup/math": 0.0,
        "acceptance/hybrid/mean": 23 / 30,
        "same/lookup": 2 / 3,
        "time_share/search/hybrid": 0.1,
        "time_share/draft/hybrid/qa": 0.3,
        "time_share/verify/lookup": 0.6,
    }.items():
        assert found[name] == pytest.approx(expected), name
    cold = Figure("speedup_cold/lookup", 1.1, "x", "higher")
    file = tmp_path / "depth.json"
    write_json(file, report("mine", [*figures, cold], {"runs": RUNS}, torch.float32))
    assert depth_table(str(file)) == TABLE

"""By keyboard, with little motion, over long thoughts, and while layers are still looked for."""

import shutil
from pathlib import Path

import pytest

from sparing.api import load
from sparing.model.sources import POCKET
from sparing.server.examples import RECORDED
from tests.server.live import live
from tests.server.page.browsing import PHONE, visit
from tests.server.wire import QUESTION

CONTROLS = [
    "question",
    "go",
    "memory-on",
    "budget",
    "policy",
    "depth-on",
    "draft",
    "compare",
    "most",
]


def test_every_control_is_reached_by_keyboard_and_seen_there(seen):
    seen.page.focus("body")
    reached = []
    for _ in range(40):
        seen.page.keyboard.press("Tab")
        name, outline = seen.page.evaluate(
            "[document.activeElement.id || document.activeElement.textContent,"
            " getComputedStyle(document.activeElement).outlineStyle]"
        )
        if name in reached or seen.page.evaluate("document.activeElement === document.body"):
            break
        reached.append(name)
        assert outline != "none", name
    assert [name for name in reached if name in CONTROLS] == CONTROLS
    assert set(list(RECORDED.values())[1:]) < set(reached)
    assert RECORDED["legs"] not in reached  # it stands in the question
    assert "latent-on" not in reached  # the model cannot: it is disabled, and says why
    assert seen.text("#latent-note") == "This model has not learned latent steps."
    assert seen.page.is_hidden("#mode")


@pytest.mark.parametrize("keys", ["Enter", "Control+Enter"])
def test_enter_asks(seen, keys):
    seen.switch(compare=False)
    seen.page.fill("#most", "3")
    seen.page.focus("#question")
    seen.page.keyboard.press(keys)
    seen.page.wait_for_selector("[data-at='2']")
    seen.ended()


def test_shift_and_enter_begin_a_line(seen):
    seen.page.fill("#question", "one")
    seen.page.focus("#question")
    seen.page.keyboard.press("End")
    seen.page.keyboard.press("Shift+Enter")
    assert seen.page.input_value("#question") == "one\n"
    assert seen.page.is_hidden("#result")


def test_examples_fill_the_question_and_there_are_others(seen):
    assert seen.page.input_value("#question") == RECORDED["legs"]
    seen.page.click(f"text={RECORDED['sums']}")
    assert seen.page.input_value("#question") == RECORDED["sums"]
    seen.page.click("text=Other questions")
    seen.until(
        "known => !document.getElementById('examples').textContent.includes(known)",
        RECORDED["sums"],
    )
    assert seen.count("#examples button") == 5
    seen.page.fill("#question", "")
    assert seen.count("#examples button[hidden]") == 0


def test_with_little_motion_nothing_moves_by_itself(browser, server):
    with visit(browser, server.url, PHONE, reduced_motion="reduce") as seen:
        seen.ready().switch(compare=False)
        seen.ask(QUESTION, most="30").ended()
        assert seen.page.is_hidden("#columns .play")
        assert seen.page.is_visible("#columns .replay input")
        moving = seen.page.evaluate(
            "[...document.querySelectorAll('*')].filter(one =>"
            " getComputedStyle(one).transitionDuration !== '0s').length"
        )
        assert moving == 0


def test_a_replay_goes_through_the_run_again(seen):
    seen.switch(compare=False)
    seen.ask(QUESTION, most="60").ended()
    seen.page.click("#columns .play")
    seen.until("document.querySelectorAll('[data-at]').length < 60")
    seen.until("document.querySelectorAll('[data-at]').length === 60")
    seen.until("document.querySelector('.play').textContent === 'Replay'")


def test_a_long_thought_is_drawn_whole_once_a_frame(seen):
    """4,096 tokens, evictions among them, in a stream that is much faster than frames."""
    found = seen.page.evaluate((Path(__file__).parent / "long_thought.js").read_text())
    assert found["drawn"] == 4096
    assert found["gone"] == found["evicted"] > 1500
    assert found["points"] < 1200 < found["turns"]
    assert found["slowest"] < 1000  # some 10 ms on a machine that is not busy


@pytest.mark.slow
def test_the_phases_of_a_search_are_on_the_timeline(browser, tmp_path):
    """Pocket without the set that it ships with, which looks for one while it answers."""
    shutil.copytree(POCKET, tmp_path / "cold")
    (tmp_path / "cold" / "layer_sets.json").unlink()
    with (
        live(load(tmp_path / "cold")) as server,
        visit(browser, server.url) as seen,
    ):
        seen.ready().switch(compare=False, memory=False)
        question = "What is " + " + ".join(str(n) for n in range(1201, 1213)) + "?"
        seen.ask(question, draft="layers").ended()
        [run] = list(server.service.runs._ended.values())[-1:]
        expected = [event.phase for event in run.events if event.type == "layers"]
        shown = seen.page.eval_on_selector_all(
            "#columns .phases i", "all => all.map(one => one.className)"
        )
    assert shown == expected
    assert {"accumulation", "optimization"} <= set(shown)

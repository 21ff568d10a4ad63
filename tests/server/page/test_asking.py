"""A question asked on the page: what is drawn is what the engine did."""

from pathlib import Path
from typing import Any

import pytest

from sparing.engine.events import scores_by_position
from sparing.options import Memory, Sampling
from sparing.server.examples import RECORDED
from tests.server.live import live
from tests.server.page.browsing import DESKTOP, PHONE, Visit, visit
from tests.server.saying import saying
from tests.server.wire import QUESTION

DANGEROUS = "<img src=x onerror=\"document.title='owned'\"><b>What is 12 + 34?</b>"


def runs_of(server: Any, last: int) -> list[Any]:
    """The last runs of a server, the latest at the end."""
    return list(server.service.runs._ended.values())[-last:]


def scores_of(choice: Any) -> dict[int, float]:
    """Predicted importance by position, as the choice's events tell it."""
    return scores_by_position(e for e in choice.run.events if e.row == choice.index)


@pytest.fixture(scope="module")
def both(browser, server):
    """A question asked with memory and depth spared, then with nothing spared, and the two runs."""
    with visit(browser, server.url) as found:
        found.ready().ask(QUESTION, budget="160", draft="hybrid").ended()
        assert found.complaints == []
        yield found, [run.choices[0] for run in runs_of(server, 2)]


def column(number: int) -> str:
    return f"#columns > :nth-child({number})"


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_each_token_stands_where_the_engine_said_it(both, number):
    seen, choices = both
    choice, place = choices[number - 1], column(number)
    assert seen.count(f"{place} [data-at]") == len(choice.tokens)
    for kind in ("thought", "answer"):
        said = "".join(token.text for token in choice.tokens if token.kind == kind)
        shown = seen.page.eval_on_selector_all(
            f"{place} .{kind} .token", "all => all.map(one => one.textContent).join('')"
        )
        assert shown == said
    asked = seen.page.eval_on_selector(f"{place} .question", "one => one.textContent")
    assert QUESTION in asked


def test_what_was_evicted_is_struck_out_and_nothing_else(both):
    seen, (spared, plain) = both
    assert spared.stats.evicted_tokens > 0
    struck = seen.page.eval_on_selector_all(
        f"{column(1)} .token.gone",
        "all => all.map(one => getComputedStyle(one).textDecorationLine)",
    )
    assert struck == ["line-through"] * spared.stats.evicted_tokens
    assert seen.count(f"{column(2)} .gone") == plain.stats.evicted_tokens == 0


def test_tokens_are_marked_by_origin(both):
    seen, (spared, plain) = both
    for number, choice in enumerate((spared, plain), 1):
        for origin in ("model", "draft", "forced"):
            expected = sum(token.origin == origin for token in choice.tokens)
            assert seen.count(f"{column(number)} [data-at].{origin}") == expected
    assert spared.stats.accepted > 0


def test_shades_follow_importance(both):
    seen, (spared, _) = both
    shades = seen.page.evaluate(
        "place => [...document.querySelectorAll(`${place} [data-at]`)].map("
        "one => Number([...one.classList].find(name => /^i[1-5]$/.test(name))?.slice(1) ?? 0))",
        column(1),
    )
    told = scores_of(spared)
    scores = [told.get(token.position, 0.0) for token in spared.tokens]
    assert len(set(shades)) >= 4
    pairs = sorted(zip(scores, shades, strict=True))
    assert [shade for _, shade in pairs] == sorted(shades)


def test_gauges_say_what_the_stats_say(both):
    seen, (spared, plain) = both
    place, slot = column(1), seen.page.evaluate("fetch('/v1/models').then(one => one.json())")
    slot_bytes = slot["data"][0]["sparing"]["slot_bytes"]
    question, new = len(spared.request.prompt.ids), len(spared.tokens)
    held = question + new - 1 - spared.stats.evicted_tokens
    kv = seen.text(f"{place} .gauges .kv")
    assert f"{held * slot_bytes / 1e6:.2f}" in kv
    assert f"budget {160 * slot_bytes / 1e6:.2f} MB" in kv
    assert f"without evictions {(question + new - 1) * slot_bytes / 1e6:.2f} MB" in kv
    assert held <= 160
    drafts = seen.text(f"{place} .gauges .drafts")
    assert f"{spared.stats.accepted} of {spared.stats.drafted}" in drafts
    words = seen.text(f"{place} .gauges .words")
    assert str(new) in words
    assert f"{spared.stats.thinking_tokens} of them thinking" in words
    assert "no drafts" in seen.text(f"{column(2)} .gauges .drafts")
    assert "no budget" in seen.text(f"{column(2)} .gauges .kv")
    assert plain.stats.drafted == 0


def test_both_are_compared_at_the_end(both, server):
    seen, (spared, plain) = both
    rows = seen.page.eval_on_selector_all(
        "#compared tbody tr", "all => all.map(row => [...row.children].map(one => one.innerText))"
    )
    by_name = {row[0]: row[1:] for row in rows}
    slot_bytes = server.service.room.slot_bytes
    both_stats = [one.stats for one in (spared, plain)]
    used = [f"{stats.slots_peak * slot_bytes / 1e6:.2f}" for stats in both_stats]
    reserved = [f"{stats.kv_bytes_peak / 1e6:.2f}" for stats in both_stats]
    assert by_name["KV cache in use at most, MB"][:2] == used
    assert by_name["KV cache in use at most, MB"][2].endswith(" less")
    assert by_name["KV cache reserved at most, MB"][:2] == reserved
    assert spared.stats.slots_peak <= 160 < plain.stats.slots_peak
    assert by_name["Tokens"][:2] == [str(one.stats.new_tokens) for one in (spared, plain)]
    assert (
        by_name["Time"][0] == f"{spared.stats.seconds:.{2 if spared.stats.seconds < 10 else 1}f} s"
    )


def test_forgetting_is_named_where_it_changed_the_answer(both):
    seen, (spared, plain) = both
    answers = [
        "".join(token.text for token in one.tokens if token.kind == "answer").strip()
        for one in (spared, plain)
    ]
    assert answers[0] != answers[1], "another question is needed for this test"
    said = seen.text("#compared .answers td:last-child")
    assert said == "different: forgetting changed it"


def test_titles_say_what_is_on_and_the_status_what_came_of_it(both, seen):
    compared, _ = both
    titles = [compared.text(f"{column(number)} h2") for number in (1, 2)]
    assert titles == ["With a budget and drafts", "Everything off"]
    seen.ask("What is 12 - 7?", budget="400", draft="layers", most="12").ended()
    assert "nothing had to be evicted" in seen.text(f"{column(1)} .status")
    assert "evicted" not in seen.text(f"{column(2)} .status")
    assert seen.text("#compared tr:nth-child(4) td:last-child") == "the same"


def test_the_default_budget_leaves_the_examples_right(seen, pocket):
    budget = int(seen.page.input_value("#budget"))
    messages = [[{"role": "user", "content": text}] for text in (*RECORDED.values(), QUESTION)]
    sampling = Sampling(temperature=0)
    spared = pocket.generate(messages, Memory(budget=budget), sampling=sampling)
    whole = pocket.generate(messages, sampling=sampling)
    assert [one.answer for one in spared] == [one.answer for one in whole]
    assert sum(one.stats.evictions > 0 for one in spared) >= 2


def test_a_model_without_marks_has_no_thought(browser, tmp_path):
    with (
        live(saying(tmp_path, ["Ġ", "so", " on"], markers=None)) as server,
        visit(browser, server.url) as seen,
    ):
        seen.ready().switch(compare=False, memory=False)
        seen.ask("x", most="9").ended()
        assert seen.page.is_hidden("#columns .thought")
        assert seen.page.is_hidden("#columns .thinking")
        assert seen.text("#columns .answer") == "so on"
        assert "thinking" not in seen.text("#columns .gauges .words")
        assert seen.text("#said").endswith("so on")
        assert seen.complaints == []


def test_asking_is_on_the_first_screen_of_a_phone(browser, server):
    with visit(browser, server.url, PHONE) as seen:
        seen.ready()
        for selector in ("#question", "#go"):
            box = seen.page.locator(selector).bounding_box()
            assert box["y"] + box["height"] <= PHONE[1]
        room = "document.getElementById('question')"
        assert seen.page.evaluate(f"{room}.scrollHeight <= {room}.offsetHeight")  # nothing clipped


def test_the_set_that_drafts_is_shown(both):
    seen, _ = both
    assert seen.count(f"{column(1)} .phases .acceleration") == 1
    assert seen.count(f"{column(1)} .layers i") == 32
    assert seen.count(f"{column(1)} .layers i.skipped") > 8
    assert seen.count(f"{column(2)} .phases i") == 0


def test_it_can_be_gone_through_again(both):
    seen, (spared, _) = both
    slider = seen.page.locator(f"{column(1)} input[type=range]")
    slider.focus()
    seen.page.keyboard.press("Home")
    assert seen.count(f"{column(1)} [data-at]") == 0
    for _ in range(5):
        seen.page.keyboard.press("ArrowRight")
    assert seen.count(f"{column(1)} [data-at]") in (4, 5)  # one event tells of the layer set
    seen.page.keyboard.press("End")
    assert seen.count(f"{column(1)} [data-at]") == len(spared.tokens)
    assert seen.count(f"{column(1)} .gone") == spared.stats.evicted_tokens


def test_a_token_tells_about_itself(both):
    seen, (spared, _) = both
    seen.page.focus(f"{column(1)} .thought")
    for _ in range(3):
        seen.page.keyboard.press("ArrowRight")
    told = seen.text(f"{column(1)} .about")
    assert f"position {spared.tokens[2].position}" in told
    assert f"importance {scores_of(spared)[spared.tokens[2].position]:.2f}" in told


def test_what_is_said_is_told_to_who_cannot_see_it(both):
    seen, (_, plain) = both
    answer = "".join(token.text for token in plain.tokens if token.kind == "answer").strip()
    said = seen.page.eval_on_selector("#said", "one => [one.ariaLive, one.textContent]")
    assert said[0] == "polite"
    assert said[1].strip().endswith(answer)


def test_text_stays_text(seen):
    seen.switch(compare=False)
    seen.ask(DANGEROUS, most="30").ended()
    assert seen.count("#result img") == seen.count("#result b b") == 0
    assert seen.page.title() == "Sparing · pocket"
    asked = seen.page.eval_on_selector(".question", "one => one.textContent")
    assert DANGEROUS in asked
    assert "none of them" in seen.text(".notice")


def test_only_what_is_switched_on_is_spared(seen, server):
    seen.switch(memory=False, depth=False)
    seen.ask("What is 12 + 34 - 56 + 78 - 90?", most="40").ended()
    [run] = runs_of(server, 1)
    assert run.choices[0].request.budget is None
    assert run.choices[0].stats.draft == "off"
    assert seen.count("#columns > *") == 1  # there is nothing to compare it with


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_nothing_is_wider_than_the_window(both, size):
    seen, _ = both
    seen.page.set_viewport_size({"width": size[0], "height": size[1]})
    try:
        wide = seen.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= size[0]
    finally:
        seen.page.set_viewport_size({"width": DESKTOP[0], "height": DESKTOP[1]})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_enough_to_read(both, scheme):
    """WCAG 2.2, 1.4.3: 4.5 to 1, of each text against what lies behind it."""
    seen, _ = both
    seen.page.emulate_media(color_scheme=scheme)
    seen.page.wait_for_timeout(50)
    assert contrasts(seen, 4.5) == []


def contrasts(seen: Visit, least: float) -> list[Any]:
    """Texts that have less, and how much."""
    return seen.page.evaluate(
        (Path(__file__).parent / "contrasts.js").read_text(),
        least,
    )

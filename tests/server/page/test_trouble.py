"""What goes wrong is said in one clear line, and a run can be stopped."""

import threading
from typing import Any

import pytest

from sparing.options import Sampling
from sparing.server.settings import RequestDefaults, ServerConfig
from tests.server.live import live
from tests.server.page.browsing import Visit, visit
from tests.server.wire import ASKED, QUESTION

ENDLESS = RequestDefaults(sampling=Sampling(ignore_eos=True))


def trouble(seen: Visit) -> str:
    """The line, once it is there."""
    seen.page.wait_for_selector("#trouble:not([hidden])")
    line = seen.text("#trouble")
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"question": " "}, "A question must have one word or more."),
        ({"budget": "lots"}, "The budget must be a number of tokens (288) or a share (0.25)"),
        ({"budget": "-3"}, "The budget must be a number of tokens (288) or a share (0.25)"),
        ({"most": "0"}, "“At most” must be a number of tokens"),
    ],
)
def test_what_could_never_be_asked_is_not(seen, server, fields, said):
    before = len(server.service.runs._ended)
    seen.ask(**fields)
    assert trouble(seen).startswith(said)
    assert len(server.service.runs._ended) == before
    assert not seen.page.is_disabled("#go")


def test_a_refusal_is_told_in_the_servers_words(browser, server):
    with visit(browser, server.url) as seen:
        seen.ready().ask(QUESTION, budget="20").ended()
        assert trouble(seen).startswith("Budget must be at least")
        assert seen.text("#columns .status >> nth=0") == "failed"
        assert not seen.page.is_visible("#columns .gauges >> nth=0")  # of zeros only
        assert seen.text("#columns .status >> nth=1") == "not asked"
        seen.ask(QUESTION, budget="160", most="5").ended()  # and the next one is asked
        assert seen.page.is_hidden("#trouble")


@pytest.fixture(scope="module")
def endless(pocket) -> Any:
    """A server with a single row, no queue, and answers that do not end by themselves."""
    with live(pocket, ServerConfig(rows=1, queue=0), ENDLESS) as found:
        yield found


def test_escape_stops_a_run_here_and_there(browser, endless):
    with visit(browser, endless.url) as seen:
        cancelled = endless.ended("cancelled")
        seen.ready().ask(QUESTION)
        seen.page.wait_for_selector("[data-at='20']")
        assert not seen.page.is_disabled("#stop")
        seen.page.keyboard.press("Escape")
        seen.ended()
        assert seen.text("#columns .status >> nth=0") == "stopped"
        assert seen.text("#columns .status >> nth=1") == "not asked"
        assert seen.page.is_hidden("#trouble")
        endless.settle()
        assert endless.ended("cancelled") == cancelled + 1
        said = seen.count("#columns > :first-child [data-at]")
        [run] = list(endless.service.runs._ended.values())[-1:]
        assert said == len(run.choices[0].tokens)


def test_so_does_the_button_and_leaving(browser, endless):
    with visit(browser, endless.url) as seen:
        seen.ready().ask(QUESTION)
        seen.page.wait_for_selector("[data-at='5']")
        seen.page.click("#stop")
        seen.ended()
        seen.ask(QUESTION)
        seen.page.wait_for_selector("[data-at='5']")
    endless.settle()


def test_a_run_that_somebody_else_cancels(browser, endless):
    with visit(browser, endless.url) as seen:
        seen.ready().ask(QUESTION)
        seen.page.wait_for_selector("[data-at='5']")
        [run] = endless.service.runs.live
        endless.ask("POST", f"/v1/runs/{run}/cancel")
        assert trouble(seen) == "The run was cancelled from elsewhere."
        seen.ended()


def test_a_full_queue(browser, endless):
    chunks = endless.client().chat.completions.create(**ASKED, stream=True)
    next(iter(chunks))
    with visit(browser, endless.url) as seen:
        seen.ready().ask(QUESTION).ended()
        assert "try again later" in trouble(seen)
    chunks.close()
    endless.settle()


def test_a_server_that_is_gone(browser, pocket):
    with visit(browser, "about:blank") as seen:
        with live(pocket) as server:
            seen.page.goto(server.url)
            seen.ready()
        seen.ask(QUESTION).ended()
        assert trouble(seen).startswith("The server does not answer")


def test_a_server_that_goes_while_it_answers(browser, pocket):
    with (
        visit(browser, "about:blank") as seen,
        live(pocket, ServerConfig(grace_s=0), ENDLESS) as server,
    ):
        seen.page.goto(server.url)
        seen.ready().ask(QUESTION)
        seen.page.wait_for_selector("[data-at='5']")
        threading.Thread(target=server.service.fail_all).run()
        assert trouble(seen).startswith("The server is shutting down")
        seen.ended()


def test_a_key_is_asked_for_where_there_is_one(browser, pocket):
    with live(pocket, ServerConfig(api_key="s3cret")) as server, visit(browser, server.url) as seen:
        seen.page.wait_for_selector("#key-row:not([hidden])")
        assert seen.page.evaluate("document.activeElement.id") == "key"
        seen.page.fill("#key", "wrong")
        seen.page.keyboard.press("Enter")
        assert trouble(seen).startswith("An API key must be given")
        seen.page.fill("#key", "s3cret")
        seen.page.click("#unlock")
        seen.ready()
        assert seen.page.is_hidden("#key-row")
        assert seen.page.is_hidden("#trouble")
        seen.switch(compare=False)
        seen.ask(QUESTION, most="20").ended()
        assert seen.count("[data-at]") == 20
        assert "s3cret" not in seen.page.content()

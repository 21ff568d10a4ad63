"""Latent steps on the page: words that were never said, readable where one points."""

from tests.latent.thinking import thinker, thinking
from tests.server.live import live
from tests.server.page.browsing import visit


def test_latent_steps_stand_among_the_words_with_their_top_3(browser):
    with live(thinker(thinking(), "float32")) as server, visit(browser, server.url) as seen:
        seen.ready()
        assert seen.page.is_checked("#latent-on")
        seen.page.select_option("#mode", "confidence")
        seen.switch(memory=False, depth=False, compare=True)
        seen.ask("so, 7 + 9 is", most="40").ended()
        spared, plain = [run.choices[0] for run in list(server.service.runs._ended.values())[-2:]]
        latents = [event for event in spared.run.events if event.type == "latent"]
        assert len(latents) == spared.stats.latent_tokens > 0
        titles = seen.page.eval_on_selector_all(
            "#columns > :first-child .wordless", "all => all.map(one => one.title)"
        )
        assert len(titles) == len(latents)
        for title, event in zip(titles, latents, strict=True):
            assert f"position {event.position}" in title
            for word, p in event.top:
                assert f"“{word.strip()}” {100 * p:.0f}%" in title or round(100 * p % 1, 3) == 0.5
        seen.page.hover("#columns > :first-child .wordless")
        assert seen.text("#columns > :first-child .about").startswith("a latent step")
        assert f"{len(latents)} latent step" in seen.text("#columns > :first-child .words")
        assert plain.stats.latent_tokens == seen.count("#columns > :nth-child(2) .wordless") == 0
        assert seen.complaints == []

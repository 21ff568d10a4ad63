"""What a row has said: thoughts and answers, the thinking budget, and the ends."""

import itertools
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sparing.engine.cache import Kind
from sparing.engine.sampling import Sampler, draw
from sparing.engine.transcript import Limits, Transcript
from sparing.model.chat import ChatFormat
from sparing.model.generation_defaults import GenerationDefaults
from tests.tiny import tokenizer

END = "</think>"
LOGITS = torch.zeros(300)


@cache
def chat(markers: str | None) -> ChatFormat:
    return ChatFormat(tokenizer(markers), GenerationDefaults(frozenset()))


class Row:
    """A transcript that is told what its model would say."""

    def __init__(self, prompt: str, markers: str | None = "single", **limits: Any) -> None:
        self.chat = chat(markers)
        limits = {"max_new_tokens": 10_000, "context": 20_000} | limits
        self.transcript = Transcript(
            self.chat, self.chat.encode(prompt), Sampler(), Limits(**limits), len(LOGITS)
        )
        self.pieces: list[str] = []
        self.kinds: list[str] = []
        self.forced: list[str] = []

    def say(self, *words: str) -> "Row":
        """Pick the words' tokens unless another is forced, until the row ends."""
        for word in words:
            for token in self.chat.tokenizer.encode(word):
                if self.transcript.finish_reason is None:
                    self.step(token)
        return self

    def step(self, likeliest: int) -> None:
        assert self.transcript.room > 0
        token, forced = self.transcript.settled(likeliest)
        assert forced or token == likeliest
        piece, kind = self.transcript.append(token)
        self.pieces.append(piece)
        self.kinds.append(kind.name[0])
        if forced:
            self.forced.append(self.chat.tokenizer.decode([token]))

    @property
    def text(self) -> str:
        assert "".join(self.pieces) == self.transcript.text
        return self.transcript.text

    @property
    def split(self) -> tuple[str, str]:
        return self.transcript.split(self.text)


@pytest.mark.parametrize("markers", ["single", "several"])
def test_a_thought_that_the_model_opens(markers):
    row = Row("Q", markers).say("<think> a b </think>\n\n7 .")
    row.transcript.end("length")
    assert row.text == "<think> a b </think>\n\n7 ."
    assert row.split == ("a b", "7 .")
    thoughts = "".join(row.kinds)
    if markers == "single":
        assert thoughts == "T" * 7 + "A" * 5
        assert row.transcript.thinking_tokens == 7
    else:  # until its last letter the start marker may be anything
        assert thoughts == "A" * 6 + "T" * 14 + "A" * 5
        assert row.transcript.thinking_tokens == 14


@pytest.mark.parametrize("markers", ["single", "several"])
def test_a_thought_that_the_prompt_opened(markers):
    row = Row("Q <think>\n", markers).say("so ", "7 ", END, " is it")
    row.transcript.end("length")
    assert row.split == ("so 7", "is it")
    assert row.kinds[0] == "T"
    assert row.kinds[-1] == "A"
    assert row.transcript.thinking_tokens == 5 + len(chat(markers).markers.end_ids)


@pytest.mark.parametrize("markers", ["single", "several"])
def test_an_empty_thought_in_the_prompt(markers):
    row = Row("Q <think>\n\n</think>\n", markers).say("seven")
    row.transcript.end("length")
    assert row.split == ("", "seven")
    assert set(row.kinds) == {"A"}
    assert row.transcript.thinking_tokens == 0


@pytest.mark.parametrize("markers", ["single", "several"])
def test_thoughts_and_answers_in_turn(markers):
    row = Row("Q", markers).say("x<think>a</think>y<think>b</think><think>c</think>z")
    row.transcript.end("length")
    assert row.split == ("a\nb\nc", "x\ny\nz")


def test_a_marker_is_looked_for_where_it_may_end():
    """Not in all of a thought, at every token of it."""
    looked_at = []

    class Text(str):
        def __add__(self, other: str) -> "Text":
            return Text(str(self) + other)

        def __getitem__(self, part: Any) -> str:
            found = super().__getitem__(part)
            looked_at.append(len(found))
            return found

        def find(self, what: str, start: int = 0) -> int:  # type: ignore[override]
            looked_at.append(len(self) - start)
            return super().find(what, start)

    row = Row("Q<think>", "several")
    row.transcript._text.decoded = Text()
    row.say("a" * 500)
    assert max(looked_at) <= len(END)
    row.say(END + "b")
    assert row.transcript.kind == Kind.ANSWER
    row.transcript.end("length")
    assert row.split == ("a" * 500, "b")


@pytest.mark.parametrize("markers", ["single", "several"])
def test_a_thought_that_never_ends(markers):
    row = Row("Q<think>", markers, max_new_tokens=5).say("a b c d e f")
    assert row.transcript.finish_reason == "length"
    assert row.split == ("a b c", "")


def test_a_marker_that_is_only_spelled_belongs_to_the_thought():
    """A model whose markers are single tokens may write the same letters with other tokens."""
    row = Row("Q").say("<think>", "</th", "ink>", "<think>", END, "7")
    row.transcript.end("length")
    assert row.split == ("</think><think>", "7")


def test_without_markers_all_text_is_the_answer_and_every_slot_may_go():
    row = Row("Q", None).say("<think>a</think>b")
    row.transcript.end("length")
    assert row.split == ("", "<think>a</think>b")
    assert set(row.kinds) == {"T"}
    assert row.transcript.told(Kind.THOUGHT) == "answer"
    assert row.transcript.evictable_tokens == len(row.kinds)
    assert row.transcript.thinking_tokens == 0


@pytest.mark.parametrize("markers", ["single", "several"])
def test_the_thinking_budget_closes_the_thought(markers):
    end = len(chat(markers).markers.end_ids)
    row = Row("Q<think>", markers, think_budget=12 + end).say("a" * 12 + "b" * end + "c")
    row.transcript.end("length")
    assert row.split == ("a" * 12, "c")
    assert row.transcript.thinking_tokens == 12 + end
    assert "".join(row.forced) == END
    assert row.kinds == ["T"] * (12 + end) + ["A"]


@pytest.mark.parametrize("budget", [0, 1, 3])
@pytest.mark.parametrize("markers", ["single", "several"])
def test_a_budget_smaller_than_the_marker_closes_at_once(markers, budget):
    end = len(chat(markers).markers.end_ids)
    row = Row("Q<think>", markers, think_budget=budget).say("abcdefghijkl")
    assert row.transcript.thinking_tokens == max(end, min(budget, 3) if end == 1 else end)
    assert "".join(row.forced) == END


def test_a_marker_that_the_model_has_begun_is_finished_not_begun_again():
    row = Row("Q<think>", "several", think_budget=12).say("ab", "</th", "zzzzzz", "c")
    row.transcript.end("length")
    assert row.text.count(END) == 1
    assert "</th</think>" not in row.text
    assert row.split[0] == "ab"


def test_a_begun_marker_that_turns_into_something_else_does_not_break_the_budget():
    """At the last moment for a whole marker there is a half one; the model then says something
    else, and a whole marker is needed again."""
    row = Row("Q<think>", "several", think_budget=20).say("a" * 11, "<", "b" * 20)
    assert row.transcript.thinking_tokens <= 20


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(
    said=st.text("</think>ab", max_size=60) | st.lists(st.sampled_from(["</", "think>", "a"])),
    budget=st.integers(0, 30),
    opened=st.booleans(),
    markers=st.sampled_from(["single", "several"]),
)
def test_no_thought_exceeds_its_budget(said, budget, opened, markers):
    end = len(chat(markers).markers.end_ids)
    row = Row("Q<think>" if opened else "Q", markers, think_budget=budget).say(*said)
    if opened:
        row.say("x" * (budget + end))
        assert not row.transcript.thinking
    assert row.transcript.thinking_tokens <= max(budget, end)


@pytest.mark.parametrize(
    ("limits", "reason", "tokens"),
    [
        ({"max_new_tokens": 3}, "length", 3),
        ({"context": 5}, "context", 4),
        ({"stop": ["cd"]}, "stop", 4),
        ({"end_ids": frozenset(tokenizer().encode("b"))}, "stop", 2),
        ({"max_new_tokens": 2, "end_ids": frozenset(tokenizer().encode("b"))}, "stop", 2),
        ({"max_new_tokens": 4, "stop": ["cd"]}, "stop", 4),
        ({"max_new_tokens": 4, "context": 5}, "length", 4),
    ],
)
def test_ends(limits, reason, tokens):
    row = Row("Q", **limits).say("abcdefg")
    assert row.transcript.finish_reason == reason
    assert row.transcript.new_tokens == tokens
    assert row.text == {"cd": "ab"}.get("".join(limits.get("stop", [])), "abcdefg"[:tokens])


def test_half_a_stop_string_is_told_at_every_end_but_a_stop():
    for limits in ({"max_new_tokens": 4}, {"context": 5}):
        row = Row("Q", stop=["cd!", "d!"], **limits).say("abcd!")
        assert row.pieces == ["a", "b", "", "cd"]
    row = Row("Q", stop=["cd!"]).say("abcd")
    assert row.transcript.end("budget") == "cd"


def test_a_stop_string_inside_a_thought():
    row = Row("Q<think>", stop=["STOP"]).say("a STOP b")
    assert row.split == ("a", "")
    assert row.transcript.finish_reason == "stop"


@pytest.mark.parametrize("markers", ["single", "several", "special"])
def test_a_stop_string_counts_in_the_answer_alone(markers):
    row = Row("Q<think>", markers, stop=["STOP", "\n\n"], stop_in_thought=False)
    row.say("a STOP\n\nb", END, "\n\nc\nST")
    assert row.split == ("a STOP\n\nb", "c")
    row.say("OP d")
    assert row.split == ("a STOP\n\nb", "c")
    assert row.transcript.finish_reason == "stop"


def test_a_thought_behind_an_answer_has_no_stops_either():
    row = Row("Q", stop=["STOP"], stop_in_thought=False).say("a<think>STOP</think>b STOP")
    assert row.split == ("STOP", "a\nb")
    assert row.transcript.finish_reason == "stop"


def test_typed_letters_are_no_marker_of_one_token():
    row = Row("Q", "special")
    row.say("<think>", *"</think>", " so", END, "7", *"<think>", " no")
    row.transcript.end("length")
    assert row.split == ("</think> so", "7<think> no")
    row = Row("Q<think>", "single").say(*"</think>", END, "7")
    row.transcript.end("length")
    assert row.split == ("</think>", "7")


def test_half_a_character_before_a_marker_without_text_stays_in_the_thought():
    row = Row("Q<think>", "special")
    row.step(row.chat.tokenizer.encode("\u00e9")[0])
    row.say(END, "7")
    row.transcript.end("length")
    assert row.split == ("\ufffd", "7")


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("\n\n    return x\n", "    return x"),
        (" \n\t\n  a\n  b", "  a\n  b"),
        ("  a\n  b", "a\n  b"),
        ("\n", ""),
    ],
)
def test_an_answer_keeps_its_indentation(said, answer):
    row = Row("Q<think>").say("so", END, said)
    row.transcript.end("length")
    assert row.split == ("so", answer)


def test_a_forced_marker_that_is_a_stop_string_ends_the_row():
    row = Row("Q<think>", "several", think_budget=10, stop=["</think"]).say("a" * 20)
    assert row.transcript.finish_reason == "stop"
    assert row.text == "aa"


def test_latents_count_as_positions_but_not_as_tokens():
    row = Row("Q", max_new_tokens=5).say("ab")
    row.transcript.append_latent()
    row.transcript.append_latent()
    assert row.transcript.latents == (2, 2)
    assert row.transcript.new_tokens == 2
    assert row.transcript.position == 5
    assert row.transcript.room == 1
    row.say("c")
    assert row.transcript.latents == (0, 2)
    assert row.transcript.finish_reason == "length"


@given(st.lists(st.integers(0, 255), min_size=1, max_size=30), st.integers(0, 29))
def test_penalty_sees_every_token_of_prompt_and_output(tokens, question):
    assume(question < len(tokens))
    form = chat(None)
    prompt = form.encode(tokens[: question + 1])
    limits = Limits(max_new_tokens=100, context=1000)
    transcript = Transcript(form, prompt, Sampler(repetition_penalty=2.0), limits, 300)
    for token in tokens[question + 1 :]:
        transcript.append(token)
    unseen = sorted(set(range(300)) - set(tokens))
    assert transcript.settled(0) is None
    assert draw([transcript.draw()], torch.ones(1, 300)) == [[unseen[0]]]


def test_kinds_are_known_before_the_token_is():
    row = Row("Q")
    assert row.transcript.kind == Kind.ANSWER
    row.say("<think>")
    assert row.transcript.kind == Kind.THOUGHT
    row.say(END)
    assert row.transcript.kind == Kind.ANSWER


PIECES = ["<think>", END, "<", "</th", "ink>", "think", " ", "\n", "so", "42", "\u00e9"]


@given(
    prompt=st.sampled_from(["Q", "Q<think>"]),
    words=st.lists(st.sampled_from(PIECES), max_size=25),
    markers=st.sampled_from(["single", "special", "several", None]),
    stop=st.sampled_from([[], ["k>4"], [" so"]]),
    stop_in_thought=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_what_is_told_so_far_only_ever_grows_into_the_whole(
    prompt, words, markers, stop, stop_in_thought
):
    """Also where the transcript is ahead of the text that its reader has."""
    row = Row(prompt, markers, stop=stop, stop_in_thought=stop_in_thought)
    seen = [("", "", 0)]
    for word in words:
        row.say(word)
        behind = row.text[: seen[-1][2]]
        for text in (behind, row.text):
            seen.append((*row.transcript.split(text, so_far=True), len(text)))
    if row.transcript.finish_reason is None:
        row.transcript.end("length")
    whole = row.transcript.split(row.transcript.text)
    for thinking, answer, _ in seen:
        assert whole[0].startswith(thinking)
        assert whole[1].startswith(answer)
    for before, after in itertools.pairwise(seen):
        assert after[0].startswith(before[0])
        assert after[1].startswith(before[1])

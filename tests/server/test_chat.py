"""/v1/chat/completions through the official client, against what Python says."""

import openai
import pytest

from sparing.options import Depth, Memory, Sampling
from tests.server.wire import QUESTION, Streamed

MESSAGES = [{"role": "user", "content": QUESTION}]
ASKED = {"model": "pocket", "messages": MESSAGES}


def ask(server, **more):
    """The choices of an answer that is not streamed."""
    return server.client().chat.completions.create(**ASKED | more).choices


def stream(server, **more):
    chunks = server.client().chat.completions.create(**ASKED | {"stream": True} | more)
    return Streamed(list(chunks))


def alone(pocket, memory=None, **sampling):
    """The engine's own answer."""
    [result] = pocket.generate([MESSAGES], memory, sampling=Sampling(**sampling))
    return result


@pytest.fixture(scope="module")
def greedy(pocket):
    return alone(pocket, temperature=0)


def test_an_answer_is_the_engines_streamed_or_not(server, greedy):
    whole = server.client().chat.completions.create(**ASKED, temperature=0)
    [choice] = whole.choices
    message = choice.message
    assert message.reasoning_content
    assert message.content
    assert (message.reasoning_content, message.content) == (greedy.thinking, greedy.answer)
    assert choice.finish_reason == "stop"
    told = stream(server, temperature=0, stream_options={"include_usage": True})
    assert (told.thinking, told.content) == ([greedy.thinking], [greedy.answer])
    assert told.reasons == ["stop"]
    assert told.chunks[0].choices[0].delta.role == "assistant"
    assert {chunk.id for chunk in told.chunks} == {told.chunks[0].id}
    for usage in (whole.usage, told.usage):
        assert usage.prompt_tokens == len(greedy.prompt_token_ids)
        assert usage.completion_tokens == len(greedy.token_ids)
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
        assert usage.completion_tokens_details.reasoning_tokens == greedy.stats.thinking_tokens


def test_usage_is_not_streamed_unless_asked_for(server):
    told = stream(server, max_completion_tokens=3)
    assert told.usage is None
    assert all(chunk.choices for chunk in told.chunks)


@pytest.mark.parametrize("name", ["max_completion_tokens", "max_tokens"])
def test_a_limit_ends_it(server, pocket, name):
    [choice] = ask(server, temperature=0, **{name: 20})
    expected = alone(pocket, temperature=0, max_new_tokens=20)
    assert choice.finish_reason == choice.sparing["finish_reason"] == "length"
    assert choice.message.reasoning_content == expected.thinking
    assert choice.message.content == ""


def test_a_limit_in_the_middle_of_the_closing_marker_streams_the_same(server, greedy):
    """At every length near the thought's end."""
    thought = greedy.stats.thinking_tokens
    for count in range(thought - 3, thought + 3):
        [choice] = ask(server, temperature=0, max_completion_tokens=count)
        told = stream(server, temperature=0, max_completion_tokens=count)
        assert told.thinking == [choice.message.reasoning_content]
        assert told.content == [choice.message.content]


@pytest.mark.slow
def test_the_models_own_limit_is_the_default(server, pocket):
    endless = {"sparing": {"sampling": {"ignore_eos": True}}}
    [choice] = ask(server, temperature=0, extra_body=endless)
    assert choice.finish_reason == "length"
    assert choice.sparing["stats"]["new_tokens"] == pocket.chat.defaults.sampling["max_new_tokens"]


@pytest.mark.parametrize("stop", ["185", ["nowhere", "185", "415"]])
def test_stop_cuts_before_itself(server, pocket, stop):
    stops = [stop] if isinstance(stop, str) else stop
    expected = alone(pocket, temperature=0, stop=stops, stop_in="text")
    everywhere = {"sparing": {"sampling": {"stop_in": "text"}}}
    [choice] = ask(server, temperature=0, stop=stop, extra_body=everywhere)
    told = stream(server, temperature=0, stop=stop, extra_body=everywhere)
    assert choice.finish_reason == "stop"
    assert choice.message.reasoning_content == expected.thinking != ""
    assert "185" not in choice.message.reasoning_content
    assert told.thinking == [expected.thinking]


def test_a_stop_of_the_thought_alone_changes_nothing(server, greedy):
    [choice] = ask(server, temperature=0, stop=["185"])
    assert choice.message.reasoning_content == greedy.thinking
    assert choice.message.content == greedy.answer


def test_seeds_draw_the_same_and_choices_have_one_each(server, pocket):
    """Choice i is what seed + i draws alone; the seed of each is told."""
    asked = [{"role": "user", "content": "Why is the sky blue?"}]  # pocket is less sure of that
    options = {"temperature": 1.5, "top_p": 0.99}
    more = {"seed": 7, "n": 3, "max_completion_tokens": 60, "messages": asked}
    choices = ask(server, **options, **more)
    told = stream(server, **options, **more)
    assert [choice.index for choice in choices] == [0, 1, 2]
    texts = [choice.message.reasoning_content for choice in choices]
    assert len(set(texts)) > 1
    assert told.thinking == texts
    for choice in choices:
        seed = 7 + choice.index
        sampling = Sampling(**options, seed=seed, max_new_tokens=60)
        [expected] = pocket.generate([asked], sampling=sampling)
        assert choice.message.reasoning_content == expected.thinking
        assert choice.sparing["seed"] == seed


def test_without_a_seed_it_is_another_each_time_and_can_be_drawn_again(server):
    options = {"temperature": 1.5, "max_completion_tokens": 40}
    [first], [second] = ask(server, **options), ask(server, **options)
    assert first.sparing["seed"] != second.sparing["seed"]
    [again] = ask(server, **options, seed=first.sparing["seed"])
    assert again.message == first.message


def test_usage_counts_the_prompt_once(server, greedy):
    found = server.client().chat.completions.create(**ASKED, n=2, max_completion_tokens=5)
    assert found.usage.prompt_tokens == len(greedy.prompt_token_ids)
    assert found.usage.completion_tokens == 10


def test_savings_of_a_request(server, pocket):
    memory = {"budget": 150, "policy": "window"}
    extra = {"sparing": {"memory": memory, "depth": {"draft": "off"}}}
    [choice] = ask(server, temperature=0, extra_body=extra)
    [expected] = pocket.generate(
        [MESSAGES], Memory(**memory), Depth(draft="off"), sampling=Sampling(temperature=0)
    )
    stats = choice.sparing["stats"]
    assert choice.message.content == expected.answer
    assert choice.message.reasoning_content == expected.thinking
    assert stats["evictions"] == expected.stats.evictions > 0
    assert (stats["draft"], stats["policy"], stats["drafted"]) == ("off", "window", 0)
    assert stats["kv_bytes_peak"] == expected.stats.kv_bytes_peak


@pytest.mark.parametrize("draft", ["lookup", "layers", "hybrid", "auto"])
def test_a_request_chooses_who_drafts_and_it_changes_no_token(server, greedy, draft):
    [choice] = ask(server, temperature=0, extra_body={"sparing": {"depth": {"draft": draft}}})
    assert choice.message.content == greedy.answer
    assert choice.message.reasoning_content == greedy.thinking
    assert choice.sparing["stats"]["draft"] == draft


def test_sparings_own_sampling_options(server, pocket):
    own = {"sampling": {"think_budget": 30, "top_k": 5, "repetition_penalty": 1.1}}
    [choice] = ask(server, temperature=0.9, seed=4, extra_body={"sparing": own})
    expected = alone(pocket, temperature=0.9, seed=4, **own["sampling"])
    assert choice.message.reasoning_content == expected.thinking
    assert choice.sparing["stats"]["thinking_tokens"] == 30


def test_the_thought_can_be_left_out(server, pocket):
    [choice] = ask(server, temperature=0, extra_body={"sparing": {"no_think": True}})
    [expected] = pocket.generate(
        [MESSAGES], sampling=Sampling(temperature=0), template_options={"enable_thinking": False}
    )
    assert choice.message.reasoning_content is None
    assert choice.message.content == expected.answer != ""


def test_an_answer_can_be_sent_back_as_it_came(server):
    """With its reasoning_content, as the client's objects have it; parts of text are joined."""
    [choice] = ask(server, temperature=0)
    parts = [{"type": "text", "text": "What is 1 + "}, {"type": "text", "text": "2 - 1?"}]
    more = [*MESSAGES, choice.message, {"role": "user", "content": parts}]
    [second] = ask(server, messages=more, temperature=0, max_completion_tokens=5)
    [whole] = ask(
        server,
        messages=[*MESSAGES, {"role": "assistant", "content": choice.message.content},
                  {"role": "user", "content": "What is 1 + 2 - 1?"}],
        temperature=0,
        max_completion_tokens=5,
    )  # fmt: skip
    assert second.message == whole.message


def test_what_pocket_does_not_know_comes_with_a_notice(server):
    [unknown] = ask(server, messages=[{"role": "user", "content": "Why is the sky blue?"}],
                    max_completion_tokens=5)  # fmt: skip
    [known] = ask(server, max_completion_tokens=5)
    assert "pocket" in unknown.sparing["notice"]
    assert known.sparing["notice"] is None


REFUSED = {
    "tools": ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    "response_format": ({"response_format": {"type": "json_object"}}, "response_format"),
    "frequency_penalty": ({"frequency_penalty": 0.5}, "frequency_penalty"),
    "logit_bias": ({"logit_bias": {"3": 1}}, "logit_bias"),
    "functions": ({"functions": [{"name": "f"}]}, "functions"),
    "tool_choice": ({"tool_choice": "required"}, "tool_choice"),
    "modalities": ({"modalities": ["text", "audio"]}, "modalities"),
    "beams": ({"extra_body": {"use_beam_search": True}}, "use_beam_search"),
    "best_of": ({"extra_body": {"best_of": 3}}, "best_of"),
    "true is not 1": ({"extra_body": {"length_penalty": True}}, "length_penalty"),
    "effort": ({"reasoning_effort": "high"}, "reasoning_effort"),
    "template": (
        {"extra_body": {"chat_template_kwargs": {"chat_template": "x"}}},
        "template_options.chat_template",
    ),
    "unknown": ({"extra_body": {"top_q": 5}}, "top_q"),
    "inside": ({"extra_body": {"sparing": {"memoir": {}}}}, "sparing.memoir"),
    "depth": ({"extra_body": {"sparing": {"depth": {"window": 64}}}}, "sparing.depth.window"),
    "latent": ({"extra_body": {"sparing": {"latent": {"mode": "learned"}}}}, "sparing.latent"),
    "image": (
        {"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages[0].content",
    ),
    "tool role": ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    "called": (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]},
        "messages[0].tool_calls",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("more", "param"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_supported_is_refused_by_name(server, more, param):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(server, **more)
    assert caught.value.param is not None
    assert caught.value.param.startswith(param)
    assert param.split("[")[0].split(".")[-1] in caught.value.message
    assert caught.value.type == "invalid_request_error"


WRONG = {
    "temperature": ({"temperature": -1}, "temperature must be greater than or equal to 0, got -1"),
    "words": ({"extra_body": {"temperature": "hot"}}, "temperature must be a valid number"),
    "top_p": ({"top_p": 0}, "top_p must be greater than 0"),
    "n": ({"n": 0}, "n must be greater than or equal to 1"),
    "seed": ({"seed": 2**64}, "seed must be less than 18446744073709551616"),
    "enable_thinking": ({"extra_body": {"enable_thinking": 0}}, "must be true or false, got 0"),
    "two minds": (
        {"extra_body": {"enable_thinking": True, "sparing": {"no_think": True}}},
        "must agree",
    ),
    "twice moved": (
        {"extra_body": {"top_k": 3, "sparing": {"sampling": {"top_k": 4}}}},
        "top_k must be given once",
    ),
    "thought's logprobs": (
        {"extra_body": {"sparing": {"thought_logprobs": True}}},
        "thought_logprobs needs logprobs",
    ),
    "stop": ({"stop": ""}, "stop strings must have a character or more"),
    "no tokens": ({"max_completion_tokens": 0}, "max_completion_tokens must be greater than"),
    "both": ({"max_completion_tokens": 3, "max_tokens": 3}, "pass one of them"),
    "top": ({"top_logprobs": 2}, "top_logprobs needs logprobs"),
    "usage": ({"stream_options": {"include_usage": True}}, "stream_options needs stream"),
    "no messages": ({"messages": []}, "messages List should have at least 1 item"),
    "nothing": ({"messages": [{"role": "user"}]}, "messages[0].content must be given"),
    "share": ({"extra_body": {"sparing": {"memory": {"budget": 1.5}}}}, "must lie in (0, 1]"),
    "typo": ({"extra_body": {"sparing": {"memory": {"budgt": 9}}}}, "Memory has no option budgt"),
    "small": ({"extra_body": {"sparing": {"memory": {"budget": 9}}}}, "or more, or a shorter"),
    "learned": (
        {"extra_body": {"sparing": {"memory": {"budget": 99, "policy": "h3o"}}}},
        "policy must be",
    ),
    "twice": (
        {"temperature": 1, "extra_body": {"sparing": {"sampling": {"temperature": 1.0}}}},
        "temperature must be given once",
    ),
    "long": ({"messages": [{"role": "user", "content": "7 " * 5000}]}, "must be shorter than"),
}


@pytest.mark.parametrize(("more", "message"), WRONG.values(), ids=WRONG)
def test_wrong_values_are_told_in_a_line(server, more, message):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(server, **more)
    error = caught.value.body
    assert message in error["message"]
    assert "\n" not in error["message"]
    assert set(error) == {"message", "type", "param", "code"}


def test_another_model_is_not_found(server):
    with pytest.raises(openai.NotFoundError, match="model must be pocket, got 'gpt'"):
        ask(server, model="gpt")
    assert [model.id for model in server.client().models.list()] == ["pocket"]
    assert server.client().models.retrieve("pocket").id == "pocket"
    with pytest.raises(openai.NotFoundError):
        server.client().models.retrieve("gpt")

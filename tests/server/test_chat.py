"""/v1/chat/completions through the official client, against what Python says."""

import pytest

from sparing.options import Memory, Sampling

QUESTION = "What is 382 - 197 + 415 - 868 + 250?"
ASKED = {"model": "pocket", "messages": [{"role": "user", "content": QUESTION}]}


@pytest.fixture(scope="module")
def alone(pocket):
    """The engine's own answer, greedy."""
    return pocket.generate([ASKED["messages"]], sampling=Sampling(temperature=0))[0]


def streamed(client, **more):
    """Thinking and answer put together again, the last chunks' finish reason and usage."""
    thinking = answer = ""
    reason = usage = None
    options = {"stream": True, "stream_options": {"include_usage": True}}
    for chunk in client.chat.completions.create(**ASKED | options | more):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            thinking += getattr(choice.delta, "reasoning_content", None) or ""
            answer += choice.delta.content or ""
            reason = choice.finish_reason or reason
    return thinking, answer, reason, usage


def test_an_answer_is_the_engines_streamed_or_not(server, alone):
    whole = server.client().chat.completions.create(**ASKED, temperature=0)
    [choice] = whole.choices
    message = choice.message
    assert (message.reasoning_content, message.content) == (alone.thinking, alone.answer)
    assert message.reasoning_content
    assert message.content
    assert choice.finish_reason == "stop"
    thinking, answer, reason, usage = streamed(server.client(), temperature=0)
    assert (thinking, answer, reason) == (alone.thinking, alone.answer, "stop")
    for told in (whole.usage, usage):
        assert told.prompt_tokens == len(alone.prompt_token_ids)
        assert told.completion_tokens == len(alone.token_ids)
        assert told.total_tokens == told.prompt_tokens + told.completion_tokens
        assert told.completion_tokens_details.reasoning_tokens == alone.stats.thinking_tokens


def test_savings_of_a_request(server, pocket):
    memory = {"budget": 150, "policy": "window"}
    found = server.client().chat.completions.create(
        **ASKED,
        temperature=0,
        extra_body={"sparing": {"memory": memory, "depth": {"draft": "off"}}},
    )
    [alone] = pocket.generate(
        [ASKED["messages"]], Memory(**memory), sampling=Sampling(temperature=0)
    )
    told = found.choices[0].sparing
    assert found.choices[0].message.content == alone.answer
    assert told["stats"]["evictions"] == alone.stats.evictions > 0
    assert told["stats"]["draft"] == "off"
    assert told["stats"]["policy"] == "window"
    assert told["stats"]["kv_bytes_peak"] == alone.stats.kv_bytes_peak

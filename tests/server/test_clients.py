"""What clients of OpenAI's and other servers send: neutral values, nulls, replies sent back."""

import pytest

from sparing.options import Sampling
from sparing.server.requests import ChatRequest
from tests.server.live import live
from tests.server.saying import saying
from tests.server.wire import ASKED, QUESTION, Streamed

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
SHORT = {"model": "pocket", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 2}
PROMPT = {"model": "pocket", "prompt": "hi", "max_tokens": 2}
SENT = {  # payloads as these programs send them
    "LibreChat": {"user": "65f", "presence_penalty": 0, "frequency_penalty": 0, "top_p": 1},
    "NextChat": {"stream": False, "temperature": 0.5, "presence_penalty": 0, "top_p": 1},
    "SillyTavern": {"logit_bias": {}, "tools": [], "tool_choice": "none", "n": 1, "stop": []},
    "LangChain": {"parallel_tool_calls": False, "metadata": {}, "service_tier": "auto"},
    "OpenAI": {
        "store": False,
        "modalities": ["text"],
        "response_format": {"type": "text"},
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "reasoning_effort": "medium",
        "verbosity": "medium",
    },
    "vLLM's bench": {"best_of": 1, "ignore_eos": False, "repetition_penalty": 1.0, "min_p": 0.0},
    "Qwen3's card": {"top_k": 20, "min_p": 0, "chat_template_kwargs": {"enable_thinking": True}},
    "no effect": {"chat_template_kwargs": {}, "stop_token_ids": [], "top_logprobs": 0},
}
NULL = ("n", "stream", "stream_options", "logprobs", "top_logprobs", "stop", "seed", "temperature",
        "top_p", "sparing", "max_completion_tokens", "user", "store", "metadata", "tools",
        "tool_choice", "response_format", "logit_bias", "frequency_penalty", "presence_penalty",
        "top_k", "enable_thinking", "chat_template_kwargs", "reasoning_effort")  # fmt: skip


@pytest.mark.parametrize("fields", SENT.values(), ids=SENT)
def test_fields_that_change_nothing_are_accepted(server, fields):
    reply = server.ask("POST", CHAT, SHORT | fields)
    assert reply.status == 200, reply.body


@pytest.mark.parametrize("name", NULL)
def test_null_is_absent(server, name):
    assert server.ask("POST", CHAT, SHORT | {name: None}).status == 200


def test_null_is_absent_in_completions_and_within_fields(server):
    fields = ("n", "stream", "logprobs", "echo", "best_of", "suffix", "stop", "seed", "user")
    assert server.ask("POST", TEXT, PROMPT | dict.fromkeys(fields)).status == 200
    streams = {"stream": True, "stream_options": {"include_usage": None}}
    assert server.ask("POST", CHAT, SHORT | streams).status == 200
    memory = {"budget": None, "policy": None, "local": None, "kv": None}
    sampling = {"stop": None, "ignore_eos": None, "top_k": None}
    inner = {"memory": memory, "depth": {"draft": None}, "latent": None, "sampling": sampling}
    sparing = inner | {"no_think": None, "thought_logprobs": None, "template_options": None}
    assert server.ask("POST", CHAT, SHORT | {"sparing": sparing}).status == 200
    reply = server.ask("POST", CHAT, SHORT | {"model": None})
    assert reply.json["error"]["message"] == "model must be given"


@pytest.mark.parametrize(("seed", "known"), [(-1, 2**63 - 1), (2**64 - 1, 2**63 - 1),
                                             (-(2**63), 0), (2**63, 0), (7, 7)])  # fmt: skip
def test_a_seed_is_any_64_bit_integer(server, seed, known):
    body = SHORT | {"seed": seed, "temperature": 1}
    found = server.ask("POST", CHAT, body).json["choices"][0]
    again = server.ask("POST", CHAT, body | {"seed": found["sparing"]["seed"]}).json["choices"][0]
    assert found["sparing"]["seed"] == known
    assert again["message"] == found["message"]


MOVED = {
    "top_k": ({"top_k": 3}, {"top_k": 3}),
    "no top_k": ({"top_k": -1}, {"top_k": 2**31 - 1}),
    "repetition": ({"repetition_penalty": 1.3}, {"repetition_penalty": 1.3}),
    "budget": ({"thinking_token_budget": 20}, {"think_budget": 20}),
    "endless": ({"ignore_eos": True}, {"ignore_eos": True}),
    "ends": ({"stop_token_ids": [17]}, {"stop_token_ids": [17]}),
}


@pytest.mark.parametrize(("fields", "sampling"), MOVED.values(), ids=MOVED)
def test_other_names_mean_the_same(server, pocket, fields, sampling):
    common = {"temperature": 0.9, "seed": 4}
    asked = ASKED | common | {"max_tokens": 60}
    [expected] = pocket.generate(
        [ASKED["messages"]], sampling=Sampling(**common, max_new_tokens=60, **sampling)
    )
    message = server.ask("POST", CHAT, asked | fields).json["choices"][0]["message"]
    assert message["reasoning_content"] == expected.thinking
    assert message["content"] == expected.answer


NO_THOUGHT = {
    "kwargs": {"chat_template_kwargs": {"enable_thinking": False}},
    "top": {"enable_thinking": False},
    "effort": {"reasoning_effort": "none"},
    "ours": {"sparing": {"no_think": True}},
    "ours too": {"sparing": {"template_options": {"enable_thinking": False}}},
    "twice": {"enable_thinking": False, "chat_template_kwargs": {"enable_thinking": False}},
}


@pytest.mark.parametrize("fields", NO_THOUGHT.values(), ids=NO_THOUGHT)
def test_the_thought_can_be_left_out_under_every_name(server, fields):
    reply = server.ask("POST", CHAT, ASKED | fields)
    [choice] = reply.json["choices"]
    assert choice["message"]["reasoning_content"] is None
    assert choice["message"]["content"]
    assert reply.json["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0


def test_a_thought_that_cannot_be_left_out_is_refused_but_none_is_left_out_already(tmp_path):
    thinks = saying(tmp_path / "thinks", ["Ġ", "<think>", "h", "</think>", "so"])
    plain = saying(tmp_path / "plain", ["Ġ", "so"], markers=None)
    for model, status in ((thinks, 400), (plain, 200)):
        with live(model) as server:
            asked = {"model": server.service.model, "messages": ASKED["messages"]}
            for fields in NO_THOUGHT.values():
                reply = server.ask("POST", CHAT, asked | fields)
                assert reply.status == status
                if status == 400:
                    assert reply.json["error"]["code"] == "unsupported_parameter"
            usage = server.ask("POST", CHAT, asked).json["usage"]
            thought = usage["completion_tokens_details"]["reasoning_tokens"]
            assert (thought > 0) == (model is thinks)


def test_a_reply_can_be_sent_back_as_the_client_dumps_it(server):
    first = server.client().chat.completions.create(**ASKED).choices[0].message
    extra = {
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": [],
        "name": "pocket",
        "id": "msg_1",
        "cache_control": {"type": "ephemeral"},
        "type": "message",
    }
    user = {"role": "user", "content": "What is 1 + 2 - 1?"}
    parts = [{"type": "text", "text": user["content"], "cache_control": {"type": "ephemeral"}}]
    plain = {"role": "assistant", "content": first.content}
    expected = replies(server, [plain, user])
    assert replies(server, [first.model_dump(), user]) == expected
    assert replies(server, [first.model_dump() | extra, user | {"content": parts}]) == expected
    assert replies(server, [{"role": "assistant", "content": None}, user]) == replies(
        server, [{"role": "assistant", "content": ""}, user]
    )


def replies(server, more):
    reply = server.ask("POST", CHAT, SHORT | {"messages": [*SHORT["messages"], *more]})
    assert reply.status == 200, reply.body
    return reply.json["choices"][0]["message"], reply.json["usage"]


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_goes_to_the_template_under_both_names(name):
    turns = [{"role": role, "content": "b", name: "thought"} for role in ("assistant", "user")]
    [prompt] = ChatRequest(model="m", messages=turns).prompts()
    assert prompt[0] == {"role": "assistant", "content": "b", "reasoning_content": "thought"}
    assert prompt[1] == {"role": "user", "content": "b"}


def test_a_delta_holds_a_thought_or_an_answer_and_null_for_the_other(server):
    chunks = server.client().chat.completions.create(**ASKED, stream=True)
    deltas = [choice.delta.model_dump() for choice in Streamed(list(chunks)).choices]
    assert deltas[0]["role"] == "assistant"
    for delta in deltas:
        assert delta["reasoning"] == delta["reasoning_content"]
        assert None in (delta["content"], delta["reasoning_content"])
    assert deltas[0]["content"] is deltas[0]["reasoning_content"] is None
    assert deltas[-1]["content"] is deltas[-1]["reasoning_content"] is None
    content = thought = ""
    for delta in deltas:  # as DeepSeek's sample reads them
        if delta["reasoning_content"]:
            thought += delta["reasoning_content"]
        elif delta["content"]:
            content += delta["content"]
    message = server.client().chat.completions.create(**ASKED).choices[0].message
    assert (thought, content) == (message.reasoning_content, message.content)
    assert message.reasoning == message.reasoning_content


def test_reasoning_tokens_are_those_of_the_stats(server):
    reply = server.ask("POST", CHAT, ASKED).json
    stats = reply["choices"][0]["sparing"]["stats"]
    details = reply["usage"]["completion_tokens_details"]
    assert details["reasoning_tokens"] == stats["thinking_tokens"] > 0
    assert 0 < stats["slots_peak"] < reply["usage"]["total_tokens"]

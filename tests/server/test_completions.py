"""/v1/completions through the official client: prompts as they stand, all text as it is said."""

import openai
import pytest

from sparing.options import Sampling
from tests.server.wire import QUESTION, Streamed

PROMPT = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
OTHER = "<|im_start|>user\nWhat is 12 - 7?<|im_end|>\n<|im_start|>assistant\n"


def ask(server, prompt, **more):
    return server.client().completions.create(model="pocket", prompt=prompt, **more)


def alone(pocket, prompt, **sampling):
    [result] = pocket.generate([prompt], sampling=Sampling(**sampling))
    return result


def test_all_text_with_the_thought_in_it_streamed_or_not(server, pocket):
    expected = alone(pocket, PROMPT, temperature=0)
    found = ask(server, PROMPT, temperature=0)
    told = Streamed(list(ask(server, PROMPT, temperature=0, stream=True)))
    assert found.choices[0].text == expected.text
    assert "<think>" in expected.text
    assert told.texts == [expected.text]
    assert told.reasons == [found.choices[0].finish_reason] == ["stop"]
    assert found.object == told.chunks[0].object == "text_completion"


def test_prompts_of_every_kind_say_the_same(server, pocket):
    ids = pocket.chat.encode(PROMPT).ids
    expected = alone(pocket, PROMPT, temperature=0, max_new_tokens=20).text
    for prompt in (PROMPT, [PROMPT], ids, [ids]):
        found = ask(server, prompt, temperature=0, max_tokens=20)
        assert [choice.text for choice in found.choices] == [expected]
        assert found.usage.prompt_tokens == len(ids)


def test_several_prompts_with_several_choices_each_in_order(server, pocket):
    options = {"temperature": 2.0, "seed": 5}
    found = ask(server, [PROMPT, OTHER], n=2, max_tokens=12, **options)
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    expected = [
        alone(pocket, prompt, temperature=2.0, seed=seed, max_new_tokens=12).text
        for prompt in (PROMPT, OTHER)
        for seed in (5, 6)
    ]
    assert [choice.text for choice in found.choices] == expected
    told = Streamed(list(ask(server, [PROMPT, OTHER], n=2, max_tokens=12, stream=True, **options)))
    assert told.texts == expected
    prompts = sum(len(pocket.chat.encode(p).ids) for p in (PROMPT, OTHER))
    assert found.usage.prompt_tokens == prompts
    assert found.usage.completion_tokens == 48


def test_logprobs_as_they_were_then(server, pocket):
    expected = alone(pocket, PROMPT, temperature=0, max_new_tokens=15, logprobs=2)
    found = ask(server, PROMPT, temperature=0, max_tokens=15, logprobs=2).choices[0]
    told = Streamed(list(ask(server, PROMPT, temperature=0, max_tokens=15, logprobs=2,
                             stream=True)))  # fmt: skip
    logprobs = found.logprobs
    values = [e.logprobs.token for e in expected.events if e.type == "token"]
    assert logprobs.token_logprobs == pytest.approx(values, abs=1e-4)
    assert "".join(logprobs.tokens) == found.text
    pairs = zip(logprobs.tokens, logprobs.text_offset, strict=True)
    assert all(found.text[offset:].startswith(token) for token, offset in pairs)
    assert all(len(top) == 2 for top in logprobs.top_logprobs)
    parts = [c.logprobs for c in told.choices if c.logprobs]
    assert [t for part in parts for t in part.tokens] == logprobs.tokens
    assert [o for part in parts for o in part.text_offset] == logprobs.text_offset


def test_what_is_not_supported_is_refused_by_name(server):
    for name, value in {"echo": True, "suffix": "x", "best_of": 2, "presence_penalty": 1}.items():
        with pytest.raises(openai.BadRequestError, match=name):
            ask(server, "hi", **{name: value})


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "a prompt must have a token or more"),
        ([], "prompt"),
        ([[]], "prompt"),
        ([-1], "prompt"),
        ([999_999], "token ids must lie in 0.."),
        (["x"] * 65, "at most 64 items"),
        (["ok", ""], "a prompt must have a token or more"),
        ("7" * 9000, "must be shorter than the context"),
    ],
)
def test_wrong_prompts(server, prompt, message):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(server, prompt)
    assert message in caught.value.message

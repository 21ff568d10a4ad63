"""``Engine.generate`` and ``stream`` as they are called: kinds of prompts, options, wrong types."""

import warnings

import pytest

import sparing
from sparing import Depth, Memory, Sampling
from sparing.errors import OptionError, PromptError
from tests.tiny import tiny, unchecked

FEW = Sampling(max_new_tokens=4, temperature=0, ignore_eos=True)
ASKED = {"role": "user", "content": "hi"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}


@pytest.fixture(scope="module")
def engine():
    return sparing.load(tiny())


def prompts_of(results):
    return [result.prompt_token_ids for result in results]


def test_a_single_prompt_is_a_list_of_one(engine):
    for single in ("hi", [1, 2, 3], [ASKED]):
        assert prompts_of(engine.generate(single, sampling=FEW, raw=True)) == prompts_of(
            engine.generate([single], sampling=FEW, raw=True)
        )
    assert engine.generate([]) == []


def test_a_string_goes_through_the_template_where_that_is_asked(engine):
    asked = prompts_of(engine.generate([[ASKED]], sampling=FEW))
    assert prompts_of(engine.generate(["hi"], sampling=FEW, raw=False)) == asked
    plain = prompts_of(engine.generate(["hi"], sampling=FEW, raw=True))
    assert plain == [engine.chat.tokenizer.encode("hi")] != asked
    stream = engine.stream("hi", sampling=FEW, raw=False)
    list(stream)
    assert stream.result().prompt_token_ids == asked[0]


def test_a_bare_string_for_a_chat_model_is_warned_of(engine):
    for call in (lambda: engine.generate(["hi"], sampling=FEW), lambda: engine.stream("hi")):
        with pytest.warns(UserWarning, match="without the chat template of") as told:
            call()
        assert told[0].filename == __file__
    rendered = engine.chat.tokenizer.apply_chat_template([ASKED], tokenize=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for quiet in (f"{rendered}<|endoftext|>", [ASKED], [1, 2]):
            engine.generate([quiet], sampling=FEW)
        engine.generate(["hi"], sampling=FEW, raw=True)


def test_parts_of_a_message_are_joined(engine):
    assert prompts_of(engine.generate([[PARTS], [ASKED]], sampling=FEW)) == 2 * prompts_of(
        engine.generate([[ASKED]], sampling=FEW)
    )
    nothing, empty = (prompts_of(engine.generate([[ASKED, {"role": "assistant", "content": c}]],
                                                 sampling=FEW)) for c in (None, ""))  # fmt: skip
    assert nothing == empty
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    with pytest.raises(PromptError, match=r"parts must be of text, got .*image_url"):
        engine.generate([[image]])


def test_dicts_stand_for_options(engine):
    [one] = engine.generate(["hi"], None, {"draft": "off"}, None, dict(FEW), raw=True)
    [same] = engine.generate(["hi"], Memory(), Depth(draft="off"), None, FEW, raw=True)
    assert one.token_ids == same.token_ids
    with pytest.raises(OptionError, match="Sampling has no option max_tokens"):
        engine.generate(["hi"], sampling={"max_tokens": 4})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.generate(["hi"], FEW), "memory must be a Memory or a dict, got a Sampling"),
        (lambda e: e.generate(["hi"], depth=Memory()), "depth must be a Depth or a dict"),
        (lambda e: e.generate(["hi"], sampling=3), "sampling must be a Sampling or a dict, got a"),
        (lambda e: e.stream("hi", latent="off"), "latent must be a Latent or a dict, got a str"),
        (lambda e: Memory(5), r"as in Memory\(budget=...\), got 5 without one"),
        (lambda e: Sampling({"seed": 1}), r"as in Sampling\(temperature=...\), got {'seed': 1}"),
    ],
)
def test_wrong_options_are_named(engine, call, message):
    with unchecked(), pytest.raises(OptionError, match=message):
        call(engine)


@pytest.mark.parametrize("prompts", [None, 3, b"hi", {"role": "user"}, {"hi"}])
def test_wrong_prompts_are_named(engine, prompts):
    with unchecked(), pytest.raises(PromptError, match="prompts must be strings, lists of token"):
        engine.generate(prompts)


def test_a_result_shows_what_a_reader_wants(engine):
    [result] = engine.generate([[1, 2, 3]], sampling=FEW)
    assert repr(result).startswith(f"Result(answer={result.answer!r}, finish_reason='length', ")
    assert "of 4 tokens thought" in repr(result)


def test_public_names_alone_are_listed():
    assert "import_module" not in dir(sparing)
    assert {"load", "Memory", "Result"} <= set(dir(sparing))

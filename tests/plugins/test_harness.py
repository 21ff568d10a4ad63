"""What lm-eval asks for, against transformers on small checkpoints, without lm-eval."""

import pytest
import torch

from sparing.errors import OptionError, PromptError
from sparing.evaluate.likelihood import Scored, likelihoods
from sparing.options import Sampling
from sparing.plugins.harness import Harness, ModelArguments
from tests.tiny import reference, tiny

PAIRS = [
    ("Q: 7 + 9?", " 16"),
    ("Q: 7 + 9?", " sixteen"),
    ("", "alone"),
    ("spaces go on  ", "here"),
    ("Q: 7 + 9? and then a longer one", " 1"),
]


@pytest.fixture(scope="module")
def path():
    return tiny("llama", max_position_embeddings=64)


@pytest.fixture(scope="module")
def harness(path):
    given = {"pretrained": str(path), "dtype": "float64", "batch_size": "3"}
    return Harness(ModelArguments.of(given))


def by_transformers(path, ids, count):
    """Log-probability of the last tokens, and whether each is the likeliest."""
    with torch.inference_mode():
        logits = reference(path)(torch.tensor([ids])).logits[0, -count - 1 : -1].log_softmax(-1)
    last = torch.tensor(ids[-count:])
    return float(logits.gather(1, last[:, None]).sum()), bool((logits.argmax(1) == last).all())


def test_loglikelihood_is_that_of_transformers(harness, path):
    found = dict(harness.loglikelihood(PAIRS))
    for index, pair in enumerate(PAIRS):
        ids, count = harness._encode_pair(*pair)
        logprob, greedy = by_transformers(path, ids, count)
        assert found[index][0] == pytest.approx(logprob, rel=1e-6)
        assert found[index][1] == greedy


def test_what_greedy_decoding_says_is_greedy(harness):
    sampling = Sampling(temperature=0, max_new_tokens=6, ignore_eos=True)
    [said] = harness.engine.generate(["Q: 7 + 9?"], sampling=sampling, raw=True)
    ids = (*said.prompt_token_ids, *said.token_ids)
    other = (*ids[:-1], (ids[-1] + 1) % 250)
    found = dict(likelihoods(harness.engine, [Scored(ids, 6), Scored(other, 6)]))
    assert (found[0].greedy, found[1].greedy) == (True, False)
    assert found[0].logprob > found[1].logprob


@pytest.mark.parametrize("length", [0, 1, 40, 64, 65, 150])
def test_rolling_scores_each_token_once(harness, path, length):
    """In windows of the context, each token behind as many as fit."""
    text = "".join(chr(97 + at * 7 % 26) for at in range(length))
    [(_, found)] = harness.rolling([text])
    ids = [harness.prefix_token, *harness._encode(text, special=False)]
    expected = 0.0
    for begin in range(1, len(ids), 64):
        end = min(begin + 64, len(ids))
        expected += by_transformers(path, ids[max(end - 65, 0) : end], end - begin)[0]
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_text_too_long_loses_its_beginning(harness, path):
    context = "a b c d e f g " * 12
    with pytest.warns(UserWarning, match="longer than the model's 64 tokens"):
        [(_, (logprob, _))] = harness.loglikelihood([(context, "xy")])
    ids, count = harness._encode_pair(context, "xy")
    assert logprob == pytest.approx(by_transformers(path, ids[-65:], count)[0], rel=1e-6)


def test_until_ends_an_answer(harness):
    ask = {"max_gen_toks": 12, "ignore_eos": True}
    [(_, whole)] = harness.generate([("so, 7 + 9 is", ask)])
    stop = whole[3:5]
    [(_, found)] = harness.generate([("so, 7 + 9 is", {**ask, "until": [stop, ""]})])
    assert found == whole[: whole.index(stop)]


def test_answers_come_for_every_request(harness):
    asked = [(f"Q{n}", {"max_gen_toks": 1 + n}) for n in range(7)]
    assert sorted(index for index, _ in harness.generate(asked)) == list(range(7))
    assert list(harness.generate([])) == []
    assert list(harness.loglikelihood([])) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "a model argument pretrained must be given"),
        ({"pretrained": "pocket", "bugdet": 3}, "a model argument must be one of .* got bugdet"),
        ({"pretrained": "pocket", "budget": -1}, "budget must be"),
        ({"pretrained": "pocket", "batch_size": 0}, "batch_size must be"),
        ({"pretrained": "pocket", "latent": "learned"}, "latent"),
        ({"pretrained": "/nope"}, "that directory does not exist"),
    ],
)
def test_wrong_model_arguments(given, said):
    with pytest.raises(Exception, match=said):
        ModelArguments.of(given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"foo": 3}, "a generation argument must be one of until"),
        ({"num_beams": 4}, "num_beams must be 1, got 4"),
        ({"top_p": 3, "do_sample": True}, "top_p must be"),
    ],
)
def test_wrong_generation_arguments(harness, given, said):
    with pytest.raises(OptionError, match=said):
        list(harness.generate([("Q", given)]))


def test_scoring_refuses_what_acts_on_the_model_s_own_words():
    harness = Harness(ModelArguments.of({"pretrained": "pocket", "budget": 100}))
    with pytest.raises(OptionError, match="budget must be left out where given text is scored"):
        list(harness.loglikelihood(PAIRS))


def test_a_lone_end_marker_ends_a_thought_too():
    harness = Harness(ModelArguments.of({"pretrained": "pocket"}))
    assert harness._behind_thoughts("so it is</think>\n\n16") == "16"
    assert harness._behind_thoughts(" 16") == " 16"


def test_a_chat_template_is_rendered():
    harness = Harness(ModelArguments.of({"pretrained": "pocket"}))
    turns = [{"role": "user", "content": "What is 382 - 197?"}]
    assert "382 - 197" in harness.render(turns)
    assert harness.think_end_token == harness.engine.chat.markers.end


def test_a_model_without_template_says_so(path, monkeypatch):
    harness = Harness(ModelArguments.of({"pretrained": str(path)}))
    monkeypatch.setattr(harness.tokenizer, "chat_template", None)
    with pytest.raises(PromptError, match="apply_chat_template needs a model with a chat template"):
        harness.render([{"role": "user", "content": "hi"}])

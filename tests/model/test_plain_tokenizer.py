"""Without transformers every token, text and config field is what transformers makes of them."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparing.errors import ModelError
from sparing.files import read_json
from sparing.model.checkpoint import inference_tokenizer, read_tokenizer
from sparing.model.config import from_transformers, plain_config, transformers_config
from sparing.model.plain_tokenizer import PlainTokenizer
from sparing.model.sources import find_model
from tests.tiny import tiny

NAMES = ["pocket", "pocket-latent", "smollm2", "tiny"]
TEXTS = st.text(max_size=40) | st.lists(
    st.sampled_from(["<think>", "</think>", "<|im_start|>", "<|im_end|>", " 12 + 3", "\n", "so"]),
    max_size=8,
).map("".join)
CHATS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXTS}
    ),
    min_size=1,
    max_size=4,
)


@cache
def both(name):
    """Ours, and that of transformers."""
    path = tiny("llama") if name == "tiny" else find_model(name)
    return inference_tokenizer(path), read_tokenizer(path)


@pytest.mark.parametrize("name", NAMES)
def test_they_know_the_same(name):
    ours, theirs = both(name)
    assert isinstance(ours, PlainTokenizer)
    assert ours.get_vocab() == theirs.get_vocab()
    for field in ("is_fast", "bos_token", "eos_token_id", "chat_template"):
        assert getattr(ours, field) == getattr(theirs, field), field
    assert len(ours) == len(theirs)


@pytest.mark.parametrize("name", NAMES)
@given(text=TEXTS, special=st.booleans())
def test_texts_and_tokens(name, text, special):
    ours, theirs = both(name)
    ids = ours.encode(text, add_special_tokens=special)
    assert ids == theirs.encode(text, add_special_tokens=special)
    for skip in (False, True):
        decoded = ours.decode(ids, skip_special_tokens=skip)
        assert decoded == theirs.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("name", NAMES)
@given(chat=CHATS, prompt=st.booleans(), options=st.sampled_from([{}, {"enable_thinking": False}]))
def test_chats(name, chat, prompt, options):
    ours, theirs = both(name)
    how = {"tokenize": False, "add_generation_prompt": prompt, **options}
    assert ours.apply_chat_template(chat, **how) == theirs.apply_chat_template(chat, **how)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "4", "reasoning_content": "2 + 2"},
        {"role": "user", "content": None},
        {"role": "user", "content": ["a", "b"]},
    ],
)
def test_other_messages_go_to_transformers(message):
    ours, theirs = both("tiny")
    chat = [{"role": "user", "content": "2 and 2?"}, message]
    rendered = ours.apply_chat_template(chat, tokenize=False)
    assert rendered == theirs.apply_chat_template(chat, tokenize=False)


def test_what_inference_does_not_need_is_transformers_own():
    ours, theirs = both("pocket")
    assert ours.convert_ids_to_tokens([3, 40]) == theirs.convert_ids_to_tokens([3, 40])
    assert ours.all_special_ids == theirs.all_special_ids


def changed(tmp_path, name, **fields):
    """A tiny model with other fields in one of its JSON files."""
    path = shutil.copytree(tiny("llama"), tmp_path / "model")
    content = json.loads((path / name).read_text()) | fields
    (path / name).write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    "fields",
    [
        {"add_bos_token": True, "bos_token": "<|endoftext|>"},
        {"tokenizer_class": "LlamaTokenizer"},
        {"clean_up_tokenization_spaces": True},
        {"pad_token": "<pad>"},
    ],
    ids=str,
)
def test_fields_that_change_tokens_are_left_to_transformers(tmp_path, fields):
    path = changed(tmp_path, "tokenizer_config.json", **fields)
    assert not isinstance(inference_tokenizer(path), PlainTokenizer)


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "mistral"])
def test_other_families_are_left_to_transformers(family):
    assert not isinstance(inference_tokenizer(tiny(family)), PlainTokenizer)


def test_a_broken_file_is_refused_as_ever(tmp_path):
    path = shutil.copytree(tiny("llama"), tmp_path / "model")
    (path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="must hold a"):
        inference_tokenizer(path)


@pytest.mark.parametrize("name", ["pocket", "pocket-cot", "tiny"])
def test_a_config_is_the_same_without_transformers(name):
    path = tiny("llama") if name == "tiny" else find_model(name)
    plain = plain_config(read_json(path / "config.json"))
    assert plain is not None
    ours, theirs = (asdict(from_transformers(c)) for c in (plain, transformers_config(path)))
    assert torch.equal(ours.pop("inverse_frequencies"), theirs.pop("inverse_frequencies"))
    assert ours == theirs


@pytest.mark.parametrize(
    "fields",
    [
        {"head_dim": None},
        {"hidden_size": "48"},
        {"num_attention_heads": 5},
        {"tie_word_embeddings": None},
        {"logit_scale": 0.1},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
        {"rope_theta": 5e5},
    ],
    ids=str,
)
def test_a_config_that_says_less_or_more_is_left_to_transformers(fields):
    assert plain_config(read_json(tiny("llama") / "config.json") | fields) is None


@pytest.mark.parametrize("name", ["pocket", "smollm2"])
def test_an_answer_needs_no_transformers(name):
    script = f"""
import sys
from sparing import Sampling, load
engine = load({name!r})
sampling = Sampling(max_new_tokens=4)
print(len(engine.generate([engine.chat.question("2 + 2?")], sampling=sampling)[0].token_ids))
assert "transformers" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr

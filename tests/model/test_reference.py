"""The ReferenceDecoder behind the Decoder's protocol, and the architectures that need it."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import sparing
from sparing.errors import ModelError
from sparing.model.layer_set import LayerSet
from sparing.model.reference import ReferenceDecoder
from sparing.options import Sampling
from tests.model.passes import Slots, assert_close, decoder, exact_norms, new, random_ids
from tests.tiny import checkpoint, reference, reference_tokens, tiny

PATHS = {
    "llama": tiny("llama", attention_bias=True),
    "mistral": tiny("mistral"),
    "qwen2": tiny("qwen2", tie_word_embeddings=True),
    "qwen3": tiny("qwen3"),
}
TREE = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]], dtype=torch.bool)
# what it needs beside tiny.SMALL
OTHERS = {
    "olmo2": {"pad_token_id": 0},
    "starcoder2": {"sliding_window": None},
    "phi": {"partial_rotary_factor": 0.5},
    "granite": {"attention_multiplier": 0.3},
    "gpt_neox": {"num_key_value_heads": 6},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_same_outputs_and_same_cache_as_the_decoder(path):
    fast, slow = decoder(path), ReferenceDecoder.load(path, torch.float64)
    exact_norms(slow.model)
    assert (slow.dtype, slow.device) == (fast.dtype, fast.device)

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
        ours, theirs = fast(inputs, slots, layer=layer), slow(inputs, other, layer=layer)
        assert_close(ours.hidden, theirs.hidden, 1e-9)
        assert_close(ours.logits, theirs.logits, 1e-9)
        assert_close(ours.layer_hidden, theirs.layer_hidden, 1e-9)
        for mine, yours in zip(slots.kv, other.kv, strict=True):
            assert_close(mine, yours, 1e-9)

    check()


@pytest.mark.parametrize("last", [1, 3])
def test_same_attention_as_the_decoder(last):
    fast = decoder(PATHS["qwen3"], "float32")
    slow = ReferenceDecoder.load(PATHS["qwen3"])
    slots = Slots(fast, 2)
    fast([new([4, 5, 6], row=1)], slots)
    tree = new(random_ids(4), 3, 1, ancestors=TREE, attended=last)
    inputs = [tree, new(random_ids(20), row=0, attended=last)]
    ours = fast(inputs, slots).attention
    theirs = slow(inputs, slots).attention
    for mine, yours in zip(ours, theirs, strict=True):
        assert_close(mine, yours, 1e-5)


def test_it_runs_no_part_of_a_model():
    slow = ReferenceDecoder.load(PATHS["llama"])
    slow([new([1])], Slots(slow), LayerSet.full(3))
    with pytest.raises(ValueError, match="runs every sub-layer; pass layer_set=None"):
        slow([new([1])], Slots(slow), LayerSet.skipping(3, {1}, set()))


def test_both_decoders_say_the_same():
    """Greedy, through the engine, with drafts."""
    path, sampling = PATHS["qwen3"], Sampling(max_new_tokens=24, ignore_eos=True)
    prompts = ["A", "the the the the", "Some longer words before it."]
    fast = sparing.load(str(path), dtype="float64")
    slow = sparing.load(str(path), dtype="float64", decoder="hub")
    for mine, yours in zip(
        fast.generate(prompts, sampling=sampling),
        slow.generate(prompts, sampling=sampling),
        strict=True,
    ):
        assert mine.token_ids == yours.token_ids


@pytest.mark.parametrize("family", OTHERS)
def test_another_architecture_through_transformers(family):
    path = tiny(family, **OTHERS[family])
    with pytest.raises(ModelError, match="decoder='hub'"):
        sparing.load(str(path))
    dtype = "float32" if "moe" in family else "float64"  # its experts refuse float64
    engine = sparing.load(str(path), dtype=dtype, decoder="hub")
    prompts = ["Hello, you", "B"]
    results = engine.generate(prompts, sampling=Sampling(max_new_tokens=20, ignore_eos=True))
    for result in results:
        truth = reference_tokens(reference(path, dtype), result.prompt_token_ids, 20)
        assert result.token_ids == truth


@pytest.mark.parametrize("family", ["starcoder2", "phi3", "mixtral", "mistral"])
def test_a_window_in_use_is_refused(tmp_path, family):
    """Our mask says what is seen, so transformers would not apply the window."""
    options = {"pad_token_id": 0, "num_local_experts": 2} if family != "mistral" else {}
    path = checkpoint(tmp_path, family, sliding_window=16, **options)
    with pytest.raises(ModelError, match="sliding_window"):
        sparing.load(str(path), decoder="hub")
    settings = json.loads((path / "config.json").read_text()) | {"sliding_window": 2048}
    (path / "config.json").write_text(json.dumps(settings))
    sparing.load(str(path), decoder="hub")


# No key and value a head and slot: a state space, a latent that all heads share; or no SDPA.
@pytest.mark.parametrize("family", ["mamba", "deepseek_v3", "bloom", "rwkv"])
def test_architectures_that_do_not_fit_are_refused(tmp_path, family):
    _refused(checkpoint(tmp_path, family, pad_token_id=0))


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
    assert str(path) in message
    return message

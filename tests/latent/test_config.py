"""What inference needs is saved beside the weights, and belongs to them alone."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from sparing.api import load
from sparing.errors import ModelError, OptionError
from sparing.kernels.native import announce
from sparing.latent.config import load_latents
from sparing.latent.files import check_latent, has_latents
from sparing.latent.token import add_token
from sparing.options import Latent
from tests.latent.thinking import thinking
from tests.tiny import checkpoint, tiny


@pytest.fixture
def copied(tmp_path):
    def copy(**changed):
        out = tmp_path / "model"
        shutil.copytree(thinking(**changed), out)
        return out

    return copy


def tokenizer_of(path):
    return AutoTokenizer.from_pretrained(path)


@pytest.mark.parametrize("changed", [{"adapter": 5}, {"vector": "pause"}, {"alpha": 0.25}])
def test_saved_and_loaded(changed):
    path = thinking(**changed)
    config, vector = load_latents(path, tokenizer_of(path), torch.float64)
    for name, value in changed.items():
        assert getattr(config, name) == value
    assert (config.token, config.switch, config.in_a_row) == ("<thinking>", "learned", 2)
    learned = vector.state_dict()
    assert bool(learned) == (config.weights is not None) == (path / "latent.safetensors").exists()
    assert all(t.dtype == torch.float64 and not t.requires_grad for t in learned.values())
    saved = load_file(path / "latent.safetensors") if learned else {}
    assert saved.keys() == learned.keys()
    assert all(torch.equal(learned[name], value.double()) for name, value in saved.items())
    assert load_latents(tiny(), tokenizer_of(tiny())) is None


def refused(path):
    with pytest.raises(ModelError) as error:
        load_latents(path, tokenizer_of(path), torch.float64)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_does_not_fit_is_left_out_with_a_warning(copied, capsys):
    """Asked for, it is an error."""
    path = copied()
    content = json.loads((path / "latent.json").read_text())
    (path / "latent.json").write_text(json.dumps(content | {"fingerprint": "another"}))
    announce.cache_clear()
    capsys.readouterr()
    engine = load(path)
    assert engine.latents is None
    said = capsys.readouterr().err
    assert said.startswith(f"sparing: going on without: {path / 'latent.json'} must belong to this")
    assert said.count("\n") == 1
    with pytest.raises(OptionError, match="latent learned needs a model with learned latent"):
        engine.generate(["Q"], latent=Latent(mode="learned"))


def test_another_model_s_config_is_refused_naming_both(copied):
    path = copied()
    other = load_file(path / "model.safetensors")
    other["model.norm.weight"] = other["model.norm.weight"] + 1
    save_file(other, path / "model.safetensors", {"format": "pt"})
    config = json.loads((path / "latent.json").read_text())
    said = refused(path)
    assert "must belong to this model, " in said
    assert f", got one of {config['fingerprint']}; " in said
    (path / "latent.json").unlink()
    assert load(str(path)).latents is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"alpha": 2.0}, "alpha must be less than or equal to 1, got 2"),
        ({"layer": 9}, "layer 9 of 3"),
        ({"token": "</think>"}, "must name a token"),
        ({"id": 3}, "must name a token"),
        ({"vectors": "fused"}, "has no option vectors"),
    ],
)
def test_broken_configs_are_refused(copied, changed, said):
    path = copied()
    content = json.loads((path / "latent.json").read_text())
    (path / "latent.json").write_text(json.dumps(content | changed))
    assert said in refused(path)


def test_broken_vectors_are_refused(copied):
    path = copied(adapter=5)
    whole = (path / "latent.safetensors").read_bytes()
    for content in (whole[:-3], b"", whole.replace(whole[-4:], b"abcd")):
        (path / "latent.safetensors").write_bytes(content)
        assert "latent.safetensors must hold the weights of the latent.json" in refused(path)
    (path / "latent.safetensors").unlink()
    assert "latent.safetensors must hold the weights of the latent.json" in refused(path)


def test_asked_of_a_model_without_before_weights_load(tmp_path):
    path = checkpoint(tmp_path / "plain")
    (path / "model.safetensors").write_bytes(b"not read")
    assert not has_latents(path)
    check_latent(str(path), Latent())
    with pytest.raises(OptionError, match="`sparing train latent`"):
        check_latent(str(path), Latent(mode="learned"))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("spare", [0, 1, 7])
def test_a_token_more(tmp_path, tied, spare):
    """Rows that pad the tables are taken before the tables grow; nothing else changes."""
    path = checkpoint(tmp_path / "base", tie_word_embeddings=tied, vocab_size=259 + spare)
    model = AutoModelForCausalLM.from_pretrained(path)
    tokenizer = tokenizer_of(path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert add_token(model, tokenizer, "<thinking>") == 259
    assert tokenizer("a<thinking>b").input_ids[1] == 259
    assert tokenizer.decode([259], skip_special_tokens=True) == ""
    assert model.config.vocab_size == 259 + max(spare, 1)
    tables = (model.get_input_embeddings(), model.get_output_embeddings())
    assert (tables[0].weight is tables[1].weight) == tied
    for name, old in before.items():
        new = model.state_dict()[name]
        if new.shape == old.shape and "embed" not in name and "lm_head" not in name:
            assert torch.equal(new, old)
        else:
            assert torch.equal(new[:259], old[:259])
            assert torch.allclose(new[259], old[:259].mean(0), atol=1e-6)
            assert torch.equal(new[260:], old[260:])
    model.save_pretrained(tmp_path / "out")
    tokenizer.save_pretrained(tmp_path / "out")
    assert load(str(tmp_path / "out")).decoder.shape.vocabulary == 259 + max(spare, 1)


def test_a_base_that_has_the_token_is_refused():
    path = thinking()
    model = AutoModelForCausalLM.from_pretrained(path)
    with pytest.raises(ModelError, match="pass another --token"):
        add_token(model, tokenizer_of(path), "<thinking>")

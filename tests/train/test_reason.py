"""Stage 1 from a base to a directory that loads: what is refused, what is exported."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from sparing.errors import ModelError, OptionError
from sparing.model.markers import known_markers
from sparing.train import checkpoint
from sparing.train.examples import Corpus, ExampleSet
from sparing.train.loop import Pace
from sparing.train.reason import LORA_TARGETS, check_out, load_base, train_reason, with_lora
from tests.tiny import checkpoint as write_checkpoint
from tests.tiny import tokenizer
from tests.train.small import (
    STEPS,
    VOCABULARY,
    assert_identical,
    forget_accelerate,
    small_corpus,
    small_model,
    small_rows,
    small_settings,
    weights,
)

OFTEN = Pace(save_every=3, validate_every=100)
LORA = {"lora_rank": 2, "lr": 1e-2}


def run(out, *, resume=False, stop_at=0, corpus=None, model=None, **changed):
    """A run from the same base each time, in a process that has seen none."""
    forget_accelerate()
    pace = Pace(OFTEN.save_every, OFTEN.validate_every, stop_at)
    return train_reason(
        model or small_model(), tokenizer(), corpus or small_corpus(), small_settings(**changed),
        out, resume=resume, pace=pace,
    )  # fmt: skip


def refused(out, **options):
    with pytest.raises(OptionError) as error:
        run(out, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def exported(out):
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize("changed", [{}, LORA], ids=["all weights", "lora"])
def test_stopped_and_resumed_exports_the_same(tmp_path, changed):
    assert run(tmp_path / "unbroken", **changed)
    assert not run(tmp_path / "out", stop_at=5, **changed)
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert run(tmp_path / "out", resume=True, **changed)
    assert_identical(exported(tmp_path / "out"), exported(tmp_path / "unbroken"))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "training.json"} <= names
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in (tmp_path / "out").iterdir())
    assert not [name for name in names if name.startswith("step-") or "partial" in name]


def test_a_finished_run_is_not_run_again(tmp_path):
    """Killed behind its export, it had checkpoints left, or none at all."""
    run(tmp_path / "out")
    expected = exported(tmp_path / "out")
    (tmp_path / "out" / "step-9").mkdir()
    (tmp_path / "out" / "step-12.partial").mkdir()
    (tmp_path / "out" / "export.partial").mkdir()
    other = small_model(hidden_size=32)  # which could not even be restored to
    for _ in range(2):
        assert run(tmp_path / "out", resume=True, model=other)
        assert not [p.name for p in (tmp_path / "out").iterdir() if p.is_dir()]
    assert_identical(exported(tmp_path / "out"), expected)


def test_an_export_that_was_cut_short_is_done_again(tmp_path):
    run(tmp_path / "unbroken")
    run(tmp_path / "out", stop_at=STEPS - 1)
    partial = tmp_path / "out" / "export.partial"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half a mod")
    shutil.copy(tmp_path / "unbroken" / "config.json", tmp_path / "out")
    assert run(tmp_path / "out", resume=True)
    assert not partial.exists()
    assert_identical(exported(tmp_path / "out"), exported(tmp_path / "unbroken"))


def test_settings_are_kept_beside_the_weights(tmp_path):
    run(tmp_path, seed=7)
    kept = json.loads((tmp_path / "training.json").read_text())
    settings = small_settings(seed=7).model_dump(mode="json")
    assert kept == settings | {"examples": small_corpus().examples.fingerprint()}


def test_a_directory_with_a_run_is_refused_without_resume(tmp_path):
    run(tmp_path / "out", stop_at=3)
    for _ in ("begun", "done"):
        assert "pass --resume" in refused(tmp_path / "out")
        run(tmp_path / "out", resume=True)


DIFFERENT = {
    "seed": 1,
    "steps": STEPS + 1,
    "batch_tokens": 91,
    "optimizer": "muon",
    "lr": 1e-5,
    "weight_decay": 0.5,
    "warmup": 5,
    "precision": "bfloat16",
    "layer_dropout": 0.2,
    "exits": (0.5,),
    "lora_rank": 2,
    "base": "elsewhere",
    "task": "another.jsonl",
}


def test_a_resumed_run_must_keep_its_settings(tmp_path):
    run(tmp_path, stop_at=3)
    for name, value in DIFFERENT.items():
        said = refused(tmp_path, resume=True, **{name: value})
        assert f"begun with {name} " in said
        assert "repeat that setting" in said
    assert checkpoint.steps(tmp_path) == [3]
    assert run(tmp_path, resume=True)


def test_a_resumed_run_must_keep_its_examples(tmp_path):
    run(tmp_path, stop_at=3)
    other = Corpus(ExampleSet(small_rows(30, seed=5)), small_corpus().validation)
    assert "begun with examples " in refused(tmp_path, resume=True, corpus=other)


def test_a_directory_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "file").touch()
    assert "--out must be a directory" in refused(tmp_path / "file")
    run(tmp_path / "out", stop_at=3)
    (tmp_path / "out" / "training.json").unlink()
    base = write_checkpoint(tmp_path / "base")
    for resume in (False, True):
        assert "no training.json" in refused(tmp_path / "out", resume=resume)
        assert "--out must be new" in refused(base, resume=resume)
    check_out(tmp_path / "new" / "er", small_settings(), resume=True)


def test_unreadable_settings(tmp_path):
    run(tmp_path, stop_at=3)
    (tmp_path / "training.json").write_text("{")
    with pytest.raises(ModelError, match=r"training\.json must be JSON"):
        run(tmp_path, resume=True)


def test_lora_trains_adapters_alone_and_exports_one_model(tmp_path):
    model = with_lora(small_model(), 2, seed=0)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert len(trained) == 2 * 2 * len(LORA_TARGETS)
    assert all("lora_" in name for name in trained)
    before = weights(small_model(tie_word_embeddings=False))
    run(tmp_path, model=small_model(tie_word_embeddings=False), **LORA)
    after = exported(tmp_path)
    assert after.keys() == before.keys()
    for name, value in after.items():
        assert torch.equal(value, before[name]) != any(t in name for t in LORA_TARGETS), name
    names = [path.name for path in tmp_path.iterdir()]
    assert not [name for name in names if "adapter" in name]
    assert "peft" not in (tmp_path / "config.json").read_text()


def test_merged_weights_say_what_the_adapted_model_said(tmp_path):
    """The last validation, and the same figures from the exported model."""
    from sparing.train.loop import Trainer
    from sparing.train.reason import export, merged

    adapted = with_lora(small_model(), 2, seed=0)
    Trainer(adapted, small_corpus(), small_settings(**LORA), tmp_path).run(OFTEN)
    ids = torch.arange(VOCABULARY)[None]
    expected = adapted(ids).logits
    assert not torch.allclose(small_model()(ids).logits, expected, atol=1e-2)
    export(merged(adapted), tokenizer(), tmp_path)
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    torch.testing.assert_close(loaded(ids).logits, expected, atol=1e-4, rtol=1e-4)


def test_adapters_begin_by_the_seed_and_change_nothing_yet():
    ids = torch.arange(VOCABULARY)[None]
    first, again, other = (with_lora(small_model(), 2, seed) for seed in (1, 1, 2))
    assert_identical(weights(first), weights(again))
    assert any(not torch.equal(a, weights(other)[n]) for n, a in weights(first).items())
    assert torch.equal(first(ids).logits, small_model()(ids).logits)
    plain = small_model()
    assert with_lora(plain, 0, seed=1) is plain


def test_no_trace_of_the_training_attention_is_exported(tmp_path):
    run(tmp_path)
    assert "sparing" not in (tmp_path / "config.json").read_text()


def unusable(base):
    with pytest.raises(ModelError) as error:
        load_base(str(base))
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2
    return str(error.value)


def edited(base, **fields):
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | fields))


def test_a_base_that_is_not_there(tmp_path):
    assert "that directory does not exist" in unusable(tmp_path / "none")
    assert "no config.json" in unusable(tmp_path)


def test_a_foreign_architecture_is_named(tmp_path):
    config = GPT2Config(vocab_size=259, n_embd=8, n_layer=1, n_head=1, n_positions=16)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    said = unusable(tmp_path)
    assert "config field model_type must be one of llama" in said
    assert "got 'gpt2'; choose another base" in said


def test_attention_that_training_does_not_do_is_named(tmp_path):
    base = write_checkpoint(tmp_path, "mistral", sliding_window=8)
    assert "config field sliding_window must be null or unused, got 8" in unusable(base)


def test_a_truncated_checkpoint(tmp_path):
    base = write_checkpoint(tmp_path)
    whole = (base / "model.safetensors").read_bytes()
    for length in (0, 5, len(whole) // 2):
        (base / "model.safetensors").write_bytes(whole[:length])
        assert f"{base} must be a readable checkpoint, got: " in unusable(base)


def test_weights_that_are_missing_are_not_made_up(tmp_path):
    base = write_checkpoint(tmp_path)
    held = exported(base)
    del held["model.layers.1.mlp.up_proj.weight"]
    save_file(held, base / "model.safetensors", {"format": "pt"})
    said = unusable(base)
    assert "must hold all of its weights, got none for model.layers.1.mlp.up_proj.weight" in said


def test_weights_of_another_shape(tmp_path):
    base = write_checkpoint(tmp_path)
    edited(base, intermediate_size=80)
    assert "must be a readable checkpoint" in unusable(base)


def test_a_config_that_is_no_json(tmp_path):
    base = write_checkpoint(tmp_path)
    (base / "config.json").write_text("{")
    assert "config.json must be JSON" in unusable(base)


def test_a_tokenizer_larger_than_the_vocabulary(tmp_path):
    base = write_checkpoint(tmp_path)
    fast = tokenizer()
    fast.add_tokens([AddedToken("one"), AddedToken("more")])
    fast.save_pretrained(base)
    said = unusable(base)
    assert "vocab_size 259" in said
    assert "a tokenizer of 261 tokens" in said


@pytest.mark.parametrize(
    ("field", "said"), [("chat_template", "chat template"), ("eos_token", "end token, got none")]
)
def test_a_tokenizer_without_what_training_needs(tmp_path, field, said):
    base = write_checkpoint(tmp_path)
    fast = tokenizer()
    setattr(fast, field, None)
    (base / "chat_template.jinja").unlink()
    fast.save_pretrained(base)
    assert said in unusable(base)


@pytest.mark.parametrize("tied", [True, False])
def test_a_good_base_is_loaded_in_float32(tmp_path, tied):
    base = write_checkpoint(tmp_path, tie_word_embeddings=tied)
    expected = AutoModelForCausalLM.from_pretrained(base)
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    model, fast = load_base(str(base))
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert fast.eos_token_id == tokenizer().eos_token_id
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=0.02, rtol=0.01)


@pytest.mark.parametrize("markers", ["single", "several", None])
def test_a_base_that_never_thought_is_told_how_thoughts_are_marked(tmp_path, markers):
    """And no other: what is saved of it is read by everybody."""
    base = write_checkpoint(tmp_path, markers=markers)
    _, fast = load_base(str(base))
    assert known_markers(fast) is not None
    assert (fast.chat_template == tokenizer(markers).chat_template) == (markers is not None)


def test_examples_longer_than_the_base_reaches(tmp_path):
    model = small_model()
    model.config.max_position_embeddings = 5
    said = refused(tmp_path / "out", model=model)
    assert "max_position_embeddings of the base (5 tokens)" in said
    assert not (tmp_path / "out").exists()

"""`sparing run`: the answer, its JSON, and every wrong input in one line."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparing.engine.events import Stats
from tests.cli.command import ctrl_c_before
from tests.tiny import checkpoint, tiny

GREEDY = ("--temperature", 0, "--ignore-eos")


def test_json_is_what_python_says(sparing):
    outcome = sparing("run", "hi there", "--model", tiny(), "--json", "--events", "--raw",
                      "--max-new-tokens", 60, "--budget", 30, "--local", 5, *GREEDY)  # fmt: skip
    assert outcome.code == 0
    found = json.loads(outcome.out)
    assert found["finish_reason"] == "length"
    assert len(found["token_ids"]) == found["stats"]["new_tokens"] == 60
    assert set(found["stats"]) == set(Stats().to_dict())
    assert found["prompt_token_ids"] == list(found["prompt_token_ids"])
    kinds = [event["type"] for event in found["events"]]
    assert kinds.count("token") == 60
    assert kinds.count("evict") == found["stats"]["evictions"] > 0
    assert kinds[-1] == "done"
    assert "".join(e.get("text", "") for e in found["events"]) == found["text"]


def test_text_goes_to_stdout_and_the_summary_to_stderr(sparing):
    options = ("--model", tiny(), "--raw", "--max-new-tokens", 20, *GREEDY)
    text = json.loads(sparing("run", "hi", *options, "--json").out)["text"]
    outcome = sparing("run", "hi", *options)
    assert outcome.code == 0
    assert outcome.out == text + "\n"
    assert "20 tokens in" in outcome.err
    assert "ended by length" in outcome.err


def test_a_cut_answer_is_said(sparing, tmp_path):
    options = ("--raw", "--model", tiny(markers=None), "--max-new-tokens", 9, *GREEDY)
    for more in ((), ("--json",)):
        said = sparing("run", "hi", *options, *more).err
        assert "note: the answer was cut: it reached --max-new-tokens (9); raise that" in said
    short = checkpoint(tmp_path, "llama", markers=None, max_position_embeddings=40)
    said = sparing("run", "hi", "--raw", "--model", short, *GREEDY).err
    assert "note: the answer was cut: the model's context is full" in said


def test_a_cut_thought_is_said(sparing):
    outcome = sparing("run", "<think>", "--raw", "--model", tiny(), "--max-new-tokens", 3, *GREEDY)
    assert "note: the thought was cut, there is no answer: it reached --max-new" in outcome.err


def test_a_budget_that_was_never_reached_is_said(sparing):
    options = ("--raw", "--model", tiny(), "--max-new-tokens", 9, *GREEDY)
    assert "10 slots at most (full) · ended" in sparing("run", "hi", *options).err
    summary = sparing("run", "hi", *options, "--budget", 99).err
    assert "of 99 slots at most (window) · budget never reached, nothing evicted" in summary
    assert "evictions, " in sparing("run", "hi", *options, "--budget", 8, "--local", 2).err


def test_the_template_unless_raw(sparing):
    options = ("--model", tiny(), "--max-new-tokens", 1, "--json")
    chat = json.loads(sparing("run", "hi", *options).out)["prompt_token_ids"]
    raw = json.loads(sparing("run", "hi", "--raw", *options).out)["prompt_token_ids"]
    assert len(chat) > len(raw) == 2


def test_a_seed_draws_the_same(sparing):
    options = ("--model", tiny(), "--json", "--temperature", 1, "--max-new-tokens", 20, "--seed")
    first, again, other = (json.loads(sparing("run", "hi", *options, s).out) for s in (1, 1, 2))
    assert first["token_ids"] == again["token_ids"] != other["token_ids"]


WRONG = {
    "share": (("hi", "--budget", "1.5"), "or a share above 0 and at most 1 (0.25), got 1.5"),
    "exponent": (("hi", "--budget", "1e3"), "'--budget': must be a count in digits (512), or"),
    "one": (("hi", "--budget", "1"), "--budget must hold a prompt, got 1, which is one token"),
    "zero": (("hi", "--budget", "0"), "--budget must be 1 token or more, got 0"),
    "words": (("hi", "--budget", "much"), "must be a count (512) or a share (0.25), got 'much'"),
    "negative": (("hi", "--budget", "-3"), "--budget must be 1 token or more, got -3"),
    "temperature": (("hi", "--temperature", "-1"), "--temperature must be greater than or equal"),
    "nan": (("hi", "--temperature", "nan"), "--temperature must be"),
    "top-p": (("hi", "--top-p", "0"), "--top-p must be greater than 0, got 0.0"),
    "top-k": (("hi", "--top-k", "0"), "--top-k must be greater than or equal to 1, got 0"),
    "min-p": (("hi", "--min-p", "2"), "--min-p must be less than or equal to 1, got 2.0"),
    "penalty": (("hi", "--repetition-penalty", "0"), "--repetition-penalty must be greater than 0"),
    "stop": (("hi", "--stop", ""), "--stop strings must have a character or more"),
    "no tokens": (("hi", "--max-new-tokens", "0"), "--max-new-tokens must be greater than"),
    "policy": (("hi", "--policy", "best"), "--policy must be 'auto', 'full'"),
    "no budget": (("hi", "--policy", "window"), "--policy window needs a budget"),
    "no prompt": (("",), "a prompt must have a token or more, got an empty text"),
    "full": (("hi", "--policy", "full", "--budget", "99"), "--policy full keeps everything"),
    "draft": (("hi", "--draft", "warp"), "--draft must be"),
    "latent": (("hi", "--latent", "often"), "--latent must be 'off', 'learned' or 'confidence'"),
    "events": (("hi", "--events"), "--events belongs to --json"),
    "flag": (("hi", "--buget", "9"), "No such option: --buget"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_option_is_one_line_before_weights_load(sparing, never_read, arguments, message):
    outcome = sparing("run", *arguments, "--model", never_read)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert message in outcome.err


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("hi " * 800, (), "a prompt must be shorter than the context of 2048 tokens, got 2400"),
        ("hi " * 50, ("--budget", 90), "pass a budget of 152 or more"),
        ("hi", ("--budget", 30, "--policy", "learned"), "sparing train predictor"),
        ("hi", ("--dtype", "int3"), "--dtype must be"),
        ("hi", ("--threads", 0), "--threads must be greater than or equal to 1, got 0"),
        ("hi", ("--decoder", "slow"), "--decoder must be 'auto', 'fast' or 'hub', got 'slow'"),
    ],
)
def test_what_this_model_cannot_do(sparing, prompt, options, message):
    outcome = sparing("run", prompt, "--raw", "--model", tiny(), *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert message in outcome.err


def test_the_smallest_budget_named_is_one_that_works(sparing):
    options = ("--raw", "--model", tiny(), "--max-new-tokens", 3, "--json", *GREEDY)
    assert sparing("run", "hi " * 50, "--budget", 152, *options).code == 0
    assert sparing("run", "hi " * 50, "--budget", 151, *options).code == 2


def test_an_unknown_model(sparing):
    outcome = sparing("run", "hi", "--model", "smolm2")
    assert outcome.code == 2
    assert "did you mean smollm2?" in outcome.err


def test_the_trained_context_ends_a_row(sparing, tmp_path):
    path = checkpoint(tmp_path, "llama", max_position_embeddings=40)
    found = sparing("run", "hi there", "--raw", "--model", path, "--json", *GREEDY).out
    found = json.loads(found)
    assert found["finish_reason"] == "context"
    assert len(found["prompt_token_ids"]) + len(found["token_ids"]) == 40


def test_logits_that_turn_bad_name_the_step(sparing, tmp_path):
    path = checkpoint(tmp_path, "llama")
    weights = load_file(path / "model.safetensors")
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], float("nan"))
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    outcome = sparing("run", "hi", "--raw", "--model", path)
    assert outcome.code == 2
    assert "in the step that gives position 2" in outcome.err


def test_ctrl_c_prints_what_there_is(sparing, monkeypatch):
    ctrl_c_before(monkeypatch, 40, streams=2)
    options = ("--raw", "--model", tiny(), "--budget", 32, "--max-new-tokens", 200, *GREEDY)
    text = sparing("run", "hi", *options)
    assert text.code == 130
    assert "ended by interrupted" in text.err
    assert "32 of 32 slots at most (window)" in text.err
    json_ = sparing("run", "hi", *options, "--json", "--events")
    assert json_.code == 130
    found = json.loads(json_.out)
    assert found["finish_reason"] == "interrupted"
    assert found["text"] + "\n" == text.out
    assert found["stats"]["new_tokens"] == len(found["token_ids"]) > 30
    assert found["stats"]["seconds"] > 0
    assert [event["type"] for event in found["events"]].count("done") == 1

"""``custom_generate``: the user's model, processors, criteria and streamer, through our loop."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    StoppingCriteria,
)

from sparing.errors import ModelError, OptionError, PromptTooLong, SparingError
from sparing.hf import generate
from sparing.model.attention import Scores
from tests.families import HUB, eager
from tests.tiny import engine, tiny

IDS = torch.tensor([[0, 0, 5, 6, 7], [1, 2, 3, 4, 5], [0, 9, 10, 11, 12]])
MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1]])
GREEDY = {"do_sample": False, "max_new_tokens": 24, "pad_token_id": 0}
HUB_FOLDER = str(Path(__file__).parents[2] / "hub")


@cache
def model(family="llama"):
    path = tiny(family) if family not in HUB else HUB[family]()
    attention = eager(family) if family in HUB else "sdpa"
    found = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float64, attn_implementation=attention
    )
    if found._can_set_experts_implementation():
        found.set_experts_implementation("eager")
    return found.eval()


class Streamer:
    def __init__(self):
        self.got = []

    def put(self, tokens):
        self.got.append(tokens.tolist())

    def end(self):
        self.got.append("end")


class Odd(LogitsProcessor):
    """Odd rows may not say what they said last; knows the whole batch."""

    def __call__(self, input_ids, scores):
        assert len(input_ids) == len(IDS)
        for row in range(1, len(input_ids), 2):
            scores[row, input_ids[row, -1]] = -torch.inf
        return scores


class Long(StoppingCriteria):
    """Ends each row at a length of its own; knows the whole batch."""

    def __call__(self, input_ids, scores, **_):
        return torch.tensor([input_ids.shape[1] >= 12 + 3 * row for row in range(len(input_ids))])


CALLS = {
    "greedy": {},
    "penalties": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
    "forced": {"min_new_tokens": 9, "eos_token_id": [41, 181, 107], "forced_eos_token_id": 41},
    "a processor of the user's": {"logits_processor": [Odd()], "eos_token_id": None},
    "a criterion of the user's": {"stopping_criteria": [Long()], "eos_token_id": 3},
    "a config": {"generation_config": GenerationConfig(suppress_tokens=[87, 107], eos_token_id=3)},
}


@pytest.mark.parametrize("draft", ["off", "lookup"])
@pytest.mark.parametrize("call", CALLS)
def test_greedy_equals_plain_generate(call, draft):
    """Left-padded rows included."""
    options = GREEDY | CALLS[call]
    if isinstance(options.get("generation_config"), GenerationConfig):
        options["generation_config"] = GenerationConfig(
            **options["generation_config"].to_diff_dict()
        )
    expected = model().generate(IDS, attention_mask=MASK, **options)
    found = model().generate(
        IDS, attention_mask=MASK, custom_generate=generate, draft=draft, **options
    )
    assert torch.equal(found, expected)


@pytest.mark.parametrize("family", ["qwen3", "gemma3", "gpt_oss"])
def test_of_any_architecture(family):
    expected = model(family).generate(IDS, attention_mask=MASK, **GREEDY)
    found = model(family).generate(IDS, attention_mask=MASK, custom_generate=generate, **GREEDY)
    assert torch.equal(found, expected)


def test_the_model_is_as_before():
    """Its attention, its mode, and what it says without us."""
    found = model()
    before = found.generate(IDS, attention_mask=MASK, **GREEDY)
    found.train()
    with pytest.raises(PromptTooLong):
        found.generate(IDS, attention_mask=MASK, custom_generate=generate, budget=3, **GREEDY)
    assert found.training
    assert found.config._attn_implementation == "sdpa"
    found.eval()
    assert torch.equal(found.generate(IDS, attention_mask=MASK, **GREEDY), before)


def test_scores_and_logits_of_every_step():
    options = GREEDY | {"eos_token_id": None, "repetition_penalty": 1.3}
    options |= {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    expected = model().generate(IDS, attention_mask=MASK, **options)
    found = model().generate(IDS, attention_mask=MASK, custom_generate=generate, **options)
    assert torch.equal(found.sequences, expected.sequences)
    for ours, theirs in ((found.scores, expected.scores), (found.logits, expected.logits)):
        torch.testing.assert_close(torch.stack(ours), torch.stack(theirs), rtol=0, atol=1e-5)


def test_a_budget_is_what_the_engine_does_with_it():
    told: list = []
    options = GREEDY | {"eos_token_id": None, "max_new_tokens": 60}
    options |= {"text_tokenizer": AutoTokenizer.from_pretrained(tiny())}
    found = model().generate(
        IDS[1:2], custom_generate=generate, budget=24, policy="h2o", stats=told, **options
    )
    ours = engine(tiny("llama"))
    [expected] = ours.generate(
        [IDS[1].tolist()],
        {"budget": 24, "policy": "h2o"},
        sampling={"max_new_tokens": 60, "temperature": 0.0, "ignore_eos": True},
    )
    assert found[0, 5:].tolist() == expected.token_ids
    assert told[0].evictions == expected.stats.evictions > 2
    assert told[0].kv_bytes_peak == 24 * ours.cache(1, 1).slot_bytes


def test_sampled_rows_follow_the_seed_of_torch_and_no_draft():
    def drawn(seed, **more):
        torch.manual_seed(seed)
        options = GREEDY | {"do_sample": True, "top_k": 8, "num_return_sequences": 4}
        return model().generate(IDS[1:2], custom_generate=generate, **(options | more))

    first = drawn(3)
    assert first.shape[0] == 4
    assert len({tuple(row) for row in first.tolist()}) == 4
    assert torch.equal(first, drawn(3, draft="lookup"))
    assert not torch.equal(first, drawn(4))


def test_drawn_as_transformers_draws():
    """The share of each first token among 2,000 draws, against the model's own distribution."""
    torch.manual_seed(0)
    options = GREEDY | {"do_sample": True, "top_k": 5, "temperature": 1.5, "max_new_tokens": 1}
    ids = IDS[1:2].repeat(500, 1)
    drawn = torch.cat(
        [model().generate(ids, custom_generate=generate, **options)[:, -1] for _ in range(4)]
    )
    with torch.inference_mode():
        logits = model()(IDS[1:2]).logits[0, -1] / 1.5
    top = logits.topk(5)
    expected = top.values.softmax(-1)
    for token, p in zip(top.indices, expected, strict=True):
        share = (drawn == token).double().mean()
        assert abs(share - p) < 4 * (p * (1 - p) / len(drawn)) ** 0.5


@pytest.mark.parametrize("way", [generate, HUB_FOLDER], ids=["function", "folder"])
def test_a_streamer_hears_every_token(way):
    expected, found = Streamer(), Streamer()
    more = {} if callable(way) else {"trust_remote_code": True}
    said = model().generate(IDS[1:2], streamer=expected, **GREEDY)
    ours = model().generate(IDS[1:2], streamer=found, custom_generate=way, **GREEDY, **more)
    assert torch.equal(ours, said)
    assert found.got == expected.got


def test_a_folder_takes_the_tokenizer_and_thoughts_go_first():
    """With markers the answer stays; without all may go."""
    tokenizer = AutoTokenizer.from_pretrained(tiny("llama"))
    told: list = []
    model().generate(
        IDS[1:2],
        custom_generate=HUB_FOLDER,
        trust_remote_code=True,
        tokenizer=tokenizer,
        budget=16,
        policy="sepllm",
        stats=told,
        **GREEDY,
    )
    assert told[0].policy == "sepllm"


def test_a_model_that_is_refused_is_as_before(monkeypatch):
    """Its attention was tried by then."""
    found = AutoModelForCausalLM.from_pretrained(tiny("mistral"), dtype=torch.float64).eval()
    expected = found.generate(IDS, attention_mask=MASK, **GREEDY)
    with monkeypatch.context() as patch:
        patch.setattr("sparing.model.hub_interface.Scores", lambda *_: Scores(0.01))
        with pytest.raises(ModelError, match="got logits that differ"):
            found.generate(IDS, attention_mask=MASK, custom_generate=generate, **GREEDY)
    assert found.config._attn_implementation == "sdpa"
    assert not found.model._forward_hooks
    assert torch.equal(found.generate(IDS, attention_mask=MASK, **GREEDY), expected)


def test_a_model_may_change_its_dtype_between_calls():
    found = AutoModelForCausalLM.from_pretrained(tiny("qwen2"), dtype=torch.float64).eval()
    options = GREEDY | {"attention_mask": MASK}
    for dtype in (torch.float64, torch.float32):
        found.to(dtype)
        expected = found.generate(IDS, **options)
        assert torch.equal(found.generate(IDS, custom_generate=generate, **options), expected)


REFUSED = {
    "assistant": ({"assistant_model": "model"}, "pass draft='lookup' or 'layers'"),
    "num_beams": ({"num_beams": 3}, "num_beams must be 1 with"),
    "guidance": ({"guidance_scale": 2.0}, "it needs all past keys of its own"),
    "contrastive": ({"penalty_alpha": 0.6, "top_k": 4}, "contrastive search"),
    "lookup": ({"prompt_lookup_num_tokens": 3}, "pass draft='lookup' instead"),
    "attentions": ({"output_attentions": True, "return_dict_in_generate": True}, "evicted"),
    "budget": ({"budget": 6}, "budget must be at least 7 slots"),
    "learned": ({"policy": "learned", "budget": 40}, "needs a model with an importance predictor"),
    "sepllm": ({"policy": "sepllm", "budget": 40}, "pass text_tokenizer"),
    "draft": ({"draft": "none"}, "draft must be 'auto', 'off'"),
    "padding": ({"attention_mask": torch.tensor([[1, 1, 0, 1, 1]])}, "padding on the left alone"),
    "embeddings": ({"inputs_embeds": torch.zeros(1, 5, 48)}, "a prompt must be input_ids"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_by_name(case):
    options, said = REFUSED[case]
    if options.get("assistant_model"):
        options = {"assistant_model": model()}
    with pytest.raises(SparingError, match=re.escape(said)) as error:
        model().generate(IDS[1:2], custom_generate=generate, **GREEDY, **options)
    assert "\n" not in str(error.value)


def test_past_keys_are_refused():
    past = model()(IDS[1:2, :3]).past_key_values
    with pytest.raises(OptionError, match="past_key_values must be empty"):
        model().generate(IDS[1:2], past_key_values=past, custom_generate=generate, **GREEDY)


def test_a_model_with_another_memory_is_refused():
    state = AutoModelForCausalLM.from_pretrained(tiny("mamba"))
    with pytest.raises(ModelError, match="keep its past as keys and values, got mamba"):
        state.generate(IDS[1:2], custom_generate=generate, **GREEDY)

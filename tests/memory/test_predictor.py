"""The predictor: its shape, its files, whose it is, and the scores that it gives while decoding."""

import json
import shutil
from dataclasses import FrozenInstanceError, dataclass, field

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from sparing.api import load
from sparing.engine.drafter import NoDrafter
from sparing.engine.events import ScoreEvent, TokenEvent, scores_by_position
from sparing.engine.eviction import Budget
from sparing.engine.unscored import TOGETHER
from sparing.errors import ModelError, OptionError
from sparing.memory.policies.learned import Learned
from sparing.memory.predictor import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    ImportancePredictor,
    fingerprint,
    load_predictor,
    save_predictor,
)
from sparing.options import Depth, Memory, Sampling
from tests.engine.drafters import all_drafters
from tests.engine.driving import greedy, run
from tests.memory.small import (
    HORIZONS,
    predicting,
    random_predictor,
    vocabulary_of,
    write_predictor,
)
from tests.model.passes import expected, oracle
from tests.tiny import checkpoint, engine, tiny, tokenizer, unchecked

NARROW = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
          "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip


@pytest.fixture
def model(tmp_path):
    return checkpoint(tmp_path / "model", "qwen2", **NARROW)


@pytest.fixture
def other(tmp_path):
    return checkpoint(tmp_path / "other", "qwen2", seed=1, **NARROW)


# Shape and files


@pytest.mark.parametrize(
    ("of", "shapes"),
    [
        ((4096,), [(8192, 4096), (2048, 8192), (1, 2048)]),  # the paper's, for 8B models
        ((7, [1, 5, 9]), [(14, 7), (3, 14), (3, 3)]),
        ((1,), [(2, 1), (1, 2), (1, 1)]),
    ],
)
def test_three_maps_without_biases(of, shapes):
    with torch.device("meta"):
        predictor = ImportancePredictor(*of)
    assert [tuple(weight.shape) for weight in predictor.parameters()] == shapes


@pytest.mark.parametrize("width", [1, 8, 33])
def test_it_is_a_softplus_behind_each_map(width):
    predictor = random_predictor(width, dtype=torch.float64)
    x = np.random.default_rng(0).standard_normal((20, width))
    found = predictor(torch.from_numpy(x))
    for weight in predictor.parameters():
        x = np.log1p(np.exp(x @ weight.numpy().T))
    assert found.shape == (20, len(HORIZONS))
    assert found.numpy() == pytest.approx(x, rel=1e-12)
    assert (found > 0).all()
    assert found.unique().numel() == found.numel()


def test_saved_and_loaded(model, tmp_path):
    saved = write_predictor(tmp_path / "out", model, held_out={"mse": 0.5})
    assert json.loads((tmp_path / "out" / CONFIG_FILE).read_text())["held_out"] == {"mse": 0.5}
    loaded = load_predictor(tmp_path / "out", model, vocabulary_of(model), torch.float32)
    hidden = torch.randn(5, 16)
    assert torch.equal(loaded(hidden), saved(hidden))
    assert loaded.horizons == saved.horizons == HORIZONS
    assert not loaded.training
    assert not any(weight.requires_grad for weight in loaded.parameters())
    half = load_predictor(tmp_path / "out", model, vocabulary_of(model), torch.bfloat16)
    assert half(hidden.bfloat16()).dtype == torch.bfloat16


# Whose it is


def test_the_fingerprint_does_not_see_files(model, tmp_path):
    sharded = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(sharded, max_shard_size="4KB")
    assert len(list(sharded.glob("*.safetensors"))) > 3
    fast = vocabulary_of(model)
    assert fingerprint(sharded, fast) == fingerprint(model, fast)
    assert fingerprint(shutil.copytree(model, tmp_path / "moved"), fast) == fingerprint(model, fast)


def test_the_fingerprint_sees_every_tensor(tmp_path):
    """A step of fine-tuning on any one of them; their widths are no multiples of anything."""
    odd = {"hidden_size": 36, "intermediate_size": 53, "num_attention_heads": 6}
    model = checkpoint(tmp_path / "model", "qwen2", **NARROW | odd)
    fast, file = vocabulary_of(model), model / "model.safetensors"
    tensors = load_file(file)
    seen = {fingerprint(model, fast)}
    assert len(tensors) > 20
    for name, before in tensors.items():
        after = before + 1e-3 * torch.randn_like(before).sign()
        save_file(tensors | {name: after}, file)
        seen.add(fingerprint(model, fast))
    assert len(seen) == len(tensors) + 1
    save_file({"renamed" + name: value for name, value in tensors.items()}, file)
    assert fingerprint(model, fast) not in seen


def test_the_fingerprint_sees_the_vocabulary(model):
    more, swapped = vocabulary_of(model), vocabulary_of(model)
    before = fingerprint(model, tokenizer())
    assert fingerprint(model, vocabulary_of(model)) == before
    more.add_tokens(["wait"])
    vocabulary = swapped.get_vocab()
    vocabulary["!"], vocabulary["a"] = vocabulary["a"], vocabulary["!"]
    swapped.get_vocab = lambda: vocabulary
    assert len({before, fingerprint(model, more), fingerprint(model, swapped)}) == 3


def test_another_models_predictor_is_refused(model, other, tmp_path):
    write_predictor(tmp_path / "out", other)
    here, there = (fingerprint(path, vocabulary_of(path)) for path in (model, other))
    with pytest.raises(ModelError) as error:
        load(str(model), predictor=tmp_path / "out")
    said = str(error.value)
    assert here in said
    assert there in said
    assert "\n" not in said
    assert load(str(other), predictor=tmp_path / "out").predictor is not None


def write_json(out, **content):
    (out / CONFIG_FILE).write_text(json.dumps(content))


def shorten(name):
    return lambda out, sound: (out / name).write_bytes((out / name).read_bytes()[:-9])


def cut_weights(out, sound):
    save_predictor(random_predictor(12), sound, out)


BROKEN = {
    "nothing": lambda out, sound: shutil.rmtree(out),
    "no config": lambda out, sound: (out / CONFIG_FILE).unlink(),
    "no weights": lambda out, sound: (out / WEIGHTS_FILE).unlink(),
    "truncated config": shorten(CONFIG_FILE),
    "truncated weights": shorten(WEIGHTS_FILE),
    "empty weights": lambda out, sound: (out / WEIGHTS_FILE).write_bytes(b""),
    "weights are a directory": lambda out, sound: (
        (out / WEIGHTS_FILE).unlink(),
        (out / WEIGHTS_FILE).mkdir(),
    ),
    "config of another width": lambda out, sound: write_json(out, **sound | {"width": 12}),
    "weights of another width": cut_weights,
    "no width": lambda out, sound: write_json(out, **{k: sound[k] for k in sound if k != "width"}),
    "no horizons": lambda out, sound: write_json(out, width=16, fingerprint=sound["fingerprint"]),
    "more horizons": lambda out, sound: write_json(out, **sound | {"horizons": [1, 2, 3]}),
    "horizons are a number": lambda out, sound: write_json(out, **sound | {"horizons": 2}),
    "local 2": lambda out, sound: write_json(out, **sound | {"memory": {"local": 2.0}}),
    "unknown in memory": lambda out, sound: write_json(out, **sound | {"memory": {"lokal": 0.2}}),
    "no fingerprint": lambda out, sound: write_json(out, width=16, horizons=[2, 7]),
    "width is no number": lambda out, sound: write_json(out, **sound | {"width": "wide"}),
    "width -1": lambda out, sound: write_json(out, **sound | {"width": -1}),
    "a list": lambda out, sound: (out / CONFIG_FILE).write_text("[]"),
    "not text": lambda out, sound: (out / CONFIG_FILE).write_bytes(b"\xff\xfe"),
    "other tensors": lambda out, sound: save_file({"x": torch.ones(2)}, out / WEIGHTS_FILE),
}


@pytest.mark.parametrize("spoil", BROKEN.values(), ids=BROKEN)
def test_broken_files_are_one_line(model, tmp_path, spoil):
    out = tmp_path / "predictor"
    write_predictor(out, model)
    spoil(out, json.loads((out / CONFIG_FILE).read_text()))
    with pytest.raises(ModelError) as error:
        load(str(model), predictor=str(out))
    said = str(error.value)
    assert "\n" not in said
    assert str(out) in said
    assert " must " in said


def test_a_missing_predictor_is_told_before_weights_load(model, tmp_path):
    (model / "model.safetensors").write_bytes(b"nothing")
    for missing in (tmp_path / "none", str(tmp_path / "none"), ""):
        with pytest.raises(ModelError, match=r"predictor.*train one with `sparing train"):
            load(str(model), predictor=missing)


# Where it is found, and what it is used for


def same(first, second):
    ours, theirs = first.state_dict(), second.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_load_finds_the_models_own_and_takes_another(model, tmp_path):
    assert load(str(model)).predictor is None
    another = write_predictor(tmp_path / "out", model, seed=1)
    assert load(str(model)).predictor is None
    assert same(load(str(model), predictor=tmp_path / "out").predictor, another)
    own = write_predictor(model, model)
    assert same(load(str(model)).predictor, own)
    assert same(load(str(model), predictor=str(tmp_path / "out")).predictor, another)
    assert load(str(model), predictor=False).predictor is None
    (model / CONFIG_FILE).write_text("{}")
    assert load(str(model), predictor=False).predictor is None


@pytest.mark.parametrize("decoder", ["fast", "hub"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_auto_is_learned_with_it_and_window_without(model, dtype, decoder):
    sampling = Sampling(max_new_tokens=40, ignore_eos=True, temperature=0)

    def policies(**options):
        loaded = load(str(model), dtype=dtype, decoder=decoder)
        [result] = loaded.generate(["Q"], sampling=sampling, **options)
        return result.stats.policy, result.stats.evictions > 0

    budget = Memory(budget=20)
    assert policies(memory=budget) == ("window", True)
    write_predictor(model, model)
    assert policies(memory=budget) == ("learned", True)
    assert policies() == ("full", False)
    assert policies(memory=Memory(budget=20, policy="window")) == ("window", True)
    assert policies(memory=Memory(budget=20, policy="bottom")) == ("bottom", True)


def test_what_suits_the_model_is_its_default(model, tmp_path):
    """Under every policy; whatever is said explicitly goes before it."""
    write_predictor(model, model, memory={"local": 0.2, "selection": 0.9})
    loaded = load(str(model))

    def budget(**options):
        return loaded.request([1] * 10, Memory(budget=60, **options)).budget

    for policy in ("auto", "window", "learned"):
        assert budget(policy=policy) == Budget(60, 10, 10, 0.9)
    assert budget(local=7) == Budget(60, 10, 7, 0.9)
    assert budget(selection=3) == Budget(60, 10, 10, 3)
    assert loaded.request([1] * 10).budget is None
    plain = load(str(model), predictor=False)
    assert plain.request([1] * 10, Memory(budget=60)).budget == Budget(60, 10, 20, 0.4)


@pytest.mark.parametrize("policy", ["learned", "bottom"])
def test_without_it_learned_is_refused(policy):
    with pytest.raises(OptionError, match="train one with `sparing train predictor`") as error:
        engine(tiny()).generate(["Q"], Memory(budget=40, policy=policy))
    assert f"policy {policy} needs" in str(error.value)


# The scores in the events

PROMPTS = [list(b"Q"), list(b"how many legs have 3 cows? "), list(range(97, 122)) * 12]
COUNT = 60
SAMPLINGS = {
    "greedy": greedy(COUNT),
    "sampled": Sampling(temperature=1.0, seed=3, max_new_tokens=COUNT, ignore_eos=True),
}
without_gaps = pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)


def tokens_of(result):
    return [event for event in result.events if isinstance(event, TokenEvent)]


def full_pass(path, predictor, result):
    """What the predictor says first of every token of a result, from one pass of transformers."""
    ids = result.prompt_token_ids + result.token_ids
    states = expected(oracle(path), ids, output_hidden_states=True).hidden_states
    return predictor(states[-1][0])[:, 0].tolist()


def scores_of(result):
    """Of all tokens but the last, in their order; the last one has none."""
    begin, scores = len(result.prompt_token_ids), scores_by_position(result.events)
    assert sorted(scores) == list(range(begin, begin + len(result.token_ids) - 1))
    return [scores[position] for position in sorted(scores)]


def assert_scores(result, truth):
    begin, scores = len(result.prompt_token_ids), scores_of(result)
    assert scores == pytest.approx(truth[begin : begin + len(scores)], abs=1e-7)


@pytest.mark.slow
@without_gaps
@unchecked()
def test_scores_are_those_of_a_full_pass_whatever_is_drafted(sampling):
    path = tiny("qwen3", markers=None)
    model = predicting(path)
    plain = run(model, PROMPTS, sampling, drafter=NoDrafter())
    truths = [full_pass(path, model.predictor, result) for result in plain]
    assert np.std(scores_of(plain[0])) > 0.1
    for result, truth in zip(plain, truths, strict=True):
        assert len(tokens_of(result)) == COUNT
        assert_scores(result, truth)
    texts = [result.prompt_token_ids + result.token_ids for result in plain]
    for drafter in all_drafters(texts).values():
        for batch_size in (1, 3):
            drafted = run(model, PROMPTS, sampling, batch_size=batch_size, drafter=drafter)
            for result, truth, alone in zip(drafted, truths, plain, strict=True):
                assert result.token_ids == alone.token_ids
                assert_scores(result, truth)
                assert scores_of(result) == pytest.approx(scores_of(alone), abs=1e-6)
    assert any(e.origin == "draft" for e in tokens_of(drafted[0]))


def test_a_row_that_ends_in_the_middle_of_a_draft():
    path = tiny("qwen3", markers=None)
    model = predicting(path)
    [plain] = run(model, PROMPTS[:1], greedy(COUNT))
    at = next(i for i in range(20, 60) if plain.token_ids[i] not in plain.token_ids[:i])
    right = all_drafters([plain.prompt_token_ids + plain.token_ids])["right"]
    ends = greedy(COUNT, stop_token_ids=[plain.token_ids[at]])
    [result] = run(model, PROMPTS[:1], ends, drafter=right)
    assert result.token_ids == plain.token_ids[: at + 1]
    events = tokens_of(result)
    assert events[-2].origin == "draft"
    assert_scores(result, full_pass(path, model.predictor, result))


def test_tokens_that_must_be_said_have_scores_too():
    """A thought cut short: its marker of several tokens is one forced draft."""
    path = tiny("qwen3", markers="several")
    model = predicting(path)
    [result] = run(model, ["Q <think>"], greedy(40, think_budget=20))
    events = tokens_of(result)
    assert sum(event.origin == "forced" for event in events) == len("</think>")
    assert_scores(result, full_pass(path, model.predictor, result))


def test_in_a_stream_scores_come_together_and_what_was_sent_stays():
    """``TOGETHER`` at a time, the prompt's tokens counted; what is left at the end."""
    model, count = predicting(tiny("qwen3", markers=None)), 2 * TOGETHER + 3
    sent, copies, said, told = [], [], 0, []
    for event in model.stream("Q", depth=Depth(draft="off"), sampling=greedy(count)):
        sent.append(event)
        copies.append(event.to_dict())
        said += isinstance(event, TokenEvent)
        if isinstance(event, ScoreEvent):
            told.append((said, event.position))
    assert [event.to_dict() for event in sent] == copies
    whole = [(TOGETHER, p) for p in range(1, TOGETHER)]
    whole += [(2 * TOGETHER, p) for p in range(TOGETHER, 2 * TOGETHER)]
    assert told == [*whole, *((count, p) for p in range(2 * TOGETHER, count))]
    with pytest.raises(FrozenInstanceError):
        sent[0].score = 1.0


@pytest.mark.parametrize("drafter", ["right", "half", "tree"])
@unchecked()
def test_the_predictor_is_given_the_same_tokens_together_whatever_is_drafted(drafter):
    """So scores are the same to the last bit where hidden states are."""
    path, groups = tiny("qwen3", markers=None), []
    model, memory = predicting(path), Memory(budget=50, local=10)
    known = {}

    def noting(hidden):
        groups[-1].append(len(hidden))
        return model.predictor(hidden)

    sampling = greedy(COUNT)
    for chunk, named in ((256, "off"), (7, "off"), (256, drafter)):
        groups.append([])
        drafters = known | {"off": NoDrafter()}
        parts = {"policy": Learned(HORIZONS), "predictor": noting, "chunk": chunk}
        [result] = run(model, PROMPTS[1:2], sampling, memory, drafter=drafters[named], **parts)
        known = all_drafters([result.prompt_token_ids + result.token_ids])
    assert groups[0] == groups[1] == groups[2]
    assert result.stats.evictions > 1
    assert TOGETHER in groups[0]
    assert 0 < len(groups[0]) < COUNT / 3


def test_no_predictor_no_scores():
    [result] = run(engine(tiny("qwen3", markers=None)), ["Q"], greedy(12))
    assert not scores_by_position(result.events)


@dataclass
class Watchful:
    """The window policy, keeping what it is shown."""

    seen: list = field(default_factory=list)
    name = "window"
    watches = 0

    def score(self, view):
        assert view.scores.shape == (len(view.positions), len(HORIZONS))
        self.seen.append((view.positions.copy(), view.scores[:, 0].copy()))
        return view.positions.astype(np.float64)


@pytest.mark.parametrize("drafter", ["off", "right", "wrong", "half", "tree"])
@unchecked()
def test_slots_hold_the_scores_of_what_was_said_and_no_others(drafter):
    """What was drafted and rejected leaves nothing behind."""
    path = tiny("qwen3", markers=None)
    model, memory = predicting(path), Memory(budget=50, local=10)
    prompt = PROMPTS[1]
    [plain] = run(model, [prompt], greedy(COUNT), memory, policy=Watchful())
    drafters = all_drafters([prompt + plain.token_ids]) | {"off": NoDrafter()}
    policy = Watchful()
    [result] = run(model, [prompt], greedy(COUNT), memory, policy=policy, drafter=drafters[drafter])
    assert result.token_ids == plain.token_ids
    told = scores_of(result)
    whole = full_pass(path, model.predictor, result)
    assert len(policy.seen) >= 3
    for nth, (positions, scores) in enumerate(policy.seen):
        wanted = [
            whole[p] if p < len(prompt) or nth == 0 else told[p - len(prompt)] for p in positions
        ]
        assert scores == pytest.approx(wanted, abs=1e-6)
        assert 0.0 not in scores

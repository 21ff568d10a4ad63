"""A latent model's importance targets: its own traces replayed in segments, latents included."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from sparing import Depth, Latent, Sampling
from sparing.engine.eviction import NO_TOKEN
from sparing.latent.switch import find_switch
from sparing.memory.targets import importance
from sparing.memory.traces import positions, thought
from tests.latent.oracle import recomputed
from tests.latent.thinking import thinker, thinking
from tests.memory.small import thinker as thinker_checkpoint
from tests.model.passes import exact_norms
from tests.train.small import forget_accelerate

UNSURE = Latent(mode="confidence", tau=0.4, most=9)
HORIZONS = [2, 5]


def trace(engine):
    sampling = Sampling(max_new_tokens=40, temperature=0.0, ignore_eos=True)
    prompt = [*b"so, 7 + 9", 257]  # an open thought
    [result] = engine.generate([prompt], None, Depth(draft="off"), UNSURE, sampling)
    switch = find_switch(UNSURE, engine.latents, engine.decoder, engine.chat.tokenizer)
    return result, switch.thinker


@torch.no_grad()
@pytest.mark.parametrize("changed", [{}, {"vector": "hidden", "layer": 1}])
def test_equal_to_whole_maps_of_the_recomputed_trace(changed):
    path = thinking(**changed)
    engine = thinker(path)
    result, thinks = trace(engine)
    ids = positions(result)
    begin, end = len(result.prompt_token_ids), len(ids) - 12
    assert ids[begin:end].count(NO_TOKEN) > 3
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float64, attn_implementation="eager"
    )
    config, vector = engine.latents
    filled = [config.id if token == NO_TOKEN else token for token in ids]
    out = recomputed(exact_norms(model), vector, filled)
    a = torch.stack(out.attentions).mean((0, 2))[0]
    for chunk in (64, 7, 1):
        found = importance(engine.decoder, ids, begin, end, HORIZONS, chunk, thinks)
        assert (
            found.hidden - out.hidden_states[-1][0, begin:end]
        ).abs().max() < 1e-4  # eager maps are float32
        assert (found.answer[:, 0] - a[end:, begin:end].mean(0)).abs().max() < 1e-5
        for column, horizon in enumerate(HORIZONS):
            for j in range(begin, end):
                later = a[j + horizon + 1 :, j]
                most, mean = (later.max(), later.mean()) if len(later) else (0.0, 0.0)
                assert abs(found.future_max[j - begin, column] - most) < 1e-5
                assert abs(found.future_mean[j - begin, column] - mean) < 1e-5


def test_a_thought_s_latents_are_a_part_of_it():
    result, _ = trace(thinker(thinking()))
    begin = len(result.prompt_token_ids)
    said = positions(result)[begin:]
    assert thought(result) == (said.index(258) + 1 if 258 in said else 40)
    assert positions(result).count(NO_TOKEN) == result.stats.latent_tokens > 3


@pytest.mark.slow
def test_train_predictor_for_a_latent_model(sparing, tmp_path):
    """Its traces are thought as it was trained to think, unless it is told otherwise."""
    source = thinker_checkpoint(tmp_path / "source", hidden_size=24, intermediate_size=24)
    model = thinking(source=source, switch="confidence", tau=0.4)
    rows = [{"question": f"{i} and {i}?", "answer": f"#### {2 * i}"} for i in range(40)]
    task, out = tmp_path / "gsm8k.jsonl", tmp_path / "out"
    task.write_text("\n".join(map(json.dumps, rows)))
    command = ("train", "predictor", "--model", model, "--task", task, "--accept", "any",
               "--max-new-tokens", 24, "--temperature", 0, "--horizons", "3", "--epochs", 1,
               "--threads", 1)  # fmt: skip
    counts = {}
    for latent in (None, "off", "confidence"):
        forget_accelerate()
        folder = out / str(latent)
        more = () if latent is None else ("--latent", latent)
        outcome = sparing(*command, "--out", folder, *more)
        assert outcome.code == 0, outcome.err
        shards = sorted((folder / "traces").glob("shard-*"))
        counts[latent] = [shard.read_bytes() for shard in shards]
    assert counts[None] == counts["confidence"] != counts["off"]
    ran = sparing("run", "1 and 1?", "--model", model, "--predictor", out / "None", "--budget", 40,
                  "--latent", "confidence", "--max-new-tokens", 60, "--ignore-eos", "--json",
                  "--events")  # fmt: skip
    found = json.loads(ran.out)
    assert found["stats"]["policy"] == "learned"
    gone = {p for e in found["events"] if e["type"] == "evict" for p in e["positions"]}
    assert gone & {e["position"] for e in found["events"] if e["type"] == "latent"}

"""`sparing bench decode`, part by part, beside an engine whose seconds are known."""

import json

import pytest
import torch
from torch.nn.functional import cross_entropy

from sparing.errors import OptionError
from sparing.evaluate import bench_decode_pass
from sparing.evaluate.bench_decode import PROMPTS, DecodeBench, unbroken
from sparing.evaluate.bench_decode_load import loading, two_engines
from sparing.evaluate.bench_decode_long import long_run
from sparing.evaluate.bench_decode_pass import batch, behind, prompt
from sparing.evaluate.bench_decode_perplexity import perplexity
from sparing.evaluate.bench_decode_text import distinct_ids, read_text, windows
from sparing.evaluate.own import Own, filled_cache
from sparing.evaluate.timing import middle
from tests.evaluate.baselines.fake import fake_baselines
from tests.memory import small
from tests.tiny import reference, tiny

LONG = {"max_position_embeddings": 8192}


@pytest.fixture
def bench(request):
    model = getattr(request, "param", "a.gguf")
    engine = small.engine(tiny(**LONG), "float32")
    with fake_baselines(model) as baselines:
        yield DecodeBench(engine, None, PROMPTS, 2, distinct_ids(engine, 4096), baselines=baselines)


def values(figures):
    return {figure.name: figure.value for figure in figures}


def test_steps_and_passes_beside_llama_cpp(bench):
    figures, raw = behind(bench, 64)
    found, seconds = values(figures), raw["seconds"]
    assert seconds["llama.cpp step"] == [[2.0] * bench_decode_pass.STEPS] * 2
    assert found["verify8_over_step_64/llama.cpp"] == 8.0
    assert found["vs_llama_cpp/64"] == 2.0 / middle(seconds["ours step"])
    assert found["step_ms_64"] == 1000 * middle(seconds["ours step"])
    assert "vs_openvino" not in found


def test_batch_and_prompt_beside_llama_cpp(bench):
    figures, raw = batch(bench)
    ours = middle(raw["batch_step_seconds"]["ours"])
    assert values(figures) == {"batch8_vs_llama_cpp": 2.0 / ours}
    figures, raw = prompt(bench)
    ours = middle(raw["prompt_seconds"]["ours"])
    assert values(figures)["prefill_vs_llama_cpp"] == 20.0 / ours
    assert bench.baselines.llama_cpp.process.call("open_contexts") == []


@pytest.mark.parametrize("bench", ["dies.gguf"], indirect=True)
def test_a_baseline_that_breaks_down_is_left_out_and_ours_stays(bench):
    figures, _ = unbroken(lambda bench: behind(bench, 64), bench)
    assert values(figures).keys() == {"step_ms_64", "verify8_over_step_64"}
    assert bench.baselines.left_out == {"llama-cpp": "it ended with code 7: segmentation fault"}
    assert bench.baselines.described() == {}


def test_a_context_that_is_too_short_is_said():
    engine = small.engine(tiny(max_position_embeddings=512), "float32")
    bench = DecodeBench(engine, None, PROMPTS, 1, distinct_ids(engine, 64))
    assert behind(bench, 4096) == ([], {})
    assert bench.left_out == {"4,096 cached": "the context is of 512 tokens"}


def test_perplexity_is_the_model_s_own(bench, tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"question": "Why? " * 100, "answer": "So. " * 100}) + "\n")
    bench.windows = windows(bench.engine, read_text(file), 700)
    assert [len(ids) for ids in bench.windows] == [512, 700 - 512]
    figures, raw = perplexity(bench)
    with torch.inference_mode():
        expected = [
            float(
                cross_entropy(
                    reference(tiny(**LONG))(torch.tensor([ids])).logits[0, :-1].float(),
                    torch.tensor(ids[1:]),
                    reduction="sum",
                )
            )
            for ids in bench.windows
        ]
    assert raw["nll"]["ours"] == pytest.approx(expected, rel=1e-4)
    assert raw["nll"]["llama.cpp"] == [511.0, 187.0]
    ours = torch.tensor(sum(expected) / 698).exp().item()
    assert values(figures)["perplexity"] == pytest.approx(ours, rel=1e-4)
    assert values(figures)["perplexity_vs_llama_cpp"] == pytest.approx(
        ours / torch.tensor(1.0).exp().item(), rel=1e-4
    )
    bench.windows = []
    assert perplexity(bench) == ([], {})


@pytest.mark.parametrize("content", [None, "", "{}", "[1]", "no json"])
def test_a_text_that_is_none_is_refused(tmp_path, content):
    file = tmp_path / "a.jsonl"
    if content is not None:
        file.write_text(content)
    with pytest.raises(OptionError, match="--text must"):
        read_text(file)


def test_a_pass_leaves_a_row_as_it_is_and_a_step_does_not():
    engine = small.engine(tiny(), "float32")
    ids = distinct_ids(engine, 40)
    own = Own(engine)
    own.fill([ids], 20)
    assert own.cache.lengths == [40]
    assert len(own.passes(ids[:8], 3)) == 3
    assert own.cache.lengths == [40]
    own.steps(3)
    assert own.cache.lengths == [43]
    cache = filled_cache(engine, 40, 8)
    assert cache.lengths == [40]
    assert cache.capacity >= 48


def test_made_up_text_does_not_repeat():
    engine = small.engine(tiny(), "float32")
    ids = distinct_ids(engine, 4096)
    spans = {tuple(ids[at : at + 64]) for at in range(4096 - 64)}
    assert len(ids) == 4096
    assert len(spans) == 4096 - 64


@pytest.mark.slow
def test_a_long_run_beside_all_that_there_are(bench, monkeypatch):
    monkeypatch.setattr("sparing.evaluate.bench_decode_long.NEW_TOKENS", 40)
    figures, raw = long_run(bench)
    assert raw["long_tokens"] == 40
    seconds = raw["long_seconds"]
    assert values(figures) == {"long_vs_llama_cpp": seconds["ours"] / seconds["llama-cpp"]}


@pytest.mark.slow
def test_loads_and_two_engines_run_in_processes_of_their_own(bench, monkeypatch):
    monkeypatch.setattr("sparing.evaluate.bench_decode_load.TURN_S", 0.2)
    bench.rounds = 1
    figures, raw = loading(bench)
    assert values(figures).keys() == {"load_seconds", "load_peak_over_file"}
    assert len(raw["loads"]) == 2
    assert raw["file_bytes"] > 1000
    figures, raw = two_engines(bench)
    assert values(figures)["two_engines_share"] > 0

"""llama.cpp and OpenVINO GenAI themselves, where SPARING_LLAMA_CPP and SPARING_OPENVINO name
interpreters that have them."""

import os

import pytest

from sparing import Sampling, load
from sparing.errors import ModelError
from sparing.evaluate.baselines.llama_cpp import LlamaCpp
from sparing.evaluate.baselines.openvino import OpenVINO
from sparing.evaluate.baselines.process import BaselineError
from sparing.evaluate.bench_decode_text import distinct_ids, encode
from sparing.evaluate.own import Own
from sparing.model.sources import find_gguf

pytestmark = pytest.mark.slow
TEXT = "A train goes 60 miles in an hour. In three hours it goes 180 miles. So the answer is 180."


def interpreter(variable):
    if variable not in os.environ:
        pytest.skip(f"needs an interpreter with the engine in {variable}")
    return os.environ[variable]


@pytest.fixture(scope="module")
def gguf():
    try:
        return find_gguf("smollm2")
    except ModelError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def engine(gguf):
    return load("smollm2")


@pytest.fixture(scope="module")
def llama(gguf):
    found = LlamaCpp(interpreter("SPARING_LLAMA_CPP"), gguf, 1)
    yield found
    found.close()


@pytest.fixture(scope="module", params=[None, 256])
def openvino(gguf, request):
    found = OpenVINO(interpreter("SPARING_OPENVINO"), gguf, 1, request.param)
    yield found
    found.close()


def request_of(engine, **sampling):
    options = {"seed": 3, "max_new_tokens": 20, "ignore_eos": True} | sampling
    return engine.request("Water boils at", sampling=Sampling(**options))


def draws_by_the_seed(baseline, engine):
    drawn = [baseline(request_of(engine, temperature=1.0, seed=seed)).ids for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert [len(ids) for ids in drawn] == [20] * 3


def test_llama_cpp_gives_a_text_the_likelihood_that_we_give_it(llama, engine):
    ids = encode(engine, TEXT)
    assert Own(engine).nll(ids) == pytest.approx(llama.nll(ids), rel=0.02)


def test_llama_cpp_times_what_it_is_asked(llama, engine):
    ids = distinct_ids(engine, 64)
    for rows in ([ids[:32]], [ids[:8], ids[8:16], ids[16:24]]):
        llama.open("a", rows, 64)
        assert llama.fill("a", rows) > 0
        assert len(llama.steps("a", 3)) == 3
        if len(rows) == 1:
            assert len(llama.passes("a", ids[:8], 2)) == 2
        llama.drop("a")


def test_llama_cpp_draws_as_it_is_asked(llama, engine):
    draws_by_the_seed(llama, engine)
    greedy = llama(request_of(engine, temperature=0.0))
    for filters in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
        assert llama(request_of(engine, temperature=1.0, **filters)).ids == greedy.ids, filters
    penalized = llama(request_of(engine, temperature=0.0, repetition_penalty=1.5))
    assert len(set(penalized.ids)) >= len(set(greedy.ids))
    assert greedy.times == sorted(greedy.times)


def test_openvino_draws_as_it_is_asked(openvino, engine):
    draws_by_the_seed(openvino, engine)
    assert len(openvino.generate(distinct_ids(engine, 64), 8)) == 8


def test_what_cannot_be_read_is_a_line(tmp_path):
    file = tmp_path / "a.gguf"
    file.write_bytes(b"no model")
    with pytest.raises(BaselineError, match="invalid magic"):
        LlamaCpp(interpreter("SPARING_LLAMA_CPP"), file, 1)

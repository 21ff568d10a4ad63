"""A slow dtype is said once."""

import pytest
import torch

from sparing.kernels.native import announce
from sparing.model.assemble import load_decoder
from sparing.model.hub_decoder import HubDecoder
from sparing.model.precision import announce_slow, has_bfloat16
from tests.tiny import tiny

EMULATED = "sparing: this processor emulates bfloat16, so dtype bfloat16 is slow; leave it out"


@pytest.fixture(autouse=True)
def unsaid():
    announce.cache_clear()


def test_float32_is_not_slow(capsys):
    load_decoder(tiny("llama"))
    announce_slow(torch.float32, "cpu", kernels=True)
    announce_slow(torch.bfloat16, "cuda", kernels=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_another_dtype_is_said_once(dtype, capsys):
    for _ in range(2):
        load_decoder(tiny("llama"), dtype=getattr(torch, dtype))
    assert capsys.readouterr().err == (
        f"sparing: dtype {dtype} is computed by torch, slowly; leave it out for the compiled "
        "kernels\n"
    )


@pytest.mark.parametrize("load", [load_decoder, HubDecoder.load])
def test_bfloat16_where_it_is_emulated(load, capsys):
    load(tiny("llama"), dtype=torch.bfloat16)
    assert capsys.readouterr().err.startswith(EMULATED) != has_bfloat16()


@pytest.mark.parametrize(
    ("capabilities", "native"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False, "num_sockets": 1}, False),
        ({"avx2": True, "avx512_bf16": True, "amx_bf16": False}, True),
        ({"neon": True, "bf16": True}, True),
        ({}, False),
    ],
)
def test_what_processors_say(monkeypatch, capabilities, native):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_bfloat16() == native

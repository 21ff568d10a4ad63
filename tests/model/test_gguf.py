"""Reading a GGUF: what is in it, and one line for each thing that can be wrong with it."""

import random
import struct
import tracemalloc

import numpy as np
import pytest

from sparing.errors import ModelError
from sparing.kernels.block_types import BLOCKS
from sparing.model.gguf import Gguf
from tests.gguf_writer import blocks, gguf_bytes, text, write_gguf

ALL_TYPES = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K"
METADATA = {
    "general.architecture": "llama",
    "a.number": 7,
    "a.negative": -7,
    "a.float": 0.5,
    "a.large": np.uint64(1 << 40),
    "a.truth": True,
    "some.words": ["a", "ä😀", ""],
    "some.numbers": [1, -2, 3],
}


def tensor(kind, *shape, seed=0):
    return kind, shape, blocks(kind, shape, seed)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.gguf"


def message(path) -> str:
    with pytest.raises(ModelError) as error:
        Gguf.open(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("version", [2, 3])
def test_metadata_is_what_was_written(path, version):
    with Gguf.open(write_gguf(path, METADATA, {}, version)) as gguf:
        numbers = gguf.metadata.pop("some.numbers")
        assert gguf.metadata == {k: v for k, v in METADATA.items() if k != "some.numbers"}
        assert numbers.tolist() == [1, -2, 3]


@pytest.mark.parametrize("alignment", [None, 64])
def test_each_type_is_a_view_of_its_blocks(path, alignment):
    tensors = {kind: tensor(kind, 3, 256, seed=i) for i, kind in enumerate(BLOCKS)}
    tensors["norm"] = tensor("F32", 5)
    with Gguf.open(write_gguf(path, {}, tensors, alignment=alignment)) as gguf:
        assert set(gguf.tensors) == set(tensors)
        for name, (kind, shape, data) in tensors.items():
            found = gguf.tensors[name]
            assert (found.type, found.shape) == (kind, shape)
            assert found.data.tobytes() == data
            assert not found.data.flags.writeable
        kept = gguf.tensors["norm"].data
    assert kept.tobytes() == tensors["norm"][2]  # after closing


def test_the_block_sizes_are_ggmls():
    constants = pytest.importorskip("gguf.constants")
    for kind in BLOCKS.values():
        theirs = constants.GGMLQuantizationType[kind.name]
        assert (theirs, constants.GGML_QUANT_SIZES[theirs]) == (
            kind.ggml_id,
            (kind.weights, kind.bytes),
        )


def test_released_pages_are_there_when_they_are_read_again(path):
    tensors = {f"t{i}": tensor("Q8_0", 100, 64 * (i + 1), seed=i) for i in range(5)}
    with Gguf.open(write_gguf(path, {}, tensors)) as gguf:
        for name in tensors:
            gguf.release(gguf.tensors[name])
        for name, (_, _, data) in tensors.items():
            assert gguf.tensors[name].data.tobytes() == data


# Bad files


def test_a_file_that_is_none_is_named(path):
    assert (
        message(path) == f"{path} must be a readable file, got: No such file or directory; check it"
    )


def test_an_empty_file(path):
    path.touch()
    assert message(path) == f"{path}: a GGUF file must not be empty; fetch the file again"


def test_another_magic(path):
    path.write_bytes(b"GGML" + bytes(100))
    assert message(path) == (
        f"{path}: a GGUF file must begin with b'GGUF', got b'GGML'; fetch the file again"
    )


@pytest.mark.parametrize("version", [0, 1, 4])
def test_another_version(path, version):
    assert message(write_gguf(path, METADATA, {}, version)) == (
        f"{path}: a GGUF file must be of version 2 or 3, got version {version}; "
        "convert the model again with a current llama.cpp"
    )


def test_a_big_endian_file(path):
    path.write_bytes(b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(100))
    assert message(path) == (
        f"{path}: a GGUF file must be little-endian, got a big-endian one; "
        "convert the model again without --bigendian"
    )


def test_a_header_cut_short(path):
    path.write_bytes(gguf_bytes({"a.name": "x" * 50}, {})[:60])
    assert message(path) == (
        f"{path}: a GGUF file must be whole, got one cut short: 50 bytes needed at 50, "
        "10 left; fetch the file again"
    )


def test_weights_cut_short(path):
    path.write_bytes(gguf_bytes({}, {"a": tensor("F32", 8, 8)})[:-10])
    assert message(path) == (
        f"{path}: tensor a must lie within the file, got one that ends 10 bytes behind it; "
        "fetch the file again"
    )


def test_every_cut_is_refused(path):
    """The last bytes are no padding."""
    whole = gguf_bytes(METADATA, {"a": tensor("Q8_0", 2, 32), "b": tensor("F32", 2)})
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        message(path)


@pytest.mark.parametrize(("number", "name"), [(23, "IQ4_XS"), (10, "Q2_K"), (999, "number 999")])
def test_an_unknown_type(path, number, name):
    assert message(write_gguf(path, {}, {"w": (number, (2, 256), bytes(999))})) == (
        f"{path}: a tensor's type must be one of {ALL_TYPES}, got {name} for w; "
        "take a file of another type"
    )


def test_a_row_that_is_no_multiple_of_the_block(path):
    assert message(write_gguf(path, {}, {"w": ("Q4_K", (2, 96), bytes(999))})) == (
        f"{path}: the rows of w must be multiples of 256 for Q4_K, got 96; fetch the file again"
    )


@pytest.mark.parametrize(
    "shape", [(1 << 62, 1 << 62), (1, 1 << 63), (1 << 32, 1 << 32), (1 << 63, 2), (1, 1 << 20)]
)
def test_sizes_that_overflow(path, shape):
    said = message(write_gguf(path, {}, {"w": ("F32", shape, bytes(64))}))
    assert f"{path}: tensor w must lie within the file, got one that ends " in said


def test_an_offset_that_overflows(path):
    data = gguf_bytes({}, {"w": tensor("F32", 8)})
    at = data.index(struct.pack("<IQ", 0, 0), data.index(text("w")) + 21)
    path.write_bytes(data[: at + 4] + struct.pack("<Q", (1 << 64) - 32) + data[at + 12 :])
    assert "tensor w must lie within the file" in message(path)


def test_an_offset_off_the_grid(path):
    data = gguf_bytes({}, {"w": tensor("F32", 16)})
    at = data.index(struct.pack("<IQ", 0, 0), data.index(text("w")) + 21)
    path.write_bytes(data[: at + 4] + struct.pack("<Q", 4) + data[at + 12 :])
    assert "tensor w must begin at a multiple of 32, got 4" in message(path)


def test_tensors_that_overlap(path):
    data = gguf_bytes({}, {"a": tensor("F32", 8), "b": tensor("F32", 8)})
    path.write_bytes(data.replace(struct.pack("<IQ", 0, 32), struct.pack("<IQ", 0, 0)))
    assert message(path) == (f"{path}: tensors must not overlap, got a and b; fetch the file again")


def test_a_tensor_twice(path):
    data = gguf_bytes({}, {"a": tensor("F32", 8), "b": tensor("F32", 8)})
    path.write_bytes(data.replace(text("b"), text("a")))
    assert "tensor a must occur once in the model, got two" in message(path)


def test_a_key_twice(path):
    path.write_bytes(gguf_bytes({"a": 1, "b": 2}, {}).replace(text("b"), text("a")))
    assert "a metadata key must occur once, got a twice" in message(path)


@pytest.mark.parametrize("dimensions", [0, 5, 1 << 31])
def test_dimensions(path, dimensions):
    data = gguf_bytes({}, {"w": tensor("F32", 8)})
    at = data.index(text("w")) + len(text("w"))
    path.write_bytes(data[:at] + struct.pack("<I", dimensions) + data[at + 4 :])
    assert f"tensor w must have 1 to 4 dimensions, got {dimensions}" in message(path)


def test_an_empty_dimension(path):
    said = message(write_gguf(path, {}, {"w": ("F32", (4, 0), b"")}))
    assert "tensor w must have no empty dimension, got [4, 0]" in said


@pytest.mark.parametrize("alignment", [0, 3, 48])
def test_an_alignment_that_is_no_power_of_two(path, alignment):
    said = message(write_gguf(path, {"general.alignment": alignment}, {}))
    assert f"general.alignment must be a power of two, got {alignment}" in said


@pytest.mark.parametrize("place", [8, 16])
def test_counts_beyond_the_file(path, place):
    data = bytearray(gguf_bytes(METADATA, {}))
    data[place : place + 8] = struct.pack("<Q", 1 << 60)
    path.write_bytes(data)
    assert "must fit into the file" in message(path)


@pytest.mark.parametrize("kind", [8, 0, 10])
def test_an_array_beyond_the_file(path, kind):
    entry = text("a") + struct.pack("<IIQ", 9, kind, 1 << 61)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry + bytes(64))
    assert "must fit into the file" in message(path)


def test_an_array_of_arrays(path):
    entry = text("a") + struct.pack("<IIQ", 9, 9, 1)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry + bytes(64))
    assert "an array must hold numbers or strings, got type 9" in message(path)


def test_a_value_of_no_type(path):
    entry = text("a") + struct.pack("<I", 13)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry + bytes(64))
    assert "a metadata value must be of type 0 to 12, got 13" in message(path)


# Split files


def write_parts(folder, count=3):
    for part in range(count):
        fields = {"split.no": part, "split.count": count} | (METADATA if part == 0 else {})
        tensors = {f"t{part}": tensor("F32", 4, seed=part)}
        write_gguf(folder / f"m-{part + 1:05}-of-{count:05}.gguf", fields, tensors)
    return folder / f"m-00001-of-{count:05}.gguf"


@pytest.mark.parametrize("given", [1, 2, 3])
def test_any_part_opens_all(tmp_path, given):
    write_parts(tmp_path)
    with Gguf.open(tmp_path / f"m-{given:05}-of-00003.gguf") as gguf:
        assert list(gguf.tensors) == ["t0", "t1", "t2"]
        assert gguf.metadata["general.architecture"] == "llama"
        assert gguf.path.name == "m-00001-of-00003.gguf"
        assert gguf.size_bytes == sum(path.stat().st_size for path in gguf.paths)


def test_a_missing_part_is_named(tmp_path):
    first = write_parts(tmp_path)
    (tmp_path / "m-00002-of-00003.gguf").unlink()
    assert message(first) == (
        f"a split model must have all its 3 files, got no {tmp_path}/m-00002-of-00003.gguf; "
        "fetch it"
    )


def test_a_part_of_another_name(tmp_path):
    other = write_parts(tmp_path).rename(tmp_path / "m.gguf")
    assert message(other) == (
        f"{other}: a part of a split model must be called NAME-00001-of-00003.gguf, its "
        "original name; rename it"
    )


def test_a_tensor_in_two_parts(tmp_path):
    first = write_parts(tmp_path, 2)
    second = tmp_path / "m-00002-of-00002.gguf"
    second.write_bytes(second.read_bytes().replace(text("t1"), text("t0")))
    assert "tensor t0 must occur once in the model, got two" in message(first)


# Whatever the bytes


def mutated(data: bytes, noise: random.Random) -> bytes:
    """A few bytes changed, cut out or put in, the lengths and types among them."""
    found = bytearray(data)
    for _ in range(noise.randint(1, 4)):
        at = noise.randrange(len(found))
        way = noise.randrange(5)
        if way == 0:
            found[at] = noise.randrange(256)
        elif way == 1:
            found[at : at + 8] = struct.pack("<Q", noise.choice([0, 1, 255, 1 << 31, 1 << 63]))
        elif way == 2:
            found[at : at + 4] = struct.pack("<I", noise.randrange(1 << 32))
        elif way == 3:
            del found[at : at + noise.randint(1, 64)]
        else:
            found[at:at] = noise.randbytes(noise.randint(1, 16))
    return bytes(found) or b"G"


def outcome(path) -> str:
    """What is said of a file; nothing, where it is read."""
    try:
        Gguf.open(path).close()
    except ModelError as error:
        return str(error)
    return ""


@pytest.mark.slow
def test_ten_thousand_broken_headers(path):
    """Each is read or refused in one line; of some, the memory taken is small."""
    whole = gguf_bytes(METADATA, {"a": tensor("Q8_0", 2, 32), "b": tensor("F32", 2)})
    noise, said = random.Random(0), []
    for index in range(10_000):
        path.write_bytes(mutated(whole, noise))
        said.append(outcome(path) if index % 50 else measured_outcome(path))
    assert not any("\n" in line for line in said)
    assert 500 < said.count("") < 9500


def measured_outcome(path) -> str:
    tracemalloc.start()
    try:
        said = outcome(path)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    return said

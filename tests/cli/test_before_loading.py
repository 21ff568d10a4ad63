"""What a model cannot do is refused by its files, before its weights are read."""

import pytest

from sparing.model.marker_files import has_markers
from sparing.model.sources import EMBEDDED
from tests.cli.command import assert_one_line
from tests.gguf_writer import tokenizer_metadata, write_gguf
from tests.tiny import checkpoint, tiny


@pytest.fixture
def no_weights(tmp_path):
    """A model without markers and predictor, with weights that cannot be read."""
    path = checkpoint(tmp_path, "llama", markers=None)
    (path / "model.safetensors").write_bytes(b"none")
    return path


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--budget", 99, "--policy", "learned"), "--policy learned needs a model with an import"),
        (("--think-budget", 9), "--think-budget needs a model that marks its thoughts, and"),
        (("--latent", "learned"), "--latent learned needs a model with learned latent steps"),
    ],
)
@pytest.mark.parametrize("command", ["run hi", "chat", "serve --port 0"])
def test_it_is_refused(sparing, no_weights, command, options, said):
    assert_one_line(sparing(*command.split(), "--model", no_weights, *options), said)


def test_markers_in_files():
    assert has_markers(tiny()) is True
    assert has_markers(tiny(markers="several")) is True
    assert has_markers(tiny(markers=None)) is False
    assert has_markers(EMBEDDED["pocket"].path()) is True


@pytest.mark.parametrize(("markers", "found"), [("single", True), ("several", True), (None, False)])
def test_markers_in_a_gguf(tmp_path, markers, found):
    metadata = tokenizer_metadata(tiny(markers=markers))
    assert has_markers(write_gguf(tmp_path / "model.gguf", metadata, {})) is found


def test_no_tokenizer_to_read(tmp_path):
    path = checkpoint(tmp_path, "llama")
    (path / "tokenizer.json").unlink()
    assert has_markers(path) is None


@pytest.mark.parametrize("options", [("--raw",), ()])
def test_no_think_without_effect_is_said(sparing, options):
    outcome = sparing("run", "hi", "--model", tiny(), "--no-think", "--max-new-tokens", 2, *options)
    assert outcome.code == 0
    assert "note: --no-think has no effect" in outcome.err

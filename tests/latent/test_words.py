"""Words for latents on a tiny model: shorter from part to part, and back where it fails."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from sparing.errors import OptionError
from sparing.latent import words
from sparing.latent.config import load_latents
from sparing.latent.spans import LEAST, droppable
from sparing.latent.words import FILE, Shortener, begins_words, importance_of, read_spans
from sparing.model.config import read_json
from sparing.train.reason import load_base
from tests.latent.test_train import source, stages, train, weights
from tests.memory.small import write_predictor
from tests.tiny import NARROW, checkpoint
from tests.train.small import assert_identical


@pytest.fixture
def base(tmp_path):
    path = checkpoint(tmp_path / "base", **NARROW)
    write_predictor(path, path)
    return path


def of_words(numbers=(2, 3), base=None, **changed):
    return stages("words-for-latents", numbers, base=str(base), **changed)


def test_parts_share_the_steps_and_the_share_grows(base):
    parts = of_words((1, 2, 3), base)[2:]
    assert [part.steps for part in parts] == [1, 1, 1, 1]
    assert [part.drop for part in parts] == pytest.approx([0.4 / 3, 0.8 / 3, 0.4, 0.4])
    assert [part.part for part in parts] == [1, 2, 3, 4]


def test_stopped_and_resumed(tmp_path, base):
    wanted = of_words(base=base, layer=-1)
    assert train(base, tmp_path / "unbroken", wanted)
    for number, stop in enumerate((1, 4, 6)):
        assert not train(base, tmp_path / "out", wanted, stop, resume=number > 0)
    assert train(base, tmp_path / "out", wanted, resume=True)
    assert_identical(weights(tmp_path / "out"), weights(tmp_path / "unbroken"))
    assert read_json(tmp_path / "out" / "latent.json")["most"] == 48


def test_without_a_predictor_or_a_second_stage(tmp_path, base):
    bare = checkpoint(tmp_path / "bare", **NARROW)
    with pytest.raises(OptionError, match="needs a base with an importance predictor"):
        train(bare, tmp_path / "a", of_words(base=bare))
    with pytest.raises(OptionError, match="been through stage 2"):
        train(base, tmp_path / "b", of_words((3,), base))
    assert train(bare, tmp_path / "c", of_words(base=bare, predictor=str(base))) is True


@pytest.fixture
def shortened(tmp_path, base):
    """Examples whose words go in two parts, from one model."""
    assert train(base, tmp_path / "second", of_words((2,), base))
    model, tokenizer = load_base(str(tmp_path / "second"))
    _, vector = load_latents(tmp_path / "second", tokenizer)
    examples = source(tokenizer).examples

    def part(number, drop, before):
        settings = of_words((3,), base, drop=drop)[0].model_copy(
            update={"part": number, "drop": drop}
        )
        out = tmp_path / f"part-{number}-{drop}"
        out.mkdir()
        short = Shortener(settings, base, model, vector, tokenizer, before, out)
        found = short("train", examples)
        kept = out / FILE.format("train")
        content, written = load_file(kept), kept.stat().st_ino
        assert short("train", examples).fingerprint() == found.fingerprint()
        assert kept.stat().st_ino == written, "as it was kept"
        return out, read_spans(content["spans"], examples), content["banned"], found

    return examples, part


def tokens(spans):
    return [{at for span in own for at in range(span.begin, span.end)} for own in spans]


def test_a_growing_share_of_the_thought_goes(tmp_path, shortened, base):
    examples, part = shortened
    _, few, banned, _ = part(1, 0.3, tmp_path)
    _, many, _, found = part(2, 0.7, tmp_path)
    assert not banned.any()
    assert sum(map(len, tokens(few))) < sum(map(len, tokens(many)))
    settings = of_words((3,), base)[0]
    values = importance_of(examples, base, settings)
    chosen, free = [], []
    for row, gone in enumerate(tokens(few)):
        example, start = examples[row], examples.starts[row]
        inside = droppable(example.ids, example.roles, [257], [258])
        assert len(gone) < inside.sum()
        assert not gone or len(gone) >= LEAST
        assert inside[list(gone)].all()
        chosen += [values[start + at] for at in gone]
        free += values[start : start + len(inside)][inside].tolist()
    assert np.mean(chosen) < np.mean(free)
    begins = begins_words(load_base(str(base))[1])
    for row, own in enumerate(many):
        starts = begins[np.asarray(examples[row].ids)]
        for span in own:
            assert starts[span.begin]
            assert starts[span.end], "no word is cut"
        dropped, latents = sum(map(len, own)), sum(span.latents for span in own)
        assert found.lengths[row] == examples.lengths[row] - dropped + latents


@pytest.mark.parametrize(("floor", "back"), [(1.1, True), (0.0, False)])
def test_words_come_back_where_the_model_cannot_go_on(
    tmp_path, shortened, monkeypatch, floor, back
):
    _, part = shortened
    out, few, _, _ = part(1, 0.3, tmp_path)
    monkeypatch.setattr(words, "FLOOR", floor)
    _, many, banned, _ = part(2, 0.7, out)
    assert bool(banned.any()) == back
    together = [a & b for a, b in zip(tokens(few), tokens(many), strict=True)]
    assert any(together) != back

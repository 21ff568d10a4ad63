"""Words for latents on a tiny model: shorter from stage to stage, and back where it fails."""

import numpy as np
import pytest

from sparing.errors import OptionError
from sparing.files import read_json
from sparing.latent import word_dropping
from sparing.latent.config import load_latents
from sparing.latent.spans import LEAST, droppable
from sparing.latent.train import train_stage
from sparing.latent.word_classes import kinds_of
from sparing.latent.word_dropping import FILE, WordDropper, importance_of, read_rule
from sparing.train.examples import ExampleSet
from sparing.train.reason import load_base
from tests.latent.test_train import source, stages, train, weights
from tests.memory.small import write_predictor
from tests.tiny import NARROW, checkpoint
from tests.train.small import assert_identical, forget_accelerate


@pytest.fixture
def base(tmp_path):
    path = checkpoint(tmp_path / "base", **NARROW)
    write_predictor(path, path)
    return path


def of_words(numbers=(2, 3), base=None, **changed):
    return stages("words-for-latents", numbers, base=str(base), **changed)


def test_stopped_and_resumed(tmp_path, base):
    wanted = of_words(base=base, layer=-1)
    assert train(base, tmp_path / "unbroken", wanted)
    for number, stop in enumerate((1, 4, 6)):
        assert not train(base, tmp_path / "out", wanted, stop, resume=number > 0)
    assert train(base, tmp_path / "out", wanted, resume=True)
    assert_identical(weights(tmp_path / "out"), weights(tmp_path / "unbroken"))
    assert read_json(tmp_path / "out" / "latent.json")["most"] == 128 * 24
    assert {"goes", "stays", "values"} <= read_json(tmp_path / "out" / FILE).keys()


def test_two_stages_may_drop(tmp_path, base, monkeypatch):
    """The second goes on from the rule of the first, and from its row of the head."""
    aimed = []
    monkeypatch.setattr("sparing.latent.train.aim_row", lambda *given: aimed.append(given))
    [settings] = of_words((3,), base, drop=0.5)
    fewer = settings.model_copy(update={"stage": 2, "drop": 0.2})
    before, after = tmp_path / "before", tmp_path / "after"
    forget_accelerate()
    assert train_stage(base, source, fewer, before)
    assert train_stage(before, source, settings, after)
    assert len(aimed) == 1
    of = source(load_base(str(base))[1]).examples.fingerprint()
    first, second = (read_rule(out / FILE, of) for out in (before, after))
    assert (first.stage, second.stage) == (2, 3)
    assert second.values == first.values
    assert second.stays <= first.goes


def test_without_a_predictor(tmp_path, base):
    bare = checkpoint(tmp_path / "bare", **NARROW)
    with pytest.raises(OptionError, match="needs a base with an importance predictor"):
        train(bare, tmp_path / "a", of_words(base=bare))
    assert train(bare, tmp_path / "c", of_words(base=bare, predictor=str(base))) is True


@pytest.fixture
def shortened(tmp_path, base):
    """Examples whose words go in two stages, by one model."""
    assert train(base, tmp_path / "first", of_words((3,), base))
    model, tokenizer = load_base(str(tmp_path / "first"))
    _, vector = load_latents(tmp_path / "first", tokenizer)
    examples = source(tokenizer).examples

    def staged(number, drop, before):
        settings = of_words((3,), base, drop=drop)[0].model_copy(
            update={"stage": number, "drop": drop}
        )
        out = tmp_path / f"stage-{number}-{drop}"
        out.mkdir()
        short = WordDropper(settings, base, model, vector, tokenizer, before, out)
        (found,) = short({"train": examples})
        kept, written = out / FILE, (out / FILE).stat().st_ino
        again, fewer = short({"train": examples, "validation": ExampleSet([examples[0]])})
        assert again.fingerprint() == found.fingerprint()
        assert fewer[0] == found[0], "one rule for all"
        assert kept.stat().st_ino == written, "as it was kept"
        rule = read_rule(kept, examples.fingerprint())
        return out, short.spans(examples, rule), rule, found

    return examples, staged


def tokens(spans):
    return [{at for span in own for at in range(span.begin, span.end)} for own in spans]


def test_a_growing_share_of_the_thought_goes(tmp_path, shortened, base):
    examples, staged = shortened
    _, few, first, _ = staged(2, 0.3, tmp_path)
    _, many, second, found = staged(3, 0.7, tmp_path)
    assert not first.stays
    assert first.goes < second.goes, "the least valued kinds first"
    assert max(first.values[name] for name in first.goes) < min(
        value for name, value in first.values.items() if name not in first.goes
    )
    assert sum(map(len, tokens(few))) < sum(map(len, tokens(many)))
    kinds = kinds_of(examples, load_base(str(base))[1])
    each = map(examples.__getitem__, range(len(examples)))
    inside = np.concatenate([droppable(e.ids, e.roles, [257], [258]) for e in each])
    values = importance_of(examples, base, of_words((3,), base)[0])
    assert first.values == kinds.means(values, kinds.whole(inside))
    for row, own in enumerate(many):
        start = examples.starts[row]
        for span in own:
            assert len(span) >= LEAST
            assert inside[start + span.begin : start + span.end].all()
            for edge in start + np.array([span.begin, span.end]):
                assert kinds.piece[edge - 1] != kinds.piece[edge], "no number is cut"
        dropped, latents = sum(map(len, own)), sum(span.latents for span in own)
        assert found.lengths[row] == examples.lengths[row] - dropped + latents


@pytest.mark.parametrize(("floor", "back"), [(1.1, True), (0.0, False)])
def test_kinds_come_back_where_the_model_cannot_go_on(
    tmp_path, shortened, monkeypatch, floor, back
):
    _, staged = shortened
    out, few, first, _ = staged(2, 0.3, tmp_path)
    monkeypatch.setattr(word_dropping, "FLOOR", floor)
    _, many, second, _ = staged(3, 0.7, out)
    assert second.values == first.values, "what words are worth is asked once"
    together = [a & b for a, b in zip(tokens(few), tokens(many), strict=True)]
    if back:
        assert any(tokens(few))
        assert second.stays <= first.goes
        assert second.stays.isdisjoint(second.goes)
        assert not any(together)
    else:
        assert not second.stays
        assert any(together)


def test_a_few_misses_are_forgiven(tmp_path, shortened, monkeypatch):
    """The share of a kind's spans behind which a model is at a loss decides, not a single one."""
    _, staged = shortened
    monkeypatch.setattr(word_dropping, "FLOOR", 1.1)
    monkeypatch.setattr(word_dropping, "MISSED", 1.0)
    out, _, _, _ = staged(2, 0.3, tmp_path)
    assert not staged(3, 0.7, out)[2].stays


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"goes": 3}', "other examples"])
def test_a_rule_that_cannot_be_read_is_none(tmp_path, shortened, content):
    examples, staged = shortened
    out, *_ = staged(2, 0.3, tmp_path)
    path = tmp_path / FILE
    if content == "other examples":
        path.write_text((out / FILE).read_text())
        assert read_rule(path, examples.fingerprint()) is not None
        assert read_rule(path, "another") is None
        return
    if content is not None:
        path.write_text(content)
    assert read_rule(path, examples.fingerprint()) is None

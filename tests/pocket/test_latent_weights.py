"""The models that ship beside pocket: one that thinks latent steps, and its control."""

import json

import pytest

from sparing import Depth, Latent, Memory, Sampling, load
from sparing.engine.events import LatentEvent
from sparing.errors import OptionError
from sparing.model.sources import POCKET_COT, POCKET_LATENT
from sparing.tasks.families import FAMILIES
from sparing.tasks.find import family_tasks
from sparing.train.settings import SETTINGS_FILE
from tests.tiny import assert_same_tokens, next_logits, reference, reference_tokens

GREEDY = Sampling(temperature=0)
LEARNED = Latent(mode="learned")
FOLDERS = {"pocket-latent": POCKET_LATENT, "pocket-cot": POCKET_COT}


@pytest.fixture(scope="module")
def engines():
    return {name: load(name) for name in FOLDERS}


@pytest.fixture(scope="module")
def thinker(engines):
    return engines["pocket-latent"]


def asked(family, n=1, seed=5):
    return [
        [{"role": "user", "content": problem.question}]
        for problem in family_tasks()[family].problems(n, seed)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", FOLDERS)
def test_solves_at_standard(engines, name, family):
    task = family_tasks()[family]
    problems = task.problems(8, 5)
    latent = LEARNED if name == "pocket-latent" else None
    results = engines[name].generate(asked(family, 8), latent=latent, sampling=GREEDY)
    right = [task.grade(p, r.answer) for p, r in zip(problems, results, strict=True)]
    assert sum(right) >= 6
    assert all(r.notice is None for r in results)


@pytest.mark.slow
def test_thinks_some_steps_without_words(thinker):
    results = thinker.generate(asked("countdown-hard", 16), latent=LEARNED, sampling=GREEDY)
    thoughts = [e for r in results for e in r.events if isinstance(e, LatentEvent)]
    assert len(thoughts) > 8
    for thought in thoughts:
        assert 1 <= len(thought.top) <= 3
        assert all(0 < p <= 1 and word for word, p in thought.top)
    assert sum(r.stats.latent_tokens for r in results) == len(thoughts)
    assert not any("<thinking>" in r.text for r in results)


def test_without_latents_it_is_a_plain_checkpoint(thinker):
    """The tokens of transformers, which knows of no latent token."""
    [result] = thinker.generate(asked("times"), depth=Depth(draft="off"), sampling=GREEDY)
    assert result.stats.latent_tokens == 0
    prompt, model = result.prompt_token_ids, reference(POCKET_LATENT, "float32")
    expected = reference_tokens(model, prompt, len(result.token_ids))
    assert_same_tokens(result.token_ids, expected, next_logits(model, prompt))


@pytest.mark.slow
def test_with_its_own_predictor_and_layer_set(thinker):
    several = asked("countdown-hard", 16)
    questions = [several[8], several[11], several[15]]  # long searches
    memory = Memory(budget=400)
    plain, drafted = (
        thinker.generate(questions, memory, Depth(draft=draft), LEARNED, GREEDY)
        for draft in ("off", "layers")
    )
    assert [r.token_ids for r in drafted] == [r.token_ids for r in plain]
    assert all(r.stats.policy == "learned" and r.stats.evictions > 0 for r in plain)
    assert sum(r.stats.latent_tokens for r in plain) > 0
    assert sum(r.stats.accepted for r in drafted) > sum(r.stats.new_tokens for r in drafted) / 2


def test_the_control_has_no_latents(engines):
    with pytest.raises(OptionError, match="latent"):
        engines["pocket-cot"].generate(asked("sums"), latent=LEARNED)


def test_both_were_trained_alike():
    """From pocket, on the same examples, for as many steps: they differ in latents alone."""
    latent, control = (
        json.loads((folder / SETTINGS_FILE).read_text()) for folder in FOLDERS.values()
    )
    differ = {name for name in latent if latent[name] != control[name]}
    assert differ == {"latents", "examples"}

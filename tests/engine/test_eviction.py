"""Which slots stay when a budget is reached: the worked example, an oracle, every protection."""

import re
import string

import numpy as np
import pytest
import torch

from sparing.engine.cache import Kind, SlotCache
from sparing.engine.drafter import NoDrafter
from sparing.engine.events import EvictEvent, TokenEvent, scores_by_position
from sparing.engine.eviction import Budget, SlotView, select
from sparing.errors import PromptError
from sparing.memory.policies.learned import Learned
from sparing.memory.policies.random import Random
from sparing.memory.policies.streaming import Streaming
from sparing.memory.policies.window import Window
from sparing.options import Memory
from tests.engine.driving import greedy, run
from tests.tiny import engine, tiny

PROMPT, THOUGHT, LATENT, ANSWER = Kind.PROMPT, Kind.THOUGHT, Kind.LATENT, Kind.ANSWER


class Letters:
    """A row whose slot contents are letters: keys and values hold a letter's number."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.cache = SlotCache(2, 1, 2, 3, capacity=budget.slots)
        self.next = 0

    def write(self, letters: str, scores: list[float], kind: Kind) -> None:
        for letter, score in zip(letters, scores, strict=True):
            slot = self.cache.lengths[0]
            for tensor in (*self.cache.keys, *self.cache.values):
                tensor[0, :, slot] = ord(letter)
            self.cache.commit(0, [0], [self.next], [kind], [[score]])
            self.next += 1

    def evict(self) -> str:
        length = self.cache.lengths[0]
        assert length == self.budget.slots, "the budget must be reached"
        positions, kinds, scores = (
            values[0, :length]
            for values in (self.cache.positions, self.cache.kinds, self.cache.scores)
        )
        view = SlotView(positions, kinds, positions, scores, seed=0)
        keep = select(Learned().score(view), kinds, self.budget)
        assert keep is not None
        gone = self.cache.evict(0, keep)
        self.cache.check()
        return "".join(string.ascii_uppercase[position] for position in gone)

    @property
    def held(self) -> str:
        """What the slots really hold, the same in every layer and head of keys and values."""
        length = self.cache.lengths[0]
        tensors = [t[0, :, :length] for t in (*self.cache.keys, *self.cache.values)]
        content = torch.stack(tensors).flatten(end_dim=1)
        assert (content == content[:1, :, :1]).all()
        text = "".join(chr(int(number)) for number in content[0, :, 0])
        positions = self.cache.positions[0, :length]
        assert text == "".join(string.ascii_uppercase[position] for position in positions)
        return text


def test_the_worked_example_two_evictions_long():
    """spec/memory.md; the question's infinity is a protection, its scores are finite."""
    row = Letters(Budget(slots=11, question=2, local=3, selection=2))
    row.write("AB", [0.0, 0.0], PROMPT)
    row.write("CDEFGH", [0.2, 0.1, 0.5, 0.1, 0.4, 0.2], THOUGHT)
    row.write("IJK", [0.1, 0.3, 0.3], THOUGHT)
    assert row.evict() == "CDFH"
    assert row.held == "ABEGIJK"
    row.write("LMNO", [0.7, 0.4, 0.1, 0.2], THOUGHT)
    assert row.evict() == "GIJK"
    assert row.held == "ABELMNO"
    assert row.cache.scores[0, :7, 0] == pytest.approx([0, 0, 0.5, 0.7, 0.4, 0.1, 0.2])
    row.write("P", [0.2], THOUGHT)  # the figure's X, "processed next"
    assert row.held == "ABELMNOP"
    assert row.cache.scores[0, 7, 0] == np.float32(0.2)
    assert row.cache.positions[0, :8].tolist() == [0, 1, 4, 11, 12, 13, 14, 15]


def test_the_worked_example_in_the_engine():
    """The same figure through the loop: the predictor says what the figure's slots say."""
    figure = [0.0, 0.0, 0.2, 0.1, 0.5, 0.1, 0.4, 0.2, 0.1, 0.3, 0.3, 0.7, 0.4, 0.1, 0.2, 0.2]
    to_say = iter(figure)

    def predictor(hidden):
        return torch.tensor([[next(to_say)] for _ in hidden])

    memory = Memory(budget=11, local=3, selection=2)
    [result] = run(
        engine(tiny(markers=None)),
        [[1, 2]],
        greedy(15),
        memory,
        policy=Learned(),
        predictor=predictor,
        drafter=NoDrafter(),
    )
    evictions = [event for event in result.events if isinstance(event, EvictEvent)]
    gone = ["".join(string.ascii_uppercase[p] for p in event.positions) for event in evictions]
    assert gone == ["CDFH", "GIJK"]
    assert [event.at for event in evictions] == [11, 15]
    said = [event for event in result.events if isinstance(event, TokenEvent)]
    assert said[13].position == 15
    assert scores_by_position(result.events) == pytest.approx(dict(enumerate(figure[2:], 2)))
    assert result.stats.policy == "learned"


def oracle(scores: list[float], kinds: list[Kind], budget: Budget) -> list[bool] | None:
    """The rule in the words of the spec, slot by slot."""
    count = len(kinds)
    evictable = [i for i in range(count - budget.local) if kinds[i] in (THOUGHT, LATENT)]
    answers = [i for i in range(count - budget.local) if kinds[i] == ANSWER]
    while True:
        if isinstance(budget.selection, int):
            stay = min(budget.selection, len(evictable))
        else:
            stay = int(budget.selection * len(evictable))
        if len(evictable) - stay >= max(1, 0.05 * (budget.slots - budget.question)):
            break
        if not answers:
            return None
        evictable.append(answers.pop(0))
    ranked = sorted(evictable, key=lambda i: (scores[i], i), reverse=True)
    gone = set(ranked[stay:])
    return [i not in gone for i in range(count)]


def test_ten_thousand_rows_against_the_rule():
    """Scores with many ties, kinds in any order behind the prompt, counts and ratios."""
    random = np.random.default_rng(0)
    nothing_goes = answers_go = 0
    for _ in range(10_000):
        count, question = int(random.integers(2, 60)), int(random.integers(1, 8))
        question = min(question, count - 1)
        shares = random.dirichlet([1, 0.3, 1])
        kinds = [PROMPT] * question + [
            (THOUGHT, LATENT, ANSWER)[k] for k in random.choice(3, count - question, p=shares)
        ]
        scores = random.integers(0, random.integers(2, 30), count) / 8
        selection = int(random.integers(0, 20)) if random.random() < 0.5 else float(random.random())
        budget = Budget(count, question, int(random.integers(1, count - question + 1)), selection)
        keep = select(scores, np.array(kinds, np.int8), budget)
        expected = oracle(scores.tolist(), kinds, budget)
        assert (keep if keep is None else keep.tolist()) == expected
        nothing_goes += keep is None
        answers_go += keep is not None and (np.array(kinds)[~keep] == ANSWER).any()
    assert nothing_goes > 500
    assert answers_go > 500


def kept(kinds: str, budget: Budget, scores: list[float] | None = None) -> str | None:
    """``kinds`` a letter a slot (p, t, l, a); the answer marks what goes with a dot."""
    of = {"p": PROMPT, "t": THOUGHT, "l": LATENT, "a": ANSWER}
    values = np.arange(len(kinds), dtype=float) if scores is None else np.array(scores, float)
    keep = select(values, np.array([of[k] for k in kinds], np.int8), budget)
    if keep is None:
        return None
    return "".join(k if stays else "." for k, stays in zip(kinds, keep, strict=True))


@pytest.mark.parametrize(
    ("kinds", "local", "selection", "stays"),
    [
        ("pptttttt", 2, 0, "pp....tt"),
        ("pptttttt", 2, 3, "pp.ttttt"),
        ("pptltltt", 2, 1, "pp...ltt"),  # latents are as thoughts
        ("ppttaaat", 1, 0, "pp..aaat"),  # answers stay while a thought can go
        ("ppaaaaaa", 2, 0, "pp.aaaaa"),  # then they go, oldest first, no more than must
        ("ppaaatta", 3, 1, "pp.aatta"),  # one is freed beside the one that survives
        ("ppaattta", 2, 1, "ppaa.tta"),
        ("ppaaaaaa", 6, 0, None),  # all in the local window
        ("pppppttt", 3, 0, None),
        ("ppttttta", 2, 9, None),  # all may survive: nothing goes
    ],
)
def test_protections(kinds, local, selection, stays):
    assert kept(kinds, Budget(len(kinds), kinds.count("p"), local, selection)) == stays


def test_ties_go_to_the_later_slot_and_a_low_score_does_not_open_the_prompt():
    assert kept("pttttt", Budget(6, 1, 1, 2), [-9, 1, 1, 1, 1, 0]) == "p..ttt"


@pytest.mark.parametrize(("slots", "must_free"), [(8, 1), (20, 1), (40, 2), (100, 5)])
def test_an_eviction_frees_a_twentieth_of_the_budget(slots, must_free):
    for free in range(1, 8):
        kinds = "p" + "a" * (slots - 3 - free) + "t" * free + "aa"
        budget = Budget(slots, 1, 2, 0)
        stays = kept(kinds, budget)
        assert stays is not None
        assert stays.count(".") == max(free, must_free)
        opened = max(0, must_free - free)
        assert stays == kinds.replace("t", ".").replace("a", ".", opened)


def test_a_row_that_can_free_nothing_ends_with_what_it_had_said():
    model = engine(tiny(markers=None))
    memory = Memory(budget=44, local=39)
    [result] = run(model, [[1, 2, 3, 4]], greedy(100), memory)
    assert result.finish_reason == "budget"
    assert result.stats.new_tokens == 44 - 4 + 1
    assert result.stats.evictions == 0
    [longer] = run(model, [[1, 2, 3, 4]], greedy(100), Memory(budget=44, local=37, selection=0))
    assert longer.finish_reason == "length"
    assert longer.token_ids[:41] == result.token_ids


@pytest.mark.parametrize("local", [None, 1, 6])
@pytest.mark.parametrize("question", [1, 9, 300])
@pytest.mark.parametrize("policy", ["window", "streaming", "random"])
def test_a_prompt_that_does_not_fit_names_the_smallest_budget_that_does(question, local, policy):
    model = engine(tiny(markers=None))
    prompt = list(range(question % 250)) or [1]
    with pytest.raises(PromptError, match=r"pass a budget of \d+ or more") as caught:
        model.generate([prompt], memory=Memory(budget=question % 250, local=local, policy=policy))
    least = int(re.search(r"a budget of (\d+)", str(caught.value)).group(1))
    assert least == len(prompt) + (local or 1) + 1  # room for one slot that may go
    with pytest.raises(PromptError, match=str(least)):
        model.request(prompt, Memory(budget=least - 1, local=local))
    [result] = run(model, [prompt], greedy(30), Memory(budget=least, local=local, policy=policy))
    assert result.finish_reason == "length"
    assert result.stats.evictions == 30 - (least - len(prompt) + 1)


@pytest.mark.parametrize("options", [{"selection": 7}, {"local": 0.5, "selection": 0.8}, {}])
@pytest.mark.parametrize("question", [1, 60])
def test_the_smallest_budget_that_is_named_evicts(question, options):
    with pytest.raises(PromptError) as caught:
        Budget.of(Memory(budget=question, **options), question, 0)
    least = int(re.search(r"a budget of (\d+)", str(caught.value)).group(1))
    assert not Budget.sized(Memory(budget=least - 1, **options), question, least - 1).evicts
    prompt = list(range(question))
    memory = Memory(budget=least, **options)
    [result] = run(engine(tiny(markers=None)), [prompt], greedy(60), memory)
    assert result.finish_reason == "length"
    assert result.stats.evictions > 0


def test_the_question_does_not_count_in_what_an_eviction_frees():
    model = engine(tiny(markers=None))
    prompt = [i % 250 for i in range(900)]
    [result] = run(model, [prompt], greedy(200), Memory(budget=1024, policy="window"))
    assert (result.finish_reason, len(result.token_ids)) == ("length", 200)
    assert result.stats.evictions > 0


def test_budgets_as_counts_and_shares():
    assert Budget.of(Memory(), 10, 100) is None
    assert Budget.of(Memory(budget=60), 10, 999) == Budget(60, 10, 20, 0.4)
    assert Budget.of(Memory(budget=0.25), 10, 100) == Budget(35, 10, 10, 0.4)
    assert Budget.of(Memory(budget=1.0), 10, 100) == Budget(110, 10, 40, 0.4)
    assert Budget.of(Memory(budget=60, local=5, selection=0), 10, 1) == Budget(60, 10, 5, 0)
    assert Budget.of(Memory(budget=60, selection=0.5), 10, 1).survivors(25) == 12
    assert Budget.of(Memory(budget=60, local=0.5), 10, 1) == Budget(60, 10, 25, 0.4)
    assert Budget(60, 10, 5, 7).survivors(3) == 3


def test_policies_score_and_every_policy_frees_as_much():
    kinds = np.array([PROMPT] * 3 + [THOUGHT] * 20, np.int8)
    positions = np.array([0, 1, 2, *range(5, 45, 2)])
    view = SlotView(positions, kinds, positions, np.zeros((23, 1), np.float32), seed=5)
    budget = Budget(23, 3, 6, 0.5)
    keeps = [select(p.score(view), kinds, budget) for p in (Window(), Streaming(), Random())]
    assert [int(keep.sum()) for keep in keeps] == [3 + 6 + 7] * 3
    assert positions[keeps[0]].tolist() == [0, 1, 2, *range(19, 45, 2)]
    assert positions[keeps[1]].tolist() == [0, 1, 2, 5, 7, 9, 11, *range(27, 45, 2)]
    later = SlotView(positions[4:], kinds[4:], positions[4:], view.scores[4:], seed=5)
    assert np.array_equal(Random().score(later), Random().score(view)[4:])


@pytest.mark.parametrize("selection", [0, 1, 5, 0.2, 0.8])
def test_kept_scores_stay_with_their_slots(selection):
    random = np.random.default_rng(2)
    row = Letters(Budget(20, 2, 4, selection))
    scores = random.random(26).astype(np.float32)
    row.write("AB", scores[:2].tolist(), PROMPT)
    while row.next < 26:
        row.write(string.ascii_uppercase[row.next], [float(scores[row.next])], THOUGHT)
        if row.cache.lengths[0] == 20:
            row.evict()
        length = row.cache.lengths[0]
        held = row.cache.positions[0, :length]
        assert np.array_equal(row.cache.scores[0, :length, 0], scores[held])
    assert len(row.held) < 20

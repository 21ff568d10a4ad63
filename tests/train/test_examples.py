"""Examples: what is tokenized, what is taught, and how rows are batched."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparing.model.chat import ChatFormat
from sparing.model.generation_defaults import GenerationDefaults
from sparing.pocket.tokenizer import train_tokenizer
from sparing.train.examples import (
    RECALL,
    SHOWN,
    TAUGHT,
    Encoded,
    Example,
    ExampleSet,
    Piece,
    encode,
)
from tests.tiny import tokenizer

USER = [{"role": "user", "content": "how many legs?"}]
PIECES = [
    Piece("<think>\n2+2="),
    Piece("5", taught=False),
    Piece(" wait, no. "),
    Piece("4", recall=True),
    Piece("4", taught=False, recall=True),
    Piece("</think>\n\n4"),
]
ROWS = st.lists(
    st.lists(
        st.tuples(st.integers(0, 500), st.sampled_from((SHOWN, TAUGHT, RECALL))),
        min_size=1,
        max_size=12,
    ),
    min_size=1,
    max_size=8,
)


def encoded(rows):
    return [Encoded([i for i, _ in row], [r for _, r in row], "task") for row in rows]


def test_prompt_pieces_and_end_token_one_after_the_other():
    fast = tokenizer()
    found = encode(fast, Example(USER, PIECES, "legs"))
    parts = ["[user] how many legs?\n[assistant] ", *(piece.text for piece in PIECES)]
    ids = [fast.encode(part, add_special_tokens=False) for part in parts]
    roles = [SHOWN, TAUGHT, SHOWN, TAUGHT, RECALL, SHOWN, TAUGHT]
    assert found.ids == [token for part in ids for token in part] + [fast.eos_token_id]
    wanted = [role for part, role in zip(ids, roles, strict=True) for _ in part]
    assert found.roles == [*wanted, TAUGHT]
    assert found.task == "legs"


def test_the_prompt_is_what_the_engine_would_ask():
    fast = tokenizer()
    prompt = ChatFormat(fast, GenerationDefaults(frozenset())).encode(USER).ids
    assert encode(fast, Example(USER, PIECES, "")).ids[: len(prompt)] == prompt


def test_pieces_are_tokenized_apart():
    fast = train_tokenizer(["wonderful wonderful wonderful"])
    [whole] = fast.encode("wonderful", add_special_tokens=False)
    apart = encode(fast, Example(USER, [Piece("wonder"), Piece("ful")], "")).ids
    together = encode(fast, Example(USER, [Piece("wonderful")], "")).ids
    assert whole in together
    assert whole not in apart


@settings(deadline=None)
@given(ROWS, st.data())
def test_a_batch_holds_its_rows_and_nothing_behind_them(rows, data):
    examples = ExampleSet(encoded(rows))
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=10))
    ids, roles = examples.batch(chosen)
    assert ids.shape == roles.shape == (len(chosen), max(len(rows[row]) for row in chosen))
    assert ids.dtype == torch.long
    for at, row in enumerate(chosen):
        length = len(rows[row])
        assert list(zip(ids[at].tolist(), roles[at].tolist(), strict=True))[:length] == rows[row]
        assert not ids[at, length:].any()
        assert (roles[at, length:] == SHOWN).all()
    assert examples.taught(chosen) == int((roles != SHOWN).sum())


@settings(deadline=None)
@given(ROWS, st.data())
def test_the_fingerprint_changes_with_any_id_role_or_border(rows, data):
    at = data.draw(st.integers(0, len(rows) - 1))
    place = data.draw(st.integers(0, len(rows[at]) - 1))
    token, role = rows[at][place]
    changes = [[(token + 1, role)], [(token, (role + 1) % 3)], [(token, role)] * 2]
    prints = {ExampleSet(encoded(rows)).fingerprint()}
    for change in changes:
        row = [*rows[at][:place], *change, *rows[at][place + 1 :]]
        prints.add(ExampleSet(encoded([*rows[:at], row, *rows[at + 1 :]])).fingerprint())
    assert len(prints) == 4
    assert ExampleSet(encoded(rows)).fingerprint() in prints


def test_the_same_tokens_in_other_rows_are_other_examples():
    tokens = [(5, TAUGHT), (6, TAUGHT), (7, TAUGHT)]
    prints = {
        ExampleSet(encoded([tokens[:cut], tokens[cut:]])).fingerprint() for cut in range(1, 3)
    }
    assert len(prints) == 2


def test_no_examples():
    nothing = ExampleSet([])
    assert len(nothing) == 0
    assert nothing.fingerprint() != ExampleSet(small()).fingerprint()


def small():
    return encoded([[(1, TAUGHT)]])


@pytest.mark.parametrize("opening", ["<think>\n", "<think>"])
def test_a_thought_that_the_template_opens_is_not_opened_twice(opening):
    """As DeepSeek-R1's template does."""
    fast = tokenizer()
    fast.chat_template = fast.chat_template.replace("[assistant] ", f"[assistant] {opening}")
    pieces = [Piece("<think>\n"), Piece("two</think>\n\n2")]
    text = fast.decode(encode(fast, Example(USER, pieces, "")).ids)
    assert text.count("<think>") == 1
    assert text.endswith("[assistant] <think>\ntwo</think>\n\n2<|endoftext|>")


def test_words_unsaid_come_by_row_position_and_word():
    """Wherever the row is among the examples, and in whatever order rows are asked for."""
    rows = encoded([[(4, TAUGHT)] * 3, [(5, TAUGHT)] * 4, [(6, TAUGHT)] * 2])
    said = [
        Encoded(row.ids, row.roles, row.task, dropped)
        for row, dropped in zip(rows, [{1: [7]}, {}, {0: [8, 9], 1: [7]}], strict=True)
    ]
    examples = ExampleSet(said)
    assert examples.dropped_of([2, 0]).T.tolist() == [[0, 0, 8], [0, 0, 9], [0, 1, 7], [1, 1, 7]]
    assert examples.dropped_of([1]).shape == (3, 0)
    assert examples[2] == said[2]
    assert ExampleSet(rows).dropped_of([0, 1]).shape == (3, 0)

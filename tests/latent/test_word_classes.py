"""Kinds of words: their digits unseen, cut where a number or a name ends and nowhere else."""

import numpy as np
import pytest

from sparing.latent.word_classes import kinds_of, pieces
from sparing.train.examples import TAUGHT, Encoded, ExampleSet


@pytest.mark.parametrize(
    ("tokens", "names"),
    [
        (["Ġ", "1", "4", "-", "6", "=", "8"],
         ["[Ġ]", "Ġ[00]", None, "Ġ00[-]", "Ġ00-[0]", "Ġ00-0[=]", "Ġ00-0=[0]"]),
        (["Ġtele", "phone", "s", ",", "2", "0", "x"], ["[Ġtelephones]", None, None,
         "Ġtelephones[,]", "Ġtelephones,[00]", None, "Ġtelephones,00[x]"]),
        (["▁15", "6", "%", "%"], ["[▁000]", None, "▁000[%]", "▁000%[%]"]),
        (["Ċ", "Ċ"], ["[Ċ]", "Ċ[Ċ]"]),
        (["½", "é"], ["[½]", "½[é]"]),
    ],
)  # fmt: skip
def test_pieces_by_hand(tokens, names):
    """None: a token that goes on with the piece before it."""
    found = pieces(tokens)
    assert [opens for _, opens in found] == [name is not None for name in names]
    assert [name for name, opens in found if opens] == [name for name in names if name]
    for at, (name, opens) in enumerate(found):
        assert opens or name == found[at - 1][0]


TOKENS = {0: "Ġ", 1: "1", 2: "2", 3: "+", 900: "Ġok"}


class Tokenizer:
    """Of tokens that are given as text; its ids have a gap, as those of some real ones."""

    def convert_ids_to_tokens(self, ids):
        return [TOKENS[id_] for id_ in ids]


def examples(*ids):
    return ExampleSet(Encoded(list(own), [TAUGHT] * len(own), "task") for own in ids)


def test_a_word_ends_with_its_example():
    """'1' and '2 12+1 ok' of two examples: no word, and no piece, is of both."""
    found = kinds_of(examples([1], [2, 0, 1, 2, 3, 1, 900]), Tokenizer())
    assert found.piece.tolist() == [0, 1, 2, 3, 3, 4, 5, 6]
    names = [found.names[number] for number in found.kind]
    assert names == ["[0]", "[0]", "[Ġ]", "Ġ[00]", "Ġ[00]", "Ġ00[+]", "Ġ00+[0]", "[Ġok]"]
    assert len(set(found.names)) == len(found.names)
    assert kinds_of(examples(), Tokenizer()).names == []


def test_values_and_what_is_whole_by_hand():
    found = kinds_of(examples([0, 1, 2, 3, 1], [0, 2, 2, 3, 2]), Tokenizer())
    free = np.array([1, 1, 0, 1, 1, 1, 1, 1, 1, 0], bool)
    whole = found.whole(free)
    assert whole.tolist() == [True, False, False, True, True, True, True, True, True, False]
    means = found.means(np.arange(10.0), whole)
    assert means == {"[Ġ]": 2.5, "Ġ[00]": 6.5, "Ġ00[+]": 5.5, "Ġ00+[0]": 4.0}
    nothing = found.means(np.arange(10.0), np.zeros(10, bool))
    assert nothing == {}, "what may never go has no value"

"""The loss of stage 1 against sums over single tokens."""

import pytest
import torch

from sparing.train.examples import RECALL, SHOWN, TAUGHT, Encoded, ExampleSet
from sparing.train.layer_dropout import exit_depths
from sparing.train.objective import ChainOfThought, Exits, Score, teacher_forced
from tests.train.small import small_model, small_rows

CLOSE = {"atol": 1e-6, "rtol": 1e-5}


def naive(model, rows, exits=Exits()):  # noqa: B008
    """Token by token, each row alone; the states after a layer are what the layer returns."""
    states = {}
    for depth in exits.depths:
        model.model.layers[depth - 1].register_forward_hook(
            lambda module, inputs, output, depth=depth: states.__setitem__(depth, output)
        )
    loss = torch.zeros(())
    for row in rows:
        last = model(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0]
        exit_ = [model.lm_head(model.model.norm(states[depth]))[0] for depth in exits.depths]
        for weight, logits in [(1.0, last), *((exits.weight, logits) for logits in exit_)]:
            chances = logits.log_softmax(-1)
            for at, (token, role) in enumerate(zip(row.ids, row.roles, strict=True)):
                if role != SHOWN:
                    loss = loss - weight * chances[at - 1, token]
    return loss


EXITS = {
    "none": Exits(),
    "no weight": Exits((1, 2), 0.0),
    "one": Exits((1,), 0.5),
    "all": Exits((1, 2, 3), 0.1),
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("exits", EXITS.values(), ids=EXITS)
def test_it_is_the_sum_over_taught_tokens(exits, tied):
    rows = small_rows(5)
    shape = {"num_hidden_layers": 4, "tie_word_embeddings": tied}
    model, again = small_model(**shape), small_model(**shape)
    ids, roles = ExampleSet(rows).batch(range(5))
    loss = ChainOfThought(model, exits)(ids, roles, total=7)
    expected = naive(again, rows, exits if exits.weight else Exits()) / 7
    torch.testing.assert_close(loss, expected, **CLOSE)
    loss.backward()
    expected.backward()
    for ours, theirs in zip(model.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, **CLOSE)


def test_padding_changes_nothing():
    rows = small_rows(3)
    exits = Exits((1,), 0.5)
    ids, roles = ExampleSet([*rows, Encoded([3] * 40, [SHOWN] * 40, "long")]).batch(range(4))
    model, again = small_model(), small_model()
    loss = ChainOfThought(model, exits)(ids, roles, total=1)
    alone = [ChainOfThought(again, exits)(*ExampleSet([row]).batch([0]), total=1) for row in rows]
    torch.testing.assert_close(loss, torch.stack(alone).sum(), **CLOSE)
    loss.backward()
    torch.stack(alone).sum().backward()
    for ours, theirs in zip(model.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4)


def test_nothing_taught_is_no_loss():
    """What a process computes that has no rows of its own."""
    model = small_model()
    ids, roles = ExampleSet(small_rows(2)).batch(range(2))
    loss = ChainOfThought(model, Exits((1,), 0.1))(ids, torch.zeros_like(roles), total=5)
    loss.backward()
    assert loss == 0
    assert not any(parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("layers", "depths"), [(16, [4, 5, 8]), (12, [3, 4, 6]), (4, [1, 2]), (2, [1]), (1, [])]
)
def test_exits_are_shares_of_the_layers_and_never_the_last(layers, depths):
    """The last layer's states are behind the norm already, and are no early exit."""
    assert exit_depths(layers, (0.25, 0.34, 0.5)) == depths
    assert exit_depths(layers, (1.0,)) == []


def test_teacher_forcing_looks_at_each_token_after_those_before_it():
    model = small_model()
    row = small_rows(1)[0].ids
    said = [int(model(torch.tensor([row[:at]])).logits[0, -1].argmax()) for at in range(1, 9)]
    right = teacher_forced(model, torch.tensor([row[:9]]))[0].tolist()
    assert right == [False, *(a == b for a, b in zip(said, row[1:9], strict=True))]
    greedy = [row[0]]
    for _ in range(8):
        greedy.append(int(model(torch.tensor([greedy])).logits[0, -1].argmax()))
    assert teacher_forced(model, torch.tensor([greedy]))[0].tolist() == [False] + [True] * 8


def test_scores_count_tokens_recalls_and_traces():
    score = Score()
    roles = torch.tensor([SHOWN, TAUGHT, RECALL, SHOWN, TAUGHT, SHOWN])
    score.add(torch.tensor([0, 1, 1, 0, 1, 0]).bool(), roles)  # wrong only where nobody asks
    assert score.shares() == {"token": 1, "trace": 1, "recall": 1}
    score.add(torch.tensor([1, 1, 0, 1, 0, 1]).bool(), roles)
    assert score.shares() == {"token": 4 / 6, "trace": 1 / 2, "recall": 1 / 2}
    plain = Score()
    plain.add(torch.tensor([False, True]), torch.tensor([SHOWN, TAUGHT]))
    assert plain.shares() == {"token": 1, "trace": 1}

"""The segmented forward against the oracle that runs the whole prefix anew for each latent."""

import gc

import pytest
import torch

from sparing.latent.attention import SegmentCache
from sparing.latent.forward import iterated_forward, segmented_forward
from sparing.latent.segments import segments
from sparing.train.cache_dropout import holes
from sparing.train.examples import TAUGHT
from tests.latent.oracle import recomputed
from tests.latent.small import LATENT, model, padded, row, vector

ROWS = [row(14, 5, 1), row(9, 0, 2), row(20, 7, 3, longest=4), row(6, 1, 4), [3, LATENT]]
RECIPES = {
    "fused": {},
    "hidden": {"vector": "hidden", "layer": -1},
    "first layer": {"layer": 1, "alpha": 0.3, "top_p": 0.95},
    "embeddings": {"layer": 0},
    "adapter": {"adapter": 7, "nucleus": "reference"},
    "pause": {"vector": "pause"},
    "norms": {"match_norms": True, "temperature": 0.5},
}


def logits_of(net, states):
    return net.get_output_embeddings()(states)


def forward(net, made, rows, more=0, fill=0, **options):
    ids, lengths = padded(rows, more, fill)
    return logits_of(net, segmented_forward(net, made, ids, lengths, **options)[-1])


def gradients(net, made, loss):
    weights = dict(net.named_parameters()) | dict(made.named_parameters())
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return dict(zip(weights, found, strict=True))


def loss_of(logits, ids):
    """Something that every position has a part in, some more than others."""
    wanted = torch.arange(len(ids), dtype=logits.dtype)
    return (logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)] * wanted.cos()).sum()


@pytest.mark.parametrize("name", RECIPES)
def test_equal_to_the_oracle(name):
    net, made = model(), vector(**RECIPES[name])
    check_against_oracle(net, made)


@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3"])
def test_every_family_tied_or_not(family):
    check_against_oracle(model(family, tie_word_embeddings=family == "qwen3"), vector())


def check_against_oracle(net, made):
    """Logits and all gradients, of a batch with many latents, few, and none."""
    logits = forward(net, made, ROWS, more=3)
    expected = [recomputed(net, made, r).logits[0] for r in ROWS]
    for ours, theirs, r in zip(logits, expected, ROWS, strict=True):
        assert (ours[: len(r)] - theirs).abs().max() < 1e-9
        assert not ours[len(r) :].any()
    pairs = zip(logits, ROWS, strict=True)
    ours = gradients(net, made, sum(loss_of(x[: len(r)], r) for x, r in pairs))
    theirs = gradients(net, made, sum(map(loss_of, expected, ROWS)))
    for name, gradient in theirs.items():
        assert ours[name] is not None
        assert (ours[name] - gradient).abs().max() < 1e-8 * max(float(gradient.abs().max()), 1)
    learned = dict(made.named_parameters())
    assert all(float(ours[name].abs().max()) > 0 for name in learned)


@torch.no_grad()
def test_neither_padding_nor_the_batch_matters():
    net, made = model(), vector()
    alone = [forward(net, made, [r])[0] for r in ROWS]
    for rows, more, fill in ((ROWS, 0, 0), (ROWS[::-1], 9, 77), (ROWS[1:3], 1, LATENT)):
        found = forward(net, made, rows, more, fill)
        for r, logits in zip(rows, found, strict=True):
            assert (logits[: len(r)] - alone[ROWS.index(r)]).abs().max() < 1e-9


@torch.no_grad()
def test_a_latent_changes_all_that_follows_and_nothing_before():
    net, made = model(), vector()
    plain = [5, 6, 7, 8, 9, 10]
    logits = forward(net, made, [[5, 6, 7, LATENT, 8, 9, 10]])[0]
    without = forward(net, made, [plain])[0]
    assert (logits[:3] - without[:3]).abs().max() < 1e-9
    assert (logits[4:7] - without[3:6]).abs().amax(1).min() > 1e-3


@torch.no_grad()
def test_without_latents_it_is_the_plain_forward():
    net, made = model(), vector()
    rows = [row(14, 0, 1), row(9, 0, 2)]
    for logits, r in zip(forward(net, made, rows), rows, strict=True):
        assert (logits[: len(r)] - net(torch.tensor([r])).logits[0]).abs().max() < 1e-9


@torch.no_grad()
def test_early_exits_go_through_the_norm():
    net, made = model(), vector()
    ids, lengths = padded(ROWS)
    early, _ = segmented_forward(net, made, ids, lengths, depths=[1])
    for states, r in zip(early, ROWS, strict=True):
        hidden = recomputed(net, made, r).hidden_states[1][0]
        assert (states[: len(r)] - net.model.norm(hidden)).abs().max() < 1e-9


@torch.no_grad()
def test_holes_in_the_cache_hide_the_same_tokens():
    """A mask of evictions, of which latents are a part, against the same mask row by row."""
    net, made = model(), vector(vector="pause")
    rows = [row(40, 6, 5), row(33, 4, 6)]
    ids, lengths = padded(rows)
    roles = torch.full_like(ids, TAUGHT)
    roles[:, 0] = 0
    mask = holes(ids, roles, 1.0, 0, 0).double()
    found = segmented_forward(net, made, ids, lengths, holes=mask)[-1]
    assert (found - segmented_forward(net, made, ids, lengths)[-1]).abs().max() > 1e-2
    for at, r in enumerate(rows):
        x = net.get_input_embeddings()(torch.tensor(r))
        x = torch.where((torch.tensor(r) == LATENT)[:, None], made.pause, x)
        own = mask[at : at + 1, :, : len(r), : len(r)]
        expected = net.model(inputs_embeds=x[None], attention_mask=own, use_cache=False)
        assert (found[at, : len(r)] - expected.last_hidden_state[0]).abs().max() < 1e-9


def test_as_many_passes_as_the_most_latents_and_one():
    ids, lengths = padded(ROWS)
    counts = [r.count(LATENT) for r in ROWS]
    order = sorted(range(len(ROWS)), key=lambda at: -counts[at])
    passes = segments(ids[order] == LATENT, lengths[order])
    assert len(passes) == max(counts) + 1
    assert [p.count for p in passes] == [
        sum(count >= number for count in counts) for number in range(max(counts) + 1)
    ]
    seen = [(int(r), int(p)) for s in passes for r, p in zip(s.rows, s.positions, strict=True)]
    assert len(seen) == len(set(seen)) == int(lengths.sum())


@torch.no_grad()
def test_each_token_says_whose_row_it_is_before_its_pass():
    net, made = model(), vector()
    ids, lengths = padded(ROWS)
    told: list[int] = []
    segmented_forward(net, made, ids, lengths, on_pass=lambda rows: told.extend(rows.tolist()))
    assert sorted(told) == [at for at, r in enumerate(ROWS) for _ in r]


UNSAID = torch.tensor([[0, 0, 1, 1], [2, 5, 1, 1], [7, 9, 8, 3]])  # of two rows, the second's two


def iterated(net, made, rounds):
    ids = torch.tensor([[1, 2, LATENT, 4, 5, LATENT, 6], [3, LATENT, 5, 6, 2, 1, 4]])
    return ids, iterated_forward(net, made, ids, UNSAID, rounds)[-1]


@pytest.mark.parametrize("name", RECIPES)
def test_iterated_as_often_as_a_row_has_latents_it_is_exact(name):
    net, made = model(), vector(**RECIPES[name])
    ids, found = iterated(net, made, 2)
    (expected,) = segmented_forward(net, made, ids, torch.tensor([7, 7]))
    assert (found - expected).abs().max() < 1e-9
    _, once = iterated(net, made, 1)
    assert (once[1] - expected[1]).abs().max() < 1e-9, "one latent needs one round"
    both = [gradients(net, made, (states**2).sum()) for states in (found, expected)]
    for of, gradient in both[0].items():
        if gradient is None:
            assert both[1][of] is None or not both[1][of].any()
        else:
            assert (gradient - both[1][of]).abs().max() < 1e-8, of


def test_it_begins_from_the_mean_of_the_words():
    net, made = model(), vector()
    ids, found = iterated(net, made, 0)
    table = net.get_input_embeddings().weight
    x = table[ids.masked_fill(ids == LATENT, 0)].detach()
    x[0, 2], x[0, 5], x[1, 1] = table[7], table[9], (table[8] + table[3]) / 2
    expected = net.get_decoder()(inputs_embeds=x, use_cache=False).last_hidden_state
    assert (found - expected).abs().max() < 1e-9


def test_nothing_is_held_once_the_gradients_are_there():
    net, made = model(), vector()
    ids, lengths = padded(ROWS)
    segmented_forward(net, made, ids, lengths)[-1].sum().backward()
    segmented_forward(net, made, ids, lengths)  # and without any
    net.zero_grad()
    gc.collect()
    assert not [each for each in gc.get_objects() if type(each) is SegmentCache]

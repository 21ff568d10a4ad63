"""What goes wrong in one row ends that row; all others say what they say without it."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from sparing.engine.events import DoneEvent
from sparing.engine.latent_switch import NoSwitch
from sparing.engine.run import Run, results_of
from sparing.errors import ModelError, OptionError
from sparing.options import Depth, Memory, Sampling
from tests.depth.planted import knowing, planted
from tests.engine.driving import greedy, said
from tests.memory.steady import Steady
from tests.tiny import engine, tiny, unchecked

PROMPTS = [list(range(n, 2 * n + 1)) for n in (20, 9, 14, 40)]
BAD, COUNT = 2, 50
SAMPLINGS = {
    "greedy": greedy(COUNT),
    "sampled": Sampling(temperature=0.9, top_k=20, seed=3, max_new_tokens=COUNT, ignore_eos=True),
}


class Late:
    """Counts what it is asked for one row, and fails at last."""

    def __init__(self, after: int) -> None:
        self.left = after

    def fail(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("not today")


class Thinking(Late, NoSwitch):
    def __init__(self, after: int) -> None:
        NoSwitch.__init__(self)
        Late.__init__(self, after)

    def think(self, *_: Any) -> None:
        self.fail()


class Blank(Steady):
    def score(self, view: Any) -> Any:
        return view.positions[1:]


class Unreadable(list[str]):
    """Stop strings that cannot be searched for."""

    def __iter__(self) -> Any:
        raise TypeError("not today")


class Poisoned:
    """A decoder whose logits are no numbers in the row that has said some tokens."""

    def __init__(self, decoder: Any, position: int) -> None:
        self.decoder, self.position = decoder, position

    @torch.inference_mode()
    def __call__(self, inputs: Any, *args: Any, **more: Any) -> Any:
        output = self.decoder(inputs, *args, **more)
        for i, logits in zip(inputs, output.logits.split([i.scored for i in inputs]), strict=True):
            if i.row == BAD and i.scored:
                late = torch.tensor(i.positions[-i.scored :]) >= self.position
                logits[late] = torch.nan
        return output


def budgets(prompts: Any) -> list[Memory]:
    return [Memory(budget=len(prompt) + 24, policy="window") for prompt in prompts]


def told(model: Any, requests: Any, depth: Depth, decoder: Any = None) -> tuple[Any, Any]:
    """Rows and their events; the cache is checked throughout."""
    loop = model.loop(requests, depth, batch_size=4)
    loop.decoder = decoder or loop.decoder
    running = Run(loop, requests)
    events: dict[int, list[Any]] = {request.tag: [] for request in requests}
    for event in running:
        loop.cache.check()
        events[event.row].append(event)
    assert not loop.live
    assert all(not layer[:, BAD].any() for layer in loop.cache.kv), "no NaN is left to the next"
    return running.rows, list(events.values())


def failing(how: str, request: Any) -> Any:
    """The request, so that its row fails after a while."""
    if how == "switch":
        return replace(request, switch=Thinking(9))
    if how == "policy":
        return replace(request, policy=Blank())
    if how == "transcript":
        return replace(request, limits=replace(request.limits, stop=Unreadable("x")))
    return request


@pytest.mark.parametrize("draft", ["off", "layers"])
@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@pytest.mark.parametrize("how", ["logits", "policy", "switch", "transcript"])
@unchecked()
def test_the_others_go_on_as_if_it_had_not_been_there(how, sampling, draft):
    model = knowing(engine(planted("qwen2")), matchness=0.1)
    depth = Depth(draft=draft, confidence=0.0, max_draft=4)
    requests = [
        model.request(prompt, memory, sampling=sampling, tag=tag)
        for tag, (prompt, memory) in enumerate(zip(PROMPTS, budgets(PROMPTS), strict=True))
    ]
    whole = results_of(*told(model, requests, depth))
    without = [request for request in requests if request.tag != BAD]
    alone = results_of(*told(model, without, depth))
    decoder = Poisoned(model.decoder, len(PROMPTS[BAD]) + 5) if how == "logits" else None
    requests[BAD] = failing(how, requests[BAD])
    rows, events = told(model, requests, depth, decoder)
    with pytest.warns(UserWarning, match=f"prompt {BAD} was not answered"):
        results = results_of(rows, events)
    bad = results.pop(BAD)
    assert [said(result) for result in results] == [said(result) for result in alone]
    assert bad.finish_reason == "error"
    assert isinstance(events[BAD][-1], DoneEvent)
    assert bad.error == events[BAD][-1].error
    assert bad.token_ids == whole[BAD].token_ids[: len(bad.token_ids)]
    expected = {"logits": 6, "policy": 25, "switch": 9, "transcript": 2}
    assert len(bad.token_ids) == expected[how] or how == "transcript", "drafted or not"
    kinds = {"logits": ModelError, "policy": OptionError, "switch": RuntimeError}
    assert isinstance(rows[BAD].error, kinds.get(how, TypeError))


def test_generate_raises_where_every_row_failed_and_warns_where_some_did():
    model = engine(tiny("llama", markers=None))
    bad, good = (Memory(budget=60, policy=policy) for policy in (Blank(), Steady()))
    with pytest.raises(OptionError, match="correct its score"):
        model.generate([PROMPTS[0]], bad, sampling=greedy(COUNT))
    with pytest.warns(UserWarning, match="prompt 1 was not answered: policy steady must give"):
        found = model.generate(PROMPTS[::3], [good, bad], sampling=greedy(COUNT))
    assert [result.finish_reason for result in found] == ["length", "error"]
    assert found[0].error is None
    assert found[1].to_dict()["error"].endswith("correct its score")


def test_a_stream_raises_in_the_place_of_its_end():
    model = engine(tiny("llama", markers=None))
    stream = model.stream(PROMPTS[0], Memory(budget=60, policy=Blank()), sampling=greedy(COUNT))
    with pytest.raises(OptionError, match="correct its score"):
        list(stream)
    result = stream.result()
    assert result.finish_reason == "error"
    assert len(result.token_ids) == 60 - len(PROMPTS[0]) + 1
    assert list(stream) == []

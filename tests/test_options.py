"""Each wrong option gives one line that names the option and what came."""

import inspect
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sparing.errors import OptionError, SparingError
from sparing.options import Depth, Latent, Memory, Options, Sampling
from tests.tiny import unchecked

WRONG = {
    (Memory, "budget"): [-1, 0.0, 1.5, -0.1, math.nan, math.inf, "96", True, [1]],
    (Memory, "policy"): ["lru", "Window", None, 3],
    (Depth, "draft"): ["trees", "none", None, True],
    (Depth, "confidence"): [-0.1, 1.5, "much"],
    (Depth, "window"): [7, 257, 16.0],
    (Depth, "max_draft"): [0, 65, -1, 1.5, "4", True, None],
    (Latent, "mode"): ["often", "on", None, False],
    (Latent, "tau"): [-0.1, 1.5, "half"],
    (Latent, "in_a_row"): [0, -1, 1.5],
    (Latent, "most"): [-1, 2.5],
    (Sampling, "temperature"): [-1, -0.1, math.nan, math.inf, "hot", True],
    (Sampling, "top_p"): [0, 0.0, 1.1, -1, math.nan, "x"],
    (Sampling, "top_k"): [0, -1, 1.5, "x", True],
    (Sampling, "min_p"): [-0.1, 1.1, math.nan, "x"],
    (Sampling, "repetition_penalty"): [0, -1.0, math.nan, math.inf, "x"],
    (Sampling, "seed"): [-1, 2**63, 1.5, "x"],
    (Sampling, "max_new_tokens"): [0, -1, 1.5, "x"],
    (Sampling, "stop"): ["abc", [1], ("a",), None],
    (Sampling, "stop_token_ids"): [[-1], ["a"], 3, [1.5], [2, "a", -1]],
    (Sampling, "ignore_eos"): ["yes", 1, None],
    (Sampling, "think_budget"): [-1, 1.5, "x"],
}
WRONG_WITH_A_BUDGET = {
    "local": [0, -1, 0.0, 1.5, "4", True],
    "selection": [-1, 0.0, 1.5, math.nan, "0.4", True],
}
PAIRS = [
    ({"local": 4}, "local needs a budget, got none"),
    ({"selection": 0.4}, "selection needs a budget, got none"),
    ({"selection": 0}, "selection needs a budget, got none"),
    ({"policy": "window"}, "policy window needs a budget, got none"),
    ({"policy": "streaming"}, "policy streaming needs a budget, got none"),
    ({"policy": "random"}, "policy random needs a budget, got none"),
    ({"policy": "learned"}, "policy learned needs a budget, got none"),
    ({"policy": "full", "budget": 96}, "policy full keeps everything: pass no budget"),
    ({"policy": "full", "budget": 0.5}, "policy full keeps everything: pass no budget"),
]
RIGHT = [
    Memory(),
    Memory(policy="full"),
    Memory(budget=96),
    Memory(budget=1, local=1, selection=0, policy="random"),
    Memory(budget=1.0, selection=1.0, policy="learned"),
    Depth(draft="off", max_draft=1),
    Depth(draft="lookup", max_draft=64),
    Latent(mode="off"),
    Latent(mode="learned", in_a_row=1, most=0),
    Latent(mode="confidence", tau=0.0),
    Sampling(),
    Sampling(temperature=0, top_p=1, min_p=0, top_k=1, repetition_penalty=1),
    Sampling(temperature=0.7, top_p=0.01, min_p=1.0, repetition_penalty=1.3, seed=2**63 - 1),
    Sampling(max_new_tokens=1, stop=["\n"], stop_token_ids=[0], ignore_eos=True, think_budget=0),
]


def refused(options, **values):
    with unchecked(), pytest.raises(OptionError) as error:
        options(**values)
    message = str(error.value)
    assert "\n" not in message
    assert isinstance(error.value, SparingError | ValueError)
    assert error.value.__cause__ is None
    return message


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [(options, field, value) for (options, field), values in WRONG.items() for value in values],
)
def test_a_wrong_value(options, field, value):
    message = refused(options, **{field: value})
    assert message.startswith(f"{field} ")
    assert "must" in message
    wrong = value[-1] if isinstance(value, list) and field == "stop_token_ids" else value
    shown = value[1] if value == [2, "a", -1] else wrong
    assert message.endswith(f"got {shown!r}") or f"got {shown}" in message or value == [1]


@pytest.mark.parametrize(
    ("field", "value"), [(f, v) for f, values in WRONG_WITH_A_BUDGET.items() for v in values]
)
def test_a_wrong_value_beside_a_budget(field, value):
    message = refused(Memory, budget=96, **{field: value})
    assert message.startswith(f"{field} ")
    assert f"got {value!r}" in message


@pytest.mark.parametrize("stop", [[""], ["a", ""]])
def test_an_empty_stop_string(stop):
    assert "stop strings must have a character or more, got an empty one" in refused(
        Sampling, stop=stop
    )


@pytest.mark.parametrize("value", ["half", True])
def test_a_budget_may_be_a_count_or_a_share_and_says_so(value):
    message = refused(Memory, budget=value)
    assert message == f"budget must be a valid integer or a valid number, got {value!r}"


@pytest.mark.parametrize(("values", "said"), PAIRS)
def test_pairs_that_cannot_work(values, said):
    assert refused(Memory, **values).startswith(said)


@pytest.mark.parametrize("options", [Memory, Depth, Latent, Sampling])
@pytest.mark.parametrize("name", ["bugdet", "topp", "Budget", "model_config"])
def test_an_unknown_option_hears_the_known_ones(options, name):
    message = refused(options, **{name: 1})
    assert message.startswith(f"{options.__name__} has no option {name}; it has ")
    assert all(field in message for field in options.model_fields)


@pytest.mark.parametrize("options", RIGHT, ids=repr)
def test_what_is_right_is_kept_as_it_came(options):
    assert type(options)(**options.model_dump()) == options


@given(
    st.sampled_from([*WRONG, *((Memory, field) for field in WRONG_WITH_A_BUDGET)]),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=9),
        st.lists(st.text()),
    ),
)
def test_any_value_is_taken_or_refused_in_one_line(option, value):
    options, field = option
    beside = {"budget": 96} if field in WRONG_WITH_A_BUDGET else {}
    try:
        kept = getattr(options(**beside, **{field: value}), field)
    except OptionError as error:
        said = str(error)
    else:
        assert kept == value
        return
    assert "\n" not in said


@pytest.mark.parametrize("options", [Memory(), Depth(), Latent(), Sampling()], ids=repr)
def test_options_do_not_change(options):
    for field in type(options).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(options, field, None)


def test_defaults_do_nothing():
    assert Memory().budget is None
    assert Latent().mode == "off"
    assert not any(Sampling().model_dump(exclude_none=True).values())


def test_from_json_as_a_server_reads_it():
    assert Memory.model_validate_json('{"budget": 0.5, "policy": "window"}') == Memory(
        budget=0.5, policy="window"
    )
    with pytest.raises(ValueError, match="budget must be 1 token or more, got -1"):
        Memory.model_validate_json('{"budget": -1}')
    assert issubclass(Memory, Options)


@pytest.mark.parametrize("options", [Memory, Depth, Latent, Sampling])
def test_help_has_every_field_with_its_default(options):
    """And a signature of names, so that the first screen of ``help`` is all that is needed."""
    signature = inspect.signature(options)
    assert list(signature.parameters) == list(options.model_fields)
    for name, parameter in signature.parameters.items():
        described = " ".join(options.__doc__.split("Fields:")[1].split())
        assert (
            f"{name} ({parameter.default!r}): {options.model_fields[name].description}" in described
        )

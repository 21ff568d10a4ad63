"""Flags are the fields of options: names, defaults, help, and what a command gets of them."""

from typing import Any, get_args

import pytest
import typer

from sparing.cli.app import app
from sparing.cli.fields import flags_in, flags_of, named, takes_flags
from sparing.cli.flags import DecodingFlags, LoadingFlags, ModelFlags, SeedlessFlags
from sparing.cli.train_latent import StageFlags
from sparing.cli.train_predictor import FitFlags, TraceFlags
from sparing.errors import ModelError, OptionError, PromptError
from sparing.options import Depth, Latent, Loading, Memory, Sampling
from sparing.train.settings import TrainSettings
from tests.cli.command import assert_one_line

COMMANDS = {
    "run": (LoadingFlags, DecodingFlags),
    "chat": (LoadingFlags, DecodingFlags),
    "serve": (LoadingFlags, SeedlessFlags),
    "eval": (LoadingFlags, SeedlessFlags),
    "train reason": (TrainSettings,),
    "train latent": (StageFlags,),
    "train ablations": (StageFlags,),
    "train predictor": (ModelFlags, TraceFlags, FitFlags),
}
RENAMED = {"task": "depth_task", "mode": "latent"}
PROMISED = (
    "--budget --local --selection --policy --draft --latent --max-new-tokens --ignore-eos "
    "--temperature --top-p --top-k --min-p --repetition-penalty --seed --stop --think-budget "
    "--threads --raw --json --events --model --weights --dtype --decoder --predictor --kv "
    "--depth-task --objective --no-think"
)


def parameters(name: str) -> dict[str, Any]:
    """Of a command, by the names that the shell knows."""
    command: Any = typer.main.get_command(app)
    for part in name.split():
        command = command.commands[part]
    return {option: each for each in command.params for option in each.opts}


@pytest.mark.parametrize(
    ("command", "group"), [(name, group) for name, groups in COMMANDS.items() for group in groups]
)
def test_a_flag_is_its_field(command, group):
    how = flags_in(get_args(group)[1:])
    known = parameters(command)
    for name, field in flags_of(how.of or group, how).items():
        flag = known[f"--{name.replace('_', '-')}"]
        assert flag.help == field.description, name
        assert flag.help, name
        default = field.default
        if isinstance(default, tuple):
            default = ",".join(map(str, default))
        assert flag.default == (None if field.default_factory else default), name


@pytest.mark.parametrize("options", [Loading, Memory, Depth, Latent, Sampling])
def test_every_option_has_a_flag(options):
    known = parameters("run")
    for field in options.model_fields:
        assert f"--{RENAMED.get(field, field).replace('_', '-')}" in known


def test_the_flags_that_are_promised():
    assert set(PROMISED.split()) <= parameters("run").keys()


def parsed(group: Any, *arguments: str) -> Any:
    """What a command is called with."""
    got = []

    def command(given):
        got.append(given)

    command.__annotations__ = {"given": group}
    one = typer.Typer()
    one.command()(takes_flags(command))
    one(list(arguments), standalone_mode=False)
    [given] = got
    return given


@pytest.mark.parametrize("group", [LoadingFlags, DecodingFlags, SeedlessFlags, TrainSettings])
def test_without_flags_the_options_are_as_in_python(group):
    assert parsed(group) == group()


def test_what_is_given_arrives():
    given = (
        "--budget 0.5 --local 8 --policy window --kv q8 --draft layers --trees --depth-task sums "
        "--max-draft 4 --latent confidence --tau 0.4 --top-k 3 --stop a --stop b "
        "--stop-token-ids 7 --ignore-eos --no-think --seed 5"
    )
    found = parsed(DecodingFlags, *given.split())
    assert found == DecodingFlags(
        memory=Memory(budget=0.5, local=8, policy="window", kv="q8"),
        depth=Depth(draft="layers", trees=True, task="sums", max_draft=4),
        latent=Latent(mode="confidence", tau=0.4),
        sampling=Sampling(top_k=3, stop=["a", "b"], stop_token_ids=[7], ignore_eos=True, seed=5),
        no_think=True,
    )


def test_several_numbers_have_commas():
    assert parsed(TrainSettings, "--exits", "0.25,0.5").exits == (0.25, 0.5)
    assert parsed(TraceFlags, "--horizons", "3,9")["horizons"] == (3, 9)
    with pytest.raises(typer.BadParameter, match="must be whole numbers with commas, got '3;9'"):
        parsed(TraceFlags, "--horizons", "3;9")


def test_a_dict_of_flags_has_their_defaults_too():
    assert parsed(FitFlags)["epochs"] == 15
    assert "seed" not in parsed(FitFlags)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("request_s must be 1", "--timeout must be 1"),
        ("budget needs no budget", "--budget needs no budget"),
        ("a budget must be", "a budget must be"),
        ("pass it, or limit max_new_tokens", "pass it, or limit --max-new-tokens"),
        ("it must be one, got 'max_new_tokens'", "it must be one, got 'max_new_tokens'"),
        ("no file in x/max_new_tokens/y", "no file in x/max_new_tokens/y"),
        ("pass max_new_tokens=5", "pass max_new_tokens=5"),
        ("--max-new-tokens must be", "--max-new-tokens must be"),
        ("stop_token_ids must be", "stop_token_ids must be"),
    ],
)
@pytest.mark.parametrize("kind", [OptionError, PromptError])
def test_an_error_names_flags(error, told, kind):
    flags = {"request_s": "timeout", "budget": "budget", "max_new_tokens": "max_new_tokens"}
    with pytest.raises(kind) as found, named(flags):
        raise kind(error)
    assert str(found.value) == told


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("run hi --max-new-tokens 0", "--max-new-tokens must be greater than or equal to 1, got 0"),
        ("run hi --latent often", "--latent must be 'off', 'learned' or 'confidence'"),
        ("run hi --interval 0", "--interval must be greater than or equal to 1, got 0"),
        ("serve --timeout 0", "--timeout must be greater than 0, got 0.0"),
        ("serve --body-timeout 0", "--body-timeout must be greater than 0, got 0.0"),
        ("run hi --device meta", "--device must be a device that torch has here, got 'meta'"),
        ("bench device --device cuda:9", "--device must be one that torch has here"),
        ("serve --max-body 0", "--max-body must be greater than or equal to 1, got 0"),
        ("serve --max-prompt-tokens 0", "--max-prompt-tokens must be greater than or equal to 1"),
        ("serve --grace -1", "--grace must be greater than or equal to 0, got -1.0"),
        ("serve --kv-bytes 0", "--kv-bytes must be greater than or equal to 1, got 0"),
        ("serve --api-key x --rows 0", "--rows must be greater than or equal to 1, got 0"),
        ("train reason --out x --weight-decay -1", "--weight-decay must be"),
        ("eval --task sums --top-p 2", "--top-p must be less than or equal to 1, got 2.0"),
    ],
)
def test_a_command_s_error_names_its_flag(sparing, command, said):
    assert_one_line(sparing(*command.split()), f"error: {said}")


def test_every_flag_of_loading_reaches_load(sparing, monkeypatch):
    given = {}

    def load(name, **how):
        given.update(how)
        raise ModelError(f"a model must exist, got {name}; check the path")

    monkeypatch.setattr("sparing.api.load", load)
    ask = ("run", "Q", "--trust-remote-code", "--decoder", "hub", "--threads", 1)
    assert sparing(*ask, "--dtype", "float64", "--device", "meta").code == 2
    assert given == {
        "weights": "auto",
        "dtype": "float64",
        "threads": 1,
        "decoder": "hub",
        "device": "meta",
        "trust_remote_code": True,
        "predictor": None,
    }
    assert given.keys() - {"predictor"} == Loading.model_fields.keys()

"""`sparing bench device`: a GPU, or what else torch knows."""

from typing import Annotated

from sparing.cli.fields import flag
from sparing.cli.output import JsonFlag, show


def device(
    out: JsonFlag,
    device: Annotated[str, flag("what torch calls it")] = "cuda",
    dtype: Annotated[str, flag("bfloat16, float16 or float32")] = "bfloat16",
    shape: Annotated[str, flag("of the random model: qwen3-1.7b, or tiny to try this")] = (
        "qwen3-1.7b"
    ),
    n: Annotated[int, flag("rounds, all arms in turns", "--n", min=1)] = 3,
    rows: Annotated[str, flag("numbers of rows, with commas")] = "1,32",
    prompt: Annotated[int, flag("tokens", min=1)] = 512,
    max_new_tokens: Annotated[int, flag("of each row", min=2)] = 512,
) -> None:
    """`custom_generate` plain, under a budget and with drafts, over `generate`, on a GPU."""
    from sparing.api import DTYPES
    from sparing.errors import OptionError
    from sparing.evaluate.bench_device import SHAPES, bench_device, random_model
    from sparing.evaluate.report import report
    from sparing.model.devices import computes

    if shape not in SHAPES:
        raise OptionError(f"shape must be one of {', '.join(SHAPES)}, got {shape!r}")
    if dtype not in DTYPES:
        raise OptionError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if not all(each.isdigit() and int(each) for each in rows.split(",")):
        raise OptionError(f"rows must be whole numbers with commas, such as 1,32, got {rows!r}")
    if not computes(device):
        raise OptionError(f"device must be one that torch has here, got {device!r}")
    model = random_model(shape, DTYPES[dtype], device)
    counts = [int(each) for each in rows.split(",")]
    figures, raw = bench_device(model, counts, prompt, max_new_tokens, n)
    content = report(f"random {shape}", figures, raw, DTYPES[dtype])
    show(content)
    out.write(content)

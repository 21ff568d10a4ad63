"""`sparing bench hub`: models that run through transformers."""

from pathlib import Path
from typing import Annotated

from sparing.cli.fields import flag
from sparing.cli.flags import LoadingFlags
from sparing.cli.output import JsonFlag, show


def hub(
    loading: LoadingFlags,
    out: JsonFlag,
    n: Annotated[int, flag("rounds, all arms in turns", "--n", min=1)] = 5,
    text: Annotated[
        Path | None, flag("fill caches with this .jsonl file's questions and answers")
    ] = None,
) -> None:
    """A model of transformers in our loop and in `custom_generate`, against its own `generate`."""
    from sparing.evaluate.baselines.transformers import in_memory
    from sparing.evaluate.bench_decode_text import distinct_ids, read_text
    from sparing.evaluate.bench_hub import bench_hub
    from sparing.evaluate.report import report
    from sparing.model.sources import find_model

    cached = (64, 1024)
    engine = loading.model_copy(update={"decoder": "hub"}).load()
    other = in_memory(find_model(loading.model), engine.decoder.dtype)
    ids = distinct_ids(engine, max(cached), read_text(text) if text else None)
    figures, raw = bench_hub(engine, other, ids, cached, n)
    content = report(loading.model, figures, raw, engine.decoder.dtype)
    show(content)
    out.write(content)

"""The public data sets, which are no part of the project: where they lie on this machine."""

import os
from pathlib import Path

import pytest

VARIABLE = "SPARING_DATA"


def data_file(name: str) -> Path:
    """A file in the directory that SPARING_DATA names; skips the test where it is not there."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"whole data sets are read only where {VARIABLE} names their directory")
    path = Path(folder) / name
    if not path.exists():
        pytest.skip(f"{VARIABLE}={folder} holds no {name}")
    return path

from pathlib import Path


def find_values(directory: Path, predictor: str | None) -> Path:
    return directory

"""Real data that nobody here wrote: the folder that NEKTAR_CORPORA names, by default beside the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("NEKTAR_CORPORA") or Path(__file__).parents[2] / "shared" / "corpora")


def corpus(name: str) -> Path:
    """The file; skips the test where it is not there."""
    if not (FOLDER / name).is_file():
        pytest.skip(f"needs corpora: no {name} in {FOLDER}; name their folder in NEKTAR_CORPORA")
    return FOLDER / name

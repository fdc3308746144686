"""docs/LIES.md: one part for a Network's role and one for bulk reading, each held to what a test sees."""

from __future__ import annotations

import os
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "LIES.md"
BULK = "\n## `nektar index`\n"  # with which the second part begins


def hold(told: str) -> None:
    """Hold one of the parts to what was seen. `NEKTAR_WRITE=1` writes it anew."""
    role, mark, rest = PAGE.read_text("utf-8").partition(BULK)
    parts = [role, mark + rest]
    if os.environ.get("NEKTAR_WRITE"):
        parts[told.startswith(BULK)] = told
        PAGE.write_text("".join(parts), "utf-8")
    assert told == parts[told.startswith(BULK)]

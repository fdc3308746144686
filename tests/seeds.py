"""How many seeds tests take: some at every change, and many with NEKTAR_THOROUGH=1 (`make thorough`)."""

from __future__ import annotations

import os


def seeds(some: int, many: int) -> int:
    """So many of them, now."""
    return many if os.environ.get("NEKTAR_THOROUGH") else some

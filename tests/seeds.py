"""How much tests try: some at every change, and much more with NEKTAR_THOROUGH=1 (`make thorough`)."""

from __future__ import annotations

import os

import pytest

_THOROUGH = bool(os.environ.get("NEKTAR_THOROUGH"))

# For a test that takes a minute, where others hold the same on something smaller.
thorough = pytest.mark.skipif(not _THOROUGH, reason="takes long: `make thorough`")


def seeds(some: int, many: int) -> int:
    """So many of them, now."""
    return many if _THOROUGH else some

"""The vectors that are published are what the contracts say."""

from __future__ import annotations

import pytest

from tests.devnet.contracts.conftest import Site
from tests.devnet.contracts.vectors import FILE, vectors, written

pytestmark = pytest.mark.real


def test_the_published_vectors_are_the_contracts(deployed: Site) -> None:
    """Written again with `python -m tests.devnet.contracts.vectors`."""
    assert FILE.read_text("utf-8") == written(vectors(deployed))

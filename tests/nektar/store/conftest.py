"""Real chDB stores. One path a process at a time, so a module's store is closed before the next one opens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nektar.store.client import open_store
from nektar.store.migrate import migrate
from nektar.store.port import Store
from tests.nektar.store.things import Things


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store that is up to date for `Things`."""
    with open_store(f"chdb://{tmp_path_factory.mktemp('store')}") as opened:
        migrate(opened, [Things()])
        yield opened

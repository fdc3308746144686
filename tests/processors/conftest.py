from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nektar import bus as buses
from nektar.bus.port import Bus
from nektar.store.client import open_store
from nektar.store.migrate import migrate
from nektar.store.port import Store
from tests.nektar.store.things import Things


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    opened = buses.open(f"sqlite://{tmp_path / 'bus'}?partitions=1")
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"chdb://{tmp_path / 'store'}") as opened:
        migrate(opened, [Things()])
        yield opened

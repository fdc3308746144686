from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nektar.bus.sqlite import SqliteBus


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[SqliteBus]:
    with SqliteBus(tmp_path / "bus") as opened:
        yield opened

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer import quorum, source
from nektar.bus.sqlite import SqliteBus
from tests.indexer.world import Chain


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[SqliteBus]:
    with SqliteBus(tmp_path / "bus") as opened:
        yield opened


@pytest.fixture
def chain() -> Chain:
    made = Chain(random.Random(1))
    made.mine(60)
    return made


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody rests before a provider is asked again."""
    monkeypatch.setattr(source, "PAUSES_AFTER_NULL", (0.0,))
    monkeypatch.setattr(source, "PAUSES_AFTER_REFUSAL", (0.0,))
    monkeypatch.setattr(quorum, "AGAIN", 0.0)

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devnet.anvil import anvil
from devnet.chain import Chain, DevnetError
from tests.cli.command import CHAIN_ID, CONTRACT


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    """A chain with one block, and a contract that does nothing."""
    try:
        with anvil(chain_id=CHAIN_ID, slots=2) as running:
            running.rpc("anvil_setCode", CONTRACT, "0x00")
            running.mine()
            yield running
    except DevnetError as error:
        pytest.skip(f"needs anvil: {error}")

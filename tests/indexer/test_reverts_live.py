"""Why calls failed, as a real node says it to the role."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from eth_hash.auto import keccak

from devnet.anvil import anvil
from devnet.chain import Account
from nektar.bus.sqlite import SqliteBus
from nektar.chain.table import values
from nektar.config import Config, Provider
from nektar.log import New
from tests.indexer.rules import records
from tests.indexer.solc import solc
from tests.indexer.test_role import KEY, OneContract, network, running, until

pytestmark = pytest.mark.real

SOURCE = """
// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;
contract Strict {
    error TooLow(uint256 got, string why);
    uint256 least = 10;
    function put(uint256 n) external {
        if (n < least) revert TooLow(n, "more");
        least = 10 / n + n;
    }
    function stop() external pure { revert(); }
}
"""


class Strict(OneContract):
    def __init__(self, abi: Any) -> None:
        self._abi = abi

    def abi(self) -> Any:
        return {"strict": self._abi}


def news(bus: SqliteBus) -> list[New]:
    return [record for record in records(bus, "net") if isinstance(record, New)]


def test_a_failed_call_says_why_and_is_in_the_log_without_delay(tmp_path: Path) -> None:
    compiled = solc(SOURCE)["Strict"]
    account = Account.from_key(KEY)
    with anvil(chain_id=31337, slots=2) as chain, SqliteBus(tmp_path / "bus") as bus:
        sent = chain.send(account, None, bytes.fromhex(compiled["evm"]["bytecode"]["object"]))
        chain.mine()
        address = chain.receipt(sent)["contractAddress"]
        for n in (7, 20):
            chain.send(account, address, keccak(b"put(uint256)")[:4] + n.to_bytes(32))
        chain.send(account, address, keccak(b"stop()")[:4])
        chain.mine()
        net = network("net", "", contracts={"strict": address})
        config = Config(providers={"net": Provider(chain.url)}, networks=(net,), data_dir=str(tmp_path))
        with running(config, bus, {"net": Strict(compiled["abi"])}) as raised:
            until(lambda: chain.head()[1] in {"0x" + b.hash.hex() for new in news(bus) for b in new.blocks})
        assert not raised
        said = {
            (row["tx_index"], row["status"], row["revert"])
            for new in news(bus)
            for stream in new.tables.values()
            for row in values(stream)
        }
        assert said == {(0, False, 'TooLow(got=7, why="more")'), (1, True, None), (2, False, "")}

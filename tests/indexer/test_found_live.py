"""Contracts found by the role on a real chain, through reorgs and restarts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from eth_hash.auto import keccak

from devnet.anvil import anvil
from devnet.chain import Account, Chain
from nektar.bus.sqlite import SqliteBus
from nektar.config import Config, Factory, Provider
from nektar.log import Mark
from tests.indexer.rules import Reading, records
from tests.indexer.solc import solc
from tests.indexer.test_role import KEY, OneContract, network, running, tip, until

pytestmark = pytest.mark.real

SOURCE = """
// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;
contract Pool {
    event Swap(bytes32 what);
    constructor() { emit Swap(bytes32(0)); }
    function swap(bytes32 what) external { emit Swap(what); }
}
contract Registry {
    event Made(address indexed pool, bytes32 what);
    function make(bytes32 what) external {
        Pool pool = new Pool{salt: what}();
        pool.swap(what);
        emit Made(address(pool), what);
        pool.swap(bytes32(uint256(what) + 1));
    }
}
"""
SWAP = "0x" + keccak(b"Swap(bytes32)").hex()


class Pools(OneContract):
    def __init__(self, compiled: Any) -> None:
        self._abis = {"registry": compiled["Registry"]["abi"], "pool": compiled["Pool"]["abi"]}

    def abi(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        return self._abis


class World:
    def __init__(self, chain: Chain, code: str) -> None:
        self.chain, self.account, self.said = chain, Account.from_key(KEY), 0
        sent = chain.send(self.account, None, bytes.fromhex(code))
        chain.mine()
        self.registry: str = chain.receipt(sent)["contractAddress"]
        self.pools: list[str] = []

    def send(self, to: str, function: str) -> None:
        self.said += 10
        self.chain.send(self.account, to, keccak(function.encode())[:4] + self.said.to_bytes(32))

    @property
    def swaps(self) -> Counter[tuple[str, str]]:
        """(block hash, what) of all pools' logs: on this chain no other contract has that event."""
        logs = self.chain.rpc("eth_getLogs", {"fromBlock": "0x0", "toBlock": "latest", "topics": [SWAP]})
        self.pools = sorted({log["address"] for log in logs})
        return Counter((log["blockHash"], log["data"]) for log in logs)


def test_the_log_holds_all_that_found_contracts_said_through_reorgs_and_restarts(tmp_path: Path) -> None:
    compiled = solc(SOURCE)
    with anvil(chain_id=31337, slots=2) as chain, SqliteBus(tmp_path / "bus") as bus:
        there = World(chain, compiled["Registry"]["evm"]["bytecode"]["object"])
        net = network(
            "net",
            "",
            contracts={"registry": there.registry},
            factories={"pool": Factory("registry", "Made", "pool")},
        )
        config = Config(providers={"net": Provider(chain.url)}, networks=(net,), data_dir=str(tmp_path))
        for turn in range(8):
            with running(config, bus, {"net": Pools(compiled)}) as raised:
                there.send(there.registry, "make(bytes32)")
                chain.mine()
                assert there.swaps
                there.send(there.pools[0], "swap(bytes32)")
                chain.mine()
                until(lambda: tip(bus) == chain.head()[1])
                if turn % 2:
                    chain.reorg(2)
                    chain.mine(2)
                    until(lambda: tip(bus) == chain.head()[1])
            assert not raised
            reading = Reading(records(bus, "net"))
            assert there.swaps == Counter(
                ("0x" + block_hash.hex(), "0x" + what.hex())
                for table, block_hash, what in reading.rows.elements()
                if table.startswith("event_swap_")
            )
        assert reading.undone
        calls = [row for row in reading.rows.elements() if row[0].startswith("call_swap_")]
        assert len(calls) > 2
        marks = [record for record in records(bus, "net") if isinstance(record, Mark)]
        assert {each[20:] for each in marks[-1].contracts} == {b"pool"}
        assert {"0x" + each[:20].hex() for each in marks[-1].contracts} <= set(there.pools)

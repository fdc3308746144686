"""Contracts found by the role on a real chain, through reorgs, restarts and kill -9."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from eth_hash.auto import keccak

from devnet.anvil import anvil
from devnet.chain import Account, Chain
from nektar.bus.sqlite import SqliteBus
from nektar.config import Config, Factory, Provider
from nektar.log import Mark
from tests.indexer.rules import Reading, records
from tests.indexer.solc import solc
from tests.indexer.test_kills import indexer
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


def of(there: World, folder: Path) -> Config:
    net = network(
        "net",
        "",
        contracts={"registry": there.registry},
        factories={"pool": Factory("registry", "Made", "pool")},
    )
    return Config(providers={"net": Provider(there.chain.url)}, networks=(net,), data_dir=str(folder))


def swaps(reading: Reading) -> Counter[tuple[str, str]]:
    """(block hash, what) of the pools' logs that the log holds."""
    return Counter(
        ("0x" + block_hash.hex(), "0x" + what.hex())
        for table, block_hash, what in reading.rows.elements()
        if table.startswith("event_swap_")
    )


def test_the_log_holds_all_that_found_contracts_said_through_reorgs_and_restarts(tmp_path: Path) -> None:
    compiled = solc(SOURCE)
    with anvil(chain_id=31337, slots=2) as chain, SqliteBus(tmp_path / "bus") as bus:
        there = World(chain, compiled["Registry"]["evm"]["bytecode"]["object"])
        config = of(there, tmp_path)
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
            assert there.swaps == swaps(reading)
        assert reading.undone
        calls = [row for row in reading.rows.elements() if row[0].startswith("call_swap_")]
        assert len(calls) > 2
        marks = [record for record in records(bus, "net") if isinstance(record, Mark)]
        assert {each[20:] for each in marks[-1].contracts} == {b"pool"}
        assert {"0x" + each[:20].hex() for each in marks[-1].contracts} <= set(there.pools)


def test_killed_at_random_moments_the_log_holds_all_that_found_contracts_said(tmp_path: Path) -> None:
    compiled, rng = solc(SOURCE), random.Random(7)
    with anvil(chain_id=31337, slots=2) as chain, SqliteBus(tmp_path / "bus") as bus:
        there = World(chain, compiled["Registry"]["evm"]["bytecode"]["object"])
        config, abis = tmp_path / "config.json", tmp_path / "abis.json"
        config.write_bytes(msgspec.json.encode(of(there, tmp_path)))
        abis.write_bytes(msgspec.json.encode(Pools(compiled).abi()))
        for _ in range(6):
            with indexer(config, abis):
                ends = time.monotonic() + rng.uniform(0.0, 0.4)
                while time.monotonic() < ends:
                    goes_on(there, rng)
            goes_on(there, rng)
        with indexer(config, abis):
            until(lambda: tip(bus) == chain.head()[1])
        assert there.swaps == swaps(Reading(records(bus, "net")))
        assert len(there.pools) > 6


def goes_on(there: World, rng: random.Random) -> None:
    """A block or two more, of which the last may take the place of another."""
    there.send(there.registry, "make(bytes32)")
    if there.swaps:
        there.send(rng.choice(there.pools), "swap(bytes32)")
    there.chain.mine(rng.randint(1, 2))
    if rng.random() < 0.3:
        there.chain.reorg(rng.randint(1, 2))

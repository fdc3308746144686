"""The role as `nektar up` runs it: real anvils, the real bus, a process that is killed."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from devnet.anvil import anvil, find_anvil
from devnet.chain import Account, Chain, DevnetError
from indexer import role
from indexer.reconcile import ReorgBelowFinality
from nektar.bus.port import BusError
from nektar.bus.sqlite import SqliteBus
from nektar.chain.rpc import WrongChain
from nektar.config import Config, ConfigError, NetworkConfig, Provider
from nektar.errors import NektarError
from nektar.health import Health
from nektar.model import ChainEvent, Level, Network
from tests.indexer.rules import Reading, records
from tests.indexer.world import ABI, TOPIC

pytestmark = pytest.mark.real

KEY = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"  # anvil's first account
# Runtime code that logs calldata's first word under TOPIC, indexed by the block's number.
RUNTIME = bytes.fromhex("600035600052437f" + TOPIC.hex() + "60206000a200")
CREATE = bytes.fromhex(f"60{len(RUNTIME):02x}600c60003960{len(RUNTIME):02x}6000f3") + RUNTIME
PATIENCE = 20.0


class OneContract:
    """An adapter that knows a contract whose only event is `Happened`."""

    name = "one"
    selector: frozenset[str] = frozenset()
    terms: frozenset[str] = frozenset()

    def abi(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        return {"happening": ABI}

    def events(self, network: Network, tables: Mapping[str, bytes]) -> Sequence[ChainEvent]:
        return []


def network(name: str, address: str, **settings: Any) -> NetworkConfig:
    contracts = {"happening": address}
    settings = {"rpc": (name,), "chain_id": 31337, "poll": 0.02, "contracts": contracts} | settings
    return NetworkConfig(name=name, adapter="one", **settings)


class World:
    """An anvil with the contract on it."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.account = Account.from_key(KEY)
        sent = chain.send(self.account, None, CREATE)
        chain.mine()
        self.address: str = chain.receipt(sent)["contractAddress"]
        self.said = 0

    def say(self, times: int = 1) -> None:
        for _ in range(times):
            self.said += 1
            self.chain.send(self.account, self.address, self.said.to_bytes(32))
        self.chain.mine()

    def reorg(self, depth: int) -> None:
        """New blocks, in the first of which the contract says something new."""
        removed = self.chain.head()[0] - depth
        nonce = int(self.chain.rpc("eth_getTransactionCount", self.account.address, hex(removed)), 16)
        self.said += 1
        raw = self.account.sign(31337, nonce, self.address, self.said.to_bytes(32))
        self.chain.reorg(depth, [(raw, 0)])

    @property
    def truth(self) -> tuple[list[str], Counter[tuple[str, str]]]:
        """Hashes of all blocks, and (block hash, what) of all logs, by plain JSON-RPC."""
        return self.truth_from(0)

    def truth_from(self, first: int) -> tuple[list[str], Counter[tuple[str, str]]]:
        """As `truth`, from this block on."""
        numbers = range(first, self.chain.head()[0] + 1)
        hashes = [self.chain.rpc("eth_getBlockByNumber", hex(n), False)["hash"] for n in numbers]
        asked = {"fromBlock": hex(first), "toBlock": "latest", "address": self.address}
        logs = self.chain.rpc("eth_getLogs", asked)
        return hashes, Counter((log["blockHash"], log["data"]) for log in logs)


@contextmanager
def world() -> Iterator[World]:
    try:
        find_anvil()
    except DevnetError as error:
        pytest.skip(f"needs anvil: {error}")
    with anvil(chain_id=31337, slots=2) as chain:
        yield World(chain)


class Buggy(OneContract):
    def abi(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        raise ZeroDivisionError("nobody foresaw this")


@contextmanager
def running(
    config: Config, bus: SqliteBus, adapters: Mapping[str, OneContract] | None = None
) -> Iterator[list[BaseException]]:
    """The role in a thread of its own; what it raised, once the context has ended."""
    stop, raised = threading.Event(), list[BaseException]()
    known = {each.name: OneContract() for each in config.networks} | dict(adapters or {})

    def run() -> None:
        try:
            role.run(config, known, bus, stop, Health())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield raised
    finally:
        stop.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def tip(bus: SqliteBus, name: str = "net") -> str | None:
    blocks = Reading(records(bus, name)).blocks
    return "0x" + blocks[-1].hash.hex() if blocks else None


def assert_tells_the_truth(bus: SqliteBus, there: World, name: str = "net") -> Reading:
    reading = Reading(records(bus, name))
    hashes, logs = there.truth
    assert ["0x" + block.hash.hex() for block in reading.blocks] == hashes
    assert {block.level for block in reading.blocks} == {Level.PROVED}
    events = Counter(
        ("0x" + block_hash.hex(), "0x" + what.hex())
        for table, block_hash, what in reading.rows.elements()
        if table.startswith("event_happened_")
    )
    assert events == logs
    head = there.chain.head()[0]
    assert reading.finalized is not None
    assert reading.safe is not None
    assert (reading.finalized.number, reading.safe.number) == (head - 4, head - 2)
    return reading


def start(config: Config, directory: Path) -> subprocess.Popen[bytes]:
    """The role as a process of its own."""
    file = directory / "config.json"
    file.write_bytes(msgspec.json.encode(config))
    code = (
        "import sys, threading, msgspec\n"
        "from pathlib import Path\n"
        "from indexer import role\n"
        "from nektar import bus\n"
        "from nektar.config import Config\n"
        "from nektar.health import Health\n"
        "from tests.indexer.test_role import OneContract\n"
        "config = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Config)\n"
        "adapters = {each.name: OneContract() for each in config.networks}\n"
        "role.run(config, adapters, bus.open(config.bus_url), threading.Event(), Health())\n"
    )
    root = Path(__file__).parents[2]
    return subprocess.Popen([sys.executable, "-c", code, str(file)], cwd=root)


def test_a_killed_indexer_resumes_and_the_log_is_the_chain(tmp_path: Path) -> None:
    with world() as there:
        config = Config(
            providers={"net": Provider(there.chain.url)},
            networks=(network("net", there.address),),
            data_dir=str(tmp_path),
        )
        there.say(2)
        there.chain.mine(30)
        process = start(config, tmp_path)
        try:
            with SqliteBus(tmp_path / "bus") as bus:
                until(lambda: tip(bus) == there.chain.head()[1])
                for turn in range(9):
                    there.say(turn % 3)
                    if turn % 3 == 1:
                        there.reorg(1 + turn % 2)
                    if turn % 3 == 2:  # at once, so maybe in the middle of it; and a reorg while it is down
                        os.kill(process.pid, signal.SIGKILL)
                        process.wait()
                        there.reorg(2)
                        process = start(config, tmp_path)
                    else:
                        until(lambda: tip(bus) == there.chain.head()[1])
                until(lambda: tip(bus) == there.chain.head()[1])
                assert assert_tells_the_truth(bus, there).undone
        finally:
            process.kill()
            process.wait()


def test_a_network_whose_finality_fails_ends_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as stack:
        one, two = stack.enter_context(world()), stack.enter_context(world())
        bus = stack.enter_context(SqliteBus(tmp_path / "bus", partitions=1))
        config = Config(
            providers={"one": Provider(one.chain.url), "two": Provider(two.chain.url)},
            networks=(network("one", one.address), network("two", two.address)),
        )
        for there in (one, two):
            there.say(3)
            there.chain.mine(12)
        with running(config, bus) as raised:
            for name, there in (("one", one), ("two", two)):
                until(lambda name=name, there=there: tip(bus, name) == there.chain.head()[1])  # type: ignore[misc]
            one.reorg(8)  # finalized is 4 below the head
            until(lambda: "one: stopped: block " in caplog.text)
            assert "docs/RUNBOOK.md#reorg-below-finality" in caplog.text
            two.say()
            two.reorg(2)
            until(lambda: tip(bus, "two") == two.chain.head()[1])
            assert_tells_the_truth(bus, two, "two")
            assert not raised
        assert not raised, "told to stop, it ends well"
        with running(msgspec.structs.replace(config, networks=config.networks[:1]), bus) as raised:
            until(lambda: bool(raised))
        assert isinstance(raised[0], ReorgBelowFinality)


def test_a_network_that_meets_a_bug_ends_alone_and_shows_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with world() as there, SqliteBus(tmp_path / "bus") as bus:
        names = ("one", "two")
        config = Config(
            providers={name: Provider(there.chain.url) for name in names},
            networks=tuple(network(name, there.address) for name in names),
        )
        with running(config, bus, {"one": Buggy()}) as raised:
            until(lambda: tip(bus, "two") == there.chain.head()[1])
            there.say()
            until(lambda: tip(bus, "two") == there.chain.head()[1])
            assert not raised
        (line,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert line.getMessage() == "one: stopped by a bug (ZeroDivisionError): nobody foresaw this"
        assert line.exc_info
        with running(
            msgspec.structs.replace(config, networks=config.networks[:1]), bus, {"one": Buggy()}
        ) as raised:
            until(lambda: bool(raised))
        assert isinstance(raised[0], ZeroDivisionError)


def test_a_wrong_chain_and_an_unknown_contract_are_said_before_anything_is_written(tmp_path: Path) -> None:
    with world() as there, SqliteBus(tmp_path / "bus") as bus:
        providers = {"net": Provider(there.chain.url)}
        for wrong, kind, message in (
            (network("net", there.address, chain_id=1), WrongChain, "expected chain 1"),
            (
                NetworkConfig("net", 31337, ("net",), {"nothing": there.address}, adapter="one"),
                ConfigError,
                "networks.net.contracts: expected names that the adapter 'one' knows (happening)",
            ),
        ):
            with running(Config(providers=providers, networks=(wrong,)), bus) as raised:
                until(lambda raised=raised: bool(raised))  # type: ignore[misc]
            assert isinstance(raised[0], kind)
            assert isinstance(raised[0], NektarError)
            assert message in str(raised[0])
        assert records(bus, "net") == []


def test_an_address_without_a_contract_ends_its_network_alone_before_anything_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = "0x" + "ab" * 20
    with world() as there, SqliteBus(tmp_path / "bus") as bus:
        right, wrong = network("right", there.address), network("wrong", nowhere)
        providers = {name: Provider(there.chain.url) for name in ("right", "wrong")}
        with running(Config(providers=providers, networks=(right, wrong)), bus) as raised:
            until(lambda: "wrong: stopped: networks.wrong.contracts: expected a contract" in caplog.text)
            there.say(2)
            until(lambda: tip(bus, "right") == there.chain.head()[1])
            assert not raised
        with running(Config(providers=providers, networks=(wrong,)), bus) as raised:
            until(lambda: bool(raised))
        assert isinstance(raised[0], ConfigError)
        assert records(bus, "wrong") == []


def test_a_log_that_has_blocks_is_not_followed_on_where_the_contract_is_gone(tmp_path: Path) -> None:
    with world() as there, SqliteBus(tmp_path / "bus") as bus:
        config = Config(
            providers={"net": Provider(there.chain.url)}, networks=(network("net", there.address),)
        )
        with running(config, bus):
            until(lambda: tip(bus) == there.chain.head()[1])
        before = len(records(bus, "net"))
        there.chain.rpc("anvil_setCode", there.address, "0x")
        there.chain.mine()
        with running(config, bus) as raised:
            until(lambda: bool(raised))
        assert isinstance(raised[0], ConfigError)
        assert len(records(bus, "net")) == before


def test_a_provider_that_goes_away_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with world() as there, SqliteBus(tmp_path / "bus") as bus:
        config = Config(
            providers={"net": Provider("http://127.0.0.1:1"), "other": Provider(there.chain.url)},
            networks=(network("net", there.address, rpc=("net", "other")),),
        )
        with running(config, bus):
            until(lambda: tip(bus) == there.chain.head()[1])
        assert "provider net: " in caplog.text
        assert {block.provider for block in Reading(records(bus, "net")).blocks} == {"other"}


def test_what_the_bus_can_not_do_ends_the_role_and_not_one_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def follow(_: Config, of: NetworkConfig, *__: object) -> None:
        if of.name == "writes":
            raise BusError("no broker answers")
        await asyncio.Event().wait()

    monkeypatch.setattr(role, "follow", follow)
    networks = tuple(network(name, "0x" + "11" * 20) for name in ("idle", "writes"))
    config = Config(providers={}, networks=networks, data_dir=str(tmp_path))
    with SqliteBus(tmp_path / "bus") as bus, running(config, bus) as raised:
        until(lambda: bool(raised))
    assert [str(error) for error in raised] == ["no broker answers"]

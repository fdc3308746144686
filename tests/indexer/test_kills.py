"""The indexer killed (SIGKILL) at random moments, over a real anvil that goes on and reorgs, on both buses.

From chain to log and to the store nothing is lost and nothing doubled, by count and by digest. `make kill`
does it thirty times on each bus.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from nektar import bus as buses
from nektar.bus.port import Bus
from nektar.config import Config, Provider
from nektar.log import New, Undo
from nektar.role import ends_with_parent
from nektar.store.client import open_store
from nektar.store.migrate import abi_tables, migrate
from processors.sink import Sink
from tests.indexer.rules import Reading, records
from tests.indexer.test_role import OneContract, World, assert_tells_the_truth, network, world

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
KILLS, FEW_KILLS = 6, 3  # in a run
PATIENCE = 60.0
HISTORY = 400  # blocks there are before the first start, so that a kill meets a backfill too


class Account(NamedTuple):
    """What there is, of one kind, counted and digested."""

    count: int
    digest: str


def account(of: Iterable[tuple[str, str]]) -> Account:
    found = sorted(of)
    return Account(len(found), hashlib.sha256(repr(found).encode()).hexdigest())


@contextmanager
def indexer(*files: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process (`worker.py`) that is past its start, and killed in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.indexer.worker", *map(str, files)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        preexec_fn=ends_with_parent(),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class Run:
    """One seed: a chain that goes on and reorgs while its indexer is killed again and again."""

    def __init__(self, seed: int, there: World, bus_url: str, folder: Path, kills: int) -> None:
        self.kills = kills
        self.rng = random.Random(seed)
        self.there = there
        self.folder = folder
        self.config = Config(
            providers={"net": Provider(there.chain.url)},
            networks=(network("net", there.address),),
            data_dir=str(folder),
            bus=bus_url,
        )
        self.file = folder / "config.json"
        self.file.write_bytes(msgspec.json.encode(self.config))
        self.longest = 1.5 if bus_url else 0.4  # seconds that a process lives; Kafka's takes longer to begin
        self.cut_short = 0  # kills that left the log behind its chain

    def live(self) -> None:
        for _ in range(40):
            self.there.say(self.rng.randint(0, 3))
            self.there.chain.mine(HISTORY // 40 - 1)
        for _ in range(self.kills):
            with indexer(self.file):
                ends = time.monotonic() + self.rng.uniform(0.0, self.longest)
                while time.monotonic() < ends:
                    self.chain_goes_on()
                    time.sleep(self.rng.uniform(0.0, 0.03))
            with closing(buses.open(self.config.bus_url)) as bus:
                self.cut_short += self.tip(bus) != self.there.chain.head()[1]
            self.chain_goes_on()
        with indexer(self.file), closing(buses.open(self.config.bus_url)) as bus:
            deadline = time.monotonic() + PATIENCE
            while self.tip(bus) != self.there.chain.head()[1]:
                assert time.monotonic() < deadline, "waited in vain"
                time.sleep(0.05)
            self.until_marked(bus, deadline)

    def chain_goes_on(self) -> None:
        if self.rng.random() < 0.3:
            self.there.reorg(self.rng.randint(1, 3))
        else:
            self.there.say(self.rng.randint(0, 3))

    def until_marked(self, bus: Bus, deadline: float) -> None:
        """The newest mark comes with the look after the newest block."""
        head = self.there.chain.head()[0]
        while (final := Reading(records(bus, "net")).finalized) is None or final.number != head - 4:
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.05)

    @staticmethod
    def tip(bus: Bus) -> str | None:
        blocks = Reading(records(bus, "net")).blocks
        return "0x" + blocks[-1].hash.hex() if blocks else None

    def check_log(self, bus: Bus) -> tuple[Account, Account]:
        """Blocks and events: the chain's, and so the log's."""
        reading = assert_tells_the_truth(bus, self.there)
        hashes, logs = self.there.truth
        events = [
            ("0x" + block_hash.hex(), "0x" + what.hex())
            for table, block_hash, what in reading.rows.elements()
            if table.startswith("event_")
        ]
        chain = account(("", each) for each in hashes), account(logs.elements())
        log = account(("", "0x" + block.hash.hex()) for block in reading.blocks), account(events)
        assert log == chain
        return chain

    def check_store(self, bus: Bus, expected: tuple[Account, Account]) -> None:
        with open_store(f"chdb://{self.folder / 'store'}") as store:
            migrate(store, [OneContract()])

            def found() -> tuple[Account, Account]:
                hashes = [("", row[0]) for row in store.rows("SELECT hash FROM blocks")]
                events = [
                    (row[0], row[1]) for row in store.rows("SELECT block_hash, what FROM event_happened")
                ]
                return account(hashes), account(events)

            with Sink(store, bus, abi_tables([OneContract()])) as sink:
                deadline = time.monotonic() + PATIENCE
                while (sink.turn(0.2) or found() != expected) and time.monotonic() < deadline:
                    pass
            assert found() == expected


def run(seed: int, bus_url: str, folder: Path, kills: int = KILLS) -> str:
    """Raises AssertionError where anything is lost or doubled; else a line that says what was done."""
    folder.mkdir()
    started = time.monotonic()
    with world() as there:
        life = Run(seed, there, bus_url, folder, kills)
        life.live()
        with closing(buses.open(life.config.bus_url)) as bus:
            blocks, events = life.check_log(bus)
            life.check_store(bus, (blocks, events))
            log = Counter(type(record) for record in records(bus, "net"))
        return (
            f"seed {seed}: {kills} kills, {life.cut_short} with work left; {blocks.count} blocks and "
            f"{events.count} events, by {log[New]} new and {log[Undo]} undo; sha256 {events.digest[:16]} "
            f"in chain, log and store; {time.monotonic() - started:.1f} s"
        )


def test_killed_at_random_moments_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    print(run(0, "", tmp_path / "0", FEW_KILLS))


def test_killed_at_random_moments_on_kafka_nothing_is_lost_or_doubled(tmp_path: Path, kafka_url: str) -> None:
    url = f"{kafka_url}?prefix=kill{os.getpid()}.&partitions=2&lease=5"
    print(run(0, url, tmp_path / "0", FEW_KILLS))


@pytest.mark.slow
@pytest.mark.parametrize("where", ["sqlite", "kafka"])
def test_thirty_runs(
    where: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(30):
        url = ""
        if where == "kafka":
            prefix = f"kill{os.getpid()}.{seed}."
            url = f"{request.getfixturevalue('kafka_url')}?prefix={prefix}&partitions=2&lease=5"
        said = run(seed, url, tmp_path / str(seed))
        with capsys.disabled():
            print(f"\n{where} {said}", end="", flush=True)

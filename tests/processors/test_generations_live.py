"""A changed filter under a whole pipeline: all roles as processes, the real bus and store, a real anvil."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from devnet.anvil import free_port
from nektar import bus as buses
from nektar import config as configuration
from nektar import generations
from nektar.bus.port import Message, partition_of
from nektar.chain.keccak import keccak
from nektar.errors import NektarError
from nektar.evidence import bls
from nektar.generations import Standing
from nektar.log import NETWORK, SignedBatch, encode, key
from nektar.model import Address, Hash32, Signed
from nektar.networks.encoding import encode_answer
from nektar.role import ends_with_parent
from nektar.store.client import records
from tests.devnet.contracts.conftest import CHAIN_ID, Site, Task, on_anvil
from tests.indexer.rules import records as log_records
from tests.processors.told import SECRET, Serving
from tests.seeds import thorough

pytestmark = pytest.mark.real

PATIENCE = 90.0
HISTORY = 250  # blocks before the first start, so that catching up takes a while
FILTERED = ("task_manager", "operator_registry")  # at first; then the slashing manager comes too
EQUIVOCATED = "condition = 'equivocation'"
RIGHT, WRONG = (7, 13), (13, 7)
site = pytest.fixture(on_anvil)


class Life:
    """A Network, its pipeline's configuration, and what people see of it."""

    def __init__(self, site: Site, folder: Path, serving: Serving) -> None:
        self.site = site
        self.serving = serving
        self.file = folder / "nektar.yaml"
        self.folder = folder
        self._ports = {name: f"127.0.0.1:{free_port()}" for name in ("sql", "otlp", "otlp_grpc")}
        self.write(FILTERED)
        self.config = configuration.load(self.file)

    def write(self, contracts: tuple[str, ...], **settings: object) -> None:
        network = {"name": "home", "chain_id": CHAIN_ID, "rpc": ["a"], "poll": 0.02, **settings}
        network["contracts"] = {name: self.site.contracts[name] for name in contracts}
        limits = {"requests_per_second": 150, "in_flight": 4}
        watcher = {
            "name": "w",
            "url": f"http://127.0.0.1:{self.serving.port}/",
            "secret": SECRET,
            "conditions": ["equivocation"],  # one of the two responses is wrong, too
        }
        content = {
            "data_dir": "data",
            "providers": {"a": {"url": self.site.chain.url, "limits": limits}},
            "networks": [network],
            "watchers": [watcher],
            "telemetry": {"own": False},
            "listen": {**self._ports, "metrics": "127.0.0.1:0"},
        }
        self.file.write_text(yaml.safe_dump(content))

    @contextmanager
    def up(self) -> Iterator[None]:
        command = [sys.executable, "-m", "cli.main", "up", "--config", str(self.file)]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(command, stderr=log, preexec_fn=ends_with_parent())
            try:
                yield
                assert process.poll() is None, "the pipeline has ended"
            finally:
                process.terminate()
                process.wait(30)

    def kill(self, role: str) -> None:
        pid = int((self.folder / "data" / "run" / f"{role}.pid").read_text())
        os.kill(pid, signal.SIGKILL)

    # --- what happens ---

    def offend(self, operator: int) -> Task:
        """Attest twice, which is found."""
        self.site.do(self.site.stranger, "operator_registry", "commitSet")
        task = self.site.submit()
        self.site.attest(operator, task, RIGHT)
        self.site.attest(operator, task, WRONG)
        return task

    def report(self, operator: int) -> None:
        """Attest once, and have somebody bring what the Operator signed else, as the collector writes it."""
        self.site.do(self.site.stranger, "operator_registry", "commitSet")
        task = self.site.submit()
        self.site.attest(operator, task, RIGHT)
        keys = self.site.operators[operator]
        response = encode_answer(*WRONG)
        said = Signed(
            None,
            Hash32(task.hash),
            Address(bytes.fromhex(self.address(operator)[2:])),
            Hash32(keccak(response)),
            bls.sign(keys.secret, self.site.digest(task, WRONG)),
            response,
            brought_by="peer",
        )
        with closing(buses.open(self.config.bus_url)) as bus:
            standing = Standing(bus, self.config.networks)
            standing.look()
            log = key("home", standing(self.config.networks[0]))
            with bus.writer("collector", partition_of("home", bus.partitions)) as writer:
                writer.transaction([Message(NETWORK, log, encode(SignedBatch((said,))), {"sender": b"peer"})])

    # --- what is seen ---

    def sql(self, statement: str) -> list[dict[str, Any]]:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return records(self.config, statement)
            except NektarError:  # the store role is not there for the moment
                assert time.monotonic() < deadline, f"no answer; see {self.folder / 'log'}"
                time.sleep(0.05)

    @property
    def standing(self) -> int:
        with closing(buses.open(self.config.bus_url)) as bus:
            said = generations.read(bus, "home")
        return said.standing.number if said and said.next is None else 0

    @property
    def found(self) -> Counter[str]:
        """The Operators that have equivocated, each as often as it is found."""
        rows = self.sql(f"SELECT operator FROM findings WHERE {EQUIVOCATED} AND status != 'retracted'")
        return Counter(row["operator"] for row in rows)

    def address(self, operator: int) -> str:
        return self.site.operators[operator].account.address.lower()

    @property
    def shown(self) -> int:
        rows = self.sql("SELECT max(generation) AS n FROM generations WHERE stands")
        return int(rows[0]["n"])

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, f"waited in vain; see {self.folder / 'log'}"
            time.sleep(0.05)

    def check_each_is_there_once(self) -> None:
        """Every response that was brought stands in the log that stands, once."""
        with closing(buses.open(self.config.bus_url)) as bus:
            brought = {
                n: [record for record in log_records(bus, "home", n) if isinstance(record, SignedBatch)]
                for n in range(1, self.standing + 1)
            }
        everything = brought[self.standing]
        assert len(set(everything)) == len(everything)
        assert all(record in everything for record in brought[1])

    def check_told(self, operators: Counter[str]) -> None:
        """Each version of a finding came as one message, however often, and nothing else did."""
        kept = self.serving.receiver.kept
        assert all(each.verified for each in kept)
        ids = {each.id: (each.finding, each.status, each.block_hash) for each in kept}
        assert len(set(ids.values())) == len(ids), "told twice"
        first = {each.finding: each.operator for each in kept if each.status != "retracted"}
        assert Counter(first.values()) == operators


@pytest.fixture
def life(site: Site, tmp_path: Path) -> Iterator[Life]:
    with Serving() as serving:
        yield Life(site, tmp_path, serving)


def test_what_was_found_is_seen_until_the_new_log_has_it_and_nobody_is_told_twice(life: Life) -> None:
    life.offend(0)
    life.site.chain.mine(HISTORY)
    with life.up():
        life.until(lambda: life.found == Counter([life.address(0)]))
        life.until(lambda: len(life.serving.receiver.kept) >= 1)
        assert life.sql("SELECT count() AS n FROM calls WHERE call = 'call_prove_equivocation'") == [{"n": 0}]
    life.write((*FILTERED, "slashing_manager"))
    seen: list[Counter[str]] = []
    with life.up():
        life.until(lambda: bool(life.sql("SELECT 1 AS n")))
        offended = False
        while life.shown < 2:
            seen.append(life.found)
            if not offended:
                life.offend(1)  # is found while the new one catches up
                offended = True
            assert len(seen) < 2_000
            time.sleep(0.05)
        both = Counter([life.address(0), life.address(1)])
        life.until(lambda: life.found == both)
        assert all(each in (Counter([life.address(0)]), both) for each in seen)
        life.site.chain.mine(1)
        life.offend(2)
        every = Counter(map(life.address, range(3)))
        life.until(lambda: life.found == every)
        life.site.chain.mine(30)
        life.until(lambda: life.sql("SELECT max(number) AS n FROM blocks")[0]["n"] == life.site.head)
        final = f"SELECT count() AS n FROM findings WHERE {EQUIVOCATED} AND status = 'final'"
        life.until(lambda: life.sql(final)[0]["n"] == 3)
        life.until(lambda: sum(each.status == "final" for each in life.serving.receiver.kept) >= 3)
        spans = "SELECT DISTINCT SpanAttributes['nektar.generation'] AS g FROM otel_traces"
        assert life.sql(f"{spans} WHERE ServiceName = 'chain'") == [{"g": "2"}]
    life.check_told(every)
    assert life.standing == 2


@thorough
def test_killed_while_it_catches_up_it_ends_the_same_and_what_was_signed_comes_along(life: Life) -> None:
    rng = random.Random(os.environ.get("SEED", "5"))
    life.offend(0)
    life.site.chain.mine(HISTORY // 2)
    with life.up():
        life.until(lambda: life.found == Counter([life.address(0)]))
        life.report(1)
        found = Counter(map(life.address, range(2)))
        life.until(lambda: life.found == found)
        life.site.chain.mine(HISTORY // 2)
        life.until(lambda: life.sql("SELECT max(number) AS n FROM blocks")[0]["n"] == life.site.head)
    life.write((*FILTERED, "slashing_manager"))
    with life.up():
        life.until(lambda: bool(life.sql("SELECT 1 AS n")))
        kills = Counter[str]()
        every = Counter(map(life.address, range(3)))
        while life.shown < 2:
            if kills.total() == 1:
                life.report(2)
            if kills.total() < 8:
                role = rng.choice(["indexer", "processors", "store"])
                with contextlib.suppress(OSError):  # it is being started again
                    life.kill(role)
                    kills[role] += 1
            time.sleep(rng.uniform(0.1, 1.2))
            assert life.found in (found, every)
        life.until(lambda: life.found == every)
        life.kill("indexer")
        life.kill("store")
        life.report(3)
        life.site.chain.mine(30)
        every = Counter(map(life.address, range(4)))
        life.until(lambda: life.found == every)
        life.until(lambda: len({each.finding for each in life.serving.receiver.kept}) == 4)
    print(dict(kills))
    life.check_told(every)
    life.check_each_is_there_once()
    assert life.standing == 2

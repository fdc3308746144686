"""Three brokers, and two processes of the role `processors` to each: partitions move, and nothing else."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from devnet.chain import DevnetError
from devnet.kafka import Cluster, copied, kafka
from nektar import bus as buses
from nektar.bus.port import partition_of
from nektar.log import ROWS
from processors.replay import Replayed, replay
from tests.nektar.logs import NETWORK, Gossip, Plain, random_log
from tests.processors.logs_on_bus import write
from tests.seeds import thorough

pytestmark = pytest.mark.real

PARTITIONS = 6
PATIENCE = 120.0
# One to each partition, so that every process has one to fold.
NAMES = [
    next(f"n{i}" for i in range(1000) if partition_of(f"n{i}", PARTITIONS) == partition)
    for partition in range(PARTITIONS)
]
NETWORKS = [msgspec.structs.replace(NETWORK, name=name) for name in NAMES]


@pytest.fixture(scope="module")
def three() -> Iterator[Cluster]:
    try:
        copied()
    except DevnetError as error:
        pytest.skip(f"needs kafka: {error}")
    with kafka(3) as cluster:
        yield cluster


class Processes:
    """Processes of the role, started, killed, started again where they end, and what they said on stderr."""

    def __init__(self, url: str, directory: Path) -> None:
        self._url = url
        self._directory = directory
        self.running: list[subprocess.Popen[bytes]] = []
        self._started = 0

    def start(self, count: int) -> None:
        for _ in range(count):
            self._started += 1
            with (self._directory / f"{self._started}.log").open("wb") as log:
                self.running.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "tests.processors.kafka_worker", self._url, *NAMES],
                        stdout=subprocess.PIPE,
                        stderr=log,
                        cwd=Path(__file__).parents[2],
                    )
                )
        for process in self.running[-count:]:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n", self.said()

    def kill(self, which: int) -> None:
        process = self.running.pop(which)
        process.kill()
        process.wait()

    def tend(self) -> None:
        """What `nektar up` does: who was too slow to give a partition up is fenced, and starts again."""
        ended = [process for process in self.running if process.poll() is not None]
        self.running = [process for process in self.running if process.poll() is None]
        if ended:
            assert "another process has taken over" in self.said(), self.said()
            self.start(len(ended))

    def said(self) -> str:
        return "".join(path.read_text() for path in sorted(self._directory.glob("*.log")))

    def holders(self) -> list[set[int]]:
        """Of each process that was ever started, the partitions that it has held."""
        found = []
        for number in range(1, self._started + 1):
            lines = (self._directory / f"{number}.log").read_text().splitlines()
            found.append(
                {int(line.split("partition ")[1].split()[0]) for line in lines if "from offset" in line}
            )
        return found

    def close(self) -> None:
        for process in self.running:
            process.kill()
        for process in self.running:
            process.wait()


def wait_for(claim: Any, processes: Processes) -> None:
    deadline = time.monotonic() + PATIENCE
    while not claim():
        assert time.monotonic() < deadline, processes.said()
        processes.tend()
        time.sleep(0.1)


@thorough
def test_partitions_move_and_nothing_is_lost_or_doubled_though_processes_and_a_broker_are_killed(
    three: Cluster, tmp_path: Path
) -> None:
    logs = {
        network.name: [each.record for each in random_log(random.Random(i), 40)]
        for i, network in enumerate(NETWORKS)
    }
    url = f"{three.url}?prefix=cluster.&partitions={PARTITIONS}&lease=5"
    processes = Processes(url, tmp_path)
    with closing(buses.open(url)) as bus:

        def write_some(part: int) -> None:
            for network in NETWORKS:
                write(bus, network, logs[network.name][part * 10 : part * 10 + 10], part_bytes=700)

        def put_out(network: Any) -> int:
            return bus.end(ROWS, partition_of(network.name, PARTITIONS))

        try:
            processes.start(6)
            write_some(0)
            wait_for(lambda: all(len(held) for held in processes.holders()), processes)
            wait_for(lambda: all(map(put_out, NETWORKS)), processes)
            processes.kill(0)
            processes.kill(0)
            write_some(1)
            processes.start(1)
            three.brokers[0].kill()
            write_some(2)
            processes.kill(0)
            three.brokers[0].start()
            processes.start(2)
            write_some(3)
            found: dict[str, Replayed] = {}

            def folded() -> bool:
                for network in NETWORKS:
                    if network.name not in found or found[network.name].behind:
                        found[network.name] = replay(bus, network, Plain(), Gossip())
                return not any(each.behind for each in found.values())

            wait_for(folded, processes)
            final = [replay(bus, network, Plain(), Gossip()) for network in NETWORKS]
            assert [each.difference for each in final] == [None] * PARTITIONS
            assert [(each.records, each.behind) for each in final] == [(40, 0)] * PARTITIONS
        finally:
            processes.close()
    holders = processes.holders()
    assert all(any(partition in held for held in holders) for partition in range(PARTITIONS))
    assert sum(map(len, holders)) >= PARTITIONS + 3  # what three that were killed had held went to others

"""Findings put on a bus, a receiver to tell them to, and the role between them."""

from __future__ import annotations

import asyncio
import base64
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from aiohttp import web

from devnet.anvil import free_port
from devnet.receiver import Delivery, Receiver, listen
from nektar import bus as buses
from nektar.bus.port import Bus, Message, partition_of
from nektar.config import Config, NetworkConfig, Provider, Watcher
from nektar.health import Health
from nektar.log import FINDINGS
from nektar.model import Network
from nektar.rows import Finding
from processors import watchers
from processors.outputs import cloud_event
from processors.webhook import webhook_id

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER_SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()
PATIENCE = 60.0
NAMES = ("home", "away")
STATUSES = ("seen", "safe", "retracted", "seen", "safe", "final")
HEADERS = {"generation": b"1", "processor": b"equivocation"}


def open_bus(directory: Path) -> Bus:
    return buses.open(f"sqlite://{directory}?lease=2&partitions=4")


def finding(n: int, status: str = "seen", condition: str = "equivocation") -> Finding:
    return Finding(
        id=n.to_bytes(32, "big"),
        condition=condition,
        operator=b"\x02" * 20,
        task_hash=b"\x03" * 32,
        task_number=2**60,
        task_input="15",
        block_number=n,
        block_hash=n.to_bytes(32, "little"),
        block_time=1_700_000_000 + n,
        level="proved",
        anchor="single:p",
        facts='{"a":"ä"}',
        status=status,
    )


def event_of(n: int) -> bytes:
    return cloud_event(Network("home", 1, {}), finding(n), n)


def put(bus: Bus, network: str, *values: bytes) -> None:
    partition = partition_of(network, bus.partitions)
    with bus.writer(f"test-{partition}", partition) as writer:
        writer.transaction(Message(FINDINGS, network.encode(), value, HEADERS) for value in values)


class Life:
    """Findings of two Networks as they come and go, each version an event of its own, in a seeded order."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"life {seed}")
        self._versions: dict[tuple[str, int], int] = {}
        self._offset = 0
        self.events: list[bytes] = []

    def go_on(self, bus: Bus, count: int) -> None:
        """So many versions more, in transactions of several."""
        while count:
            network = self._rng.choice(NAMES)
            size = min(count, self._rng.randint(1, 5))
            values = [self._version(network) for _ in range(size)]
            put(bus, network, *values)
            self.events += values
            count -= size

    def _version(self, network: str) -> bytes:
        """The next version of a finding that has one."""
        which = network, self._rng.randrange(100)
        while (n := self._versions.get(which, 0)) == len(STATUSES):
            which = network, self._rng.randrange(100)
        self._versions[which] = n + 1
        self._offset += 1
        return cloud_event(Network(network, 1, {}), finding(which[1], STATUSES[n]), self._offset)

    def check(self, kept: list[Delivery]) -> None:
        """All came, nothing else did, what came twice is the same, and each finding's versions in order."""
        assert all(delivery.verified for delivery in kept)
        assert {delivery.id for delivery in kept} == {webhook_id(event) for event in self.events}
        first: dict[str, Delivery] = {}
        for delivery in kept:
            known = first.setdefault(delivery.id, delivery)
            assert msgspec.structs.replace(delivery, when=known.when) == known
        came: dict[tuple[str, str], list[str]] = {}
        for delivery in first.values():
            came.setdefault((delivery.source, delivery.finding), []).append(delivery.status)
        assert all(tuple(statuses) == STATUSES[: len(statuses)] for statuses in came.values())


class Serving:
    """A receiver that answers over HTTP at a port of its own, up and down."""

    def __init__(self, secret: str = SECRET) -> None:
        self.port = free_port()
        self.receiver = Receiver(secret)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def up(self) -> None:
        self._runner = asyncio.run_coroutine_threadsafe(listen(self.receiver, self.port), self._loop).result()

    def down(self) -> None:
        if self._runner:
            asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._runner = None

    def watcher(self, name: str = "w", **changes: object) -> Watcher:
        given = {"name": name, "url": f"http://127.0.0.1:{self.port}/", "secret": SECRET, **changes}
        return msgspec.convert(given, Watcher)


def config(*told: Watcher) -> Config:
    networks = tuple(NetworkConfig(name, 1, ("p",), {}) for name in NAMES)
    return Config(providers={"p": Provider("http://localhost")}, networks=networks, watchers=told)


@contextmanager
def role(directory: Path, *told: Watcher) -> Iterator[None]:
    """The role in a thread, with a bus of its own."""
    stop, errors = threading.Event(), list[BaseException]()

    def be() -> None:
        bus = open_bus(directory)
        try:
            watchers.run(config(*told), bus, stop, Health())
        except BaseException as error:
            errors.append(error)
        finally:
            bus.close()

    thread = threading.Thread(target=be)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not there():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def left(bus: Bus, name: str = "w") -> int:
    """How many messages watcher `name` has not taken."""
    with bus.consumer(f"watchers.{name}", [FINDINGS]) as looking:
        return sum(
            len(bus.read(FINDINGS, p, looking.committed(FINDINGS, p) or 0, 10_000))
            for p in range(bus.partitions)
        )

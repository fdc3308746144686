"""Whoever stores telemetry killed at any step, or hung in an insert that comes late: each message is stored
once, however often it was read or sent."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from nektar import senders
from nektar.bus.port import Message
from nektar.bus.sqlite import SqliteBus
from nektar.log import DEAD, OTLP_LOGS, OTLP_METRICS, OTLP_SPANS
from nektar.otlp import LOGS, METRICS, SPANS, parse
from nektar.senders import Sender
from nektar.store.otel import tables
from nektar.store.port import SqlError
from processors.telemetry import Telemetry
from tests import otlp
from tests.nektar.bus.reading import everything
from tests.processors.logs_on_bus import open_bus
from tests.seeds import seeds

NOW = 1_790_000_000 * 10**9
SIGNALS = {OTLP_SPANS: SPANS, OTLP_LOGS: LOGS, OTLP_METRICS: METRICS}
PARTITIONS = 2


class Killed(BaseException):
    """The end of the process."""


class Store:
    """A store as far as inserts go: a table drops one whose token it has seen, and what it can't take."""

    def __init__(self) -> None:
        self._seen = set[tuple[str, str]]()
        self.rows = Counter[tuple[str, str]]()  # (table, which message) → rows
        self.together = self.again = 0  # inserts of several messages, and such as were seen

    def insert(self, table: str, rows: Any, token: str) -> None:
        found = counted(table, rows)
        if any("refused" in which for _, which in found):
            raise SqlError("Cannot parse", "Code: 6", 6)
        self.together += len(found) > 1
        self.again += (table, token) in self._seen
        if (table, token) not in self._seen:
            self._seen.add((table, token))
            self.rows += found


def counted(table: str, rows: Any) -> Counter[tuple[str, str]]:
    """(table, which message) → how many of its rows these are."""
    return Counter((table, str(sorted(each))) for each in rows.column("ResourceAttributes").to_pylist())


class Mortal:
    """A store or a bus, whose user may die before and after each of its steps."""

    STEPS = ("insert", "transaction", "commit", "poll", "committed", "last")

    def __init__(self, of: Any, step: Callable[[str, Callable[[], Any]], Any]) -> None:
        self._of, self._step = of, step

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._of, name)
        if name in ("writer", "consumer"):
            return lambda *args, **kwargs: Mortal(found(*args, **kwargs), self._step)
        return (lambda *args: self._step(name, lambda: found(*args))) if name in self.STEPS else found


class AtOnce(Executor):
    """What is handed over is done before anything else, so that a seed is always the same lives."""

    def submit(self, call: Any, /, *args: Any, **kwargs: Any) -> Any:
        done: Future[Any] = Future()
        try:
            done.set_result(call(*args, **kwargs))
        except BaseException as error:
            done.set_exception(error)
        return done


class Lives:
    """What happens under a seed."""

    def __init__(self, seed: int, bus: SqliteBus) -> None:
        self.seed = seed
        self.rng = random.Random(f"lives of telemetry {seed}")
        self.bus, self.store = bus, Store()
        self.sent: list[tuple[int, Message]] = []  # (partition, message), each once
        self.late: list[Callable[[], Any]] = []  # inserts of members that hang
        self.deaths = 0

    def send(self) -> None:
        """Some messages: ones that were sent before, junk, and such as no store takes, too."""
        for _ in range(self.rng.randrange(6)):
            if not self.sent or self.rng.random() < 0.7:
                self.sent.append((self.rng.randrange(PARTITIONS), self.message()))
                partition, message = self.sent[-1]
            else:
                partition, message = self.rng.choice(self.sent)
            with self.bus.writer("sender", partition) as writer:
                writer.transaction([message])

    def message(self) -> Message:
        stream, signal = self.rng.choice(list(SIGNALS.items()))
        name = f"{self.rng.choices(['sound', 'refused', 'junk'], [8, 1, 1])[0]} {len(self.sent)}"
        request = otlp.some(signal, self.rng.randrange(1, 8), NOW, seed=name)
        resource = getattr(request, signal.resources)[0].resource
        resource.attributes[0].value.string_value = name
        value = b"\xff" + name.encode() if "junk" in name else request.SerializeToString()
        return Message(stream, b"", value, Sender(f"sender-{self.rng.randrange(2)}").headers)

    def live(self, steps: int | None) -> None:
        """Store what there is; with `steps`, die after so many of them."""
        left = [steps or -1]

        def step(name: str, call: Callable[[], Any]) -> Any:
            if self.rng.random() < 0.3:
                self.come_late()
            left[0] -= 1
            if left[0] == 0:
                if name == "insert" and self.rng.random() < 0.5:
                    self.late.append(call)
                raise Killed
            found = call()
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return found

        store: Any = Mortal(self.store, step)
        bus: Any = Mortal(self.bus, step)
        try:
            with Telemetry(store, bus, AtOnce()) as telemetry:
                while telemetry.turn():
                    pass
        except Killed:
            self.deaths += 1

    def come_late(self) -> None:
        """What hung members were about to insert."""
        while self.late:
            with suppress(SqlError):
                self.late.pop()()

    def check(self) -> None:
        """The store has what was sent, once, and the dead letters are of what it can't have."""
        expected = Counter[tuple[str, str]]()
        for _, message in self.sent:
            if b"junk" in message.value or b"refused" in message.value:
                continue
            signal = SIGNALS[message.stream]
            for name, rows in tables(
                signal, parse(signal, message.value), senders.of(message.headers)
            ).items():
                expected += counted(name, rows)
        assert self.store.rows == expected, self.seed
        letters = Counter(m.value for p in range(PARTITIONS) for m in everything(self.bus, DEAD, p))
        junk = {m.value for _, m in self.sent if b"junk" in m.value}
        assert {value for value in letters if value.startswith(b"\xff")} == junk
        assert all(b"refused" in value for value in letters.keys() - junk)


def test_each_message_is_stored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("processors.telemetry.EVERY", 0.0)
    monkeypatch.setattr("processors.telemetry.AHEAD", 7)
    monkeypatch.setattr("processors.batches.ROWS", 12)
    happened = Counter[str]()
    for seed in range(seeds(8, 200)):
        with open_bus(tmp_path / str(seed), PARTITIONS) as bus:
            lives = Lives(seed, bus)
            for _ in range(10):
                lives.send()
                lives.live(lives.rng.randrange(1, 30))
            lives.come_late()
            lives.live(None)
            lives.check()
            happened += Counter(deaths=lives.deaths, together=lives.store.together, again=lives.store.again)
    assert min(happened[each] for each in ("deaths", "together", "again")) >= seed

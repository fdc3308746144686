"""The role `prosecutor`: makes each finding's evidence, checks it, and asks the slashing contract about it.

A finding says what a stranger must be shown (`evidence/sought.py`); the rest is fetched from any provider,
none of which is believed: the bundle is put out once the verifier has accepted it (`evidence/verify.py`), the
same that strangers run. State proofs are fetched as soon as a finding is seen, since nodes forget. Then the
proof is run on the state of a block without being sent: nothing here holds a key. What a finding's bundle
says follows from the log and the chain alone, byte for byte; what a dry run said stands beside it.

What is new is never behind what has failed before, however much of that there is, and what comes first
(`urgency.py`) behind nothing else. What nobody serves is asked for ever more rarely, and the store says so.

Exactly once: rows, how far `nektar.findings` is read, and what is known of open cases (`docket.py`) move in
one transaction a turn. A restart goes on with the bundles that are made: a state proof is not fetched twice.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Self

import msgspec

from nektar.bus.level import Level
from nektar.bus.port import Bus, Consumer, Delivered, Fenced, Message, Writer
from nektar.config import Config
from nektar.errors import NektarError
from nektar.generations import FRESH_SECONDS
from nektar.health import Health
from nektar.log import FINDINGS, Readings
from nektar.model import Network
from nektar.networks.adapter import Adapter
from nektar.rows import Change
from processors import docket, kept, outputs
from processors.conditions.condition import Condition
from processors.docket import Case, Key
from processors.followed import followed
from processors.letters import letter, where
from processors.proving import Done, Unserved, Work
from processors.urgency import is_first

log = logging.getLogger(__name__)

NAME = "prosecutor"
# How long it waits for findings before it looks at what is under way, in seconds.
IDLE = 0.05
# Cases of a partition that are worked on at once, of what comes first and of the rest: what a provider has to
# serve for each may be much. Those that could not go on before leave one place free.
AT_ONCE = 4
# Seconds before a case is tried again that could not go on. They double, up to the longest where that may
# change at any moment: a block is to come, nobody answers. What those who answer don't have is said to be
# missing after an hour, and tried ever more rarely: full nodes keep the state of 128 blocks, which are 25
# minutes of 12 seconds each, and one that is down may be back before they are over.
FIRST_PAUSE, LONGEST_PAUSE, RARE_PAUSE = 0.1, 30.0, 86_400.0
SERVED_SECONDS = 3_600.0


def run(
    config: Config,
    conditions: Mapping[str, Condition],
    adapters: Mapping[str, Adapter],
    bus: Bus,
    stop: threading.Event,
    health: Health,
) -> None:
    """Be the prosecutor role until `stop`. Raises BusError, NektarError."""
    health.opened(NAME)
    with Work(config, adapters, conditions, bus) as work, Prosecutor(bus, work) as prosecutor:
        looked = 0.0
        while not stop.is_set():
            if (now := time.monotonic()) - looked >= FRESH_SECONDS:
                work.look(followed(config, adapters, bus))
                looked = now
            prosecutor.turn(IDLE)
            health.level(NAME, prosecutor.level_at)


class Waiting(msgspec.Struct):
    """A case that is open, here: what is under way, or when it goes on."""

    future: Future[Done | None] | None = None
    due: float = 0.0
    pause: float = FIRST_PAUSE
    since: float = msgspec.field(default_factory=lambda: time.monotonic())

    @property
    def failed(self) -> bool:
        """Whether it could not go on when it was tried last."""
        return self.pause > FIRST_PAUSE

    def put_off(self, now: float, longest: float) -> None:
        self.due, self.pause = now + self.pause, min(longest, 2 * self.pause)


class Prosecutor:
    """A member of group `prosecutor`. One thread; entering joins the group, leaving gives partitions back."""

    def __init__(self, bus: Bus, work: Work) -> None:
        self._bus = bus
        self._work = work
        self._consumer: Consumer
        self._level: Level
        self._shares: dict[int, _Share] = {}

    def __enter__(self) -> Self:
        self._consumer = self._bus.consumer(
            NAME, [FINDINGS], on_assigned=self._assigned, on_revoked=self._revoked
        )
        self._level = Level(self._consumer, [FINDINGS])
        return self

    def __exit__(self, *exc: object) -> None:
        self._revoked(frozenset(self._shares))
        self._consumer.close()

    @property
    def level_at(self) -> float | None:
        """When all that lay on the bus had been taken, in seconds since 1970, as far as is known."""
        return self._level.at

    def turn(self, timeout: float) -> None:
        """Take what one poll brings, go on with open cases, and commit. Raises BusError."""
        messages = self._level.poll(timeout)
        for message in messages:
            if message.partition in self._shares:
                self._shares[message.partition].take(message)
        for partition, share in list(self._shares.items()):
            share.go_on()
            try:
                share.commit()
            except Fenced as error:
                log.warning("%s", error)
                self._revoked(frozenset({partition}))
                self._consumer.seek(FINDINGS, partition, self._consumer.committed(FINDINGS, partition) or 0)
                self._assigned(frozenset({partition}))
        self._level.took(messages)

    def _assigned(self, partitions: frozenset[int]) -> None:
        for partition in partitions:
            self._shares[partition] = _Share(self._bus, partition, self._work)

    def _revoked(self, partitions: frozenset[int]) -> None:
        for partition in partitions:
            if share := self._shares.pop(partition, None):
                share.close()


class _Share:
    """A partition that this prosecutor holds: its cases, and what is not yet committed."""

    def __init__(self, bus: Bus, partition: int, work: Work) -> None:
        # Before anything is read: who had the partition writes no more.
        self._writer: Writer = bus.writer(f"{NAME}-{partition}", partition)
        self._partition = partition
        self._work = work
        self._readings = Readings()
        self._cases: dict[Key, Case] = {}
        self._open: dict[Key, Waiting] = {}
        self._messages: list[Message] = []
        self._touched = set[Key]()
        self._read: int | None = None  # offset up to which findings are read
        for key in _read_index(bus, partition):
            value = kept.read(bus, partition, _name(key))
            if value:
                self._keep(key, docket.read(value))

    def close(self) -> None:
        for waiting in self._open.values():
            if waiting.future:
                waiting.future.cancel()
        self._writer.close()

    def take(self, message: Delivered) -> None:
        """Hear the findings that are whole with this message."""
        records, error = self._readings(message)
        for record in records:
            self._hear(record)
        if error:
            self._bury(message, error)
        began = self._readings.began
        self._read = message.offset + 1 if began is None else began

    def _hear(self, record: Delivered) -> None:
        try:
            finding = outputs.finding_of(record.value)
            generation = int(record.headers.get("generation", b""))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            self._bury(record, NektarError(f"expected a finding's CloudEvent; {error}"))
            return
        key = record.key.decode("utf-8", "replace"), generation, finding.id
        before = self._cases.get(key)
        case, changes = docket.heard(before, finding)
        if before and (case is None or docket.moved(before.finding, case.finding)):
            self._leave(key)
        self._put(key, case, changes)

    def _leave(self, key: Key) -> None:
        """What is under way for a case is of no use any more."""
        waiting = self._open.pop(key, None)
        if waiting and waiting.future:
            waiting.future.cancel()

    def go_on(self) -> None:
        """Take what is done, and begin with what is due: what comes first and the rest, each in places of its
        own, and of both what is new before what failed, and what failed seldom before what did so often."""
        now = time.monotonic()
        for key, waiting in list(self._open.items()):
            if waiting.future and waiting.future.done():
                self._done(key, waiting, now)
        for first in (True, False):
            line = [each for each in self._open.items() if self._is_first(each[0]) is first]
            running = sum(waiting.future is not None for _, waiting in line)
            due = [each for each in line if each[1].future is None and each[1].due <= now]
            for key, waiting in sorted(due, key=lambda each: (each[1].pause, each[1].due)):
                if running >= AT_ONCE - waiting.failed:
                    break
                if self._work.knows(key):
                    waiting.future = self._work.on(key, self._cases[key])
                    running += 1

    def _is_first(self, key: Key) -> bool:
        return is_first(self._cases[key].finding.condition)

    def _done(self, key: Key, waiting: Waiting, now: float) -> None:
        future, waiting.future = waiting.future, None
        assert future is not None  # noqa: S101  the caller looked
        case = self._cases[key]
        try:
            done = future.result()
        except NektarError as error:
            log.warning("%s, finding 0x%s: %s", key[0], key[2].hex(), error)
            unserved = isinstance(error, Unserved)
            is_over = unserved and now - waiting.since >= SERVED_SECONDS
            waiting.put_off(now, RARE_PAUSE if is_over else LONGEST_PAUSE)
            if waiting.pause > LONGEST_PAUSE and not (case.bundle or case.missing):
                self._put(key, *docket.unserved(case, str(error)))
            return
        if done is None:
            waiting.put_off(now, LONGEST_PAUSE)
            return
        waiting.due, waiting.pause = 0.0, FIRST_PAUSE
        if done.bundle:
            self._put(key, *docket.made(case, done.bundle))
            log.info("%s: evidence of %s 0x%s", key[0], case.finding.condition, key[2].hex())
        elif done.missing:
            self._put(key, *docket.unshowable(case, done.missing))
            log.error(
                "%s: no evidence of %s 0x%s: %s", key[0], case.finding.condition, key[2].hex(), done.missing
            )
        elif done.runs:
            self._put(key, *docket.tried(case, done.runs, done.providers))
        else:
            self._put(key, docket.without_dispute(case), [])

    def commit(self) -> None:
        """Write what has changed, and how far findings are read. Raises Fenced, BusError."""
        if not self._touched and self._read is None:
            return
        for key in sorted(self._touched):
            case = self._cases.get(key)
            self._messages += kept.messages(_name(key), docket.write(case) if case else b"")
        if self._touched:
            self._messages += kept.messages(_index(self._partition), _write_index(self._cases))
        offsets = None if self._read is None else {FINDINGS: self._read}
        self._writer.transaction(self._messages, offsets, NAME)
        self._messages, self._touched, self._read = [], set(), None

    def _put(self, key: Key, case: Case | None, changes: Sequence[Change]) -> None:
        """What a case is now, and what is put out because of that."""
        network = Network(key[0], 0, {}, key[1])
        self._messages += outputs.messages(network, NAME, 0, changes)
        self._touched.add(key)
        self._keep(key, case)

    def _keep(self, key: Key, case: Case | None) -> None:
        if case is None or case.settled:
            self._cases.pop(key, None)
            self._open.pop(key, None)
            return
        self._cases[key] = case
        if case.closed:
            self._open.pop(key, None)
        else:
            self._open.setdefault(key, Waiting(pause=2 * LONGEST_PAUSE if case.missing else FIRST_PAUSE))

    def _bury(self, message: Delivered, error: NektarError) -> None:
        log.error("%s is a dead letter: %s", where(message), error)
        self._messages += letter(message, message.value, error, message.key, NAME)


def _index(partition: int) -> bytes:
    return f"{NAME}/{partition}".encode()


def _name(key: Key) -> bytes:
    return f"{NAME}/{key[0]}/{key[1]}/{key[2].hex()}".encode()


def _write_index(cases: Mapping[Key, Case]) -> bytes:
    return msgspec.json.encode([(name, generation, id_.hex()) for name, generation, id_ in sorted(cases)])


def _read_index(bus: Bus, partition: int) -> list[Key]:
    value = kept.read(bus, partition, _index(partition)) or b"[]"
    said = msgspec.json.decode(value, type=list[tuple[str, int, str]])
    return [(name, generation, bytes.fromhex(id_)) for name, generation, id_ in said]

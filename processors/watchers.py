"""The role `watchers`: tells each configured watcher every version of every finding that it wants.

The outbox is `nektar.findings` itself: what a watcher has not taken lies there, and the offset of its group,
`watchers.NAME`, says up to where it has taken all. So nothing has to be written before something is sent, and
nothing is lost by a receiver that is down or breaks off, by kill -9, or by the role's moving to another host.
What comes first (`urgency.py`) has a group of its own, `watchers.NAME.first`, and waits for nothing of the
rest, however much that is, and whatever the receiver says to it.
What the receiver may rely on:

* at least once: the offset moves only after a whole answer of 2xx. A repeat has the same `webhook-id`;
* the versions of one finding come in their order, and where some are repeated, so are all up to the newest;
  those of different findings may overtake each other;
* nothing is given up: what it does not take is sent again, ever more slowly, and what comes after it waits;
* a watcher begins with the first finding that the bus holds, so that one that is configured after a slashing
  became due hears of it. The group's name is the watcher's: under another name it begins again.

Each group has a thread, a membership and connections of its own, so that none waits for another's receiver.
What can't be read is told to nobody and goes to `nektar.dead`, as it came, with the reason.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence, Set
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar, TypeVarTuple

from opentelemetry import metrics

from nektar import plugins, trace
from nektar.bus.level import Level
from nektar.bus.port import Bus, Consumer, Delivered, Fenced
from nektar.config import Config, ConfigError, Watcher
from nektar.health import Health
from nektar.log import FINDINGS
from processors.due import Due, Tray, Unread
from processors.letters import letter, where
from processors.webhook import Answer, Outcome, Webhook

_attempts = metrics.get_meter("nektar").create_counter(
    "nektar.watchers.attempts", "{attempt}", "Webhooks sent, by watcher and what became of it"
)

log = logging.getLogger(__name__)

# Messages a turn: so many are under way to a receiver at once, since it is far and an outage makes many, and
# so many are sent a second time after a kill. A receiver that did not take the last one gets one at a time.
BATCH = 8
# How long an idle watcher waits for the bus before it looks whether to stop, in seconds.
IDLE = 0.2
# How often whoever rests or sends looks whether to stop, and how often at least it says that it lives.
LOOK = 0.1
ALIVE = 1.0
# Of a lease: so much oftener than it ends it is renewed.
RENEWALS = 4
# After so many seconds of a turn no more is begun in it: partitions change hands between turns.
TURN = 1.0
# A receiver that does not take what it is sent is one log line so often.
SAY_EVERY = 60.0

# Seconds before the second attempt, which double with every further one, and the most that they become. A
# receiver that is restarted is back in moments; what a person has to mend takes longer; who asks for no more
# is asked again now and then, in case it was a mistake.
PAUSES = {
    Outcome.LATER: (0.25, 30.0),
    Outcome.REFUSED: (5.0, 300.0),
    Outcome.GONE: (3600.0, 3600.0),
}


def run(config: Config, bus: Bus, stop: threading.Event, health: Health) -> None:
    """Be the watchers role until `stop`. Raises ConfigError, BusError."""
    told = [(watcher, check(watcher), first) for watcher in config.watchers for first in (True, False)]
    for watcher, _, first in told:
        health.opened(part_of(watcher, first))
    if not told:
        log.info("nobody is to be told: nektar.yaml names no watchers")
        while not stop.wait(IDLE):
            health.level("watchers", time.time())
        return
    with ThreadPoolExecutor(len(told), thread_name_prefix="watcher") as pool:
        telling = [
            pool.submit(_in_loop, Outbox(watcher, bus, health, first).run(webhook, stop))
            for watcher, webhook, first in told
        ]
        wait(telling, return_when=FIRST_EXCEPTION)
        stop.set()  # where one ends by an error, the role does
    for each in telling:
        each.result()


def part_of(watcher: Watcher, first: bool) -> str:
    """What a part of the role is called that tells the watcher what comes first, or the rest."""
    return f"{watcher.name}, first" if first else watcher.name


def group_of(name: str, first: bool) -> str:
    """The group whose offset says how far the watcher of this name is told of that. Names have no dot."""
    return f"watchers.{name}.first" if first else f"watchers.{name}"


def _in_loop(telling: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(telling)


_Given = TypeVarTuple("_Given")
_Got = TypeVar("_Got")


class Loop(asyncio.SelectorEventLoop):
    """Nobody waits for its threads, in which it looks up names: that may take half a minute and can't be
    broken off, and at its end a process waits for an executor's."""

    def run_in_executor(
        self, executor: object, func: Callable[[*_Given], _Got], *args: *_Given
    ) -> asyncio.Future[_Got]:
        done = Future[_Got]()
        done.set_running_or_notify_cancel()

        def run() -> None:
            try:
                done.set_result(func(*args))
            except Exception as error:
                done.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return asyncio.wrap_future(done, loop=self)


def check(watcher: Watcher) -> Webhook:
    """The watcher's webhook. Raises ConfigError where what it wants, its URL or its secret can't be right."""
    known = plugins.names("nektar.conditions")
    for condition in watcher.conditions:
        if condition not in known:
            raise ConfigError(
                f"watchers.{watcher.name}.conditions: expected names of {', '.join(known)}; got {condition!r}"
            )
    return Webhook(watcher)


def pause(answer: Answer, failures: int, chance: float) -> float:
    """Seconds until the next attempt after so many failures in a row; `chance` is in [0, 1)."""
    first, longest = PAUSES[answer.outcome]
    return max(answer.after, min(longest, first * 2.0 ** min(failures - 1, 32)) * (1 + chance) / 2)


class Outbox:
    """A watcher's part of the bus: what comes `first`, or the rest. One thread."""

    def __init__(self, watcher: Watcher, bus: Bus, health: Health, first: bool = False) -> None:
        self._watcher = watcher
        self._first = first
        self._name = part_of(watcher, first)
        self._bus = bus
        self._group = group_of(watcher.name, first)
        self._consumer: Consumer
        self._level: Level
        self._brought = False  # … something, by the last poll
        self._alive = min(ALIVE, bus.lease / RENEWALS)
        self._alive_until = 0.0  # when it is time to say so again
        self._trays: dict[int, Tray] = {}  # by partition; of those that are ours, as far as is known
        self._trouble = Trouble(self._name)
        self._health = health

    async def run(self, webhook: Webhook, stop: threading.Event) -> None:
        """Until `stop`. Raises BusError.

        Nothing else lives in this event loop, so waiting for the bus may hold it up.
        """
        with self._bus.consumer(
            self._group, [FINDINGS], on_assigned=self._forget, on_revoked=self._forget
        ) as self._consumer:
            self._level = Level(self._consumer, [FINDINGS])
            async with webhook:
                while not stop.is_set():
                    if answer := await self.turn(webhook, stop):
                        self._rest(self._trouble.met(answer), stop)

    async def turn(self, webhook: Webhook, stop: threading.Event) -> Answer | None:
        """Tell what one poll brings, and commit what is taken; the answer that ended it, if one did."""
        # Before it waits it looks whether there is more.
        batch = self._level.poll(0.0 if self._brought else IDLE, 1 if self._trouble else BATCH)
        self._brought = bool(batch)
        found = [each for message in batch for each in self._put(message)]
        for each in found:
            if isinstance(each, Unread):
                self._bury(each)
        answer = await self._tell(webhook, [each for each in found if isinstance(each, Due)], stop)
        settled = [self._settle(partition) for partition in {message.partition for message in batch}]
        if all(settled):
            self._level.took(batch)
            self._health.level(self._name, self._level.at)
        return answer

    def _put(self, message: Delivered) -> list[Due | Unread]:
        return self._trays.setdefault(message.partition, Tray(self._watcher, self._first)).put(message)

    async def _tell(self, webhook: Webhook, told: Sequence[Due], stop: threading.Event) -> Answer | None:
        """Send each, a finding's versions one after the other; the answer of one that is not taken.

        Nobody polls meanwhile, so that no partition is handed over with a webhook under way, or with one that
        is taken and not committed. Of one that was torn away, since we hung, nothing more is told.
        """
        findings: dict[tuple[int, str], list[Due]] = {}
        for each in told:
            findings.setdefault((each.partition, each.finding), []).append(each)
        partitions = {each.partition for each in told}
        enough = time.monotonic() + TURN
        self._alive_until = time.monotonic() + self._alive

        async def in_order(versions: Iterable[Due]) -> Answer | None:
            for each in versions:
                if not self._hold(partitions):
                    break
                answer = await self._attempt(webhook, each)
                if answer.outcome is not Outcome.TAKEN:
                    return answer
                self._did(each)
                self._trouble.over()
                log.info("watcher %s: told of %s", self._watcher.name, each.name)
                if time.monotonic() >= enough:
                    break
            return None

        telling = asyncio.gather(*map(in_order, findings.values()))
        while not telling.done():
            await asyncio.wait({telling}, timeout=min(LOOK, self._alive))
            self._health.moved(self._name)
            if stop.is_set() or not self._hold(partitions):
                telling.cancel()
        try:
            return next((answer for answer in telling.result() if answer), None)
        except asyncio.CancelledError:
            return None

    async def _attempt(self, webhook: Webhook, each: Due) -> Answer:
        """Send one, in a span that the receiver may go on with."""
        span = trace.under("tell", each.traceparent, {"nektar.watcher": self._watcher.name})
        try:
            answer = await webhook.send(each.event, trace.traceparent_of(span) or each.traceparent.decode())
            span.set_attribute("nektar.outcome", answer.outcome.value)
        finally:
            span.end()
        _attempts.add(1, {"watcher": self._watcher.name, "outcome": answer.outcome.value})
        return answer

    def _hold(self, partitions: Set[int]) -> bool:
        """Whether these are ours still, which a commit now and then shows and keeps so."""
        if time.monotonic() >= self._alive_until:
            self._alive_until = time.monotonic() + self._alive
            for partition in partitions:
                self._commit(partition)
        return partitions <= self._trays.keys()

    def _commit(self, partition: int) -> bool:
        """Commit what is done with; whether the partition is ours."""
        tray = self._trays.get(partition)
        if tray is None:
            return False
        try:
            self._consumer.commit(FINDINGS, partition, tray.upto())
        except Fenced as error:
            log.warning("%s", error)  # whoever has it now tells again what was not committed
            self._forget(frozenset({partition}))
            return False
        return True

    def _settle(self, partition: int) -> bool:
        """Commit what is done with, and go back to what is not; whether there is nothing of that."""
        if not self._commit(partition):
            return False
        tray = self._trays[partition]
        if tray.left:
            self._consumer.seek(FINDINGS, partition, tray.again())
            return False
        return True

    def _did(self, each: Due | Unread) -> None:
        """It is told or buried; where its partition has moved meanwhile, that is so for nobody else."""
        if tray := self._trays.get(each.partition):
            tray.did(each.offset)

    def _bury(self, unread: Unread) -> None:
        """Write a dead letter. Killed before its offset is committed, it is written again."""
        message, error = unread
        log.error("watcher %s: %s is a dead letter: %s", self._watcher.name, where(message), error)
        try:
            with self._bus.writer(f"{self._group}-{message.partition}", message.partition) as writer:
                writer.transaction(letter(message, message.value, error, message.key, self._group))
        except Fenced as fenced:
            log.warning("%s", fenced)  # another has had the partition; whoever has it now buries this
            return
        self._did(unread)

    def _rest(self, seconds: float, stop: threading.Event) -> None:
        """Wait, and stay a member: who does not poll for a lease loses its partitions."""
        until = time.monotonic() + seconds
        alive = time.monotonic() + self._alive
        while (left := until - time.monotonic()) > 0 and not stop.wait(min(LOOK, self._alive, left)):
            if time.monotonic() >= alive:
                alive = time.monotonic() + self._alive
                self._health.waits(self._name, self._trouble.words)
                for message in self._level.poll(0, 1):
                    self._consumer.seek(FINDINGS, message.partition, message.offset)  # its time comes

    def _forget(self, partitions: frozenset[int]) -> None:
        """What a partition's reading has to begin anew with."""
        for partition in partitions:
            self._trays.pop(partition, None)


class Trouble:
    """How long a receiver has taken nothing, and how often that is worth a line."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.words = ""  # of the last answer
        self._failures = 0
        self._since = 0.0
        self._said = -SAY_EVERY

    def __bool__(self) -> bool:
        return self._failures > 0

    def met(self, answer: Answer) -> float:
        """Count one more, and say so if it is time; seconds to wait."""
        now = time.monotonic()
        self.words = answer.words
        self._failures += 1
        if self._failures == 1:
            self._since = now
        if now - self._said >= SAY_EVERY:
            self._said = now
            log.warning(
                "watcher %s: not told, for %.0f s and %d attempts now: %s. It is sent again; nothing is lost",
                self._name,
                now - self._since,
                self._failures,
                answer.words,
            )
        return pause(answer, self._failures, random.random())  # noqa: S311  no secret

    def over(self) -> None:
        """It has taken one."""
        if self._failures and self._said >= self._since:
            log.info("watcher %s: told again, after %.0f s", self._name, time.monotonic() - self._since)
        self._failures = 0

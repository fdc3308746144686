"""The role `processors`: folds run over Networks' logs, exactly once.

One fold is one processor, one consumer group, one set of checkpoints. The order of operations, with the
test that kills the process at each, is a table in docs/DESIGN.md ("Order of operations"). What it rests on:

* what records put out, and **how far their log is put out** now, are one transaction; now and then there is a
  checkpoint in it;
* outputs are a function of the log's records alone, so that what is folded again need not be put out again;
* all of this is kept for each log by itself. The group's offset, which is the whole partition's, moves along
  for whoever watches how far behind the group is, and decides nothing. So Networks and generations may come,
  go and return, and one that can't go on ends alone.

A restart goes back to the oldest checkpoint among the partition's logs, folds from there, and is silent
about what is put out already.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Generic, Self, TypeVar

from opentelemetry.trace import Span

from nektar import log, registered, trace
from nektar.bus.level import Level
from nektar.bus.port import Bus, BusError, Delivered, Fenced, Message, Writer, partition_of
from nektar.checkpoint import BadCheckpoint
from nektar.config import Config
from nektar.errors import NektarError
from nektar.fold import Fold
from nektar.generations import FRESH_SECONDS
from nektar.health import Health, words
from nektar.log import NETWORK, STANDS_HEADER, Reading
from nektar.model import Network, UnknownContract, UnknownTerm
from nektar.networks.adapter import Adapter
from processors.followed import begun, followed
from processors.following import Following, name_of, saved
from processors.handover import difference
from processors.processor import Interpreter, Processor, broken_at

State = TypeVar("State")

# A batch ends at the record that reaches this: other writers of the partition wait for the transaction.
TRANSACTION_BYTES = 4 * 1024 * 1024
# Records a turn: little enough that the runners of a process take turns within what Interpreters remember.
BATCH = 64
# How long the group's offset may stay where it is, and what puts nothing out unsaid, in seconds. Folded again
# it puts nothing out again, so that only a restart's work and the group's lag, as others see it, grow by it,
# while every fold's transaction is something that the next block waits for, and on Kafka an offset is a third
# of one. Less than a lease, which a commit renews.
QUIET_SECONDS = 2.0
# How long an idle process waits for the bus before it looks whether to stop, in seconds.
IDLE = 0.05
_logger = logging.getLogger(__name__)


class _Share(Generic[State]):
    """A partition that this runner holds: the logs in it, its writer, and what is not yet committed."""

    def __init__(
        self,
        writer: Writer,
        processor: str,
        committed: int,
        logs: dict[bytes, Following[State]],
        stopped: dict[bytes, Exception],
        over: set[bytes],
        bus: Bus,
    ) -> None:
        """`stopped` says which logs are not followed any more, and why, and `over` which ones a newer
        generation has taken the place of; what comes to that here is added."""
        self.logs = logs
        self._over = over
        self._bus = bus
        self._writer = writer
        self._processor = processor
        self._committed = committed
        self._stopped = stopped
        self._messages: list[Message] = []
        self._spans: list[Span] = []  # of putting them out
        self._bytes = 0
        self._said_at = time.monotonic()
        self.start = min(
            (each.processor.start for key, each in logs.items() if key not in stopped), default=committed
        )
        self.read = self.start  # offset up to which the partition is read
        for each in logs.values():
            each.read = Reading(self.start)

    def take(self, delivered: Delivered) -> None:
        """Fold what came, and put it out where the batch is full. A log that can't be folded ends alone."""
        following = self.logs.get(delivered.key)
        if following and delivered.key not in self._stopped:
            try:
                for whole, span, messages in following.take(delivered):
                    if STANDS_HEADER in whole.headers:
                        messages += self._hand_over(following.processor.network, whole)
                    self._spans.append(span)
                    self._messages += messages
                    self._bytes += sum(len(message.value) for message in messages)
            except BusError:
                raise  # no fault of the log's: a new start does it again
            except Exception as error:
                network = following.processor.network
                self._stopped[delivered.key] = _stop(self._processor, network, error, delivered)
        self.read = delivered.offset + 1
        if self._bytes >= TRANSACTION_BYTES:
            self.flush()

    def _hand_over(self, network: Network, record: Delivered) -> list[Message]:
        """What says that the generation that comes to stand has found otherwise; older ones are followed no
        more. Raises BusError."""
        self.flush()  # so that all that was said before can be read
        carried = trace.carried(record.headers)
        said = difference(self._bus, network, self._processor, record.offset, carried)
        for key, each in list(self.logs.items()):
            older = each.processor.network
            if older.name == network.name and older.generation < network.generation:
                del self.logs[key]
                self._over.add(key)
                self._said_at = -math.inf  # no life that comes later follows them to here again
        return said

    def flush(self) -> None:
        """Commit everything taken, in one transaction: outputs, how far each log is put out, checkpoints, and
        now and then the group's offset. Where it puts nothing out, that may wait (QUIET_SECONDS).

        The group's offset stays below whatever is not put out: a record half read, or one that stopped a log.
        """
        due = time.monotonic() - self._said_at > QUIET_SECONDS
        if self._messages or due:
            self._commit(due)
        for span in self._spans:
            span.end()
        self._messages, self._spans, self._bytes = [], [], 0

    def _commit(self, offset_due: bool) -> None:
        waiting = [each.taken for key, each in self.logs.items() if key in self._stopped or each.read.half]
        group_next = max(self._committed, min([self.read, *waiting]))
        moved = [
            message
            for key, each in self.logs.items()
            for message in each.moved(name_of(self._processor, key))
        ]
        offset = {NETWORK: group_next} if offset_due and group_next > self._committed else {}
        if self._messages or moved or offset:
            self._writer.transaction([*self._messages, *moved], offset, _group(self._processor))
        for each in self.logs.values():
            each.committed()
        if offset_due:
            self._committed, self._said_at = group_next, time.monotonic()

    def close(self) -> None:
        self._writer.close()


class Runner(Generic[State]):
    """One fold over the logs of all `networks` whose partitions the group gives it."""

    def __init__(
        self,
        bus: Bus,
        fold: Fold[State],
        networks: Sequence[Network],
        interpreters: Mapping[bytes, Interpreter],
        begins: Mapping[bytes, int] | None = None,
    ) -> None:
        """Join the group. `interpreters` by the log's key; runners of one process share them. `begins` is an
        offset by the log's key, below which nothing of it lies."""
        self.name = fold.name
        self._bus = bus
        self._fold = fold
        self._networks = networks
        self._interpreters = interpreters
        self._begins = begins or {}
        self._shares: dict[int, _Share[State]] = {}
        self._stopped: dict[bytes, Exception] = {}  # by the log's key, the first one first
        self._over = set[bytes]()
        self._join()

    def _join(self) -> None:
        self._consumer = self._bus.consumer(
            _group(self._fold.name), [NETWORK], on_assigned=self._assigned, on_revoked=self._revoked
        )
        self._level = Level(self._consumer, [NETWORK])

    def begin_anew(self) -> None:
        """Leave the group and join it again: a partition was taken from us while we were at it."""
        self.close()
        self._join()

    @property
    def stopped(self) -> dict[bytes, Exception]:
        """The logs that are followed no further, by key, and why."""
        return self._stopped

    @property
    def level_at(self) -> float | None:
        """When the bus had nothing more than what is put out, in seconds since 1970, as far as is known."""
        return self._level.at

    @property
    def ended(self) -> Exception | None:
        """The error by which the first Network stopped, when none is left to follow."""
        if len(self._stopped) < len(self._networks):
            return None
        return next(iter(self._stopped.values()), None)

    def turn(self, timeout: float) -> int:
        """Take one batch, waiting up to `timeout` s for it, and commit it. How many messages it was.

        A Network whose log can't be read or folded is followed no further; that is logged, once.

        Raises Fenced where the group has given a partition to another meanwhile: nothing of it is put out.
        """
        batch = self._level.poll(timeout, BATCH)
        for delivered in batch:
            share = self._shares.get(delivered.partition) or self._open(delivered.partition, ())
            share.take(delivered)
        for share in self._shares.values():
            share.flush()
        self._level.took(batch)
        return len(batch)

    @property
    def reached(self) -> dict[int, int]:
        """Partition → offset up to which it is taken."""
        return {partition: share.read for partition, share in self._shares.items()}

    def close(self) -> None:
        """Leave the group. What was taken and not committed will be taken again."""
        self._consumer.close()
        self._revoked(frozenset(self._shares))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _assigned(self, partitions: frozenset[int]) -> None:
        for partition in partitions:
            networks = [n for n in self._networks if partition_of(n.name, self._bus.partitions) == partition]
            if networks:
                self._open(partition, networks)

    def _open(self, partition: int, networks: Sequence[Network]) -> _Share[State]:
        # Opening the writer fences whoever held the partition before us: nothing read below can move then.
        writer = self._bus.writer(_group(self._fold.name), partition)
        committed = self._consumer.committed(NETWORK, partition)
        keys = {log.key(n.name, n.generation): n for n in networks}
        logs = {key: self._following(n, partition) for key, n in keys.items() if key not in self._over}
        share = _Share(writer, self._fold.name, committed or 0, logs, self._stopped, self._over, self._bus)
        if logs:
            self._consumer.seek(NETWORK, partition, share.start)
        self._shares[partition] = share
        _logger.info(
            "%s: partition %d from offset %d, committed %s",
            self._fold.name,
            partition,
            share.start,
            committed,
        )
        return share

    def _following(self, network: Network, partition: int) -> Following[State]:
        """The log from its checkpoint on; stopped where that can't be read."""
        key = log.key(network.name, network.generation)
        try:
            step, below = saved(self._bus, partition, self._fold, key)
        except BadCheckpoint as error:
            self._stopped[key] = _stop(
                self._fold.name,
                network,
                BadCheckpoint(
                    f"generation {network.generation}: {error}. Run the version that wrote it, or raise the "
                    "Network's `generation` in nektar.yaml to begin anew"
                ),
            )
            step, below = None, 0
        processor = Processor(self._fold, network, self._interpreters[key], step, self._begins.get(key, 0))
        said = (
            self._fold.name != registered.FOLD
            or not below
            or registered.is_said(self._bus, network.name, network.generation)
        )
        return Following(processor, self._fold.name, below, step is not None, said)

    def _revoked(self, partitions: frozenset[int]) -> None:
        for partition in partitions:
            if share := self._shares.pop(partition, None):
                for key in share.logs:
                    self._stopped.pop(key, None)
                share.close()


def run(
    config: Config,
    folds: Sequence[Fold[Any]],
    adapters: Mapping[str, Adapter],
    bus: Bus,
    stop: threading.Event,
    health: Health,
) -> None:
    """Run every fold over every configured Network until `stop` is set; `adapters` by the Network's name.

    Returns once stopped. Raises BusError; and when no fold has a Network left, the first error by which one
    stopped. All that was put out before is kept.
    """
    opened = set[str]()
    while not stop.is_set():
        networks = followed(config, adapters, bus)
        interpreters = {log.key(n.name, n.generation): Interpreter(n, adapters[n.name]) for n in networks}
        begins = begun(networks, bus)
        with ExitStack() as stack:
            runners = [
                stack.enter_context(Runner(bus, fold, those, interpreters, begins))
                for fold in folds
                if (those := able(fold, networks))
            ]
            for runner in runners:
                if runner.name not in opened:
                    health.opened(runner.name)
                    opened.add(runner.name)
            _take_turns(runners, stop, health, partial(_still, networks, config, adapters, bus))


def able(fold: Fold[Any], networks: Sequence[Network]) -> list[Network]:
    """The Networks of which the configuration says all that the fold must know; of the others a line says
    what it lacks, and the fold is off: a condition that is installed is not every Network's."""
    found = []
    for network in networks:
        try:
            fold.initial(network)
        except (UnknownContract, UnknownTerm) as error:
            _logger.warning("%s, %s: off: %s", fold.name, network.name, error)
        else:
            found.append(network)
    return found


def _still(networks: Sequence[Network], config: Config, adapters: Mapping[str, Adapter], bus: Bus) -> bool:
    """Whether these are the logs that are followed."""
    return followed(config, adapters, bus) == networks


def _take_turns(
    runners: Sequence[Runner[Any]], stop: threading.Event, health: Health, still: Callable[[], bool]
) -> None:
    """Until `stop`, and while their logs are `still` those that are followed."""
    idle, looked = False, time.monotonic()
    while not stop.is_set():
        next_ = _next(runners)
        taken = [_turn(runner, IDLE if idle and runner is next_ else 0.0, health) for runner in runners]
        idle = not any(taken)
        if time.monotonic() - looked > FRESH_SECONDS:
            if not still():
                return
            looked = time.monotonic()
        ended = [error for runner in runners if (error := runner.ended)]
        if ended and len(ended) == len(runners):
            raise ended[0]


def _turn(runner: Runner[Any], timeout: float, health: Health) -> int:
    """A turn; whoever was too slow to keep a partition is no worse for it than one that starts."""
    try:
        taken = runner.turn(timeout)
        health.level(runner.name, runner.level_at)
        health.ends(f"{runner.name}, ", {key.decode(): words(e) for key, e in runner.stopped.items()})
        return taken
    except Fenced as error:
        _logger.warning("%s; joining the group again", error)
        runner.begin_anew()
        return 0


def _next(runners: Sequence[Runner[Any]]) -> Runner[Any]:
    """Who to wait for. All follow one log: what one of them has is on its way to whoever lacks it; and where
    nobody lacks anything, whoever waits for the first is woken by what is new for all."""
    furthest: dict[int, int] = {}
    for runner in runners:
        for partition, offset in runner.reached.items():
            furthest[partition] = max(offset, furthest.get(partition, 0))
    lacking = (
        runner
        for runner in runners
        if any(offset < furthest[partition] for partition, offset in runner.reached.items())
    )
    return next(lacking, runners[0])


def _stop(
    processor: str, network: Network, error: Exception, delivered: Delivered | None = None
) -> Exception:
    """Say that the Network is followed no further; the error as it is kept. What no NektarError foresaw is a
    bug: its traceback is said too."""
    foreseen = isinstance(error, NektarError)
    shown = broken_at(delivered, error) if delivered else error
    how = "stopped" if foreseen else f"stopped by a bug ({type(error).__name__})"
    trace = None if foreseen else error
    _logger.error("%s, %s: %s: %s", processor, network.name, how, shown, exc_info=trace)
    return shown if foreseen else error


def _group(processor: str) -> str:
    return f"processors.{processor}"

"""The role `processors`: folds run over Networks' logs, exactly once.

All folds of a process are one member of a consumer group, read a partition together and put out together
(`share.py`); each has its own checkpoints. The order of operations, with the test that kills the process at
each, is a table in docs/DESIGN.md ("Order of operations"). What it rests on:

* what records put out, and **how far their log is put out** now, are one transaction; now and then there is a
  checkpoint in it;
* outputs are a function of the log's records alone, so that what is folded again need not be put out again;
* all of this is kept for each log by itself. The group's offset, which is the whole partition's, moves along
  for whoever watches how far behind the group is, and decides nothing. So folds, Networks and generations may
  come, go and return, and one that can't go on ends alone.

A restart goes back to the oldest checkpoint among the partition's logs, folds from there, and is silent
about what is put out already.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self

from nektar import registered
from nektar.bus.level import Level
from nektar.bus.port import Bus, Fenced, partition_of
from nektar.checkpoint import BadCheckpoint
from nektar.config import Config
from nektar.fold import Fold
from nektar.generations import FRESH_SECONDS
from nektar.health import Health, words
from nektar.log import NETWORK, key
from nektar.model import Network, UnknownContract, UnknownTerm
from nektar.networks.adapter import Adapter
from processors.followed import begun, followed
from processors.following import Following, Log, saved
from processors.processor import Interpreter, Processor
from processors.share import GROUP, Share, stop

# What its health says of them: they are level together.
PART = "folds"
# Records a turn: little enough that what waits for a block with one of them hardly waits for the others.
BATCH = 64
# How long an idle process waits for the bus before it looks whether to stop, in seconds.
IDLE = 0.05
_logger = logging.getLogger(__name__)


class Runner:
    """Folds over the logs of those Networks whose partitions the group gives it."""

    def __init__(
        self,
        bus: Bus,
        folds: Sequence[Fold[Any]],
        networks: Sequence[Network],
        interpreters: Mapping[bytes, Interpreter],
        begins: Mapping[bytes, int] | None = None,
    ) -> None:
        """Join the group. `interpreters` by the log's key. `begins` is an offset by the log's key, below
        which nothing of it lies."""
        self._bus = bus
        self._follows = {
            Log(fold.name, key(network.name, network.generation)): (fold, network)
            for fold in folds
            for network in _able(fold, networks)
        }
        self._interpreters = interpreters
        self._begins = begins or {}
        self._shares: dict[int, Share] = {}
        self._stopped: dict[Log, Exception] = {}  # the first one first
        self._over = set[Log]()
        self._join()

    def _join(self) -> None:
        self._consumer = self._bus.consumer(
            GROUP, [NETWORK], on_assigned=self._assigned, on_revoked=self._revoked
        )
        self._level = Level(self._consumer, [NETWORK])

    def begin_anew(self) -> None:
        """Leave the group and join it again: a partition was taken from us while we were at it."""
        self.close()
        self._join()

    @property
    def stopped(self) -> Mapping[Log, Exception]:
        """What is followed no further, and why."""
        return self._stopped

    @property
    def level_at(self) -> float | None:
        """When the bus had nothing more than what is put out, in seconds since 1970, as far as is known."""
        return None if any(share.behind for share in self._shares.values()) else self._level.at

    @property
    def ended(self) -> Exception | None:
        """The error by which the first log stopped, when none is left to follow."""
        if len(self._stopped) < len(self._follows):
            return None
        return next(iter(self._stopped.values()), None)

    def turn(self, timeout: float) -> int:
        """Take one batch, waiting up to `timeout` s for it, and commit it. How many messages it was.

        What can't be read or folded of a log is followed no further; that is logged, once.

        Raises Fenced where the group has given a partition to another meanwhile: nothing of it is put out.
        """
        behind = sum(share.catch_up(BATCH) for share in self._shares.values())
        batch = self._level.poll(0.0 if behind else timeout, BATCH)
        for delivered in batch:
            share = self._shares.get(delivered.partition) or self._open(delivered.partition, {})
            share.take(delivered)
        for share in self._shares.values():
            share.flush()
        self._level.took(batch)
        return behind + len(batch)

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
            follows = {
                log: (fold, network)
                for log, (fold, network) in self._follows.items()
                if log not in self._over and partition_of(network.name, self._bus.partitions) == partition
            }
            if follows:
                self._open(partition, follows)

    def _open(self, partition: int, follows: Mapping[Log, tuple[Fold[Any], Network]]) -> Share:
        # Opening the writer fences whoever held the partition before us: nothing read below can move then.
        writer = self._bus.writer(GROUP, partition)
        committed = self._consumer.committed(NETWORK, partition)
        followings = {
            log: self._following(log, fold, network, partition) for log, (fold, network) in follows.items()
        }
        share = Share(self._bus, partition, writer, committed or 0, followings, self._stopped, self._over)
        if followings:
            self._consumer.seek(NETWORK, partition, share.start)
        self._shares[partition] = share
        _logger.info("partition %d from offset %d, committed %s", partition, share.start, committed)
        return share

    def _following(self, log: Log, fold: Fold[Any], network: Network, partition: int) -> Following[Any]:
        """The log from its checkpoint on; stopped where that can't be read."""
        try:
            step, below = saved(self._bus, partition, fold, log)
        except BadCheckpoint as error:
            said = BadCheckpoint(
                f"generation {network.generation}: {error}. Run the version that wrote it, or raise the "
                "Network's `generation` in nektar.yaml to begin anew"
            )
            self._stopped[log] = stop(fold.name, network.name, said)
            step, below = None, 0
        interpreter, begins = self._interpreters[log.key], self._begins.get(log.key, 0)
        keys_said = (
            fold.name != registered.FOLD
            or not below
            or registered.is_said(self._bus, network.name, network.generation)
        )
        processor = Processor(fold, network, interpreter, step, begins)
        return Following(processor, log, below, step is not None, keys_said)

    def _revoked(self, partitions: frozenset[int]) -> None:
        for partition in partitions:
            if share := self._shares.pop(partition, None):
                for log in share.logs:
                    self._stopped.pop(log, None)
                share.close()


def run(
    config: Config,
    folds: Sequence[Fold[Any]],
    adapters: Mapping[str, Adapter],
    bus: Bus,
    stopping: threading.Event,
    health: Health,
) -> None:
    """Run every fold over every configured Network until `stopping` is set; `adapters` by the Network's name.

    Returns once stopped. Raises BusError; and when no fold has a Network left, the first error by which one
    stopped. All that was put out before is kept.
    """
    opened = False
    while not stopping.is_set():
        networks = followed(config, adapters, bus)
        interpreters = {key(n.name, n.generation): Interpreter(n, adapters[n.name]) for n in networks}
        with Runner(bus, folds, networks, interpreters, begun(networks, bus)) as runner:
            if not opened:
                health.opened(PART)
                opened = True
            _take_turns(runner, stopping, health, partial(_still, networks, config, adapters, bus))


def _able(fold: Fold[Any], networks: Sequence[Network]) -> list[Network]:
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


def _take_turns(runner: Runner, stopping: threading.Event, health: Health, still: Callable[[], bool]) -> None:
    """Until `stopping`, and while its logs are `still` those that are followed. Raises what ended the first
    one when none is left."""
    looked = time.monotonic()
    while not stopping.is_set():
        _turn(runner, IDLE, health)
        if runner.ended:
            raise runner.ended
        if time.monotonic() - looked > FRESH_SECONDS:
            if not still():
                return
            looked = time.monotonic()


def _turn(runner: Runner, timeout: float, health: Health) -> None:
    """A turn; whoever was too slow to keep a partition is no worse for it than one that starts."""
    try:
        runner.turn(timeout)
    except Fenced as error:
        _logger.warning("%s; joining the group again", error)
        runner.begin_anew()
    else:
        health.level(PART, runner.level_at)
        ended = {f"{log.fold}, {log.key.decode()}": words(e) for log, e in runner.stopped.items()}
        health.ends("", ended)

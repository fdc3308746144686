"""The role `processors`: folds run over Networks' logs, exactly once.

One fold is one processor, one consumer group, one set of checkpoints. The order of operations, with the
test that kills the process at each, is a table in docs/DESIGN.md ("Order of operations"). What it rests on:

* a record's outputs, the group's offset after it and, now and then, a checkpoint are **one transaction**;
* outputs are a function of the log's records alone, so that what is folded again need not be put out again;
* **no checkpoint means that nothing was ever put out**: a processor's first transaction for a Network holds
  one. So a Network that is configured only after its log was read past is still folded from its beginning.

A restart goes back to the oldest checkpoint among the partition's Networks, folds from there, and is silent
below what each Network's outputs have reached.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Generic, Self, TypeVar

import msgspec

from nektar import checkpoint, log
from nektar.bus.port import Bus, BusError, Delivered, Message, Writer, partition_of
from nektar.config import Config, NetworkConfig
from nektar.errors import NektarError
from nektar.fold import Fold
from nektar.log import CHECKPOINTS, NETWORK, BrokenLog, Joiner, Mark, broken_at
from nektar.model import Address, Network
from nektar.networks.adapter import Adapter
from processors.processor import Interpreter, Processor, Reading

State = TypeVar("State")

# What a restart folds again is the unfinal window and at most this many marks; writing a checkpoint passes
# over the whole state once (some 10 ms at 1,000 operators and 1,000 open tasks).
CHECKPOINT_MARKS = 32
# A batch ends at the record that reaches this: other writers of the partition wait for the transaction.
TRANSACTION_BYTES = 4 * 1024 * 1024
# Records a turn: little enough that the runners of a process take turns within what Interpreters remember.
BATCH = 64
# How long an idle process waits for the bus before it looks whether to stop, in seconds.
IDLE = 0.05

_logger = logging.getLogger(__name__)


class Saved(msgspec.Struct, frozen=True):
    """A checkpoint as it lies on the bus, in numbered parts (`key`, `key#1`, …) of one transaction."""

    step: msgspec.Raw  # nektar.checkpoint
    put_out: int  # the Network's outputs stand on the bus for all records below this offset
    behind: bool  # the group's offset is above that: the Network came when its log had been read past


class _Following(Generic[State]):
    """One Network's log in a partition, as far as this process has followed it."""

    def __init__(self, processor: Processor[State], silent_below: int, behind: bool, saved: bool) -> None:
        self.processor = processor
        self.read = Reading()
        self.silent_below = silent_below
        self.behind = behind
        self.due = not saved  # a checkpoint belongs into the next transaction
        self._marks = 0

    def take(self, delivered: Delivered) -> list[Message]:
        """What the record that ends with this message puts out; nothing where that is on the bus already."""
        if not (whole := self.read(delivered)) or whole[0] < self.processor.start:
            return []
        offset, value = whole
        record, messages = self.processor.take(offset, value)
        if isinstance(record, Mark):
            self._marks += 1
            self.due = self.due or self._marks >= CHECKPOINT_MARKS
        return messages if offset >= self.silent_below else []

    def saved(self, read: int, group_next: int) -> bytes | None:
        """The checkpoint to write where all below `read` is taken and the group's offset becomes
        `group_next`, if one is due."""
        if self.processor.folded is None or read <= self.silent_below:
            return None
        was_behind, self.behind = self.behind, read < group_next
        if not (self.due or was_behind or self.behind):
            return None
        self.due, self._marks = False, 0
        step = msgspec.Raw(checkpoint.encode(self.processor.folded.steps[0]))
        return checkpoint.to_json(Saved(step, read, self.behind))


class _Share(Generic[State]):
    """A partition that this runner holds: the logs in it, its writer, and what is not yet committed."""

    def __init__(
        self, writer: Writer, group: str, committed: int, logs: dict[bytes, _Following[State]]
    ) -> None:
        self._writer = writer
        self._group = group
        self._committed = committed
        self._logs = logs
        self._messages: list[Message] = []
        self._bytes = 0
        self.start = min((each.processor.start for each in logs.values()), default=committed)
        self._read = self.start  # offset up to which the partition is taken

    def take(self, delivered: Delivered) -> None:
        """Fold what came, and put it out where the batch is full."""
        if following := self._logs.get(delivered.key):
            try:
                messages = following.take(delivered)
            except NektarError as error:
                raise broken_at(delivered, error) from error
            self._messages += messages
            self._bytes += sum(len(message.value) for message in messages)
        self._read = delivered.offset + 1
        if self._bytes >= TRANSACTION_BYTES:
            self.flush()

    def flush(self) -> None:
        """Commit everything taken, in one transaction: outputs, checkpoints, the group's offset.

        Not while a record is half read: the offset can't stand within one, so the next batch ends it.
        """
        if any(following.read.half for following in self._logs.values()):
            return
        group_next = max(self._committed, self._read)
        saved = [
            Message(CHECKPOINTS, name, part, headers)
            for key, following in self._logs.items()
            if (value := following.saved(self._read, group_next))
            for name, part, headers in _parts(self._group, key, value)
        ]
        if self._messages or saved or group_next > self._committed:
            self._writer.transaction([*self._messages, *saved], {NETWORK: group_next}, self._group)
        self._messages, self._bytes, self._committed = [], 0, group_next

    def close(self) -> None:
        self._writer.close()


class Runner(Generic[State]):
    """One fold over the logs of all `networks` whose partitions the group gives it."""

    def __init__(
        self,
        bus: Bus,
        fold: Fold[State],
        networks: Sequence[Network],
        interpreters: Mapping[str, Interpreter],
    ) -> None:
        """Join the group. `interpreters` by the Network's name; runners of one process share them."""
        self._bus = bus
        self._fold = fold
        self._networks = networks
        self._interpreters = interpreters
        self._group = f"processors.{fold.name}"
        self._shares: dict[int, _Share[State]] = {}
        self._consumer = bus.consumer(
            self._group, [NETWORK], on_assigned=self._assigned, on_revoked=self._revoked
        )

    def turn(self, timeout: float) -> int:
        """Take one batch, waiting up to `timeout` s for it, and commit it. How many messages it was.

        Raises BrokenLog where a record can't be folded, after committing those before it.
        """
        batch = self._consumer.poll(timeout, BATCH)
        touched: dict[int, _Share[State]] = {}
        try:
            for delivered in batch:
                share = self._shares.get(delivered.partition) or self._open(delivered.partition, ())
                touched[delivered.partition] = share
                share.take(delivered)
        except BrokenLog:
            for share in touched.values():
                share.flush()
            raise
        for share in touched.values():
            share.flush()
        return len(batch)

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
        writer = self._bus.writer(self._group, partition)
        committed = self._consumer.committed(NETWORK, partition)
        logs = {log.key(n.name, n.generation): self._following(n, partition, committed) for n in networks}
        share = _Share(writer, self._group, committed or 0, logs)
        if logs:
            self._consumer.seek(NETWORK, partition, share.start)
        self._shares[partition] = share
        _logger.info(
            "%s: partition %d from offset %d, committed %s", self._group, partition, share.start, committed
        )
        return share

    def _following(self, network: Network, partition: int, committed: int | None) -> _Following[State]:
        interpret = self._interpreters[network.name]
        value = _joined(self._bus, self._group, partition, log.key(network.name, network.generation))
        if value is None:
            return _Following(Processor(self._fold, network, interpret), 0, False, False)
        try:
            saved = msgspec.json.decode(value, type=Saved)
            step = checkpoint.decode(saved.step, self._fold)
        except (msgspec.DecodeError, msgspec.ValidationError, checkpoint.BadCheckpoint) as error:
            raise checkpoint.BadCheckpoint(
                f"{self._fold.name}, {network.name}, generation {network.generation}: {error}. Run the "
                "version that wrote it, or raise the Network's `generation` in nektar.yaml to begin anew"
            ) from error
        if committed is None:
            raise BusError(
                f"{self._group}, partition {partition}: there is a checkpoint of {network.name}, but the "
                "group's offset is gone, so what is already put out can't be known. Restore the bus, or "
                "raise the Network's `generation` in nektar.yaml to begin anew"
            )
        silent_below = saved.put_out if saved.behind else committed
        return _Following(Processor(self._fold, network, interpret, step), silent_below, saved.behind, True)

    def _revoked(self, partitions: frozenset[int]) -> None:
        for partition in partitions:
            if share := self._shares.pop(partition, None):
                share.close()


def run(
    config: Config,
    folds: Sequence[Fold[Any]],
    adapters: Mapping[str, Adapter],
    bus: Bus,
    stop: threading.Event,
) -> None:
    """Run every fold over every configured Network until `stop` is set; `adapters` by the Network's name.

    Raises what stops the role: BrokenLog, BadCheckpoint, BusError. All that was put out before is kept.
    """
    networks = [network_of(each) for each in config.networks]
    interpreters = {network.name: Interpreter(network, adapters[network.name]) for network in networks}
    with ExitStack() as stack:
        runners = [stack.enter_context(Runner(bus, fold, networks, interpreters)) for fold in folds]
        # They follow one log: who waits on the first is woken by what is new for all.
        idle = False
        while not stop.is_set():
            taken = [runner.turn(IDLE if idle and not i else 0.0) for i, runner in enumerate(runners)]
            idle = not any(taken)


def network_of(config: NetworkConfig) -> Network:
    """What folds know of a configured Network."""
    contracts = {name: Address(bytes.fromhex(value[2:])) for name, value in config.contracts.items()}
    return Network(config.name, config.chain_id, contracts, config.generation)


def _parts(group: str, log_key: bytes, value: bytes) -> list[tuple[bytes, bytes, dict[str, bytes]]]:
    """(key, value, headers) of the messages that carry a checkpoint: a compacted stream keeps one a key."""
    return [
        (_part_key(group, log_key, i), part, headers) for i, (part, headers) in enumerate(log.split(value))
    ]


def _joined(bus: Bus, group: str, partition: int, log_key: bytes) -> bytes | None:
    """The newest checkpoint; None where there is none. All parts of one are written at once, and whoever
    could write another has been fenced."""
    join = Joiner()
    for i in range(log.MAX_RECORD_BYTES // log.PART_BYTES):
        part = bus.last(CHECKPOINTS, partition, _part_key(group, log_key, i))
        if part is None:
            return None
        if (value := join(part.value, dict(part.headers))) is not None:
            return value
    return None


def _part_key(group: str, log_key: bytes, i: int) -> bytes:
    key = group.removeprefix("processors.").encode() + b"/" + log_key
    return key + f"#{i}".encode() if i else key

"""A Network's log, of which this process is the only writer: records go in whole transactions, or not at all.

Opening it fences whoever wrote before, and only then is the log read back, so that nothing can come between.
Each record carries the hash of the filter that it was made with; a log is of one filter only.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Self

import msgspec
from opentelemetry import metrics
from opentelemetry.util.types import AttributeValue

from indexer.decode import Undecodable
from indexer.found import NOTHING, Found
from indexer.known import Known
from indexer.reconcile import mark
from indexer.resume import FILTER_HEADER, read_back
from nektar import senders, trace
from nektar.bus.port import Bus, Delivered, Message, Writer, partition_of
from nektar.config import NetworkConfig
from nektar.coverage import DissentRow
from nektar.errors import NektarError
from nektar.log import (
    AHEAD_HEADER,
    DEAD,
    LEVEL_HEADER,
    NETWORK,
    ROWS,
    STANDS_HEADER,
    BrokenLog,
    New,
    Record,
    Undo,
    encode,
    key,
    split,
)
from nektar.store.schema import rows_to_ipc

SOURCE = b"indexer"  # the key of what it could not read
# What a record that telemetry brought keeps when it is carried into another log.
CARRIED_HEADERS = (*senders.HEADERS, trace.TRACEPARENT)

_blocks = metrics.get_meter("nektar").create_counter(
    "nektar.indexer.blocks", "{block}", "Blocks appended to a Network's log, by the record that holds them"
)


class FilterChanged(NektarError):
    """The configuration asks for other content than the log of this generation holds."""


class NetworkLog:
    """The log of one Network and generation. `known` is what it says up to its last record."""

    def __init__(
        self,
        bus: Bus,
        network: NetworkConfig,
        filter_: bytes,
        found: Found = NOTHING,
        *,
        ahead: bool = False,
    ) -> None:
        """`found` says by which rules contracts are found; `ahead`: an older generation stands as yet. Raises
        FilterChanged, BrokenLog, BusError."""
        self.network = network.name
        self._ahead = ahead
        self._generation = network.generation
        self._key = key(network.name, network.generation)
        self._filter = filter_
        partition = partition_of(network.name, bus.partitions)
        self._writer = bus.writer(log_writer(network.name, network.generation), partition)
        try:
            self.known: Known
            self.known, made_with = read_back(bus, partition, self._key, network.from_block, found, filter_)
            if made_with is not None and made_with != filter_:
                raise FilterChanged(
                    f"networks.{network.name}: chain_id, adapter, contracts, factories, ABIs, from_block or "
                    f"calls changed since generation {network.generation} was begun: set generation to "
                    f"{network.generation + 1}, which begins a new log, or change them back"
                )
        except BaseException:
            self._writer.close()
            raise

    def append(
        self,
        records: Sequence[Record],
        dead: Iterable[Undecodable] = (),
        since: int = 0,
        *,
        carried: Iterable[Delivered] = (),
        beside: Iterable[Message] = (),
        stands_by: Writer | None = None,
        dissent: Sequence[DissentRow] = (),
        level_at: float | None = None,
    ) -> None:
        """Commit `records`, and beside them what could not be read, in one transaction, which begins a trace
        as of `since` (ns since 1970; 0: now). `carried` are records of an older log that are to stand after
        them, and `beside` goes with all that. `stands_by`: by these this generation comes to stand, what is
        carried is to stand before them, and who may say so writes with this. `dissent` goes to the store.
        `level_at`: with these the log is level with its chain, as of then, in seconds since 1970.

        Raises BrokenLog where the log's rules forbid a record, Fenced where another indexer has taken over,
        BusFull; then nothing was written.
        """
        known = self.known.fold(records)
        values = [encode(record) for record in records]
        traceparent = trace.begin(self._key, values)
        made_with = {FILTER_HEADER: self._filter, **trace.header(traceparent)}
        ahead = {AHEAD_HEADER: b"1"} if self._ahead else {}
        made_with |= {STANDS_HEADER: b"1"} if stands_by else ahead
        if level_at is not None:
            made_with[LEVEL_HEADER] = b"%d" % level_at
        own = [
            Message(NETWORK, self._key, part, {**headers, **made_with})
            for value in values
            for part, headers in split(value)
        ]
        brought = [Message(NETWORK, self._key, each.value, _kept(each) | ahead) for each in carried]
        messages = [*brought, *own] if stands_by else [*own, *brought]
        for each in dead:
            reason = {"reason": each.reason.encode(), "network": self.network.encode()}
            messages += [
                Message(DEAD, SOURCE, value, {**headers, **reason})
                for value, headers in split(msgspec.msgpack.encode(each))
            ]
        if dissent:
            rows = rows_to_ipc(DissentRow, [(row, False) for row in dissent])
            of = {"table": DissentRow.table.encode(), "generation": b"%d" % self._generation}
            messages.append(Message(ROWS, self.network.encode(), rows, {**of, "processor": SOURCE, **ahead}))
        messages += beside
        with trace.root("index", traceparent, since or time.time_ns(), _said(self.network, records)):
            (stands_by or self._writer).transaction(messages)
        self.known = known
        self._ahead = self._ahead and not stands_by
        for record in records:
            if isinstance(record, New | Undo):
                _blocks.add(len(record.blocks), {"network": self.network, "record": _kind(record)})

    def hand_over(self, by: Writer, beside: Iterable[Message], carried: Iterable[Delivered] = ()) -> None:
        """Say that this generation stands, by a mark that says again what the last one did, `beside`, and
        what is `carried`; `by` is the writer of whoever decides that."""
        if self.known.marked is None or self.known.base is None:
            raise BrokenLog("expected a log with a mark to take another one's place")
        again = mark(msgspec.structs.replace(self.known, marked=None), *self.known.marked)
        if again is None:
            raise BrokenLog("expected a mark to say again")
        again = msgspec.structs.replace(again, contracts=self.known.settled.written())
        self.append([again], carried=carried, beside=beside, stands_by=by)

    def close(self) -> None:
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def log_writer(network: str, generation: int) -> str:
    """The transactional id of the log's writer."""
    return f"indexer/{network}/{generation}"


def _kept(brought: Delivered) -> dict[str, bytes]:
    """The headers that a record keeps when it is carried."""
    return {name: value for name, value in brought.headers.items() if name in CARRIED_HEADERS}


def _said(network: str, records: Sequence[Record]) -> dict[str, AttributeValue]:
    """What the span says of what is appended."""
    numbers = [b.number for record in records if isinstance(record, New | Undo) for b in record.blocks]
    of_blocks = {trace.FIRST_BLOCK: min(numbers), trace.LAST_BLOCK: max(numbers)} if numbers else {}
    return {trace.NETWORK: network, trace.RECORDS: [_kind(record) for record in records], **of_blocks}


def _kind(record: Record) -> str:
    return type(record).__name__.lower()

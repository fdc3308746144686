"""Batches of telemetry: messages that lie one after the other, whose rows are inserted together.

An insert takes the store as long as the rows of some thousand spans do, and merging what it leaves takes as
long again. But a message that is read again, after a kill or by whoever takes the partition over, has to be
stored once, and the store knows an insert again only where it is the same. So it is agreed on the bus what a
batch is, before it is inserted: where it begins, which is what its group has committed, and where it ends.
Who finds an agreement that begins where the group is makes the same batch first, with the same token.

What a client sends twice is the same bytes, on one partition, in whatever batch: the digests of what was
stored last are part of the agreement.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from nektar import senders
from nektar.arrow import pa
from nektar.bus.port import Bus, Delivered, Message
from nektar.log import CHECKPOINTS
from nektar.store.otel import MAX_DATES, dates

# What is inserted together at most: rows of sixteen requests of stock exporters, in as many bytes as
# ClickHouse puts into one file of a part (`min_bytes_for_wide_part` is 10 MiB). A row costs half as much then
# as where a request is inserted alone, or less, and more rows save nothing.
ROWS = 8_192
BYTES = 8 * 1024 * 1024
# Messages of a stream's partition that are known again when they come again: of five minutes where a full
# load of large requests is dealt out to eight partitions, of a quarter of a minute where they are a thousand
# small ones a second. Each agreement repeats them.
KNOWN = 2_048
DIGEST_BYTES = 16


class Source(NamedTuple):
    """A stream's partition."""

    stream: str
    partition: int


class Agreed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a batch is: of the messages from offset `first` on and below `end` those with these digests."""

    first: int = 0
    end: int = 0
    digests: bytes = b""  # one after the other
    known: bytes = b""  # likewise, of messages that were stored before, oldest first


class Known:
    """Digests of the messages that were stored last."""

    def __init__(self, digests: bytes = b"") -> None:
        self._digests = OrderedDict[bytes, None]()
        self.add(digests)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._digests

    def __bytes__(self) -> bytes:
        return b"".join(self._digests)

    def add(self, digests: bytes) -> None:
        starts = range(0, len(digests), DIGEST_BYTES)
        self._digests |= dict.fromkeys(digests[i : i + DIGEST_BYTES] for i in starts)
        while len(self._digests) > KNOWN:
            self._digests.popitem(last=False)


class Rows(NamedTuple):
    """What is to be inserted of one message, and the digest by which it is known."""

    message: Delivered
    digest: bytes
    tables: Mapping[str, pa.Table]


class Batch:
    """Messages of one source, in their order, beginning at offset `first`."""

    def __init__(self, source: Source, first: int) -> None:
        self.source = source
        self.first = self.end = first
        self.rows: list[Rows] = []
        self.messages: list[Delivered] = []
        self.is_full = False
        self._count = self._bytes = 0
        self._dates, self._digests = set[int](), set[bytes]()

    def takes(self, tables: Mapping[str, pa.Table]) -> bool:
        """Whether there is room for these. One message always fits, since that is checked by itself."""
        return not self.rows or len(self._dates | _dates(tables)) <= MAX_DATES

    def add(self, message: Delivered, rows: Rows | None) -> None:
        """The next message, whose rows are inserted once if it comes twice; None: it has none to insert."""
        self.messages.append(message)
        self.end = message.offset + 1
        if rows and rows.digest not in self._digests:
            self._digests.add(rows.digest)
            self.rows.append(rows)
            self._dates |= _dates(rows.tables)
            self._count += sum(table.num_rows for table in rows.tables.values())
            self._bytes += sum(table.nbytes for table in rows.tables.values())
        self.is_full = self._count >= ROWS or self._bytes >= BYTES

    @property
    def digests(self) -> bytes:
        return b"".join(rows.digest for rows in self.rows)

    def agreement(self, known: Known) -> Message:
        """What says on the bus what it is, and what else is known."""
        agreed = Agreed(self.first, self.end, self.digests, bytes(known))
        return Message(CHECKPOINTS, _key(self.source), msgspec.msgpack.encode(agreed))


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Their rows as one block, which the store takes whole or not at all."""
    return pa.concat_tables(tables).combine_chunks()


def token(of: Sequence[Rows]) -> str:
    """By which the store knows their insert again."""
    return hashlib.sha256(b"".join(rows.digest for rows in of)).hexdigest()


def digest(message: Delivered) -> bytes:
    """What makes it the same as another: who sent it, and what."""
    said = "\0".join((*senders.of(message.headers), "")).encode()
    return hashlib.sha256(said + message.value).digest()[:DIGEST_BYTES]


def agreed(bus: Bus, source: Source) -> Agreed:
    """What was agreed last of this source."""
    if message := bus.last(CHECKPOINTS, source.partition, _key(source)):
        return msgspec.msgpack.decode(message.value, type=Agreed)
    return Agreed()


def _key(source: Source) -> bytes:
    return f"store.telemetry/{source.stream}".encode()


def _dates(tables: Mapping[str, pa.Table]) -> set[int]:
    return {date for table in tables.values() for date in dates(table)}

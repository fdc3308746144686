"""The Network's one log: its records, how they are written as bytes, and how long ones are carried.

A record is a small msgpack header; the rows in it are Arrow IPC streams, one per table, that nobody
decodes who does not need them. What consumers rely on (docs/DESIGN.md, "What flows"):

* a `New` block's parent is the last block not undone, or the last block of a `Gap` directly before it;
* an `Undo` never reaches below the finalized block of the last `Mark`;
* `finalized` never goes back; `safe` may.

A record above the bus's message size travels as numbered parts in one transaction (`split`); whoever reads
gets the whole record or nothing (`Reading`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import msgspec

from nektar.bus.port import Delivered
from nektar.errors import NektarError
from nektar.model import Block, BlockRef, Hash32, Signed, Told

NETWORK = "nektar.network"
ROWS = "nektar.rows"
FINDINGS = "nektar.findings"
CHECKPOINTS = "nektar.checkpoints"
DEAD = "nektar.dead"
# As the OpenTelemetry Collector's Kafka exporter names them, so that a real collector can stand in for ours.
OTLP_SPANS = "otlp_spans"
OTLP_LOGS = "otlp_logs"
OTLP_METRICS = "otlp_metrics"
TELEMETRY = (OTLP_SPANS, OTLP_LOGS, OTLP_METRICS)
STREAMS = (NETWORK, ROWS, FINDINGS, CHECKPOINTS, DEAD, *TELEMETRY)

# Kafka's default message.max.bytes is 1,048,588; the rest is room for the batch's own header and ours.
PART_BYTES = 1_000_000
# A record is joined in memory: a few blocks of a busy chain are tens of MB, and nothing honest is more.
MAX_RECORD_BYTES = 512 * 1024 * 1024

PART_HEADER = "nektar-part"  # "i/n", i from 0
# Of a generation that has not caught up with the one that stands (`nektar/generations.py`): on its records,
# and on all that is put out because of them.
AHEAD_HEADER = "nektar-ahead"
# On the record with which a generation takes the older one's place.
STANDS_HEADER = "nektar-stands"
# On the records with which the log is level with its chain: as of when, in whole seconds since 1970, by the
# clock of whoever looked at the chain's head.
LEVEL_HEADER = "nektar-level"

# Numbers in keys and headers, in the one form in which they are written: no sign, space or leading zero.
_NUMBER = rb"(0|[1-9][0-9]{0,8})"
_PART = re.compile(_NUMBER + b"/" + _NUMBER)
_KEY = re.compile(b"(.+)/" + _NUMBER, re.DOTALL)


class BrokenLog(NektarError):
    """The log breaks its own rules or can't be read: nothing after it can be trusted."""


class New(msgspec.Struct, frozen=True, tag="new"):
    """Consecutive blocks, oldest first, and what happened in them."""

    blocks: tuple[Block, ...]
    tables: dict[str, bytes]  # table name (with the hash of its ABI) → Arrow IPC stream


class Undo(msgspec.Struct, frozen=True, tag="undo"):
    """Blocks taken back, newest first, whole, so that whoever stored their rows can strike them out."""

    blocks: tuple[Block, ...]
    tables: dict[str, bytes]
    gap: tuple[int, int] | None = None  # a gap taken back with them, oldest of all


class Mark(msgspec.Struct, frozen=True, tag="mark"):
    """The chain's own finality. `unfinal` are the blocks above finalized, oldest first, for a restart."""

    safe: BlockRef
    finalized: BlockRef
    unfinal: tuple[Block, ...] = ()
    contracts: tuple[bytes, ...] = ()  # addresses found so far by factories


class Gap(msgspec.Struct, frozen=True, tag="gap"):
    """Blocks whose headers no provider can serve."""

    first: int
    last: int
    last_hash: Hash32 | None
    why: str


class SignedBatch(msgspec.Struct, frozen=True, tag="signed"):
    """Responses that Operators signed, as telemetry brought them; each says who brought it. It travels whole,
    never in parts."""

    responses: tuple[Signed, ...]


class ToldBatch(msgspec.Struct, frozen=True, tag="told"):
    """What telemetry says of Operators' work, in short. It travels whole, never in parts."""

    told: tuple[Told, ...]


Record = New | Undo | Mark | Gap | SignedBatch | ToldBatch

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    """The record as bytes. Equal records give equal bytes."""
    return _encoder.encode(record)


def decode(value: bytes) -> Record:
    """The record that `encode` wrote. Raises BrokenLog, saying what is wrong, for anything else."""
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenLog(f"expected a log record (new, undo, mark, gap, signed or told); {error}") from error


def key(network: str, generation: int) -> bytes:
    """The key of a Network's log on the bus: one Network and generation is one ordered log."""
    return f"{network}/{generation}".encode()


def parse_key(value: bytes) -> tuple[str, int]:
    """(network, generation) from a key. Raises BrokenLog."""
    match = _KEY.fullmatch(value)
    try:
        if match:
            return match[1].decode(), int(match[2])
    except UnicodeDecodeError:
        pass
    raise BrokenLog(f"expected a key NETWORK/GENERATION; got {value[:80]!r}")


def split(value: bytes, part_bytes: int = PART_BYTES) -> Iterator[tuple[bytes, dict[str, bytes]]]:
    """(value, headers) of the messages that carry `value`; one without headers where it fits."""
    if len(value) <= part_bytes:
        yield value, {}
        return
    count = -(-len(value) // part_bytes)
    for i in range(count):
        yield value[i * part_bytes : (i + 1) * part_bytes], {PART_HEADER: f"{i}/{count}".encode()}


class Joiner:
    """Puts the parts of records together again that come one after the other.

    A transaction makes all parts visible or none, so a part out of its turn is a broken log.
    """

    def __init__(self, max_bytes: int = MAX_RECORD_BYTES) -> None:
        self._max = max_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._of = 0

    def __call__(self, value: bytes, headers: Mapping[str, bytes]) -> bytes | None:
        """The whole record, or None until its last part has come. Raises BrokenLog."""
        numbers = _numbers(headers)
        if numbers is None:
            if self._parts:
                raise BrokenLog(f"expected part {len(self._parts)}/{self._of}; got a whole record")
            return value
        i, n = numbers
        if i != len(self._parts) or (i and n != self._of) or not 0 <= i < n:
            raise BrokenLog(f"expected part {len(self._parts)}/{self._of or 'n'}; got {i}/{n}")
        self._of = n
        self._size += len(value)
        if self._size > self._max:
            raise BrokenLog(f"a record is larger than {self._max} bytes")
        self._parts.append(value)
        if i + 1 < n:
            return None
        whole = b"".join(self._parts)
        self._parts, self._size, self._of = [], 0, 0
        return whole


class Reading:
    """Messages of one key, in the order of the bus, as whole records.

    One writer alone writes a key's records in parts. Those of others may stand between the parts, and
    **stand after** that record: they are held back until it is whole. So records come in the order of their
    first messages, whatever the batches, and wherever a reading starts: where the first parts of a record lie
    before the start, its other parts are passed over, since it stands before the start too. Only the first
    parts that a reading meets can be such; any other part out of its turn is a broken log.
    """

    def __init__(self, start: int = 0, max_bytes: int = MAX_RECORD_BYTES) -> None:
        """`start` is the offset from which on messages are shown; of 0 all is shown."""
        self._join = Joiner(max_bytes)
        self._room = self._max = max_bytes
        self._first: Delivered | None = None  # of the record that is half read
        self._between: list[Delivered] = []
        self._rest = start > 0  # what is met may be the rest of a record that began before
        self._passed: tuple[int, int] | None = None  # the last part of that rest

    @property
    def half(self) -> bool:
        """Whether a record's first parts have come and not its last: no offset may be committed now."""
        return self._first is not None

    @property
    def began(self) -> int | None:
        """The offset of the first part of the record that is half read."""
        return self._first.offset if self._first else None

    def __call__(self, message: Delivered) -> list[Delivered]:
        """The records that are whole with this message, each as if it had been one. Raises BrokenLog."""
        numbers = _numbers(message.headers)
        if numbers is None:
            if not self.half:
                return [message]
            self._room -= len(message.value)
            if self._room < 0:
                raise BrokenLog(f"more than {self._max} bytes stand between the parts of a record")
            self._between.append(message)
            return []
        if self._rest and self._is_rest(*numbers):
            return []
        self._rest = False
        whole = self._join(message.value, message.headers)
        self._first = self._first or message
        if whole is None:
            return []
        return [self._first._replace(value=whole), *self.give_up()]

    def give_up(self) -> list[Delivered]:
        """Forget the record that is half read; the records that it held back."""
        between, self._between = self._between, []
        self._first, self._room = None, self._max
        self._join = Joiner(self._max)
        return between

    def _is_rest(self, i: int, n: int) -> bool:
        """Whether this is the next part of a record that began before the start. Raises BrokenLog."""
        if self._passed is None:
            if i == 0:
                return False
        elif self._passed != (i - 1, n):
            raise BrokenLog(f"expected part {self._passed[0] + 1}/{self._passed[1]}; got {i}/{n}")
        if not i < n:
            raise BrokenLog(f"expected part {i} of more; got {i}/{n}")
        self._passed = i, n
        self._rest = i + 1 < n
        return True


class Readings:
    """Messages of one partition, in the order of the bus, as whole records, whoever writes: the parts of a
    processor's may stand between those of another's, so each has a reading of its own."""

    def __init__(self) -> None:
        self._half: dict[tuple[bytes, bytes], Reading] = {}  # by key and processor

    @property
    def began(self) -> int | None:
        """The offset of the first part of what is half read; None: nothing is."""
        began = (reading.began for reading in self._half.values())
        return min((offset for offset in began if offset is not None), default=None)

    def __call__(self, message: Delivered) -> tuple[list[Delivered], BrokenLog | None]:
        """The records that are whole with this message, and what is wrong with it where it is a part out of
        its turn: then what was half read is forgotten, and these are the records that it held back."""
        writer = message.key, message.headers.get("processor", b"")
        reading = self._half.pop(writer, None) or Reading()
        try:
            records = reading(message)
        except BrokenLog as error:
            return reading.give_up(), error
        if reading.half:
            self._half[writer] = reading
        return records, None


def _numbers(headers: Mapping[str, bytes]) -> tuple[int, int] | None:
    """(i, n) of a part, or None of a whole record. Raises BrokenLog."""
    part = headers.get(PART_HEADER)
    if part is None:
        return None
    numbers = _PART.fullmatch(part)
    if numbers is None:
        raise BrokenLog(f"expected a part header i/n; got {part[:40]!r}")
    return int(numbers[1]), int(numbers[2])

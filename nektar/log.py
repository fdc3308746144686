"""The Network's one log: its records, how they are written as bytes, and how long ones are carried.

A record is a small msgpack header; the rows in it are Arrow IPC streams, one per table, that nobody
decodes who does not need them. What consumers rely on (docs/DESIGN.md, "What flows"):

* a `New` block's parent is the last block not undone, or the last block of a `Gap` directly before it;
* an `Undo` never reaches below the finalized block of the last `Mark`;
* `finalized` never goes back; `safe` may.

A record above the bus's message size travels as numbered parts in one
transaction (`split`, `Joiner`): whoever reads gets the whole record or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import msgspec

from nektar.bus.port import Delivered
from nektar.errors import NektarError
from nektar.model import Block, BlockRef, Hash32, Signed

NETWORK = "nektar.network"
ROWS = "nektar.rows"
FINDINGS = "nektar.findings"
CHECKPOINTS = "nektar.checkpoints"
DEAD = "nektar.dead"
STREAMS = (NETWORK, ROWS, FINDINGS, CHECKPOINTS, DEAD)

# Kafka's default message.max.bytes is 1,048,588; the rest is room for the batch's own header and ours.
PART_BYTES = 1_000_000
# A record is joined in memory: a few blocks of a busy chain are tens of MB, and nothing honest is more.
MAX_RECORD_BYTES = 512 * 1024 * 1024

PART_HEADER = "nektar-part"  # "i/n", i from 0

# Numbers in keys and headers, in the one form in which they are written: no sign, space or leading zero.
_NUMBER = rb"(0|[1-9][0-9]{0,8})"
_PART = re.compile(_NUMBER + b"/" + _NUMBER)
_KEY = re.compile(b"(.+)/" + _NUMBER, re.DOTALL)


class BrokenLog(NektarError):
    """The log breaks its own rules or can't be read: nothing after it can be trusted."""


def broken_at(delivered: Delivered, error: NektarError) -> BrokenLog:
    """`error`, saying at which message of the bus."""
    return BrokenLog(
        f"{delivered.stream}, partition {delivered.partition}, offset {delivered.offset} "
        f"({delivered.key.decode('utf-8', 'replace')}): {error}; "
        "see docs/RUNBOOK.md#a-record-that-cant-be-read"
    )


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
    """Responses that Operators signed, as telemetry brought them, and who brought them."""

    responses: tuple[Signed, ...]
    brought_by: str


Record = New | Undo | Mark | Gap | SignedBatch

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
        raise BrokenLog(f"expected a log record (new, undo, mark, gap or signed); {error}") from error


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
    """Puts the parts of one partition's records together again, in order.

    A transaction makes all parts visible or none, so a part out of its turn is a broken log.
    """

    def __init__(self, max_bytes: int = MAX_RECORD_BYTES) -> None:
        self._max = max_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._of = 0

    def __call__(self, value: bytes, headers: Mapping[str, bytes]) -> bytes | None:
        """The whole record, or None until its last part has come. Raises BrokenLog."""
        part = headers.get(PART_HEADER)
        if part is None:
            if self._parts:
                raise BrokenLog(f"expected part {len(self._parts)}/{self._of}; got a whole record")
            return value
        numbers = _PART.fullmatch(part)
        if numbers is None:
            raise BrokenLog(f"expected a part header i/n; got {part[:40]!r}")
        i, n = int(numbers[1]), int(numbers[2])
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

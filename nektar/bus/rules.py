"""What holds on every side of the bus, so that what one takes or keeps the other does too."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from nektar.bus.port import MAX_MESSAGE_BYTES, BusError, Message
from nektar.log import CHECKPOINTS, TELEMETRY

# Streams of which only the newest message per key is kept. Offsets grow all the same.
COMPACTED = frozenset({CHECKPOINTS})
# Streams of which messages leave after some time, read or not: a store that was down for a night finds all of
# it. What the Networks' streams hold stays.
PASSING = frozenset(TELEMETRY)
KEPT_SECONDS = 86_400.0

# A transaction is held in memory and holds up the partition's other writers while it is written: room for
# the longest record of the log (nektar.log.MAX_RECORD_BYTES) and what is committed with it.
MAX_TRANSACTION_BYTES = 768 * 1024 * 1024
# What the store's row versions leave for an offset (docs/DESIGN.md, "Store tables").
OFFSET_BITS = 48

# Kafka's rule for topic names.
_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def is_telemetry(streams: Iterable[str]) -> bool:
    """Whether these streams are telemetry's and not the Networks'. Raises BusError where only some are:
    nothing moves the two together."""
    kinds = {stream in TELEMETRY for stream in streams} or {False}
    if len(kinds) > 1:
        raise BusError(f"streams: expected telemetry's ({', '.join(TELEMETRY)}) alone, or none of them")
    return kinds.pop()


def checked(messages: Iterable[Message]) -> list[Message]:
    """The messages, drawn whole before anything is locked or sent, and within the limits. Raises BusError."""
    batch: list[Message] = []
    size = 0
    for message in messages:
        if len(message.value) > MAX_MESSAGE_BYTES:
            raise BusError(
                f"stream {message.stream!r}: expected a message of at most {MAX_MESSAGE_BYTES} bytes; got "
                f"{len(message.value)}: write it in parts (nektar.log.split)"
            )
        size += len(message.value) + len(message.key)
        if size > MAX_TRANSACTION_BYTES:
            raise BusError(f"transaction: expected at most {MAX_TRANSACTION_BYTES} bytes; use several")
        batch.append(message)
    for stream in {message.stream for message in batch}:
        check_stream(stream)
    return batch


def check_stream(stream: str) -> None:
    if not _NAME.fullmatch(stream):
        raise BusError(f"stream: expected 1 to 249 letters, digits, '.', '_' or '-'; got {stream[:80]!r}")


def check_offset(stream: str, offset: int) -> None:
    if not 0 <= offset < 1 << OFFSET_BITS:
        raise BusError(f"stream {stream!r}: expected an offset from 0 to 2^{OFFSET_BITS}; got {offset}")


def check_lease(seconds: float) -> None:
    if not 0 < seconds < math.inf:
        raise BusError(f"bus: expected a lease of some seconds; got {seconds}")

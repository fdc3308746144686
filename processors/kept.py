"""What a role keeps on the bus under a name, of any length: the newest counts (`nektar.checkpoints`)."""

from __future__ import annotations

from nektar import log
from nektar.bus.port import Bus, Message
from nektar.log import CHECKPOINTS, Joiner


def messages(name: bytes, value: bytes) -> list[Message]:
    """What is to be written, in one transaction."""
    return [Message(CHECKPOINTS, _part(name, i), *part) for i, part in enumerate(log.split(value))]


def read(bus: Bus, partition: int, name: bytes) -> bytes | None:
    """The newest value; None where there is none. All parts of one are written at once, and whoever could
    write another has been fenced. Raises BusError."""
    join = Joiner()
    for i in range(log.MAX_RECORD_BYTES // log.PART_BYTES):
        part = bus.last(CHECKPOINTS, partition, _part(name, i))
        if part is None:
            return None
        if (value := join(part.value, dict(part.headers))) is not None:
            return value
    return None


def _part(name: bytes, i: int) -> bytes:
    """The key of a part: a compacted stream keeps one message a key."""
    return name + f"#{i}".encode() if i else name

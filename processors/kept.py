"""What a role keeps on the bus under a name, of any length up to a bound: the newest counts
(`nektar.checkpoints`)."""

from __future__ import annotations

from itertools import count

from nektar import log
from nektar.bus.port import Bus, Message
from nektar.bus.rules import MAX_TRANSACTION_BYTES
from nektar.errors import NektarError
from nektar.log import CHECKPOINTS, BrokenLog, Joiner

# So long a value may be: it is one transaction with what it belongs to (`following.MOST_PUT_OUT`).
MOST_BYTES = MAX_TRANSACTION_BYTES // 3


class TooLarge(NektarError):
    """More than can be kept under a name."""


def messages(name: bytes, value: bytes) -> list[Message]:
    """What is to be written, in one transaction. Raises TooLarge."""
    if len(value) > MOST_BYTES:
        raise TooLarge(f"{name.decode()}: expected at most {MOST_BYTES} bytes to keep; got {len(value)}")
    return [Message(CHECKPOINTS, _part(name, i), *part) for i, part in enumerate(log.split(value))]


def read(bus: Bus, partition: int, name: bytes) -> bytes | None:
    """The newest value; None where there is none. All parts of one are written at once, and whoever could
    write another has been fenced. Raises BusError; BrokenLog where a part is gone, or there are too many."""
    join = Joiner(MOST_BYTES)
    for i in count():
        part = bus.last(CHECKPOINTS, partition, _part(name, i))
        if part is None and i == 0:
            return None
        if part is None:
            raise BrokenLog(f"{name.decode()}: expected part {i} of what is kept; it is gone")
        if (value := join(part.value, dict(part.headers))) is not None:
            return value
    raise AssertionError  # no value has parts without end


def _part(name: bytes, i: int) -> bytes:
    """The key of a part: a compacted stream keeps one message a key."""
    return name + f"#{i}".encode() if i else name

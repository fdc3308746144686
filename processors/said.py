"""What lies on a stream of the bus, read again: whole records, of one key and of one writer or another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from nektar.bus.port import Bus, Delivered, read_all
from nektar.log import Readings


def whole(
    bus: Bus,
    stream: str,
    partition: int,
    end: int,
    key: bytes,
    headers: Mapping[str, bytes],
    start: int = 0,
    moved: Callable[[], None] = lambda: None,
) -> Iterator[Delivered]:
    """The whole records of `stream` from offset `start` on and below `end` with this key and these headers.
    `moved` is called with each message that is read. Raises BusError."""
    readings = Readings()
    for message in read_all(bus, stream, partition, start, end):
        moved()
        if message.key == key and headers.items() <= dict(message.headers).items():
            records, _ = readings(message)  # what is broken is a dead letter by now
            yield from records

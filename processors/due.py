"""What there is to tell a watcher: what it wants of a partition's messages, and up to where it has that."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import msgspec

from nektar import trace
from nektar.bus.port import Delivered
from nektar.config import Watcher
from nektar.errors import NektarError
from nektar.log import AHEAD_HEADER, Readings
from processors.urgency import is_first


class Unreadable(NektarError):
    """What lies on the bus is no finding's CloudEvent, and why."""


class _Subject(msgspec.Struct, frozen=True):
    condition: str


class _Event(msgspec.Struct, frozen=True):
    """What of a finding's CloudEvent decides to whom and when it is sent."""

    specversion: Literal["1.0"]
    id: Annotated[str, msgspec.Meta(min_length=1)]
    source: Annotated[str, msgspec.Meta(min_length=1)]
    type: Annotated[str, msgspec.Meta(min_length=1)]
    subject: Annotated[str, msgspec.Meta(min_length=1)]
    data: _Subject


_events = msgspec.json.Decoder(_Event)


class Due(NamedTuple):
    """One version of a finding that the watcher is to be told."""

    partition: int
    offset: int  # of the record's first part
    finding: str
    name: str  # for people
    event: bytes
    traceparent: bytes


class Unread(NamedTuple):
    """A message that can't be read, and why: it is to become a dead letter."""

    message: Delivered
    error: NektarError

    @property
    def partition(self) -> int:
        return self.message.partition

    @property
    def offset(self) -> int:
        return self.message.offset


def due(watcher: Watcher, record: Delivered, first: bool = False) -> Due | Unread | None:
    """What is to be done about a whole record for the watcher; by whom tells `first` what comes first, or the
    rest."""
    if AHEAD_HEADER in record.headers:
        return None  # it is told when its generation has caught up, if that is news then
    if watcher.networks and record.key.decode("utf-8", "replace") not in watcher.networks:
        return None
    try:
        event = _events.decode(record.value.decode())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return None if first else Unread(record, Unreadable(f"expected a finding's CloudEvent; {error}"))
    if is_first(event.data.condition) != first:
        return None
    if watcher.conditions and event.data.condition not in watcher.conditions:
        return None
    carried = trace.carried(record.headers)
    name = f"{event.type} {event.id}"
    return Due(record.partition, record.offset, event.subject, name, record.value, carried)


class Tray:
    """One partition for one watcher: how far it has been read, and what of that is done with; of what comes
    `first`, or of the rest."""

    def __init__(self, watcher: Watcher, first: bool) -> None:
        self._watcher = watcher
        self._first = first
        self._readings = Readings()
        self._left: set[int] = set()  # offsets of what is to be done
        self._done: set[int] = set()  # of what has been, though something before it has not
        self._end = 0  # of what has been read

    def put(self, message: Delivered) -> list[Due | Unread]:
        """What there is to do about what is whole with this message, unless that was done before."""
        self._end = message.offset + 1
        records, error = self._readings(message)
        unread = Unread(message, error) if error and not self._first else None
        found = [unread, *(due(self._watcher, each, self._first) for each in records)]
        todo = [each for each in found if each is not None and each.offset not in self._done]
        self._left |= {each.offset for each in todo}
        return todo

    def did(self, offset: int) -> None:
        """What begins at this offset is done with."""
        self._left.discard(offset)
        self._done.add(offset)

    @property
    def left(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._left)

    def upto(self) -> int:
        """The offset before which all is done with."""
        began = self._readings.began
        upto = min([*self._left, self._end if began is None else began])
        self._done = {offset for offset in self._done if offset >= upto}
        return upto

    def again(self) -> int:
        """Forget what has been read and is not done with: it is put here again, from this offset on."""
        self._end = self.upto()
        self._readings = Readings()
        self._left.clear()
        return self._end

"""What is sound of a request of telemetry, and how it is cut into messages of the bus. Pure.

Who sends is not believed: ids, times and sizes are checked one by one, and what fails is refused by itself,
so that one bad span costs no other (OTLP's partial success).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nektar.bus.port import Message
from nektar.log import PART_BYTES
from nektar.otlp import (
    LOGS,
    METRICS,
    SPAN_ID_BYTES,
    SPANS,
    TRACE_ID_BYTES,
    Group,
    Signal,
    data_points,
    groups,
)

# Nanoseconds around the collector's clock in which telemetry may lie. What is older than a week helps nobody
# to act in time, and each further date is one more partition of the store's tables; a clock that somebody
# minds is not wrong by an hour.
BACK = 7 * 24 * 3600 * 10**9
AHEAD = 3600 * 10**9

# Each message that a long request is cut into repeats the resource and the scope: at most as much again.
MAX_OWN_BYTES = PART_BYTES // 2

# Of a sample of what was refused: some tens of spans.
SAMPLE_BYTES = 16 * 1024

_NO_TRACE = bytes(TRACE_ID_BYTES)
_NO_SPAN = bytes(SPAN_ID_BYTES)


def refuse(signal: Signal, request: Any, now: int, sample: Sample | None = None) -> Counter[str]:
    """Take out of `request` what is not sound at `now` (ns since 1970): reason → how many were for it.

    What is outside of the window goes into `sample`, as much as it takes.
    """
    why = _CHECKS[signal]
    reasons: Counter[str] = Counter()
    for group in groups(signal, request):
        large = group.own_bytes > MAX_OWN_BYTES
        refused = {
            i: reason for i, item in enumerate(group.items) if (reason := _reason(why, item, now, large))
        }
        if refused:
            reasons.update(refused.values())
            if sample:
                for i in (i for i, reason in refused.items() if reason is FAR):
                    sample.add(group, group.items[i])
            _keep(group.items, [item for i, item in enumerate(group.items) if i not in refused])
    return reasons


def drop_empty(signal: Signal, request: Any) -> bool:
    """Take out of `request` groups without items; whether there were any."""
    resources = getattr(request, signal.resources)
    dropped = False
    for resource in resources:
        scopes = getattr(resource, signal.scopes)
        if signal is METRICS:
            for scope in scopes:
                dropped |= _keep(scope.metrics, [each for each in scope.metrics if data_points(each)])
        held = signal.held or signal.items
        dropped |= _keep(scopes, [scope for scope in scopes if getattr(scope, held)])
    return dropped | _keep(resources, [each for each in resources if getattr(each, signal.scopes)])


def _keep(parts: Any, kept: Sequence[Any]) -> bool:
    """Leave only `kept` of them; whether that takes any away."""
    if len(kept) == len(parts):
        return False
    del parts[:]
    parts.extend(kept)
    return True


def messages(signal: Signal, request: Any, body: bytes, headers: dict[str, bytes]) -> list[Message]:
    """`request`, whose protobuf is `body`, as messages for the bus, each whole in itself."""
    if len(body) <= PART_BYTES:
        return [Message(signal.stream, _key(signal, request), body, headers)]
    return [
        Message(signal.stream, _key(signal, piece), piece.SerializeToString(), headers)
        for piece in _pieces(signal, request)
    ]


def count(signal: Signal, request: Any) -> int:
    """How many spans, log records or data points it has."""
    return sum(len(group.items) for group in groups(signal, request))


# --- what is sound ----------------------------------------------------------------------------------


def _reason(why: Callable[[Any, int], str], item: Any, now: int, large: bool) -> str:
    if large or item.ByteSize() > PART_BYTES - MAX_OWN_BYTES:
        return f"size: expected at most {PART_BYTES} bytes, with its resource and scope"
    return why(item, now)


def _of_span(span: Any, now: int) -> str:
    """Why the span is refused; empty where it is sound."""
    if len(span.trace_id) != TRACE_ID_BYTES or span.trace_id == _NO_TRACE:
        return f"trace id: expected {TRACE_ID_BYTES} bytes, not all zero"
    if len(span.span_id) != SPAN_ID_BYTES or span.span_id == _NO_SPAN:
        return f"span id: expected {SPAN_ID_BYTES} bytes, not all zero"
    if len(span.parent_span_id) not in (0, SPAN_ID_BYTES):
        return f"parent span id: expected {SPAN_ID_BYTES} bytes or none"
    for link in span.links:
        if len(link.trace_id) != TRACE_ID_BYTES or len(link.span_id) != SPAN_ID_BYTES:
            return "link: expected a trace id and a span id"
    if not now - BACK <= span.start_time_unix_nano <= now + AHEAD:
        return FAR
    return "" if span.end_time_unix_nano <= now + AHEAD else FAR


def _of_record(record: Any, now: int) -> str:
    """The same of a log record, which need not belong to a span."""
    if len(record.trace_id) not in (0, TRACE_ID_BYTES) or len(record.span_id) not in (0, SPAN_ID_BYTES):
        return "ids: expected those of a span, or none"
    when = record.time_unix_nano or record.observed_time_unix_nano
    return "" if now - BACK <= when <= now + AHEAD else FAR


def _of_point(point: Any, now: int) -> str:
    """The same of a data point, which may count since long ago."""
    for each in getattr(point, "exemplars", ()):
        if len(each.trace_id) not in (0, TRACE_ID_BYTES) or len(each.span_id) not in (0, SPAN_ID_BYTES):
            return "exemplar: expected the ids of a span, or none"
    if not now - BACK <= point.time_unix_nano <= now + AHEAD:
        return FAR
    return "" if point.start_time_unix_nano <= now + AHEAD else FAR


FAR = "time: expected one of the last 7 days, or the next hour, by the collector's clock"
_CHECKS: dict[Signal, Callable[[Any, int], str]] = {SPANS: _of_span, LOGS: _of_record, METRICS: _of_point}


# --- messages ---------------------------------------------------------------------------------------


def _key(signal: Signal, request: Any) -> bytes:
    """The first trace id, in hex; empty where there is none. Of metrics a hash of the first resource, so that
    those of one stay in their order."""
    if signal is METRICS:
        said = getattr(request, signal.resources)[0].resource.SerializeToString(deterministic=True)
        return hashlib.sha256(said).hexdigest()[: 2 * TRACE_ID_BYTES].encode()
    for group in groups(signal, request):
        for item in group.items:
            if len(item.trace_id) == TRACE_ID_BYTES and item.trace_id != _NO_TRACE:
                return bytes(item.trace_id).hex().encode()
    return b""


def _pieces(signal: Signal, request: Any) -> Iterator[Any]:
    """The same items in the same order, in requests that each fit into a message. Equal requests are cut
    equally, so that one that is sent again is the same messages again."""
    piece = _Piece(signal)
    for group in groups(signal, request):
        for item in group.items:
            if piece.size and piece.size + piece.takes(group, item) > PART_BYTES:
                yield piece.request
                piece = _Piece(signal)
            piece.add(group, item)
    if piece.size:
        yield piece.request


# Tags and lengths around an item, and around a group and what it says.
_ITEM_FRAME = 4
_GROUP_FRAME = 32


class _Piece:
    """A request that is made of items of another, group by group."""

    def __init__(self, signal: Signal) -> None:
        self.request = signal.request()
        self.size = 0  # of it, or a little more, in bytes
        self._signal = signal
        self._last: Group | None = None  # whose items it ends with
        self._into: Any = None

    def takes(self, group: Group, item: Any) -> int:
        """The bytes that it takes to add an item of this group."""
        size = int(item.ByteSize()) + _ITEM_FRAME
        last = self._last
        if last is group:
            return size
        size += group.own_bytes + _GROUP_FRAME
        if last and last.resource is group.resource:
            size -= group.resource_bytes
            if last.scope is group.scope:
                size -= group.scope_bytes
        return size

    def add(self, group: Group, item: Any) -> None:
        self.size += self.takes(group, item)
        if self._last is not group:
            self._into, self._last = self._open(group), group
        self._into.append(item)

    def _open(self, group: Group) -> Any:
        """A group like `group` at the end, without items; returns where they go."""
        resources = getattr(self.request, self._signal.resources)
        if self._last is None or self._last.resource is not group.resource:
            resource = resources.add()
            if group.resource.HasField("resource"):
                resource.resource.CopyFrom(group.resource.resource)
            resource.schema_url = group.resource.schema_url
        scopes = getattr(resources[-1], self._signal.scopes)
        if self._last is None or self._last.scope is not group.scope:
            scope = scopes.add()
            if group.scope.HasField("scope"):
                scope.scope.CopyFrom(group.scope.scope)
            scope.schema_url = group.scope.schema_url
        if group.metric is None:
            return getattr(scopes[-1], self._signal.items)
        return _opened(scopes[-1].metrics.add(), group.metric)


class Sample:
    """The first items that are added, with what they stand in, and none that would make it too large."""

    def __init__(self, signal: Signal) -> None:
        self._piece = _Piece(signal)
        self.count = 0

    def add(self, group: Group, item: Any) -> None:
        if self._piece.size + self._piece.takes(group, item) <= SAMPLE_BYTES:
            self._piece.add(group, item)
            self.count += 1

    @property
    def request(self) -> Any:
        return self._piece.request


def _opened(made: Any, metric: Any) -> Any:
    """Make `made` a metric like `metric`, without data points; returns where they go."""
    for field, value in metric.ListFields():
        if field.name == metric.WhichOneof("data"):
            of = getattr(made, field.name)
            for said, is_ in value.ListFields():
                if said.name != METRICS.items:
                    setattr(of, said.name, is_)
        elif field.name == "metadata":
            made.metadata.extend(value)
        else:
            setattr(made, field.name, value)
    return of.data_points

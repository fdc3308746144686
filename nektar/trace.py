"""Traces of the pipeline itself: what follows from an entry of a Network's log is one trace, to the webhook.

Whoever appends to a log begins the trace. Its id and its root span's are made of the bytes that are appended,
so that a log written again from the same chain begins the same traces where it is appended in the same
batches, and only there. The root travels as the W3C's
`traceparent` (https://www.w3.org/TR/trace-context/): in a header of the log's messages, in one of whatever
processors put out because of them, and as the extension `traceparent` of a finding's CloudEvent. On the way
it is copied and never made anew, so that outputs stay a function of the log. Who works on a message does so
in a span under that root.

Spans are made by OpenTelemetry's API: unless a role sends its own (`monitor.py`), they are nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags, use_span
from opentelemetry.util.types import AttributeValue

# The header of messages, of a webhook's request, and the extension of CloudEvents.
TRACEPARENT = "traceparent"

# Attributes of spans.
NETWORK = "nektar.network"
GENERATION = "nektar.generation"  # of the Network's log; of the chain's spans in Tasks' traces alone
FIRST_BLOCK = "nektar.block.first"
LAST_BLOCK = "nektar.block.last"
RECORDS = "nektar.records"  # the kinds of what was appended
OFFSET = "nektar.offset"

# Version 00, sampled: the only form that `begin` makes.
_FORM = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-01")
_tracer = trace.get_tracer("nektar")

# What the next root span's (trace id, span id) have to be; read by whoever makes ids.
root_ids: ContextVar[tuple[int, int] | None] = ContextVar("root_ids", default=None)


def begin(key: bytes, values: Iterable[bytes]) -> bytes:
    """The traceparent of records that are appended to the log `key` together."""
    digest = hashlib.sha256()
    for part in (key, *values):
        digest.update(len(part).to_bytes(8, "big") + part)
    made = digest.digest()
    return f"00-{made[:16].hex()}-{made[16:24].hex()}-01".encode()


def carried(headers: Mapping[str, bytes]) -> bytes:
    """The traceparent among a message's headers; empty where there is none as `begin` makes it."""
    said = headers.get(TRACEPARENT, b"")
    return said if _FORM.fullmatch(said) else b""


def header(traceparent: bytes) -> dict[str, bytes]:
    """The headers by which `traceparent` goes on; none where it is empty."""
    return {TRACEPARENT: traceparent} if traceparent else {}


@contextmanager
def root(
    name: str, traceparent: bytes, since: int, attributes: Mapping[str, AttributeValue]
) -> Iterator[Span]:
    """The span that `traceparent` names. `since`: when its work began, in ns since 1970."""
    ids = _ids(traceparent)
    token = root_ids.set(ids)
    try:
        nowhere = trace.set_span_in_context(trace.INVALID_SPAN)
        span = _tracer.start_span(name, nowhere, attributes=attributes, start_time=since)
    finally:
        root_ids.reset(token)
    with use_span(span, end_on_exit=True):
        yield span


def under(name: str, traceparent: bytes, attributes: Mapping[str, AttributeValue]) -> Span:
    """A span under the one that `traceparent` names, begun now and to be ended; nothing where it is empty."""
    if not traceparent:
        return trace.INVALID_SPAN
    trace_id, span_id = _ids(traceparent)
    parent = NonRecordingSpan(SpanContext(trace_id, span_id, True, TraceFlags(TraceFlags.SAMPLED)))
    return _tracer.start_span(name, context=trace.set_span_in_context(parent), attributes=attributes)


def traceparent_of(span: Span) -> str:
    """What names `span` to whoever is called in it; empty where it is nothing."""
    context = span.get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"


def _ids(traceparent: bytes) -> tuple[int, int]:
    found = _FORM.fullmatch(traceparent)
    if found is None:
        raise ValueError(f"expected a traceparent; got {traceparent[:80]!r}")
    return int(found[1], 16), int(found[2], 16)

"""Traces that follow from what is appended to a log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from nektar import trace
from tests.spans import Spans

parts = st.lists(st.binary(max_size=20), max_size=4)


@given(st.binary(max_size=20), parts, st.binary(max_size=20), parts)
def test_equal_appends_begin_equal_traces_and_others_others(
    key: bytes, values: list[bytes], other: bytes, others: list[bytes]
) -> None:
    same = (key, values) == (other, others)
    assert (trace.begin(key, values) == trace.begin(other, others)) is same


@given(st.binary(max_size=20), parts)
def test_opentelemetry_reads_what_is_begun(key: bytes, values: list[bytes]) -> None:
    said = trace.begin(key, values)
    context = TraceContextTextMapPropagator().extract({"traceparent": said.decode()})
    found = get_current_span(context).get_span_context()
    assert (found.is_valid, bool(found.trace_flags & 1)) == (True, True)
    assert said == f"00-{found.trace_id:032x}-{found.span_id:016x}-01".encode()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"00",
        b"00-" + b"g" * 32 + b"-" + b"1" * 16 + b"-01",
        b"00-" + b"1" * 32 + b"-" + b"1" * 16 + b"-01\n",
        b"01-" + b"1" * 32 + b"-" + b"1" * 16 + b"-01",
    ],
)
def test_what_is_no_traceparent_goes_on_to_nobody(said: bytes) -> None:
    assert trace.carried({"traceparent": said}) == b""
    assert trace.header(trace.carried({"traceparent": said})) == {}


def test_the_root_is_what_the_traceparent_names_and_all_else_stands_under_it(spans: Spans) -> None:
    said = trace.begin(b"home/1", [b"record"])
    with trace.root("index", said, 17, {trace.NETWORK: "home"}):
        pass
    span = trace.under("fold tasks", said, {})
    told = trace.traceparent_of(span)
    span.end()
    root, child = spans.kept
    assert trace.traceparent_of(root).encode() == said
    assert (root.name, root.parent, root.start_time) == ("index", None, 17)
    assert child.parent.span_id == root.context.span_id
    assert child.context.trace_id == root.context.trace_id
    assert told.split("-")[1] == said.decode().split("-")[1]
    assert child.context.span_id != root.context.span_id


def test_a_span_under_nothing_is_nothing(spans: Spans) -> None:
    span = trace.under("fold tasks", b"", {})
    span.set_attribute("a", 1)
    span.end()
    assert (trace.traceparent_of(span), spans.kept) == ("", [])


def test_a_root_whose_work_fails_says_so(spans: Spans) -> None:
    with pytest.raises(OSError, match="full"), trace.root("index", trace.begin(b"k", []), 1, {}):
        raise OSError("disk full")
    assert not spans.kept[0].status.is_ok

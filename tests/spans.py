"""The spans that this process makes while a test looks."""

from __future__ import annotations

from functools import cache
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from nektar.monitor import LogIds


class Spans(SpanProcessor):
    """`kept` are those that ended since the test began, in their order."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.looking = False

    def on_end(self, span: ReadableSpan) -> None:
        if self.looking:
            self.kept.append(span)


@cache
def installed() -> Spans:
    """A process can be given spans' provider only once."""
    spans = Spans()
    provider = TracerProvider(id_generator=LogIds())
    provider.add_span_processor(spans)
    trace.set_tracer_provider(provider)
    return spans

"""The spans that this process makes while a test looks, and what it counts."""

from __future__ import annotations

from functools import cache
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
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


class Counted:
    """What the process's counters have counted since the test began."""

    def __init__(self, reader: InMemoryMetricReader) -> None:
        self._reader = reader
        self._before = self._now()

    def __call__(self, name: str) -> dict[tuple[str, ...], int]:
        """The counter's labels' values, in the order of the labels' names → how much more it is."""
        return {
            labels: value - self._before.get((of, labels), 0)
            for (of, labels), value in self._now().items()
            if of == name and value != self._before.get((of, labels), 0)
        }

    def _now(self) -> dict[tuple[str, tuple[str, ...]], int]:
        data = self._reader.get_metrics_data()
        return {
            (metric.name, tuple(str(v) for _, v in sorted(point.attributes.items()))): point.value
            for of in (data.resource_metrics if data else ())
            for scope in of.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
            if hasattr(point, "value")
        }


@cache
def reader() -> InMemoryMetricReader:
    """A process can be given meters' provider only once."""
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    return reader

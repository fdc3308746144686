"""What an agent reports of its work: by the instrumentation that any Operator may use, and stock exporters.

The collector is an agent's own choice: without one nothing is reported, and nothing else changes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

from nektar.bearer import Bearer
from nektar.telemetry.tasks import Tasks

# Milliseconds in which spans gather to one request: agents are many, and their Tasks short.
GATHER_MS = 500
# Seconds for which a request is tried again: a collector that was killed is back long before. The stock
# exporter gives up where its next pause, which doubles to 32 s, ends later: so this is a minute of trying.
PATIENCE = 120.0
FLUSH_SECONDS = 180.0
# Blocks come some ten a second.
BEAT_SECONDS = 0.5


class Reporter:
    """Reports as `service`, an agent of this TaskManager on this chain, with a clock that is so many seconds
    `ahead` of the right one."""

    def __init__(
        self,
        service: str,
        url: str,
        known_by: Bearer | None,
        chain_id: int,
        contract: str,
        operator: str = "",
        ahead: int = 0,
    ) -> None:
        """`url`: where the collector listens, without a path; empty: report nothing."""
        resource = Resource({"service.name": service})
        tracers, loggers = TracerProvider(resource=resource), LoggerProvider(resource=resource)
        self._exporter = _Exporter(url, known_by) if url else None
        self._records: OTLPLogExporter | None = None
        if self._exporter:
            tracers.add_span_processor(BatchSpanProcessor(self._exporter, schedule_delay_millis=GATHER_MS))
            self._records = OTLPLogExporter(
                f"{url}/v1/logs",
                timeout=PATIENCE,
                compression=Compression.Gzip,
                session=_session(known_by),
            )
            loggers.add_log_record_processor(
                BatchLogRecordProcessor(self._records, schedule_delay_millis=GATHER_MS)
            )
        self._ahead = ahead
        self.tasks = Tasks(
            chain_id, contract, operator, tracers, loggers, beat_seconds=BEAT_SECONDS, now=self.now
        )

    def now(self) -> int:
        """The agent's own clock, in ns since 1970."""
        return time.time_ns() + self._ahead * 10**9

    def flush(self) -> dict[str, int]:
        """Send what has gathered; how many spans the collector took, and how many it refused, so far."""
        self.tasks.flush(FLUSH_SECONDS)
        return self._exporter.counted if self._exporter else {"sent": 0, "refused": 0}

    def close(self) -> None:
        """Without what is not sent yet, which `flush` is for: a collector that is gone is not waited for."""
        for exporter in (self._exporter, self._records):
            if exporter:
                exporter.shutdown()  # type: ignore[no-untyped-call]
        self.tasks.close()


class _Exporter(OTLPSpanExporter):
    """The stock exporter, counting spans of requests that were answered 200, and of those that never were."""

    def __init__(self, url: str, known_by: Bearer | None) -> None:
        super().__init__(
            f"{url}/v1/traces",
            timeout=PATIENCE,
            compression=Compression.Gzip,
            session=_session(known_by),
        )
        self._lock = threading.Lock()
        self._sent = self._refused = 0
        # A collector that is being restarted is no news: what counts is counted.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        with self._lock:
            if result is SpanExportResult.SUCCESS:
                self._sent += len(spans)
            else:
                self._refused += len(spans)
        return result

    @property
    def counted(self) -> dict[str, int]:
        with self._lock:
            return {"sent": self._sent, "refused": self._refused}


def _session(known_by: Bearer | None) -> requests.Session:
    session = requests.Session()
    session.auth = known_by
    return session

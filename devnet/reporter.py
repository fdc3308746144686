"""What an agent reports of its work: spans of each Task's trace, by the stock OpenTelemetry SDK over HTTP.

The collector is an agent's own choice: without a URL nothing is reported, and nothing else changes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import requests
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags

from devnet.view import OpenTask
from nektar import telemetry
from nektar.bearer import Bearer
from nektar.evidence import bls
from nektar.networks.encoding import encode_answer

# Milliseconds in which spans gather to one request: agents are many, and their Tasks short.
GATHER_MS = 500
# Seconds for which a request is tried again: a collector that was killed is back long before. The stock
# exporter gives up where its next pause, which doubles to 32 s, ends later: so this is a minute of trying.
PATIENCE = 120.0
FLUSH_MS = 180_000


class Reporter:
    """Reports as `service`, an agent of this TaskManager on this chain."""

    def __init__(self, service: str, url: str, known_by: Bearer | None, chain_id: int, contract: str) -> None:
        """`url`: where the collector listens, without a path; empty: report nothing."""
        self._identity: dict[str, str | int] = {telemetry.CHAIN_ID: chain_id, telemetry.CONTRACT: contract}
        self._chain_id = chain_id
        self._contract = bytes.fromhex(contract[2:])
        self._exporter = _Exporter(url, known_by) if url else None
        self._provider = TracerProvider(resource=Resource({"service.name": service}))
        if self._exporter:
            processor = BatchSpanProcessor(self._exporter, schedule_delay_millis=GATHER_MS)
            self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("nektar.devnet")

    @contextmanager
    def step(self, name: str, task: OpenTask, attributes: Mapping[str, str]) -> Iterator[Span]:
        """A step of the work on a Task, as a span under the Task's root."""
        trace_id, root = telemetry.task_ids(self._chain_id, self._contract, task.hash)
        parent = SpanContext(
            int.from_bytes(trace_id, "big"), int.from_bytes(root, "big"), True, TraceFlags(TraceFlags.SAMPLED)
        )
        named: dict[str, str | int] = {
            **self._identity,
            telemetry.TASK_HASH: "0x" + task.hash.hex(),
            telemetry.TASK_NUMBER: task.number,
            **attributes,
        }
        context = trace.set_span_in_context(NonRecordingSpan(parent))
        with self._tracer.start_as_current_span(name, context, attributes=named) as span:
            yield span

    def flush(self) -> dict[str, int]:
        """Send what has gathered; how many spans the collector took, and how many it refused, so far."""
        self._provider.force_flush(FLUSH_MS)
        return self._exporter.counted if self._exporter else {"sent": 0, "refused": 0}

    def close(self) -> None:
        """Without what is not sent yet, which `flush` is for: a collector that is gone is not waited for."""
        if self._exporter:
            self._exporter.shutdown()  # type: ignore[no-untyped-call]
        self._provider.shutdown()


def signed(answer: tuple[int, int], signature: bytes) -> dict[str, str]:
    """The attributes by which a signed response proves itself."""
    return {
        telemetry.RESPONSE: "0x" + encode_answer(*answer).hex(),
        telemetry.RESPONSE_DIGEST: "0x" + bls.response_digest(*answer).hex(),
        telemetry.SIGNATURE: "0x" + signature.hex(),
        telemetry.SIGNATURE_SCHEME: "bls-bn254",
    }


class _Exporter(OTLPSpanExporter):
    """The stock exporter, counting spans of requests that were answered 200, and of those that never were."""

    def __init__(self, url: str, known_by: Bearer | None) -> None:
        session = requests.Session()
        session.auth = known_by
        super().__init__(f"{url}/v1/traces", timeout=PATIENCE, compression=Compression.Gzip, session=session)
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

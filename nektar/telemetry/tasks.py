"""What an Operator or an Aggregator that is written in Python reports of its work (docs/TELEMETRY.md):

    tasks = Tasks(chain_id=1, contract="0x…", operator="0x…")
    tasks.head(number)                               # for each head of the chain that it sees
    with tasks.step(Step.EXECUTE, task_hash): …      # around each part of the work

Spans and heartbeats go where OpenTelemetry's own variables say (OTEL_SERVICE_NAME,
OTEL_EXPORTER_OTLP_ENDPOINT, and OTEL_EXPORTER_OTLP_HEADERS as `nektar token` prints it), or by the providers
that the program has. No work waits for them, whatever becomes of them. Exceptions are named and not told:
their texts may hold secrets.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MappingProxyType

from opentelemetry import trace
from opentelemetry._logs import Logger, LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from nektar import telemetry
from nektar.chain.keccak import keccak
from nektar.telemetry import Step

# Seconds between two heartbeats: of a thousand Operators some seventy a second come so.
BEAT_SECONDS = 15.0
# Seconds without a head after which the next one begins anew: whoever saw none for so long has not followed.
BREAK_SECONDS = 120.0

_NAMES = MappingProxyType(
    {
        Step.RECEIVE: ("receive task", SpanKind.CONSUMER),
        Step.EXECUTE: ("execute task", SpanKind.INTERNAL),
        Step.SIGN: ("sign response", SpanKind.INTERNAL),
        Step.SEND: ("send response", SpanKind.CLIENT),
        Step.COLLECT: ("collect response", SpanKind.SERVER),
        Step.AGGREGATE: ("aggregate responses", SpanKind.INTERNAL),
        Step.SUBMIT: ("submit response", SpanKind.CLIENT),
        Step.ATTEST: ("attest response", SpanKind.CLIENT),
    }
)
_propagator = TraceContextTextMapPropagator()


class Tasks:
    """The work on one Network's Tasks. Shared between threads."""

    def __init__(
        self,
        chain_id: int,
        contract: str,
        operator: str = "",
        tracers: TracerProvider | None = None,
        loggers: LoggerProvider | None = None,
        beat_seconds: float = BEAT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        """`contract` is the TaskManager, `operator` the Operator whose work it is, both 0x…; an Aggregator
        leaves it out, and says with each step whose it is. `now` is the clock of spans, in ns since 1970.

        Raises ValueError for what are no addresses."""
        self._contract = _octets(contract, 20)
        self._operator = "0x" + _octets(operator, 20).hex() if operator else ""
        self._chain_id = chain_id
        self._tracers = tracers or _exporting_spans()
        self._loggers = loggers or _exporting_records()
        self._tracer = self._tracers.get_tracer("nektar.telemetry")
        self.logger: Logger = self._loggers.get_logger("nektar.telemetry")
        self._beat_seconds = beat_seconds
        self._clock = clock
        self.now = now
        self._lock = threading.Lock()
        self._head = -1
        self._since = -1  # the block up to which heartbeats have told
        self._seen_at = self._beaten_at = float("-inf")

    @property
    def newest(self) -> int:
        """Number of the newest head; -1: none was seen."""
        return self._head

    def head(self, number: int, *, after_break: bool = False) -> None:
        """The chain's head is this block now. `after_break`: blocks since the last one were not followed."""
        with self._lock:
            now = self._clock()
            broken = after_break or self._head < 0 or now - self._seen_at > BREAK_SECONDS
            self._since = number if broken else min(self._since, number)
            self._head, self._seen_at = number, now
            if not self._operator or not (broken or now - self._beaten_at >= self._beat_seconds):
                return
            first, self._since, self._beaten_at = self._since, number, now
        self._beat(first, number)

    @contextmanager
    def step(self, step: Step, task_hash: bytes, operator: str = "", parent: str = "") -> Iterator[Part]:
        """Around a part of the work on a Task: a span of the Task's trace. An exception ends it as failed,
        and goes on. `parent` is the `traceparent` that came with a request; another trace's is ignored."""
        part = self.begin(step, task_hash, operator, parent)
        try:
            with trace.use_span(part.span, record_exception=False, set_status_on_exception=False):
                yield part
        except BaseException as error:
            part.fail(type(error).__qualname__)
            raise
        finally:
            part.end()

    def begin(self, step: Step, task_hash: bytes, operator: str = "", parent: str = "") -> Part:
        """The same, of what ends elsewhere: by `Part.end`."""
        name, kind = _NAMES[step]
        attributes: dict[str, str | int] = {
            telemetry.CHAIN_ID: self._chain_id,
            telemetry.CONTRACT: "0x" + self._contract.hex(),
            telemetry.TASK_HASH: "0x" + task_hash.hex(),
            telemetry.STEP: str(step),
        }
        if operator := operator.lower() or self._operator:
            attributes[telemetry.OPERATOR] = operator
        if self._head >= 0:
            attributes[telemetry.HEAD_BEGUN] = self._head
        above = self._above(task_hash, parent)
        context = trace.set_span_in_context(NonRecordingSpan(above))
        return Part(
            self, self._tracer.start_span(name, context, kind, attributes, start_time=self.now()), attributes
        )

    def flush(self, seconds: float) -> None:
        """Send what has gathered, in so long at most."""
        self._tracers.force_flush(int(seconds * 1_000))
        self._loggers.force_flush(int(seconds * 1_000))

    def close(self) -> None:
        """Send what has gathered; nothing more goes out."""
        self._tracers.shutdown()
        self._loggers.shutdown()

    def _above(self, task_hash: bytes, parent: str) -> SpanContext:
        trace_id, root = telemetry.task_ids(self._chain_id, self._contract, task_hash)
        given = trace.get_current_span(_propagator.extract({"traceparent": parent})).get_span_context()
        if given.trace_id == int.from_bytes(trace_id):
            return given
        sampled = TraceFlags(TraceFlags.SAMPLED)
        return SpanContext(int.from_bytes(trace_id), int.from_bytes(root), True, sampled)

    def _beat(self, first: int, last: int) -> None:
        self.logger.emit(
            LogRecord(
                timestamp=self.now(),
                severity_number=SeverityNumber.INFO,
                body=f"follows the chain, up to block {last}",
                event_name=telemetry.HEARTBEAT,
                attributes={
                    telemetry.CHAIN_ID: self._chain_id,
                    telemetry.CONTRACT: "0x" + self._contract.hex(),
                    telemetry.OPERATOR: self._operator,
                    telemetry.HEAD_BEGUN: first,
                    telemetry.HEAD_ENDED: last,
                },
            )
        )


class Part:
    """A part of the work that is under way."""

    def __init__(self, tasks: Tasks, span: Span, about: dict[str, str | int]) -> None:
        self.span = span
        self._tasks = tasks
        self._about = about

    @property
    def traceparent(self) -> str:
        """For a header of the request that this is about: whoever gets it stands under this span."""
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, trace.set_span_in_context(self.span))
        return carrier.get("traceparent", "")

    def responds(self, response: bytes, signature: bytes = b"") -> None:
        """It is about this response, as the contract encodes it, and this BLS signature of its digest."""
        said = {
            telemetry.RESPONSE: "0x" + response.hex(),
            telemetry.RESPONSE_DIGEST: "0x" + keccak(response).hex(),
        }
        if signature:
            said[telemetry.SIGNATURE] = "0x" + signature.hex()
            said[telemetry.SIGNATURE_SCHEME] = "bls-bn254"
        self.span.set_attributes(said)

    def fail(self, why: str) -> None:
        """It failed: `why` is one of few words, as an exception's name."""
        self.span.set_status(StatusCode.ERROR)
        self.span.set_attribute(telemetry.ERROR_TYPE, why)

    def give_up(self) -> None:
        """The sender lets the Task go: by its own clock the time for it is over."""
        self.fail(telemetry.TOO_LATE)

    def log(self, body: str) -> None:
        """A log record of it: of a request, or of what was answered."""
        self._tasks.logger.emit(
            LogRecord(
                timestamp=self._tasks.now(),
                context=trace.set_span_in_context(self.span),
                severity_number=SeverityNumber.INFO,
                body=body,
                attributes=self._about,
            )
        )

    def end(self) -> None:
        """It is over."""
        if self._tasks.newest >= 0:
            self.span.set_attribute(telemetry.HEAD_ENDED, self._tasks.newest)
        self.span.end(self._tasks.now())


def _exporting_spans() -> TracerProvider:
    """The program's own provider, or one that exports as the environment says."""
    existing = trace.get_tracer_provider()
    if isinstance(existing, TracerProvider):
        return existing
    made = TracerProvider()
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return made


def _exporting_records() -> LoggerProvider:
    made = LoggerProvider()
    made.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    return made


def _octets(text: str, length: int) -> bytes:
    if not re.fullmatch(f"0x[0-9a-fA-F]{{{2 * length}}}", text):
        raise ValueError(f"expected 0x and {2 * length} hex digits; got {text[:80]!r}")
    return bytes.fromhex(text[2:])

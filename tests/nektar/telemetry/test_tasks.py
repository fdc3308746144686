"""What the instrumentation reports, read as the collector reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from eth_hash.auto import keccak
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from indexer.brought import Place, brought
from nektar import telemetry
from nektar.model import Brought, Heartbeat, Report, Signed
from nektar.otlp import LOGS, SPANS
from nektar.senders import Sender
from nektar.telemetry import Step
from nektar.telemetry.tasks import BREAK_SECONDS, Tasks
from nektar.tokens import Role

MANAGER, OPERATOR = "0x" + "7a" * 20, "0x" + "e0" * 20
TASK = b"\x11" * 32
ME = Sender(OPERATOR, Role.OPERATOR, "home")
GATHER = Sender("gather", Role.AGGREGATOR, "home")
HERE = Place(31337, bytes.fromhex(MANAGER[2:]))  # type: ignore[arg-type]


class Reported:
    """An instrumented program, and what it has exported."""

    def __init__(self, operator: str = OPERATOR) -> None:
        self._spans, self._records = InMemorySpanExporter(), InMemoryLogRecordExporter()
        tracers, loggers = TracerProvider(), LoggerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        loggers.add_log_record_processor(SimpleLogRecordProcessor(self._records))
        self.seconds = 0.0
        self.tasks = Tasks(31337, MANAGER, operator, tracers, loggers, clock=lambda: self.seconds)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self._spans.get_finished_spans()

    @property
    def records(self) -> Sequence[Any]:
        return self._records.get_finished_logs()

    def brought(self, sender: Sender = ME) -> list[Brought]:
        """What the collector makes of it."""
        found = []
        for signal, request in ((SPANS, encode_spans(self.spans)), (LOGS, encode_logs(self.records))):
            for place, message in brought(signal, request, request.SerializeToString(), sender):
                assert place == HERE
                found.append(message)
        return found


def test_a_step_is_a_span_under_its_tasks_root_and_a_report() -> None:
    program = Reported()
    program.tasks.head(7)
    with program.tasks.step(Step.EXECUTE, TASK) as part:
        program.tasks.head(9)
        part.responds(b"answer")
    (span,) = program.spans
    trace_id, root = telemetry.task_ids(31337, bytes.fromhex(MANAGER[2:]), TASK)
    assert (span.name, span.context.trace_id.to_bytes(16)) == ("execute task", trace_id)
    assert span.parent is not None
    assert span.parent.span_id.to_bytes(8) == root
    (report,) = [each for each in program.brought() if isinstance(each, Report)]
    assert report == Report(
        *(f"operator/{OPERATOR}", "operator", bytes.fromhex(OPERATOR[2:]), TASK, Step.EXECUTE),  # type: ignore[arg-type]
        *(span.context.span_id.to_bytes(8), 7, 9, "", b"answer"),
    )


def test_a_signed_response_proves_itself_whoever_reports_it() -> None:
    program = Reported("")
    with program.tasks.step(Step.COLLECT, TASK, OPERATOR) as part:
        part.responds(b"answer", b"\x5a" * 64)
    signed, report = program.brought(GATHER)
    assert isinstance(signed, Signed)
    assert isinstance(report, Report)
    assert (signed.digest, signed.brought_by) == (keccak(b"answer"), "aggregator/gather")
    assert (report.role, report.step, report.operator) == ("aggregator", Step.COLLECT, signed.operator)


def test_an_exception_fails_its_step_by_name_and_never_by_text() -> None:
    program = Reported()
    with pytest.raises(ValueError, match="secret"), program.tasks.step(Step.SEND, TASK):
        raise ValueError("https://user:secret@aggregator")
    with program.tasks.step(Step.EXECUTE, TASK) as part:
        part.give_up()
    assert [each.error for each in program.brought() if isinstance(each, Report)] == [
        "ValueError",
        "too_late",
    ]
    assert b"secret" not in encode_spans(program.spans).SerializeToString()


def test_whoever_gets_a_request_stands_under_the_span_that_sent_it_in_the_same_trace_alone() -> None:
    operator, aggregator = Reported(), Reported("")
    with operator.tasks.step(Step.SEND, TASK) as sending:
        parent = sending.traceparent
    for task_hash, is_under in ((TASK, True), (b"\x12" * 32, False)):
        with aggregator.tasks.step(Step.COLLECT, task_hash, OPERATOR, parent):
            pass
        above = aggregator.spans[-1].parent
        assert above is not None
        assert (above.span_id == operator.spans[0].context.span_id) is is_under
    for nonsense in ("", "00-zz", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"):
        with aggregator.tasks.step(Step.COLLECT, TASK, OPERATOR, nonsense):
            pass


def test_heartbeats_cover_what_was_followed_and_nothing_else() -> None:
    program = Reported()
    beats = [(0, 5), (1, 6), (20, 8), (21, 7), (40, 9), (41 + BREAK_SECONDS, 30), (42 + BREAK_SECONDS, 31)]
    for at, head in beats:
        program.seconds = float(at)
        program.tasks.head(head)
    program.tasks.head(33, after_break=True)
    covered = [(each.first, each.last) for each in program.brought() if isinstance(each, Heartbeat)]
    assert covered == [(5, 5), (5, 8), (7, 9), (30, 30), (33, 33)]


def test_records_of_a_step_have_its_ids() -> None:
    program = Reported()
    with program.tasks.step(Step.SEND, TASK) as part:
        part.log("sent")
    (record,), (span,) = program.records, program.spans
    assert record.log_record.body == "sent"
    assert (record.log_record.trace_id, record.log_record.span_id) == (
        span.context.trace_id,
        span.context.span_id,
    )
    assert record.log_record.attributes[telemetry.TASK_HASH] == "0x" + TASK.hex()


@pytest.mark.parametrize(
    ("sender", "counts"),
    [
        (ME, True),
        (GATHER, True),
        (Sender("0x" + "e1" * 20, Role.OPERATOR, "home"), False),
        (Sender("unauthenticated"), False),
    ],
)
def test_an_operator_speaks_of_itself_alone_and_who_is_not_known_of_nobody(
    sender: Sender, counts: bool
) -> None:
    program = Reported()
    with program.tasks.step(Step.EXECUTE, TASK):
        pass
    assert bool(program.brought(sender)) is counts


@pytest.mark.parametrize("wrong", ["", "0x7a", "7a" * 20, "0x" + "zz" * 20])
def test_what_is_no_address_is_said_at_once(wrong: str) -> None:
    with pytest.raises(ValueError, match="hex"):
        Tasks(1, wrong, OPERATOR)

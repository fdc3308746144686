"""OTLP in JSON against protobuf's own reader, and against the Collector's."""

from __future__ import annotations

import json
import math
from contextlib import suppress

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from indexer import otlp_json
from nektar.otlp import LOGS, MAX_ITEMS, METRICS, SIGNALS, SPANS, BadRequest, Signal, groups, parse
from tests.otlp import CORPORA, requests, spans, to_json

ANY = st.sampled_from(SIGNALS).flatmap(lambda signal: st.tuples(st.just(signal), requests(signal)))


@given(ANY)
def test_what_a_client_writes_is_read_as_it_was(made: tuple[Signal, object]) -> None:
    signal, request = made
    again = otlp_json.parse(signal, to_json(request))
    assert again.SerializeToString(deterministic=True) == request.SerializeToString(deterministic=True)  # type: ignore[attr-defined]


@given(ANY)
def test_all_but_ids_is_read_as_protobuf_reads_it(made: tuple[Signal, object]) -> None:
    signal, request = made
    for group in groups(signal, request):
        for item in group.items:
            if signal is METRICS:
                if hasattr(item, "exemplars"):
                    del item.exemplars[:]
                continue
            for name in ("trace_id", "span_id"):
                item.ClearField(name)
            if signal is SPANS:
                item.ClearField("parent_span_id")
                del item.links[:]
    written = json_format.MessageToJson(request)  # enums by their names, too
    expected = json_format.Parse(written, signal.request())
    assert otlp_json.parse(signal, written.encode()) == expected or _has_nan(written)


def _has_nan(text: str) -> bool:
    return '"NaN"' in text  # which equals nothing


@pytest.mark.parametrize("name", ["1", "2", "10"])
def test_the_collectors_own_json_says_what_its_protobuf_does(name: str) -> None:
    if not CORPORA.is_dir():
        pytest.skip(f"needs corpora: no {CORPORA}")
    path = CORPORA / f"collector_testdata_{name}.traces"
    from_json = otlp_json.parse(SPANS, path.with_suffix(".traces.json").read_bytes())
    assert from_json == parse(SPANS, path.with_suffix(".traces.pb").read_bytes())
    assert sum(len(group.items) for group in groups(SPANS, from_json)) == int(name)


def test_ids_are_hex_of_either_case_and_nothing_else() -> None:
    request = spans(1, 10**18)
    span = request.resource_spans[0].scope_spans[0].spans[0]
    written = json.loads(to_json(request))
    found = written["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    found["traceId"] = found["traceId"].upper()
    again = otlp_json.parse(SPANS, json.dumps(written).encode())
    assert again.resource_spans[0].scope_spans[0].spans[0].trace_id == span.trace_id
    for bad in ("zz", "abc", "ab cd", 5, ["ab"]):
        found["traceId"] = bad
        with pytest.raises(BadRequest):
            otlp_json.parse(SPANS, json.dumps(written).encode())


def body(value: str) -> bytes:
    return b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[%s]}]}]}' % value.encode()


@pytest.mark.parametrize(
    ("record", "field", "value"),
    [
        ('{"timeUnixNano": "17"}', "time_unix_nano", 17),
        ('{"timeUnixNano": 17.0}', "time_unix_nano", 17),
        ('{"timeUnixNano": null, "unknown": {"a": [1]}}', "time_unix_nano", 0),
        ('{"severityNumber": "SEVERITY_NUMBER_INFO"}', "severity_number", 9),
        ('{"severityNumber": 9}', "severity_number", 9),
        ('{"body": {"bytesValue": "_-8"}}', "body.bytes_value", b"\xff\xef"),
        ('{"body": {"doubleValue": "-Infinity"}}', "body.double_value", -math.inf),
        ('{"body": {"doubleValue": "-1.50e+3"}}', "body.double_value", -1500.0),
        ('{"body": {"intValue": "-9223372036854775808"}}', "body.int_value", -(2**63)),
        ('{"body": {"doubleValue": 1}}', "body.double_value", 1.0),
    ],
)
def test_the_forms_that_json_may_have(record: str, field: str, value: object) -> None:
    request = otlp_json.parse(LOGS, body(record))
    found = request.resource_logs[0].scope_logs[0].log_records[0]
    for name in field.split("."):
        found = getattr(found, name)
    assert found == value


@pytest.mark.parametrize(
    "record",
    [
        "{",
        "[]",
        "5",
        '{"timeUnixNano": "x"}',
        '{"timeUnixNano": -1}',
        '{"timeUnixNano": 18446744073709551616}',
        '{"timeUnixNano": 1.5}',
        '{"timeUnixNano": true}',
        '{"severityNumber": "LOUD"}',
        '{"severityText": 5}',
        '{"severityText": "\\ud800"}',
        '{"attributes": {"key": "k"}}',
        '{"attributes": [5]}',
        '{"body": {"bytesValue": "?"}}',
        '{"body": {"boolValue": 1}}',
        '{"body": {"intValue": [1]}}',
        '{"body": {"bytesValue": 1234}}',
        '{"body": {"bytesValue": true}}',
        '{"body": {"bytesValue": ["AAAA"]}}',
        '{"body": {"intValue": " 7 "}}',
        '{"body": {"intValue": "7\\n"}}',
        '{"body": {"intValue": "+7"}}',
        '{"body": {"intValue": "\u0663"}}',
        '{"body": {"intValue": ""}}',
        '{"timeUnixNano": "1_0"}',
        '{"severityNumber": "1_0"}',
        '{"body": {"doubleValue": "1_0.5"}}',
        '{"body": {"doubleValue": " 1"}}',
        '{"body": {"doubleValue": "inf"}}',
        '{"body": {"doubleValue": "nan"}}',
        '{"body": {"doubleValue": true}}',
        '{"body": {"doubleValue": 1%s}}' % ("0" * 400),
        '{"severityNumber": {"a": 1}}',
        '{"body": ' + '{"arrayValue": {"values": [' * 60 + "]}}" * 60 + "}",
        "[" * 100_000,
    ],
)
def test_what_is_no_request_is_refused_in_one_line(record: str) -> None:
    with pytest.raises(BadRequest) as told:
        otlp_json.parse(LOGS, body(record))
    assert len(str(told.value)) < 400


def test_a_list_of_more_than_may_be_is_refused_unread() -> None:
    many = ", ".join(["7"] * (MAX_ITEMS + 1))  # of which none is an object
    with pytest.raises(BadRequest, match=f"logRecords: expected at most {MAX_ITEMS}; got {MAX_ITEMS + 1}"):
        otlp_json.parse(LOGS, body(many))


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_no_bytes_raise_anything_else(body: bytes) -> None:
    for signal in SIGNALS:
        for read in (parse, otlp_json.parse):
            with suppress(BadRequest):
                read(signal, body)

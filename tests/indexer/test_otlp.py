"""What of a request is sound, and how it is cut into messages."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer import otlp
from indexer.intake import MAX_BODY_BYTES
from indexer.otlp import AHEAD, BACK, MAX_OWN_BYTES, count, drop_empty, messages, refuse
from nektar.bus.port import MAX_MESSAGE_BYTES
from nektar.log import PART_BYTES
from nektar.otlp import (
    LOGS,
    MAX_BUCKETS,
    MAX_GROUPS,
    MAX_ITEMS,
    MAX_REPEATED_BYTES,
    MAX_VALUES,
    METRICS,
    SIGNALS,
    SPANS,
    VALUE_BYTES,
    BadRequest,
    check_size,
    data_points,
    groups,
    parse,
)
from tests.otlp import KINDS, items_in, points, put, records, requests, spans

NOW = 1_790_000_000 * 10**9
MESSAGE = dict[str, bytes]


def the_span(request: Any) -> Any:
    return request.resource_spans[0].scope_spans[0].spans[0]


def the_record(request: Any) -> Any:
    return request.resource_logs[0].scope_logs[0].log_records[0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"trace_id": b""}, "trace id"),
        ({"trace_id": bytes(16)}, "trace id"),
        ({"trace_id": b"\1" * 15}, "trace id"),
        ({"trace_id": b"\1" * 17}, "trace id"),
        ({"span_id": bytes(8)}, "span id"),
        ({"span_id": b"\1" * 16}, "span id"),
        ({"parent_span_id": b"\1"}, "parent span id"),
        ({"start_time_unix_nano": 0}, "time"),
        ({"start_time_unix_nano": NOW - BACK - 1}, "time"),
        ({"start_time_unix_nano": NOW + AHEAD + 1}, "time"),
        ({"end_time_unix_nano": 2**64 - 1}, "time"),
        ({"name": "x" * (PART_BYTES - MAX_OWN_BYTES)}, "size"),
    ],
)
def test_a_span_that_is_not_sound_is_refused_and_no_other(change: dict[str, Any], why: str) -> None:
    request = spans(5, NOW)
    kept = [span.span_id for span in request.resource_spans[0].scope_spans[0].spans][1:]
    for name, value in change.items():
        setattr(the_span(request), name, value)
    ((reason, refused),) = refuse(SPANS, request, NOW).items()
    assert (reason.startswith(why), refused) == (True, 1)
    assert [span.span_id for span in request.resource_spans[0].scope_spans[0].spans] == kept


@pytest.mark.parametrize(
    "change",
    [
        {"start_time_unix_nano": NOW - BACK},
        {"start_time_unix_nano": NOW + AHEAD, "end_time_unix_nano": NOW},  # an end before the beginning
        {"end_time_unix_nano": 0},
        {"parent_span_id": bytes(8)},
        {"kind": 99},
    ],
)
def test_a_span_at_the_limit_is_not(change: dict[str, Any]) -> None:
    request = spans(1, NOW)
    for name, value in change.items():
        setattr(the_span(request), name, value)
    assert not refuse(SPANS, request, NOW)


def test_a_link_to_no_span_is_refused() -> None:
    request = spans(1, NOW)
    the_span(request).links.add(trace_id=b"\1" * 16, span_id=b"\1" * 7)
    assert list(refuse(SPANS, request, NOW)) == ["link: expected a trace id and a span id"]


def test_a_record_need_not_belong_to_a_span_and_may_be_observed_alone() -> None:
    request = records(3, NOW)
    bare, wrong, _ = request.resource_logs[0].scope_logs[0].log_records
    for name in ("trace_id", "span_id", "time_unix_nano"):
        bare.ClearField(name)
    bare.observed_time_unix_nano = NOW
    wrong.trace_id = b"\1" * 8
    assert refuse(LOGS, request, NOW).total() == 1
    the_record(request).observed_time_unix_nano = 0
    assert refuse(LOGS, request, NOW).total() == 1
    assert count(LOGS, request) == 1


def test_nothing_goes_with_a_resource_that_is_too_large() -> None:
    request = spans(3, NOW, resource=[("text", "x" * MAX_OWN_BYTES)])
    assert refuse(SPANS, request, NOW).total() == 3


def test_a_resource_that_many_repeat_is_too_much_to_store() -> None:
    resource = [("text", "x" * 100_000)]
    check_size(SPANS, spans(300, NOW, resource=resource))
    with pytest.raises(BadRequest, match=str(MAX_REPEATED_BYTES)):
        check_size(SPANS, spans(350, NOW, resource=resource))


@pytest.mark.parametrize("place", ["resource", "scope"])
@pytest.mark.parametrize("said", ["many attributes", "what JSON writes longer"])
def test_what_takes_more_in_rows_than_on_the_wire_is_weighed_as_there(place: str, said: str) -> None:
    request = spans(8_192, NOW)
    group = request.resource_spans[0]
    repeated = getattr(group if place == "resource" else group.scope_spans[0], place)
    if said == "many attributes":
        for i in range(200):
            repeated.attributes.add().key = f"{i:x}"
    else:
        repeated.attributes.add().value.array_value.values.add().string_value = "\0" * 1_000
    assert request.ByteSize() < 1_000_000
    assert 8_192 * repeated.ByteSize() < MAX_REPEATED_BYTES / 2
    with pytest.raises(BadRequest, match=str(MAX_REPEATED_BYTES)):
        check_size(SPANS, request)


def test_what_a_stock_collectors_batch_repeats_is_within_the_limit() -> None:
    resource = [(f"k8s.attribute.{i}", "x" * 50) for i in range(40)]
    check_size(SPANS, spans(8_192, NOW, resource=resource))


def test_what_the_java_agent_says_of_its_process_is_within_the_limit_too() -> None:
    request = spans(8_192, NOW, resource=[(f"process.attribute.{i}", "x" * 40) for i in range(16)])
    arguments = request.resource_spans[0].resource.attributes.add(key="process.command_args")
    for i in range(40):
        arguments.value.array_value.values.add().string_value = f"/app/libs/library-number-{i}.jar"
    check_size(SPANS, request)


@pytest.mark.parametrize("empty", ["resource_spans", "scope_spans"])
def test_so_many_groups_are_too_many_though_they_are_empty(empty: str) -> None:
    request = spans(1, NOW)
    grown = request if empty == "resource_spans" else request.resource_spans[0]
    for _ in range(MAX_GROUPS - 2):
        getattr(grown, empty).add()
    check_size(SPANS, request)
    getattr(grown, empty).add()
    with pytest.raises(BadRequest, match=f"at most {MAX_GROUPS} of resource_spans and scope_spans"):
        check_size(SPANS, request)


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
def test_so_many_items_are_too_many_though_they_are_empty(signal: Any) -> None:
    request = signal.request()
    for many in (MAX_ITEMS - 1, 1):
        scope = getattr(getattr(request, signal.resources).add(), signal.scopes).add()
        items = items_in(signal, scope)
        items.extend([items.add()] * (many - 1))
    check_size(signal, request)
    items.add()
    with pytest.raises(BadRequest, match=f"at most {MAX_ITEMS} of {signal.items}.*; got {MAX_ITEMS + 1}"):
        check_size(signal, request)


@pytest.mark.parametrize(
    ("signal", "kind", "part"),
    [
        (SPANS, "", "events"),
        (SPANS, "", "links"),
        (METRICS, "gauge", "exemplars"),
        (METRICS, "exponential_histogram", "exemplars"),
        (METRICS, "summary", "quantile_values"),
    ],
)
def test_what_items_have_in_lists_is_counted_with_them(signal: Any, kind: str, part: str) -> None:
    request = points(2, NOW, kinds=[kind]) if kind else spans(2, NOW)
    parts = getattr(next(groups(signal, request)).items[0], part)
    parts.extend([parts.add()] * (MAX_ITEMS - 3))
    check_size(signal, request)
    parts.add()
    counted = "data_points, exemplars, quantile_values" if kind else "spans, events, links"
    with pytest.raises(BadRequest, match=f"at most {MAX_ITEMS} of {counted}; got {MAX_ITEMS + 1}"):
        check_size(signal, request)


@pytest.mark.parametrize("place", ["positive", "negative", "bucket_counts", "explicit_bounds"])
def test_so_many_buckets_are_too_many(place: str) -> None:
    kind = "exponential_histogram" if place.endswith("tive") else "histogram"
    request = points(2, NOW, kinds=[kind])
    counts = getattr(next(groups(METRICS, request)).items[1], place)
    counts = getattr(counts, "bucket_counts", counts)
    counts.extend([0] * MAX_BUCKETS)
    check_size(METRICS, request)
    counts.append(0)
    with pytest.raises(BadRequest, match=f"at most {MAX_BUCKETS} counts and bounds.*; got {MAX_BUCKETS + 1}"):
        check_size(METRICS, request)


def test_so_many_metrics_are_too_many_though_they_are_empty() -> None:
    request = points(1, NOW)
    metrics = request.resource_metrics[0].scope_metrics[0].metrics
    metrics.extend([metrics.add()] * (MAX_GROUPS - 4))
    check_size(METRICS, request)
    metrics.add()
    says = f"at most {MAX_GROUPS} of resource_metrics and scope_metrics and metrics"
    with pytest.raises(BadRequest, match=says):
        check_size(METRICS, request)


def test_what_a_metric_says_is_repeated_like_a_scope() -> None:
    request = points(3_000, NOW, kinds=["gauge"])
    check_size(METRICS, request)
    request.resource_metrics[0].scope_metrics[0].metrics[0].description = "x" * 100_000
    with pytest.raises(BadRequest, match="for each of their data_points"):
        check_size(METRICS, request)


@pytest.mark.parametrize("place", ["attributes", "filtered_attributes", "metadata"])
def test_values_of_metrics_are_counted_wherever_they_stand(place: str) -> None:
    request = points(1, NOW, kinds=["gauge"])
    (metric,) = request.resource_metrics[0].scope_metrics[0].metrics
    (point,) = metric.gauge.data_points
    of = {"attributes": point, "metadata": metric}.get(place) or point.exemplars.add()
    values = getattr(of, place)
    values.extend([values.add()] * (MAX_VALUES - 3))  # the resource and the data point have one each
    check_size(METRICS, request)
    values.add()
    with pytest.raises(BadRequest, match=f"at most {MAX_VALUES} attributes.*; got {MAX_VALUES + 1}"):
        check_size(METRICS, request)


@pytest.mark.parametrize("kind", KINDS)
def test_a_data_point_that_is_not_sound_is_refused_and_no_other(kind: str) -> None:
    def refused(**change: int) -> list[str]:
        request = points(3, NOW, kinds=[kind])
        for name, value in change.items():
            setattr(next(groups(METRICS, request)).items[1], name, value)
        reasons = refuse(METRICS, request, NOW)
        assert count(METRICS, request) == 3 - reasons.total() >= 2
        return list(reasons)

    assert not refused(time_unix_nano=NOW - BACK, start_time_unix_nano=0)
    assert not refused(time_unix_nano=NOW + AHEAD)
    assert "time" in refused(time_unix_nano=NOW - BACK - 1)[0]
    assert "time" in refused(time_unix_nano=NOW + AHEAD + 1)[0]
    assert "time" in refused(start_time_unix_nano=NOW + AHEAD + 1)[0]


def test_an_exemplar_is_of_a_span_or_of_none() -> None:
    request = points(2, NOW, kinds=["histogram"])
    one, other = next(groups(METRICS, request)).items
    one.exemplars.add()
    one.exemplars.add(trace_id=b"\1" * 16, span_id=b"\1" * 8)
    other.exemplars.add(trace_id=b"\1" * 15)
    assert refuse(METRICS, request, NOW) == {"exemplar: expected the ids of a span, or none": 1}


class Unseen:
    """So many items, into which nobody looks."""

    def __len__(self) -> int:
        return MAX_ITEMS + 1

    def __iter__(self) -> Any:
        raise AssertionError("they are looked into")


def test_nobody_looks_into_items_that_are_too_many() -> None:
    one = spans(1, NOW).resource_spans[0]
    scope = SimpleNamespace(scope=one.scope_spans[0].scope, schema_url="", spans=Unseen())
    seen = SimpleNamespace(resource=one.resource, schema_url="", scope_spans=[scope])
    with pytest.raises(BadRequest, match=f"got {MAX_ITEMS + 1}"):
        check_size(SPANS, SimpleNamespace(resource_spans=[seen]))


def grown(of: Any, into: str, count: int) -> None:
    """Give the attributes of a resource, a scope or a span `count` values in all, empty as far as may be."""
    if into == "attributes":
        of.attributes.extend([of.attributes.add()] * (count - 1))
        return
    value = of.attributes.add().value
    count -= 1
    if into == "lists in a list":
        for _ in range(1_000):
            value.array_value.values.add().array_value.SetInParent()
        value, count = value.array_value.values[500], count - 1_000
    parts = value.kvlist_value.values if into == "a map" else value.array_value.values
    parts.extend([parts.add()] * (count - 1))


@pytest.mark.parametrize("place", ["resource", "scope", "span", "event"])
@pytest.mark.parametrize("into", ["attributes", "a list", "a map", "lists in a list"])
def test_so_many_values_are_too_many_before_any_becomes_text(
    place: str, into: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [spans(1, NOW, resource=[]) for _ in range(2)]
    for more, request in enumerate(requests):
        group = request.resource_spans[0]
        (scope,) = group.scope_spans
        (span,) = scope.spans
        holders = {
            "resource": group.resource,
            "scope": scope.scope,
            "span": span,
            "event": span.events.add(),
        }
        there = sum(len(of.attributes) for of in holders.values())
        grown(holders[place], into, MAX_VALUES - there + more)
    check_size(SPANS, requests[0])
    monkeypatch.setattr("nektar.otlp.text", None)
    with pytest.raises(BadRequest, match=f"at most {MAX_VALUES} attributes.*; got {MAX_VALUES + 1}"):
        check_size(SPANS, requests[1])


def test_what_a_records_body_holds_is_counted_too() -> None:
    request = LOGS.request()
    body = request.resource_logs.add().scope_logs.add().log_records.add().body
    parts = body.array_value.values
    parts.extend([parts.add()] * (MAX_VALUES - 2))
    check_size(LOGS, request)
    parts.add()
    with pytest.raises(BadRequest, match=f"got {MAX_VALUES + 1}"):
        check_size(LOGS, request)


def test_values_are_counted_only_where_there_is_room_for_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    request = spans(1, NOW)
    grown(the_span(request), "attributes", 1_000)
    counted: list[Any] = []
    monkeypatch.setattr("nektar.otlp._counted", lambda held: counted.append(held) or 0)
    monkeypatch.setattr("nektar.otlp.MAX_VALUES", request.ByteSize() // VALUE_BYTES + 1)
    check_size(SPANS, request)
    assert not counted
    monkeypatch.setattr("nektar.otlp.MAX_VALUES", request.ByteSize() // VALUE_BYTES - 1)
    check_size(SPANS, request)
    assert counted


def test_a_body_full_of_spans_that_say_something_is_within_the_limit() -> None:
    request = spans(1, NOW)
    (template,) = request.resource_spans[0].scope_spans[0].spans
    while template.ByteSize() < 2_000:
        template.attributes.add(key="net.ip").value.string_value = "10.1"
    for _ in range((MAX_BODY_BYTES - request.ByteSize()) // (template.ByteSize() + 3)):
        request.resource_spans[0].scope_spans[0].spans.add().CopyFrom(template)
    assert 0.95 * MAX_BODY_BYTES < request.ByteSize() <= MAX_BODY_BYTES
    check_size(SPANS, request)


def test_a_body_full_of_resources_that_say_something_is_within_the_limit() -> None:
    request = SPANS.request()
    for i in range(8_192):
        one = request.resource_spans.add()
        one.CopyFrom(spans(1, NOW, seed=i).resource_spans[0])
        while one.ByteSize() < MAX_BODY_BYTES // 8_192 - 20:
            one.resource.attributes.add(key="host").value.string_value = "a-1"
    assert 0.95 * MAX_BODY_BYTES < request.ByteSize() <= MAX_BODY_BYTES
    check_size(SPANS, request)


class Weighed:
    """A message that counts how often its size is asked for."""

    def __init__(self, message: Any) -> None:
        self._message, self.times = message, 0

    def ByteSize(self) -> int:  # noqa: N802 protobuf's name
        self.times += 1
        return int(self._message.ByteSize())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)


def test_a_resource_is_weighed_once_though_it_has_many_scopes() -> None:
    request = spans(1, NOW)
    for i in range(50):
        scope = request.resource_spans[0].scope_spans.add()
        if i % 2:
            scope.spans.add().CopyFrom(the_span(request))
    one = request.resource_spans[0]
    resource = Weighed(one.resource)
    seen = SimpleNamespace(resource=resource, schema_url="", scope_spans=one.scope_spans)
    whole = SimpleNamespace(resource_spans=[seen], ByteSize=request.ByteSize)
    check_size(SPANS, whole)
    assert resource.times == 1
    assert not refuse(SPANS, whole, NOW)
    assert resource.times == 2
    empty = Weighed(one.resource)
    seen = SimpleNamespace(resource=empty, schema_url="", scope_spans=[SimpleNamespace(spans=[])])
    check_size(SPANS, SimpleNamespace(resource_spans=[seen], ByteSize=request.ByteSize))
    assert empty.times == 0


@given(st.sampled_from(SIGNALS).flatmap(lambda s: st.tuples(st.just(s), requests(s))))
def test_without_its_empty_groups_a_request_says_the_same(made: tuple[Any, Any]) -> None:
    signal, request = made
    before, size = told(signal, [request]), request.ByteSize()
    assert drop_empty(signal, request) == (request.ByteSize() < size)
    assert told(signal, [request]) == before
    resources = getattr(request, signal.resources)
    assert all(getattr(each, signal.scopes) for each in resources)
    held = signal.held or signal.items
    assert all(getattr(s, held) for each in resources for s in getattr(each, signal.scopes))
    if signal is METRICS:
        scopes = [scope for each in resources for scope in each.scope_metrics]
        assert all(data_points(metric) for scope in scopes for metric in scope.metrics)
    assert not drop_empty(signal, request)


# --- messages ---------------------------------------------------------------------------------------


def cut(signal: Any, request: Any) -> list[Any]:
    return messages(signal, request, request.SerializeToString(), {"sender": b"me"})


def test_a_request_that_fits_is_a_message_as_it_came() -> None:
    request = spans(3, NOW)
    body = request.SerializeToString() + b"\x52\x01x"  # a field that is not known here
    (message,) = messages(SPANS, request, body, {"sender": b"me"})
    assert message == (SPANS.stream, the_span(request).trace_id.hex().encode(), body, {"sender": b"me"})


def test_the_key_is_the_first_trace_that_is_named() -> None:
    request = records(3, NOW)
    the_record(request).trace_id = b""
    (message,) = cut(LOGS, request)
    assert message.key == request.resource_logs[0].scope_logs[0].log_records[1].trace_id.hex().encode()
    for record in request.resource_logs[0].scope_logs[0].log_records:
        record.trace_id = bytes(16)
    assert cut(LOGS, request)[0].key == b""


@pytest.mark.parametrize("text", [10, 3_000, 200_000, 480_000])
def test_a_long_request_is_cut_into_messages_that_are_whole(text: int) -> None:
    request = spans(8, NOW)
    for seed in range(3):
        request.MergeFrom(spans(8 + 900_000 // (60 + text), NOW, seed=seed, attributes=[("t", "x" * text)]))
        second = request.resource_spans[-1].scope_spans.add()
        second.scope.name, second.schema_url = f"scope {seed}", "https://schema"
        second.spans.extend(spans(4, NOW, seed=f"more {seed}").resource_spans[0].scope_spans[0].spans)
    assert not refuse(SPANS, request, NOW)
    made = cut(SPANS, request)
    assert len(made) > 1
    assert all(len(message.value) <= MAX_MESSAGE_BYTES for message in made)
    pieces = [parse(SPANS, message.value) for message in made]
    assert told(SPANS, pieces) == told(SPANS, [request])
    for message, piece in zip(made, pieces, strict=True):
        assert message.key == next(groups(SPANS, piece)).items[0].trace_id.hex().encode()
    assert cut(SPANS, parse(SPANS, request.SerializeToString())) == made
    # No piece could have gone into the one before.
    for one, other in pairwise(pieces):
        assert one.ByteSize() + next(groups(SPANS, other)).items[0].ByteSize() > PART_BYTES * 0.97


def told(signal: Any, pieces: list[Any]) -> list[tuple[bytes, ...]]:
    """Every item in order, with all that its group says."""
    return [
        (
            group.resource.resource.SerializeToString(),
            group.resource.schema_url.encode(),
            group.scope.scope.SerializeToString(),
            group.scope.schema_url.encode(),
            said,
            item.SerializeToString(),
        )
        for piece in pieces
        for group in groups(signal, piece)
        for said in [_said_by(group.metric)]
        for item in group.items
    ]


def _said_by(metric: Any) -> bytes:
    """A metric without its data points."""
    if metric is None:
        return b""
    bare = type(metric)()
    bare.CopyFrom(metric)
    del data_points(bare)[:]
    return bytes(bare.SerializeToString(deterministic=True))


@pytest.mark.parametrize("text", [10, 3_000, 200_000])
def test_long_metrics_are_cut_into_messages_that_are_whole(text: int) -> None:
    request = METRICS.request()
    for seed in range(3):
        long = [("t", "x" * text)]
        request.MergeFrom(points(8 + 900_000 // (60 + text), NOW, seed=seed, attributes=long))
        scope = request.resource_metrics[-1].scope_metrics[0]
        scope.metrics[1].sum.is_monotonic, scope.metrics[0].description = True, "ä"
        put(scope.metrics[2].metadata, [("k", "v")])
        second = request.resource_metrics[-1].scope_metrics.add()
        second.scope.name, second.schema_url = f"scope {seed}", "https://schema"
        second.metrics.extend(points(9, NOW, seed="more").resource_metrics[0].scope_metrics[0].metrics)
    assert not refuse(METRICS, request, NOW)
    made = cut(METRICS, request)
    assert len(made) > 1
    assert all(len(message.value) <= MAX_MESSAGE_BYTES for message in made)
    pieces = [parse(METRICS, message.value) for message in made]
    assert told(METRICS, pieces) == told(METRICS, [request])
    assert {len(message.key) for message in made} == {32}
    assert cut(METRICS, parse(METRICS, request.SerializeToString())) == made
    for one, other in pairwise(pieces):
        assert one.ByteSize() + next(groups(METRICS, other)).items[0].ByteSize() > PART_BYTES * 0.97


def test_metrics_of_one_resource_are_on_one_partition() -> None:
    keys = {cut(METRICS, points(3, NOW + i, seed=i))[0].key for i in range(5)}
    others = {cut(METRICS, points(3, NOW, resource=[("service.name", f"{i}")]))[0].key for i in range(5)}
    assert (len(keys), len(others), keys & others) == (1, 5, set())


def test_what_is_repeated_in_each_message_is_at_most_a_few_times_what_came() -> None:
    request = spans(13, NOW, resource=[("t", "x" * 480_000)], attributes=[("t", "x" * 250_000)])
    body = request.SerializeToString()
    assert sum(len(message.value) for message in cut(SPANS, request)) < 4 * len(body)


def test_a_resource_of_many_scopes_stands_once_in_a_message() -> None:
    request = spans(4, NOW, resource=[("t", "x" * 480_000)], attributes=[("t", "x" * 200_000)])
    for i in range(100):
        scope = request.resource_spans[0].scope_spans.add()
        scope.spans.add().CopyFrom(spans(1, NOW, seed=i).resource_spans[0].scope_spans[0].spans[0])
    body = request.SerializeToString()
    made = cut(SPANS, request)
    assert sum(len(message.value) for message in made) < 3 * len(body)
    assert told(SPANS, [parse(SPANS, message.value) for message in made]) == told(SPANS, [request])


@given(st.sampled_from(SIGNALS).flatmap(lambda s: st.tuples(st.just(s), requests(s))))
def test_what_is_left_of_any_request_is_sound(made: tuple[Any, Any]) -> None:
    signal, request = made
    before = count(signal, request)
    refused = refuse(signal, request, NOW).total()
    assert count(signal, request) == before - refused
    assert not refuse(signal, request, NOW)


def test_a_group_of_many_attributes_is_no_less_sound() -> None:
    request = spans(2, NOW)
    put(the_span(request).attributes, [(f"key {i}", i) for i in range(10_000)])
    assert not refuse(SPANS, request, NOW)
    assert otlp.count(SPANS, request) == 2

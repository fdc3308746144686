"""Requests of telemetry, for whoever sends, reads or stores them."""

from __future__ import annotations

import base64
import json
import math
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from hypothesis import strategies as st

from nektar.otlp import LOGS, METRICS, SPANS, Signal

CORPORA = Path(os.environ.get("NEKTAR_CORPORA") or Path(__file__).parents[2] / "shared" / "corpora") / "otlp"
IDS = {"traceId", "spanId", "parentSpanId"}


def spans(
    count: int,
    now: int,
    *,
    seed: object = 0,
    attributes: Sequence[tuple[str, str | int]] = (),
    resource: Sequence[tuple[str, str | int]] = (("service.name", "operator"),),
) -> Any:
    """A request of `count` sound spans that end at `now` (ns)."""
    rng = random.Random(f"spans {seed}")
    request = SPANS.request()
    group = request.resource_spans.add()
    put(group.resource.attributes, resource)
    scope = group.scope_spans.add()
    scope.scope.name, scope.scope.version = "devnet", "1"
    for i in range(count):
        span = scope.spans.add(name=f"step {i}", kind=1, end_time_unix_nano=now)
        span.start_time_unix_nano = now - 1_000_000 - i
        span.trace_id, span.span_id = rng.randbytes(16), rng.randbytes(8)
        put(span.attributes, attributes)
    return request


def records(
    count: int, now: int, *, seed: object = 0, attributes: Sequence[tuple[str, str | int]] = ()
) -> Any:
    """A request of `count` sound log records of `now`."""
    rng = random.Random(f"records {seed}")
    request = LOGS.request()
    group = request.resource_logs.add()
    put(group.resource.attributes, [("service.name", "operator")])
    scope = group.scope_logs.add()
    for i in range(count):
        record = scope.log_records.add(time_unix_nano=now, severity_text="INFO", severity_number=9)
        record.body.string_value = f"record {i}"
        record.trace_id, record.span_id = rng.randbytes(16), rng.randbytes(8)
        put(record.attributes, attributes)
    return request


KINDS = ("gauge", "sum", "histogram", "exponential_histogram", "summary")


def points(
    count: int,
    now: int,
    *,
    seed: object = 0,
    kinds: Sequence[str] = KINDS,
    attributes: Sequence[tuple[str, str | int]] = (),
    resource: Sequence[tuple[str, str | int]] = (("service.name", "operator"),),
) -> Any:
    """A request of `count` sound data points of `now`, of metrics of these kinds in turn."""
    rng = random.Random(f"points {seed}")
    request = METRICS.request()
    group = request.resource_metrics.add()
    put(group.resource.attributes, resource)
    scope = group.scope_metrics.add()
    scope.scope.name, scope.scope.version = "devnet", "1"
    metrics = [scope.metrics.add(name=f"{kind} of it", unit="s") for kind in kinds[:count]]
    for i in range(count):
        kind = kinds[i % len(kinds)]
        of = getattr(metrics[i % len(kinds)], kind)
        if kind not in ("gauge", "summary"):
            of.aggregation_temporality = 2
        point = of.data_points.add(time_unix_nano=now, start_time_unix_nano=now - 10**9)
        if kind in ("gauge", "sum"):
            point.as_double = rng.random()
        else:
            point.count, point.sum = 3, rng.random()
        put(point.attributes, [("number", i), *attributes])
    return request


def items_in(signal: Signal, scope: Any) -> Any:
    """A list of a scope's for items; of data points a new one, of a gauge."""
    return scope.metrics.add().gauge.data_points if signal is METRICS else getattr(scope, signal.items)


def some(signal: Signal, count: int, now: int, **kwargs: Any) -> Any:
    """A request of `count` sound items of `now`, of this signal."""
    return {SPANS: spans, LOGS: records, METRICS: points}[signal](count, now, **kwargs)


def put(pairs: Any, attributes: Sequence[tuple[str, str | int]]) -> None:
    for key, value in attributes:
        pair = pairs.add(key=key)
        if isinstance(value, int):
            pair.value.int_value = value
        else:
            pair.value.string_value = value


def to_json(request: Any) -> bytes:
    """As a client writes it: protobuf's own JSON, with ids in hex and enums as numbers."""
    value = json_format.MessageToDict(request, use_integers_for_enums=True)
    return json.dumps(_hex(value)).encode()


def _hex(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: base64.b64decode(each).hex() if key in IDS else _hex(each) for key, each in value.items()
        }
    return [_hex(each) for each in value] if isinstance(value, list) else value


# --- requests of all kinds --------------------------------------------------------------------------

_numbers = st.floats().map(lambda x: math.nan if math.isnan(x) else x)
_texts = st.text(st.characters(codec="utf-8"), max_size=8)
_times = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**63 - 1, 2**63, 1_790_000_000 * 10**9])
_ids = st.binary(max_size=3) | st.sampled_from([bytes(16), bytes(8), b"\1" * 16, b"\2" * 8])


def _pairs_of(values: Any) -> Any:
    pair = st.builds(lambda key, value: {"key": key, "value": value}, _texts, values)
    return st.lists(pair, max_size=3)


_values = st.recursive(
    st.one_of(
        st.just({}),
        st.builds(lambda x: {"string_value": x}, _texts),
        st.builds(lambda x: {"bool_value": x}, st.booleans()),
        st.builds(lambda x: {"int_value": x}, st.integers(-(2**63), 2**63 - 1)),
        st.builds(lambda x: {"double_value": x}, _numbers),
        st.builds(lambda x: {"bytes_value": x}, st.binary(max_size=8)),
    ),
    lambda inner: st.one_of(
        st.builds(lambda x: {"array_value": {"values": x}}, st.lists(inner, max_size=3)),
        st.builds(lambda x: {"kvlist_value": {"values": x}}, _pairs_of(inner)),
    ),
    max_leaves=6,
)


_pairs = _pairs_of(_values)
_span = st.fixed_dictionaries(
    {},
    optional={
        "trace_id": _ids,
        "span_id": _ids,
        "parent_span_id": _ids,
        "trace_state": _texts,
        "name": _texts,
        "kind": st.integers(-1, 7),
        "start_time_unix_nano": _times,
        "end_time_unix_nano": _times,
        "attributes": _pairs,
        "status": st.fixed_dictionaries({}, optional={"message": _texts, "code": st.integers(-1, 3)}),
        "events": st.lists(
            st.fixed_dictionaries({"time_unix_nano": _times, "name": _texts, "attributes": _pairs}),
            max_size=2,
        ),
        "links": st.lists(
            st.fixed_dictionaries({"trace_id": _ids, "span_id": _ids, "attributes": _pairs}), max_size=2
        ),
        "flags": st.integers(0, 2**32 - 1),
    },
)
_record = st.fixed_dictionaries(
    {},
    optional={
        "time_unix_nano": _times,
        "observed_time_unix_nano": _times,
        "severity_number": st.integers(-5, 300),
        "severity_text": _texts,
        "body": _values,
        "attributes": _pairs,
        "flags": st.integers(0, 2**32 - 1),
        "trace_id": _ids,
        "span_id": _ids,
        "event_name": _texts,
    },
)


_int32, _int64, _uint64 = (
    st.integers(-(2**31), 2**31 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**64 - 1),
)
_value = st.one_of(
    st.just({}), st.builds(lambda x: {"as_double": x}, _numbers), st.builds(lambda x: {"as_int": x}, _int64)
)
_exemplar = st.builds(
    lambda said, value: said | value,
    st.fixed_dictionaries(
        {},
        optional={"filtered_attributes": _pairs, "time_unix_nano": _times, "span_id": _ids, "trace_id": _ids},
    ),
    _value,
)
_point = {
    "attributes": _pairs,
    "start_time_unix_nano": _times,
    "time_unix_nano": _times,
    "flags": st.integers(0, 2),
}
_exemplars = {"exemplars": st.lists(_exemplar, max_size=2)}
_counted = {"count": _uint64, "sum": _numbers}
_spread = _counted | {"min": _numbers, "max": _numbers}
_buckets = st.fixed_dictionaries(
    {}, optional={"offset": _int32, "bucket_counts": st.lists(_uint64, max_size=3)}
)


def _points_of(**optional: Any) -> Any:
    return st.lists(st.fixed_dictionaries({}, optional=_point | optional), max_size=2)


_valued = st.lists(
    st.builds(
        lambda said, value: said | value,
        st.fixed_dictionaries({}, optional=_point | _exemplars),
        _value,
    ),
    max_size=2,
)
_temporality = {"aggregation_temporality": st.integers(-1, 3)}
_kinds = {
    "gauge": {"data_points": _valued},
    "sum": {"data_points": _valued, "is_monotonic": st.booleans(), **_temporality},
    "histogram": {
        "data_points": _points_of(
            **_spread,
            **_exemplars,
            bucket_counts=st.lists(_uint64, max_size=3),
            explicit_bounds=st.lists(_numbers, max_size=3),
        ),
        **_temporality,
    },
    "exponential_histogram": {
        "data_points": _points_of(
            **_spread,
            **_exemplars,
            scale=_int32,
            zero_count=_uint64,
            positive=_buckets,
            negative=_buckets,
            zero_threshold=_numbers,
        ),
        **_temporality,
    },
    "summary": {
        "data_points": _points_of(
            **_counted,
            quantile_values=st.lists(
                st.fixed_dictionaries({}, optional={"quantile": _numbers, "value": _numbers}), max_size=2
            ),
        ),
    },
}
_metric = st.one_of(
    st.just({}),
    *(
        st.fixed_dictionaries(
            {kind: st.fixed_dictionaries({}, optional=said)},
            optional={"name": _texts, "description": _texts, "unit": _texts, "metadata": _pairs},
        )
        for kind, said in _kinds.items()
    ),
)
_ITEMS = {SPANS: _span, LOGS: _record, METRICS: _metric}


def requests(signal: Signal) -> st.SearchStrategy[Any]:
    """Any request at all, sound or not."""
    scope = st.fixed_dictionaries(
        {"scope": st.fixed_dictionaries({"name": _texts, "version": _texts, "attributes": _pairs})},
        optional={
            "schema_url": _texts,
            signal.held or signal.items: st.lists(_ITEMS[signal], max_size=3),
        },
    )
    resource = st.fixed_dictionaries(
        {"resource": st.fixed_dictionaries({"attributes": _pairs})},
        optional={"schema_url": _texts, signal.scopes: st.lists(scope, max_size=2)},
    )
    return st.builds(
        lambda groups: signal.request(**{signal.resources: groups}), st.lists(resource, max_size=2)
    )

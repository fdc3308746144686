"""Telemetry as columns of Arrow: what rows of any signal are made of. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

from nektar.arrow import pa
from nektar.attributes import attributes
from nektar.otlp import Group
from nektar.senders import Sender

# DateTime64(9) ends in 2262, DateTime in 2106.
_LAST = 2**63 - 1
_LAST_SECOND = 2**32 - 1
_SECOND = 10**9

_TEXT = pa.utf8()
_TIME = pa.timestamp("ns")
_SECONDS = pa.timestamp("s")


class Groups:
    """What resources, scopes and metrics say once and each of their rows repeats: read once, repeated by
    Arrow."""

    def __init__(self, of: Iterable[Group], sender: Sender) -> None:
        self.items: list[Any] = []
        self.resources: list[Any] = []
        self.scopes: list[Any] = []
        self.metrics: list[Any] = []  # None of other signals
        resource_of: list[int] = []  # of each row
        scope_of: list[int] = []
        metric_of: list[int] = []
        for group in of:
            if not self.resources or self.resources[-1] is not group.resource:
                self.resources.append(group.resource)
            if not self.scopes or self.scopes[-1] is not group.scope:
                self.scopes.append(group.scope)
            self.metrics.append(group.metric)
            self.items += group.items
            resource_of += [len(self.resources) - 1] * len(group.items)
            scope_of += [len(self.scopes) - 1] * len(group.items)
            metric_of += [len(self.metrics) - 1] * len(group.items)
        # The sender stands there whatever it says of itself.
        self.attributes = [attributes(r.resource.attributes) | sender.attributes for r in self.resources]
        self._resource_of = pa.array(resource_of, pa.int32())
        self._scope_of = pa.array(scope_of, pa.int32())
        self._metric_of = pa.array(metric_of, pa.int32())

    def resource(self, of_resources: pa.Array) -> pa.Array:
        """For each row, what its resource has."""
        return of_resources.take(self._resource_of)

    def scope(self, of_scopes: pa.Array) -> pa.Array:
        """For each row, what its scope has."""
        return of_scopes.take(self._scope_of)

    def metric(self, of_metrics: pa.Array) -> pa.Array:
        """For each row, what its metric has."""
        return of_metrics.take(self._metric_of)


def times(nanoseconds: Iterable[int]) -> pa.Array:
    return pa.array([min(each, _LAST) for each in nanoseconds], pa.int64()).cast(_TIME)


def seconds(nanoseconds: Iterable[int]) -> pa.Array:
    """Times as DateTime has them."""
    return pa.array([min(each // _SECOND, _LAST_SECOND) for each in nanoseconds], pa.int64()).cast(_SECONDS)


def ids(of_rows: Iterable[bytes]) -> pa.Array:
    """Ids in hex; empty where they are zero."""
    return pa.array([each.hex() if any(each) else "" for each in of_rows], _TEXT)


def texts(of_rows: Iterable[str]) -> pa.Array:
    return pa.array(list(of_rows), _TEXT)


def numbers(of_rows: Iterable[float], type_: pa.DataType) -> pa.Array:
    return pa.array(list(of_rows), type_)


def maps(of_rows: Iterable[Any]) -> pa.Array:
    return map_array([attributes(each) for each in of_rows])


def map_array(of_rows: list[dict[str, str]]) -> pa.Array:
    keys = pa.array(list(chain.from_iterable(of_rows)), _TEXT)
    values = pa.array(list(chain.from_iterable(map(dict.values, of_rows))), _TEXT)
    return pa.MapArray.from_arrays(offsets(map(len, of_rows)), keys, values)


def lists(ends: pa.Array, values: pa.Array) -> pa.Array:
    """Of each row the values between its two `offsets`."""
    return pa.ListArray.from_arrays(ends, values)


def offsets(lengths: Iterable[int]) -> pa.Array:
    ends = [0]
    for length in lengths:
        ends.append(ends[-1] + length)
    return pa.array(ends, pa.int32())

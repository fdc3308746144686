"""Panels' SQL becomes what Grafana and its ClickHouse plugin would send."""

from __future__ import annotations

import pytest

from dashboards.macros import TimeRange, expand

RANGE = TimeRange(1_700_000_000, 1_700_003_600)


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("$__fromTime", "toDateTime(1700000000)"),
        ("$__toTime + 1", "toDateTime(1700003600) + 1"),
        ("$__timeFilter(b.time)", "b.time >= toDateTime(1700000000) AND b.time <= toDateTime(1700003600)"),
        ("$__timeInterval(time)", "toStartOfInterval(toDateTime(time), INTERVAL 7 second)"),
        ("INTERVAL $__interval_s second", "INTERVAL 7 second"),
        ("network IN (${network:singlequote})", "network IN ('a','b')"),
        ("SELECT 1", "SELECT 1"),
    ],
)
def test_macros_become_what_the_plugin_makes_of_them(written: str, sent: str) -> None:
    assert expand(written, RANGE, {"network": ["a", "b"]}) == sent


def test_a_quote_in_a_variable_ends_no_string() -> None:
    assert expand("${n:singlequote}", RANGE, {"n": ["o'clock"]}) == r"'o\'clock'"


def test_what_stands_in_a_variable_is_not_expanded() -> None:
    assert expand("${n:singlequote}", RANGE, {"n": ["$__toTime"]}) == "'$__toTime'"


def test_points_are_never_closer_than_a_second() -> None:
    assert TimeRange(10, 20).interval == 1


@pytest.mark.parametrize(
    "written",
    ["$__timeFiler(t)", "$__timeFilter", "$__fromTime(t)", "$network", "${network}", "${n:singlequote}"],
)
def test_what_neither_would_understand_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        expand(written, RANGE, {"network": ["a"]})

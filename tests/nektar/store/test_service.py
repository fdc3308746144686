"""Service levels beside objectives, as the views say them."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from nektar.config import DEFAULT_OBJECTIVE
from nektar.rows import ServiceRow
from nektar.store.port import Store
from nektar.store.schema import columns, rows_to_arrow, stored
from nektar.store.service import say_objectives

ALICE, BOB = b"\xaa" * 20, b"\xbb" * 20
TOKENS = 10**18
WINDOWS = ("5m", "30m", "1h", "6h", "3d", "30d")


def put(store: Store, network: str, *rows: ServiceRow) -> None:
    made = pa.Table.from_batches([rows_to_arrow(ServiceRow, [(row, False) for row in rows])])
    made = stored(made.drop_columns(["is_deleted"]), network, 1 << 48, False)
    store.insert("service_windows_rows", made, network)


def row(operator: bytes, failed: dict[str, float], eligible: int = 1_000 * TOKENS) -> ServiceRow:
    """As much owed in each window, and this share of it failed; what is not named failed in none."""
    said = [int(failed.get(window, 0) * 10**6) * eligible // 10**6 for window in WINDOWS]
    return ServiceRow(operator, *[eligible] * 6, *said, 3, 1, 2_000, 3_000)  # type: ignore[call-arg]


def asked(store: Store, view: str, network: str) -> list[dict[str, Any]]:
    answer = store.read(f"SELECT * FROM {view} WHERE network = '{network}'", "JSONEachRow")
    return sorted(map(json.loads, answer.splitlines()), key=lambda each: str(each.get("operator")))


def test_the_budget_and_how_fast_it_burns_follow_from_the_networks_objective(store: Store) -> None:
    put(store, "one", row(ALICE, {"1h": 0.02, "30d": 0.005}), row(BOB, {"30d": 0.015}, 3_000 * TOKENS))
    alice, bob = asked(store, "service_levels", "one")
    assert (alice["operator"], alice["objective"]) == ("0x" + "aa" * 20, DEFAULT_OBJECTIVE)
    assert alice["on_time"] == pytest.approx(0.995)
    assert [alice[f"burn_{window}"] for window in WINDOWS[:5]] == pytest.approx([0, 0, 2, 0, 0])
    assert [alice["budget_left"], bob["budget_left"]] == pytest.approx([0.5, -0.5])
    assert (alice["missed_6h"], alice["misses_left"], alice["alert"]) == (3, 1, "")
    assert (alice["time"], alice["meets_time"]) == ("1970-01-01 00:33:20", "1970-01-01 00:50:00")

    say_objectives(store, {"one": 0.9, "other": 0.5})
    assert asked(store, "service_levels", "one")[0]["budget_left"] == pytest.approx(0.95)
    say_objectives(store, {"one": 0.995})
    say_objectives(store, {"one": 0.995})
    assert asked(store, "service_levels", "one")[0]["objective"] == 0.995
    assert asked(store, "service_levels", "one")[0]["budget_left"] == pytest.approx(0, abs=1e-9)
    # Back to what was said before: the newest counts, not the highest.
    say_objectives(store, {"one": 0.9})
    (both,) = asked(store, "network_service_levels", "one")
    assert both["objective"] == 0.9
    assert both["on_time"] == pytest.approx(1 - (5 + 45) / 4_000)
    assert both["burn_1h"] == pytest.approx(20 / 4_000 / 0.1)


@pytest.mark.parametrize(
    ("failed", "alert"),
    [
        ({"1h": 0.15, "5m": 0.15}, "page"),
        ({"1h": 0.14, "5m": 0.2}, ""),
        ({"1h": 0.2, "5m": 0.1}, ""),  # it has ended
        ({"6h": 0.07, "30m": 0.07}, "page"),
        ({"6h": 0.07, "30m": 0.05}, ""),
        ({"3d": 0.02, "6h": 0.02}, "ticket"),
        ({"3d": 0.02, "6h": 0.02, "30m": 1}, "ticket"),
        ({"3d": 0.02}, ""),
        ({"3d": 0.5, "6h": 0.5, "1h": 0.5, "30m": 0.5, "5m": 0.5}, "page"),
    ],
)
def test_an_alert_takes_a_long_window_and_a_short_one(
    store: Store, failed: dict[str, float], alert: str
) -> None:
    network = json.dumps(failed)
    put(store, network, row(ALICE, failed))
    assert asked(store, "service_levels", network)[0]["alert"] == alert
    assert asked(store, "network_service_levels", network)[0]["alert"] == alert


def test_where_nothing_is_owed_nothing_burns_and_no_share_is_on_time(store: Store) -> None:
    put(store, "idle", row(ALICE, {}, 0))
    for view in ("service_levels", "network_service_levels"):
        (said,) = asked(store, view, "idle")
        assert (said["on_time"], said["budget_left"], said["burn_5m"], said["alert"]) == (None, 1, 0, "")
    assert asked(store, "network_service_levels", "nobody") == []


def test_views_are_of_the_windows_that_are_counted() -> None:
    assert [name for name in columns(ServiceRow) if name.startswith("failed_")] == [
        f"failed_{window}" for window in WINDOWS
    ]

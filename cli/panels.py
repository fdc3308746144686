"""Boards: writing them for Grafana, and running every panel of them on what a demo left in the store."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError

from cli.answers import Between, Known, untrue
from dashboards.boards import BOARDS
from dashboards.macros import TimeRange, expand
from dashboards.panels import Panel
from nektar.config import ConfigError, Listen

Rows = list[dict[str, Any]]
Ask = Callable[[str], Rows]


def build(out: Path, sql: str | None) -> None:
    """Write what Grafana provisions itself from under `out`."""
    from dashboards.grafana import files  # the SDK takes a while, and the demo has no use for it

    address = sql or Listen().sql
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 65536):
        raise ConfigError(f"--sql: expected HOST:PORT; got {address!r}")
    for name, content in files(address).items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
        print(path)


class Ran(NamedTuple):
    """What running every panel came to: {run, empty, failed, untrue}, and what is wrong, if anything."""

    counts: dict[str, int]
    wrong: str | None


def run_all(ask: Ask, network: str, known: Known) -> Ran:
    """Run each panel over all that is stored of `network`, and hold what is known against each answer.

    `ask` answers a query's rows; what it raises as HTTPError is a panel that failed.
    """
    range = _range(ask)
    panels = {panel.id: panel for board in BOARDS for panel in board.panels}
    answers: dict[str, Rows] = {}
    failed: dict[str, str] = {}
    began = int(time.time())
    for id, panel in panels.items():
        try:
            answers[id] = ask(_sql(panel, range, network))
        except HTTPError as error:
            failed[id] = error.read().decode("utf-8", "replace").strip()[:200]
    asked = Between(began, int(time.time()))
    empty = [id for id, rows in answers.items() if not rows]
    lies = dict(untrue({id: rows for id, rows in answers.items() if rows}, known, asked))
    counts = {
        "run": len(panels),
        "empty": len(empty),
        "failed": len(failed),
        "untrue": len(lies),
    }
    wrong = [
        *(f"{id} failed: {why}" for id, why in failed.items()),
        *(f"{id} answered nothing" for id in empty),
        *(f"{panels[id].title!r} {why}" for id, why in lies.items()),
    ]
    return Ran(counts, wrong[0] if wrong else None)


def _sql(panel: Panel, range: TimeRange, network: str) -> str:
    return expand(panel.sql, range, {"network": [network]})


def _range(ask: Ask) -> TimeRange:
    """From the first to the last moment of anything: blocks by the chain's clock, spans by their senders'."""
    (ends,) = ask(
        "SELECT toUnixTimestamp(min(t)) AS start, toUnixTimestamp(max(t)) + 1 AS end FROM "
        "(SELECT time AS t FROM blocks UNION ALL SELECT toDateTime(Timestamp, 'UTC') AS t FROM otel_traces)"
    )
    return TimeRange(int(ends["start"]), int(ends["end"]))

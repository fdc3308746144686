"""Boards: writing them for Grafana, and running every panel of them on what a demo left in the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError

from dashboards.boards import BOARDS
from dashboards.boards.network import NETWORK as BOARD
from dashboards.macros import TimeRange, expand
from dashboards.panels import Panel
from devnet.plan import Fact
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
    """What running every panel came to: {run, empty, failed}, and what is wrong, if anything."""

    counts: dict[str, int]
    wrong: str | None


def run_all(ask: Ask, network: str, truth: Sequence[Fact]) -> Ran:
    """Run each panel over all that is stored of `network`, and hold what the truth tells of against it.

    `ask` answers a query's rows; what it raises as HTTPError is a panel that failed.
    """
    range = _range(ask)
    answers: dict[str, Rows] = {}
    failed: dict[str, str] = {}
    for panel in (panel for board in BOARDS for panel in board.panels):
        try:
            answers[panel.id] = ask(_sql(panel, range, network))
        except HTTPError as error:
            failed[panel.id] = error.read().decode("utf-8", "replace").strip()[:200]
    empty = [id for id, rows in answers.items() if not rows]
    counts = {"run": len(answers) + len(failed), "empty": len(empty), "failed": len(failed)}
    wrong = [
        *(f"{id} failed: {why}" for id, why in failed.items()),
        *(f"{id} answered nothing" for id in empty),
        *(_untrue(answers, truth) if not failed and not empty else ()),
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


def _untrue(answers: dict[str, Rows], truth: Iterable[Fact]) -> Iterator[str]:
    """What panels say that is not so."""
    facts = list(truth)
    duties = Counter(fact.value for fact in facts if fact.kind == "duty")
    missed = Counter(fact.operator.lower() for fact in facts if (fact.kind, fact.value) == ("duty", "missed"))
    findings = Counter(fact.value for fact in facts if fact.kind == "finding")
    (all_findings,) = (row for row in answers["findings"] if row["condition"] == "all")
    for id, said, true in (
        ("duties_by_state", _counts(answers["duties_by_state"], "state", "count"), duties),
        ("missed_by_operator", _counts(answers["missed_by_operator"], "operator", "missed"), missed),
        ("findings", Counter({k: int(v) for k, v in all_findings.items() if k != "condition"}), findings),
    ):
        if +said != +true:
            panel = BOARD.panel(id)
            yield f"{panel.title!r} answers {dict(+said)}, and {dict(+true)} is true"


def _counts(rows: Rows, name: str, count: str) -> Counter[str]:
    return Counter({row[name]: int(row[count]) for row in rows if row[name] != "all"})

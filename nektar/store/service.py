"""Service levels as people read them: what was counted, held against what each Network wishes.

`service_windows` is what the chain says of an Operator's Duties. The objective, the share of stake that is to
be on time over 30 days, is said in `nektar.yaml` and kept in the table `objectives` by the store role. From
both follow, for each Operator and for the Network as a whole:

* **the error budget**: the share of stake that may fail, 1 - objective; `budget_left` is what is left of it,
  below zero where more has failed;
* **burn rates**: how many times as fast as the budget allows for stake fails, in windows. At 1 for all of the
  30 days the budget is just used up;
* **an alert**, by the rules of Google's SRE workbook ("Alerting on SLOs", multiwindow, multi-burn-rate): a
  burn rate that is too high in a long window, and still is in one a twelfth as long, so that it ends soon
  after its cause.

| alert  | burn rate | long window, short window | of a budget of 30 days, used in the long one |
|--------|-----------|---------------------------|----------------------------------------------|
| page   | 14.4      | 1 h, 5 min                | 2 %                                          |
| page   | 6         | 6 h, 30 min               | 5 %                                          |
| ticket | 1         | 3 d, 6 h                  | 10 %                                         |

Where nothing is owed nothing burns, and no share is on time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nektar.config import DEFAULT_OBJECTIVE
from nektar.rows import ServiceRow
from nektar.store.port import Store
from nektar.store.schema import Stored, columns, literal, quoted
from nektar.store.views import create_view

_WINDOWS = ("5m", "30m", "1h", "6h", "3d", "30d")
_BURNS = {
    "5m": "5 minutes",
    "30m": "30 minutes",
    "1h": "hour",
    "6h": "6 hours",
    "3d": "3 days",
}
_ALERT = """multiIf(
    (burn_1h >= 14.4 AND burn_5m >= 14.4) OR (burn_6h >= 6 AND burn_30m >= 6), 'page',
    burn_3d >= 1 AND burn_6h >= 1, 'ticket',
    ''
  )"""


def say_objectives(store: Store, objectives: Mapping[str, float]) -> None:
    """Keep each Network's objective, where it is another than was said last. Raises StoreDown."""
    known = {
        network: (objective, version)
        for network, objective, version in store.rows(
            "SELECT network, objective, version FROM objectives FINAL"
        )
    }
    for network, objective in objectives.items():
        before, version = known.get(network, (None, 0))
        if objective != before:
            values = f"{literal(network)}, {objective!r}, {version + 1}"
            store.command(f"INSERT INTO objectives (network, objective, version) VALUES ({values})")  # noqa: S608


def service_views() -> dict[str, str]:
    """Name → statement: `service_levels` of each Operator, and `network_service_levels`."""
    said = columns(ServiceRow)
    misses = [
        _shown(name, said[name].comment, said[name].type, f"w.{name}")
        for name in ("missed_6h", "misses_left", "meets_time", "time")
    ]
    network = _shown("network", "Network that it belongs to", "LowCardinality(String)", "w.network")
    operator = _shown("operator", said["operator"].comment, "String", "w.operator")
    sums = [f"{kind}_{window}" for kind in ("eligible", "failed") for window in _WINDOWS]
    total = ", ".join(f"sum({name}) AS {name}" for name in sums)
    of_all = f"(SELECT network, {total} FROM service_windows GROUP BY network)"  # noqa: S608  named above
    return {
        "service_levels": _view(
            "service_levels",
            "How each Operator does beside its Network's objective, and how many more Duties it can miss",
            [network, operator, *_levels(), *misses],
            "service_windows",
        ),
        "network_service_levels": _view(
            "network_service_levels",
            "How all Operators of a Network do together beside its objective",
            [network, *_levels()],
            of_all,
        ),
    }


def _levels() -> Iterable[Stored]:
    budget = "1 - objective"
    yield _shown(
        "objective",
        "Share of stake that is to be on time over 30 days",
        "Float64",
        f"if(o.objective > 0, o.objective, {DEFAULT_OBJECTIVE!r})",
    )
    failed = "toFloat64(w.failed_{0}) / toFloat64(w.eligible_{0})"
    yield _shown(
        "on_time",
        "Share of stake that was on time in the last 30 days; null: none was owed",
        "Nullable(Float64)",
        f"if(w.eligible_30d = 0, NULL, 1 - {failed.format('30d')})",
    )

    def burn(window: str) -> str:
        return f"if(w.eligible_{window} = 0, 0, {failed.format(window)} / ({budget}))"

    yield _shown("budget_left", "Share of the error budget that is left", "Float64", f"1 - {burn('30d')}")
    for window, words in _BURNS.items():
        comment = f"How many times as fast as the budget allows for stake failed in the last {words}"
        yield _shown(f"burn_{window}", comment, "Float64", burn(window))
    yield _shown(
        "alert", "page, ticket or nothing, by burn rates in two windows", "LowCardinality(String)", _ALERT
    )


def _shown(name: str, comment: str, type_: str, sql: str) -> Stored:
    return Stored(name, "", comment, type_, lambda _: sql)


def _view(name: str, comment: str, columns: Iterable[Stored], source: str) -> str:
    columns = list(columns)
    shown = ",\n  ".join(f"{each.show('')} AS {quoted(each.name)}" for each in columns)
    select = (
        f"SELECT\n  {shown}\nFROM {source} AS w\n"  # noqa: S608  all of it is written above
        "LEFT JOIN (SELECT network, objective FROM objectives FINAL) AS o ON o.network = w.network"
    )
    return create_view(name, comment, columns, [select])

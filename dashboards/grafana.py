"""Boards as Grafana reads them: classic (v1) dashboard JSON, and the files by which it provisions itself.

A pure function of the boards: what is in `deploy/grafana` is written by `nektar dashboards build`, and a test
fails where the two differ.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml
from grafana_foundation_sdk.builders import bargauge, common, dashboard, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import DataSourceRef, VizOrientation
from grafana_foundation_sdk.models.dashboard import Threshold as GrafanaThreshold
from grafana_foundation_sdk.models.dashboard import ThresholdsMode, VariableOption, VariableRefresh

from dashboards.boards import BOARDS
from dashboards.panels import Board, Kind, Panel

PLUGIN = "grafana-clickhouse-datasource"
UID = "nektar"
HEIGHT = 8  # of a panel, in rows of Grafana's grid
# Where the provisioning files expect the dashboards: the place that Grafana's own packages and image use.
MOUNTED_AT = "/var/lib/grafana/dashboards/nektar"
_SOURCE = DataSourceRef(type_val=PLUGIN, uid=UID)
# The plugin's own numbers and names of how an answer is shaped.
_TIMESERIES, _TABLE = (0, "timeseries"), (1, "table")

_BUILDERS: Mapping[Kind, Callable[[], Any]] = {
    "stat": lambda: stat.Panel().reduce_options(_each_row()),
    "bar": lambda: bargauge.Panel().reduce_options(_each_row()).orientation(VizOrientation.HORIZONTAL).min(0),
    "timeseries": timeseries.Panel,
    "table": table.Panel,
}


class ClickHouseQuery(Dataquery, Builder[Dataquery]):
    """A query of Grafana's ClickHouse plugin, which the SDK has no type for."""

    def __init__(self, sql: str, kind: Kind) -> None:
        self._sql = sql
        self._format, self._type = _TIMESERIES if kind == "timeseries" else _TABLE

    def build(self) -> Dataquery:
        return self

    def to_json(self) -> dict[str, object]:
        return {
            "refId": "A",
            "datasource": _SOURCE,
            "editorType": "sql",
            "queryType": self._type,
            "format": self._format,
            "rawSql": self._sql,
        }


def files(sql_address: str) -> dict[PurePosixPath, str]:
    """Path under `deploy/grafana` → content, for a store that answers SQL at `sql_address` (HOST:PORT)."""
    provisioning = PurePosixPath("provisioning")
    return {
        provisioning / "datasources" / "nektar.yaml": _yaml(_data_source(sql_address)),
        provisioning / "dashboards" / "nektar.yaml": _yaml(_provider()),
        **{
            PurePosixPath("dashboards") / f"{board.title.lower()}.json": dashboard_json(board)
            for board in BOARDS
        },
    }


def dashboard_json(board: Board) -> str:
    """The board as classic dashboard JSON, the same bytes for the same board."""
    built = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["nektar"])
        .timezone("utc")
        .time("now-24h", "now")
        .refresh("30s")
        .readonly()
        .with_variable(_network_variable())
    )
    for number, panel in enumerate(board.panels, 1):
        built = built.with_panel(_panel(number, panel))
    return json.dumps(built.build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _panel(number: int, panel: Panel) -> Any:
    """`number` is its id within the board."""
    built = (
        _BUILDERS[panel.kind]()
        .id(number)
        .title(panel.title)
        .description(panel.description)
        .datasource(_SOURCE)
        .with_target(ClickHouseQuery(panel.sql, panel.kind))
        .unit(panel.unit)
        .span(panel.width)
        .height(HEIGHT)
    )
    if panel.thresholds:
        steps = [GrafanaThreshold(value=t.value, color=t.color) for t in panel.thresholds]
        config = dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
        built = built.thresholds(config)
    return built


def _each_row() -> common.ReduceDataOptions:
    """Show the answer's rows as they are, not one number made of them."""
    return common.ReduceDataOptions().values(True).calcs([])


def _network_variable() -> dashboard.QueryVariable:
    sql = "SELECT DISTINCT network FROM blocks_rows ORDER BY network"
    return (
        dashboard.QueryVariable("network")
        .label("Network")
        .datasource(_SOURCE)
        .query(sql)
        .refresh(VariableRefresh.ON_DASHBOARD_LOAD)
        .multi(True)
        .include_all(True)
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _data_source(sql_address: str) -> dict[str, Any]:
    host, _, port = sql_address.rpartition(":")
    source = {
        "name": "Nektar",
        "uid": UID,
        "type": PLUGIN,
        "access": "proxy",
        "jsonData": {"host": host, "port": int(port), "protocol": "http", "secure": False},
    }
    return {"apiVersion": 1, "datasources": [source]}


def _provider() -> dict[str, Any]:
    provider = {"name": "nektar", "folder": "Nektar", "type": "file", "options": {"path": MOUNTED_AT}}
    return {"apiVersion": 1, "providers": [provider]}


def _yaml(content: Mapping[str, Any]) -> str:
    return "# Written by `nektar dashboards build`.\n" + yaml.safe_dump(content, sort_keys=False)

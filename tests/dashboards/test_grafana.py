"""What lies in `deploy/grafana` is what the boards say, in the form that Grafana reads."""

from __future__ import annotations

import json
from pathlib import Path

from dashboards.boards import BOARDS
from dashboards.grafana import PLUGIN, UID, dashboard_json, files
from nektar.config import Listen

GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"


def test_deploy_holds_what_the_code_says_and_nothing_else() -> None:
    expected = {str(path): text for path, text in files(Listen().sql).items()}
    there = {str(f.relative_to(GRAFANA)): f.read_text("utf-8") for f in GRAFANA.rglob("*") if f.is_file()}
    assert there == expected, "run `nektar dashboards build`"


def test_every_panel_asks_the_provisioned_data_source_its_own_sql_as_written() -> None:
    for board in BOARDS:
        drawn = json.loads(dashboard_json(board))
        assert drawn["uid"] == board.uid
        assert [p["title"] for p in drawn["panels"]] == [p.title for p in board.panels]
        for panel, shown in zip(board.panels, drawn["panels"], strict=True):
            (target,) = shown["targets"]
            assert target["rawSql"] == panel.sql
            assert target["datasource"] == shown["datasource"] == {"type": PLUGIN, "uid": UID}
            # The plugin makes series of format 0 alone.
            assert target["format"] == (0 if panel.kind == "timeseries" else 1)


def test_panels_are_questions_with_ids_of_their_own_and_fill_the_grid() -> None:
    for board in BOARDS:
        assert len({panel.id for panel in board.panels}) == len(board.panels)
        assert all(panel.title.endswith("?") and panel.description for panel in board.panels)
        places = {
            (x, y)
            for panel in json.loads(dashboard_json(board))["panels"]
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        }
        area = sum(p["gridPos"]["w"] * p["gridPos"]["h"] for p in json.loads(dashboard_json(board))["panels"])
        assert len(places) == area, "panels lie over each other"
        assert all(x < 24 for x, _ in places)


def test_another_address_changes_the_data_source_alone() -> None:
    ours, other = files("127.0.0.1:8123"), files("store.example.com:9000")
    changed = {path for path in ours if ours[path] != other[path]}
    assert [path.name for path in changed] == ["nektar.yaml"]
    (path,) = changed
    assert "host: store.example.com\n    port: 9000\n" in other[path]

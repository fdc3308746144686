"""Commands that read: `sql`, `tasks`, `operators`, `findings`, `slashings`, `dead`."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from cli.settings import data_config, read_config
from cli.show import rows, short
from nektar.store.client import ask, records


def sql(query: str, config_path: Path | None, directory: Path | None, format: str | None) -> None:
    """Any SELECT, as a table or in a ClickHouse format."""
    config = data_config(config_path, directory)
    answer = ask(config, query, format or "JSONEachRow")
    found = _objects(answer) if format is None else None
    if found is None:  # it is in another format, which the query itself may name
        sys.stdout.buffer.write(answer)
    else:
        rows(found, list(found[0]) if found else [], as_json=False, empty="no rows")


def _objects(answer: bytes) -> list[dict[str, Any]] | None:
    """The answer's rows, where it is one JSON object a line."""
    try:
        found = [json.loads(line) for line in answer.splitlines()]
    except ValueError:
        return None
    return found if all(isinstance(each, dict) for each in found) else None


def tasks(config_path: Path | None, directory: Path | None, limit: int, as_json: bool) -> None:
    """The newest tasks."""
    config, _ = read_config(config_path, directory)
    found = records(
        config,
        """
        SELECT t.number AS task, t.input AS input, t.state AS state, t.submitted_block AS submitted,
               t.deadline AS deadline,
               countIf(d.state = 'signed') AS signed, countIf(d.state = 'late') AS late,
               countIf(d.state = 'missed') AS missed, countIf(d.state = 'excused') AS excused,
               countIf(d.state = 'unknown') AS unknown, countIf(d.state = 'pending') AS pending,
               t.task_hash AS task_hash
        FROM tasks AS t LEFT JOIN duties AS d ON d.network = t.network AND d.task_hash = t.task_hash
        GROUP BY ALL ORDER BY submitted DESC, task DESC LIMIT {limit:UInt32}
        """,
        limit=limit,
    )
    columns = ["task", "input", "state", "submitted", "deadline", "signed", "late", "missed"]
    rows(found, [*columns, "excused", "unknown", "pending"], as_json=as_json, title="tasks")


def operators(config_path: Path | None, directory: Path | None, as_json: bool) -> None:
    """Every Operator with its stake and how its duties stand."""
    config, _ = read_config(config_path, directory)
    found = records(
        config,
        """
        SELECT o.operator AS operator, o.region AS region,
               intDiv(o.stake, 1000000000000) / 1e6 AS stake_tokens, o.in_set AS in_set,
               countIf(d.state = 'signed') AS signed, countIf(d.state = 'late') AS late,
               countIf(d.state = 'missed') AS missed, countIf(d.state = 'unknown') AS unknown,
               countIf(d.state = 'excused') AS excused, countIf(d.state = 'pending') AS pending,
               any(f.findings) AS findings, any(round(s.on_time, 4)) AS on_time,
               if(any(s.operator) = '', NULL, any(round(s.budget_left, 2))) AS budget_left,
               any(s.alert) AS alert, if(any(s.operator) = '', NULL, any(s.misses_left)) AS misses_left
        FROM operators AS o
        LEFT JOIN duties AS d ON d.network = o.network AND d.operator = o.operator
        LEFT JOIN (
            SELECT network, operator, count() AS findings FROM findings WHERE status != 'retracted'
            GROUP BY network, operator
        ) AS f ON f.network = o.network AND f.operator = o.operator
        LEFT JOIN service_levels AS s ON s.network = o.network AND s.operator = o.operator
        GROUP BY ALL ORDER BY operator
        """,
    )
    columns = ["operator", "region", "stake_tokens", "in_set", "signed", "late", "missed", "unknown"]
    columns += ["excused", "pending", "findings", "on_time", "budget_left", "alert", "misses_left"]
    rows(found, columns, as_json=as_json, title="operators")


def findings(config_path: Path | None, directory: Path | None, limit: int, as_json: bool) -> None:
    """The newest findings."""
    config, _ = read_config(config_path, directory)
    found = records(
        config,
        "SELECT * FROM findings ORDER BY block_number DESC, id LIMIT {limit:UInt32}",
        limit=limit,
    )
    shown = found if as_json else [{**f, "id": short(f["id"])} for f in found]
    columns = ["id", "condition", "status", "operator", "task_number", "block_number", "level", "anchor"]
    rows(shown, columns, as_json=as_json, title="findings", empty="none")


def slashings(config_path: Path | None, directory: Path | None, limit: int, as_json: bool) -> None:
    """Requests to slash: those that can still be overruled or executed first, then the newest.

    `turn` is the order in which pending ones against one Operator are to be executed, since one for stake
    that was captured later voids the others.
    """
    config, _ = read_config(config_path, directory)
    found = records(
        config,
        """
        SELECT *, if(state != 'requested', 0, row_number() OVER (
            PARTITION BY network, slasher, operator, state ORDER BY captured, requested_block, request
        )) AS turn
        FROM slashings
        ORDER BY state != 'requested', if(state = 'requested', veto_deadline, 0), decided_block DESC, request
        LIMIT {limit:UInt32}
        """,
        limit=limit,
    )
    shown = found if as_json else [{**f, "request": short(f["request"]), "votes": _votes(f)} for f in found]
    columns = [
        "request",
        "state",
        "operator",
        "asked",
        "taken",
        "proved",
        "votes",
        "veto_deadline",
        "veto_time",
    ]
    rows(shown, [*columns, "execution_deadline", "turn"], as_json=as_json, title="slashings", empty="none")


def _votes(slashing: dict[str, Any]) -> str:
    needed = slashing["votes_needed"]
    return f"{slashing['votes']} of {needed}" if needed else str(slashing["votes"])


def dead(config_path: Path | None, directory: Path | None, limit: int, as_json: bool) -> None:
    """What could not be read, straight from the bus."""
    from nektar import bus as buses
    from nektar.bus.port import read_all
    from nektar.log import DEAD

    config, _ = read_config(config_path, directory)
    bus = buses.open(config.bus_url)
    try:
        letters: list[dict[str, Any]] = []
        for partition in range(bus.partitions):
            for message in islice(read_all(bus, DEAD, partition), limit - len(letters)):
                letters.append(
                    {
                        "source": message.key.decode("utf-8", "replace"),
                        "network": message.headers.get("network", b"").decode("utf-8", "replace"),
                        "reason": message.headers.get("reason", b"").decode("utf-8", "replace"),
                        "bytes": len(message.value),
                        "partition": partition,
                        "offset": message.offset,
                        "value": message.value.hex(),
                    }
                )
    finally:
        bus.close()
    rows(
        letters,
        ["source", "network", "reason", "bytes", "partition", "offset"],
        as_json=as_json,
        title="dead letters",
        empty="none",
    )

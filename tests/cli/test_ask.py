"""`nektar tasks ID` on a store of two Networks on one contract, one of whose senders pretends to be another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cli.ask import _story
from nektar.config import Config, parse
from nektar.otlp import SPANS
from nektar.rows import Row, TaskEventRow
from nektar.store.client import open_store
from nektar.store.migrate import migrate
from nektar.store.otel import rows
from nektar.store.port import Store
from nektar.store.schema import rows_to_arrow
from nektar.telemetry import task_ids
from tests.otlp import spans

CONTRACT, TASK = bytes([0x11]) * 20, bytes([0x22]) * 32
START = 1_767_225_600
YAML = f"""
data_dir: DIR
providers: {{p: {{url: "http://127.0.0.1:1"}}}}
listen: {{sql: "127.0.0.1:1"}}
networks:
  - {{name: one, chain_id: 1, rpc: [p], contracts: {{task_manager: "0x{CONTRACT.hex()}"}}}}
"""


def config(directory: Path) -> Config:
    return parse(YAML.replace("DIR", str(directory)))


def put(store: Store, network: str, of: list[Row]) -> None:
    """As the sink does: `network` first, `version` and `is_deleted` last."""
    made = pa.Table.from_batches([rows_to_arrow(type(of[0]), [(row, False) for row in of])])
    deleted = pa.array([0] * len(of), pa.uint8())
    made = made.drop_columns(["is_deleted"]).add_column(0, "network", pa.array([network] * len(of)))
    made = made.append_column("version", pa.array([1 << 48] * len(of), pa.uint64()))
    store.insert(f"{of[0].table}_rows", made.append_column("is_deleted", deleted), network)


def report(store: Store, sender: str, service: str, name: str, count: int = 1) -> None:
    """Spans of the Task's trace that `sender` brings, and says to be `service`."""
    request = spans(count, (START + 60) * 10**9, seed=(sender, service, name))
    request.resource_spans[0].resource.attributes[0].value.string_value = service
    trace, root = task_ids(1, CONTRACT, TASK)
    for span in request.resource_spans[0].scope_spans[0].spans:
        span.trace_id, span.parent_span_id, span.name = trace, root, name
    store.insert("otel_traces", rows(SPANS, request, sender), f"{sender} {service} {name}")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Config:
    found = config(tmp_path_factory.mktemp("asked"))
    with open_store(found.store_url) as store:
        migrate(store, [])
        event = TaskEventRow(TASK, bytes(32), 0, 7, START, "submitted", bytes(20), "{}")
        for network in ("one", "two"):
            put(store, network, [event])
        report(store, "operator-1", "operator-1", "sign")
        report(store, "operator-1", "chain", "attested")
        report(store, "unauthenticated", "operator-1", "sign")
        report(store, "chain", "chain", "chain.submitted")
    return found


def story(asked: Config) -> list[dict[str, Any]]:
    return _story(asked, {"network": "one", "task_hash": "0x" + TASK.hex()})


def test_who_tells_is_whose_token_brought_it_whatever_the_span_says(asked: Config) -> None:
    assert [(line["who"], line["what"]) for line in story(asked)] == [
        ("chain", "submitted"),
        ("operator-1", "sign"),
        ("operator-1 (chain)", "attested"),
        ("unauthenticated (operator-1)", "sign"),
    ]

"""`nektar tasks ID` on a store of two Networks on one contract, where a sender pretends to be another."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from cli.ask import SPANS, _story, tasks
from nektar.config import Config, load
from nektar.otlp import SPANS as SIGNAL
from nektar.rows import DutyRow, Row, TaskEventRow, TaskRow, TaskState
from nektar.senders import Sender
from nektar.store.client import open_store
from nektar.store.migrate import migrate
from nektar.store.otel import rows
from nektar.store.port import Store
from nektar.store.schema import rows_to_arrow
from nektar.telemetry import task_ids
from tests.otlp import spans

CONTRACT, TASK, OPERATOR = bytes([0x11]) * 20, bytes([0x22]) * 32, bytes([0x33]) * 20
START = 1_767_225_600
YAML = f"""
data_dir: .
providers: {{p: {{url: "http://127.0.0.1:1"}}}}
listen: {{sql: "127.0.0.1:1"}}
networks:
  - {{name: one, chain_id: 1, rpc: [p], contracts: {{task_manager: "0x{CONTRACT.hex()}"}}}}
  - {{name: two, chain_id: 1, rpc: [p], contracts: {{task_manager/NAME: "0x{CONTRACT.hex()}"}}}}
"""


def put(store: Store, network: str, of: list[Row]) -> None:
    """As the sink does: `network` first, `version` and `is_deleted` last."""
    made = pa.Table.from_batches([rows_to_arrow(type(of[0]), [(row, False) for row in of])])
    deleted = pa.array([0] * len(of), pa.uint8())
    made = made.drop_columns(["is_deleted"]).add_column(0, "network", pa.array([network] * len(of)))
    made = made.append_column("version", pa.array([1 << 48] * len(of), pa.uint64()))
    store.insert(f"{of[0].table}_rows", made.append_column("is_deleted", deleted), network)


def report(store: Store, sender: str, service: str, name: str, count: int = 1, network: str = "") -> None:
    """Spans of the Task's trace that `sender`, of a Network, brings, and says to be `service`."""
    request = spans(count, (START + 60) * 10**9, seed=(sender, service, name))
    request.resource_spans[0].resource.attributes[0].value.string_value = service
    trace, root = task_ids(1, CONTRACT, TASK)
    for span in request.resource_spans[0].scope_spans[0].spans:
        span.trace_id, span.parent_span_id, span.name = trace, root, name
    store.insert(
        "otel_traces", rows(SIGNAL, request, Sender(sender, network=network)), f"{sender} {service} {name}"
    )


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Config:
    directory = tmp_path_factory.mktemp("asked")
    (directory / "nektar.yaml").write_text(YAML)
    found = load(directory / "nektar.yaml")
    with open_store(found.store_url) as store:
        migrate(store, [])
        event = TaskEventRow(TASK, bytes(32), 0, 7, START, "submitted", bytes(20), "{}")
        for network in ("one", "two"):
            put(store, network, [event])
            put(store, network, [task()])
            put(store, network, [DutyRow(TASK, OPERATOR, 1, "6", "signed", 12, 2, 9)])
        report(store, "operator-1", "operator-1", "sign")
        report(store, "operator-1", "chain", "attested")
        report(store, "operator-1", "operator-1", "elsewhere", network="two")
        report(store, "unauthenticated", "operator-1", "sign")
        report(store, "chain", "chain", "chain.submitted")
        report(store, "flood", "flood", "again", SPANS + 1)
    return found


def task() -> TaskRow:
    nothing = bytes(32)
    return TaskRow(
        *(TASK, 1, nothing, "6", nothing, bytes(20), 7, "block", 12, 2, TaskState.OPEN, nothing, 0, 0)
    )


def story(asked: Config, network: str = "one") -> list[tuple[str, str]]:
    """Who and what, but for the flood."""
    told = _story(asked, {"network": network, "task_hash": "0x" + TASK.hex()})
    return [(line["who"], line["what"]) for line in told if line["who"] != "flood"]


def test_who_tells_is_whose_token_brought_it_whatever_the_span_says(asked: Config) -> None:
    assert story(asked) == [
        ("chain", "submitted"),
        ("operator-1", "sign"),
        ("operator-1 (chain)", "attested"),
        ("operator-1 of two (operator-1)", "elsewhere"),
        ("unauthenticated (operator-1)", "sign"),
    ]


def test_a_flood_of_one_sender_is_cut_and_hides_nothing_of_others(asked: Config) -> None:
    told = _story(asked, {"network": "one", "task_hash": "0x" + TASK.hex()})
    assert [line["who"] for line in told].count("flood") == SPANS
    assert len(story(asked)) == 5


def test_of_several_contracts_each_has_its_trace_and_a_network_of_before_the_chains_events_alone(
    asked: Config,
) -> None:
    told = [(who.replace("operator-1 of two (operator-1)", "operator-1"), what) for who, what in story(asked)]
    assert sorted(story(asked, "two")) == sorted(told)
    assert story(asked, "not configured any more") == []


def test_a_task_of_two_networks_is_told_once_and_with_its_own_duties(
    asked: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks("1", None, Path(asked.data_dir), 20, True)
    told = json.loads(capsys.readouterr().out)
    assert told["network"] == "one"
    assert [(duty["network"], duty["state"]) for duty in told["duties"]] == [("one", "signed")]

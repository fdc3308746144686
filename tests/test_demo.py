"""The whole path on the real thing: chain, operators, pipeline, judge, with every role killed once."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient

from cli import demo_bus
from devnet.anvil import find_anvil
from devnet.chain import DevnetError
from devnet.plan import CONDITIONS, INJECTED
from nektar import bus as buses
from nektar import plugins
from nektar.bus.port import BusError, Message, partition_of
from nektar.log import FINDINGS, NETWORK, key
from nektar.role import ROLES
from tests.seeds import thorough

pytestmark = pytest.mark.real
KEYS = {
    "seed",
    "bus",
    "store",
    "blocks",
    "reorgs",
    "tasks",
    "duties",
    "truth",
    "found",
    "precision",
    "recall",
}
KEYS |= {"lost", "duplicated", "latency_ms", "webhooks", "spans", "provable", "diagnosis"}

# As few tasks as hold every condition.
SHORT = ("--tasks", "21")
# The pipeline's own spans.
SPANS = """
SELECT TraceId AS trace, ServiceName AS of, SpanName AS name, SpanId AS id, ParentSpanId AS parent,
  SpanAttributes AS said, toUnixTimestamp64Nano(Timestamp) AS began, Duration AS took
FROM otel_traces WHERE startsWith(ServiceName, 'nektar-')
"""
# What agents report, and what the chain tells of Tasks.
WORK = """
SELECT TraceId AS trace, ServiceName AS of, SpanName AS name, SpanId AS id, ParentSpanId AS parent
FROM otel_traces WHERE NOT startsWith(ServiceName, 'nektar-')
"""
FORGERIES = "SELECT brought_by, duties FROM forgeries"
RECORDS = "SELECT TraceId AS trace, SpanId AS id FROM otel_logs WHERE TraceId != ''"


@pytest.fixture(autouse=True)
def anvil_is_here() -> None:
    try:
        find_anvil()
    except DevnetError as error:
        pytest.skip(f"needs anvil: {error}")


def account(done: subprocess.CompletedProcess[str], cwd: Path) -> str:
    """What a demo said, and what its pipeline did last."""
    log = cwd / "build" / "demo" / "pipeline.log"
    return done.stderr + done.stdout + (log.read_text()[-40_000:] if log.exists() else "")


def nektar(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def exactly_right(summary: dict[str, Any]) -> None:
    assert summary.keys() >= KEYS
    facts = [Counter(json.dumps(f, sort_keys=True) for f in summary[s]) for s in ("truth", "found")]
    assert facts[0] == facts[1]
    assert set(summary["duties"]) == {"excused", "late", "missed", "pending", "signed", "unknown"}
    assert (summary["precision"], summary["recall"], summary["lost"], summary["duplicated"]) == (1, 1, 0, 0)
    assert summary["latency_ms"]["block_to_store"]["n"] > 100
    hooks = summary["webhooks"]
    assert hooks["due"] == hooks["delivered"] == hooks["verified"] > 0
    assert hooks["sent"] >= hooks["delivered"] + hooks["repeated_id"]
    assert hooks["retracted"] >= sum(f["value"] == "retracted" for f in summary["found"])
    assert summary["latency_ms"]["block_to_webhook"]["n"] > 0
    assert summary["spans"]["stored"] == summary["spans"]["sent"] > 0
    assert summary["spans"]["refused"] == summary["spans"]["refused_of_left"]
    assert set(summary["diagnosis"]) == set(INJECTED)
    for counts in summary["diagnosis"].values():
        assert counts["wrong"] == 0
        assert counts["injected"] == counts["right"] + counts["none_reported"]
        assert counts["right"] > 0
    assert sum(counts["none_reported"] for counts in summary["diagnosis"].values()) > 0
    conditions = {*plugins.names("nektar.conditions")} & CONDITIONS
    assert {f["condition"] for f in summary["found"] if f["kind"] == "finding"} == conditions
    assert len({*summary["provable"].values()}) == 1
    assert summary["provable"]["found"] > 0
    assert summary["panels"] == {"run": 15, "empty": 0, "failed": 0, "untrue": 0}


def test_found_equals_truth_and_what_is_left_answers_and_tells_each_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without kills, which cut spans off; they are another test's, and `make soak`'s."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")  # ms, so that none is cut off at the end
    stale = tmp_path / "build" / "demo" / "summary.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}")
    done = nektar(tmp_path, "demo", "--seed", "78", "--operators", "8", *SHORT)
    assert done.returncode == 0, account(done, tmp_path)
    summary = json.loads(stale.read_text())
    exactly_right(summary)
    assert (summary["bus"], summary["store"]) == ("sqlite", "chdb")
    # What it left answers with nothing running.
    here = ("--dir", "build/demo")
    asked = nektar(tmp_path, "sql", *here, "SELECT count() AS n FROM duties", "--format", "JSONEachRow")
    assert json.loads(asked.stdout)["n"] == sum(summary["duties"].values())
    for command in ("tasks", "operators", "findings", "dead"):
        answered = nektar(tmp_path, command, *here, "--json")
        assert answered.returncode == 0, answered.stderr
    assert len(nektar(tmp_path, "tasks", *here, "--json").stdout.splitlines()) == summary["tasks"]
    guilty = next(f["task"] for f in summary["found"] if f["condition"] == "rejected_response")
    story = json.loads(nektar(tmp_path, "tasks", *here, guilty, "--json").stdout)
    assert {"submitted", "attested"} <= {event["what"] for event in story["events"]}
    assert {"sign response", "collect response"} <= {step["step"] for step in story["steps"]}
    unknown = nektar(tmp_path, "tasks", *here, "0xnone")
    assert (unknown.returncode, unknown.stdout, len(unknown.stderr.splitlines())) == (1, "", 1)
    replayed = nektar(tmp_path, "replay", *here, "--json")
    assert replayed.returncode == 0, replayed.stderr
    ledgers = ("tasks", "diagnosis", "operators", "slashings", "service_levels", "traces")
    compared = {*ledgers, *plugins.names("nektar.conditions")}
    assert [json.loads(line)["difference"] for line in replayed.stdout.splitlines()] == [None] * len(compared)
    one_trace_goes_from_a_block_to_the_webhook(tmp_path)
    one_trace_goes_from_a_task_through_everybodys_work_to_its_response(tmp_path)
    # Of one task the aggregator says that two have signed what they have not.
    assert rows(tmp_path, FORGERIES) == [{"brought_by": "aggregator/aggregator", "duties": 2}]


def rows(cwd: Path, sql: str) -> list[dict[str, Any]]:
    told = nektar(cwd, "sql", "--dir", "build/demo", sql, "--format", "JSONEachRow").stdout
    return [json.loads(line) for line in told.splitlines()]


def one_trace_goes_from_a_task_through_everybodys_work_to_its_response(cwd: Path) -> None:
    traces: dict[str, dict[str, dict[str, Any]]] = {}
    for span in rows(cwd, WORK):
        traces.setdefault(span["trace"], {})[span["id"]] = span
    # Of Tasks that are over, and that no reorg took away.
    whole = {trace: of for trace, of in traces.items() if "task" in {span["name"] for span in of.values()}}
    answered = Counter[str]()
    for spans in whole.values():
        (root,) = (span for span in spans.values() if span["parent"] == "")
        assert (root["of"], root["name"]) == ("chain", "task")
        # One operator reports nothing, not the requests either that the aggregator gets of it.
        astray = [span for span in spans.values() if span["parent"] not in ("", *spans)]
        assert len(astray) <= 1
        assert {span["name"] for span in astray} <= {"collect response"}
        named = {span["name"] for span in spans.values()}
        assert "chain.submitted" in named
        if "chain.responded" in named:
            assert {"aggregate responses", "submit response"} <= named
        # A response was collected under the request that brought it; but for what the silent one sent, and
        # what the aggregator made up.
        above = [spans.get(span["parent"]) for span in spans.values() if span["name"] == "collect response"]
        sent = [span for span in above if span and span is not root]
        assert {span["name"] for span in sent} <= {"send response"}
        answered.update(span["of"] for span in sent)
    assert len(answered) > 3
    # Requests and responses are logged on both sides.
    records = [each for each in rows(cwd, RECORDS) if each["trace"] in whole]
    logged = {(span["of"], span["name"]) for r in records for span in [whole[r["trace"]][r["id"]]]}
    assert logged >= {("aggregator", "collect response"), *((of, "send response") for of in answered)}


def one_trace_goes_from_a_block_to_the_webhook(cwd: Path) -> None:
    with closing(buses.open(f"sqlite://{cwd}/build/demo/bus")) as bus:
        told = bus.read(FINDINGS, partition_of("devnet", bus.partitions))
    seen = [each for each in told if json.loads(each.value)["type"].endswith(".seen")]
    traces: dict[str, list[dict[str, Any]]] = {}
    for span in rows(cwd, SPANS):
        traces.setdefault(span["trace"], []).append(span)
    begun = set()
    for message in seen:
        traceparent = message.headers["traceparent"].decode()
        event = json.loads(message.value)
        assert event["traceparent"] == traceparent
        _, trace, root, _ = traceparent.split("-")
        spans = traces[trace]
        (first,) = [span for span in spans if span["parent"] == ""]
        assert first["id"] == root
        assert {span["parent"] for span in spans} == {"", root}
        begun.add((first["of"], first["name"]))
        if first["name"] == "index":
            blocks = [int(first["said"][f"nektar.block.{end}"]) for end in ("first", "last")]
            assert blocks[0] <= event["data"]["block_number"] <= blocks[1]
        found = {(span["of"], span["name"]): span for span in spans}
        fold = found["nektar-processors", f"fold {event['data']['condition']}"]
        tell = found["nektar-watchers", "tell"]
        assert ("nektar-store", "store") in found
        assert tell["said"]["nektar.outcome"] == "taken"
        # Each begins once what it needs is committed, which is a moment before the span of that ends: the
        # block is fetched, folded, and told.
        begins = [int(span["began"]) for span in (first, fold, tell)]
        assert begins == sorted(begins)
    # What telemetry brings before its Task waits for the block, which is then what the finding follows from.
    assert ("nektar-indexer", "index") in begun
    assert begun <= {("nektar-indexer", "index"), ("nektar-collector", "collect")}


@thorough
def test_on_a_kafka_that_held_another_run_found_equals_truth_though_every_role_is_killed_once(
    kafka_url: str, tmp_path: Path
) -> None:
    earlier = demo_bus.own(kafka_url)
    with closing(buses.open(earlier)) as bus:
        partition = partition_of("devnet", bus.partitions)
        with bus.writer("indexer/devnet/1", partition) as writer:
            writer.transaction(
                [Message(NETWORK, key("devnet", 1), b"an earlier run's, which nobody may read")]
            )
    done = nektar(tmp_path, "demo", "--bus", kafka_url, "--seed", "77", *SHORT, "--kill", ",".join(ROLES))
    assert done.returncode == 0, account(done, tmp_path)
    summary = json.loads((tmp_path / "build" / "demo" / "summary.json").read_text())
    exactly_right(summary)
    assert summary["bus"] == "kafka"
    assert sorted(k["role"] for k in summary["kills"]) == sorted(ROLES)
    assert stat.S_IMODE((tmp_path / "build" / "demo" / "nektar.yaml").stat().st_mode) == 0o600
    # It took its own streams with it, and those alone.
    with closing(KafkaAdminClient(bootstrap_servers=kafka_url.removeprefix("kafka://"))) as admin:
        left = {topic.partition(".")[0] for topic in admin.list_topics() if topic.startswith("demo-")}
    assert [earlier.partition("prefix=")[2]] == [f"{name}." for name in left]


@pytest.mark.parametrize("side", ["sqlite", "kafka"])
def test_the_bus_of_a_run_is_its_own_and_is_deleted_with_it(
    side: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = request.getfixturevalue("kafka_url") if side == "kafka" else f"sqlite://{tmp_path}/buses"
    urls = [demo_bus.own(place) for _ in range(2)]
    for i, url in enumerate(urls):
        (tmp_path / str(i)).mkdir()
        demo_bus.note(tmp_path / str(i), url)
        with closing(buses.open(url)) as bus, bus.writer("w", 0) as writer:
            assert not bus.read(NETWORK, 0)
            writer.transaction([Message(NETWORK, b"k", b"v")])
    for _ in range(2):  # the second time there is nothing left to delete
        demo_bus.delete(tmp_path / "0")
    for url, there in zip(urls, (0, 1), strict=True):
        with closing(buses.open(url)) as bus:
            assert len(bus.read(NETWORK, 0)) == there
    for i, url in enumerate(urls):
        demo_bus.note(tmp_path / str(i), url)
        demo_bus.delete(tmp_path / str(i))
    demo_bus.note(tmp_path / "0", place)
    with pytest.raises(BusError, match="bus of a demo"):
        demo_bus.delete(tmp_path / "0")


@thorough
def test_a_bus_that_is_not_there_is_said_before_anything_is_started_or_deleted(tmp_path: Path) -> None:
    left = tmp_path / "build" / "demo" / ".nektar-demo"
    left.parent.mkdir(parents=True)
    left.write_text("")
    summary = left.with_name("summary.json")
    summary.write_text("{}")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"kafka://someone:secret@127.0.0.1:{nobody.getsockname()[1]}"
        done = nektar(tmp_path, "demo", "--bus", url)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "no broker answers" in line
    assert "secret" not in done.stderr + done.stdout
    assert left.exists()
    assert not summary.exists()  # no account of an earlier run stands where this one's would

"""`nektar tasks ID` on a store of two Networks on one contract, where a sender pretends to be another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cli.story import SPANS, NoSuchTask, _since_first, story
from nektar.config import Config, load
from nektar.otlp import SPANS as SIGNAL
from nektar.rows import DiagnosisRow, DutyRow, TaskEventRow, TaskRow, TaskState
from nektar.senders import Sender
from nektar.store.client import open_store
from nektar.store.migrate import migrate
from nektar.store.otel import rows
from nektar.store.port import Store
from nektar.telemetry import task_ids
from tests.cli.stored import CONTRACT, YAML, put
from tests.otlp import spans

TASK, OPERATOR, OTHER = bytes([0x22]) * 32, bytes([0x33]) * 20, bytes([0x44]) * 20
# Of Tasks with the same number, input, or beginning of the hash.
SIXTH, SEVENTH = bytes([0x66]) * 32, bytes([0x66]) * 31 + b"\x77"
START = 1_767_225_600
NOTHING = bytes(32)
SHOWN = "0x" + OPERATOR.hex()


def report(
    store: Store,
    sender: str,
    service: str,
    name: str,
    count: int = 1,
    network: str = "",
    attributes: Sequence[tuple[str, str | int]] = (),
) -> None:
    """Spans of the Task's trace that `sender`, of a Network, brings, and says to be `service`."""
    request = spans(count, (START + 60) * 10**9, seed=(sender, service, name), attributes=attributes)
    request.resource_spans[0].resource.attributes[0].value.string_value = service
    trace, root = task_ids(1, CONTRACT, TASK)
    for span in request.resource_spans[0].scope_spans[0].spans:
        span.trace_id, span.parent_span_id, span.name = trace, root, name
        if name == "send":
            span.status.code = 2
    store.insert(
        "otel_traces", rows(SIGNAL, request, Sender(sender, network=network)), f"{sender} {service} {name}"
    )


def event(kind: str, log: int, block: int, operator: bytes = bytes(20), **detail: object) -> TaskEventRow:
    return TaskEventRow(
        *(TASK, block.to_bytes(32, "big"), log, block, START + 12 * block, kind, operator),
        json.dumps(detail),
    )


def task(**changed: Any) -> TaskRow:
    made = TaskRow(
        *(TASK, 1, NOTHING, "6", NOTHING, bytes(20), 7, "block", 12, 2, TaskState.OPEN, NOTHING, 0, 0)
    )
    return msgspec.structs.replace(made, **changed)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Config:
    directory = tmp_path_factory.mktemp("asked")
    (directory / "nektar.yaml").write_text(YAML)
    found = load(directory / "nektar.yaml")
    with open_store(found.store_url) as store:
        migrate(store, [])
        happened = [
            event("attested", 4, 9, OPERATOR, kept=False),
            event("responded", 3, 9, non_signers=1),
            event("submitted", 0, 7),
        ]
        for network in ("one", "two"):
            put(store, network, [*happened])
            put(store, network, [task()])
            signed = DutyRow(TASK, OPERATOR, 1, "6", "signed", 12, 2, 9)
            missed = DutyRow(TASK, OTHER, 1, "6", "missed", 12, 2, 14)
            put(store, network, [signed, missed])
        because = (
            "missed",
            "network",
            "send",
            "nobody",
            "aggregator/gate,operator/0x" + OTHER.hex(),
            "ab cd",
        )
        put(store, "one", [DiagnosisRow(TASK, OTHER, 1, "6", *because)])
        put(store, "gone", [task(task_hash=SIXTH, number=6, input="1", response_digest=TASK)])
        put(store, "gone", [task(task_hash=SEVENTH, number=7, input="again", response_block=9)])
        put(store, "one", [task(task_hash=bytes([0x99]) * 32, number=7, input="again")])
        report(store, SHOWN, "operator-1", "sign")
        report(store, SHOWN, "chain", "attested")
        heads = [("nektar.head.begun", 8), ("nektar.head.ended", 9), ("nektar.operator", SHOWN)]
        report(store, SHOWN, "operator-1", "send", attributes=[*heads, ("error.type", "URLError")])
        report(store, SHOWN, "operator-1", "elsewhere", network="two")
        report(store, "gate", "gate", "collect", attributes=[("nektar.operator", SHOWN)])
        report(store, "unauthenticated", "operator-1", "sign")
        report(store, "chain", "chain", "chain.submitted")
        report(store, "flood", "flood", "again", SPANS + 1)
    return found


def told(asked: Config, capsys: pytest.CaptureFixture[str], id: str = "1") -> dict[str, Any]:
    story(id, None, Path(asked.data_dir), as_json=True)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


# --- what is told -----------------------------------------------------------------------------------


def test_who_tells_is_whose_token_brought_it_whatever_the_span_says(
    asked: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = told(asked, capsys)["steps"]
    assert {(s["sender"], s["service"], s["step"]) for s in steps if s["sender"] != "flood"} == {
        (SHOWN, "operator-1", "sign"),
        (SHOWN, "operator-1", "send"),
        (SHOWN, "chain", "attested"),
        (f"{SHOWN} of two", "operator-1", "elsewhere"),
        ("gate", "gate", "collect"),
        ("unauthenticated", "operator-1", "sign"),
    }
    (failed,) = (step for step in steps if step["error"])
    assert (failed["error"], failed["head_begun"], failed["head_ended"]) == ("URLError", "8", "9")
    assert [(s["operator"], s["took_ms"]) for s in steps if s["sender"] == "gate"] == [(SHOWN, 1.0)]


def test_a_flood_of_one_sender_is_cut_and_hides_nothing_of_others(
    asked: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    senders = [step["sender"] for step in told(asked, capsys)["steps"]]
    assert senders.count("flood") == SPANS
    assert len(senders) == SPANS + 6


def test_a_step_is_told_since_its_senders_first_as_no_two_clocks_are_one() -> None:
    spans = [("a", 5_000_000, 1), ("b", 9_000_000_000, 2_000_000), ("a", 7_500_000, 0)]
    made = [{"sender": sender, "began": str(began), "took": str(took)} for sender, began, took in spans]
    assert [(step["at_ms"], step["took_ms"]) for step in _since_first(made)] == [(0, 0), (0, 2), (2.5, 0)]


def test_each_duty_says_why_it_was_not_done_and_those_come_first(
    asked: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    missed, signed = told(asked, capsys)["duties"]
    assert (missed["operator"], missed["state"], missed["block"]) == ("0x" + OTHER.hex(), "missed", 14)
    assert (missed["cause"], missed["stage"], missed["blame"], missed["spans"]) == (
        *("network", "send", "nobody", "ab cd"),
    )
    assert (signed["state"], signed["cause"], signed["told_by"]) == ("signed", "", "")


def test_the_chains_events_come_in_its_order(asked: Config, capsys: pytest.CaptureFixture[str]) -> None:
    events = told(asked, capsys)["events"]
    assert [(e["block"], e["what"], e["operator"]) for e in events] == [
        *((7, "submitted", ""), (9, "responded", ""), (9, "attested", SHOWN)),
    ]
    assert events[1]["detail"] == {"non_signers": 1}


def test_a_network_that_is_not_configured_any_more_has_the_chains_events_alone(
    asked: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(asked, capsys, "6")
    assert (found["network"], found["number"], found["steps"], found["duties"]) == ("gone", 6, [], [])


# --- which Task is meant ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id", "meant"),
    [
        ("1", TASK),  # a number comes before an input
        ("0x" + TASK.hex(), TASK),
        ("0X22", TASK),
        ("0x9", bytes([0x99]) * 32),
        ("0x" + "66" * 32, SIXTH),
        ("6", SIXTH),
    ],
)
def test_a_task_is_called_by_its_hash_its_number_or_how_its_hash_begins(
    asked: Config, capsys: pytest.CaptureFixture[str], id: str, meant: bytes
) -> None:
    assert told(asked, capsys, id)["task_hash"] == "0x" + meant.hex()


@pytest.mark.parametrize(
    ("id", "says"),
    [
        ("0x1", "none for '0x1'"),
        ("no such", "none for 'no such'"),
        ("22", "none for '22'"),
        (
            "7",
            r"2 tasks have the number 7: 0x66666666…6677 \(gone, block 7\), 0x99999999…9999 \(one, block 7\)",
        ),
        ("again", "2 tasks have the input again: .*; name one by its hash"),
        ("0x66", "2 tasks have the beginning 0x66"),
        ("0x", "4 tasks have the beginning 0x: .*, …; name one by its hash"),
    ],
)
def test_what_is_no_task_or_more_than_one_is_said_in_a_line(asked: Config, id: str, says: str) -> None:
    with pytest.raises(NoSuchTask, match=says) as raised:
        story(id, None, Path(asked.data_dir), as_json=False)
    assert "\n" not in str(raised.value)


def test_a_task_of_two_networks_is_told_once_and_with_its_own_duties(
    asked: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(asked, capsys)
    assert found["network"] == "one"
    assert len(found["duties"]) == 2


# --- for people -------------------------------------------------------------------------------------


def shown(asked: Config, capsys: pytest.CaptureFixture[str], id: str) -> list[str]:
    story(id, None, Path(asked.data_dir), as_json=False)
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_people_read_it_from_top_to_bottom(asked: Config, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(asked, capsys, "1")
    assert lines[0].split() == ["task", "1", "of", "one"]
    chain = lines.index("on the chain")
    assert [line.split()[4:] for line in lines[chain + 2 : chain + 5]] == [
        ["submitted"],
        ["responded,", "1", "did", "not", "sign"],
        ["attested", "once", "more", SHOWN],
    ]
    duties = lines.index("duties")
    assert lines[duties + 2].split() == [
        *("0x" + OTHER.hex(), "missed", "14", "network", "send", "nobody", "gate,", "itself"),
    ]
    steps = lines.index(f"steps since each sender's first, {SPANS} of each at most")
    told = [line.split() for line in lines[steps + 2 :]]
    assert (told[0][0], told[-1][0]) == (SHOWN, "unauthenticated")
    (failed,) = (line for line in told if "URLError" in line)
    assert failed[-3:] == ["send", "8–9", "URLError"]
    (collected,) = (line for line in told if line[0] == "gate")
    assert collected == ["gate", "0.0", "1.0", "collect", "0x33333333…3333"]
    assert sum(line[:1] == ["flood"] for line in told) == 1  # named once


def test_what_there_is_nothing_of_takes_no_column(asked: Config, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(asked, capsys, "0x" + SEVENTH.hex())
    assert not any("cause" in line for line in lines)
    assert "on the chain: none" in lines
    assert lines[-1] == f"steps since each sender's first, {SPANS} of each at most: nobody reported any"
    response = next(line for line in lines if line.split()[:1] == ["response"])
    assert response.endswith("in block 9, can be challenged until 0")

"""What of telemetry comes onto a log, and how often."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from eth_hash.auto import keccak

from indexer.brought import MAX_RESPONSE_BYTES, SCHEME
from indexer.clients import Client
from indexer.heard import OPERATORS_REPORTS, OPERATORS_SIGNATURES, Allowance, Fresh, Heard, records
from nektar import senders, telemetry, trace
from nektar.bus.port import MAX_MESSAGE_BYTES, BusError
from nektar.config import NetworkConfig
from nektar.log import NETWORK, SignedBatch, ToldBatch, decode, key
from nektar.model import Report, Signed
from nektar.otlp import LOGS, SPANS
from nektar.senders import UNAUTHENTICATED, Sender
from nektar.telemetry import Step
from nektar.tokens import Role
from tests import otlp

NOW = 1_790_000_000 * 10**9
MANAGER = "0x" + "7a" * 20
HOME = NetworkConfig("home", 31337, ("p",), {"task_manager": MANAGER}, generation=3)
ALIAS = NetworkConfig("alias", 31337, ("p",), {"task_manager": MANAGER.upper().replace("0X", "0x")})
AWAY = NetworkConfig("away", 1, ("p",), {"task_manager": MANAGER})
PEER = Sender("peer")
OPERATOR = Sender("0x" + "a1" * 20, Role.OPERATOR, "home")
GATEWAY = Sender("gateway", Role.AGGREGATOR, "home")
BARE = NetworkConfig("bare", 31337, ("p",), {})


def attributes(i: int = 0, **changes: str | int) -> list[tuple[str, str | int]]:
    """What says that an Operator signed response `i`, with these attributes changed (`""`: left out)."""
    response = i.to_bytes(64, "big")
    said: dict[str, str | int] = {
        telemetry.CHAIN_ID: 31337,
        telemetry.CONTRACT: MANAGER,
        telemetry.TASK_HASH: "0x" + "11" * 32,
        telemetry.OPERATOR: "0x" + "e0" * 20,
        telemetry.RESPONSE: "0x" + response.hex(),
        telemetry.RESPONSE_DIGEST: "0x" + keccak(response).hex(),
        telemetry.SIGNATURE: "0x" + "5a" * 64,
        telemetry.SIGNATURE_SCHEME: SCHEME,
    }
    for name, value in changes.items():
        said[getattr(telemetry, name)] = value
    return [(name, value) for name, value in said.items() if value != ""]


def spans(*of: list[tuple[str, str | int]]) -> Any:
    request = SPANS.request()
    for i, each in enumerate(of):
        request.MergeFrom(otlp.spans(1, NOW, seed=i, attributes=each))
    return request


def fresh(
    heard: Heard, request: Any, sender: Sender = PEER, signal: Any = SPANS, place: str = ""
) -> list[Signed]:
    """What is new of the request, and is written."""
    of = Client(sender, place)
    found = heard.fresh(signal, request, request.SerializeToString(), of).to_write
    heard.end(found, of, written=True)
    return [each.brought for each in found if isinstance(each.brought, Signed)]


def test_a_signed_response_in_a_span_or_a_record_is_found_as_it_was_signed() -> None:
    for signal, request in (
        (SPANS, spans([("other", 1)], attributes(7))),
        (LOGS, otlp.records(1, NOW, attributes=attributes(7))),
    ):
        (signed,) = fresh(Heard([HOME]), request, signal=signal)
        response = (7).to_bytes(64, "big")
        assert signed == Signed(
            None, b"\x11" * 32, b"\xe0" * 20, keccak(response), b"\x5a" * 64, response, brought_by="peer"
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"CHAIN_ID": 1},
        {"CHAIN_ID": "31337"},
        {"CONTRACT": "0x" + "7b" * 20},
        {"CONTRACT": "0x" + "7a" * 19},
        {"TASK_HASH": "0x" + "11" * 31},
        {"TASK_HASH": "11" * 32},
        {"TASK_HASH": "0x" + "zz" * 32},
        {"TASK_HASH": 17},
        {"OPERATOR": "0x" + "E0" * 20},
        {"RESPONSE": "0x00"},
        {"RESPONSE": ""},
        {"RESPONSE_DIGEST": "0x" + "00" * 32},
        {"SIGNATURE": "0x" + "5a" * 63},
        {"SIGNATURE": "0x" + "5a" * 65},
        {"SIGNATURE_SCHEME": "ecdsa"},
        {
            "RESPONSE": "0x" + "00" * (MAX_RESPONSE_BYTES + 1),
            "RESPONSE_DIGEST": "0x" + keccak(bytes(MAX_RESPONSE_BYTES + 1)).hex(),
        },
    ],
)
def test_what_can_be_no_signature_of_a_network_stays_off_its_log(changes: dict[str, str | int]) -> None:
    assert fresh(Heard([HOME, BARE]), spans(attributes(**changes), attributes(1)))[0].response[-1] == 1


def test_each_network_that_the_contract_is_of_gets_it_on_its_own_log() -> None:
    heard = Heard([HOME, ALIAS, AWAY, BARE])
    request = spans(attributes(0), attributes(1), attributes(2, CHAIN_ID=1))
    found = heard.fresh(SPANS, request, request.SerializeToString(), Client(PEER)).to_write
    written = {network.name: message for network, _, message in records(found, PEER)}
    assert {name: m.key for name, m in written.items()} == {
        "home": key("home", 3),
        "alias": key("alias", 1),
        "away": key("away", 1),
    }
    for name, message in written.items():
        batch = decode(message.value)
        assert isinstance(batch, SignedBatch)
        begins = trace.begin(message.key, [message.value])
        assert (message.stream, message.headers) == (NETWORK, {"sender": b"peer", "traceparent": begins})
        assert [s.response[-1] for s in batch.responses] == ([2] if name == "away" else [0, 1])
        assert {s.brought_by for s in batch.responses} == {"peer"}


@pytest.mark.parametrize("sender", [OPERATOR, GATEWAY], ids=lambda sender: sender.role)
def test_one_of_a_network_brings_nothing_onto_anothers_log_though_both_are_on_one_contract(
    sender: Sender,
) -> None:
    heard, request = Heard([HOME, ALIAS, AWAY]), spans(attributes(0), attributes(1, CHAIN_ID=1))
    for network in ("home", "alias", "away"):
        own = sender._replace(network=network)
        found = heard.fresh(SPANS, request, request.SerializeToString(), Client(own)).to_write
        assert [(each.network.name, each.brought.brought_by) for each in found] == [
            (network, f"{sender.role}/{sender.name}")
        ]
        ((_, _, message),) = records(found, own)
        assert senders.of(message.headers) == own


def test_of_those_who_were_heard_of_long_ago_nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.heard.SENDERS", 3)
    heard, request = Heard([HOME]), spans(attributes(0))
    writing = heard.fresh(SPANS, request, request.SerializeToString(), Client(GATEWAY)).to_write
    for i in (0, 1, 0, 2, 3):
        fresh(heard, request, Sender(f"peer {i}"))
    assert [each.sender.name for each in heard._bringers] == ["gateway", "peer 2", "peer 3"]
    heard.end(writing, Client(GATEWAY), written=True)
    assert fresh(heard, request, GATEWAY) == []
    assert len(fresh(heard, request, Sender("peer 0"))) == 1


def test_a_sender_brings_each_once_and_counts_by_itself() -> None:
    heard = Heard([HOME])
    request = spans(attributes(0), attributes(0), attributes(1))
    assert len(fresh(heard, request)) == 2
    assert fresh(heard, request) == []
    assert [s.brought_by for s in fresh(heard, request, GATEWAY)] == ["aggregator/gateway"] * 2
    assert len(fresh(heard, spans(attributes(0, SIGNATURE="0x" + "5b" * 64)))) == 1


def begun(heard: Heard, request: Any) -> Fresh:
    """What is new of the request, and is under way."""
    return heard.fresh(SPANS, request, request.SerializeToString(), Client(PEER))


def test_what_was_not_written_is_new_again_and_cost_nothing() -> None:
    heard = Heard([HOME], Allowance(3, 1_000), clock=lambda: 0.0)
    request = spans(*map(attributes, range(3)))
    for _ in range(5):
        found = begun(heard, request).to_write
        assert len(found) == 3
        heard.end(found, Client(PEER), written=False)
    assert len(fresh(heard, spans(*map(attributes, range(10, 13))))) == 3
    assert fresh(heard, request) == []  # of what is written the budget is


@pytest.mark.parametrize("written", [True, False])
def test_what_is_sent_again_while_it_is_under_way_is_one_write_that_all_wait_for(written: bool) -> None:
    heard = Heard([HOME], Allowance(3, 1_000), clock=lambda: 0.0)
    request = spans(*map(attributes, range(2)))
    first, *again = (begun(heard, request) for _ in range(20))
    assert (len(first.to_write), first.others) == (2, [])
    assert all((each.to_write, len(each.others)) == ([], 2) for each in again)
    more = begun(heard, spans(*map(attributes, range(10))))
    assert (len(more.to_write), len(more.others)) == (1, 2)
    assert not any(other.done() for each in again for other in each.others)
    heard.end(first.to_write, Client(PEER), written=written)
    errors = {type(other.exception(0)) for each in (*again, more) for other in each.others}
    assert errors == {type(None) if written else BusError}
    after = begun(heard, request)
    assert (len(after.to_write), after.others) == (0 if written else 2, [])
    assert begun(heard, spans(attributes(20))).to_write == []  # all three are paid for


def test_only_so_many_are_remembered() -> None:
    heard = Heard([HOME], Allowance(100, 2))
    for i in range(3):
        fresh(heard, spans(attributes(i)))
    assert [len(fresh(heard, spans(attributes(i)))) for i in (2, 1, 0)] == [0, 0, 1]


def test_a_sender_has_a_budget_and_takes_from_nobody_elses(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    heard = Heard([HOME], Allowance(3, 1_000), clock=lambda: now[0])
    with caplog.at_level(logging.WARNING):
        flood = [spans(*[attributes(10 * i + j) for j in range(10)]) for i in range(5)]
        assert [len(fresh(heard, each)) for each in flood] == [3, 0, 0, 0, 0]
        assert len(fresh(heard, spans(attributes(0)), Sender("peer 2"))) == 1
        assert len(caplog.records) == 1
        assert "sender peer: 7 signed responses or reports beyond 3 and 3600 a minute" in caplog.text
        now[0] = 20.0  # a third of a minute
        assert len(fresh(heard, flood[4])) == 1
        now[0] = 6000.0
        assert len(fresh(heard, flood[4])) == 3
    assert len(caplog.records) == 2
    assert "sender peer: 55 signed" in caplog.text


def test_where_nobody_is_asked_for_a_token_each_address_has_a_budget_and_all_have_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("indexer.heard.ADDRESS_SIGNATURES", Allowance(3, 512))
    monkeypatch.setattr("indexer.heard.ADDRESSES_PER_MINUTE", 10)
    heard = Heard([HOME], clock=lambda: 0.0)
    flood = spans(*[attributes(i) for i in range(20)])
    for place, most in (("1.2.3.4", 3), ("1.2.3.4", 0), ("5.6.7.8", 3), ("2001:db8::/64", 3), ("::/64", 1)):
        assert len(fresh(heard, flood, UNAUTHENTICATED, place=place)) == most
    assert len(fresh(heard, flood)) == 20


def test_an_operator_brings_its_own_and_so_fewer() -> None:
    heard = Heard([HOME], clock=lambda: 0.0)
    flood = spans(*[attributes(i) for i in range(2 * OPERATORS_SIGNATURES.per_minute)])
    assert len(fresh(heard, flood, OPERATOR)) == OPERATORS_SIGNATURES.per_minute
    assert len(fresh(heard, flood, GATEWAY)) == 2 * OPERATORS_SIGNATURES.per_minute


def test_a_record_of_many_travels_whole() -> None:
    heard = Heard([HOME], Allowance(10**6, 10**6))
    long = ["0x" + i.to_bytes(MAX_RESPONSE_BYTES, "big").hex() for i in range(2_000)]
    said = [
        attributes(0, RESPONSE=each, RESPONSE_DIGEST="0x" + keccak(bytes.fromhex(each[2:])).hex())
        for each in long
    ]
    request = spans(*said)
    found = heard.fresh(SPANS, request, request.SerializeToString(), Client(PEER)).to_write
    made = list(records(found, PEER))
    assert len(made) > 1
    assert all(len(message.value) <= MAX_MESSAGE_BYTES for _, _, message in made)
    assert [each for _, part, _ in made for each in part] == found
    batches = [decode(message.value) for _, _, message in made]
    assert [int.from_bytes(s.response, "big") for b in batches for s in b.responses] == list(range(2_000))  # type: ignore[union-attr]


def work(i: int, operator: str = OPERATOR.name) -> list[tuple[str, str | int]]:
    """What a span says of a step of an Operator's work."""
    return [
        *((telemetry.CHAIN_ID, 31337), (telemetry.CONTRACT, MANAGER), (telemetry.OPERATOR, operator)),
        *((telemetry.TASK_HASH, "0x" + i.to_bytes(32, "big").hex()), (telemetry.STEP, Step.EXECUTE)),
        *((telemetry.HEAD_BEGUN, 7), (telemetry.HEAD_ENDED, 9)),
    ]


def told(heard: Heard, request: Any, sender: Sender = OPERATOR) -> list[Report]:
    found = heard.fresh(SPANS, request, request.SerializeToString(), Client(sender)).to_write
    heard.end(found, Client(sender), written=True)
    return [each.brought for each in found if isinstance(each.brought, Report)]


def test_a_step_of_the_work_is_told_once_and_by_whom_it_is_of() -> None:
    heard, request = Heard([HOME]), spans(work(1), work(2))
    assert [each.task_hash[-1] for each in told(heard, request)] == [1, 2]
    assert told(heard, request) == []
    for nobody in (PEER, OPERATOR._replace(network="away"), Sender("0x" + "b2" * 20, Role.OPERATOR, "home")):
        assert told(Heard([HOME]), request, nobody) == []
    assert [each.brought_by for each in told(heard, request, GATEWAY)] == ["aggregator/gateway"] * 2


def test_a_flood_of_reports_leaves_signatures_their_budget() -> None:
    heard = Heard([HOME], clock=lambda: 0.0)
    assert len(told(heard, spans(*(work(i) for i in range(OPERATORS_REPORTS.per_minute + 50))))) == (
        OPERATORS_REPORTS.per_minute
    )
    assert len(fresh(heard, spans(attributes(0)), OPERATOR)) == 1
    assert told(heard, spans(work(10**6))) == []


def test_signatures_and_reports_are_records_of_their_own() -> None:
    heard, request = Heard([HOME]), spans(work(1), attributes(1))
    found = heard.fresh(SPANS, request, request.SerializeToString(), Client(OPERATOR)).to_write
    made = [decode(message.value) for _, _, message in records(found, OPERATOR)]
    assert {type(record) for record in made} == {SignedBatch, ToldBatch}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (telemetry.STEP, "think"),
        (telemetry.TASK_HASH, "0x11"),
        (telemetry.OPERATOR, "0x" + "A1" * 20),
        (telemetry.CONTRACT, "0x" + "7b" * 20),
        (telemetry.CHAIN_ID, "31337"),
        (telemetry.RESPONSE, "0x" + "00" * (MAX_RESPONSE_BYTES + 1)),
    ],
)
def test_what_is_not_as_the_conventions_say_is_no_report(name: str, value: str) -> None:
    said = [*((n, v) for n, v in work(1) if n != name), (name, value)]
    assert told(Heard([HOME]), spans(said)) == []


@pytest.mark.parametrize("head", [-5, 2**50, "7"])
def test_a_block_number_that_is_none_is_not_said(head: int | str) -> None:
    said = [*((n, v) for n, v in work(1) if n != telemetry.HEAD_ENDED), (telemetry.HEAD_ENDED, head)]
    assert [(each.begun, each.ended) for each in told(Heard([HOME]), spans(said))] == [(7, -1)]

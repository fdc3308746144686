"""Admission over the wire, on both buses: the answer to each token, and what the bus may do to it."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from google.rpc import code_pb2
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from indexer import keys, otlp_grpc, otlp_http
from indexer.otlp_http import JSON, PROTOBUF
from nektar import bus as buses
from nektar import senders
from nektar.bus.kafka import KafkaBus
from nektar.bus.port import Bus, partition_of
from nektar.config import NetworkConfig
from nektar.evidence import bls
from nektar.http import Server, bind
from nektar.log import CHECKPOINTS, NETWORK, SignedBatch, decode
from nektar.senders import Sender
from nektar.tokens import Role
from tests.indexer.senders import ALICE, BOB, ROLES, SECRETS, TOKENS, as_of, has_key, say, token
from tests.indexer.test_collector import Answer, Client, serving, sound, taking, told
from tests.indexer.test_heard import ALIAS, HOME, attributes
from tests.indexer.test_otlp_grpc import Answer as GrpcAnswer
from tests.indexer.test_otlp_grpc import Client as GrpcClient
from tests.nektar.bus.reading import until

NOW = int(time.time())
BODY = sound(1).SerializeToString()
KAFKA = pytest.param("kafka", marks=pytest.mark.real)
_n = itertools.count()


@pytest.fixture(params=["sqlite", KAFKA])
def bus(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bus]:
    if request.param == "sqlite":
        with buses.open(f"sqlite://{tmp_path / 'bus'}") as opened:
            yield opened
        return
    prefix = f"admitted{os.getpid()}-{next(_n)}."
    with buses.open(f"{request.getfixturevalue('kafka_url')}?prefix={prefix}&partitions=2") as opened:
        yield opened
        opened.delete()  # type: ignore[attr-defined]


def ask(address: str, given: str | None, kind: str = PROTOBUF) -> Answer:
    return Client(address, given).post(b"{}" if kind == JSON else b"", kind)


def comes(address: str, given: str, status: int) -> None:
    """Wait until a token is answered so."""
    until(lambda: time.sleep(0.01) or ask(address, given).status == status)


def test_each_token_gets_its_answer(bus: Bus) -> None:
    """Alice has changed her key, and Bob has left."""
    old, new, left = token(ALICE), token(ALICE, 99), token(BOB)
    say(bus, has_key(ALICE, SECRETS[ALICE]), has_key(BOB, SECRETS[BOB]), as_of())
    refused = {
        "none": None,
        "another scheme": "",
        "malformed": "nektar1.e30.AA",
        "of another network": token(network="nowhere"),
        "of another chain": token(chain_id=1),
        "for another audience": token(audience="there"),
        "expired": token(expires=NOW - 1),
        "for too long": token(expires=NOW + 401 * 86_400),
        "by another key": token(ALICE, SECRETS[BOB]),
        "of nobody": token(sender="0x" + "cc" * 20),
        "in another role": token("operator-1", role=Role.AGGREGATOR),
        "of a changed key": old,
        "of who has left": left,
    }
    with serving(bus, TOKENS) as address:
        for given in (old, left):
            comes(address, given, 200)
        say(bus, has_key(ALICE, 99), has_key(BOB, SECRETS[BOB], deregistered=7))
        comes(address, new, 200)
        for why, given in refused.items():
            for kind in (PROTOBUF, JSON):
                answer = ask(address, given, kind)
                assert (why, answer.status) == (why, 401)
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.headers["content-type"] == kind
                if kind == PROTOBUF:
                    assert Status.FromString(answer.body).code == code_pb2.UNAUTHENTICATED
                assert HOME.name not in answer.why.split()
                assert not given or given not in answer.why
        basic = Client(address).post(b"", authorization=f"Basic {new}")
        assert (basic.status, basic.headers["www-authenticate"]) == (401, "Bearer")
        assert told(bus) == []
        for given, sender in ((new, ALICE), (TOKENS["aggregator"], "aggregator")):
            assert Client(address, given).post(BODY).status == 200
            found = {senders.of(message.headers) for message in told(bus)}
            assert Sender(sender, ROLES[sender], HOME.name) in found


def test_until_operators_are_known_they_are_to_come_again(bus: Bus) -> None:
    with serving(bus, TOKENS) as address:
        for said in ((), (has_key(ALICE, SECRETS[ALICE]),), (as_of(keys.OLD_SECONDS + 60),)):
            say(bus, *said)
            answer = ask(address, token(ALICE))
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert ask(address, TOKENS["aggregator"]).status == 200
        say(bus, as_of())
        comes(address, token(ALICE), 200)
        assert ask(address, token(BOB)).status == 401


def test_a_bus_that_says_nothing_is_waited_for_and_then_operators_are_to_come_again(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(bus, has_key(ALICE, SECRETS[ALICE]), as_of())
    given, hangs = token(ALICE), threading.Event()
    monkeypatch.setattr(keys, "SILENT_SECONDS", 1.0)
    with serving(bus, TOKENS) as address:
        comes(address, given, 200)
        end = type(bus).end

        def silent(of: Any, stream: str, partition: int) -> int:
            if stream == CHECKPOINTS:
                hangs.wait(60)
            return end(of, stream, partition)

        monkeypatch.setattr(type(bus), "end", silent)
        comes(address, given, 503)
        assert ask(address, given).headers["retry-after"] == "5"
        assert ask(address, TOKENS["aggregator"]).status == 200
        hangs.set()
        comes(address, given, 200)


@pytest.mark.parametrize("bus", [KAFKA], indirect=True)
def test_a_transaction_that_stays_open_holds_up_no_admission(bus: Bus) -> None:
    assert isinstance(bus, KafkaBus)  # where readers wait for it
    say(bus, has_key(ALICE, SECRETS[ALICE]), has_key(BOB, SECRETS[BOB]), as_of())
    with serving(bus, TOKENS) as address:
        comes(address, token(ALICE), 200)
        with bus.writer("half", partition_of(HOME.name, bus.partitions)) as writer:
            writer._producer.begin_transaction()
            topic = bus._topics.name(CHECKPOINTS)
            writer._producer.send(topic, b"half", b"k", [], writer._partition).get(30)
            began = time.monotonic()
            assert ask(address, token(BOB)).status == 200  # who was not seen before
            assert ask(address, TOKENS["operator-1"]).status == 200
            assert time.monotonic() - began < 5
            writer._producer.abort_transaction()
        say(bus, has_key(BOB, SECRETS[BOB], deregistered=9))
        comes(address, token(BOB), 401)


def test_a_flood_of_forged_tokens_starves_no_known_sender_and_is_told_to_come_again(bus: Bus) -> None:
    say(bus, has_key(ALICE, SECRETS[ALICE]), as_of())
    forged = [token(ALICE, SECRETS[BOB], expires=NOW + 1000 + i) for i in range(300)]
    with serving(bus, TOKENS) as address, ThreadPoolExecutor(12) as pool:
        comes(address, given := token(ALICE), 200)
        flood = [pool.submit(ask, address, each) for each in forged]
        slowest = 0.0
        while not all(each.done() for each in flood):
            began = time.monotonic()
            assert Client(address, given).post(BODY).status == 200
            slowest = max(slowest, time.monotonic() - began)
        answers = [each.result() for each in flood]
    by_status = Counter(each.status for each in answers)
    assert by_status.keys() == {401, 429}
    assert {each.headers["retry-after"] for each in answers if each.status == 429} == {"1"}
    assert {Status.FromString(each.body).code for each in answers if each.status == 429} == {
        code_pb2.RESOURCE_EXHAUSTED
    }
    assert slowest < 5


def test_over_grpc_the_answers_are_those_of_http_and_both_know_what_either_has_verified(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = sound(1)
    verified: list[int] = []
    keys_match = bls.keys_match
    monkeypatch.setattr(bls, "keys_match", lambda *of: verified.append(1) or keys_match(*of))
    with taking(bus, TOKENS) as intake, ExitStack() as opened:
        by_grpc = opened.enter_context(otlp_grpc.Server(intake, "127.0.0.1:0")).address
        listening = bind("127.0.0.1:0", "listen.otlp")
        by_http = opened.enter_context(Server(otlp_http.application(intake), listening)).address

        def export(given: str | None) -> GrpcAnswer:
            return GrpcClient(by_grpc, given).export(request)

        answer = export(token(ALICE))
        assert (answer.status, answer.after) == (StatusCode.UNAVAILABLE, 5.0)
        say(bus, has_key(ALICE, SECRETS[ALICE]), as_of())
        comes(by_http, given := token(ALICE), 200)
        assert export(given).status is StatusCode.OK
        assert len(verified) == 1
        for bad in (None, token(audience="there"), token(expires=NOW - 1), token(ALICE, SECRETS[BOB])):
            answer = export(bad)
            assert (answer.status, answer.retried) == (StatusCode.UNAUTHENTICATED, False)
        forged = [token(ALICE, SECRETS[BOB], expires=NOW + 1000 + i) for i in range(60)]
        with ThreadPoolExecutor(20) as pool:
            answers = [*pool.map(export, forged)]
        assert {each.status for each in answers} == {
            StatusCode.UNAUTHENTICATED,
            StatusCode.RESOURCE_EXHAUSTED,
        }
        assert {each.after for each in answers if each.status is StatusCode.RESOURCE_EXHAUSTED} == {1.0}
        assert export(given).status is StatusCode.OK


def test_an_operator_of_two_networks_on_one_contract_speaks_in_each_by_that_ones_key(bus: Bus) -> None:
    has = {HOME.name: 11, ALIAS.name: 12}
    for network in (HOME, ALIAS):
        say(bus, has_key(ALICE, has[network.name], network=network), as_of(network=network), network=network)
    with serving(bus, TOKENS, (HOME, ALIAS)) as address:
        for name, secret in has.items():
            comes(address, own := token(ALICE, secret, network=name), 200)
            comes(address, token(ALICE, 23 - secret, network=name), 401)  # which is the other Network's
            signed = sound(1, seed=name, attributes=attributes(secret)).SerializeToString()
            assert Client(address, own).post(signed).status == 200
    for network in (HOME, ALIAS):
        (batch,) = on_log(bus, network)
        (signed_,) = batch.responses
        assert (signed_.brought_by, signed_.response[-1]) == (f"operator/{ALICE}", has[network.name])
    assert Counter(senders.of(message.headers) for message in told(bus)) == {
        Sender(ALICE, "operator", name): 1 for name in has
    }


def on_log(bus: Bus, network: NetworkConfig) -> list[SignedBatch]:
    """What was signed, on the Network's own log."""
    key = f"{network.name}/{network.generation}".encode()
    records = [decode(message.value) for message in told(bus, NETWORK) if message.key == key]
    assert all(isinstance(record, SignedBatch) for record in records)
    return records  # type: ignore[return-value]

"""The collector over HTTP: the right answer to whatever is sent, and what it says yes to is on the bus."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec
import pytest
import zstandard
from google.rpc.status_pb2 import Status

from indexer import collector, intake, otlp_http
from indexer.heard import Allowance, Heard
from indexer.intake import MAX_BODY_BYTES, Intake
from indexer.otlp_http import JSON, PROTOBUF
from nektar import senders, trace
from nektar.bus.port import (
    Broken,
    Bus,
    BusError,
    BusFull,
    Delivered,
    Fenced,
    Message,
    partition_of,
    partition_of_key,
)
from nektar.bus.sqlite import SqliteBus
from nektar.config import Config, Listen, NetworkConfig, Quota, Telemetry
from nektar.health import Health
from nektar.http import CantListen, Server, bind
from nektar.log import DEAD, NETWORK, OTLP_LOGS, OTLP_METRICS, OTLP_SPANS, SignedBatch, decode
from nektar.otlp import MAX_GROUPS, METRICS, SIGNALS, SPANS, groups, parse
from nektar.senders import Sender
from tests import otlp
from tests.indexer.senders import AGENTS, AUDIENCE, ROLES, TOKENS
from tests.indexer.test_heard import HOME, attributes
from tests.nektar.bus.reading import until
from tests.spans import Counted, Spans

GENEROUS = Quota()


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def why(self) -> str:
        """What an error says, of protobuf or JSON."""
        if self.headers["content-type"] == JSON:
            return str(json.loads(self.body)["message"])
        return str(Status.FromString(self.body).message)


class Client:
    """Whoever sends to the collector at `address`."""

    def __init__(self, address: str, token: str | None = None) -> None:
        self._address, self._token = address, token

    def post(self, body: bytes, kind: str = PROTOBUF, path: str = "/v1/traces", **headers: str) -> Answer:
        sent = {"content-type": kind, **{k.replace("_", "-"): v for k, v in headers.items()}}
        if self._token:
            sent["authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(f"http://{self._address}{path}", body, sent, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers, error.read())


@contextmanager
def taking(
    bus: Any,
    senders: Mapping[str, str] = {},
    networks: tuple[NetworkConfig, ...] = (),
    quota: Quota = GENEROUS,
) -> Iterator[Intake]:
    """What takes telemetry; it asks for tokens where these `senders` have some."""
    telemetry = Telemetry(unauthenticated=True, quota=quota)
    if senders:
        telemetry = Telemetry(audience=AUDIENCE, agents=AGENTS, quota=quota)
        networks = networks or (HOME,)
    with TemporaryDirectory() as data_dir:
        config = Config(providers={}, networks=networks, data_dir=data_dir, telemetry=telemetry)
        with Intake(config, bus) as made:
            yield made


@contextmanager
def serving(bus: Any, *args: Any, **kwargs: Any) -> Iterator[str]:
    """The address of a collector of these senders, as `taking` has them."""
    with taking(bus, *args, **kwargs) as made:
        listening = bind("127.0.0.1:0", "listen.otlp")
        with Server(otlp_http.application(made), listening) as server:
            yield server.address


@pytest.fixture
def client(bus: SqliteBus) -> Iterator[Client]:
    with serving(bus, networks=(HOME,)) as address:
        yield Client(address)


def told(bus: Bus, stream: str = OTLP_SPANS) -> list[Delivered]:
    """All that is on the bus."""
    return [message for p in range(bus.partitions) for message in bus.read(stream, p, 0, 10_000)]


def sound(count: int = 3, **kwargs: Any) -> Any:
    return otlp.spans(count, time.time_ns(), **kwargs)


# --- what is taken ----------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["", "gzip", "zstd"])
@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
def test_what_is_sent_is_on_the_bus_as_the_collectors_kafka_exporter_writes_it(
    client: Client, bus: SqliteBus, signal: Any, kind: str, encoding: str
) -> None:
    request = otlp.some(signal, 3, time.time_ns())
    body = request.SerializeToString() if kind == PROTOBUF else otlp.to_json(request)
    pack = {"gzip": gzip.compress, "zstd": zstandard.compress}.get(encoding, bytes)
    said = {"content_encoding": encoding} if encoding else {}
    answer = client.post(pack(body), f"{kind}; charset=utf-8", f"/v1/{signal.name}", **said)
    assert (answer.status, answer.headers["content-type"]) == (200, kind)
    assert answer.body == (b"" if kind == PROTOBUF else b"{}")
    (message,) = told(bus, signal.stream)
    assert parse(signal, message.value) == request
    if signal is METRICS:
        assert len(message.key) == 32
    else:
        assert message.key == next(groups(signal, request)).items[0].trace_id.hex().encode()
    assert message.partition == partition_of_key(message.key, bus.partitions)
    assert message.headers == {"sender": b"unauthenticated"}


def test_a_request_of_nothing_is_taken_and_writes_nothing(client: Client, bus: SqliteBus) -> None:
    assert client.post(b"").status == 200
    assert client.post(b"{}", JSON, "/v1/logs").status == 200
    assert told(bus) == told(bus, OTLP_LOGS) == []


def test_a_long_request_is_several_messages(client: Client, bus: SqliteBus) -> None:
    request = sound(30, attributes=[("t", "x" * 100_000)])
    assert client.post(request.SerializeToString()).status == 200
    found = told(bus)
    assert len(found) > 2
    names = [s.name for m in found for s in parse(SPANS, m.value).resource_spans[0].scope_spans[0].spans]
    assert sorted(names) == sorted(f"step {i}" for i in range(30))


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_what_is_not_sound_is_refused_alone_and_counted(client: Client, bus: SqliteBus, kind: str) -> None:
    request = sound(5)
    spans = request.resource_spans[0].scope_spans[0].spans
    spans[0].span_id, spans[1].start_time_unix_nano, spans[2].trace_id = b"", 0, bytes(16)
    answer = client.post(request.SerializeToString() if kind == PROTOBUF else otlp.to_json(request), kind)
    assert answer.status == 200
    if kind == PROTOBUF:
        said = SPANS.response.FromString(answer.body).partial_success
        assert (said.rejected_spans, "1 spans: span id: expected 8 bytes" in said.error_message) == (3, True)
    else:
        assert json.loads(answer.body)["partialSuccess"]["rejectedSpans"] == "3"
    (message,) = told(bus)
    assert [s.name for s in parse(SPANS, message.value).resource_spans[0].scope_spans[0].spans] == [
        "step 3",
        "step 4",
    ]


def test_data_points_that_are_not_sound_are_refused_alone(client: Client, bus: SqliteBus) -> None:
    request = otlp.points(5, time.time_ns())
    next(groups(METRICS, request)).items[0].time_unix_nano = 0
    answer = client.post(otlp.to_json(request), JSON, "/v1/metrics")
    assert (answer.status, json.loads(answer.body)["partialSuccess"]["rejectedDataPoints"]) == (200, "1")
    (message,) = told(bus, OTLP_METRICS)
    assert sum(len(group.items) for group in groups(METRICS, parse(METRICS, message.value))) == 4


def test_who_sent_it_is_told_by_the_token_alone(bus: SqliteBus) -> None:
    with serving(bus, TOKENS) as address:
        for name, token in TOKENS.items():
            request = sound(1, resource=[("nektar.sender", "mallory")])
            assert Client(address, token).post(request.SerializeToString(), sender="mallory").status == 200
            found = {senders.of(message.headers) for message in told(bus)}
            assert Sender(name, ROLES[name], HOME.name) in found
        before = len(told(bus))
        for wrong in (None, "0123456789abcde", "0123456789abcdef0", "ä" * 16):
            body = sound(1).SerializeToString()
            answer = Client(address).post(body, **({"authorization": f"Bearer {wrong}"} if wrong else {}))
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert "nektar token" in answer.why
            assert "0123456789abcdef" not in answer.why
        basic = Client(address).post(b"", authorization=f"Basic {TOKENS['aggregator']}")
        assert basic.status == 401
        assert len(told(bus)) == before == 2


# --- what is not ------------------------------------------------------------------------------------


def far() -> bytes:
    return bytes(otlp.spans(2, 10**18).SerializeToString())


# A number that JSON can hold and a double can't.
LARGE = b'{"resourceSpans": [{"resource": {"attributes": [{"value": {"doubleValue": 1%s}}]}}]}' % (b"0" * 400)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("body", "kind", "status", "says"),
    [
        (b"junk", PROTOBUF, 400, "expected an ExportTraceServiceRequest in protobuf"),
        (b"junk", JSON, 400, "expected an ExportTraceServiceRequest in JSON"),
        (b"\x0a\x05\x12\x03\x12\x01\xff", PROTOBUF, 400, "protobuf"),
        (b'{"resourceSpans": 5}', JSON, 400, "expected an array"),
        (LARGE, JSON, 400, "too large"),
        (far(), PROTOBUF, 400, "2 spans: time: expected one of the last 7 days"),
        (otlp.to_json(otlp.spans(1, 10**18)), JSON, 400, "1 spans: time"),
        (bytes(MAX_BODY_BYTES + 1), PROTOBUF, 413, f"at most {MAX_BODY_BYTES} bytes"),
        (b"", "text/plain", 415, "content type: expected application/x-protobuf or application/json"),
        (b"", "", 415, "content type"),
    ],
)
def test_the_right_answer_to_what_is_wrong(
    client: Client, bus: SqliteBus, body: bytes, kind: str, status: int, says: str, packed: bool
) -> None:
    answer = (
        client.post(gzip.compress(body), kind, content_encoding="gzip") if packed else client.post(body, kind)
    )
    assert answer.status == status
    assert answer.headers["content-type"] == (kind if kind == PROTOBUF else JSON)
    assert says in answer.why
    assert told(bus) == []
    assert client.post(sound().SerializeToString()).status == 200


def test_an_encoding_that_is_not_known_or_not_true(client: Client) -> None:
    body = sound().SerializeToString()
    assert client.post(body, content_encoding="br").status == 415
    assert client.post(body, content_encoding="identity").status == 200
    for pack, encoding in ((gzip.compress, "gzip"), (zstandard.compress, "zstd")):
        for broken in (body, pack(body)[:-1], pack(body) + b"more"):
            answer = client.post(broken, content_encoding=encoding)
            assert (answer.status, encoding in answer.why) == (400, True)
        halves = pack(body[:50]) + pack(body[50:])
        assert client.post(halves, content_encoding=encoding).status == 200


def test_a_bomb_is_refused(client: Client) -> None:
    for pack, encoding in ((gzip.compress, "gzip"), (zstandard.compress, "zstd")):
        answer = client.post(pack(bytes(64 << 20)), content_encoding=encoding)
        assert (answer.status, f"at most {MAX_BODY_BYTES} bytes" in answer.why) == (413, True)


def test_what_repeats_too_much_is_refused(client: Client) -> None:
    request = sound(3_000, resource=[("t", "x" * 100_000)])
    answer = client.post(request.SerializeToString())
    assert (answer.status, "for each of their spans" in answer.why) == (400, True)


def test_groups_without_items_are_not_on_the_bus(client: Client, bus: SqliteBus) -> None:
    request = sound(2)
    for _ in range(100):
        request.resource_spans[0].scope_spans.add()
    request.resource_spans.add()
    assert client.post(request.SerializeToString()).status == 200
    (message,) = told(bus)
    assert [len(g.scope_spans) for g in parse(SPANS, message.value).resource_spans] == [1]
    for _ in range(MAX_GROUPS):
        request.resource_spans[0].scope_spans.add()
    answer = client.post(gzip.compress(request.SerializeToString()), content_encoding="gzip")
    assert (answer.status, "empty ones counted" in answer.why) == (400, True)
    assert len(told(bus)) == 1


def test_other_paths_and_methods(client: Client) -> None:
    assert client.post(b"", path="/v2/traces").status == 404
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(f"http://{client._address}/v1/traces")


# --- quotas, and what is kept of what is refused ----------------------------------------------------


def test_who_has_sent_too_much_is_told_when_there_is_room_again(bus: SqliteBus, counted: Counted) -> None:
    quota = Quota(items_per_second=10, burst=1)
    with serving(bus, TOKENS, quota=quota) as address:
        many, one = (Client(address, token) for token in TOKENS.values())
        body = sound(30).SerializeToString()
        assert many.post(body).status == 200  # of which 20 are owed
        answer = many.post(body)
        assert (answer.status, answer.headers["retry-after"]) == (429, "2")
        assert "telemetry.quota" in answer.why
        assert one.post(sound(5).SerializeToString()).status == 200
    assert counted("nektar.collector.over_quota") == {("observer",): 1}
    assert counted("nektar.collector.items") == {("observer", "traces"): 30, ("aggregator", "traces"): 5}


def test_a_body_that_is_refused_is_paid_for(bus: SqliteBus) -> None:
    quota = Quota(bytes_per_second=1_000_000, burst=1)
    bodies = [
        (bytes([0xFF]) * 3_000_000, "", 400),
        (gzip.compress(bytes(64 << 20)), "gzip", 413),
    ]
    for body, encoding, status in bodies:
        with serving(bus, TOKENS, quota=quota) as address:
            client = Client(address, TOKENS["operator-1"])
            assert client.post(body, content_encoding=encoding or "identity").status == status
            assert client.post(sound().SerializeToString()).status == 429


def test_a_request_that_was_not_written_is_not_paid_for(bus: SqliteBus) -> None:
    faulty = Faulty(bus)
    request, far = sound(8), sound(8, seed="far")
    for span in far.resource_spans[0].scope_spans[0].spans:
        span.start_time_unix_nano = 1
    request.MergeFrom(far)
    with serving(faulty, quota=Quota(items_per_second=10, burst=1)) as address:
        client = Client(address)
        for stream in (OTLP_SPANS, DEAD):
            faulty.fault = {stream: BusError("down")}
            for _ in range(5):
                assert client.post(request.SerializeToString()).status == 503
        faulty.fault.clear()
        assert client.post(request.SerializeToString()).status == 200
    assert len(told(bus, DEAD)) == 1


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
def test_what_is_out_of_time_is_refused_and_kept(bus: SqliteBus, counted: Counted, signal: Any) -> None:
    request = otlp.some(signal, 3, 10**18)
    with serving(bus, TOKENS) as address:
        client = Client(address, TOKENS["operator-1"])
        path = f"/v1/{signal.name}"
        answer = client.post(request.SerializeToString(), path=path)
        assert (answer.status, f"3 {signal.items}: time" in answer.why) == (400, True)
        both = otlp.some(signal, 2, time.time_ns(), seed="sound")
        both.MergeFrom(request)
        assert client.post(both.SerializeToString(), path=path).status == 200
    letters = told(bus, DEAD)
    assert [parse(signal, letter.value) for letter in letters] == [request, request]
    assert {letter.key for letter in letters} == {f"collector {signal.stream} observer/operator-1".encode()}
    taken = [parse(signal, message.value) for message in told(bus, signal.stream)]
    assert sum(len(group.items) for each in taken for group in groups(signal, each)) == 2
    assert counted("nektar.collector.refused") == {("time", signal.name): 6}


# --- signed responses -------------------------------------------------------------------------------


def test_what_was_signed_is_on_the_networks_log_and_the_span_is_kept(
    client: Client, bus: SqliteBus, spans: Spans
) -> None:
    request = sound(2, attributes=attributes(7))  # the same in both
    for _ in range(2):
        assert client.post(request.SerializeToString()).status == 200
    (record,) = told(bus, NETWORK)
    assert (record.partition, record.key) == (partition_of("home", bus.partitions), b"home/3")
    begins = trace.begin(record.key, [record.value])
    assert record.headers == {"sender": b"unauthenticated", "traceparent": begins}
    assert [(s.name, trace.traceparent_of(s).encode(), s.parent) for s in spans.kept] == [
        ("collect", begins, None)
    ]
    batch = decode(record.value)
    assert isinstance(batch, SignedBatch)
    assert [(s.brought_by, s.response[-1]) for s in batch.responses] == [("unauthenticated", 7)]
    assert len(told(bus)) == 2


def test_a_signature_in_a_log_record_counts_as_well(client: Client, bus: SqliteBus) -> None:
    request = otlp.records(1, time.time_ns(), attributes=attributes(1))
    assert client.post(otlp.to_json(request), JSON, "/v1/logs").status == 200
    assert len(told(bus, NETWORK)) == 1


def test_a_signature_in_metrics_is_none(client: Client, bus: SqliteBus) -> None:
    request = otlp.points(5, time.time_ns(), attributes=attributes(1))
    assert client.post(request.SerializeToString(), path="/v1/metrics").status == 200
    assert (len(told(bus, OTLP_METRICS)), told(bus, NETWORK)) == (1, [])


def test_a_signature_in_a_span_that_is_refused_stays_off_the_log(client: Client, bus: SqliteBus) -> None:
    request = sound(2)
    otlp.put(request.resource_spans[0].scope_spans[0].spans[0].attributes, attributes(1))
    request.resource_spans[0].scope_spans[0].spans[0].span_id = b""
    assert client.post(request.SerializeToString()).status == 200
    assert told(bus, NETWORK) == []


def test_a_network_may_have_the_name_of_a_partition(bus: SqliteBus) -> None:
    partition = next(p for p in range(bus.partitions) if partition_of(str(p), bus.partitions) == p)
    network = msgspec.structs.replace(HOME, name=str(partition))
    request = sound(1, attributes=attributes(1))
    key = next(
        k
        for i in range(100)
        if partition_of_key(k := i.to_bytes(16).hex().encode(), bus.partitions) == partition
    )
    request.resource_spans[0].scope_spans[0].spans[0].trace_id = bytes.fromhex(key.decode())
    with serving(bus, networks=(network,)) as address:
        assert Client(address).post(request.SerializeToString()).status == 200
    assert (len(told(bus)), len(told(bus, NETWORK))) == (1, 1)


# --- a bus that does not take it --------------------------------------------------------------------


class Faulty:
    """A bus whose transactions wait, fail or are counted as the test wants."""

    def __init__(self, bus: SqliteBus) -> None:
        self._bus = bus
        self.fault: dict[str, BusError] = {}  # stream → what writing to it raises
        self.open = threading.Event()
        self.open.set()
        self.begun = threading.Event()  # a transaction
        self.transactions: list[int] = []
        self.refused = 0

    def writer(self, transactional_id: str, partition: int) -> Any:
        outer, writer = self, self._bus.writer(transactional_id, partition)

        class Writer:
            def transaction(self, messages: Iterable[Message]) -> None:
                batch = list(messages)
                outer.begun.set()
                outer.open.wait(30)
                for message in batch:
                    if message.stream in outer.fault:
                        outer.refused += 1
                        raise outer.fault[message.stream]
                writer.transaction(batch)
                outer.transactions.append(len(batch))

            def close(self) -> None:
                writer.close()

        return Writer()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)


def test_what_the_bus_does_not_take_is_to_be_sent_again(bus: SqliteBus) -> None:
    faulty = Faulty(bus)
    with serving(faulty, networks=(HOME,)) as address:
        client, body = Client(address), sound(1, attributes=attributes(1)).SerializeToString()
        faulty.fault[OTLP_SPANS] = BusFull("the disk is full")
        for _ in range(2):
            answer = client.post(body)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert told(bus) == []
        assert len(told(bus, NETWORK)) == 1  # first of all, and only once
        faulty.fault.clear()
        assert client.post(body).status == 200
        assert (len(told(bus)), len(told(bus, NETWORK))) == (1, 1)


def test_one_addresss_flood_keeps_nothing_of_others_off_the_log(
    bus: SqliteBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.heard.ADDRESS_SIGNATURES", Allowance(3, 512))
    with serving(bus, networks=(HOME,)) as address:
        flood = [sound(1, seed=i, attributes=attributes(i)).SerializeToString() for i in range(8)]
        assert {Client(address).post(each).status for each in flood} == {200}
        host, port = address.split(":")
        other = http.client.HTTPConnection(host, int(port), source_address=("127.0.0.2", 0))
        body = sound(1, attributes=attributes(99)).SerializeToString()
        other.request("POST", "/v1/traces", body, {"content-type": PROTOBUF})
        assert other.getresponse().status == 200
        other.close()
    batches = [decode(record.value) for record in told(bus, NETWORK)]
    assert [s.response[-1] for batch in batches for s in batch.responses] == [0, 1, 2, 99]  # type: ignore[union-attr]


def test_no_span_is_there_whose_signature_is_not(bus: SqliteBus) -> None:
    faulty = Faulty(bus)
    with serving(faulty, networks=(HOME,)) as address:
        client, body = Client(address), sound(1, attributes=attributes(1)).SerializeToString()
        faulty.fault[NETWORK] = BusError("down")
        assert client.post(body).status == 503
        assert told(bus) == told(bus, NETWORK) == []
        faulty.fault.clear()
        assert client.post(body).status == 200
        assert (len(told(bus)), len(told(bus, NETWORK))) == (1, 1)


def test_attempts_that_fail_cost_nothing_of_what_a_sender_may_bring(bus: SqliteBus) -> None:
    faulty = Faulty(bus)
    signed = [attributes(i) for i in range(256)]
    with serving(faulty, networks=(HOME,)) as address:
        client, request = Client(address), SPANS.request()
        for i, each in enumerate(signed):
            request.MergeFrom(sound(1, seed=i, attributes=each))
        faulty.fault[NETWORK] = BusError("down")
        for _ in range(8):  # of which fewer than five would be the budget of a minute
            assert client.post(request.SerializeToString()).status == 503
        faulty.fault.clear()
        assert client.post(request.SerializeToString()).status == 200
    (record,) = told(bus, NETWORK)
    assert len(decode(record.value).responses) == 256  # type: ignore[union-attr]


def test_what_is_committed_after_its_request_was_given_up_is_on_the_log_once(
    bus: SqliteBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "COMMIT_SECONDS", 0.2)
    faulty = Faulty(bus)
    faulty.open.clear()
    body = sound(1, attributes=attributes(1)).SerializeToString()
    with serving(faulty, networks=(HOME,)) as address:
        client = Client(address)
        assert client.post(body).status == 503
        monkeypatch.setattr(intake, "COMMIT_SECONDS", 30.0)
        faulty.open.set()
        later = sound(
            1, seed=1, attributes=attributes(2)
        ).SerializeToString()  # by the same lane, so after it
        assert [client.post(each).status for each in (later, body)] == [200, 200]
    batches = [decode(record.value) for record in told(bus, NETWORK)]
    assert [s.response[-1] for batch in batches for s in batch.responses] == [1, 2]  # type: ignore[union-attr]


@pytest.mark.parametrize("fault", [None, BusError("down")])
def test_what_is_sent_again_while_it_is_being_written_is_on_the_log_once(
    bus: SqliteBus, monkeypatch: pytest.MonkeyPatch, fault: BusError | None
) -> None:
    monkeypatch.setattr(intake, "COMMIT_SECONDS", 60.0)
    faulty = Faulty(bus)
    faulty.open.clear()
    if fault:
        faulty.fault[NETWORK] = fault
    body = sound(1, attributes=attributes(1)).SerializeToString()
    asked, fresh = list[int](), Heard.fresh

    def seen(*given: Any) -> Any:
        asked.append(1)
        return fresh(*given)

    monkeypatch.setattr(Heard, "fresh", seen)
    with serving(faulty, networks=(HOME,)) as address, ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(Client(address).post, body) for _ in range(20)]
        deadline = time.monotonic() + 30
        while len(asked) < 20:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert not any(each.done() for each in waiting)
        faulty.open.set()
        assert {each.result().status for each in waiting} == {503 if fault else 200}
        faulty.fault.clear()
        assert Client(address).post(body).status == 200
    assert len(told(bus, NETWORK)) == 1
    assert len(told(bus)) == (1 if fault else 21)


def test_who_gives_up_waiting_for_anothers_write_leaves_it_be(
    bus: SqliteBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty = Faulty(bus)
    faulty.open.clear()
    body = sound(1, attributes=attributes(1)).SerializeToString()
    with serving(faulty, networks=(HOME,)) as address, ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(intake, "COMMIT_SECONDS", 60.0)
        first = pool.submit(Client(address).post, body)
        while not faulty.begun.wait(1):
            assert not first.done()
        monkeypatch.setattr(intake, "COMMIT_SECONDS", 0.1)
        assert [Client(address).post(body).status for _ in range(3)] == [503] * 3
        monkeypatch.setattr(intake, "COMMIT_SECONDS", 60.0)
        faulty.open.set()
        assert first.result().status == 200
        assert Client(address).post(body).status == 200
    assert (len(told(bus)), len(told(bus, NETWORK))) == (2, 1)


def test_requests_that_come_together_share_a_commit(bus: SqliteBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "COMMIT_SECONDS", 60.0)
    faulty = Faulty(bus)
    faulty.open.clear()
    request = sound(1).SerializeToString()
    with serving(faulty) as address, ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(Client(address).post, request) for _ in range(20)]
        time.sleep(0.5)
        assert not any(each.done() for each in waiting)  # durable before 200
        faulty.open.set()
        assert {each.result().status for each in waiting} == {200}
    assert sum(faulty.transactions) == len(told(bus)) == 20
    assert len(faulty.transactions) < 20


def test_more_than_can_be_held_is_turned_away_until_there_is_room(
    bus: SqliteBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "MAX_HELD_BYTES", 4_000_000)  # of which one sender leaves as much as it holds
    monkeypatch.setattr(intake, "COMMIT_SECONDS", 60.0)
    faulty = Faulty(bus)
    faulty.open.clear()
    body = sound(8, attributes=[("t", "x" * 50_000)]).SerializeToString()  # 0.4 MB
    with serving(faulty) as address, ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(Client(address).post, body) for _ in range(10)]
        deadline = time.monotonic() + 30
        while sum(each.done() for each in waiting) < 6:  # these were turned away; the others wait for the bus
            assert time.monotonic() < deadline
            time.sleep(0.01)
        faulty.open.set()
        answers = [each.result() for each in waiting]
        assert sorted(a.status for a in answers) == [200] * 4 + [503] * 6
        assert {a.headers["retry-after"] for a in answers if a.status == 503} == {"1"}
        assert Client(address).post(body).status == 200
    assert len(told(bus)) == 5


def test_one_sender_leaves_room_for_others(bus: SqliteBus) -> None:
    body = sound(8, attributes=[("t", "x" * 400_000)]).SerializeToString()  # 3 MB
    with serving(bus, TOKENS) as address, ExitStack() as holding:
        host, port = address.split(":")
        head = (
            f"POST /v1/traces HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKENS['operator-1']}\r\n"
            f"content-type: {PROTOBUF}\r\ncontent-length: {MAX_BODY_BYTES}\r\n\r\n"
        )
        for _ in range(8):  # that announce, and send nothing
            holding.enter_context(socket.create_connection((host, int(port)))).sendall(head.encode())
        deadline = time.monotonic() + 5  # in which they are still waited for
        while Client(address, TOKENS["operator-1"]).post(body).status != 503:
            assert time.monotonic() < deadline
        assert Client(address, TOKENS["aggregator"]).post(body).status == 200


class Unpacking:
    """What the collector has read, and whose it is unpacking; it waits there until `goes_on`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read, self.of = 0, list[str]()
        self.goes_on = threading.Event()
        read, take = otlp_http._read, Intake._take

        async def reading(*given: Any) -> bytes:
            body = await read(*given)
            self.read += 1
            return body

        def taking(intake: Intake, *given: Any) -> Any:
            self.of.append(given[2].client.sender.name)
            assert self.goes_on.wait(60)
            return take(intake, *given)

        monkeypatch.setattr(otlp_http, "_read", reading)
        monkeypatch.setattr(Intake, "_take", taking)


def test_senders_take_turns_at_being_unpacked(bus: SqliteBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "TURN_SECONDS", 60.0)
    unpacking, body = Unpacking(monkeypatch), sound().SerializeToString()
    with serving(bus, TOKENS) as address, ThreadPoolExecutor(20) as pool:
        many, one = Client(address, TOKENS["operator-1"]), Client(address, TOKENS["aggregator"])
        waiting = [pool.submit(many.post, body) for _ in range(8)]
        until(lambda: unpacking.read == 8)
        waiting.append(pool.submit(one.post, body))
        until(lambda: unpacking.read == 9)
        unpacking.goes_on.set()
        assert {each.result().status for each in waiting} == {200}
    assert unpacking.of.index("aggregator") <= 2


def test_whoever_has_waited_too_long_for_a_turn_is_to_send_again(
    bus: SqliteBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "TURN_SECONDS", 0.1)
    unpacking, body = Unpacking(monkeypatch), sound().SerializeToString()
    with serving(bus, TOKENS) as address, ThreadPoolExecutor(1) as pool:
        first = pool.submit(Client(address, TOKENS["operator-1"]).post, body)
        until(lambda: bool(unpacking.of))
        for token in TOKENS.values():
            answer = Client(address, token).post(body)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        unpacking.goes_on.set()
        assert first.result().status == 200
        assert Client(address, TOKENS["aggregator"]).post(body).status == 200
    assert len(told(bus)) == 2


def test_a_bus_that_takes_too_long_is_given_up_and_nothing_breaks(
    bus: SqliteBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "COMMIT_SECONDS", 0.2)
    faulty = Faulty(bus)
    faulty.open.clear()
    body = sound(1).SerializeToString()
    with serving(faulty) as address:
        client = Client(address)
        assert [client.post(body).status for _ in range(3)] == [503] * 3
        faulty.open.set()
        monkeypatch.setattr(intake, "COMMIT_SECONDS", 30.0)
        assert client.post(body).status == 200
    assert len(told(bus)) == 1


def test_what_was_given_up_and_written_after_all_is_acknowledged_when_it_comes_again(
    bus: SqliteBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "COMMIT_SECONDS", 0.2)
    faulty = Faulty(bus)
    faulty.open.clear()
    body = sound(1, attributes=attributes(1)).SerializeToString()
    with serving(faulty, networks=(HOME,)) as address:
        client = Client(address)
        assert client.post(body).status == 503
        faulty.open.set()
        deadline = time.monotonic() + 30
        while not told(bus):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        faulty.open.clear()  # it needs no commit any more
        assert client.post(body).status == 200
        assert client.post(sound(1, seed=1).SerializeToString()).status == 503
        faulty.open.set()
    assert len(told(bus, NETWORK)) == 1


def test_what_nobody_waits_for_any_more_takes_room_until_it_is_written(
    bus: SqliteBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "MAX_HELD_BYTES", 4_000_000)  # of which one sender leaves as much as it holds
    monkeypatch.setattr(intake, "COMMIT_SECONDS", 0.05)
    faulty = Faulty(bus)
    faulty.open.clear()
    with serving(faulty) as address:
        client = Client(address)
        bodies = [sound(8, seed=i, attributes=[("t", "x" * 50_000)]).SerializeToString() for i in range(20)]
        answers = [client.post(body) for body in bodies]  # 0.4 MB each
        assert {answer.status for answer in answers} == {503}
        turned_away = [b"too many requests" in answer.body for answer in answers]
        assert turned_away == [False] * 4 + [True] * 16
        monkeypatch.setattr(intake, "COMMIT_SECONDS", 30.0)
        faulty.open.set()
        for body in bodies:  # as exporters do: until there is room again
            while (status := client.post(body).status) == 503:
                pass
            assert status == 200
    assert len(told(bus)) == 20


# --- the role ---------------------------------------------------------------------------------------


def role(bus: Any, port: int = 0) -> tuple[threading.Event, threading.Thread, list[Exception]]:
    listen = Listen(otlp=f"127.0.0.1:{port}", otlp_grpc="")
    config = Config(providers={}, networks=(), listen=listen, telemetry=Telemetry(unauthenticated=True))
    stop, raised = threading.Event(), list[Exception]()

    def run() -> None:
        try:
            collector.run(config, bus, stop, Health())
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return stop, thread, raised


def test_the_role_ends_where_another_collector_has_taken_over(bus: SqliteBus) -> None:
    with bind("127.0.0.1:0", "x") as probe:
        port = probe.getsockname()[1]
    stop, thread, raised = role(bus, port)
    try:
        request = sound(1)
        key = request.resource_spans[0].scope_spans[0].spans[0].trace_id.hex().encode()
        client = Client(f"127.0.0.1:{port}")
        deadline = time.monotonic() + 30
        while thread.is_alive() and not told(bus):
            try:
                client.post(request.SerializeToString())
            except urllib.error.URLError:
                assert time.monotonic() < deadline
        partition = partition_of_key(key, bus.partitions)
        bus.writer(f"collector/{partition}", partition).close()
        assert client.post(request.SerializeToString()).status == 503
        thread.join(30)
        assert isinstance(raised[0], Fenced)
    finally:
        stop.set()
        thread.join(30)


def test_the_role_ends_where_a_writer_can_write_no_more(bus: SqliteBus) -> None:
    with bind("127.0.0.1:0", "x") as probe:
        port = probe.getsockname()[1]
    faulty = Faulty(bus)
    faulty.fault[OTLP_SPANS] = BusFull("the disk is full")
    stop, thread, raised = role(faulty, port)
    try:
        client, body = Client(f"127.0.0.1:{port}"), sound(1).SerializeToString()
        deadline = time.monotonic() + 30
        while thread.is_alive():
            try:
                if client.post(body).status == 503:
                    break
            except urllib.error.URLError:
                assert time.monotonic() < deadline
        thread.join(4 * collector.LOOK_AT_STOP)
        assert thread.is_alive()  # a full disk may have room again
        faulty.fault[OTLP_SPANS] = Broken("no broker answers")
        assert client.post(body).status == 503
        thread.join(30)
        assert [str(error) for error in raised] == ["no broker answers"]
    finally:
        stop.set()
        thread.join(30)


def test_a_port_that_is_taken_is_one_clear_line(bus: SqliteBus) -> None:
    with bind("127.0.0.1:0", "x") as taken:
        stop, thread, raised = role(bus, taken.getsockname()[1])
        thread.join(30)
        assert isinstance(raised[0], CantListen)
        assert "listen.otlp: 127.0.0.1:" in str(raised[0])
        stop.set()

"""The collector over gRPC: the protocol's own answers to stock clients, and no more held than its share."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from indexer import intake, otlp_grpc, refusals
from indexer.intake import MAX_BODY_BYTES, Intake
from indexer.otlp_grpc import Server
from nektar import senders
from nektar.bus.port import BusError
from nektar.bus.sqlite import SqliteBus
from nektar.config import Quota
from nektar.http import CantListen, bind
from nektar.log import NETWORK, OTLP_SPANS
from nektar.otlp import LOGS, METRICS, SPANS, parse
from nektar.senders import Sender
from tests import otlp
from tests.indexer.senders import ROLES, TOKENS
from tests.indexer.test_collector import Faulty, sound, taking, told
from tests.indexer.test_heard import HOME, attributes
from tests.nektar.bus.reading import until
from tests.spans import Counted

STUBS = {SPANS: TraceServiceStub, LOGS: LogsServiceStub, METRICS: MetricsServiceStub}
GZIP = grpc.Compression.Gzip


class Answer(NamedTuple):
    status: StatusCode
    said: Any  # the response
    why: str
    after: float | None  # seconds until it is to be sent again

    @property
    def retried(self) -> bool:
        """Whether a stock exporter sends it again."""
        return self.status is StatusCode.UNAVAILABLE or self.after is not None


class Client:
    """Whoever sends to the collector at `address`."""

    def __init__(self, address: str, token: str | None = None) -> None:
        self._address = address
        self._metadata = [("authorization", f"Bearer {token}")] if token else []

    def export(self, request: Any, signal: Any = SPANS, **more: Any) -> Answer:
        with self.channel() as channel:
            return self._answer(STUBS[signal](channel).Export, request, **more)

    def send(self, body: bytes, method: str = "trace.v1.TraceService/Export", **more: Any) -> Answer:
        """Bytes, whatever they are."""
        with self.channel() as channel:
            return self._answer(channel.unary_unary(f"/opentelemetry.proto.collector.{method}"), body, **more)

    def stream(self, bodies: Iterator[bytes], **more: Any) -> Answer:
        """Any number of messages."""
        with self.channel() as channel:
            method = channel.stream_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
            return self._answer(method, bodies, **more)

    def channel(self) -> Any:
        """Of its own, as a process's is: gRPC would share a connection among all of this one's."""
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        return grpc.insecure_channel(self._address, options)

    def _answer(self, method: Any, request: Any, timeout: float = 60.0, **more: Any) -> Answer:
        try:
            said = method(request, metadata=self._metadata, timeout=timeout, **more)
            return Answer(StatusCode.OK, said, "", None)
        except grpc.RpcError as error:
            return Answer(error.code(), None, error.details(), _after(error))


def _after(error: Any) -> float | None:
    """The status's own RetryInfo, which must say what the error says, and what Python's exporter reads."""
    found = dict(error.trailing_metadata())
    if "grpc-status-details-bin" not in found:
        assert "google.rpc.retryinfo-bin" not in found
        return None
    status = Status.FromString(found["grpc-status-details-bin"])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    for each in status.details:
        info = RetryInfo()
        assert each.Unpack(info)
        assert found["google.rpc.retryinfo-bin"] == info.SerializeToString()
        return float(info.retry_delay.ToNanoseconds() / 10**9)
    assert "google.rpc.retryinfo-bin" not in found
    return None


@contextmanager
def serving(bus: Any, *args: Any, **kwargs: Any) -> Iterator[str]:
    """The address of a collector of these senders, as `taking` has them."""
    with taking(bus, *args, **kwargs) as made, Server(made, "127.0.0.1:0") as server:
        yield server.address


@pytest.fixture
def client(bus: SqliteBus) -> Iterator[Client]:
    with serving(bus, networks=(HOME,)) as address:
        yield Client(address)


# --- what is taken ----------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, GZIP])
@pytest.mark.parametrize("signal", STUBS, ids=lambda signal: signal.name)
def test_what_is_sent_is_on_the_bus_as_it_came(
    client: Client, bus: SqliteBus, counted: Counted, signal: Any, compression: Any
) -> None:
    request = otlp.some(signal, 50, time.time_ns())
    answer = client.export(request, signal, compression=compression)
    assert (answer.status, answer.said) == (StatusCode.OK, signal.response())
    (message,) = told(bus, signal.stream)
    assert parse(signal, message.value) == request
    assert message.headers == {"sender": b"unauthenticated"}
    assert counted("nektar.collector.requests") == {("grpc", signal.name, "OK"): 1}


def test_a_request_of_nothing_is_taken_and_writes_nothing(client: Client, bus: SqliteBus) -> None:
    assert client.export(SPANS.request(), compression=GZIP).status is StatusCode.OK
    assert told(bus) == []


def test_what_is_not_sound_is_refused_alone_and_counted(client: Client, bus: SqliteBus) -> None:
    request = sound(5)
    spans = request.resource_spans[0].scope_spans[0].spans
    spans[0].span_id, spans[1].start_time_unix_nano, spans[2].trace_id = b"", 0, bytes(16)
    answer = client.export(request)
    assert answer.status is StatusCode.OK
    assert answer.said.partial_success.rejected_spans == 3
    assert "1 spans: span id: expected 8 bytes" in answer.said.partial_success.error_message
    (message,) = told(bus)
    assert len(parse(SPANS, message.value).resource_spans[0].scope_spans[0].spans) == 2


def test_what_was_signed_is_on_the_networks_log(client: Client, bus: SqliteBus) -> None:
    assert client.export(sound(1, attributes=attributes(7))).status is StatusCode.OK
    assert (len(told(bus, NETWORK)), len(told(bus))) == (1, 1)


def test_who_sent_it_is_told_by_the_token_alone(bus: SqliteBus) -> None:
    with serving(bus, TOKENS) as address:
        for name, token in TOKENS.items():
            assert Client(address, token).export(sound(1)).status is StatusCode.OK
            found = {senders.of(message.headers) for message in told(bus)}
            assert Sender(name, ROLES[name], HOME.name) in found
        for wrong in (None, "0123456789abcde", "0123456789abcdef0"):
            answer = Client(address, wrong).export(sound(1))
            assert (answer.status, answer.retried) == (StatusCode.UNAUTHENTICATED, False)
            assert "nektar token" in answer.why
            assert "0123456789abcdef" not in answer.why
    assert len(told(bus)) == 2


# --- what is not ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "compression", "says"),
    [
        (b"junk" * 50, None, "expected an ExportTraceServiceRequest in protobuf"),
        (b"junk" * 50, GZIP, "expected an ExportTraceServiceRequest in protobuf"),
        (b"\x1f\x8b" + b"junk" * 50, None, "expected a body in gzip"),
        (gzip.compress(b"junk" * 50, mtime=0)[:-1], None, "expected a body in gzip"),
        (otlp.spans(2, 10**18).SerializeToString(), None, "2 spans: time: expected one of the last 7 days"),
    ],
)
def test_what_is_wrong_is_not_to_be_sent_again(
    client: Client, bus: SqliteBus, body: bytes, compression: Any, says: str
) -> None:
    answer = client.send(body, compression=compression)
    assert (answer.status, answer.retried) == (StatusCode.INVALID_ARGUMENT, False)
    assert says in answer.why
    assert told(bus) == []
    assert client.export(sound()).status is StatusCode.OK


@pytest.mark.parametrize("compression", [None, GZIP])
def test_what_is_too_large_is_not_to_be_sent_again(client: Client, bus: SqliteBus, compression: Any) -> None:
    most = sound(40, attributes=[("t", "x" * (MAX_BODY_BYTES // 40 - 200))])
    assert client.export(most, compression=compression).status is StatusCode.OK
    for size in (MAX_BODY_BYTES + 1, 64 << 20):
        answer = client.send(bytes(size), compression=compression)
        assert (answer.status, answer.retried) == (StatusCode.RESOURCE_EXHAUSTED, False)
        assert str(MAX_BODY_BYTES) in answer.why


def test_a_bomb_takes_no_memory(client: Client) -> None:
    packed = gzip.compress(bytes(128 << 20), 1)
    before = peak()
    answer = client.send(packed)
    assert (answer.status, answer.retried) == (StatusCode.RESOURCE_EXHAUSTED, False)
    assert peak() - before < 32 << 20


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def test_what_is_not_known(client: Client) -> None:
    for method in ("trace.v1.TraceService/Import", "trace.v2.TraceService/Export"):
        assert client.send(b"", method).status is StatusCode.UNIMPLEMENTED
    answer = client.send(b"x" * 1000, compression=grpc.Compression.Deflate)
    assert (answer.status, answer.retried) == (StatusCode.UNIMPLEMENTED, False)


def test_a_stream_is_one_message(client: Client, bus: SqliteBus) -> None:
    answer = client.stream(iter([]))
    assert (answer.status, "one message" in answer.why) == (StatusCode.INVALID_ARGUMENT, True)
    assert client.stream(iter([sound(1).SerializeToString()] * 2)).status is StatusCode.OK
    assert len(told(bus)) == 1


def test_a_fault_of_ours_is_a_line_in_the_log_and_none_of_the_clients_business(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*given: Any) -> Any:
        raise ValueError("a secret")

    monkeypatch.setattr(Intake, "take", fails)
    answer = client.export(sound())
    assert (answer.status, "secret" in answer.why) == (StatusCode.INTERNAL, False)


# --- what has to wait -------------------------------------------------------------------------------


def test_what_the_bus_does_not_take_is_to_be_sent_again_and_stored_once(bus: SqliteBus) -> None:
    faulty = Faulty(bus)
    with serving(faulty, networks=(HOME,)) as address:
        request = sound(1, attributes=attributes(1))
        faulty.fault[OTLP_SPANS] = BusError("down")
        answer = Client(address).export(request)
        assert (answer.status, answer.after) == (StatusCode.UNAVAILABLE, refusals.AFTER)
        assert "the bus" in answer.why
        faulty.fault.clear()
        assert Client(address).export(request).status is StatusCode.OK
    assert (len(told(bus)), len(told(bus, NETWORK))) == (1, 1)


def test_a_sender_that_is_busy_is_told_when_to_send_again(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(*given: Any) -> Any:
        raise refusals.busy("too much of it", 2.5)

    monkeypatch.setattr(Intake, "take", busy)
    answer = client.export(sound())
    assert (answer.status, answer.after) == (StatusCode.RESOURCE_EXHAUSTED, 2.5)


def test_who_has_sent_too_much_is_told_when_there_is_room_again(bus: SqliteBus) -> None:
    with serving(bus, quota=Quota(items_per_second=10, burst=1)) as address:
        client = Client(address)
        assert client.export(sound(30)).status is StatusCode.OK
        answer = client.export(sound(1))
        assert answer.status is StatusCode.RESOURCE_EXHAUSTED
        assert answer.after == pytest.approx(2, abs=1)
        assert "telemetry.quota" in answer.why


def test_more_than_can_be_held_is_turned_away_until_there_is_room(
    bus: SqliteBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "MAX_HELD_BYTES", 4_000_000)  # of which one sender leaves as much as it holds
    monkeypatch.setattr(intake, "COMMIT_SECONDS", 60.0)
    faulty = Faulty(bus)
    faulty.open.clear()
    request = sound(8, attributes=[("t", "x" * 50_000)])  # 0.4 MB
    with serving(faulty) as address, ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(Client(address).export, request) for _ in range(10)]
        until(lambda: sum(each.done() for each in waiting) >= 6)  # the others wait for the bus
        faulty.open.set()
        answers = [each.result() for each in waiting]
        assert [a.status for a in answers].count(StatusCode.OK) == 4
        assert all(a.retried for a in answers if a.status is not StatusCode.OK)
        assert Client(address).export(request).status is StatusCode.OK
    assert len(told(bus)) == 5


class Slow:
    """Calls of clients that send the beginning of a message, and then nothing."""

    def __init__(self, client: Client, count: int) -> None:
        self._over = threading.Event()
        self._channel = client.channel()
        method = self._channel.stream_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        self.calls = [method.future(self._nothing(), metadata=client._metadata) for _ in range(count)]

    def _nothing(self) -> Iterator[bytes]:
        self._over.wait(60)
        yield from ()

    def close(self) -> None:
        self._over.set()
        self._channel.close()


def test_who_is_slow_at_sending_leaves_room_for_others(bus: SqliteBus) -> None:
    with serving(bus, TOKENS) as address:
        slow = Slow(Client(address, TOKENS["operator-1"]), 4 * otlp_grpc.READ_AT_ONCE)
        try:
            one = Client(address, TOKENS["aggregator"])
            assert one.export(sound(8, attributes=[("t", "x" * 400_000)])).status is StatusCode.OK
            assert not any(call.done() for call in slow.calls)
        finally:
            slow.close()


def test_who_is_too_slow_is_to_send_again(bus: SqliteBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "READ_SECONDS", 0.2)
    with serving(bus) as address:
        slow = Slow(Client(address), 3)
        try:
            assert [call.exception(60).code() for call in slow.calls] == [StatusCode.UNAVAILABLE] * 3
        finally:
            slow.close()
        assert Client(address).export(sound()).status is StatusCode.OK


def test_what_was_read_goes_its_way_when_its_client_gives_up(
    bus: SqliteBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "COMMIT_SECONDS", 60.0)
    faulty = Faulty(bus)
    faulty.open.clear()
    with taking(faulty) as made, Server(made, "127.0.0.1:0") as server:
        answer = Client(server.address).export(sound(), timeout=0.5)
        assert (answer.status, answer.retried) == (StatusCode.DEADLINE_EXCEEDED, False)
        until(lambda: len(made._under_way) == 1)
        faulty.open.set()
        until(lambda: not made._under_way)
        assert made._room._left == intake.MAX_HELD_BYTES
    assert len(told(bus)) == 1


# --- the server -------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_one_clear_line(bus: SqliteBus) -> None:
    with taking(bus) as made, bind("127.0.0.1:0", "x") as taken:
        at = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(CantListen, match=f"listen.otlp_grpc: {at}: Address already in use"):
            Server(made, at)


@pytest.mark.parametrize("listen", ["[::1]:0", "localhost:0", ":0"])
def test_where_it_listens(bus: SqliteBus, listen: str) -> None:
    with taking(bus) as made, Server(made, listen) as server:
        peers: list[str] = []
        sender = made._sender

        async def seen(authorization: str, peer: str) -> Any:
            peers.append(peer)
            return await sender(authorization, peer)

        made._sender = seen  # type: ignore[method-assign]
        assert Client(server.address.replace("0.0.0.0", "127.0.0.1")).export(sound()).status is StatusCode.OK
        assert peers == ["::1" if listen.startswith("[") else "127.0.0.1"]


def test_who_connects_and_asks_nothing_is_one_of_so_many(
    bus: SqliteBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = dict(otlp_grpc._OPTIONS) | {"grpc.max_allowed_incoming_connections": 3}
    monkeypatch.setattr(otlp_grpc, "_OPTIONS", [*options.items()])
    with taking(bus) as made, Server(made, "127.0.0.1:0") as server:
        host, _, port = server.address.rpartition(":")
        there: Sequence[socket.socket] = [socket.create_connection((host, int(port))) for _ in range(3)]
        for each in there:
            each.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            assert each.recv(1)  # its settings
        assert Client(server.address).export(sound(), timeout=2).status is not StatusCode.OK
        for each in there:
            each.close()
        until(lambda: Client(server.address).export(sound(), timeout=2).status is StatusCode.OK)

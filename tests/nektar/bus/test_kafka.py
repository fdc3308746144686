"""The contract on Apache Kafka, and what only Kafka has to show."""

from __future__ import annotations

import itertools
import random
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, codec, errors
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.cluster import ClusterMetadata

import nektar.bus
from nektar.bus import admin as admin_module
from nektar.bus import kafka, servers, topics
from nektar.bus.admin import Admin
from nektar.bus.kafka import KafkaBus
from nektar.bus.port import BusError, Delivered, Fenced, Message
from nektar.log import CHECKPOINTS, FINDINGS, NETWORK, OTLP_SPANS, ROWS, STREAMS, TELEMETRY
from tests.nektar.bus.contract import BusContract
from tests.nektar.bus.reading import S, T, everything, said, settle, take, texts, until

pytestmark = pytest.mark.real

_n = itertools.count()


@pytest.fixture
def bus_url(kafka_url: str) -> Iterator[str]:
    url = f"{kafka_url}?prefix=t{next(_n)}.&lease=1&partitions=3"
    yield url
    with opened(url) as bus:
        bus.delete()


class TestKafkaBus(BusContract):
    """The contract, held by Kafka."""

    @contextmanager
    def half_written(self, bus: Any, stream: str) -> Iterator[None]:
        bus._topics.ensure([stream])
        with bus.writer("half", 0) as writer:
            writer._producer.begin_transaction()
            writer._producer.send(bus._topics.name(stream), b"half", b"k", [], 0).get(30)
            yield
            writer._producer.abort_transaction()


def opened(url: str) -> KafkaBus:
    bus = nektar.bus.open(url)
    assert isinstance(bus, KafkaBus)
    return bus


@pytest.fixture
def bus(bus_url: str) -> Iterator[KafkaBus]:
    with opened(bus_url) as bus:
        yield bus


@pytest.fixture
def admin(kafka_url: str) -> Iterator[Any]:
    with closing(KafkaAdminClient(bootstrap_servers=kafka_url.removeprefix("kafka://"))) as admin:
        yield admin


# --- writers ----------------------------------------------------------------------------------------


def test_what_a_dead_writer_left_open_holds_readers_up_until_brokers_abort_it(
    bus: KafkaBus, bus_url: str, start: Any
) -> None:
    seconds = 2.0
    process = start("leave_open", bus_url, S, 0, seconds)
    assert process.stdout.readline() == "open\n"
    began = time.monotonic()
    process.kill()
    process.wait()
    with bus.writer("another", 0) as writer, bus.consumer("g", [S]) as consumer:
        settle(bus, consumer)  # nothing comes
        assert list(bus.read(S, 0)) == []
        writer.transaction(said([b"after"]))
        # Whoever writes behind it is told when it is read, not before.
        assert texts(everything(bus, S, 0)) == [b"after"]
        assert texts(take(consumer, 1)) == [b"after"]
    assert time.monotonic() - began < seconds + 8  # the brokers look twice a second


def test_a_writer_that_is_opened_again_aborts_at_once_what_it_left_open(
    bus: KafkaBus, bus_url: str, start: Any
) -> None:
    process = start("leave_open", bus_url, S, 0, 600)
    assert process.stdout.readline() == "open\n"
    process.kill()
    process.wait()
    with bus.writer("leave-open", 0) as successor:
        successor.transaction(said([b"after"]))
    assert texts(everything(bus, S, 0)) == [b"after"]


def test_a_zombie_is_fenced_in_the_middle_of_its_transaction(bus: KafkaBus, bus_url: str) -> None:
    with bus.writer("role", 0) as zombie, opened(bus_url) as other:

        def overtaken() -> None:
            with other.writer("role", 0) as successor:
                successor.transaction(said([b"successor"]))

        zombie._producer, producer = _Interrupted(zombie._producer, overtaken), zombie._producer
        with pytest.raises(Fenced):
            zombie.transaction(said([b"zombie"]))
        zombie._producer = producer
        with pytest.raises(Fenced):
            zombie.transaction(said([b"zombie"]))
    assert texts(everything(bus, S, 0)) == [b"successor"]


class _Interrupted:
    """A producer to which something happens after its messages are sent and before their end is written."""

    def __init__(self, producer: Any, happens: Any) -> None:
        self._producer = producer
        self._happens = happens

    def flush(self, timeout: float) -> None:
        self._producer.flush(timeout)
        self._happens()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)


def test_a_message_that_came_too_late_takes_its_whole_transaction_with_it(bus: KafkaBus) -> None:
    with bus.writer("w", 0) as writer:
        producer = writer._producer

        class Late(_Interrupted):
            def send(self, *arguments: Any) -> Any:
                sent = producer.send(*arguments)
                return _Failed() if arguments[1] == b"late" else sent

        writer._producer = Late(producer, lambda: None)
        with pytest.raises(BusError, match="no broker answers"):
            writer.transaction(said([b"1", b"late", b"2"]))
        writer._producer = producer
        writer.transaction(said([b"3"]))
    assert texts(everything(bus, S, 0)) == [b"3"]


class _Failed:
    exception = errors.KafkaTimeoutError("expired")

    def failed(self) -> bool:
        return True


# --- groups -----------------------------------------------------------------------------------------


def test_a_members_streams_are_of_the_same_partitions(bus: KafkaBus, bus_url: str) -> None:
    streams = [NETWORK, FINDINGS, ROWS]
    with opened(bus_url) as other, bus.consumer("g", streams) as a:
        settle(bus, a)
        with other.consumer("g", streams) as b:
            settle(bus, a, b)
            for member in (a, b):
                of = {stream: set() for stream in streams}
                for topic, partition in member._client.assignment():
                    of[topic.partition(".")[2]].add(partition)
                assert all(partitions == member.assignment() for partitions in of.values())


def test_groups_that_are_polled_without_waiting_come_to_hold_their_partitions(bus: KafkaBus) -> None:
    members = [bus.consumer(f"g{i}", [S]) for i in range(3)]

    def held() -> bool:
        for member in members:
            assert list(member.poll(0)) == []
            time.sleep(0.005)
        return all(len(member.assignment()) == bus.partitions for member in members)

    until(held)


def test_a_members_error_in_a_callback_reaches_whoever_polls(bus: KafkaBus) -> None:
    def refuse(_: frozenset[int]) -> None:
        raise LookupError("no such checkpoint")

    with bus.consumer("g", [S], on_assigned=refuse) as member, pytest.raises(LookupError, match="checkpoint"):
        until(lambda: bool(member.poll(0.1)))


# --- reading ----------------------------------------------------------------------------------------


def test_the_end_of_a_stream_may_be_no_message(bus: KafkaBus) -> None:
    with bus.writer("w", 0) as writer:
        writer.transaction(said([b"1"]))
        (message,) = bus.read(S, 0)
        assert bus.end(S, 0) == message.offset + 2  # the transaction's marker has an offset
        for _ in range(2):
            assert list(bus.read(S, 0, message.offset + 1)) == []
        writer.transaction(said([b"2"]))
        assert texts(bus.read(S, 0, message.offset + 1)) == [b"2"]


def test_last_finds_what_lies_far_back_and_what_is_new(
    bus: KafkaBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "BACK", 5)
    rng = random.Random(1)
    newest: dict[bytes, bytes] = {}
    with bus.writer("w", 0) as writer:
        for i in range(30):
            keys = [b"%d" % min(rng.randrange(12), rng.randrange(12)) for _ in range(rng.randrange(1, 5))]
            writer.transaction([Message(CHECKPOINTS, key, b"%d" % i) for key in keys])
            newest |= dict.fromkeys(keys, b"%d" % i)
            key = b"%d" % rng.randrange(13)
            found = bus.last(CHECKPOINTS, 0, key)
            assert (found and found.value) == newest.get(key)


def test_messages_that_are_gone_are_not_passed_over(bus: KafkaBus, admin: Any) -> None:
    with bus.writer("w", 0) as writer:
        for i in range(3):
            writer.transaction(said([b"%d" % i]))
    (where,) = (bus._where(S, 0),)
    admin.delete_records({where: 4})
    with pytest.raises(BusError, match="are gone; set retention"):
        bus.read(S, 0)
    assert texts(bus.read(S, 0, 4)) == [b"2"]


@pytest.mark.parametrize("committed", [None, 1])
def test_members_do_not_pass_over_messages_that_are_gone(
    bus: KafkaBus, admin: Any, committed: int | None
) -> None:
    with bus.writer("w", 0) as writer:
        for i in range(3):
            writer.transaction(said([b"%d" % i]))
    if committed:
        with bus.consumer("g", [S]) as member:
            take(member, 3)
            member.commit(S, 0, committed)
    admin.delete_records({bus._where(S, 0): 4})
    with (
        bus.consumer("g", [S]) as member,
        pytest.raises(BusError, match="are gone; set retention"),
    ):
        take(member, 1)


# --- topics -----------------------------------------------------------------------------------------


def test_topics_are_made_to_keep_everything_and_less_is_refused(
    bus: KafkaBus, bus_url: str, admin: Any
) -> None:
    networks = [stream for stream in STREAMS if stream not in TELEMETRY]
    with bus.consumer("g", networks), bus.consumer("h", TELEMETRY):
        bus.check()
    for stream, setting, value in (
        (NETWORK, "retention.ms", "604800000"),
        (FINDINGS, "retention.bytes", "1000000"),
        (ROWS, "cleanup.policy", "compact"),
        (CHECKPOINTS, "cleanup.policy", "delete"),
    ):
        name = bus._topics.name(stream)
        resource = ConfigResource(ConfigResourceType.TOPIC, name, {setting: value})
        admin.alter_configs([resource])
        until(lambda: complaint(bus) != "")  # brokers take a moment to know
        assert f"topic {name}: expected {setting}=" in complaint(bus)
        assert f"got {value}" in complaint(bus)
        assert (
            f"kafka-configs --bootstrap-server {bus._servers.hosts[0]} --alter --topic {name} "
            in complaint(bus)
        )
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, topics._settings(stream))])
        until(lambda: complaint(bus) == "")


def test_telemetry_is_kept_for_a_day_or_for_as_long_as_somebody_says(bus: KafkaBus, admin: Any) -> None:
    bus._topics.ensure(TELEMETRY)
    names = [bus._topics.name(stream) for stream in TELEMETRY]
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    for settings in admin.describe_configs(asked, config_filter="all")["topic"].values():
        assert settings["retention.ms"]["value"] == "86400000"
        assert settings["segment.ms"]["value"] == "10800000"
        assert settings["cleanup.policy"]["value"] == "delete"
    for value in ("604800000", "-1"):
        admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name, {"retention.ms": value}) for name in names]
        )
        bus.check()


def test_a_store_that_was_away_for_too_long_goes_on_with_the_telemetry_that_is_left(
    bus: KafkaBus, admin: Any
) -> None:
    with bus.writer("w", 0) as writer:
        writer.transaction(said([b"1", b"2"], OTLP_SPANS))
        with bus.consumer("g", TELEMETRY) as consumer:
            consumer.commit(OTLP_SPANS, 0, take(consumer, 2)[1].offset)
        writer.transaction(said([b"3"], OTLP_SPANS))
    admin.delete_records({bus._where(OTLP_SPANS, 0): 3})
    with bus.consumer("g", TELEMETRY) as consumer:
        assert texts(take(consumer, 1)) == [b"3"]


def complaint(bus: KafkaBus) -> str:
    try:
        bus.check()
    except BusError as error:
        return str(error)
    return ""


def test_the_number_of_partitions_is_settled_by_the_first_who_opens(bus: KafkaBus, bus_url: str) -> None:
    with opened(bus_url.replace("&partitions=3", "")) as again:
        assert again.partitions == 3
    with pytest.raises(BusError, match="made with 3 partitions"):
        opened(bus_url.replace("partitions=3", "partitions=4"))


def test_a_topic_of_another_number_of_partitions_is_refused(bus: KafkaBus, admin: Any) -> None:
    admin.create_topics({bus._topics.name(S): {"num_partitions": 2}}, wait_for_metadata=True)
    with pytest.raises(BusError, match="expected 3 partitions"):
        bus.consumer("g", [S])


def test_buses_of_two_prefixes_share_nothing_and_are_deleted_apart(bus: KafkaBus, kafka_url: str) -> None:
    with opened(f"{kafka_url}?prefix=other{next(_n)}.&partitions=2") as other:
        for each in (bus, other):
            with each.writer("w", 0) as writer, each.consumer("g", [S]) as consumer:
                writer.transaction(said([b"mine"]))
                consumer.commit(S, 0, take(consumer, 1)[0].offset + 1)
        other.delete()
        assert list(other.read(S, 0)) == []
    assert texts(bus.read(S, 0)) == [b"mine"]
    with bus.consumer("g", [S]) as consumer:
        assert consumer.committed(S, 0) is not None


def leaderless(monkeypatch: pytest.MonkeyPatch, topic: str, looks: float, error: int = 0) -> None:
    """For so many looks, nobody leads the last partition of the topic; or the topic has an error."""
    ask, left = Admin.ask, itertools.count()

    def look(self: Admin, method: str, *arguments: Any, **named: Any) -> Any:
        answer = ask(self, method, *arguments, **named)
        for each in answer if method == "describe_topics" else ():
            if each["name"] == topic and next(left) < looks:
                each["error_code"] = error
                each["partitions"][-1]["leader_id"] = -1
        return answer

    monkeypatch.setattr(Admin, "ask", look)


@pytest.mark.parametrize("error", [errors.NoError, errors.LeaderNotAvailableError])
@pytest.mark.parametrize("look", ["read", "end", "last"])
def test_a_topic_without_all_of_its_leaders_is_no_empty_one(
    bus: KafkaBus, bus_url: str, monkeypatch: pytest.MonkeyPatch, look: str, error: Any
) -> None:
    with bus.writer("w", 0) as writer:
        writer.transaction(said([b"1"]))
    leaderless(monkeypatch, bus._topics.name(S), 3, error.errno)
    with opened(bus_url) as another:
        found = {
            "read": lambda: texts(another.read(S, 0)) == [b"1"],
            "end": lambda: another.end(S, 0) > 0,
            "last": lambda: another.last(S, 0, b"k") is not None,
        }
        assert found[look]()


def test_a_topic_that_stays_without_a_leader_gets_one_clear_line(
    bus: KafkaBus, bus_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "PATIENCE_SECONDS", 0.1)
    bus._topics.ensure([S])
    with opened(bus_url) as another:
        leaderless(monkeypatch, another._topics.name(S), float("inf"))
        with pytest.raises(BusError, match=rf"{another._topics.name(S)}: no broker leads partition 2; see"):
            another.read(S, 0)
        leaderless(monkeypatch, another._topics.name(S), 1, errors.TopicAuthorizationFailedError.errno)
        with pytest.raises(BusError, match="TopicAuthorizationFailedError; see what this user may do"):
            another.read(S, 0)


def test_how_many_partitions_a_bus_has_is_not_guessed_while_nobody_leads_them(
    bus: KafkaBus, bus_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaderless(monkeypatch, bus._topics.name(CHECKPOINTS), 3)
    with opened(bus_url.replace("&partitions=3", "")) as another:
        assert another.partitions == 3


@pytest.mark.parametrize("read", ["end", "last"])
def test_a_reader_whose_broker_leads_no_more_finds_out_who_does(
    bus: KafkaBus, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    """The client asks the broker that it knows, which says that it does not lead, until its time is over."""
    with bus.writer("w", 0) as writer:
        writer.transaction([Message(S, b"k", b"1")])
    bus.end(S, 0)
    monkeypatch.setattr(kafka, "LED_MS", 50)
    end_offsets, request_update, stale = KafkaConsumer.end_offsets, ClusterMetadata.request_update, True

    def ends(self: Any, partitions: Any, timeout_ms: float) -> Any:
        if stale:
            time.sleep(timeout_ms / 1000)
            raise errors.KafkaTimeoutError("Failed to get offsets by timestamps")
        return end_offsets(self, partitions, timeout_ms)

    def update(self: Any) -> Any:
        nonlocal stale
        stale = False
        return request_update(self)

    monkeypatch.setattr(KafkaConsumer, "end_offsets", ends)
    monkeypatch.setattr(ClusterMetadata, "request_update", update)
    if read == "end":
        assert bus.end(S, 0) >= 1
    else:
        found = bus.last(S, 0, b"k")
        assert found is not None
        assert found.value == b"1"


def test_deleting_goes_on_when_it_is_asked_again_because_the_answer_was_lost(
    bus: KafkaBus, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bus.writer("w", 0) as writer, bus.consumer("g", [S]) as consumer:
        writer.transaction(said([b"1"]))
        consumer.commit(S, 0, take(consumer, 1)[0].offset + 1)
    delete, lost = KafkaAdminClient.delete_topics, iter([True])

    def goes(self: Any, names: Any, **named: Any) -> Any:
        answer = delete(self, names, **named)
        if next(lost, False):
            until(lambda: not set(names) & set(admin.list_topics()))
            raise errors.KafkaConnectionError("the broker went after it had done it")
        return answer

    monkeypatch.setattr(KafkaAdminClient, "delete_topics", goes)
    bus.delete()
    assert next(lost, None) is None
    assert [g for g in admin.list_groups() if g["group_id"].startswith(bus._prefix)] == []


def test_a_bus_that_was_deleted_remembers_nothing_of_what_was_on_it(bus: KafkaBus, admin: Any) -> None:
    with bus.writer("w", 0) as writer:
        for _ in range(3):
            writer.transaction(said([b"old"]))
    newest = bus.last(S, 0, b"k")
    assert newest is not None
    beyond = newest.offset + 1
    assert list(bus.read(S, 0, beyond)) == []
    bus.delete()
    until(lambda: not any(name.startswith(bus._prefix) for name in admin.list_topics()))
    with bus.writer("w", 0) as writer:
        writer.transaction(said([b"new"]))
        newest = bus.last(S, 0, b"k")
        assert newest is not None
        assert newest.value == b"new"
        writer.transaction(said([b"more"] * 8))
    assert bus.read(S, 0, beyond)[0].offset == beyond


def test_whole_brokers_are_not_deleted(kafka_url: str) -> None:
    with opened(kafka_url) as whole, pytest.raises(BusError, match="prefix"):
        whole.delete()


# --- URLs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("kafka://", "no host"),
        ("kafka://localhost", "HOST:PORT"),
        ("kafka://localhost:x", "HOST:PORT"),
        ("kafka://localhost:9092/topic", "HOST:PORT"),
        ("kafka://localhost:9092,:1", "HOST:PORT"),
        ("kafka://localhost:9092?lease=soon", "number"),
        ("kafka://localhost:9092?lease=-1", "lease"),
        ("kafka://localhost:9092?leash=1", "leash"),
        ("kafka://u:secret@localhost:9092?tls=yes", "tls"),
        ("kafka://u:secret@localhost:9092?sasl=GSSAPI", "sasl"),
        ("kafka://u:secret@localhost:9092?ca=/nowhere", "ca=FILE"),
        ("kafka://u:se@cret@localhost", "HOST:PORT"),
        ("kafka://u:s3?cret@localhost", "got localhost"),
        ("kafka://u:s3?a=cret&b=cret@localhost?leash=1", "leash"),
        ("kafka://u:secret", "HOST:PORT"),
        ("kafka://u:se,cret:1", "HOST:PORT"),
        ("kafka://u:secret/9092", "HOST:PORT"),
        ("kafka://localhost:9092?S3cret", "the options"),
        ("kafka://localhost:9092?lease=secret", "number"),
        ("kafka://localhost:9092?tls=secret", "tls"),
        ("kafka://localhost:9092?sasl=secret", "sasl"),
        ("u:secret@localhost:9092", "sqlite:///DIRECTORY or kafka://HOST:PORT"),
        ("KAFKA:secret://localhost:9092", "sqlite:///DIRECTORY or kafka://HOST:PORT"),
    ],
)
def test_a_url_that_names_no_kafka_gets_one_clear_line(url: str, says: str) -> None:
    with pytest.raises(BusError, match=says) as told:
        nektar.bus.open(url)
    assert "\n" not in str(told.value)
    assert "cret" not in str(told.value)


def test_brokers_that_do_not_answer_get_one_clear_line_without_the_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(servers, "OPEN_SECONDS", 0.3)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"kafka://someone:secret@127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(BusError, match="no broker answers; see that one runs") as told:
            nektar.bus.open(url)
    assert "\n" not in str(told.value)
    assert "secret" not in str(told.value)
    assert nektar.bus.shown(url) == url.replace("someone:secret@", "")


def test_a_login_and_certificates_are_what_the_client_is_given(tmp_path: Any) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    given = servers.servers("someone:p%40ss%3A@a:1,b:2", {"sasl": "SCRAM-SHA-512", "ca": str(ca)}).client()
    expected = {
        "bootstrap_servers": ["a:1", "b:2"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "someone",
        "sasl_plain_password": "p@ss:",
        "ssl_cafile": str(ca),
    }
    assert given.items() >= expected.items()
    assert servers.servers("a:1", {}).client()["security_protocol"] == "PLAINTEXT"
    assert servers.servers("a:1", {"tls": "1"}).client()["security_protocol"] == "SSL"


def test_a_stream_with_its_prefix_is_a_name_that_kafka_takes(bus: KafkaBus) -> None:
    with pytest.raises(BusError, match="stream"), bus.writer("w", 0) as writer:
        writer.transaction([Message("x" * 249, b"k", b"v")])


def test_a_record_of_somebody_elses_without_key_or_value_is_read_as_empty() -> None:
    class Theirs:
        partition, offset, key, value, timestamp = 1, 7, None, None, 2500
        headers = (("h", b"v"), ("nothing", None))

    expected = Delivered(T, 1, 7, b"", b"", {"h": b"v", "nothing": b""}, 2.5)
    assert kafka.delivered(T, Theirs()) == expected


def test_an_admin_that_is_closed_while_it_is_asked_leaves_no_client_open(
    bus: KafkaBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Admin(bus._servers)
    opened: list[Any] = []

    class Going(KafkaAdminClient):
        def __init__(self, **settings: Any) -> None:
            asked.close()
            super().__init__(**settings)
            opened.append(self)

    def goes(*_: Any, **__: Any) -> Any:
        raise errors.KafkaConnectionError("gone")

    monkeypatch.setattr(KafkaAdminClient, "describe_cluster", goes)
    monkeypatch.setattr(admin_module, "KafkaAdminClient", Going)
    with pytest.raises(BusError, match="no broker answers"):
        asked.ask("describe_cluster")
    assert [client._closed for client in opened] == [True]


# --- what others write --------------------------------------------------------------------------------


def send(bus: KafkaBus, stream: str, value: bytes, compression: str | None) -> None:
    """As a Collector's Kafka exporter does."""
    bus._topics.ensure([stream])
    settings = bus._servers.client()
    with closing(KafkaProducer(**settings, compression_type=compression)) as producer:
        producer.send(bus._topics.name(stream), value, partition=0).get(20)


@pytest.mark.parametrize("compression", [None, "gzip", "lz4", "zstd"])
def test_what_a_collectors_exporter_compresses_is_read(bus: KafkaBus, compression: str | None) -> None:
    send(bus, OTLP_SPANS, b"spans" * 100_000, compression)
    with bus.consumer("g", TELEMETRY) as consumer:
        (message,) = take(consumer, 1)
    assert message.value == b"spans" * 100_000


def test_a_compression_that_is_not_read_gets_one_clear_line(
    bus: KafkaBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as sending:
        sending.setattr(codec, "snappy", Snappy)
        send(bus, OTLP_SPANS, b"s" * 1000, "snappy")
    monkeypatch.setattr(codec, "snappy", None)
    with (
        bus.consumer("g", TELEMETRY) as consumer,
        pytest.raises(BusError, match=rf"topic {bus._topics.name(OTLP_SPANS)}: .*gzip, lz4, zstd") as told,
    ):
        until(lambda: bool(consumer.poll(0.1)))
    assert "snappy" in str(told.value)
    assert "\n" not in str(told.value)


class Snappy:
    """As little of it as makes blocks of some kB: each run of a byte is that byte and copies of it."""

    @staticmethod
    def compress(block: bytes) -> bytes:
        out = bytearray([len(block) & 0x7F | 0x80, len(block) >> 7])
        for byte, run in itertools.groupby(block):
            out += bytes([0, byte])
            left = len(list(run)) - 1
            while left > 0:
                copied = min(left, 64)
                out += bytes([copied - 1 << 2 | 2, 1, 0])
                left -= copied
        return bytes(out)

"""A stream's topic: its name, made where it is missing, and kept for ever, where it is no telemetry.

`nektar.checkpoints` is made when a bus is first opened and settles the number of partitions; the others come
with their first writer or consumer. A topic that somebody else has made is taken as it is, if it has as many
partitions; whether it keeps its messages is what `check` sees.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from kafka import errors
from kafka.admin import ConfigResource, ConfigResourceType

from nektar.bus.admin import Admin
from nektar.bus.port import PARTITIONS, BusError
from nektar.bus.rules import COMPACTED, KEPT_SECONDS, PASSING, check_stream
from nektar.bus.servers import OPEN_SECONDS, PATIENCE_SECONDS, Servers
from nektar.log import CHECKPOINTS, STREAMS

MAX_PARTITIONS = 1024

# A message of MAX_MESSAGE_BYTES with its key and headers; Kafka's default leaves them 588 bytes.
MAX_BYTES = "2097152"
FOR_EVER = "-1"
# What has its time leaves by whole segments, the newest of which is never whole.
SEGMENTS = 8

# A new topic's partitions have leaders after some ms, which nothing announces; those of a broker that died,
# after some seconds.
LOOK_AGAIN = 0.005
LONGEST_LOOK = 0.1


class Topics:
    """The topics of the bus that `prefix` names."""

    def __init__(self, servers: Servers, admin: Admin, prefix: str, partitions: int | None) -> None:
        """Raises BusError where the bus has another number of partitions than wanted."""
        if partitions is not None and not 1 <= partitions <= MAX_PARTITIONS:
            raise BusError(f"bus: expected 1 to {MAX_PARTITIONS} partitions; got {partitions}")
        if prefix:
            check_stream(prefix)
        self._servers = servers
        self._admin = admin
        self._prefix = prefix
        self._known: set[str] = set()
        found = self._found([self.name(CHECKPOINTS)])
        self.partitions = len(next(iter(found.values()), ())) or partitions or PARTITIONS
        if partitions not in (None, self.partitions):
            raise BusError(
                f"{self.name(CHECKPOINTS)}: this bus was made with {self.partitions} partitions, which "
                f"can't change; got partitions={partitions}"
            )
        self.ensure([CHECKPOINTS])

    def name(self, stream: str) -> str:
        check_stream(self._prefix + stream)
        return self._prefix + stream

    def there(self, stream: str) -> bool:
        """Whether the stream has a topic. Raises BusError where that can't be known."""
        if stream not in self._known:
            self._know(self._found([self.name(stream)]))
        return stream in self._known

    def ensure(self, streams: Iterable[str]) -> None:
        """Make the topics that are missing, and wait until they can be used. Raises BusError."""
        wanted = {self.name(stream) for stream in streams if stream not in self._known}
        if not wanted:
            return
        found = self._found(wanted)
        if missing := wanted - found.keys():
            self._make(missing)
            deadline = time.monotonic() + OPEN_SECONDS
            while wanted - (found := self._found(wanted)).keys():
                if time.monotonic() > deadline:
                    raise BusError(
                        f"topics {', '.join(sorted(wanted - found.keys()))}: made, but the brokers do not "
                        "know them; see that all of them are of one Kafka"
                    )
                time.sleep(LOOK_AGAIN)
        self._know(found)

    def check(self) -> None:
        """Raises BusError for the first topic that loses messages or keeps what it should not; how long
        telemetry is kept is its owner's to say."""
        names = [self.name(stream) for stream in STREAMS]
        there = self._found(names)
        asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(there)]
        configured = self._admin.ask("describe_configs", asked, config_filter="all")["topic"] if asked else {}
        for name, settings in sorted(configured.items()):
            stream = name.removeprefix(self._prefix)
            if stream in PASSING:
                continue
            wanted = _settings(stream)
            for key in ("cleanup.policy", "retention.ms", "retention.bytes"):
                got = settings[key]["value"]
                if got != wanted[key]:
                    raise BusError(
                        f"topic {name}: expected {key}={wanted[key]}; got {got}: what the log loses can't be "
                        f"folded again. Set it (kafka-configs --bootstrap-server {self._servers.hosts[0]} "
                        f"--alter --topic {name} --add-config {key}={wanted[key]})"
                    )
        self._know(there)

    def epoch(self, transactional_id: str) -> tuple[int, int]:
        """(producer id, epoch) of whoever opened this id last."""
        known = self._admin.ask("describe_transactions", [transactional_id])[transactional_id]
        return known.producer_id, known.producer_epoch

    def delete(self) -> None:
        """Delete all topics of the prefix, and what its groups have committed."""
        topics = [name for name in self._admin.ask("list_topics") if name.startswith(self._prefix)]
        if topics:
            answer = self._admin.ask("delete_topics", topics, raise_errors=False)
            for topic in answer["topics"]:
                kind = errors.for_code(topic["error_code"])
                # Unknown is what has just been deleted: we may have asked before, and lost the answer.
                if kind not in (errors.NoError, errors.UnknownTopicOrPartitionError):
                    raise BusError(
                        f"topic {topic['name']}: can't be deleted: {kind.__name__}: {topic['error_message']}"
                    )
        groups = [
            group["group_id"]
            for group in self._admin.ask("list_groups")
            if group["group_id"].startswith(self._prefix)
        ]
        if groups:
            self._admin.ask("delete_groups", groups)
        self._known.clear()

    def _found(self, names: Iterable[str]) -> dict[str, list[Mapping[str, Any]]]:
        """Topic → its partitions, of those topics that are there. Waits until a broker leads each partition:
        what nobody answers for is not empty. Raises BusError where none does for PATIENCE_SECONDS."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        pause = LOOK_AGAIN
        while True:
            found, wrong = {}, ""
            for topic in self._admin.ask("describe_topics", sorted(names)):
                kind = errors.for_code(topic["error_code"])
                if kind is errors.UnknownTopicOrPartitionError:
                    continue
                found[topic["name"]] = topic["partitions"]
                wrong = wrong or _wrong(topic)
            if not wrong:
                return found
            if time.monotonic() > deadline:
                raise BusError(f"topic {wrong}; see that enough brokers run, and what their logs say")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_LOOK)

    def _know(self, found: Mapping[str, list[Mapping[str, Any]]]) -> None:
        for name, partitions in found.items():
            if len(partitions) != self.partitions:
                raise BusError(
                    f"topic {name}: expected {self.partitions} partitions, as the bus's other streams have; "
                    f"got {len(partitions)}. Delete the topic, or name another prefix"
                )
            self._known.add(name.removeprefix(self._prefix))

    def _make(self, names: Iterable[str]) -> None:
        """Ask for topics; one that another process has just made is as good."""
        asked = {
            name: {
                "num_partitions": self.partitions,
                "configs": _settings(name.removeprefix(self._prefix)),
            }
            for name in sorted(names)
        }
        answer = self._admin.ask("create_topics", asked, raise_errors=False)
        for topic in answer["topics"]:
            kind = errors.for_code(topic["error_code"])
            if kind not in (errors.NoError, errors.TopicAlreadyExistsError):
                raise BusError(
                    f"topic {topic['name']}: can't be made: {kind.__name__}: {topic['error_message']}"
                )


def _wrong(topic: Mapping[str, Any]) -> str:
    """What keeps a topic from being used; empty: nothing. Raises BusError where that will not pass."""
    kind = errors.for_code(topic["error_code"])
    said = f"{topic['name']}: {kind.__name__}"
    if kind is not errors.NoError:
        if not issubclass(kind, errors.RetriableError):
            raise BusError(f"topic {said}; see what this user may do and that the name is right")
        return said
    led = {each["partition_index"]: each["leader_id"] >= 0 for each in topic["partitions"]}
    without = ", ".join(str(partition) for partition in sorted(led) if not led[partition])
    return f"{topic['name']}: no broker leads partition {without}" if without else ""


def _settings(stream: str) -> dict[str, str]:
    settings = {
        "cleanup.policy": "compact" if stream in COMPACTED else "delete",
        "retention.ms": FOR_EVER,
        "retention.bytes": FOR_EVER,
        "max.message.bytes": MAX_BYTES,
    }
    if stream in PASSING:
        kept = int(KEPT_SECONDS * 1000)
        settings |= {"retention.ms": str(kept), "segment.ms": str(kept // SEGMENTS)}
    return settings

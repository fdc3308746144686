"""Watchers are told every version of every finding, by real receivers' own account of what came."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nektar import bus as buses
from nektar.bus.port import Bus, Message, partition_of
from nektar.config import ConfigError, Watcher
from nektar.health import Health
from nektar.log import DEAD, FINDINGS, PART_HEADER
from nektar.model import Network
from processors import watchers
from processors.outputs import cloud_event
from processors.watchers import PAUSES, pause
from processors.webhook import Answer, Outcome, webhook_id
from tests.processors.told import (
    OTHER_SECRET,
    SECRET,
    Life,
    Serving,
    config,
    finding,
    left,
    open_bus,
    put,
    role,
    until,
)

HOME = Network("home", 1, {})
# What tests wait between attempts: as everybody does, only quicker.
QUICK = {Outcome.LATER: (0.01, 0.05), Outcome.REFUSED: (0.01, 0.05), Outcome.GONE: (3600.0, 3600.0)}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for outcome, times in QUICK.items():
        monkeypatch.setitem(PAUSES, outcome, times)


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    opened = open_bus(tmp_path / "bus")
    yield opened
    opened.close()


def event(n: int, offset: int = 1, status: str = "seen", condition: str = "equivocation") -> bytes:
    return cloud_event(HOME, finding(n, status, condition), offset)


def ids(serving: Serving) -> list[str]:
    return [delivery.id for delivery in serving.receiver.kept]


def test_every_version_comes_once_and_verified_where_nothing_goes_wrong(bus: Bus, tmp_path: Path) -> None:
    life = Life(1)
    life.go_on(bus, 40)  # before anybody is told: a watcher begins with the first
    with Serving() as serving, role(tmp_path / "bus", serving.watcher()):
        until(lambda: len(serving.receiver.kept) >= 40)
        life.go_on(bus, 40)
        until(lambda: not left(bus))
        life.check(serving.receiver.kept)
        assert serving.receiver.requests == 80


@pytest.mark.parametrize("seed", range(3))
def test_a_receiver_that_fails_in_every_way_loses_nothing(bus: Bus, tmp_path: Path, seed: int) -> None:
    rng, life = random.Random(f"faults {seed}"), Life(seed)
    faults = ["500", "503", "429", "400", "404", "302", "cut", "drop"]
    with Serving() as serving:
        serving.receiver.fail([rng.choice(["", *faults]) for _ in range(60)] + ["slow"])
        with role(tmp_path / "bus", serving.watcher(timeout=0.5)):
            for _ in range(6):
                life.go_on(bus, 10)
            until(lambda: not left(bus))
        life.check(serving.receiver.kept)
        assert serving.receiver.requests > 60


def test_a_receiver_that_is_down_for_a_while_is_told_all_when_it_is_back(bus: Bus, tmp_path: Path) -> None:
    life = Life(2)
    with Serving() as serving:
        with role(tmp_path / "bus", serving.watcher()):
            for _ in range(3):
                life.go_on(bus, 10)
                until(lambda: not left(bus))
                serving.down()
                life.go_on(bus, 10)
                serving.up()
            until(lambda: not left(bus))
        life.check(serving.receiver.kept)


def test_killed_at_random_moments_it_loses_nothing(bus: Bus, tmp_path: Path) -> None:
    rng, life = random.Random("kills"), Life(3)
    with Serving() as serving:
        (tmp_path / "secret").write_text(SECRET)
        given = msgspec.to_builtins(config(msgspec.structs.replace(serving.watcher(), secret="file:secret")))
        given["bus"] = f"sqlite://{tmp_path / 'bus'}?lease=2"
        (tmp_path / "nektar.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(given))))
        command = [
            sys.executable,
            "-m",
            "cli.main",
            "up",
            "watchers",
            "--config",
            str(tmp_path / "nektar.yaml"),
        ]
        kills = 4
        for kill in range(kills + 1):
            life.go_on(bus, 40)
            serving.receiver.fail([rng.choice(["", "500", "cut", "drop"]) for _ in range(4)])
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            try:
                if kill < kills:
                    some = serving.receiver.requests + rng.randint(1, 40)
                    until(lambda n=some: serving.receiver.requests >= n)  # type: ignore[misc]
                    time.sleep(rng.choice((0.0, 0.001, 0.005)))
                    process.send_signal(signal.SIGKILL)
                else:
                    until(lambda: not left(bus))
                    process.send_signal(signal.SIGTERM)
                assert process.wait(30) == (-signal.SIGKILL if kill < kills else 0)
            finally:
                process.kill()
                process.wait()
        life.check(serving.receiver.kept)
        assert len(serving.receiver.kept) > len(life.events)


def test_a_receiver_that_asks_for_no_more_is_asked_once_and_again_by_the_next_role(
    bus: Bus, tmp_path: Path
) -> None:
    with Serving() as gone, Serving() as well:
        gone.receiver.fail(["410"])
        put(bus, "home", event(1))
        with role(tmp_path / "bus", gone.watcher("gone"), well.watcher("well")):
            until(lambda: gone.receiver.requests > 0)
            put(bus, "home", event(2), event(3))
            until(lambda: not left(bus, "well"))
            assert (gone.receiver.requests, left(bus, "gone")) == (1, 3)
        with role(tmp_path / "bus", gone.watcher("gone")):
            until(lambda: not left(bus, "gone"))
        assert sorted(ids(gone)) == sorted(map(webhook_id, [event(1), event(2), event(3)]))


def test_a_watcher_whose_receiver_says_nothing_holds_up_no_other_and_no_end(bus: Bus, tmp_path: Path) -> None:
    life = Life(4)
    with socket.socket() as mute, Serving() as serving:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        silent = serving.watcher("silent", url=f"http://127.0.0.1:{mute.getsockname()[1]}/", timeout=60)
        life.go_on(bus, 30)
        with role(tmp_path / "bus", silent, serving.watcher()):
            until(lambda: not left(bus))
            began = time.monotonic()
        assert time.monotonic() - began < 10
        life.check(serving.receiver.kept)
        assert left(bus, "silent") == 30


def test_a_name_that_nobody_looks_up_holds_up_no_end(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answers = list[threading.Thread](), threading.Event()

    def hang(*_: object, **__: object) -> list[Any]:
        asked.append(threading.current_thread())
        assert answers.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    put(bus, "home", event(1))
    with Serving() as serving:
        try:
            with role(tmp_path / "bus", serving.watcher(url="http://receiver.example/")):
                until(lambda: bool(asked))
                began = time.monotonic()
            assert time.monotonic() - began < 10
            assert asked[0].daemon  # the process's end waits for it no more than the role's
        finally:
            answers.set()
            asked[0].join(30)
    assert left(bus) == 1


def test_a_watcher_gets_the_networks_and_conditions_that_it_wants(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers.plugins, "names", lambda group: ["equivocation", "missed"])
    far = cloud_event(Network("away", 1, {}), finding(1), 1)
    missed = event(2, condition="missed")
    put(bus, "away", far)
    put(bus, "home", event(1), missed)
    with Serving() as serving:
        told = {
            "all": serving.watcher("all"),
            "away": serving.watcher("away", networks=["away"]),
            "missed": serving.watcher("missed", conditions=["missed"]),
            "none": serving.watcher("none", networks=["away"], conditions=["missed"]),
        }
        wanted = {"all": [far, event(1), missed], "away": [far], "missed": [missed], "none": []}
        for name, watcher in told.items():
            serving.receiver.kept.clear()
            with role(tmp_path / "bus", watcher):
                until(lambda n=name: not left(bus, n))  # type: ignore[misc]
            assert sorted(ids(serving)) == sorted(map(webhook_id, wanted[name]))


def test_a_condition_that_nobody_detects_is_a_mistake_and_not_silence(bus: Bus) -> None:
    with (
        Serving() as serving,
        pytest.raises(ConfigError, match=r"watchers\.w\.conditions.*equivocation.*'x'"),
    ):
        watchers.run(config(serving.watcher(conditions=["x"])), bus, threading.Event(), Health())


def test_what_cannot_be_read_is_a_dead_letter_and_holds_nothing_up(bus: Bus, tmp_path: Path) -> None:
    poison = [
        b"",
        b"{}",
        b"\xff\xfe",
        event(1)[:-1],
        event(1).replace(b'"1.0"', b'"0.3"'),
        b'"x"',
        b"[" * 5000,
    ]
    for n, value in enumerate(poison):
        put(bus, "home", event(n), value)
    with Serving() as serving, role(tmp_path / "bus", serving.watcher()):
        until(lambda: not left(bus))
        assert sorted(ids(serving)) == sorted(webhook_id(event(n)) for n in range(len(poison)))
    letters = [m for p in range(bus.partitions) for m in bus.read(DEAD, p)]
    assert [letter.value for letter in letters] == poison
    assert all(letter.headers["reason"].startswith(b"expected") for letter in letters)
    assert letters[0].headers["network"] == b"home"
    assert letters[0].key.startswith(b"watchers.w nektar.findings/")


def test_an_event_in_parts_comes_whole_and_parts_out_of_turn_are_dead_letters(
    bus: Bus, tmp_path: Path
) -> None:
    whole = event(1)
    partition = 0
    with bus.writer("parts", partition) as writer:
        for values in (
            [(whole[:50], b"0/3"), (whole[50:90], b"1/3"), (whole[90:], b"2/3")],
            [(b"stray", b"1/2")],
            [(event(2), b"")],
        ):
            writer.transaction(
                Message(FINDINGS, b"home", value, {PART_HEADER: part} if part else {})
                for value, part in values
            )
    with Serving() as serving:
        serving.receiver.fail(["500"])
        with role(tmp_path / "bus", serving.watcher()):
            until(lambda: not left(bus))
        assert sorted(ids(serving)) == sorted([webhook_id(whole), webhook_id(event(2))])
    assert [letter.value for letter in bus.read(DEAD, partition)] == [b"stray"]


def test_a_record_half_read_while_another_is_not_taken_stays_whole(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers, "BATCH", 2)
    monkeypatch.setattr(watchers, "ALIVE", 0.0)
    monkeypatch.setitem(PAUSES, Outcome.LATER, (0.3, 0.3))
    whole = event(1)
    cuts = range(0, len(whole), len(whole) // 5)
    parts = [(whole[at : at + len(whole) // 5], f"{i}/{len(cuts)}") for i, at in enumerate(cuts)]
    with bus.writer("parts", 0) as writer, bus.writer("other", 1) as other:
        writer.transaction(Message(FINDINGS, b"home", v, {PART_HEADER: part.encode()}) for v, part in parts)
        other.transaction([Message(FINDINGS, b"home", event(2))])
    with Serving() as serving:
        serving.receiver.fail(["500"] * 4)
        with role(tmp_path / "bus", serving.watcher()):
            until(lambda: not left(bus))
        assert sorted(ids(serving)) == sorted([webhook_id(whole), webhook_id(event(2))])
    assert [letter for p in range(bus.partitions) for letter in bus.read(DEAD, p)] == []


def test_parts_of_two_processors_findings_may_come_in_turn(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers, "BATCH", 2)  # so that neither is whole within a batch
    events = {b"equivocation": event(1), b"missed": event(2)}
    parts = [
        Message(FINDINGS, b"home", value[cut], {"processor": processor, PART_HEADER: part})
        for cut, part in ((slice(99), b"0/3"), (slice(99, 200), b"1/3"), (slice(200, None), b"2/3"))
        for processor, value in events.items()
    ]
    # As of two transactions that were open at once, and other findings between.
    with bus.writer("parts", 0) as writer:
        writer.transaction([*parts[:3], Message(FINDINGS, b"home", event(3)), *parts[3:]])
    with Serving() as serving:
        serving.receiver.fail(["500"] * 3)
        with role(tmp_path / "bus", serving.watcher()):
            until(lambda: not left(bus))
        assert sorted(ids(serving)) == sorted(map(webhook_id, [*events.values(), event(3)]))
    assert bus.read(DEAD, 0) == []


def test_a_dead_letter_whose_writer_was_opened_elsewhere_is_written_again_and_ends_nobody(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = partition_of("home", bus.partitions)
    letter, asked = watchers.letter, list[Any]()

    def overtaken(*given: Any) -> list[Message]:
        if not asked:  # another member writes one meanwhile
            bus.writer(f"watchers.w-{partition}", partition).close()
        asked.append(given)
        return letter(*given)

    monkeypatch.setattr(watchers, "letter", overtaken)
    put(bus, "home", event(1), b"{}", event(2))
    with Serving() as serving, role(tmp_path / "bus", serving.watcher()):
        until(lambda: not left(bus))
        assert sorted(ids(serving)) == sorted(map(webhook_id, [event(1), event(2)]))
    assert len(asked) == 2
    assert [letter.value for letter in bus.read(DEAD, partition)] == [b"{}"]


def test_events_signed_with_another_secret_are_refused_and_come_again_with_the_right_one(
    bus: Bus, tmp_path: Path
) -> None:
    put(bus, "home", event(1))
    with Serving() as serving:
        with role(tmp_path / "bus", serving.watcher(secret=OTHER_SECRET)):
            until(lambda: serving.receiver.requests >= 3)
        assert not any(delivery.verified for delivery in serving.receiver.kept)
        assert left(bus) == 1
        serving.receiver.kept.clear()
        with role(tmp_path / "bus", serving.watcher()):
            until(lambda: not left(bus))
        assert [d.verified for d in serving.receiver.kept] == [True]


def test_a_retraction_reaches_the_watcher_after_what_it_retracts(bus: Bus, tmp_path: Path) -> None:
    put(bus, "home", event(1), event(1, 2, "safe"), event(1, 3, "retracted"))
    with Serving() as serving:
        serving.receiver.fail(["500", "", "500"])
        with role(tmp_path / "bus", serving.watcher()):
            until(lambda: not left(bus))
        said = [(d.type, d.status) for d in serving.receiver.kept]
    assert said == [(f"nektar.finding.{status}", status) for status in ("seen", "safe", "retracted")]


def test_nothing_secret_is_logged_and_trouble_is_not_a_flood(
    bus: Bus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    put(bus, "home", *(event(n) for n in range(5)))
    with Serving() as serving:
        serving.receiver.fail(["500", "404", "drop", "cut", "302"] * 4)
        url = f"http://user:pass-word@127.0.0.1:{serving.port}/path-token?key=query-token"
        with role(tmp_path / "bus", serving.watcher(url=url)):
            until(lambda: not left(bus))
        serving.down()
        put(bus, "home", event(9))
        with role(tmp_path / "bus", serving.watcher(url=url)):
            until(lambda: any("can't connect" in record.getMessage() for record in caplog.records))
    said = [record.getMessage() for record in caplog.records if record.name.startswith("processors")]
    for word in ("pass-word", "path-token", "query-token", SECRET[6:]):
        assert word not in caplog.text
    assert len([line for line in said if "not told" in line]) == 2
    assert len([line for line in said if "told again" in line]) == 1


def test_the_role_waits_where_nobody_is_to_be_told(bus: Bus, tmp_path: Path) -> None:
    with role(tmp_path / "bus"):
        pass


class Slow:
    """A receiver that takes some time, of what it is sent."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.sent = list[bytes]()

    def has(self, count: int) -> bool:
        return len(self.sent) >= count

    async def __aenter__(self) -> Slow:
        return self

    async def __aexit__(self, *exc: object) -> None: ...

    async def send(self, event: bytes, traceparent: str = "") -> Answer:
        self.sent.append(event)
        await asyncio.sleep(self._seconds)
        return Answer(Outcome.TAKEN, "it answers 204")


class Hanging(Slow):
    """A receiver of which a member hangs, as one does whose machine has no memory left, until it is told."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.goes_on = threading.Event()

    async def send(self, event: bytes, traceparent: str = "") -> Answer:
        answer = await super().send(event, traceparent)
        assert self.goes_on.wait(30)
        return answer


@contextmanager
def members(url: str, *receivers: Any) -> Iterator[list[threading.Thread]]:
    """Members of one watcher's group, each with a receiver and a bus of its own: threads to be started."""
    to = Watcher(name="slow", url="http://127.0.0.1/", secret=SECRET)
    stop, failed = threading.Event(), list[BaseException]()

    def member(receiver: Any) -> None:
        try:
            with closing(buses.open(url)) as bus:
                asyncio.run(watchers.Outbox(to, bus, Health()).run(receiver, stop))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=member, args=(receiver,)) for receiver in receivers]
    try:
        yield threads
    finally:
        stop.set()
        for each in threads:
            if each.ident:
                each.join(30)
    assert not failed


def test_a_receiver_slower_than_a_lease_is_told_once_though_another_member_waits(tmp_path: Path) -> None:
    receiver = Slow(1.5)
    url = f"sqlite://{tmp_path}/leased?lease=0.5&partitions=1"
    with closing(buses.open(url)) as bus, members(url, receiver, receiver) as both:
        put(bus, HOME.name, event(1), event(2))
        for each in both:
            each.start()
        until(lambda: not left(bus, "slow"))
    assert sorted(receiver.sent) == sorted([event(1), event(2)])


class Refusing(Slow):
    """A receiver that takes nothing but what comes first, and that slowly."""

    async def send(self, event: bytes, traceparent: str = "") -> Answer:
        answer = await super().send(event, traceparent)
        return answer if FIRST in event else Answer(Outcome.LATER, "it answers 503")


FIRST = b"wrongful_slashing"


def test_what_people_must_act_on_is_told_before_all_that_has_waited_for_longer(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever becomes of the rest, and its versions in their order."""
    receiver = Refusing(0.02)
    monkeypatch.setattr(watchers, "check", lambda watcher: receiver)
    versions = [
        event(900 + n, offset, status, FIRST.decode())
        for offset, status in enumerate(("seen", "safe", "retracted"))
        for n in range(2)
    ]
    put(bus, "home", *(event(n) for n in range(300)), *versions, b"{}")
    to = Watcher(name="w", url="http://127.0.0.1/", secret=SECRET)
    with role(tmp_path / "bus", to):
        until(lambda: left(bus, "w.first") == 0)
    told = [each for each in receiver.sent if FIRST in each]
    assert sorted(told) == sorted(versions)
    for n in range(2):
        assert [each for each in told if each in versions[n::2]] == versions[n::2]
    assert left(bus) == 301 + len(versions)  # of the rest nothing is taken
    assert [letter for p in range(bus.partitions) for letter in bus.read(DEAD, p)] == []


def test_both_parts_of_an_incident_come_whole_and_what_cannot_be_read_is_one_letter(
    bus: Bus, tmp_path: Path
) -> None:
    incident = [event(n) for n in range(120)]
    first = [event(500 + n, n, condition=FIRST.decode()) for n in range(5)]
    put(bus, "home", *incident, b"{}", *first)
    with Serving() as serving:
        with role(tmp_path / "bus", serving.watcher()):
            until(lambda: not left(bus) and not left(bus, "w.first"))
        assert sorted(ids(serving)) == sorted(map(webhook_id, [*incident, *first]))
        for wants, expected in ((FIRST.decode(), first), ("equivocation", incident)):
            serving.receiver.kept.clear()
            with role(tmp_path / "bus", serving.watcher(wants[:4], conditions=[wants])):
                until(lambda n=wants[:4]: not left(bus, n) and not left(bus, f"{n}.first"))  # type: ignore[misc]
            assert sorted(ids(serving)) == sorted(map(webhook_id, expected))
    letters = [m for p in range(bus.partitions) for m in bus.read(DEAD, p)]
    assert len(letters) == 3  # one of each watcher


VERSIONS = [event(1, offset) for offset in range(1, 9)]  # told one after the other


@pytest.mark.parametrize("partition", [0, 1])  # one of them moves
@pytest.mark.parametrize("back", [False, True])
def test_a_partition_that_moves_while_its_receiver_is_told_is_told_once_and_in_order(
    back: bool, partition: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers, "ALIVE", 0.05)
    monkeypatch.setattr(watchers, "TURN", 0.2)
    receiver = Slow(0.2)
    url = f"sqlite://{tmp_path}/moving?lease=5&partitions=2"
    with closing(buses.open(url)) as bus, members(url, receiver, receiver) as (first, second):
        put(bus, next(name for name in "abcdefgh" if partition_of(name, 2) == partition), *VERSIONS)
        first.start()
        until(lambda: len(receiver.sent) >= 2)  # one is taken
        if back:
            with bus.consumer("watchers.slow", [FINDINGS]) as other:
                until(lambda: bool(other.poll(0) or other.assignment()))
                assert len(receiver.sent) < len(VERSIONS)  # nobody waited for all of them
        else:
            second.start()
        until(lambda: not left(bus, "slow"))
    assert receiver.sent == VERSIONS


@pytest.mark.real
def test_members_that_come_and_go_on_kafka_tell_once_and_in_order(
    kafka_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers, "ALIVE", 0.05)
    monkeypatch.setattr(watchers, "TURN", 0.2)
    receiver = Slow(0.2)
    url = f"{kafka_url}?prefix=telling.&lease=3&partitions=2"
    versions = [event(1, offset) for offset in range(1, 31)]
    with closing(buses.open(url)) as bus, members(url, receiver) as (first,):
        put(bus, HOME.name, *versions)
        first.start()
        for n in (3, 12):
            until(partial(receiver.has, n))
            # Each time all partitions are taken from all, twice, and dealt out again.
            with bus.consumer("watchers.slow", [FINDINGS]) as other:
                until(lambda: bool(other.poll(0.1) or other.assignment()))
            assert len(receiver.sent) < len(versions)
        until(lambda: not left(bus, "slow"))
    assert receiver.sent == versions


def test_a_partition_that_is_torn_from_a_member_that_hangs_is_told_by_the_other_alone(tmp_path: Path) -> None:
    hanging, well = Hanging(), Slow(0.0)
    url = f"sqlite://{tmp_path}/torn?lease=0.5&partitions=1"
    with closing(buses.open(url)) as bus, members(url, hanging, well) as (first, second):
        put(bus, HOME.name, *VERSIONS)
        first.start()
        until(lambda: bool(hanging.sent))
        second.start()
        until(lambda: not left(bus, "slow"))
        hanging.goes_on.set()
    assert (hanging.sent, well.sent) == (VERSIONS[:1], VERSIONS)


def test_two_roles_share_the_networks_and_each_version_comes(bus: Bus, tmp_path: Path) -> None:
    life = Life(5)
    with Serving() as serving, role(tmp_path / "bus", serving.watcher()):
        life.go_on(bus, 20)
        with role(tmp_path / "bus", serving.watcher()):
            life.go_on(bus, 20)
            until(lambda: not left(bus))
        life.go_on(bus, 20)
        until(lambda: not left(bus))
        life.check(serving.receiver.kept)


@given(
    st.sampled_from([Outcome.LATER, Outcome.REFUSED, Outcome.GONE]),
    st.integers(1, 10_000),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 3600),
)
def test_pauses_grow_to_a_limit_and_are_never_shorter_than_asked(
    outcome: Outcome, failures: int, chance: float, asked: float
) -> None:
    first, longest = PAUSES[outcome]
    seconds = pause(Answer(outcome, "", asked), failures, chance)
    assert seconds >= asked
    assert first / 2 <= seconds <= max(longest, asked)
    assert pause(Answer(outcome, "", asked), failures + 1, chance) >= seconds


def test_what_is_told_is_soon(bus: Bus, tmp_path: Path) -> None:
    """From the bus to the receiver's own word, one at a time: what the role adds to a finding's way."""
    waited = []
    with Serving() as serving, role(tmp_path / "bus", serving.watcher()):
        for n in range(50):
            began = time.time()
            put(bus, "home", event(n))
            until(lambda n=n: len(serving.receiver.kept) > n)  # type: ignore[misc]
            waited.append(serving.receiver.kept[n].when - began)
    assert sorted(waited)[25] < 0.5

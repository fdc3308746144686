"""What every bus must do, said in terms of the port alone.

A side of the bus passes it by a subclass whose module has a fixture `bus_url`: the URL of a bus that is
empty at the start of each test, with a short lease, and more than one partition.

    class TestSqliteBus(BusContract): ...
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nektar.bus
from nektar.bus.level import Level
from nektar.bus.port import MAX_MESSAGE_BYTES, Bus, BusError, Delivered, Fenced, Message
from nektar.log import CHECKPOINTS, OTLP_LOGS, OTLP_SPANS, PART_BYTES, Joiner, split
from tests.nektar.bus.model import Model
from tests.nektar.bus.reading import PATIENCE, S, T, everything, said, settle, take, texts, until
from tests.seeds import seeds

# Longer than a fetch that was under way is, and than until a member is heard of by its heartbeats alone.
FETCHES_LAST = 0.1


def put_out(bus: Bus) -> dict[int, list[bytes]]:
    """All that transformers have put out, by partition. Whoever takes it as a member of a group and commits
    nothing is given it again after a lost lease, so that its count says nothing."""
    return {p: texts(everything(bus, T, p)) for p in (0, 1)}


def count(found: dict[int, list[bytes]]) -> int:
    return sum(map(len, found.values()))


class BusContract:
    @pytest.fixture
    def bus(self, bus_url: str) -> Iterator[Bus]:
        with closing(nektar.bus.open(bus_url)) as bus:
            yield bus

    @pytest.fixture
    def other(self, bus_url: str) -> Iterator[Bus]:
        """The same bus as another process would have it."""
        with closing(nektar.bus.open(bus_url)) as bus:
            yield bus

    # --- streams ------------------------------------------------------------------------------------

    def test_an_empty_stream_has_nothing_to_read(self, bus: Bus) -> None:
        assert list(bus.read(S, 0)) == []
        assert bus.end(S, 0) == 0
        assert bus.last(S, 0, b"k") is None

    def test_what_is_written_is_read_as_it_was(self, bus: Bus) -> None:
        before = time.time()
        with bus.writer("w", 1) as writer:
            writer.transaction([Message(S, b"key", b"\x00value", {"h": b"\xff", "i": b""})])
        (got,) = bus.read(S, 1)
        assert got[:6] == (S, 1, got.offset, b"key", b"\x00value", {"h": b"\xff", "i": b""})
        assert before - 1 <= got.time <= time.time() + 1
        assert list(bus.read(S, 0)) == []

    def test_order_holds_within_a_partition_over_transactions_and_writers(self, bus: Bus) -> None:
        with bus.writer("a", 0) as a, bus.writer("b", 0) as b:
            for i in range(0, 40, 4):
                a.transaction(said([b"%d" % i, b"%d" % (i + 1)]))
                b.transaction(said([b"%d" % (i + 2), b"%d" % (i + 3)]))
        got = everything(bus, S, 0)
        assert texts(got) == [b"%d" % i for i in range(40)]
        offsets = [message.offset for message in got]
        assert offsets == sorted(set(offsets))
        assert bus.end(S, 0) > offsets[-1]
        assert texts(bus.read(S, 0, start=offsets[7]))[:2] == [b"7", b"8"]
        assert len(bus.read(S, 0, max_messages=3)) == 3
        assert list(bus.read(S, 0, start=bus.end(S, 0))) == []

    def test_a_transaction_writes_to_several_streams(self, bus: Bus) -> None:
        with bus.writer("w", 0) as writer:
            writer.transaction(said([b"1"]) + said([b"2"], T) + said([b"3"]))
        assert (texts(bus.read(S, 0)), texts(bus.read(T, 0))) == ([b"1", b"3"], [b"2"])

    def test_last_is_the_newest_of_its_key(self, bus: Bus) -> None:
        with bus.writer("w", 0) as writer:
            for i in range(3):
                writer.transaction(
                    [Message(CHECKPOINTS, key, b"%s%d" % (key, i)) for key in (b"a", b"b", b"a/1")]
                    + [Message(S, b"a", b"elsewhere")]
                )
        ends = [bus.end(CHECKPOINTS, 0)]
        for key in (b"a", b"b", b"a/1"):
            newest = bus.last(CHECKPOINTS, 0, key)
            assert newest is not None
            assert newest.value == b"%s2" % key
        assert bus.last(CHECKPOINTS, 0, b"c") is None
        assert bus.last(CHECKPOINTS, 1, b"a") is None
        with bus.writer("w", 0) as writer:
            writer.transaction([Message(CHECKPOINTS, b"a", b"new")])
        ends.append(bus.end(CHECKPOINTS, 0))
        newest = bus.last(CHECKPOINTS, 0, b"a")
        assert newest is not None
        assert newest.value == b"new"
        assert ends[0] <= newest.offset < ends[1]

    def test_a_message_above_the_limit_is_refused_and_one_at_the_limit_is_not(self, bus: Bus) -> None:
        with bus.writer("w", 0) as writer:
            with pytest.raises(BusError, match=str(MAX_MESSAGE_BYTES)):
                writer.transaction(said([b"small", bytes(MAX_MESSAGE_BYTES + 1)]))
            writer.transaction(said([b"\1" * MAX_MESSAGE_BYTES]))
        assert texts(bus.read(S, 0)) == [b"\1" * MAX_MESSAGE_BYTES]

    def test_a_large_record_travels_in_parts(self, bus: Bus) -> None:
        record = random.Random(5).randbytes(5_000_000)
        parts = [Message(S, b"k", value, headers) for value, headers in split(record)]
        assert len(parts) == -(-len(record) // PART_BYTES)
        with bus.writer("w", 1) as writer, bus.consumer("g", [S]) as consumer:
            writer.transaction(said([b"before"]))
            writer.transaction(parts)
            writer.transaction(said([b"after"]))
            join = Joiner()
            joined = [join(m.value, m.headers) for m in take(consumer, len(parts) + 2)]
        assert [whole for whole in joined if whole is not None] == [b"before", record, b"after"]

    def test_a_partition_that_does_not_exist_is_refused(self, bus: Bus) -> None:
        for call in (
            lambda: bus.writer("w", bus.partitions),
            lambda: bus.read(S, -1),
            lambda: bus.end(S, bus.partitions),
        ):
            with pytest.raises(BusError, match="partition"):
                call()

    # --- transactions -------------------------------------------------------------------------------

    def test_an_error_among_the_messages_writes_nothing(self, bus: Bus) -> None:
        def broken() -> Iterator[Message]:
            yield Message(S, b"k", b"half")
            raise RuntimeError("a fault in the fold")

        with bus.writer("w", 0) as writer, bus.consumer("g", [S]) as consumer:
            writer.transaction(said([b"1"]))
            assert texts(take(consumer, 1)) == [b"1"]
            with pytest.raises(RuntimeError):
                writer.transaction(broken(), {S: 1}, "g")
            writer.transaction(said([b"2"]))
            assert texts(take(consumer, 1)) == [b"2"]
            assert consumer.committed(S, 0) is None

    def test_outputs_and_offsets_are_committed_together(self, bus: Bus) -> None:
        with bus.writer("w", 0) as writer:
            writer.transaction(said([b"1", b"2", b"3"]))
            with bus.consumer("g", [S]) as consumer:
                got = take(consumer, 3)
                writer.transaction(said([b"out"], T), {S: got[1].offset + 1}, "g")
                assert consumer.committed(S, 0) == got[1].offset + 1
            assert texts(bus.read(T, 0)) == [b"out"]
            with bus.consumer("g", [S]) as successor:
                assert texts(take(successor, 1)) == [b"3"]

    def test_a_zombie_writer_is_fenced(self, bus: Bus, other: Bus) -> None:
        with bus.writer("role-0", 0) as zombie:
            zombie.transaction(said([b"1"]))
            with other.writer("role-0", 0) as successor:
                successor.transaction(said([b"2"]))
                for _ in range(2):
                    with pytest.raises(Fenced):
                        zombie.transaction(said([b"lost"]))
                successor.transaction(said([b"3"]))
        assert texts(everything(bus, S, 0)) == [b"1", b"2", b"3"]

    def test_another_id_fences_nobody(self, bus: Bus) -> None:
        with bus.writer("a", 0) as a, bus.writer("b", 0) as b, bus.writer("a-1", 1) as c:
            for writer in (a, b, c, a):
                writer.transaction(said([b"x"]))
        assert [len(everything(bus, S, p)) for p in (0, 1)] == [3, 1]

    def test_offsets_are_not_committed_for_a_group_that_is_not_held_here(self, bus: Bus, other: Bus) -> None:
        with other.consumer("g", [S]) as elsewhere, bus.writer("w", 0) as writer:
            settle(other, elsewhere)
            with pytest.raises(Fenced):
                writer.transaction(said([b"out"], T), {S: 1}, "g")
            assert elsewhere.committed(S, 0) is None
        assert list(bus.read(T, 0)) == []

    def test_a_transaction_cut_off_by_kill_9_is_invisible(self, bus: Bus, bus_url: str, start: Any) -> None:
        process = start("hang", bus_url, S, 0)
        assert process.stdout.readline() == "writing\n"
        process.kill()
        process.wait()
        with bus.writer("hang", 0) as successor:
            successor.transaction(said([b"next"]))
        assert texts(everything(bus, S, 0)) == [b"whole", b"next"]

    @pytest.mark.parametrize("seed", range(4))
    def test_kill_9_in_mid_write_leaves_whole_transactions(
        self, bus: Bus, bus_url: str, start: Any, seed: int
    ) -> None:
        size = 20
        process = start("produce_large", bus_url, S, 0, size, 50_000)
        assert process.stdout.readline() == "ready\n"
        time.sleep(random.Random(seed).uniform(0.005, 0.12))
        process.kill()
        process.wait()
        with bus.writer("produce-large", 0) as successor:
            successor.transaction(said([b"next"]))
        *large, last = [value[:8] for value in texts(everything(bus, S, 0))]
        assert last == b"next"
        assert large == [i.to_bytes(8, "big") for i in range(len(large) // size) for _ in range(size)]

    def test_several_processes_write_at_once(self, bus: Bus, bus_url: str, start: Any) -> None:
        names, transactions, size = ("a", "b", "c"), 100, 3
        processes = [start("produce", bus_url, S, 1, name, transactions, size) for name in names]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        # By offset: a member that was not heard of for a lease reads again what nobody has committed.
        read: dict[int, Delivered] = {}
        with bus.consumer("g", [S]) as consumer:
            while len(read) < len(names) * transactions * size:
                for message in take(consumer, 1):
                    read.setdefault(message.offset, message)
        for process in processes:
            assert process.wait(PATIENCE) == 0
        got = list(read.values())
        assert got == everything(bus, S, 1)
        of = defaultdict(list)
        for message in got:
            of[message.key.decode()].append(message.value.decode())
        for name in names:
            assert of[name] == [f"{name}/{i}/{j}" for i in range(transactions) for j in range(size)]

    @contextmanager
    def half_written(self, bus: Any, stream: str) -> Iterator[None]:
        """Meanwhile another's transaction is open in partition 0 of the stream; where there is no such thing,
        nothing is."""
        yield

    @pytest.mark.parametrize("look", ["end", "last"])
    def test_what_was_committed_with_a_message_that_was_read_lies_below_the_end(
        self, bus: Bus, other: Bus, look: str
    ) -> None:
        asked = {
            "end": lambda: bus.read(S, 0, max_messages=bus.end(S, 0))[-1],
            "last": lambda: bus.last(S, 0, b"k"),
        }
        with ThreadPoolExecutor(2) as pool, bus.consumer("g", [T]) as consumer:
            with bus.writer("before", 0) as writer:
                writer.transaction(said([b"an older finding"]))
            with other.writer("w", 0) as writer:
                with self.half_written(other, S):
                    both = said([b"finding"]) + said([b"progress"], T)
                    writing = pool.submit(writer.transaction, both)
                    assert texts(take(consumer, 1)) == [b"progress"]
                    looking = pool.submit(asked[look])
                    wait([looking], 0.3)  # it takes no answer for one that others still hold up
                writing.result()
            found = looking.result()
            assert found is not None
            assert found.value == b"finding"

    # --- telemetry ----------------------------------------------------------------------------------

    def test_a_transaction_and_a_consumer_are_of_one_kind(self, bus: Bus) -> None:
        with bus.writer("w", 0) as writer, bus.consumer("g", [S]) as consumer:
            settle(bus, consumer)
            for messages, offsets in (
                (said([b"1"]) + said([b"2"], OTLP_SPANS), None),
                (said([b"1"], OTLP_SPANS), {S: 1}),
                ([], {S: 1, OTLP_LOGS: 1}),
            ):
                with pytest.raises(BusError, match=OTLP_SPANS):
                    writer.transaction(messages, offsets, "g" if offsets else None)
            with pytest.raises(BusError, match=OTLP_SPANS):
                bus.consumer("both", [S, OTLP_LOGS])
            assert consumer.committed(S, 0) is None
        assert [*bus.read(S, 0), *bus.read(OTLP_SPANS, 0)] == []

    def test_telemetry_is_committed_and_read_like_all_else(self, bus: Bus) -> None:
        with bus.writer("w", 0) as writer, bus.consumer("g", [OTLP_SPANS, OTLP_LOGS]) as consumer:
            writer.transaction(said([b"1", b"2"], OTLP_SPANS) + said([b"3"], OTLP_LOGS))
            writer.transaction(said([b"of a Network"]))
            got = {(m.stream, m.value): m.offset for m in take(consumer, 3)}
            assert {value for _, value in got} == {b"1", b"2", b"3"}
            assert not consumer.poll(0)
            second = got[OTLP_SPANS, b"2"]
            writer.transaction(said([b"4"], OTLP_LOGS), {OTLP_SPANS: second}, "g")
            consumer.commit(OTLP_LOGS, 0, got[OTLP_LOGS, b"3"] + 1)
            assert consumer.committed(OTLP_SPANS, 0) == second
        with bus.consumer("g", [OTLP_SPANS, OTLP_LOGS]) as successor:
            assert sorted(texts(take(successor, 2))) == [b"2", b"4"]
        newest = bus.last(OTLP_LOGS, 0, b"k")
        assert newest is not None
        assert (newest.value, texts(everything(bus, S, 0))) == (b"4", [b"of a Network"])
        assert bus.end(OTLP_LOGS, 0) > newest.offset

    def test_a_zombie_is_fenced_for_both_kinds(self, bus: Bus, other: Bus) -> None:
        with bus.writer("role-0", 0) as zombie, other.writer("role-0", 0) as successor:
            for stream in (OTLP_SPANS, S, OTLP_SPANS):
                with pytest.raises(Fenced):
                    zombie.transaction(said([b"lost"], stream))
            for stream in (OTLP_SPANS, S):
                successor.transaction(said([b"kept"], stream))
                assert texts(everything(bus, stream, 0)) == [b"kept"]

    def test_an_unfinished_transaction_of_telemetry_holds_up_no_network(
        self, bus: Bus, bus_url: str, start: Any
    ) -> None:
        process = start("hang", bus_url, OTLP_SPANS, 0)
        assert process.stdout.readline() == "writing\n"
        with bus.writer("w", 0) as writer, bus.consumer("g", [S]) as consumer:
            for i in range(20):
                writer.transaction(said([b"%d" % i]))
                assert texts(take(consumer, 1)) == [b"%d" % i]
        assert process.poll() is None

    # --- groups -------------------------------------------------------------------------------------

    def test_a_group_begins_at_the_first_message_and_goes_on_where_it_committed(self, bus: Bus) -> None:
        with bus.writer("w", 0) as writer:
            writer.transaction(said([b"1", b"2", b"3"]))
        with bus.consumer("g", [S]) as consumer:
            assert consumer.committed(S, 0) is None
            got = take(consumer, 3)
            assert texts(got) == [b"1", b"2", b"3"]
            consumer.commit(S, 0, got[0].offset + 1)
            assert consumer.committed(S, 0) == got[0].offset + 1
        with bus.consumer("g", [S]) as consumer, bus.consumer("another", [S]) as another:
            assert texts(take(consumer, 2)) == [b"2", b"3"]
            assert texts(take(another, 3)) == [b"1", b"2", b"3"]

    def test_a_member_that_never_polls_holds_nothing_and_may_look(self, bus: Bus, other: Bus) -> None:
        with bus.writer("w", 0) as writer, bus.consumer("g", [S]) as consumer:
            writer.transaction(said([b"1", b"2"]))
            with other.consumer("g", [S]) as looking:
                got = take(consumer, 1)
                assert consumer.assignment() == frozenset(range(bus.partitions))
                assert looking.committed(S, 0) is None
                consumer.commit(S, 0, got[0].offset + 1)
                assert looking.committed(S, 0) == got[0].offset + 1
                assert looking.assignment() == frozenset()
            consumer.commit(S, 0, got[0].offset + 1)  # its going takes nothing either

    def test_poll_waits_no_longer_than_it_was_told(self, bus: Bus) -> None:
        with bus.consumer("g", [S]) as consumer:
            settle(bus, consumer)
            began = time.monotonic()
            assert list(consumer.poll(0.3)) == []
            assert 0.25 < time.monotonic() - began < 5

    def test_a_stream_is_at_its_end_once_all_of_it_has_been_brought_whatever_others_have(
        self, bus: Bus
    ) -> None:
        with bus.consumer("g", [S, T]) as consumer, bus.writer("w", 0) as writer:
            settle(bus, consumer)
            writer.transaction(said([b"1", b"2", b"3"]))
            brought: list[Delivered] = []
            while len(brought) < 3:
                brought += consumer.poll(0.1, 1)
                assert ((S, 0) in consumer.at_end()) <= (len(brought) in (0, 3))
            held = {(stream, p) for stream in (S, T) for p in consumer.assignment()}
            assert consumer.at_end().keys() <= held
            until(lambda: not consumer.poll(0.01) and consumer.at_end().keys() == held)

    def test_a_message_written_while_the_caller_was_busy_is_never_said_to_be_dealt_with(
        self, bus: Bus, other: Bus
    ) -> None:
        with other.writer("w", 0) as writer, bus.consumer("g", [S]) as consumer:
            level, all_held = Level(consumer, [S]), frozenset(range(bus.partitions))
            until(lambda: not level.poll(0.05) and consumer.assignment() == all_held and level.at is not None)
            for _ in range(3):
                busy = 3 * FETCHES_LAST
                time.sleep(busy)
                writer.transaction(said([b"new"]))
                written = time.time()
                time.sleep(busy)
                brought = level.poll(0.0)
                assert level.at is not None
                assert level.at < written
                level.took(brought or take(consumer, 1))
                until(lambda: not level.poll(0.05) and (level.at or 0.0) > written)  # noqa: B023

    def test_a_poll_that_brings_nothing_says_as_of_when(self, bus: Bus) -> None:
        with bus.consumer("g", [S]) as consumer:
            settle(bus, consumer)
            before = time.time()
            until(lambda: not consumer.poll(0.01) and consumer.answered_at > before)
            assert consumer.answered_at <= time.time()

    def test_a_member_that_is_dealt_nothing_has_read_all_of_it(self, bus: Bus, other: Bus) -> None:
        with ExitStack() as stack:
            members = [
                stack.enter_context((bus, other)[i % 2].consumer("g", [S, T]))
                for i in range(bus.partitions + 1)
            ]
            assert [member.answered_at for member in members] == [0.0] * len(members)
            settle(bus, *members)
            (spare,) = (member for member in members if not member.assignment())
            before = time.time()
            until(lambda: not any([m.poll(0.01) for m in members]) and spare.answered_at > before)
            assert spare.answered_at <= time.time()
            assert not spare.assignment()

    def test_an_empty_poll_before_all_is_read_says_nothing_of_the_end(self, bus: Bus) -> None:
        with bus.writer("w", 0) as writer:
            writer.transaction(said([b"%d" % i for i in range(2_000)]))
        with bus.consumer("g", [S]) as consumer:
            began, seen = time.time(), 0
            while seen < 2_000:
                got = consumer.poll(0.0, 100)
                seen += len(got)
                assert got or consumer.answered_at < began
            ended = time.time()
            until(lambda: not consumer.poll(0.01) and consumer.answered_at > ended)

    def test_poll_returns_no_more_than_it_was_told(self, bus: Bus) -> None:
        with bus.writer("w", 0) as writer, bus.consumer("g", [S, T]) as consumer:
            writer.transaction(said([b"%d" % i for i in range(10)]) + said([b"x"] * 10, T))
            got: list[Delivered] = []
            while len(got) < 20:
                batch = consumer.poll(PATIENCE, max_messages=3)
                assert 1 <= len(batch) <= 3
                got += batch
        assert texts(m for m in got if m.stream == S) == [b"%d" % i for i in range(10)]

    def test_seek_reads_again(self, bus: Bus) -> None:
        with bus.writer("w", 0) as writer, bus.consumer("g", [S]) as consumer:
            writer.transaction(said([b"1", b"2", b"3"]))
            got = take(consumer, 3)
            consumer.seek(S, 0, got[1].offset)
            assert texts(take(consumer, 2)) == [b"2", b"3"]
            consumer.seek(S, 0, 0)
            assert texts(take(consumer, 3)) == [b"1", b"2", b"3"]

    def test_seek_in_on_assigned_comes_before_the_first_message(self, bus: Bus) -> None:
        with bus.writer("w", 0) as writer:
            writer.transaction(said([b"1", b"2", b"3"]))
        third = bus.read(S, 0)[2].offset
        consumer = bus.consumer("g", [S], on_assigned=lambda _: consumer.seek(S, 0, third))
        with consumer:
            assert texts(take(consumer, 1)) == [b"3"]

    def test_members_share_the_partitions_and_hand_them_on_when_they_leave(
        self, bus: Bus, other: Bus
    ) -> None:
        told: list[tuple[str, frozenset[int]]] = []

        def hears(name: str) -> dict[str, Callable[[frozenset[int]], None]]:
            return {
                "on_assigned": lambda p: told.append((f"{name}+", p)),
                "on_revoked": lambda p: told.append((f"{name}-", p)),
            }

        with bus.consumer("g", [S], **hears("a")) as a:
            assert a.assignment() == frozenset()
            settle(bus, a)
            with other.consumer("g", [S], **hears("b")) as b, other.consumer("g", [S], **hears("c")) as c:
                settle(bus, a, b, c)
                held = {name: consumer.assignment() for name, consumer in zip("abc", (a, b, c), strict=True)}
            settle(bus, a)
        # What each was told, added up, is what it held.
        for name in "bc":
            now: frozenset[int] = frozenset()
            for event, partitions in told:
                if event == f"{name}+":
                    assert not now & partitions
                    now |= partitions
                elif event == f"{name}-":
                    assert now >= partitions
                    now -= partitions
            assert now == held[name]

    def test_a_partition_changes_hands_only_after_its_holder_gave_it_up(self, bus: Bus, other: Bus) -> None:
        with bus.writer("w0", 0) as w0, bus.writer("w1", 1) as w1:
            for i in range(5):
                w0.transaction(said([b"0/%d" % i]))
                w1.transaction(said([b"1/%d" % i]))
        read: dict[int, int] = {}

        def commit(partitions: frozenset[int]) -> None:
            for partition in partitions & read.keys():
                a.commit(S, partition, read[partition] + 1)

        with bus.consumer("g", [S], on_revoked=commit) as a:
            for message in take(a, 10):
                read[message.partition] = message.offset
            with other.consumer("g", [S]) as b:
                settle(bus, a, b)  # b reads nothing: all had been committed as it changed hands

    def test_a_member_killed_is_succeeded_and_its_uncommitted_messages_are_read_again(
        self, bus: Bus, bus_url: str, start: Any
    ) -> None:
        for partition in range(bus.partitions):
            with bus.writer(f"w{partition}", partition) as writer:
                writer.transaction(said([b"%d" % partition]))
        process = start("member", bus_url, "g", S)
        assert process.stdout.readline().startswith("assigned")
        read = {process.stdout.readline() for _ in range(bus.partitions)}
        assert read == {f"read {p} {p}\n" for p in range(bus.partitions)}
        with bus.consumer("g", [S]) as survivor:
            process.kill()
            process.wait()
            assert sorted(texts(take(survivor, bus.partitions))) == [b"%d" % p for p in range(bus.partitions)]
            assert survivor.assignment() == frozenset(range(bus.partitions))

    def test_a_zombie_consumer_commits_nothing(self, bus: Bus, other: Bus) -> None:
        with bus.writer("w", 0) as writer, bus.consumer("g", [S]) as zombie:
            writer.transaction(said([b"1", b"2"]))
            got = take(zombie, 2)
            with other.consumer("g", [S]) as successor:
                # The zombie does not poll; its lease ends and the successor is given what it held.
                assert texts(take(successor, 2)) == [b"1", b"2"]
                with pytest.raises(Fenced):
                    zombie.commit(S, 0, got[1].offset + 1)
                with pytest.raises(Fenced):
                    writer.transaction(said([b"out"], T), {S: got[1].offset + 1}, "g")
                assert successor.committed(S, 0) is None
                successor.commit(S, 0, got[0].offset + 1)
                with pytest.raises(Fenced):
                    zombie.commit(S, 0, got[1].offset + 1)
                assert successor.committed(S, 0) == got[0].offset + 1
                assert list(bus.read(T, 0)) == []

    def test_a_member_that_lost_a_partition_and_has_it_again_begins_where_the_group_is(
        self, bus: Bus, other: Bus
    ) -> None:
        revoked: list[frozenset[int]] = []
        with bus.writer("w", 0) as writer, bus.consumer("g", [S], on_revoked=revoked.append) as slow:
            writer.transaction(said([b"1", b"2", b"3"]))
            got = take(slow, 3)
            with other.consumer("g", [S]) as quick:
                take(quick, 3)
                quick.commit(S, 0, got[0].offset + 1)
            assert texts(take(slow, 2)) == [b"2", b"3"]
            assert 0 in revoked[0]
            slow.commit(S, 0, got[2].offset + 1)

    def test_a_member_that_lost_its_lease_joins_again(self, bus: Bus, other: Bus) -> None:
        revoked: list[frozenset[int]] = []
        with bus.consumer("g", [S], on_revoked=revoked.append) as slow:
            settle(bus, slow)
            with other.consumer("g", [S]) as quick:
                until(lambda: not quick.poll(0.1) and len(quick.assignment()) == bus.partitions)
                settle(bus, slow, quick)
        assert revoked[0] == frozenset(range(bus.partitions))

    @pytest.mark.parametrize("seed", range(seeds(1, 2)))
    def test_a_transformer_killed_at_random_puts_each_output_out_once(
        self, bus: Bus, bus_url: str, start: Any, seed: int
    ) -> None:
        chance = random.Random(seed)
        inputs = {p: [b"%d/%d" % (p, i) for i in range(1500)] for p in (0, 1)}
        with bus.writer("w0", 0) as w0, bus.writer("w1", 1) as w1:
            w0.transaction(said(inputs[0]))
            w1.transaction(said(inputs[1]))
        expected = {p: [b"%d " % m.offset + m.value for m in everything(bus, S, p)] for p in (0, 1)}

        for _ in range(6):
            process = start("transform", bus_url, "g", S, T)
            assert process.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0, 0.04))
            process.kill()
            process.wait()
            done = put_out(bus)
            assert done == {p: expected[p][: len(done[p])] for p in (0, 1)}
        start("transform", bus_url, "g", S, T)
        until(lambda: count(put_out(bus)) >= count(expected))
        assert put_out(bus) == expected

    @pytest.mark.parametrize("seed", range(seeds(1, 2)))
    def test_transformers_that_come_and_go_put_each_output_out_once(
        self, bus: Bus, bus_url: str, start: Any, seed: int
    ) -> None:
        """Members join, are killed, and hand partitions over while inputs keep coming."""
        chance = random.Random(seed)
        running = []
        with bus.writer("w0", 0) as w0, bus.writer("w1", 1) as w1:
            for round_ in range(8):
                running.append(start("transform", bus_url, "g", S, T))
                for i in range(30):
                    for partition, writer in enumerate((w0, w1)):
                        value = b"%d/%d/%d" % (partition, round_, i)
                        writer.transaction(said([value] * chance.randrange(1, 20)))
                    time.sleep(chance.uniform(0, 0.006))
                if len(running) == 3:
                    running.pop(chance.randrange(3)).kill()
        expected = {p: [b"%d " % m.offset + m.value for m in everything(bus, S, p)] for p in (0, 1)}
        until(lambda: count(put_out(bus)) >= count(expected))
        assert put_out(bus) == expected

    # --- against a model ----------------------------------------------------------------------------

    def test_the_bus_agrees_with_a_list(self, bus: Bus) -> None:
        @settings(max_examples=seeds(15, 40))
        @given(st.data())
        def agrees(data: st.DataObject) -> None:
            Model(bus, data).run()

        agrees()

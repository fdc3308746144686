from __future__ import annotations

import random

import pytest

from indexer.decode import Undecodable
from indexer.known import Known
from indexer.reconcile import mark
from indexer.resume import FILTER_HEADER, read_back
from indexer.writer import FilterChanged, NetworkLog
from nektar.bus.port import Fenced, Message, partition_of
from nektar.bus.sqlite import SqliteBus
from nektar.config import NetworkConfig
from nektar.log import DEAD, NETWORK, BrokenLog, Gap, New, Record, SignedBatch, encode, key, split
from nektar.model import Address, At
from tests.indexer.process import filter_hash
from tests.indexer.rules import Reading, records
from tests.indexer.test_reconcile import block, name, ref

FILTER = b"f" * 32


def network(network_name: str = "net", **settings: object) -> NetworkConfig:
    return NetworkConfig(network_name, 1, ("a",), {"c": "0x" + "ab" * 20}, **settings)  # type: ignore[arg-type]


def some_records(rng: random.Random, known: Known) -> list[Record]:
    """What an indexer might write next: blocks, a reorg, a gap with its child, a mark."""
    fork = rng.choice("abc")
    done: list[Record] = []
    if known.unfinal and rng.random() < 0.3:
        low = known.first - 1 if known.base is None else known.base.number
        done += known.undo(rng.randint(low, known.next - 2))
    left = known.fold(done)
    number, tip = left.next, left.tip
    if tip is not None and rng.random() < 0.2:
        done.append(Gap(number, number + 2, name(number + 2, fork), "gone"))
        number, tip = number + 3, ref(number + 2, fork)
    blocks = []
    for at in range(number, number + rng.randint(1, 4)):
        parent = fork if tip is None else tip.hash.decode().strip(".").lstrip("0123456789")
        blocks.append(block(at, fork, parent))
        tip = blocks[-1].ref
    done.append(New(tuple(blocks), {}))
    known = known.fold(done)
    if rng.random() < 0.5:
        seen = [entry.ref for entry in known.unfinal if entry.ref in {b.ref for b in blocks}]
        said = mark(known, rng.choice(seen), known.unfinal[rng.randrange(len(known.unfinal))].ref)
        done += [said] if said is not None else []
    return done


@pytest.mark.parametrize("seed", range(12))
def test_what_is_read_back_is_what_was_known_at_every_record(bus: SqliteBus, seed: int) -> None:
    rng = random.Random(seed)
    partition = partition_of("net", bus.partitions)
    noise = bus.writer("noise", partition)
    with NetworkLog(bus, network(), FILTER) as log:
        for _ in range(40):
            log.append(some_records(rng, log.known))
            if rng.random() < 0.5:  # other Networks of the partition, and what operators signed
                noise.transaction(
                    [
                        Message(NETWORK, key("other", 1), b"not ours"),
                        Message(NETWORK, key("net", 2), b"another generation"),
                        Message(NETWORK, key("net", 1), encode(SignedBatch(()))),
                    ]
                    * rng.choice([1, 30])
                )
            known, filter_ = read_back(bus, partition, key("net", 1), 0)
            assert known == log.known
            assert filter_ == FILTER


def test_a_record_in_parts_is_read_back_whole(bus: SqliteBus) -> None:
    big = New((block(0),), {"event_x": random.Random(1).randbytes(2_500_000)})
    with NetworkLog(bus, network(), FILTER) as log:
        log.append([big, New((block(1),), {})])
    with NetworkLog(bus, network(), FILTER) as log:
        assert log.known.tip == ref(1)
        assert log.known.unfinal[0].source == big  # type: ignore[union-attr]


def test_what_stands_between_the_parts_of_a_record_stands_after_it(bus: SqliteBus) -> None:
    big = New((block(0),), {"event_x": random.Random(1).randbytes(2_500_000)})
    later = New((block(1),), {})
    first, *others = [Message(NETWORK, key("net", 1), v, h) for v, h in split(encode(big))]
    between = Message(NETWORK, key("net", 1), encode(later))
    partition = partition_of("net", bus.partitions)
    bus.writer("w", partition).transaction([first, between, *others])
    known, _ = read_back(bus, partition, key("net", 1), 0)
    assert known == Known(0).fold([big, later])


def test_a_part_that_is_missing_is_a_broken_log(bus: SqliteBus) -> None:
    value = encode(New((block(0),), {"event_x": bytes(2_500_000)}))
    parts = list(split(value))
    partition = partition_of("net", bus.partitions)
    writer = bus.writer("w", partition)
    for kept in (parts[1:], parts[:-1]):
        writer.transaction([Message(NETWORK, key("net", 1), v, h) for v, h in kept])
        with pytest.raises(BrokenLog, match="lacks its"):
            read_back(bus, partition, key("net", 1), 0)


def test_a_mark_whose_blocks_nothing_brought_is_a_broken_log(bus: SqliteBus) -> None:
    partition = partition_of("net", bus.partitions)
    said = mark(Known(0).after(New((block(0), block(1)), {})), None, ref(0))
    assert said is not None
    bus.writer("w", partition).transaction([Message(NETWORK, key("net", 1), encode(said))])
    with pytest.raises(BrokenLog, match="in a record before the mark"):
        read_back(bus, partition, key("net", 1), 0)


def test_reading_back_does_not_read_the_whole_log(bus: SqliteBus, monkeypatch: pytest.MonkeyPatch) -> None:
    with NetworkLog(bus, network(), FILTER) as log:
        for number in range(500):
            done: list[Record] = [New((block(number),), {})]
            said = mark(log.known.fold(done), None, ref(max(0, number - 5)))
            log.append([*done, *([said] if said else [])])
    read = bus.read
    seen = []

    def counted(stream: str, partition: int, start: int = 0, max_messages: int = 500) -> object:
        found = read(stream, partition, start, max_messages)
        seen.append(len(found))
        return found

    monkeypatch.setattr(bus, "read", counted)
    read_back(bus, partition_of("net", bus.partitions), key("net", 1), 0)
    assert sum(seen) <= 64


def test_a_changed_filter_is_refused_until_the_generation_is_raised(bus: SqliteBus) -> None:
    with NetworkLog(bus, network(), FILTER) as log:
        log.append([New((block(0),), {})])
    with pytest.raises(FilterChanged, match=r"networks\.net: .* set generation to 2"):
        NetworkLog(bus, network(), b"g" * 32)
    with NetworkLog(bus, network(generation=2), b"g" * 32) as log:
        assert log.known.tip is None
    NetworkLog(bus, network(), FILTER).close()


def test_the_filter_is_what_decides_a_logs_content_and_nothing_else() -> None:
    abis = {"c": [{"type": "event", "name": "E"}], "unused": [{"type": "event", "name": "F"}]}
    base = filter_hash(network(), abis)
    assert base == filter_hash(network("renamed", poll=1.0, generation=3), {"c": abis["c"]})
    for other in (
        network(from_block=1),
        network(calls="with_events"),
        network(adapter="other"),
        network(selector={"avs": "0xaa"}),
        network(terms={"veto_period": 3}),
    ):
        assert filter_hash(other, abis) != base
    assert filter_hash(network(), {"c": [{"type": "event", "name": "G"}]}) != base


def test_a_second_indexer_fences_the_first(bus: SqliteBus) -> None:
    first = NetworkLog(bus, network(), FILTER)
    second = NetworkLog(bus, network(), FILTER)
    with pytest.raises(Fenced):
        first.append([New((block(0),), {})])
    second.append([New((block(0),), {})])
    assert first.known.tip is None


def test_nothing_is_written_that_the_rules_forbid(bus: SqliteBus) -> None:
    with NetworkLog(bus, network(), FILTER) as log:
        log.append([New((block(0),), {})])
        with pytest.raises(BrokenLog):
            log.append([New((block(1),), {}), New((block(1),), {})])
        assert log.known.tip == ref(0)
        assert Reading(records(bus, "net")).blocks == [block(0)]


def test_every_record_says_its_filter_and_dead_letters_come_with_it(bus: SqliteBus) -> None:
    lost = Undecodable(ref(0), At(0, 1, 2), Address(b"a" * 20), (b"t" * 32,), bytes(3_000_000), "too short")
    with NetworkLog(bus, network(), FILTER) as log:
        log.append([New((block(0),), {})], [lost])
    partition = partition_of("net", bus.partitions)
    (message,) = bus.read(NETWORK, partition)
    assert message.headers[FILTER_HEADER] == FILTER
    dead = bus.read(DEAD, partition)
    assert {(m.key, m.headers["reason"], m.headers["network"]) for m in dead} == {
        (b"indexer", b"too short", b"net")
    }
    assert sum(len(m.value) for m in dead) > 3_000_000

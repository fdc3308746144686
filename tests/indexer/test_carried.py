"""What telemetry brought to an older log stands in the newer one where it stood, once, whoever dies."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from indexer import carried as module
from indexer.carried import Carried, Due, between
from nektar.bus.port import Delivered, Message, partition_of
from nektar.bus.sqlite import SqliteBus
from nektar.log import NETWORK, Gap, Mark, New, Record, SignedBatch, encode, key, split
from nektar.model import G1, Address, Block, BlockRef, Hash32, Level, Signed


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[SqliteBus]:
    with SqliteBus(tmp_path / "bus") as opened:
        yield opened


def block(number: int) -> Block:
    return Block(number, Hash32(bytes([number]) * 32), Hash32(bytes(32)), number, Level.PROVED, "p", "a")


def new(*numbers: int) -> New:
    return New(tuple(map(block, numbers)), {"t": b"x" * 50})


def said(n: int) -> SignedBatch:
    digest = Hash32(bytes([n]) * 32)
    return SignedBatch((Signed(None, digest, Address(bytes(20)), digest, G1(bytes(64))),))


def write(bus: SqliteBus, generation: int, *records: Record, part: int = 1_000_000) -> None:
    with bus.writer(f"test {generation}", partition_of("net", bus.partitions)) as writer:
        for record in records:
            parts = list(split(encode(record), part))
            writer.transaction(Message(NETWORK, key("net", generation), *each) for each in parts)


def places(due: Sequence[Due]) -> list[tuple[int, bytes]]:
    return [(each.block, each.record.value) for each in due]


def due(number: int, name: int = 0) -> Due:
    return Due(number, Delivered("s", 0, name, b"", b"", {}, 0.0))


def test_each_is_due_after_the_newest_block_before_it(bus: SqliteBus) -> None:
    write(
        bus, 1, said(1), new(5, 6), said(2), said(3), Mark(BlockRef(5, Hash32(b"")), BlockRef(5, Hash32(b"")))
    )
    write(bus, 2, said(9))
    write(bus, 1, new(7), Gap(8, 20, None, "gone"), said(4), new(6), said(5))  # 6 again: a reorg
    old = Carried(bus, "net", 1, 3)
    expected = [(-1, said(1)), (6, said(2)), (6, said(3)), (20, said(4)), (20, said(5))]
    assert places(old.due(6)) == [(n, encode(record)) for n, record in expected[:3]]
    assert places(old.due()) == [(n, encode(record)) for n, record in expected]
    write(bus, 1, said(6))
    assert places(old.due())[-1] == (20, encode(said(6)))


def test_what_is_no_record_is_passed_over(bus: SqliteBus) -> None:
    with bus.writer("junk", partition_of("net", bus.partitions)) as writer:
        writer.transaction([Message(NETWORK, key("net", 1), b"junk")])
    write(bus, 1, new(1), said(1))
    assert places(Carried(bus, "net", 1, 2).due()) == [(1, encode(said(1)))]


@pytest.mark.parametrize("seed", range(20))
def test_whoever_dies_each_is_carried_once_and_in_order(
    seed: int, bus: SqliteBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 3)
    rng = random.Random(seed)
    expected, number, n = list[bytes](), 0, 0
    for _ in range(60):
        if rng.random() < 0.5:
            numbers = range(number, number := number + rng.randint(1, 4))
            write(bus, 1, new(*numbers), part=rng.choice([40, 1_000_000]))
        else:
            write(bus, 1, said(n))
            expected.append(encode(said(n)))
            n += 1
    found: list[bytes] = []
    blocks: list[int] = []
    upto = 0
    while upto < number:
        old = Carried(bus, "net", 1, 2)
        for _ in range(rng.randint(1, 5)):
            upto += rng.randint(0, 5)
            now = old.due(upto)[: rng.choice([1, 2, 99])]
            if rng.random() < 0.2:
                break  # killed before its transaction
            with bus.writer("carry", partition_of("net", bus.partitions)) as writer:
                writer.transaction(old.so_far(now))
            found += [each.record.value for each in now]
            blocks += [each.block for each in now]
            old.done(now)
    last = Carried(bus, "net", 1, 2).due()
    found += [each.record.value for each in last]
    assert found == expected
    assert blocks == sorted(blocks)


def test_what_is_over_stays_over(bus: SqliteBus) -> None:
    with bus.writer("carry", partition_of("net", bus.partitions)) as writer:
        writer.transaction(Carried(bus, "net", 1, 2).ended())
    assert Carried(bus, "net", 1, 2).over
    assert not Carried(bus, "net", 1, 3).over


@pytest.mark.parametrize(
    ("first", "blocks", "after", "parts"),
    [
        (5, "abc", [], [("abc", 0)]),
        (5, "abc", [7], [("abc", 1)]),
        (5, "abc", [6], [("ab", 1), ("c", 0)]),
        (5, "abc", [-1, 2, 5, 6, 6], [("a", 3), ("b", 2), ("c", 0)]),
        (5, "a", [-1], [("a", 1)]),
        (0, "abcd", [0, 2], [("a", 1), ("bc", 1), ("d", 0)]),
    ],
)
def test_blocks_are_cut_where_something_stood(
    first: int, blocks: str, after: list[int], parts: list[tuple[str, int]]
) -> None:
    cut = list(between(first, blocks, [due(n, i) for i, n in enumerate(after)]))
    assert [("".join(part), len(those)) for part, those in cut] == parts
    assert [each.record.offset for _, those in cut for each in those] == list(range(len(after)))


def test_what_stands_after_one_block_comes_in_parts_that_a_transaction_can_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where `from_block` was moved on: all that is older stands after the first block."""
    monkeypatch.setattr(module, "PAGE", 3)
    dues = [due(-1, i) for i in range(7)] + [due(6, 7)]
    cut = [("".join(part), [each.record.offset for each in those]) for part, those in between(5, "abc", dues)]
    assert cut == [("a", [0, 1, 2]), ("", [3, 4, 5]), ("", [6]), ("b", [7]), ("c", [])]

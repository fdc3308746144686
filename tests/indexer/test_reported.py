"""Logs as a provider reports them: held to what was asked for, and decoded as proved ones are."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from eth_abi import encode
from eth_hash.auto import keccak

from indexer.decode import tables
from indexer.prove import Contradiction, Log, Proved
from indexer.reported import batches, check, timed, untimed
from nektar.chain.abi import load
from nektar.chain.columns import Joined
from nektar.chain.logs import Logs, read
from nektar.chain.table import write_table
from nektar.model import Hash32
from tests.indexer.test_decode import ABI, OTHER, OURS, SENT, block, log

CONTRACTS = {OURS: ABI, OTHER: ABI}
MOVED = (("a", "uint8"), ("b", "uint256"))
PUT = keccak(b"Put((uint256,string)[])")


def logs_of(rng: random.Random, count: int) -> list[Log]:
    """Events of three layouts from two contracts, and some that their ABI can't have made."""
    found = []
    for index in range(count):
        address = rng.choice([OURS, OURS, OTHER])
        word = rng.randbytes(20).rjust(32, b"\0")
        number = rng.randrange(2**64).to_bytes(32, "big")
        items = [(i, "x" * rng.randrange(40)) for i in range(rng.randrange(3))]
        pairs = encode(["(uint256,string)[]"], [items])
        found.append(
            rng.choice(
                [
                    log(index, SENT, word, data=number, address=address),
                    log(index, SENT, data=word + number, address=address),
                    log(index, PUT, data=pairs, address=address),
                    log(index, PUT, data=pairs[:-1], address=address),
                    log(index, SENT, word, word, data=number, address=address),
                ]
            )
        )
    return found


def said(blocks: Sequence[Proved], **changes: Any) -> Logs:
    """What `eth_getLogs` says of these blocks."""
    found = [
        {
            "address": "0x" + each.address.hex(),
            "topics": ["0x" + topic.hex() for topic in each.topics],
            "data": "0x" + each.data.hex(),
            "blockHash": "0x" + of.hash.hex(),
            "blockNumber": hex(of.number),
            "blockTimestamp": hex(of.time),
            "transactionHash": "0x" + each.tx_hash.hex(),
            "transactionIndex": hex(each.tx_index),
            "logIndex": hex(each.log_index),
            "removed": False,
        }
        | changes
        for of in blocks
        for each in of.logs
    ]
    logs = read(json.dumps({"result": found}, separators=(",", ":")).encode())
    assert logs is not None
    return logs


@pytest.mark.parametrize("seed", range(20))
def test_reported_logs_decode_as_proved_ones_do(seed: int) -> None:
    rng = random.Random(seed)
    blocks = [block(logs_of(rng, rng.randrange(30)), number=number) for number in (5, 6, 9)]
    expected, lost = tables(CONTRACTS, blocks)
    found, undecoded = batches(said(blocks), CONTRACTS)
    assert {batch.event.table: write_table(batch.rows) for batch in found} == expected
    assert undecoded == lost


def test_of_very_many_logs_that_can_not_be_read_only_those_that_are_kept_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random(3)
    blocks = [block(logs_of(rng, 200), number=number) for number in (5, 6)]
    blocks.append(block([log(index, SENT, data=b"") for index in range(1_000)], number=9))
    expected, lost = tables(CONTRACTS, blocks)
    taken = []
    take = Joined.take
    monkeypatch.setattr(Joined, "take", lambda self, rows: taken.append(len(rows)) or take(self, rows))
    found, undecoded = batches(said(blocks), CONTRACTS)
    assert {batch.event.table: write_table(batch.rows) for batch in found} == expected
    assert undecoded == lost
    assert len(lost) == 3 * 16
    assert len(taken) < 20


def test_times_that_logs_do_not_say_come_from_elsewhere() -> None:
    blocks = [block(logs_of(random.Random(1), 5), number=number) for number in (5, 6)]
    without = said(blocks, blockTimestamp=None)
    assert untimed(without) == {each.number: each.hash for each in blocks}
    assert untimed(said(blocks)) == {}
    logs = timed(without, {each.number: each.time for each in blocks})
    assert logs.time.tolist() == said(blocks).time.tolist()


def test_no_logs_are_an_answer() -> None:
    nothing = said([])
    check(nothing, CONTRACTS, 5, 6)
    assert batches(nothing, CONTRACTS) == ([], [])


def of(number: int, *indexes: int, hash_: bytes | None = None) -> Proved:
    found = block([log(index, SENT, bytes(32), data=bytes(32)) for index in indexes], number=number)
    return found if hash_ is None else Proved(**{**_fields(found), "hash": Hash32(hash_)})


def _fields(of: Proved) -> dict[str, Any]:
    return {name: getattr(of, name) for name in of.__struct_fields__}


@pytest.mark.parametrize(
    ("blocks", "says"),
    [
        ([of(4, 1)], "asked for blocks 5 to 8; got logs of 4 to 4"),
        ([of(5, 1), of(9, 1)], "asked for blocks 5 to 8"),
        ([of(6, 1), of(5, 1)], "in the chain's order, each once"),
        ([of(5, 1, 1)], "in the chain's order, each once"),
        ([of(5, 2, 1)], "in the chain's order, each once"),
        ([of(5, 1), of(5, 2, hash_=b"\x09" * 32)], "two hashes"),
    ],
)
def test_what_can_be_no_answer_to_what_was_asked_is_a_contradiction(blocks: list[Proved], says: str) -> None:
    with pytest.raises(Contradiction, match=says):
        check(said(blocks), CONTRACTS, 5, 8)


def test_two_times_for_one_block_are_a_contradiction() -> None:
    logs = said([of(5, 1, 2)])
    logs.time[1] += 1
    with pytest.raises(Contradiction, match="two times"):
        check(logs, CONTRACTS, 5, 8)


def test_a_log_of_another_contract_was_not_asked_for() -> None:
    foreign = said([of(5, 0), block([log(1, SENT, address=OTHER)], number=6)])
    with pytest.raises(Contradiction, match=f"asked for other logs than those of 0x{OTHER.hex()}"):
        check(foreign, {OURS: ABI}, 5, 6)
    check(foreign, CONTRACTS, 5, 6)


def test_a_log_that_the_abi_does_not_speak_of_is_out_of_scope() -> None:
    mine = of(5, 0)
    others = block([log(1, keccak(b"Other()")), log(2)], number=6)
    assert batches(said([mine, others]), CONTRACTS) == batches(said([mine]), CONTRACTS)


def test_layouts_that_only_the_content_tells_apart_are_told_apart_as_proved_ones_are() -> None:
    def moved(*indexed: str) -> dict[str, Any]:
        inputs = [{"name": n, "type": t, "indexed": n in indexed} for n, t in MOVED]
        return {"type": "event", "name": "Moved", "inputs": inputs}

    quiet = {"type": "event", "name": "Quiet", "anonymous": True, "inputs": moved("a")["inputs"]}
    contracts = {OURS: load([moved("a"), moved("b"), quiet])}
    topic = keccak(b"Moved(uint8,uint256)")
    small, large = (7).to_bytes(32, "big"), (2**200).to_bytes(32, "big")
    blocks = [
        block(
            [
                log(0, topic, small, data=large),  # a is indexed: 2**200 is no uint8
                log(1, topic, large, data=small),  # b is
                log(2, topic, small, data=small),  # either
                log(3, topic, large, data=large),  # neither
                log(4, small, data=large),
                log(5, large, data=large),
            ]
        )
    ]
    expected, lost = tables(contracts, blocks)
    found, undecoded = batches(said(blocks), contracts)
    assert {batch.event.table: write_table(batch.rows) for batch in found} == expected
    assert undecoded == lost
    assert (len(expected), [each.at.log for each in lost]) == (3, [2, 3, 5])

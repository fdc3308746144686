from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from eth_abi import decode as oracle
from eth_account import Account
from eth_hash.auto import keccak

from indexer.decode import LOST_A_BLOCK, tables
from indexer.prove import Log, Proved, prove
from nektar.chain.abi import Abi, load
from nektar.chain.table import read_table, values
from nektar.chain.transaction import Transaction
from nektar.model import Address, At, BlockRef, Hash32, Level
from tests.nektar.chain.blocks import corpora
from tests.nektar.chain.encodings import CODEC

OURS, OTHER = Address(b"\x11" * 20), Address(b"\x22" * 20)
SIGNER = Account.from_key("0x" + 32 * "17")
TX_HASH = Hash32(b"\x07" * 32)


def parameter(name: str, type_: str, indexed: bool = False, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": type_, "indexed": indexed, **more}


PAIR = [parameter("x", "uint256"), parameter("y", "string")]
ABI = load(
    [
        {
            "type": "event",
            "name": "Sent",
            "inputs": [parameter("who", "address", True), parameter("n", "uint64")],
        },
        # The same topic, and no argument indexed.
        {"type": "event", "name": "Sent", "inputs": [parameter("who", "address"), parameter("n", "uint64")]},
        {"type": "event", "name": "Put", "inputs": [parameter("pairs", "tuple[]", components=PAIR)]},
        {
            "type": "event",
            "name": "Named",
            "inputs": [parameter("data", "uint8"), parameter("name", "string", True)],
        },
        {
            "type": "function",
            "name": "send",
            "inputs": [parameter("value", "uint64"), parameter("text", "string")],
        },
        {"type": "function", "name": "stop", "inputs": []},
    ]
)
SENT = keccak(b"Sent(address,uint64)")
[INDEXED, PLAIN] = [ABI.by_topics[Hash32(SENT), topics][0].table for topics in (2, 1)]


def log(index: int, *topics: bytes, data: bytes = b"", address: Address = OURS) -> Log:
    return Log(address, tuple(Hash32(topic) for topic in topics), data, 0, TX_HASH, index)


def call(data: bytes, to: Address | None = OURS, value: int = 0) -> Transaction:
    fields = {"nonce": 0, "gas": 90_000, "gasPrice": 7, "value": value, "data": data, "chainId": 1}
    signed = SIGNER.sign_transaction(fields | ({} if to is None else {"to": "0x" + to.hex()}))
    return Transaction(Hash32(signed.hash), 0, to, value, data, bytes(signed.raw_transaction))


def block(
    logs: Sequence[Log] = (),
    calls: Sequence[Transaction] = (),
    statuses: Sequence[bool | None] = (),
    number: int = 5,
) -> Proved:
    return Proved(
        number=number,
        hash=Hash32(bytes((number,)) * 32),
        parent=Hash32(bytes((number - 1,)) * 32),
        time=1_700_000_000 + number,
        level=Level.PROVED,
        transactions=tuple(calls),
        statuses=tuple(statuses) or (True,) * len(calls),
        logs=tuple(logs),
    )


def word(value: int | bytes) -> bytes:
    return value.to_bytes(32) if isinstance(value, int) else value.rjust(32, b"\0")


def test_an_event_is_a_row_with_where_it_stands() -> None:
    found, lost = tables({OURS: ABI}, [block([log(3, SENT, word(OTHER), data=word(9))])])
    assert lost == []
    assert {name: values(stream) for name, stream in found.items()} == {
        INDEXED: [
            {
                "block_number": 5,
                "block_hash": b"\x05" * 32,
                "block_time": 1_700_000_005,
                "tx_index": 0,
                "tx_hash": TX_HASH,
                "log_index": 3,
                "address": OURS,
                "who": OTHER,
                "n": 9,
            }
        ]
    }


def test_a_call_is_a_row_with_its_sender_and_whether_it_failed() -> None:
    data = keccak(b"send(uint64,string)")[:4] + CODEC.encode(["uint64", "string"], [8, "hé"])
    calls = [call(data, value=2**200), call(data + b"mark"), call(data)]
    found, lost = tables({OURS: ABI}, [block(calls=calls, statuses=(True, False, None))])
    assert lost == []
    rows = values(found[ABI.function("send").table])
    assert [row["status"] for row in rows] == [True, False, None]
    assert rows[0] == {
        "block_number": 5,
        "block_hash": b"\x05" * 32,
        "block_time": 1_700_000_005,
        "tx_index": 0,
        "tx_hash": calls[0].hash,
        "sender": bytes.fromhex(SIGNER.address[2:]),
        "address": OURS,
        "value": 2**200,
        "status": True,
        "revert": None,
        "value_": 8,
        "text": "hé",
    }


def test_a_call_without_arguments_is_a_row_too() -> None:
    found, lost = tables({OURS: ABI}, [block(calls=[call(keccak(b"stop()")[:4])])])
    assert (lost, list(found)) == ([], [ABI.function("stop").table])


def test_topics_tell_two_layouts_of_one_event_apart() -> None:
    logs = [log(0, SENT, data=word(OTHER) + word(1)), log(1, SENT, word(OTHER), data=word(2))]
    found, lost = tables({OURS: ABI}, [block(logs)])
    assert lost == []
    assert [(values(found[table])[0]["who"], values(found[table])[0]["n"]) for table in (PLAIN, INDEXED)] == [
        (OTHER, 1),
        (OTHER, 2),
    ]


def test_an_indexed_text_is_its_hash_and_arguments_keep_the_abis_order() -> None:
    event = ABI.event("Named")
    found, _ = tables({OURS: ABI}, [block([log(0, event.topic0, keccak(b"x"), data=word(7))])])
    row = values(found[event.table])[0]
    assert (row["data"], row["name"]) == (7, keccak(b"x"))
    assert list(row)[-2:] == ["data", "name"]


def test_tables_have_the_schemas_that_the_abi_announces() -> None:
    put = log(
        0, ABI.event("Put").topic0, data=CODEC.encode(["(uint256,string)[]"], [[(1, "a"), (2**255, "")]])
    )
    calls = [call(keccak(b"stop()")[:4])]
    found, _ = tables({OURS: ABI}, [block([put, log(1, SENT, word(OTHER), data=word(9))], calls)])
    for name, stream in found.items():
        assert read_table(stream).schema.equals(ABI.schemas[name], check_metadata=True)
        read_table(stream).validate(full=True)
    assert values(found[ABI.event("Put").table])[0]["pairs"] == [{"x": 1, "y": "a"}, {"x": 2**255, "y": ""}]


def test_rows_of_several_blocks_and_contracts_stand_in_the_chains_order() -> None:
    blocks = [
        block(
            [log(i, SENT, word(OTHER), data=word(i), address=a) for i, a in enumerate((OURS, OTHER))],
            number=n,
        )
        for n in (5, 6)
    ]
    found, _ = tables({OURS: ABI, OTHER: ABI}, blocks)
    rows = values(found[INDEXED])
    assert [(row["block_number"], row["log_index"], row["address"]) for row in rows] == [
        (5, 0, OURS),
        (5, 1, OTHER),
        (6, 0, OURS),
        (6, 1, OTHER),
    ]


def test_the_same_blocks_give_the_same_bytes() -> None:
    blocks = [block([log(0, SENT, data=word(OTHER) + word(1)), log(1, SENT, word(OTHER), data=word(2))])]
    first, second = tables({OURS: ABI}, blocks)[0], tables({OURS: ABI}, list(blocks))[0]
    assert list(first.items()) == list(second.items())


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (log(1, SENT, word(OTHER), data=word(2**64)), "a number does not fit its type, uint64"),
        (log(1, SENT, word(1 << 160), data=word(1)), "an address has more than 20 bytes"),
        (log(1, SENT, word(OTHER), data=word(1) + b"\0"), "it is longer than what its types take"),
        (log(1, SENT, word(OTHER)), "it is cut short"),
        (log(1, SENT, word(OTHER), word(OTHER), data=word(1)), "no such event has 3 topics"),
    ],
)
def test_a_log_that_can_not_be_read_is_kept_whole_and_those_beside_it_are_rows(bad: Log, reason: str) -> None:
    logs = [log(0, SENT, word(OTHER), data=word(1)), bad, log(2, SENT, word(OTHER), data=word(3))]
    found, [lost] = tables({OURS: ABI}, [block(logs)])
    assert [row["log_index"] for row in values(found[INDEXED])] == [0, 2]
    assert lost.block == BlockRef(5, Hash32(b"\x05" * 32))
    assert (lost.at, lost.address, lost.topics, lost.data) == (At(5, 0, 1), OURS, bad.topics, bad.data)
    assert reason in lost.reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x01\x02\x03\x04", "no function of the contract has its selector"),
        (b"\x01", "no function of the contract has its selector"),
        (keccak(b"send(uint64,string)")[:4] + word(1), "it is cut short"),
    ],
)
def test_a_call_that_can_not_be_read_is_kept_whole(data: bytes, reason: str) -> None:
    found, [lost] = tables({OURS: ABI}, [block(calls=[call(b"", OTHER), call(data)])])
    assert found == {}
    assert (lost.at, lost.address, lost.topics, lost.data) == (At(5, 1, -1), OURS, (), data)
    assert reason in lost.reason


def test_a_call_that_nobody_signed_accuses_nobody() -> None:
    tx = call(keccak(b"stop()")[:4])
    unsigned = Transaction(tx.hash, 0, tx.to, 0, tx.input, tx.raw[:-64] + 64 * b"\xff")
    found, [lost] = tables({OURS: ABI}, [block(calls=[unsigned])])
    assert found == {}
    assert "nobody's signature" in lost.reason


def test_what_is_not_ours_leaves_no_trace() -> None:
    logs = [
        log(0, SENT, word(OTHER), data=word(1), address=OTHER),  # another contract
        log(1, keccak(b"Unknown()")),  # an event that the ABI does not name
        log(2),  # an anonymous one
    ]
    calls = [call(b"\x01\x02\x03\x04", OTHER), call(b"", OURS, value=1), call(b"\x60", None)]
    assert tables({OURS: ABI}, [block(logs, calls)]) == ({}, [])
    assert tables({}, []) == ({}, [])


TOLD = [parameter("a", "uint8", True), parameter("b", "string")]
TOLD_OTHERWISE = [parameter("a", "uint8"), parameter("b", "string", True)]
TWO_LAYOUTS = load([{"type": "event", "name": "Told", "inputs": each} for each in (TOLD, TOLD_OTHERWISE)])
TOLD_TOPIC = keccak(b"Told(uint8,string)")


def test_the_layout_of_as_many_topics_is_the_one_that_fits() -> None:
    text = CODEC.encode(["string"], ["hé"])
    logs = [log(i, TOLD_TOPIC, word(i), data=text) for i in (0, 2)]
    logs.insert(1, log(1, TOLD_TOPIC, keccak(b"hi"), data=word(9)))
    # A contract whose ABI has one of the two alone fills the same table.
    alone = load([{"type": "event", "name": "Told", "inputs": TOLD}])
    logs.append(log(3, TOLD_TOPIC, word(3), data=text, address=OTHER))
    found, lost = tables({OTHER: alone, OURS: TWO_LAYOUTS}, [block(logs, number=n) for n in (5, 6)])
    assert lost == []
    one, other = (each.table for each in TWO_LAYOUTS.events)
    assert [(row["block_number"], row["log_index"], row["a"], row["b"]) for row in values(found[one])] == [
        (n, i, i, "hé") for n in (5, 6) for i in (0, 2, 3)
    ]
    assert [(row["a"], row["b"]) for row in values(found[other])] == 2 * [(9, keccak(b"hi"))]


def test_a_log_that_fits_several_layouts_or_none_is_kept_whole_and_never_guessed() -> None:
    pair = [parameter("a", "address", True), parameter("b", "uint256")]
    swapped = [each | {"indexed": not each["indexed"]} for each in pair]
    both = load([{"type": "event", "name": "Paid", "inputs": each} for each in (pair, swapped)])
    topic = keccak(b"Paid(address,uint256)")
    logs = [
        log(0, topic, word(OTHER), data=word(2**200)),  # no address has that many bytes
        log(1, topic, word(OTHER), data=word(7)),  # 7 may be an address
        log(2, topic, word(2**200), data=word(2**200)),
    ]
    found, lost = tables({OURS: both}, [block(logs)])
    [row] = [row for stream in found.values() for row in values(stream)]
    assert (row["log_index"], row["a"], row["b"]) == (0, OTHER, 2**200)
    assert [(each.at.log, each.reason.partition(":")[0].partition(" of ")[0]) for each in lost] == [
        (1, "2 events fit"),
        (2, "no event fits"),
    ]
    assert all(each.table in lost[0].reason and each.table in lost[1].reason for each in both.events)


# DSNote of MakerDAO's contracts, and one without topics.
NOTE = [
    parameter("sig", "bytes4", True),
    *(parameter(name, "bytes32", True) for name in ("usr", "arg1", "arg2")),
    parameter("data", "bytes"),
]
NOTES = load(
    [
        {"type": "event", "name": "LogNote", "inputs": NOTE, "anonymous": True},
        {"type": "event", "name": "Bare", "inputs": [parameter("n", "uint8")], "anonymous": True},
        {"type": "event", "name": "Sent", "inputs": [parameter("n", "uint64")]},
    ]
)


def test_an_anonymous_event_is_the_one_that_a_log_fits() -> None:
    sent = keccak(b"Sent(uint64)")
    note = log(
        0, b"rely".ljust(32, b"\0"), word(1), word(2), word(3), data=CODEC.encode(["bytes"], [b"call"])
    )
    logs = [note, log(1, data=word(7)), log(2, sent, data=word(8)), log(3, sent, data=b"")]
    logs += [log(4, data=word(256)), log(5, word(1), data=word(1)), log(6, word(5), address=OTHER)]
    found, lost = tables({OURS: NOTES, OTHER: ABI}, [block(logs)])
    rows = {name: values(found[NOTES.event(name).table]) for name in ("LogNote", "Bare", "Sent")}
    assert [(row["sig"], row["arg2"], row["data"]) for row in rows["LogNote"]] == [
        (b"rely", word(3), b"call")
    ]
    assert ([row["n"] for row in rows["Bare"]], [row["n"] for row in rows["Sent"]]) == ([7], [8])
    # What fits none of the contract's is kept, also what nothing names: it may be an anonymous event.
    assert [each.at.log for each in lost] == [3, 4, 5]


def test_what_receive_and_fallback_take_are_calls() -> None:
    abi = load([{"type": "receive"}, {"type": "fallback"}, {"type": "function", "name": "stop"}])
    calls = [call(b"", value=5), call(b"\x01"), call(b"x" * 33), call(keccak(b"stop()")[:4])]
    found, lost = tables({OURS: abi}, [block(calls=calls, statuses=(True, False, True, True))])
    assert (lost, len(found)) == ([], 3)
    assert [row["value"] for row in values(found[abi.function("receive").table])] == [5]
    rows = values(found[abi.function("fallback").table])
    assert [(row["data"], row["status"]) for row in rows] == [(b"\x01", False), (b"x" * 33, True)]


def test_calls_may_be_taken_of_blocks_with_events_alone() -> None:
    stop = call(keccak(b"stop()")[:4])
    logs = {
        5: [log(0, SENT, word(OTHER), data=word(1))],
        6: [],
        7: [log(0, SENT, word(OTHER), data=word(1), address=OTHER)],
        8: [log(0, SENT, word(OTHER))],  # one that can't be read is one all the same
    }
    blocks = [block(each, [stop, call(b"junk")], number=n) for n, each in logs.items()]
    found, lost = tables({OURS: ABI}, blocks, only_with_events=True)
    assert [row["block_number"] for row in values(found[ABI.function("stop").table])] == [5, 8]
    assert [each.at.block for each in lost if not each.topics] == [5, 8]


def test_junk_of_strangers_is_kept_up_to_a_bound_and_the_rest_is_counted() -> None:
    junk = [call(b"junk" + bytes((i,))) for i in range(LOST_A_BLOCK + 3)]
    bad = [log(i, SENT, word(OTHER)) for i in range(2)]
    found, lost = tables({OURS: ABI}, [block(bad, junk, number=n) for n in (5, 6)])
    assert found == {}
    calls = [each for each in lost if not each.topics]
    assert [(each.at.block, each.data) for each in calls] == [
        (n, each.input) for n in (5, 6) for each in junk[:LOST_A_BLOCK]
    ]
    assert ["3 more of this block" in each.reason for each in calls] == 2 * [
        *(LOST_A_BLOCK - 1) * [False],
        True,
    ]
    # Those leave no log out.
    assert [(each.at.block, each.at.log) for each in lost if each.topics] == [
        (5, 0),
        (5, 1),
        (6, 0),
        (6, 1),
    ]


TRANSFER = keccak(b"Transfer(address,address,uint256)")
ERC20 = load(
    [
        {
            "type": "event",
            "name": "Transfer",
            "inputs": [
                parameter("from", "address", True),
                parameter("to", "address", True),
                parameter("n", "uint256"),
            ],
        }
    ]
)


def test_real_transfers_decode_as_eth_abi_reads_them() -> None:
    count = 0
    for given in corpora():
        proved = prove(given.block, given.receipts)
        contracts: dict[Address, Abi] = {each.address: ERC20 for each in proved.logs}
        found, _ = tables(contracts, [proved])
        rows = [row for stream in found.values() for row in values(stream)]
        expected = []
        for each in proved.logs:
            if len(each.topics) == 3 and each.topics[0] == TRANSFER and len(each.data) == 32:
                [a] = oracle(["address"], each.topics[1])
                [b] = oracle(["address"], each.topics[2])
                [n] = oracle(["uint256"], each.data)
                expected.append((each.log_index, bytes.fromhex(a[2:]), bytes.fromhex(b[2:]), n))
        assert [(row["log_index"], row["from"], row["to"], row["n"]) for row in rows] == expected
        count += len(rows)
    assert count > 300


def test_decoding_does_not_load_pandas() -> None:
    """It takes a second and 50 MB of every role, and pyarrow loads it where it can."""
    code = """
import sys
from tests.indexer.test_decode import ABI, OTHER, OURS, SENT, block, call, keccak, log, tables, word

logs, calls = [log(0, SENT, word(OTHER), data=word(1))], [call(keccak(b"stop()")[:4])]
assert len(tables({OURS: ABI}, [block(logs, calls)])[0]) == 2
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

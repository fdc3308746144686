"""What solc and an EVM make of all that Solidity allows in events and calls, decoded from real blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import pytest
from eth_hash.auto import keccak

from devnet.anvil import anvil
from devnet.chain import Account, Chain, Contract
from indexer.decode import Undecodable, tables
from indexer.prove import prove
from nektar.chain.abi import load
from nektar.chain.table import values
from nektar.model import Address
from tests.indexer.solc import solc
from tests.indexer.test_role import KEY

pytestmark = pytest.mark.real

SOURCE = """
// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;
type Price is uint128;
enum Kind { A, B, C }
interface Other {}
struct Point { uint256 x; int64 y; }
struct Deep { string name; Point[] points; bytes[2] pair; Kind kind; }
contract Everything {
    event Words(
        Price price, Kind indexed kind, Other other, function() external f, bytes4 b, int24 n, bool yes
    );
    event Nested(Deep[] deep, uint8[2][] grid, string[][2] texts);
    event Hashed(string indexed text, Point indexed point, uint16[] indexed list, Deep deep);
    event Overloaded(uint8 n);
    event Overloaded(string);
    event Empty();
    event Bare(address from) anonymous;
    event Note(bytes4 indexed sig, address indexed usr, uint indexed a, uint indexed b, bytes data) anonymous;
    constructor() { emit Empty(); }
    function deep() internal pure returns (Deep memory d) {
        d.name = unicode"ü";
        d.points = new Point[](2);
        d.points[1] = Point(2 ** 255, -3);
        d.pair[1] = hex"0102";
        d.kind = Kind.C;
    }
    function all() external {
        emit Words(Price.wrap(7), Kind.B, Other(address(this)), this.all, 0x01020304, -5, true);
        Deep[] memory ds = new Deep[](2);
        ds[0] = deep();
        ds[1].name = "second";
        uint8[2][] memory grid = new uint8[2][](1);
        grid[0] = [8, 9];
        string[][2] memory texts;
        texts[1] = new string[](1);
        texts[1][0] = "inside";
        emit Nested(ds, grid, texts);
        uint16[] memory list = new uint16[](2);
        list[1] = 4;
        emit Hashed("text", Point(1, -1), list, deep());
        emit Overloaded(3);
        emit Overloaded("three");
        emit Bare(msg.sender);
        emit Note(msg.sig, msg.sender, 1, 2, "data");
    }
    function set(Deep calldata d, Price price, Kind) external {}
    function set(uint256) external { revert(); }
    fallback(bytes calldata) external payable returns (bytes memory) {}
    receive() external payable { revert(); }
}
"""
DEEP = {"name": "ü", "points": [{"x": 0, "y": 0}, {"x": 2**255, "y": -3}], "pair": [b"", b"\1\2"], "kind": 2}
Rows: TypeAlias = dict[str, list[dict[str, Any]]]  # by the table's name without its hash

PLACE = ("block_number", "block_hash", "block_time", "tx_index", "tx_hash", "log_index", "address")


@pytest.fixture(scope="module")
def compiled() -> Any:
    return solc(SOURCE)["Everything"]


@pytest.fixture
def chain() -> Iterator[Chain]:
    with anvil(chain_id=31337, slots=2) as chain:
        yield chain


def decoded(
    chain: Chain, abi: Any, address: str
) -> tuple[dict[str, list[dict[str, Any]]], list[Undecodable]]:
    """The newest block's rows, and what was lost."""
    number = hex(chain.head()[0])
    block = chain.rpc("eth_getBlockByNumber", number, True)
    proved = prove(block, chain.rpc("eth_getBlockReceipts", number))
    found, lost = tables({Address(bytes.fromhex(address[2:])): load(abi)}, [proved])
    named: Rows = {}
    for table, stream in found.items():
        for row in values(stream):
            left = {name: value for name, value in row.items() if name not in PLACE}
            named.setdefault(table.rpartition("_")[0], []).append(left)
    return {name: sorted(rows, key=str) for name, rows in named.items()}, lost


def test_everything_that_solc_compiles_is_decoded(compiled: Any, chain: Chain) -> None:
    abi, account = compiled["abi"], Account.from_key(KEY)
    code = bytes.fromhex(compiled["evm"]["bytecode"]["object"])
    sent = chain.send(account, None, code)
    chain.mine()
    address = chain.receipt(sent)["contractAddress"]
    # A constructor's logs are the contract's own, which has no code yet.
    assert decoded(chain, abi, address) == ({"event_empty": [{}]}, [])

    all_ = keccak(b"all()")[:4]
    chain.send(account, address, all_)
    chain.mine()
    found, lost = decoded(chain, abi, address)
    assert lost == []
    here, us = bytes.fromhex(address[2:]), bytes.fromhex(account.address[2:])
    [call] = found.pop("call_all")
    assert (call["sender"], call["status"]) == (us, True)
    assert found == {
        "event_words": [
            {
                "price": 7,
                "kind": 1,
                "other": here,
                "f": here + all_,
                "b": b"\1\2\3\4",
                "n": -5,
                "yes": True,
            }
        ],
        "event_nested": [
            {
                "deep": [DEEP, {"name": "second", "points": [], "pair": [b"", b""], "kind": 0}],
                "grid": [[8, 9]],
                "texts": [[], ["inside"]],
            }
        ],
        "event_hashed": [
            {
                "text": keccak(b"text"),
                "point": keccak((1).to_bytes(32) + b"\xff" * 32),
                "list": keccak(bytes(32) + (4).to_bytes(32)),
                "deep": DEEP,
            }
        ],
        "event_overloaded": [{"arg0": "three"}, {"n": 3}],
        "event_bare": [{"from": us}],
        "event_note": [{"sig": all_, "usr": us, "a": 1, "b": 2, "data": b"data"}],
    }


def test_calls_of_every_kind_are_decoded_failed_ones_too(compiled: Any, chain: Chain) -> None:
    abi, account = compiled["abi"], Account.from_key(KEY)
    sent = chain.send(account, None, bytes.fromhex(compiled["evm"]["bytecode"]["object"]))
    chain.mine()
    address = chain.receipt(sent)["contractAddress"]
    [set_deep] = [each for each in abi if each.get("name") == "set" and len(each["inputs"]) == 3]
    deep = ("ü", [(0, 0), (2**255, -3)], [b"", b"\1\2"], 2)
    chain.send(account, address, Contract([set_deep]).encode("set", deep, 7, 1))
    chain.send(account, address, keccak(b"set(uint256)")[:4] + bytes(31) + b"\4")
    chain.send(account, address, b"", value=5)
    chain.send(account, address, b"no such selector", value=6)
    chain.mine()
    found, lost = decoded(chain, abi, address)
    assert lost == []
    arguments = {
        name: [
            {k: v for k, v in row.items() if k not in ("sender", "value", "status", "revert")}
            | {"ok": (row["value"], row["status"])}
            for row in rows
        ]
        for name, rows in found.items()
    }
    assert arguments == {
        "call_set": [{"arg0": 4, "ok": (0, False)}, {"d": DEEP, "price": 7, "arg2": 1, "ok": (0, True)}],
        "call_receive": [{"ok": (5, False)}],
        "call_fallback": [{"data": b"no such selector", "ok": (6, True)}],
    }

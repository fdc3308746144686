from __future__ import annotations

from typing import Any

import pytest
from eth_abi import encode
from eth_hash.auto import keccak

from nektar.chain.abi import load
from nektar.chain.revert import MAX_BYTES, MAX_CHARACTERS, reason


def error(name: str, *inputs: dict[str, Any]) -> dict[str, Any]:
    return {"type": "error", "name": name, "inputs": list(inputs)}


def parameter(type_: str, name: str = "", **more: Any) -> dict[str, Any]:
    return {"type": type_, "name": name, **more}


POINT = [parameter("int8", "x"), parameter("bytes2[]", "ys")]
ERRORS = load(
    [
        error("Paused"),
        error("TooLate", parameter("uint64", "deadline"), parameter("address")),
        error(
            "Odd", parameter("tuple", "p", components=POINT), parameter("bool", "b"), parameter("string", "s")
        ),
    ]
).errors


def said(signature: str, *values: Any) -> bytes:
    inside = signature.partition("(")[2][:-1]
    types = ["(int8,bytes2[])", "bool", "string"] if signature.startswith("Odd") else inside.split(",")
    return keccak(signature.encode())[:4] + encode(types if inside else [], values)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (said("Paused()"), "Paused()"),
        (said("TooLate(uint64,address)", 9, "0x" + 20 * "ab"), f"TooLate(deadline=9, 0x{20 * 'ab'})"),
        (
            said("Odd((int8,bytes2[]),bool,string)", (-1, [b"ab"]), True, 'say "ü"\n'),
            r'Odd(p=(x=-1, ys=[0x6162]), b=true, s="say \"ü\"\n")',
        ),
        (said("Error(string)", "not the owner"), 'Error("not the owner")'),
        (said("Panic(uint256)", 0x11), "Panic(0x11: arithmetic overflow)"),
        (said("Panic(uint256)", 0x99), "Panic(0x99)"),
        (said("Unknown()"), f"0x{keccak(b'Unknown()')[:4].hex()}"),
        (b"\1" * 100, f"0x{64 * '01'}… (100 bytes)"),
        (said("TooLate(uint64,address)", 9, "0x" + 20 * "ab")[:-1], None),
        (said("Paused()") + b"more", None),
        (b"\x08\xc3\x79", "0x08c379"),
    ],
)
def test_what_a_call_reverted_with_is_put_into_words(data: bytes, text: str | None) -> None:
    shown = f"0x{data[:64].hex()}" + (f"… ({len(data)} bytes)" if len(data) > 64 else "")
    assert reason(data, ERRORS) == (shown if text is None else text)


def test_a_reason_is_bounded_whatever_a_contract_says() -> None:
    assert len(reason(said("Error(string)", "x" * 60_000), {})) == MAX_CHARACTERS
    assert reason(said("Error(string)", "x" * MAX_BYTES), {}).endswith(f"… ({MAX_BYTES + 68} bytes)")


def test_a_contracts_own_error_of_the_same_selector_comes_first() -> None:
    own = load([error("Error", parameter("string", "message"))]).errors
    assert reason(said("Error(string)", "no"), own) == 'Error(message="no")'

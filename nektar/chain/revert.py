"""Why a call reverted, in words: what it answered with, read by the errors of contracts' ABIs.

No root covers it, so it is never more than what a node says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from nektar.arrow import pa
from nektar.chain.abi import SELECTOR_BYTES, Argument, ErrorType, load
from nektar.chain.columns import Bodies, Joined, decode
from nektar.chain.rpc import Refused
from nektar.chain.table import values, write_table
from nektar.chain.types import field

# Both come from whoever is called, and end in a column that people read.
MAX_CHARACTERS = 1024
MAX_BYTES = 64 * 1024
SHOWN_BYTES = 64  # of what can't be read

# What every contract may revert with, by Solidity's own `require`, `revert` and checks.
BUILT_IN = load(
    [
        {"type": "error", "name": "Error", "inputs": [{"type": "string"}]},
        {"type": "error", "name": "Panic", "inputs": [{"type": "uint256"}]},
    ]
).errors
_PANIC = next(selector for selector, error in BUILT_IN.items() if error.name == "Panic")
PANICS = {
    0x00: "compiler panic",
    0x01: "assertion failed",
    0x11: "arithmetic overflow",
    0x12: "division by zero",
    0x21: "no such enum value",
    0x22: "storage is encoded wrongly",
    0x31: "pop of an empty array",
    0x32: "index out of bounds",
    0x41: "out of memory",
    0x51: "no function",
}

# Characters of an answer that is read; a reason is far shorter.
LONGEST = 4 * MAX_BYTES

_HEX = re.compile(r"0x((?:[0-9a-fA-F]{2})*)$")  # some clients put a word before it
# How nodes say that a call stopped without an answer.
_HALTS = (
    (re.compile(r"out ?of ?gas", re.IGNORECASE), "out of gas"),
    (re.compile(r"invalid ?(fe ?)?opcode|bad instruction", re.IGNORECASE), "invalid opcode"),
    (re.compile(r"revert", re.IGNORECASE), ""),
)


def reason(data: bytes, errors: Mapping[bytes, ErrorType]) -> str:
    """`Name(argument=value, …)` of what a call reverted with; empty where it gave no reason.

    `errors` are by selector. What none of them is, or what does not fit its type, is shown as hex.
    """
    if not data:
        return ""
    error = errors.get(data[:SELECTOR_BYTES]) or BUILT_IN.get(data[:SELECTOR_BYTES])
    if error is None or len(data) > MAX_BYTES or (found := _arguments(error, data)) is None:
        shown = data[:SHOWN_BYTES].hex()
        return f"0x{shown}" if len(data) <= SHOWN_BYTES else f"0x{shown}… ({len(data)} bytes)"
    if error.selector == _PANIC:
        (code,) = found
        return f"Panic({code:#04x}: {PANICS[code]})" if code in PANICS else f"Panic({code:#04x})"
    said = ", ".join(
        _text(value) if each.column == f"arg{i}" else f"{each.column}={_text(value)}"
        for i, (each, value) in enumerate(zip(error.arguments, found, strict=True))
    )
    text = f"{error.name}({said})"
    return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 1]}…"


def told(answer: Any, errors: Mapping[bytes, ErrorType]) -> str | None:
    """Why the call failed, by the answer to `eth_call`: None where it did not, or that is not said; empty
    where it reverted without a reason."""
    if not isinstance(answer, Refused):
        return None
    data = answer.data
    if isinstance(data, Mapping):
        data = data.get("data")
    if isinstance(data, str) and len(data) <= LONGEST and (match := _HEX.search(data)):
        return reason(bytes.fromhex(match[1]), errors)
    words = str(answer).partition(": refused with")[2]
    return next((said for pattern, said in _HALTS if pattern.search(words)), None)


def _arguments(error: ErrorType, data: bytes) -> Sequence[Any] | None:
    """The error's arguments, or None where `data` does not hold them."""
    body = Bodies([each.type for each in error.arguments], Joined.of([data[SELECTOR_BYTES:]]), exact=True)
    columns, _, refused = decode([body], 1)
    if refused:
        return None
    if not columns:
        return ()
    schema = pa.schema([field(each.column, each.type) for each in error.arguments])
    [row] = values(write_table(pa.RecordBatch.from_arrays(columns, schema=schema)))
    return _in_order(row, error.arguments)


def _in_order(row: Mapping[str, Any], arguments: Sequence[Argument]) -> Sequence[Any]:
    return [row[each.column] for each in arguments]


def _text(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case bytes():
            return f"0x{value.hex()}"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case list():
            return f"[{', '.join(map(_text, value))}]"
        case dict():
            return f"({', '.join(f'{name}={_text(each)}' for name, each in value.items())})"
        case _:
            return str(value)

"""Decoding measured: logs a second on one core, from a proved block's logs to the Arrow tables of a record.

Beside each the same bodies through eth_abi, of which that includes nothing but the arguments' values: the
ratio holds on other machines too. Batches are those of a backfill, and of one block at the head.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import eth_abi

from indexer.decode import tables
from indexer.prove import Log, Proved
from nektar.chain.abi import load
from nektar.chain.keccak import keccak
from nektar.model import Address, Hash32, Level

LOGS = 10_000
ROUNDS = 5
CONTRACT = Address(b"\x11" * 20)


class Shape(NamedTuple):
    """An event, the types in its topics and in its data, and the values of its i-th log."""

    name: str
    indexed: list[str]
    unindexed: list[str]
    values: Callable[[int], list[Any]]


SHAPES = [
    Shape("static", ["address"], ["uint256", "uint256", "address"], lambda i: [i, 1 << 200, f"0x{i:040x}"]),
    Shape("bytes", ["uint64"], ["bytes", "string"], lambda i: [b"\x07" * (i % 90), "words" * (i % 12)]),
    Shape(
        "nested",
        [],
        ["(address,uint256[],(bytes,uint64)[])[]", "uint16[2][]"],
        lambda i: [
            [(f"0x{i:040x}", [i, 2, 3], [(b"ab" * (i % 9), i)] * (i % 3))] * (1 + i % 2),
            [[1, 2]] * (i % 3),
        ],
    ),
]


def main() -> None:
    """Each shape at both sizes of batch; the median of the rounds."""
    print(f"{'':<8} {'a backfill':>18} {'a block of 100':>18} {'eth_abi':>18} {'ratio':>7}")
    for shape in SHAPES:
        abi, logs = _abi(shape), _logs(shape)
        blocks = [_block(logs[i : i + 100], i // 100) for i in range(0, LOGS, 100)]
        alone = _rate(lambda abi=abi, blocks=blocks: _one_by_one(abi, blocks))
        whole = _rate(lambda abi=abi, blocks=blocks: _read(abi, blocks))
        stock = _rate(lambda shape=shape, logs=logs: _stock(shape, logs))
        shown = " ".join(f"{rate / 1e3:>11,.0f} k/s   " for rate in (whole, alone, stock))
        print(f"{shape.name:<8} {shown} {whole / stock:>5.1f} x")


def _rate(work: Callable[[], None]) -> float:
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        rounds.append(time.process_time() - began)
    return LOGS / statistics.median(rounds)


def _read(abi: Any, blocks: list[Proved]) -> None:
    found, lost = tables({CONTRACT: abi}, blocks)
    if lost or len(found) != 1:
        raise ValueError(f"expected one table, and nothing lost; got {list(found)}, {lost[:1]}")


def _one_by_one(abi: Any, blocks: list[Proved]) -> None:
    for block in blocks:
        _read(abi, [block])


def _stock(shape: Shape, logs: list[Log]) -> None:
    for log in logs:
        for type_, topic in zip(shape.indexed, log.topics[1:], strict=True):
            eth_abi.decode([type_], topic)
        eth_abi.decode(shape.unindexed, log.data)


def _abi(shape: Shape) -> Any:
    inputs = [_parameter(t, f"a{i}") | {"indexed": True} for i, t in enumerate(shape.indexed)]
    inputs += [_parameter(t, f"b{i}") for i, t in enumerate(shape.unindexed)]
    return load([{"type": "event", "name": "E", "inputs": inputs}])


def _parameter(type_: str, name: str) -> dict[str, Any]:
    """As solc writes it: tuples with their components."""
    if not type_.startswith("("):
        return {"name": name, "type": type_}
    inside, _, suffix = type_[1:].rpartition(")")
    parts, depth = [""], 0
    for letter in inside:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    components = [_parameter(part, f"m{i}") for i, part in enumerate(parts)]
    return {"name": name, "type": f"tuple{suffix}", "components": components}


def _logs(shape: Shape) -> list[Log]:
    topic0 = Hash32(keccak(f"E({','.join([*shape.indexed, *shape.unindexed])})".encode()))
    return [
        Log(
            CONTRACT,
            (topic0, *(Hash32((i + 1).to_bytes(32)) for _ in shape.indexed)),
            eth_abi.encode(shape.unindexed, shape.values(i)),
            i % 100,
            Hash32(keccak(i.to_bytes(8))),
            i % 100,
        )
        for i in range(LOGS)
    ]


def _block(logs: list[Log], number: int) -> Proved:
    name = Hash32(number.to_bytes(32))
    return Proved(number, name, name, 1_700_000_000 + number, Level.PROVED, (), (), tuple(logs))


if __name__ == "__main__":
    main()

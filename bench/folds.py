"""The folds measured: events a second through each, and what each keeps, at the size of a large Network.

A thousand Operators, fifty tasks, a task a block. Every Operator attests every task by itself, the most
that a Network can make of it: an event and a signature each. Half of the tasks are responded to as well.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import nektar.fold as calculus
from cli.settings import folds
from nektar import checkpoint
from nektar.chain.keccak import keccak
from nektar.evidence import bls
from nektar.log import Mark, New
from nektar.model import (
    G1,
    G2,
    Address,
    At,
    Attested,
    Block,
    ChainEvent,
    Deadline,
    Hash32,
    Level,
    Network,
    OperatorRegistered,
    OperatorSet,
    OperatorSetCommitted,
    Responded,
    Signed,
    Task,
    TaskSubmitted,
)
from nektar.networks.encoding import encode_answer, encode_members, encode_task, operator_set

OPERATORS = 1_000
TASKS = 50
WINDOW, GRACE = 20, 10
CONTRACTS = ("task_manager", "operator_registry", "delegation", "slashing_manager")
TERMS = {"miss_allowance": 2, "miss_window": 1_000, "minimum": 10**18, "slashing_window": 100_000}
NETWORK = Network(
    "bench",
    31337,
    {name: Address(bytes([0x7A + i]) * 20) for i, name in enumerate(CONTRACTS)},
    terms=TERMS,
)
RESPONSE = encode_answer(7, 13)
DIGEST = Hash32(keccak(RESPONSE))
# Points, since others are dropped at once; nobody's signatures, since none is verified.
SIGNATURES = [bls.hash_to_g1(keccak(i.to_bytes(32))) for i in range(OPERATORS)]
MEMBERS = [(Address((i + 1).to_bytes(20, "big")), G1((i + 1).to_bytes(64, "big"))) for i in range(OPERATORS)]


def main() -> None:
    """Fold the same blocks by each fold."""
    blocks = list(history())
    count = sum(len(events) + 1 for _, events in blocks)
    print(f"{OPERATORS:,} operators x {TASKS} tasks: {len(blocks)} blocks, {count:,} events")
    total = 0.0
    for fold in folds():
        total += measure(fold, blocks, count)
    print(f"{'all folds':>17}: {count / total:>10,.0f} events/s")


def measure(fold: Any, blocks: list[tuple[Block, list[ChainEvent]]], count: int) -> float:
    """Fold a block a record with a mark behind each, as at the head of a chain; the seconds that it took."""
    folded, changed = calculus.begin(fold, NETWORK), 0
    began = time.perf_counter()
    for block, events in blocks:
        folded, changes = calculus.apply(fold, folded, New((block,), {}), events, block.number)
        changed += len(changes)
        final = blocks[max(0, block.number - 8)][0]
        folded, _ = calculus.apply(fold, folded, Mark(block.ref, final.ref), (), block.number)
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    largest = len(checkpoint.encode(folded.steps[0]))
    written = time.perf_counter() - began
    print(
        f"{fold.name:>17}: {count / seconds:>10,.0f} events/s, {changed:,} rows changed, "
        f"checkpoint {largest / 1e6:.2f} MB in {written * 1e3:.0f} ms"
    )
    return seconds


def history() -> Iterator[tuple[Block, list[ChainEvent]]]:
    """Blocks and what happened in them: all register, a set, a task a block, and then their end."""
    committed = operator_set(encode_members([(a, k, 10**18) for a, k in MEMBERS]))
    opened: list[Task] = []
    parent = Hash32(bytes(32))
    for number in range(TASKS + WINDOW + GRACE + 2):
        events: list[ChainEvent] = []
        if number == 0:
            events += registered(committed)
        elif number <= TASKS:
            opened.append(task(number, committed.hash, parent, WINDOW, GRACE))
            events.append(TaskSubmitted(opened[-1].submitted, opened[-1]))
        if 2 <= number <= TASKS + 1:
            about = opened[number - 2]
            for i, (address, _) in enumerate(MEMBERS):
                at = At(number, i + 1, 0)
                events.append(Attested(at, about.hash, address, DIGEST, True))
                events.append(Signed(at, about.hash, address, DIGEST, SIGNATURES[i], RESPONSE))
            if number % 2:
                events.append(
                    Responded(At(number, OPERATORS + 1, 0), about.hash, DIGEST, (1, 2, 3), number + WINDOW)
                )
        block = Block(number, Hash32(keccak(parent)), parent, 12 * number, Level.PROVED, "p", "single:p")
        parent = block.hash
        yield block, events


def registered(committed: OperatorSet) -> list[ChainEvent]:
    """The first block's events: all register, and are committed as a set."""
    events: list[ChainEvent] = [
        OperatorRegistered(At(0, i, 0), address, key, G2(bytes(128)), "local", 1)
        for i, (address, key) in enumerate(MEMBERS)
    ]
    return [*events, OperatorSetCommitted(At(0, OPERATORS, 0), committed)]


def task(number: int, set_hash: Hash32, parent: Hash32, window: int, grace: int) -> Task:
    """The Task of this block, open for `window` blocks."""
    deadline = number + window
    preimage = encode_task([bytes(32), 91, parent, set_hash, deadline, grace, 5000, 5000, number])
    return Task(
        hash=Hash32(keccak(preimage)),
        number=number,
        type=Hash32(bytes(32)),
        input="91",
        set_hash=set_hash,
        submitted=At(number, 0, 0),
        deadline=Deadline("block", deadline),
        grace=grace,
        response_threshold=5000,
        stake_threshold=5000,
        submitter=Address(bytes(20)),
        preimage=preimage,
    )


if __name__ == "__main__":
    main()

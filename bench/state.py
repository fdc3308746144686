"""What all folds together keep, by the number of Tasks: memory of one process, as the role `processors` has.

A thousand Operators. A Task a block, answered by a quorum of all but three, of whom two attest and one
misses; a thousand Tasks are open at a time. `python -m bench.state --tasks 20000`.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Iterator
from pathlib import Path

import nektar.fold as calculus
from bench.folds import NETWORK, OPERATORS, RESPONSE, all_folds
from nektar.chain.keccak import keccak
from nektar.log import Mark, New
from nektar.model import (
    G1,
    G2,
    Address,
    At,
    Attested,
    Block,
    BlockRef,
    ChainEvent,
    Deadline,
    Hash32,
    Level,
    OperatorRegistered,
    OperatorSetCommitted,
    Responded,
    Signed,
    Task,
    TaskSubmitted,
)
from nektar.networks.encoding import encode_members, encode_task, operator_set

# Blocks from a Task's submission to the end of its grace: so many Tasks are open.
WINDOW, GRACE = 900, 100
# How deep a block is final.
DEPTH = 64
SHOWN = 8
_DIGEST = Hash32(keccak(RESPONSE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=5_000)
    tasks = parser.parse_args().tasks
    gc.set_threshold(50_000, 20, 20)  # as every command has it
    folds = [(fold, calculus.begin(fold, NETWORK)) for fold in all_folds()]
    refs: list[BlockRef] = []
    began, spent = time.monotonic(), 0.0
    print(f"{OPERATORS:,} operators, {WINDOW + GRACE:,} tasks open; before: {_memory()} MB")
    for block, events in history(tasks):
        refs.append(block.ref)
        started = time.perf_counter()
        for i, (fold, folded) in enumerate(folds):
            after, _ = calculus.apply(fold, folded, New((block,), {}), events, block.number)
            final = refs[max(0, block.number - DEPTH)]
            after, _ = calculus.apply(fold, after, Mark(block.ref, final), (), block.number)
            folds[i] = fold, after
        spent += time.perf_counter() - started
        if block.number and block.number % max(1, tasks // SHOWN) == 0:
            gc.collect()
            print(
                f"{block.number:>8,} tasks: {_memory()} MB, {block.number / spent:,.0f} tasks/s, "
                f"{time.monotonic() - began:.0f} s",
                flush=True,
            )


def _memory() -> int:
    """The process's resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 // 1_000_000


def history(tasks: int) -> Iterator[tuple[Block, list[ChainEvent]]]:
    """Blocks and what happened in them."""
    addresses = [Address((i + 1).to_bytes(20, "big")) for i in range(OPERATORS)]
    keys = [G1((i + 1).to_bytes(64, "big")) for i in range(OPERATORS)]
    committed = operator_set(encode_members([(a, k, 10**18) for a, k in zip(addresses, keys, strict=True)]))
    parent = Hash32(bytes(32))
    before: Task | None = None
    for number in range(tasks + 1):
        events: list[ChainEvent] = []
        if number == 0:
            for i, (address, key) in enumerate(zip(addresses, keys, strict=True)):
                events.append(OperatorRegistered(At(0, i, 0), address, key, G2(bytes(128)), "local", 1))
            events.append(OperatorSetCommitted(At(0, OPERATORS, 0), committed))
        else:
            task = _task(number, committed.hash, parent)
            events.append(TaskSubmitted(task.submitted, task))
            if before:
                out = tuple(sorted({(number * step) % OPERATORS for step in (1, 7, 13)}))
                events.append(
                    Responded(
                        *(At(number, 1, 0), before.hash, _DIGEST, out, number + 20),
                        response=RESPONSE,
                        signature=G1(bytes(64)),
                        apk_g2=G2(bytes(128)),
                    )
                )
                for i, place in enumerate(out[:2]):
                    at = At(number, 2 + i, 0)
                    events.append(Attested(at, before.hash, addresses[place], _DIGEST, True))
                    events.append(Signed(at, before.hash, addresses[place], _DIGEST, keys[place], RESPONSE))
            before = task
        block = Block(number, Hash32(keccak(parent)), parent, 12 * number, Level.PROVED, "p", "single:p")
        parent = block.hash
        yield block, events


def _task(number: int, set_hash: Hash32, parent: Hash32) -> Task:
    deadline = number + WINDOW
    preimage = encode_task([bytes(32), 91, parent, set_hash, deadline, GRACE, 5000, 5000, number])
    return Task(
        hash=Hash32(keccak(preimage)),
        number=number,
        type=Hash32(bytes(32)),
        input="91",
        set_hash=set_hash,
        submitted=At(number, 0, 0),
        deadline=Deadline("block", deadline),
        grace=GRACE,
        response_threshold=5000,
        stake_threshold=5000,
        submitter=Address(bytes(20)),
        preimage=preimage,
    )


if __name__ == "__main__":
    main()

"""What all folds together keep, by the number of Tasks: memory of one process, as the role `processors` has.
One fold alone by `--fold NAME`.

A thousand Operators. A Task a block, answered by a quorum of all but three, of whom two attest and one
misses; a thousand Tasks are open at a time. `python -m bench.state --tasks 20000`. With `--attesting 1000`
all of them attest, the most that there is to keep of a Task, and that takes its time. With `--seconds 130`
20,000 blocks are a month, of which service levels keep something. With `--rotate 300` a new set is committed
with every 300th Task: one Operator has another key, and everybody another stake. With `--silent` the
aggregator is down: nobody responds, and telemetry brings what each Operator signed. At the end all folds are
read back from their checkpoints, as after a restart, where none shares anything with another.
"""

from __future__ import annotations

import argparse
import gc
import resource
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nektar.fold as calculus
from bench.folds import DIGEST, MEMBERS, NETWORK, OPERATORS, RESPONSE, SIGNATURES, registered, task
from cli.settings import folds as all_folds
from nektar import checkpoint
from nektar.chain.keccak import keccak
from nektar.log import Mark, New, SignedBatch
from nektar.model import (
    G1,
    G2,
    At,
    Attested,
    Block,
    BlockRef,
    ChainEvent,
    Hash32,
    KeyRotated,
    Level,
    OperatorSetCommitted,
    Responded,
    Signed,
    Task,
    TaskSubmitted,
)
from nektar.networks.encoding import encode_members, operator_set

# Blocks from a Task's submission to the end of its grace: so many Tasks are open.
WINDOW, GRACE = 900, 100
# How deep a block is final.
DEPTH = 64
SHOWN = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=5_000)
    parser.add_argument("--attesting", type=int, default=2, help="Operators who attest each Task")
    parser.add_argument("--seconds", type=int, default=12, help="from one block to the next")
    parser.add_argument("--fold", help="only the fold of this name")
    parser.add_argument("--rotate", type=int, default=0, help="Tasks from one OperatorSet to the next")
    parser.add_argument("--silent", action="store_true", help="nobody responds, and telemetry brings it all")
    given = parser.parse_args()
    tasks: int = given.tasks
    gc.set_threshold(50_000, 20, 20)  # as every command has it
    named = [fold for fold in all_folds() if given.fold in (None, fold.name)]
    folds = [(fold, calculus.begin(fold, NETWORK)) for fold in named]
    refs = deque[BlockRef](maxlen=DEPTH + 1)
    began, spent = time.monotonic(), 0.0
    print(f"{OPERATORS:,} operators, {WINDOW + GRACE:,} tasks open; before: {_memory()} MB")
    for block, events in history(tasks, given.attesting, given.seconds, given.rotate, given.silent):
        refs.append(block.ref)
        brought = SignedBatch(tuple(signed(events))) if given.silent else None
        started = time.perf_counter()
        for i, (fold, folded) in enumerate(folds):
            after, _ = calculus.apply(fold, folded, New((block,), {}), events, block.number)
            final = refs[0]
            after, _ = calculus.apply(fold, after, Mark(block.ref, final), (), block.number)
            if brought:
                after, _ = calculus.apply(fold, after, brought, (), block.number)
            folds[i] = fold, after
        spent += time.perf_counter() - started
        if block.number and block.number % max(1, tasks // SHOWN) == 0:
            gc.collect()
            print(
                f"{block.number:>8,} tasks: {_memory()} MB, {block.number / spent:,.0f} tasks/s, "
                f"{time.monotonic() - began:.0f} s, checkpoints {_checkpoints(folds)} MB",
                flush=True,
            )

    kept = {fold.name: checkpoint.encode(folded.steps[0]) for fold, folded in folds}
    names = {fold.name: fold for fold, _ in folds}
    folds.clear()
    gc.collect()
    print(f"checkpoints: {', '.join(f'{name} {len(each) / 1e6:.1f} MB' for name, each in kept.items())}")
    again = [checkpoint.decode(kept.pop(name), fold) for name, fold in names.items()]
    gc.collect()
    print(f"read back: {_memory()} MB for {len(again)} folds; {_most()} MB at most")


def _most() -> int:
    """The most that the process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 1_000_000


def _memory() -> int:
    """The process's resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 // 1_000_000


def _checkpoints(folds: list[tuple[Any, Any]]) -> float:
    return round(sum(len(checkpoint.encode(folded.steps[0])) for _, folded in folds) / 1e6, 1)


def history(
    tasks: int, attesting: int, seconds: int = 12, rotate: int = 0, silent: bool = False
) -> Iterator[tuple[Block, list[ChainEvent]]]:
    """Blocks and what happened in them. Who attests first did not sign with the quorum."""
    committed, keys = operator_set(encode_members([(a, k, 10**18) for a, k in MEMBERS])), dict(MEMBERS)
    parent = Hash32(bytes(32))
    before: Task | None = None
    for number in range(tasks + 1):
        events: list[ChainEvent] = []
        if number == 0:
            events += registered(committed)
        else:
            if rotate and number % rotate == 0:
                address, _ = MEMBERS[number // rotate % OPERATORS]
                keys[address] = G1((1 << 300 | number).to_bytes(64))
                events.append(KeyRotated(At(number, 0, 0), address, keys[address], G2(number.to_bytes(128))))
                stakes = [(a, k, 10**18 + number) for a, k in keys.items()]
                committed = operator_set(encode_members(stakes))
                events.append(OperatorSetCommitted(At(number, 0, 1), committed))
            opened = task(number, committed.hash, parent, WINDOW, GRACE)
            events.append(TaskSubmitted(opened.submitted, opened))
            if before:
                out = tuple(sorted({(number * step) % OPERATORS for step in (1, 7, 13)}))
                responded = Responded(
                    *(At(number, 1, 0), before.hash, DIGEST, out, number + 20),
                    response=RESPONSE,
                    signature=G1(bytes(64)),
                    apk_g2=G2(bytes(128)),
                )
                events += [] if silent else [responded]
                others = [place for place in range(OPERATORS) if place not in out]
                for i, place in enumerate([*out[:2], *others][:attesting]):
                    at, (address, _) = At(number, 2 + i, 0), MEMBERS[place]
                    events.append(Attested(at, before.hash, address, DIGEST, True))
                    events.append(Signed(at, before.hash, address, DIGEST, SIGNATURES[place], RESPONSE))
            before = opened
        block = Block(number, Hash32(keccak(parent)), parent, seconds * number, Level.PROVED, "p", "single:p")
        parent = block.hash
        yield block, events


def signed(events: list[ChainEvent]) -> Iterator[Signed]:
    """What telemetry brings of these Tasks: as read from the log, where each message has bytes of its own."""
    for event in events:
        if isinstance(event, TaskSubmitted):
            for (address, _), point in zip(MEMBERS, SIGNATURES, strict=True):
                copy = G1(bytes(bytearray(point))), bytes(bytearray(RESPONSE))
                yield Signed(None, event.task.hash, address, DIGEST, *copy, brought_by="aggregator")


if __name__ == "__main__":
    main()

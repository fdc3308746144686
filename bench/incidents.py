"""What an incident makes of all folds together, at a thousand Operators: what is put out, what checkpoints
hold, and memory of one process, as the role `processors` has.

* outage: nobody answers three Tasks, a block apart: each Operator's misses are a finding.
* quorum: 670 Operators sign a wrong response, which is accepted: each of them is a finding.
* backfill: nobody answers 24 Tasks, all of which one record of the log brings, as large as they come.

`python -m bench.incidents` runs each in a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache

import msgspec

import nektar.fold as calculus
from bench.folds import GRACE, NETWORK, OPERATORS, WINDOW, task
from cli.settings import folds as all_folds
from indexer.backfill import BLOCKS_A_RECORD
from nektar import checkpoint
from nektar.chain.keccak import keccak
from nektar.evidence import bls
from nektar.log import Mark, New
from nektar.model import (
    Address,
    At,
    Block,
    ChainEvent,
    Hash32,
    Level,
    OperatorRegistered,
    OperatorSet,
    OperatorSetCommitted,
    Responded,
    Task,
    TaskSubmitted,
)
from nektar.networks.encoding import encode_answer, encode_members, operator_set
from nektar.rows import Finding
from processors import outputs

# How deep a block is final.
DEPTH = 8
SIGNERS = 670
WRONG = encode_answer(13, 7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", choices=sorted(INCIDENTS))
    name = parser.parse_args().name
    if name:
        measure(name)
        return
    for each in INCIDENTS:
        subprocess.run([sys.executable, "-m", "bench.incidents", each], check=True)


def measure(name: str) -> None:
    """Fold the incident block by block, or all of it as records of a backfill, with a mark behind each."""
    blocks = list(INCIDENTS[name]())
    many = BLOCKS_A_RECORD if name == "backfill" else 1
    print(f"{name}: {OPERATORS:,} operators, {len(blocks)} blocks; before: {memory()} MB")
    folds = [(fold, calculus.begin(fold, NETWORK)) for fold in all_folds()]
    largest, kept, found = dict.fromkeys(NAMES, 0), dict.fromkeys(NAMES, 0), dict.fromkeys(NAMES, 0)
    for first in range(0, len(blocks), many):
        record = blocks[first : first + many]
        new = New(tuple(block for block, _ in record), {})
        head, final = record[-1][0].ref, blocks[max(0, first + len(record) - 1 - DEPTH)][0].ref
        for i, (fold, folded) in enumerate(folds):
            for each, events in ((new, [e for _, those in record for e in those]), (Mark(head, final), [])):
                folded, changes = calculus.apply(fold, folded, each, events, first)
                put_out = sum(len(m.value) for m in outputs.messages(NETWORK, fold.name, first, changes))
                largest[fold.name] = max(largest[fold.name], put_out)
                found[fold.name] += sum(isinstance(c.after, Finding) and c.before is None for c in changes)
            folds[i] = fold, folded
            if any(isinstance(c.after, Finding) for c in changes):
                kept[fold.name] = max(kept[fold.name], len(checkpoint.encode(folded.steps[0])))
    for each in NAMES:
        if found[each]:
            print(
                f"  {each:>17}: {found[each]:,} findings; a record puts out up to "
                f"{largest[each] / 1e6:.1f} MB, a checkpoint holds {kept[each] / 1e6:.1f} MB"
            )
    print(f"  {'all folds':>17}: at most {memory()} MB", flush=True)


def memory() -> int:
    """The most that the process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 1_000_000


NAMES = [fold.name for fold in all_folds()]


# --- what happens -----------------------------------------------------------------------------------


@cache
def keys() -> list[tuple[Address, tuple[bls.G1, bls.G2]]]:
    return [(Address((i + 1).to_bytes(20)), bls.public_keys(i + 1)) for i in range(OPERATORS)]


@cache
def committed() -> OperatorSet:
    return operator_set(encode_members([(address, key, 10**18) for address, (key, _) in keys()]))


def registered() -> list[ChainEvent]:
    """The first block's: all register, and are committed as a set."""
    events: list[ChainEvent] = [
        OperatorRegistered(At(0, i, 0), address, key, twin, "local", 1)
        for i, (address, (key, twin)) in enumerate(keys())
    ]
    return [*events, OperatorSetCommitted(At(0, OPERATORS, 0), committed())]


def history(
    tasks: int, blocks: int, answers: Callable[[Task, int], list[ChainEvent]] = lambda *_: []
) -> Iterator[tuple[Block, list[ChainEvent]]]:
    """A Task a block, the first `tasks` of them, and how each is answered in the next."""
    parent, before = Hash32(bytes(32)), None
    for number in range(blocks):
        events = registered() if number == 0 else []
        if before:
            events += answers(before, number)
        before = task(number, committed().hash, parent, WINDOW, GRACE) if 1 <= number <= tasks else None
        if before:
            before = msgspec.structs.replace(before, submitted=At(number, 9, 0))
            events.append(TaskSubmitted(before.submitted, before))
        block = Block(number, Hash32(keccak(parent)), parent, 12 * number, Level.PROVED, "p", "single:p")
        parent = block.hash
        yield block, events


def wrongly(about: Task, number: int) -> list[ChainEvent]:
    """The wrong response of a quorum, with a signature that is one."""
    digest = Hash32(keccak(WRONG))
    what = bls.signing_digest(NETWORK.chain_id, NETWORK.contract("task_manager"), about.hash, digest)
    secret = sum(range(1, SIGNERS + 1))  # the sum of signatures is that of the sum of keys
    responded = Responded(
        *(At(number, 1, 0), about.hash, digest, tuple(range(SIGNERS, OPERATORS)), number + WINDOW),
        response=WRONG,
        signature=bls.sign(secret, what),
        apk_g2=bls.public_keys(secret)[1],
    )
    return [responded]


INCIDENTS: dict[str, Callable[[], Iterator[tuple[Block, list[ChainEvent]]]]] = {
    "outage": lambda: history(3, 3 + WINDOW + GRACE + 2 * DEPTH),
    "quorum": lambda: history(1, 2 + 2 * DEPTH, wrongly),
    "backfill": lambda: history(24, BLOCKS_A_RECORD + DEPTH),
}


if __name__ == "__main__":
    main()

"""How quick the folds are where telemetry brings what a quorum has said already: exporters batch for seconds,
so that each Operator's own signature comes when the response to its Task is accepted.

A thousand Operators with keys that are some, one Task: an event of a second is one signature.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import nektar.fold as calculus
from bench import incidents
from bench.folds import DIGEST, GRACE, NETWORK, OPERATORS, RESPONSE, WINDOW, task
from cli.settings import folds
from nektar.chain.keccak import keccak
from nektar.evidence import bls
from nektar.log import New, Record, SignedBatch
from nektar.model import At, Block, ChainEvent, Hash32, Level, Responded, Signed, TaskSubmitted

AGGREGATOR = "aggregator"


def main() -> None:
    """Fold what is brought, and then all of it once more."""
    records, brought = history()
    print(f"{OPERATORS:,} operators: a quorum of all, and then what each of them signed")
    for fold in folds():
        folded = calculus.begin(fold, NETWORK)
        for record, events in records:
            folded, _ = calculus.apply(fold, folded, record, events)
        first, folded = measured(fold, folded, brought)
        again, _ = measured(fold, folded, brought)
        print(f"{fold.name:>17}: {first:>10,.0f} events/s, the same once more {again:>10,.0f}", flush=True)


def measured(fold: Any, folded: Any, brought: SignedBatch) -> tuple[float, Any]:
    """Events a second, and what stands after them."""
    began = time.perf_counter()
    folded, _ = calculus.apply(fold, folded, brought)
    return len(brought.responses) / (time.perf_counter() - began), folded


def history() -> tuple[list[tuple[Record, Sequence[ChainEvent]]], SignedBatch]:
    """A block in which all register, one with a Task, one with the response; and what telemetry brings."""
    parent = Hash32(bytes(32))
    about = task(1, incidents.committed().hash, parent, WINDOW, GRACE)
    what = bls.signing_digest(NETWORK.chain_id, NETWORK.contract("task_manager"), about.hash, DIGEST)
    secret = sum(range(1, OPERATORS + 1))  # the sum of signatures is that of the sum of keys
    responded = Responded(
        *(At(2, 0, 0), about.hash, DIGEST, (), WINDOW),
        response=RESPONSE,
        signature=bls.sign(secret, what),
        apk_g2=bls.public_keys(secret)[1],
    )
    records: list[tuple[Record, Sequence[ChainEvent]]] = []
    for number, events in enumerate(
        [incidents.registered(), [TaskSubmitted(about.submitted, about)], [responded]]
    ):
        block = Block(number, Hash32(keccak(parent)), parent, 12 * number, Level.PROVED, "p", "single:p")
        parent = block.hash
        records.append((New((block,), {}), events))
    each = (
        Signed(None, about.hash, address, DIGEST, bls.sign(i + 1, what), RESPONSE, AGGREGATOR)
        for i, (address, _) in enumerate(incidents.keys())
    )
    return records, SignedBatch(tuple(each))


if __name__ == "__main__":
    main()

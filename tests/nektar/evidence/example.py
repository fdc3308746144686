"""The worked example of docs/EVIDENCE.md: one Operator of two signed two responses to one Task.

python -m tests.nektar.evidence.example        writes docs/evidence.example.json again
"""

from __future__ import annotations

from pathlib import Path

from eth_hash.auto import keccak

from nektar.evidence.bundle import Bundle, write
from tests.nektar.evidence.small_chain import (
    NOISE,
    OPERATORS,
    RIGHT,
    SECRETS,
    WRONG,
    SmallChain,
    set_of,
    signature,
    submitted,
    task_of,
)

FILE = Path(__file__).parents[3] / "docs" / "evidence.example.json"
SET = set_of(SECRETS[:2], OPERATORS[:2])
TASK = task_of(SET)


def chain() -> SmallChain:
    """Block 100, whose second transaction submitted the Task."""
    chain = SmallChain()
    chain.block([NOISE], [submitted(TASK)])
    return chain


def example() -> Bundle:
    signed = (signature(0, RIGHT, TASK), signature(0, WRONG, TASK))
    claims = (chain().event(100, transaction=1), *signed)
    return chain().bundle(*claims, sets=[SET], condition="equivocation", subject=keccak(TASK))


if __name__ == "__main__":
    FILE.write_bytes(write(example()))

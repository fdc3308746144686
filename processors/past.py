"""Tasks that are over, remembered by their names and when they were submitted alone: fifteen bytes each, for
whoever must tell a Task that was from one that never was.

That grows with the chain's length. Two hashes that agree in 92 bits are taken for one, so that at worst a
Task is thought known that is not.
"""

from __future__ import annotations

from immutables import Map

from nektar.model import Hash32

Past = Map[int, bytes]
"""The first 12 bits of a hash → of each that begins so, in the order in which they were added, the next 80
bits and the block."""

_BYTES = 10
_BLOCK = 5
_EACH = _BYTES + _BLOCK


def add(past: Past, task_hash: Hash32, block: int) -> Past:
    """With this Task of this block, too."""
    first, rest = _split(task_hash)
    return past.set(first, past.get(first, b"") + rest + block.to_bytes(_BLOCK))


def find(past: Past, task_hash: Hash32) -> int | None:
    """The block in which this Task was submitted, if it was added."""
    first, rest = _split(task_hash)
    held = past.get(first, b"")
    for at in range(0, len(held), _EACH):
        if held.startswith(rest, at):
            return int.from_bytes(held[at + _BYTES : at + _EACH])
    return None


def _split(task_hash: Hash32) -> tuple[int, bytes]:
    number = int.from_bytes(task_hash[: _BYTES + 2], "big") >> 4
    return number >> 8 * _BYTES, (number & (1 << 8 * _BYTES) - 1).to_bytes(_BYTES, "big")

"""Tasks that are over, remembered by their names alone: ten bytes each, for whoever must tell a Task that was
from one that never was.

It is the one thing here that grows with the chain's length. Two hashes that agree in 92 bits are taken for
one, so that at worst a Task is thought known that is not.
"""

from __future__ import annotations

from immutables import Map

from nektar.model import Hash32

Past = Map[int, bytes]
"""The first 12 bits of a hash → the next 80 of each that begins so, in the order in which they were added."""

_BYTES = 10


def add(past: Past, task_hash: Hash32) -> Past:
    """With this Task, too."""
    first, rest = _split(task_hash)
    return past.set(first, past.get(first, b"") + rest)


def holds(past: Past, task_hash: Hash32) -> bool:
    """Whether it was added."""
    first, rest = _split(task_hash)
    held = past.get(first, b"")
    return any(held.startswith(rest, at) for at in range(0, len(held), _BYTES))


def _split(task_hash: Hash32) -> tuple[int, bytes]:
    number = int.from_bytes(task_hash[: _BYTES + 2], "big") >> 4
    return number >> 8 * _BYTES, (number & (1 << 8 * _BYTES) - 1).to_bytes(_BYTES, "big")

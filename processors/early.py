"""What telemetry brought before its Task: it may be quicker than the indexer, or than the chain.

It waits in the fold's state, so an undo and a replay find it as it was, in the queue of whoever brought it:
whoever brings too much loses the oldest of their own and nobody else's. So many bytes are an outage of the
indexer that it bridges. Of what is lost is known up to which block it could have mattered. None waits for
ever.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Generic, TypeVar

import msgspec
from immutables import Map

from nektar.model import Hash32, Signed
from nektar.senders import is_operators

Kept = TypeVar("Kept")

# Bytes of one bringer: of an Aggregator some 20 Tasks of a thousand Operators, or 90 of two hundred.
MOST = 16 * 1024 * 1024
# Of an Operator, who brings its own: a hundred Tasks, and of a thousand Operators some 100 MB.
MOST_OF_OPERATOR = 96 * 1024
# What one takes beside what is in it, about.
ENTRY_BYTES = 550
# A signature without its response.
SIGNED_BYTES = 300
# Blocks that it waits: a day of 12-second blocks.
BLOCKS = 7_200


class Entry(msgspec.Struct, Generic[Kept], frozen=True, array_like=True):
    """Something that waits."""

    order: int  # in the log, among all that ever waited
    since: int  # blocks that had passed
    task_hash: Hash32
    about: bytes  # tells it from others of its bringer and Task
    kept: Kept
    size: int
    until: int  # block after which no Task can come that it is about; -1: it would not be missed


class Queue(msgspec.Struct, Generic[Kept], frozen=True):
    """What one has brought."""

    entries: Map[int, Entry[Kept]] = Map()  # numbered as they came, some of them gone
    of: Map[Hash32, Map[bytes, int]] = Map()  # Task → what about → number
    oldest: int = 0  # no number below is left
    next: int = 0
    size: int = 0
    lost: int = -1  # the highest `until` of all that are lost, and a day ahead of the log at most


class Waiting(msgspec.Struct, Generic[Kept], frozen=True):
    """All that waits."""

    queues: Map[str, Queue[Kept]] = Map()  # who brought it → theirs
    next: int = 0  # order of the next one
    passed: int = 0  # blocks so far, those that nobody has included


def find(waiting: Waiting[Kept], bringer: str, task_hash: Hash32, about: bytes) -> Kept | None:
    """What waits of this."""
    queue = waiting.queues.get(bringer)
    number = queue.of.get(task_hash, Map()).get(about) if queue else None
    return None if queue is None or number is None else queue.entries[number].kept


def wait(
    waiting: Waiting[Kept],
    bringer: str,
    task_hash: Hash32,
    kept: Kept,
    size: int,
    about: bytes = b"",
    until: int = -1,
) -> Waiting[Kept]:
    """`kept` waits, too, in the place of what waits about the same; `about` empty: about nothing else is."""
    queue = waiting.queues.get(bringer) or Queue()
    about = about or waiting.next.to_bytes(8)
    entry = Entry(waiting.next, waiting.passed, task_hash, about, kept, size + ENTRY_BYTES, until)
    number = queue.of.get(task_hash, Map()).get(about, queue.next)
    if before := queue.entries.get(number):
        entry = msgspec.structs.replace(
            entry, order=before.order, since=before.since, until=max(until, before.until)
        )
    queue = msgspec.structs.replace(
        queue,
        entries=queue.entries.set(number, entry),
        of=queue.of.set(task_hash, queue.of.get(task_hash, Map()).set(about, number)),
        next=max(queue.next, number + 1),
        size=queue.size + entry.size - (before.size if before else 0),
    )
    most = MOST_OF_OPERATOR if is_operators(bringer) else MOST
    queue = _without_oldest(queue, lambda _, size: size > most)
    return msgspec.structs.replace(waiting, queues=waiting.queues.set(bringer, queue), next=waiting.next + 1)


def wait_signed(waiting: Waiting[Signed], signed: Signed) -> Waiting[Signed]:
    """Another signature waits."""
    size = SIGNED_BYTES + len(signed.response)
    return wait(waiting, signed.brought_by, signed.task_hash, signed, size)


def come(waiting: Waiting[Kept], tasks: Container[Hash32]) -> tuple[Waiting[Kept], list[Entry[Kept]]]:
    """These Tasks have come: what waited for them, in the order of the log, waits no more."""
    queues, found = waiting.queues, list[Entry[Kept]]()
    for bringer, queue in waiting.queues.items():
        for task_hash in [each for each in queue.of if each in tasks] if queue.of else ():
            numbers = queue.of[task_hash].values()
            found += [queue.entries[number] for number in numbers]
            for number in numbers:
                queue = _without(queue, number)
            queues = queues.set(bringer, queue)
    return msgspec.structs.replace(waiting, queues=queues), sorted(found, key=lambda each: each.order)


def lost(waiting: Waiting[Kept], block: int) -> list[str]:
    """Who may have lost something about a Task that was submitted in this block."""
    return [bringer for bringer, queue in waiting.queues.items() if queue.lost >= block]


def passed(waiting: Waiting[Kept], first: int, last: int) -> Waiting[Kept]:
    """These blocks have passed: forget what has waited for too long, and who has nothing any more."""
    waiting = msgspec.structs.replace(waiting, passed=waiting.passed + last - first + 1)
    over, queues = waiting.passed - BLOCKS, waiting.queues
    for bringer, queue in waiting.queues.items():
        left = _without_oldest(queue, lambda oldest, _: oldest.since < over)
        if left.lost > last + BLOCKS:  # nobody knows of blocks that are so far ahead
            left = msgspec.structs.replace(left, lost=last + BLOCKS)
        if not left.entries and left.lost <= last:
            queues = queues.delete(bringer)
        elif left is not queue:
            queues = queues.set(bringer, left)
    return waiting if queues is waiting.queues else msgspec.structs.replace(waiting, queues=queues)


def _without_oldest(queue: Queue[Kept], goes: Callable[[Entry[Kept], int], bool]) -> Queue[Kept]:
    """Lose the oldest for as long as it goes, by itself and the size of all."""
    while queue.entries:
        if (oldest := queue.entries.get(queue.oldest)) is None:
            queue = msgspec.structs.replace(queue, oldest=queue.oldest + 1)
            continue
        if not goes(oldest, queue.size):
            break
        queue = msgspec.structs.replace(
            _without(queue, queue.oldest), lost=max(queue.lost, oldest.until), oldest=queue.oldest + 1
        )
    return queue


def _without(queue: Queue[Kept], number: int) -> Queue[Kept]:
    entry = queue.entries[number]
    rest = queue.of[entry.task_hash].delete(entry.about)
    return msgspec.structs.replace(
        queue,
        entries=queue.entries.delete(number),
        of=queue.of.set(entry.task_hash, rest) if rest else queue.of.delete(entry.task_hash),
        size=queue.size - entry.size,
    )

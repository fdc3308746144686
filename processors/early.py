"""Signatures that came before their Task: telemetry may be quicker than the indexer, or than the chain.

They wait in the fold's state, so an undo and a replay find them as they were, each in the queue of whoever
brought it: whoever brings too many loses the oldest of their own and nobody else's. None waits for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Container

import msgspec
from immutables import Map

from nektar.model import Hash32, Signed
from nektar.senders import is_operators

# Of one bringer at a time: an Aggregator reports a set of a thousand Operators at once. Some 400 bytes each.
MOST = 1024
# Of an Operator, who brings its own, of a Task each: of a thousand of them some 26 MB.
MOST_OF_OPERATOR = 64
# Blocks that a signature waits: a day of 12-second blocks, so that after an indexer that was down so long the
# blocks that it catches up with still find what was brought meanwhile, which stands before them in the log.
BLOCKS = 7_200


class Early(msgspec.Struct, frozen=True, array_like=True):
    """One that waits."""

    order: int  # in the log, among all that ever waited
    since: int  # blocks that had passed
    signed: Signed


class Waiting(msgspec.Struct, frozen=True):
    """All that wait."""

    queues: Map[str, tuple[Early, ...]] = Map()  # who brought them → theirs, oldest first
    next: int = 0  # order of the next one
    passed: int = 0  # blocks so far, those that nobody has included


def wait(waiting: Waiting, signed: Signed) -> Waiting:
    """`signed` waits, too."""
    queue = waiting.queues.get(signed.brought_by, ())
    most = MOST_OF_OPERATOR if is_operators(signed.brought_by) else MOST
    queue = (*queue, Early(waiting.next, waiting.passed, signed))[-most:]
    return msgspec.structs.replace(
        waiting, queues=waiting.queues.set(signed.brought_by, queue), next=waiting.next + 1
    )


def come(waiting: Waiting, tasks: Container[Hash32]) -> tuple[Waiting, list[Signed]]:
    """These Tasks have come: those that waited for them, in the order of the log, wait no more."""
    found = [e for queue in waiting.queues.values() for e in queue if e.signed.task_hash in tasks]
    if not found:
        return waiting, []
    gone = {each.order for each in found}
    left = _filtered(waiting, lambda each: each.order not in gone)
    return left, [each.signed for each in sorted(found, key=lambda each: each.order)]


def passed(waiting: Waiting, blocks: int) -> Waiting:
    """So many more blocks have passed: forget those whose time is over."""
    waiting = msgspec.structs.replace(waiting, passed=waiting.passed + blocks)
    over = waiting.passed - BLOCKS
    if all(queue[0].since >= over for queue in waiting.queues.values()):
        return waiting
    return _filtered(waiting, lambda each: each.since >= over)


def _filtered(waiting: Waiting, keep: Callable[[Early], bool]) -> Waiting:
    queues = waiting.queues
    for name, queue in waiting.queues.items():
        kept = tuple(each for each in queue if keep(each))
        if len(kept) < len(queue):
            queues = queues.set(name, kept) if kept else queues.delete(name)
    return msgspec.structs.replace(waiting, queues=queues)

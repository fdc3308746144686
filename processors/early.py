"""What telemetry brought before its Task: it may be quicker than the indexer, or than the chain.

They wait in the fold's state, so an undo and a replay find them as they were, each in the queue of whoever
brought it: whoever brings too many loses the oldest of their own and nobody else's. None waits for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Generic, TypeVar

import msgspec
from immutables import Map

from nektar.model import Hash32, Report, Signed
from nektar.senders import is_operators

Message = TypeVar("Message", bound=Signed | Report)

# Of one bringer at a time: an Aggregator reports a set of a thousand Operators at once. Some 400 bytes each.
MOST = 1024
# Of an Operator, who brings its own, of a Task each: of a thousand of them some 26 MB.
MOST_OF_OPERATOR = 64
# Blocks that a message waits: a day of 12-second blocks, so that after an indexer that was down so long the
# blocks that it catches up with still find what was brought meanwhile, which stands before them in the log.
BLOCKS = 7_200


class Early(msgspec.Struct, Generic[Message], frozen=True, array_like=True):
    """One that waits."""

    order: int  # in the log, among all that ever waited
    since: int  # blocks that had passed
    message: Message


class Waiting(msgspec.Struct, Generic[Message], frozen=True):
    """All that wait."""

    queues: Map[str, tuple[Early[Message], ...]] = Map()  # who brought them → theirs, oldest first
    next: int = 0  # order of the next one
    passed: int = 0  # blocks so far, those that nobody has included


def wait(waiting: Waiting[Message], message: Message) -> Waiting[Message]:
    """`message` waits, too."""
    newest = Early(waiting.next, waiting.passed, message)
    queue: tuple[Early[Message], ...] = (*waiting.queues.get(message.brought_by, ()), newest)
    most = MOST_OF_OPERATOR if is_operators(message.brought_by) else MOST
    queues = waiting.queues.set(message.brought_by, queue[-most:])
    return msgspec.structs.replace(waiting, queues=queues, next=waiting.next + 1)


def come(waiting: Waiting[Message], tasks: Container[Hash32]) -> tuple[Waiting[Message], list[Message]]:
    """These Tasks have come: those that waited for them, in the order of the log, wait no more."""
    found = [e for queue in waiting.queues.values() for e in queue if e.message.task_hash in tasks]
    if not found:
        return waiting, []
    gone = {each.order for each in found}
    left = _filtered(waiting, lambda each: each.order not in gone)
    return left, [each.message for each in sorted(found, key=lambda each: each.order)]


def passed(waiting: Waiting[Message], blocks: int) -> Waiting[Message]:
    """So many more blocks have passed: forget those whose time is over."""
    waiting = msgspec.structs.replace(waiting, passed=waiting.passed + blocks)
    over = waiting.passed - BLOCKS
    if all(queue[0].since >= over for queue in waiting.queues.values()):
        return waiting
    return _filtered(waiting, lambda each: each.since >= over)


def _filtered(waiting: Waiting[Message], keep: Callable[[Early[Message]], bool]) -> Waiting[Message]:
    before = queues = waiting.queues
    for name, queue in before.items():
        kept = tuple(each for each in queue if keep(each))
        if len(kept) < len(queue):
            queues = queues.set(name, kept) if kept else queues.delete(name)
    return msgspec.structs.replace(waiting, queues=queues)

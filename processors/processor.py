"""A processor of one Network: its log's records as bytes in, what they say on the bus out. In memory alone.

The runner and `nektar replay` are this with different hands: one moves offsets, the other compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

from nektar import fold as calculus
from nektar import trace
from nektar.bus.port import Delivered, Message
from nektar.fold import Fold, Folded, Step
from nektar.log import AHEAD_HEADER, STANDS_HEADER, BrokenLog, Gap, New, Record, decode
from nektar.model import ChainEvent, Network
from nektar.networks.adapter import Adapter
from processors import outputs

State = TypeVar("State")


class Interpreter:
    """What a Network's records mean, by its adapter; all folds of a process take a record one after the
    other, so that the last one is remembered."""

    def __init__(self, network: Network, adapter: Adapter) -> None:
        self._network = network
        self._adapter = adapter
        self._last: tuple[int, Record, Sequence[ChainEvent]] | None = None

    def __call__(self, offset: int, value: bytes) -> tuple[Record, Sequence[ChainEvent]]:
        """The record at `offset` and, of a `New`, what happened in it. Raises BrokenLog, AdapterError."""
        if self._last is None or self._last[0] != offset:
            record = decode(value)
            events = self._adapter.events(self._network, record.tables) if isinstance(record, New) else ()
            self._last = offset, record, events
        return self._last[1:]


def broken_at(delivered: Delivered, error: Exception) -> BrokenLog:
    """`error`, saying at which message of the bus."""
    return BrokenLog(
        f"{delivered.stream}, partition {delivered.partition}, offset {delivered.offset} "
        f"({delivered.key.decode('utf-8', 'replace')}): {error}"
    )


class Processor(Generic[State]):
    """One fold over one Network's log, read in order from the beginning or from a checkpoint's step."""

    def __init__(
        self,
        fold: Fold[State],
        network: Network,
        interpret: Interpreter,
        step: Step[State] | None = None,
        begins: int = 0,
    ) -> None:
        """`begins` is an offset below which nothing of the log lies."""
        self.network = network
        self.folded: Folded[State] | None = calculus.resume(step) if step else None
        self.start = step.offset if step else begins
        self.blocks = 0  # blocks folded so far, those undone later included
        self.events = 0  # chain events in them
        self._fold = fold
        self._interpret = interpret

    def take(self, whole: Delivered) -> tuple[Record, list[Message]]:
        """Fold a whole record: the record, and the messages that say what it changed.

        Raises BrokenLog, AdapterError; nothing is folded then.
        """
        offset, value = whole.offset, whole.value
        record, events = self._interpret(offset, value)
        before = self.folded or calculus.begin(self._fold, self.network, offset)
        folding: Record | None = record
        if offset == self.start and before.steps[0].span:
            folding, events = _rest(record, events, before.steps[0].span.last)
        if folding is None:
            return record, []
        after, changes = calculus.apply(self._fold, before, folding, events, offset)
        if isinstance(folding, New):
            self.blocks += len(folding.blocks)
            self.events += len(events)
        self.folded = after
        ahead, stands = AHEAD_HEADER in whole.headers, STANDS_HEADER in whole.headers
        moved = outputs.progress(self._fold.name, before.head, after.head, ahead=ahead, again=stands)
        carried = trace.carried(whole.headers)
        said = outputs.messages(
            self.network, self._fold.name, offset, [*changes, *moved], carried, ahead=ahead
        )
        return record, said


def _rest(
    record: Record, events: Sequence[ChainEvent], last: int
) -> tuple[Record | None, Sequence[ChainEvent]]:
    """What of a checkpoint's own record is still to be folded: the blocks after its block, if any."""
    if isinstance(record, Gap):
        return None, ()
    if not isinstance(record, New):
        raise BrokenLog(
            "expected the record that brought the checkpoint's block; got another: the log is "
            "not the one that was checkpointed. Start the Network's next generation"
        )
    blocks = tuple(block for block in record.blocks if block.number > last)
    if not blocks:
        return None, ()
    return msgspec.structs.replace(record, blocks=blocks), [
        event for event in events if event.at is None or event.at.block > last
    ]

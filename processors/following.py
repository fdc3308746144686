"""One log, as far as a processor has followed it: what is put out, and the checkpoint to go on from."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import msgspec
from opentelemetry import metrics
from opentelemetry.trace import INVALID_SPAN, Span
from opentelemetry.util.types import AttributeValue

from nektar import checkpoint, registered, trace
from nektar.bus.port import Bus, Delivered, Message
from nektar.bus.rules import MAX_TRANSACTION_BYTES
from nektar.checkpoint import BadCheckpoint
from nektar.errors import NektarError
from nektar.fold import Fold, Step
from nektar.log import CHECKPOINTS, LEVEL_HEADER, STANDS_HEADER, BrokenLog, Mark
from nektar.operators import Registry
from processors import kept
from processors.processor import Processor

State = TypeVar("State")

# What a restart folds again is the unfinal window and at most this many marks; writing a checkpoint passes
# over the whole state once (some 10 ms at 1,000 operators and 1,000 open tasks).
CHECKPOINT_MARKS = 32
# What one record may put out, at most: what the bus refuses would end the role, and every new life of it, for
# all folds and Networks. The rest of a transaction is what came before it, and a checkpoint.
MOST_PUT_OUT = MAX_TRANSACTION_BYTES // 2
# Beside a log's checkpoint `processor/network/generation`: the offset below which its records are put out.
PUT_OUT = b"/put-out"


_logger = logging.getLogger(__name__)
_records = metrics.get_meter("nektar").create_counter(
    "nektar.processors.records", "{record}", "Records of Networks' logs whose consequences are put out"
)


class TooMuch(NektarError):
    """A record has more consequences than one transaction can hold."""


class Log(NamedTuple):
    """A fold of a Network's log."""

    fold: str
    key: bytes

    @property
    def name(self) -> bytes:
        """What its checkpoint is kept under."""
        return self.fold.encode() + b"/" + self.key


class Following(Generic[State]):
    """One log, as far as one fold of this process has followed it, and what of that is not yet said."""

    def __init__(
        self, processor: Processor[State], log: Log, put_out: int, saved: bool, keys_said: bool = True
    ) -> None:
        """All below `put_out` is put out. `saved`: there is a checkpoint; `keys_said`: what the fold says of
        Operators' keys is all on the bus (`registered.py`)."""
        self.processor = processor
        self.log = log
        self.saved = saved
        self.taken = put_out  # all records that begin below this offset are put out, or about to be
        self._said = put_out  # … are put out, as the bus says
        self._spans: list[Span] = []  # of the records that are taken, and not yet committed
        self._counted = {"network": processor.network.name, "fold": log.fold}
        self._due = not saved  # a checkpoint belongs into the next transaction
        self._marks = 0
        self._keys_said = keys_said
        self._folded = 0  # all records that begin below this offset are folded
        self._level = self._level_said = 0  # as of when the log was level with its chain; 0: not yet

    def take(self, whole: Delivered, stands: Callable[[], list[Message]]) -> list[Message]:
        """Fold a record: what it puts out, unless that is on the bus already. `stands` is asked what there is
        to say beside it of a record with which its generation comes to stand.

        Raises what the record raises that can't be folded, and BusError; it is not taken then.
        """
        if whole.offset < self.processor.start:
            return []
        anew = whole.offset >= self.taken
        span = self._span(whole) if anew else INVALID_SPAN
        record, messages = self.processor.take(whole)
        self._folded = whole.offset + 1
        self._level = int(whole.headers.get(LEVEL_HEADER, self._level))
        if isinstance(record, Mark):
            self._marks += 1
            self._due = self._due or self._marks >= CHECKPOINT_MARKS
        if not anew:
            return []
        _check_size(messages)
        if STANDS_HEADER in whole.headers:
            messages += stands()
        self._spans.append(span)
        self.taken = whole.offset + 1
        return messages

    def _span(self, whole: Delivered) -> Span:
        said: dict[str, AttributeValue] = {
            trace.NETWORK: self.processor.network.name,
            trace.OFFSET: whole.offset,
        }
        return trace.under(f"fold {self.log.fold}", trace.carried(whole.headers), said)

    def moved(self) -> list[Message]:
        """What the transaction with all that was taken says beside it: how far the log is put out now."""
        keys = self._keys()
        if self.taken == self._said and not keys:
            return []
        self._said = self.taken
        return [Message(CHECKPOINTS, self.log.name + PUT_OUT, str(self.taken).encode()), *keys]

    def committed(self) -> None:
        """All that was taken is put out."""
        for span in self._spans:
            span.end()
        _records.add(len(self._spans), self._counted)
        self._spans = []

    def checkpoint(self) -> list[Message]:
        """A checkpoint, where one is due. It is of no use before what was taken is put out.

        None where it is too large to be read again: the log goes on, and only a restart is longer."""
        if not self._due or not self.processor.folded:
            return []
        self._due, self._marks = False, 0
        try:
            return kept.messages(self.log.name, checkpoint.encode(self.processor.folded.steps[0]))
        except kept.TooLarge as error:
            _logger.error("%s; it goes on without a checkpoint, and a restart folds more again", error)
            return []

    def _keys(self) -> list[Message]:
        """Of the fold `operators`: as of when Operators' keys are said, and all of them where an older
        version has not said them. Nothing before what was put out is folded again: they are those of then."""
        state = self.processor.folded and self.processor.folded.state
        if self.log.fold != registered.FOLD or not isinstance(state, Registry) or self._folded < self.taken:
            return []
        if self._level == self._level_said:
            return []
        self._level_said = self._level
        of = self.processor.network.name, self.processor.network.generation
        missing = () if self._keys_said else registered.everyone(*of, state)
        self._keys_said = True
        return [*missing, registered.as_of(*of, self._level)]


def _check_size(messages: list[Message]) -> None:
    """Raises TooMuch."""
    if (size := sum(len(message.value) for message in messages)) > MOST_PUT_OUT:
        raise TooMuch(
            f"expected a record to put out at most {MOST_PUT_OUT} bytes; got {size}. It goes no further "
            "on this log; a version that says less goes on from here"
        )


def saved(bus: Bus, partition: int, fold: Fold[State], log: Log) -> tuple[Step[State] | None, int]:
    """Where this fold of the log goes on: from its newest checkpoint, if there is one; and the offset below
    which all is put out. Raises BadCheckpoint, BusError."""
    put_out = bus.last(CHECKPOINTS, partition, log.name + PUT_OUT)
    try:
        value = kept.read(bus, partition, log.name)
    except BrokenLog as error:
        raise BadCheckpoint(str(error)) from error
    if value is not None and put_out is None:
        raise BadCheckpoint("there is a checkpoint, and how far the log is put out is gone")
    step = None if value is None else checkpoint.decode(value, fold)
    try:
        return step, msgspec.json.decode(put_out.value, type=int) if put_out else 0
    except msgspec.DecodeError as error:
        raise BadCheckpoint(str(error)) from error

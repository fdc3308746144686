"""The fold: state as a pure function of a log, with undo, finality and replay. No bus, no clock, no I/O.

A `Fold` is what a processor's author writes; the calculus here is what makes it survive reorgs:

* after each block above finality it keeps a snapshot (states are immutable and share structure), and the
  changes put out for that block;
* an `Undo` goes back to the snapshot before, and puts those changes out turned round, newest first.
  What telemetry brought is not in blocks: what came after that snapshot is applied again, in order;
* a `Mark` moves findings `seen → safe → final` (back to `seen` where safe moves below them) and drops the
  snapshots that can't be needed any more. The oldest one left is what a checkpoint holds;
* rows of `rows.ONCE_FINAL` are put out only then, with the mark that makes their block final: an undo never
  has to take one back.

A fold says **once** that a finding holds, since what happened on a chain that stands has happened; what is
sure about it is the calculus's to say. A finding has the status of its block, the newest that its claims
rest on; it becomes `retracted` when an undo takes it away, and `seen` again under the same id if it returns;
once `final` it never changes. So final findings need not be remembered: no fold may say one again.

The log's rules and a fold's are checked on the way: whatever breaks one is a BrokenLog or a BrokenFold, and
nothing after it is folded.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec
from immutables import Map

from nektar.errors import NektarError
from nektar.log import BrokenLog, Gap, Mark, New, Record, SignedBatch, ToldBatch, Undo
from nektar.model import (
    Block,
    BlockClosed,
    BlockRef,
    Brought,
    ChainEvent,
    Event,
    GapPassed,
    Hash32,
    Level,
    Network,
)
from nektar.rows import ONCE_FINAL, Change, Finding, FindingStatus

State = TypeVar("State")

# Snapshots are kept until a mark finalizes their blocks. The widest window met on a healthy chain is some
# 5,000 blocks (a rollup that waits for its parent chain); this many without a mark is a log without marks.
MAX_SNAPSHOTS = 100_000


class BrokenFold(NektarError):
    """A fold said of a finding what it may not (see `Fold.step`): it is to be mended."""


class Fold(Protocol[State]):
    """A processor's meaning. Its state is immutable (`immutables.Map`, frozen structs) and JSON-able by
    msgspec, so that it can be checkpointed."""

    name: str
    """Name of the processor: its group on the bus, its checkpoints' key."""
    state_type: type[State]

    def initial(self, network: Network) -> State:
        """The state before the first block."""

    def step(self, state: State, event: Event) -> tuple[State, Sequence[Change]]:
        """The state after `event`, and what changed. Pure: time is the block's.

        Rows come, change and go. A finding only comes, once: it is never altered nor taken back, and never
        said again, also when the state has let go of what it is about. It rests on no block above the one
        that it names; what telemetry brought is no block's.
        """


class Span(msgspec.Struct, frozen=True, array_like=True):
    """The stretch of chain that one step folded: a block (`first == last`), or a gap."""

    first: int
    last: int
    hash: Hash32 | None  # of the last block; None where a gap's child has not named it yet


class Step(msgspec.Struct, Generic[State], frozen=True):
    """Something folded, and everything that stood right after it.

    Of a block or a gap it is the snapshot that an undo goes back to; `span` is None for what telemetry
    brought between two blocks, and for the beginning of the log.
    """

    offset: int  # of the record that brought it: a restart from here reads on from that record
    span: Span | None
    state: State
    open: Map[bytes, Finding]  # findings that may still change, as last put out
    safe: int  # number of the newest safe block on this chain; -1: none
    finalized: BlockRef | None
    changes: tuple[Change, ...] = ()  # as the fold said them
    brought: tuple[Brought, ...] = ()


class Folded(msgspec.Struct, Generic[State], frozen=True):
    """Where a fold stands in a Network's log. `steps[0]` is never undone: it is the newest finalized step,
    or the beginning of the log while there is none."""

    steps: tuple[Step[State], ...]
    open: Map[bytes, Finding]
    safe: int
    finalized: BlockRef | None

    @property
    def state(self) -> State:
        return self.steps[-1].state

    @property
    def head(self) -> Span | None:
        """The newest block (or gap) folded; None before the first."""
        return next((step.span for step in reversed(self.steps) if step.span), None)


def begin(fold: Fold[State], network: Network, offset: int = 0) -> Folded[State]:
    """Before the first record of the log, which stands at `offset`."""
    return resume(Step(offset, None, fold.initial(network), Map(), -1, None))


def resume(step: Step[State]) -> Folded[State]:
    """Right after `step`, the first step of an earlier `Folded`: as it was then, marks included, so that the
    records after it lead to what they led to the first time."""
    return Folded((step,), step.open, step.safe, step.finalized)


def apply(
    fold: Fold[State],
    folded: Folded[State],
    record: Record,
    events: Sequence[ChainEvent] = (),
    offset: int = 0,
) -> tuple[Folded[State], tuple[Change, ...]]:
    """Fold one record: what stands after it, and what it changed, at most one change a row.

    `events` is what happened in the blocks of a `New`, as the Network's adapter says, in the chain's order;
    other records have none. `offset` says where the record stands in the log; no change depends on it.
    Raises BrokenLog where the record breaks the log's rules, BrokenFold where what the fold says of it
    breaks a fold's; `folded` is then what it was.
    """
    work = _Work(fold, folded, offset)
    match record:
        case New():
            work.new(record, events)
        case Undo():
            work.undo(record)
        case Mark():
            work.mark(record)
        case Gap():
            work.gap(record)
        case SignedBatch():
            work.brought(record.responses)
        case ToldBatch():
            work.brought(record.told)
    return Folded(tuple(work.steps), work.open, work.safe, work.finalized), collapsed(work.changes)


def collapsed(changes: Iterable[Change]) -> tuple[Change, ...]:
    """At most one change a row, from its first `before` to its last `after`; none where these are equal."""
    rows: dict[tuple[object, ...], Change] = {}
    for change in changes:
        key = _key(change)
        earlier = rows.get(key)
        rows[key] = Change(earlier.before, change.after) if earlier else change
    return tuple(change for change in rows.values() if change.before != change.after)


def _key(change: Change) -> tuple[object, ...]:
    row = change.before if change.after is None else change.after
    return (row.table, *(getattr(row, name) for name in row.key)) if row else ()


class _Work(Generic[State]):
    """One record being folded. It changes only itself: what it was made from stays as it was."""

    def __init__(self, fold: Fold[State], folded: Folded[State], offset: int) -> None:
        self._fold = fold
        self._offset = offset
        self._head = folded.head
        self.steps = list(folded.steps)
        self.open = folded.open
        self.safe = folded.safe
        self.finalized = folded.finalized
        self.changes: list[Change] = []

    # --- records ------------------------------------------------------------------------------------

    def new(self, record: New, events: Sequence[ChainEvent]) -> None:
        if not record.blocks:
            raise BrokenLog("expected a new record to hold blocks; it holds none")
        told = iter(events)
        event = next(told, None)
        for block in record.blocks:
            self._check_child(block)
            happened: list[Event] = []
            while event is not None and event.at is not None and event.at.block == block.number:
                happened.append(event)
                event = next(told, None)
            self._step(Span(block.number, block.number, block.hash), [*happened, BlockClosed(block)])
        if event is not None:
            raise BrokenLog(
                f"expected events in the order of the record's blocks; got {event.at} out of turn"
            )

    def gap(self, record: Gap) -> None:
        head = self._head
        if record.first > record.last or (head and record.first != head.last + 1):
            after = f"a gap from block {head.last + 1} on" if head else "a gap's first block before its last"
            raise BrokenLog(f"expected {after}; got blocks {record.first} to {record.last}")
        span = Span(record.first, record.last, record.last_hash)
        self._step(span, [GapPassed(record.first, record.last)])

    def brought(self, messages: tuple[Brought, ...], undone: Sequence[Change] = ()) -> None:
        """`undone` is what the undo that they are applied again after has taken back."""
        if not messages:
            self._put(undone)
            return
        top = self.steps[-1]
        if len(self.steps) > 1 and top.span is None:  # one step between two blocks, however many batches
            self.steps.pop()
            self._step(None, messages, top, undone)
        else:
            self._step(None, messages, None, undone)

    def undo(self, record: Undo) -> None:
        spans = [Span(block.number, block.number, block.hash) for block in record.blocks]
        if record.gap:
            spans.append(Span(*record.gap, None))
        if not spans:
            raise BrokenLog("expected an undo to take something back; it names no block")
        kept = len(self.steps)
        for span in spans:
            kept -= 1
            while kept > 0 and self.steps[kept].span is None:
                kept -= 1
            self._check_undone(span, self.steps[kept].span if kept > 0 else None)
        gone = self.steps[kept:]
        del self.steps[kept:]
        self._head = next((step.span for step in reversed(self.steps) if step.span), None)
        self.safe = min(self.safe, self._head.last if self._head else -1)
        undone = [change.reversed for step in reversed(gone) for change in reversed(step.changes)]
        self.brought(tuple(message for step in gone for message in step.brought), undone)

    def mark(self, record: Mark) -> None:
        before = self.finalized
        if before and (
            record.finalized.number < before.number
            or (record.finalized.number == before.number and record.finalized != before)
        ):
            raise BrokenLog(
                f"expected finalized at {_named(before)} or above; got {_named(record.finalized)}"
            )
        self._check_known("finalized", record.finalized)
        self._check_known("safe", record.safe)
        self.safe = record.safe.number
        self.finalized = record.finalized
        for id_, finding in sorted(self.open.items()):
            if finding.status != FindingStatus.FINAL:
                self._stand(id_, msgspec.structs.replace(finding, status=self._status(finding)))
        if record.finalized != before:
            self._drop_snapshots(record.finalized.number)

    # --- what they do -------------------------------------------------------------------------------

    def _step(
        self,
        span: Span | None,
        events: Iterable[Event],
        onto: Step[State] | None = None,
        undone: Sequence[Change] = (),
    ) -> None:
        """Fold `events` as one step; `onto` is a step of what telemetry brought that they are added to."""
        state = onto.state if onto else self.steps[-1].state
        said: list[Change] = []
        brought = list(onto.brought) if onto else []
        for event in events:
            state, changes = self._fold.step(state, event)
            said += changes
            if span is None and isinstance(event, Brought):
                brought.append(event)
        self._check_said(said, undone)
        self._put([*undone, *said])
        if len(self.steps) >= MAX_SNAPSHOTS:
            raise BrokenLog(
                f"expected a mark to finalize blocks within {MAX_SNAPSHOTS} snapshots; "
                f"finalized is {_named(self.finalized) if self.finalized else 'not known'}"
            )
        self.steps.append(
            Step(
                offset=self._offset,
                span=span,
                state=state,
                open=self.open,
                safe=self.safe,
                finalized=self.finalized,
                changes=collapsed([*onto.changes, *said] if onto else said),
                brought=tuple(brought),
            )
        )
        self._head = span or self._head

    def _put(self, changes: Sequence[Change]) -> None:
        """Put out what was undone and said; of a finding, what stands of it."""
        for change in collapsed(changes):
            row = change.before if change.after is None else change.after
            if isinstance(row, ONCE_FINAL):
                continue  # `_drop_snapshots` says it, if no undo comes before
            if not isinstance(row, Finding):
                self.changes.append(change)
                continue
            held = self.open.get(row.id)
            if held is not None and held.status == FindingStatus.FINAL:
                raise BrokenFold(
                    f"{self._fold.name}: expected finding 0x{row.id.hex()} to rest on blocks up to "
                    f"{held.block_number}, as it says, which are final; an undo of later ones alters it or "
                    "takes it away. Mend the fold: a finding names the newest block that its claims rest on"
                )
            if isinstance(change.after, Finding):
                self._stand(row.id, msgspec.structs.replace(change.after, status=self._status(change.after)))
            elif held is not None:
                self.open = self.open.delete(row.id)
                retracted = msgspec.structs.replace(held, status=FindingStatus.RETRACTED)
                self.changes.append(Change(held, retracted))

    def _stand(self, id_: bytes, finding: Finding) -> None:
        held = self.open.get(id_)
        if held != finding:
            self.open = self.open.set(id_, finding)
            self.changes.append(Change(held, finding))

    def _status(self, finding: Finding) -> FindingStatus:
        if self.finalized and finding.block_number <= self.finalized.number:
            return FindingStatus.FINAL
        return FindingStatus.SAFE if finding.block_number <= self.safe else FindingStatus.SEEN

    def _drop_snapshots(self, finalized: int) -> None:
        """Forget the steps that can't be undone any more, having said what had to wait for that, and the
        final findings that none of the others said: only an undo could bring those up again."""
        bottom = max(
            (i for i, step in enumerate(self.steps) if step.span and step.span.first <= finalized), default=0
        )
        step = self.steps[bottom]
        for final in self.steps[: bottom + 1]:
            self.changes += [change for change in final.changes if isinstance(change.after, ONCE_FINAL)]
        del self.steps[: bottom + 1]
        if self.open:  # most folds find nothing, and may change much
            said = {
                change.after.id
                for each in self.steps
                for change in each.changes
                if isinstance(change.after, Finding)
            }
            self.open = _unsettled(self.open, said)
        step = msgspec.structs.replace(step, open=_unsettled(step.open, ()), changes=(), brought=())
        self.steps.insert(0, step)

    # --- the fold's rules, and the log's ------------------------------------------------------------

    def _check_said(self, said: Sequence[Change], undone: Sequence[Change]) -> None:
        """A finding is said once. One that is final and not held any more can't be told from a new one: that
        it is not said again is on the fold alone, which must bound its state too."""
        undone_ids = {change.before.id for change in undone if isinstance(change.before, Finding)}
        new: set[bytes] = set()
        for change in said:
            row = change.before if change.after is None else change.after
            if not isinstance(row, Finding):
                continue
            held = row.id in new or (row.id in self.open and row.id not in undone_ids)
            if held or change.before is not None:
                done = "taken back" if change.after is None else "altered" if change.before else "said again"
                raise BrokenFold(
                    f"{self._fold.name}: expected finding 0x{row.id.hex()} to be said once; it is {done}. "
                    "Mend the fold: what happened on a chain that stands has happened, and only an undo "
                    "takes a finding back"
                )
            new.add(row.id)

    def _check_child(self, block: Block) -> None:
        head = self._head
        if block.level == Level.REPORTED:
            raise BrokenLog(f"block {block.number}: expected proved or linked; got reported")
        if head and (block.number != head.last + 1 or (head.hash is not None and block.parent != head.hash)):
            raise BrokenLog(
                f"expected a child of {_named(head)}; got {_named(block.ref)} on 0x{block.parent.hex()}"
            )

    def _check_undone(self, span: Span, top: Span | None) -> None:
        if top is None:
            limit = f"finalized block {_named(self.finalized)}" if self.finalized else "the log's first block"
            raise BrokenLog(
                f"undo of {_named(span)} reaches below {limit}: the chain went back on its own finality, so "
                "nothing that was called final can be relied on. Ask the providers which chain holds, then "
                "start the Network's next generation"
            )
        if (span.first, span.last) != (top.first, top.last) or (span.hash and span.hash != top.hash):
            raise BrokenLog(f"expected an undo of the newest, {_named(top)}; got {_named(span)}")

    def _check_known(self, what: str, ref: BlockRef) -> None:
        """A mark names a block of this chain, or one below all that is held: before the log's first block,
        or checked when the steps dropped since were folded."""
        for step in reversed(self.steps):
            span = step.span
            if span and span.first <= ref.number:
                if ref.number > span.last or (ref.number == span.last and span.hash not in (None, ref.hash)):
                    raise BrokenLog(f"mark: expected {what} to be a block of the log; got {_named(ref)}")
                return
        if self._head is None:
            raise BrokenLog(f"mark: expected a block before the first mark; {what} is {_named(ref)}")


def _unsettled(findings: Map[bytes, Finding], keep: Container[bytes]) -> Map[bytes, Finding]:
    for id_ in [id_ for id_, finding in findings.items() if finding.status == FindingStatus.FINAL]:
        if id_ not in keep:
            findings = findings.delete(id_)
    return findings


def _named(place: BlockRef | Span) -> str:
    if isinstance(place, BlockRef):
        return f"{place.number} (0x{place.hash.hex()})"
    if place.first < place.last:
        return f"the gap {place.first} to {place.last}"
    return f"block {place.last} (0x{place.hash.hex() if place.hash else '?'})"

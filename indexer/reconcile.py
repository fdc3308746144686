"""What to do next: one pure function from (the chain that the log knows, what a provider says) to one step.

| | the log | the provider says | step |
|---|---|---|---|
| 1 | has no block yet | latest is below the first block in scope | wait |
| 2 | has no block yet | latest is at or above it | extend |
| 3 | ends in a block | latest is that block | wait |
| 4 | ends in a block | latest is an older block of ours: the provider is behind | wait |
| 5 | ends in a block | latest is below our finalized block: it is far behind | wait |
| 6 | ends in a block | latest is above; the next block is not seen yet | extend, and see |
| 7 | ends in a block | the next block names ours as its parent | extend |
| 8 | ends in a block | latest is above, but the next block is null | wait |
| 9 | ends in a block | the next names another parent, or latest stands where another of ours does | look |
| 10 | as in 9 | our newest block that stands there too is at finalized or above | take back |
| 11 | as in 9 | our last block stands after all, or one is null: answers of two moments | wait |
| 12 | as in 9 | another block stands at our finalized number, or is called finalized there | raise |
| 13 | is full of blocks that are not final | latest is above, and the next block is not called final | wait |

Each step is small, and the next is decided from what the log says then. So two reorgs at once are one after
the other; one while the process was down is case 9 of its first look; one in the middle of anything leaves a
block that names another parent; and a crash between two steps is a restart between them.

A gap in numbers can't come about: blocks are asked for by number, one after the other. Where no provider
serves one that the chain has for certain, since it calls a later one final, a `Gap` is written.

Finality is the chain's own (`mark`): `finalized` only grows, `safe` may go back, and each is named only once
it is one of the log's blocks. Case 13 bounds what is held of blocks that may be taken back; it ends when some
are final.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from indexer.headers import Heads, Link
from indexer.known import Kept, Known
from nektar.errors import NektarError
from nektar.log import Mark
from nektar.model import BlockRef

# Headers looked at in one go when searching where two chains part; most reorgs are of one to three blocks.
LOOK_BACK = 8


class ReorgBelowFinality(NektarError):
    """The provider's chain does not hold a block that the chain itself had called final."""

    def __init__(self, known: BlockRef, said: BlockRef) -> None:
        self.known, self.said = known, said
        super().__init__(
            f"block {known.number}: the log has 0x{known.hash.hex()} as finalized, and the provider has "
            f"0x{said.hash.hex()} there: the log ends here, see docs/RUNBOOK.md#reorg-below-finality"
        )


class View(msgspec.Struct, frozen=True):
    """What a provider says: its heads, and the blocks at numbers that it was asked for since."""

    heads: Heads
    links: Mapping[int, Link | None] = {}

    def seen(self, number: int) -> bool:
        return number in self.links or number == self.heads.latest.number

    def at(self, number: int) -> Link | None:
        """What stands at a number that was seen; None where there is no block. What was asked for since says
        more than the heads: the chain may have turned to another in between."""
        return self.links.get(number, self.heads.latest)

    def with_links(self, links: Mapping[int, Link | None]) -> View:
        return View(self.heads, {**self.links, **links})


class Wait(msgspec.Struct, frozen=True):
    """Nothing to do before the next look. `why` is set where that ought not to last."""

    why: str = ""


class Look(msgspec.Struct, frozen=True):
    """See which blocks stand at these numbers, and decide again."""

    first: int
    last: int


class Extend(msgspec.Struct, frozen=True):
    """Fetch these blocks, and append those that follow. `settled`: the chain calls the last one final."""

    first: int
    last: int
    settled: bool


class TakeBack(msgspec.Struct, frozen=True):
    """Undo all blocks above number `last`."""

    last: int


Step = Wait | Look | Extend | TakeBack


def reconcile(known: Known, view: View) -> Step:
    """The next step, by the table above. Raises ReorgBelowFinality."""
    latest, tip = view.heads.latest, known.tip
    if tip is None:
        if latest.number < known.first:
            return Wait(f"its latest block is {latest.number}; the first in scope is {known.first}")
        return _extend(known, view)
    if known.base is not None:
        _check_finalized(known.base, view.heads.finalized)
        if latest.number < known.base.number:
            return Wait(f"its latest block is {latest.number}; block {known.base.number} is final")
    if latest.number <= tip.number:
        ours, here = known.hash_at(latest.number), view.at(latest.number)
        same = ours is None or here is None or ours == here.hash
        return Wait() if same else _where_they_part(known, view, latest.number)
    if not view.seen(tip.number + 1):
        return _extend(known, view)
    child = view.at(tip.number + 1)
    if child is None:
        return Wait(f"it does not serve block {tip.number + 1}; its latest is {latest.number}")
    if child.parent == tip.hash:
        return _extend(known, view)
    return _where_they_part(known, view, tip.number)


def _extend(known: Known, view: View) -> Extend | Wait:
    """Up to what is final first, since that needs no second look; then up to the head."""
    first, finalized = known.next, view.heads.finalized
    if finalized is not None and first <= finalized.number:
        return Extend(first, finalized.number, settled=True)
    if known.full:
        since = "none ever was" if known.base is None else f"the last one was block {known.base.number}"
        return Wait(
            f"{len(known.unfinal)} blocks are held that are not final ({since}), and no more are taken until "
            "some are: see docs/RUNBOOK.md#no-block-is-final"
        )
    return Extend(first, view.heads.latest.number, settled=False)


def _where_they_part(known: Known, view: View, top: int) -> Step:
    """The step that a reorg asks for; `top` is the highest of our numbers at which they have a block."""
    lowest = known.first if known.base is None else known.base.number
    for entry in reversed(known.unfinal):
        if not isinstance(entry, Kept) or entry.block.number > top:
            continue
        number = entry.block.number
        if not view.seen(number):
            return Look(max(lowest, number - LOOK_BACK + 1), number)
        link = view.at(number)
        if link is None:
            return _of_two_moments(number)
        if link.hash == entry.block.hash:
            return TakeBack(number) if entry is not known.unfinal[-1] else _of_two_moments(number)
    if known.base is None:
        return TakeBack(known.first - 1)
    if not view.seen(lowest):
        return Look(lowest, lowest)
    link = view.at(lowest)
    if link is None:
        return _of_two_moments(lowest)
    _check_finalized(known.base, link.ref)
    return TakeBack(lowest) if known.unfinal else _of_two_moments(lowest)


def _of_two_moments(number: int) -> Wait:
    return Wait(f"what it serves of block {number} and around it does not belong together")


def _check_finalized(ours: BlockRef, theirs: BlockRef | None) -> None:
    if theirs is not None and differs(theirs, ours):
        raise ReorgBelowFinality(ours, theirs)


def mark(known: Known, safe: BlockRef | None, finalized: BlockRef | None) -> Mark | None:
    """The mark to write, or None where it would say what the last one said.

    What is said of a block that is not the log's moves nothing; a safe block that was undone falls back to
    the finalized one.
    """
    new_finalized = _ours(known, finalized) or known.base
    if new_finalized is None:
        return None
    if known.base is not None and new_finalized.number < known.base.number:
        new_finalized = known.base
    was_safe = known.marked[0] if known.marked else None
    new_safe = _ours(known, safe) or _ours(known, was_safe)
    if new_safe is None or new_safe.number < new_finalized.number:
        new_safe = new_finalized
    if (new_safe, new_finalized) == known.marked:
        return None
    unfinal = tuple(
        entry.block
        for entry in known.unfinal
        if isinstance(entry, Kept) and entry.block.number > new_finalized.number
    )
    return Mark(new_safe, new_finalized, unfinal)


def _ours(known: Known, ref: BlockRef | None) -> BlockRef | None:
    return ref if ref is not None and known.hash_at(ref.number) == ref.hash else None


def differs(block: BlockRef, said: BlockRef) -> bool:
    """Whether these are two blocks of one number."""
    return block.number == said.number and block.hash != said.hash

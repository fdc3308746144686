"""How proved ranges of blocks fit together: each is linked in itself, and where two meet, one goes on from
the other. Who served them may have done so at other times, or from another fork.
"""

from __future__ import annotations

from typing import NamedTuple

from indexer.prove import Contradiction
from indexer.ranges import Range
from nektar.model import Hash32


class Ends(NamedTuple):
    """How a range of proved blocks is linked: to the block before it, and by what hash to the one after."""

    parent: Hash32
    hash: Hash32


class Covered(NamedTuple):
    """Blocks that the store has, and who served them."""

    blocks: Range
    provider: str
    ends: Ends


class Links:
    """The ends of ranges of one chain, each added once, which must fit where two of them meet.

    What is held are ends that nothing was added to yet: some for each range that is read at once.
    """

    def __init__(self) -> None:
        self._lasts: dict[int, Covered] = {}  # by their last block
        self._firsts: dict[int, Covered] = {}

    def __len__(self) -> int:
        return len(self._lasts) + len(self._firsts)

    def add(self, added: Covered) -> None:
        """Raises Contradiction where the range does not fit to one that was added before."""
        (first, last), ends = added.blocks, added.ends
        before, after = self._lasts.pop(first - 1, None), self._firsts.pop(last + 1, None)
        if before is not None and before.ends.hash != ends.parent:
            raise _unlinked(before, added)
        if after is not None and after.ends.parent != ends.hash:
            raise _unlinked(added, after)
        if before is None:
            self._firsts[first] = added
        if after is None:
            self._lasts[last] = added


def _unlinked(one: Covered, two: Covered) -> Contradiction:
    return Contradiction(
        f"block {two.blocks.first}: it is no child of the block before it: {one.provider} served that one, "
        f"and {two.provider} this: a reorg came between, or one of them is on a fork; index final blocks "
        "again, by providers that you trust: what is not of their chain is taken back"
    )

"""A chain that is known by a pinned block: which others are its ancestors, by headers read from it downwards.

A header hashes to what its child names as parent, whoever serves it. So what stands below the pin is known
before any block of it is taken: another block there contradicts its provider, and never comes onto the log.
All of it is final, whatever a provider calls so. Where nobody serves one of the headers, nothing below it is
taken: it could be anybody's.

The headers are read once, down to the first block that is asked for, and their hashes kept, within bounds: of
a chain that is longer, those next to the pin are read again when blocks have come up to them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from indexer.headers import Heads, Link
from indexer.prove import Contradiction
from nektar.chain.rpc import Unreachable
from nektar.errors import NektarError
from nektar.model import BlockRef, Hash32

logger = logging.getLogger(__name__)

# Blocks whose headers are asked for together, and how many such stretches are kept: their hashes take 32 MB.
STRETCH = 2048
HELD = 512
# A line says how far down they are read, after so many stretches.
SAID_EVERY = 64
_HASH = 32


class OffThePin(Contradiction):
    """A provider's chain has another block where one is pinned."""


class NotPinned(NektarError):
    """No provider's chain holds the pinned block: the Network can't be followed."""

    exit_code = 2


class Pin:
    """A pinned block, and the hashes of its ancestors."""

    def __init__(
        self,
        network: str,
        block: BlockRef,
        providers: int,
        links: Callable[[int, BlockRef], Awaitable[list[Link]]],
    ) -> None:
        """`links` reads the blocks from a number up to one that is known, both included, as `descent` has
        them; it may raise RpcError, Contradiction."""
        self.block = block
        self._network = network  # only to say of which Network it speaks
        self._providers = providers
        self._links = links
        self._off: set[str] = set()  # the providers whose chain has another block there
        self._tops = {block.number // STRETCH: block}  # the last block of each stretch that was come to
        self._held: dict[int, bytes] = {}  # by stretch, the hashes up to that, joined
        self._lock = asyncio.Lock()

    def holds(self, name: str) -> None:
        """This provider's chain holds the block."""
        self._off.discard(name)

    def compare(self, name: str, block: BlockRef) -> None:
        """Raises OffThePin where this provider has another block in the place of the pinned one, NotPinned
        where all have come to that."""
        if block.number != self.block.number or block.hash == self.block.hash:
            return
        self._off.add(name)
        said = f"block {block.number}: 0x{self.block.hash.hex()} is pinned; got 0x{block.hash.hex()}"
        if len(self._off) == self._providers:
            raise NotPinned(
                f"{said} from every provider ({', '.join(sorted(self._off))}): mend `anchor` or `rpc`, see "
                "docs/RUNBOOK.md#a-pinned-block-that-no-provider-has"
            )
        raise OffThePin(f"provider {name}: {said}")

    def heads(self, name: str, said: Heads) -> Heads:
        """What this provider says of the chain's heads: nothing below the pin is not final. Raises OffThePin,
        NotPinned, Unreachable where it is behind."""
        if said.latest.number < self.block.number:
            raise Unreachable(
                name, f"block {self.block.number} is pinned; its latest is {said.latest.number}"
            )
        for ref in (said.latest.ref, said.safe, said.finalized):
            if ref is not None:
                self.compare(name, ref)
        safe, finalized = (
            ref if ref is not None and ref.number > self.block.number else self.block
            for ref in (said.safe, said.finalized)
        )
        return said._replace(safe=safe, finalized=finalized)

    async def ancestor(self, number: int) -> Hash32 | None:
        """The hash of the block at `number`, if that is not above the pin. Raises as `links` does."""
        if number > self.block.number:
            self._held.clear()
            return None
        async with self._lock:
            stretch = number // STRETCH
            for passed in [each for each in self._held if each < stretch - 1]:
                del self._held[passed]
            while stretch not in self._tops:
                await self._descend(min(self._tops), 0, number)
            hashes = self._held.get(stretch, b"")
            end = len(hashes) - _HASH * (self._tops[stretch].number - number)
            if end <= 0:
                hashes, end = await self._descend(stretch, number, number), _HASH
            return Hash32(hashes[end - _HASH : end])

    async def _descend(self, stretch: int, first: int, wanted: int) -> bytes:
        """Hold the hashes of a stretch, or of what of it is not below block `first`."""
        top = self._tops[stretch]
        if (self.block.number // STRETCH - stretch) % SAID_EVERY == 0 and stretch - 1 not in self._tops:
            logger.info(
                "%s: block %d is pinned: its ancestors are read down to block %d; so far from block %d on",
                self._network,
                self.block.number,
                wanted,
                top.number,
            )
        links = await self._links(max(first, stretch * STRETCH), top)
        if links[0].number == stretch * STRETCH > 0:
            self._tops[stretch - 1] = BlockRef(links[0].number - 1, links[0].parent)
        self._held[stretch] = hashes = b"".join(link.hash for link in links)
        if len(self._held) > HELD:
            del self._held[max(self._held)]  # next to the pin, and wanted last
        return hashes


def descent(found: Mapping[int, Link | None], first: int, top: BlockRef) -> list[Link]:
    """Of what a provider has, the blocks from `first` to `top`, each of which the next names as its parent.

    Where one is missing, only those above it. Raises Contradiction where one is another.
    """
    links: list[Link] = []
    expected = top.hash
    for number in range(top.number, first - 1, -1):
        if (link := found[number]) is None:
            break
        if link.hash != expected:
            raise another(number, expected, link.hash)
        links.append(link)
        expected = link.parent
    return links[::-1]


def another(number: int, ancestor: Hash32, got: Hash32) -> Contradiction:
    return Contradiction(f"block {number}: 0x{ancestor.hex()} is the pinned chain's; got 0x{got.hex()}")

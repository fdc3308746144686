"""Which blocks a provider calls safe and final: by the chain's own tags, or by a depth where it has none.

Tags count for more, since they say what the chain has decided, and a depth only what its owner expects of it.
So the depth (`networks[].finality_depth`) is ignored, with a line in the log, of each provider that has ever
called a block final, and of all once as many have as the anchor needs. It is not refused: nodes may learn
the tags some day, and a Network has to outlive that. With a quorum each provider counts on its own chain, and
what m of n have there is final, so that no lone one's head moves it, and no lone one's tag stops it.

Final is moved in steps of an eighth of the depth, and each block is at least so deep: a mark names all blocks
above the final one, and would with every block.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from indexer.quorum import Tags
from nektar.chain.rpc import Provider
from nektar.model import BlockRef, Hash32

logger = logging.getLogger(__name__)


class Finality:
    """What the providers of one Network call final."""

    def __init__(
        self,
        network: str,
        depth: int,
        enough: int,
        hash_at: Callable[[Provider, int], Awaitable[Hash32 | None]],
    ) -> None:
        """`depth` of 0: none is configured. `enough`: how many providers have to call a block final before
        the anchor does. `hash_at`: of a provider's block at a number; may raise RpcError, Contradiction."""
        self._network = network  # only to say of which Network it speaks
        self._depth = depth
        self._enough = enough
        self._hash_at = hash_at
        self.tagged: set[str] = set()  # the providers that have ever called a block final
        self._counted: dict[str, tuple[BlockRef, Tags]] = {}  # by provider: from its head, what
        self._warned = False

    async def of(self, provider: Provider, latest: BlockRef, said: Tags) -> Tags:
        """What this provider calls safe and final, where it says `said` of that, and `latest` is its head."""
        if said.finalized is not None:
            self._has_tags(provider.name, said.finalized)
        if said.finalized is not None or provider.name in self.tagged or len(self.tagged) >= self._enough:
            return said
        if not self._depth:
            self._lacks(provider.name)
            return said
        head, tags = self._counted.get(provider.name, (None, said))
        if head != latest:
            tags = await self._count(provider, latest, said)
            self._counted[provider.name] = latest, tags
        return tags

    async def _count(self, provider: Provider, latest: BlockRef, said: Tags) -> Tags:
        step = max(1, self._depth // 8)
        number = (latest.number - self._depth) // step * step
        hash_ = await self._hash_at(provider, number) if number >= 0 else None
        if hash_ is None:
            return said
        final = BlockRef(number, hash_)
        return Tags(said.safe or final, final)

    def _has_tags(self, name: str, final: BlockRef) -> None:
        if self._depth and name not in self.tagged:
            logger.warning(
                "%s: finality_depth is ignored for provider %s, which calls block %d final",
                self._network,
                name,
                final.number,
            )
        self.tagged.add(name)

    def _lacks(self, name: str) -> None:
        if not self._warned:
            logger.warning(
                "%s: provider %s calls no block final, and the Network has no finality_depth: nothing of it "
                "is final, see docs/RUNBOOK.md#no-block-is-final",
                self._network,
                name,
            )
        self._warned = True

"""Which blocks m of n providers call safe and finalized: a mark says nothing that they don't agree on.

A provider agrees to a block if it calls that block, or a later one, by the tag, and has that hash at its
number. So a lone provider's invented fork has too few that share its hashes, and a lone provider's false tag
too few that are so far. Numbers are tried from the highest that m providers may agree on downwards; the
others are only behind. Who has another hash than m of n is named and, where it is about finality, counted and
asked last for a while. Where no hash has m, all that was said is said, and nothing moves.

The providers are asked when the one that is followed says something new of its tags, and again while they
haven't agreed to that. Following waits for their answer only for a moment: a slow witness delays finality,
and no block.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, TypeVar

from opentelemetry import metrics

from indexer.dissents import NOT_FINAL, Dissents
from indexer.prove import Contradiction
from nektar.chain.anchor import Quorum, agreed, candidates
from nektar.chain.pool import Pool
from nektar.chain.rpc import Provider, RpcError
from nektar.model import BlockRef, Hash32

logger = logging.getLogger(__name__)

# Following waits so many seconds for the witnesses, and they for each other. What takes longer says nothing.
MOMENT = 0.25
PATIENCE = 5.0
# Seconds before those that haven't agreed to what was said are asked again.
AGAIN = 1.0

_dissents = metrics.get_meter("nektar").create_counter(
    "nektar.anchor.dissents", "{block}", "Blocks that m of n providers agree on and this one does not"
)


T = TypeVar("T")


class Tags(NamedTuple):
    """What is called safe and finalized. None: nothing is."""

    safe: BlockRef | None = None
    finalized: BlockRef | None = None


class Witnesses:
    """The providers of a Network whose anchor is a quorum of them."""

    def __init__(
        self,
        network: str,
        pool: Pool,
        quorum: Quorum,
        tags: Callable[[Provider], Awaitable[Tags]],
        hash_at: Callable[[Provider, int], Awaitable[Hash32 | None]],
        dissents: Dissents,
    ) -> None:
        """How to ask a provider for its tags, and for its block at a number; both may raise RpcError,
        Contradiction."""
        self._network = network  # only to say of which Network it speaks
        self._pool = pool
        self._quorum = quorum
        self._tags = tags
        self._hash_at = hash_at
        self._told = dissents
        self._agreed = Tags()
        self._answered: Tags | None = None  # what had been said when the witnesses were last asked
        self._asked_at = float("-inf")
        self._round: asyncio.Task[None] | None = None
        self._stands: BlockRef | None = None  # the block last agreed to
        self._said: dict[str, str] = {}  # of each tag, so that a lasting dissent is said once

    async def agreed(self, said: Tags) -> Tags:
        """What m of n providers agree on by now; `said` is what the one that is followed says."""
        loop = asyncio.get_running_loop()
        running = self._round is not None and not self._round.done()
        new = said != self._answered
        waiting = said != self._agreed and loop.time() - self._asked_at >= AGAIN
        if not running and (new or waiting):
            self._answered, self._asked_at = said, loop.time()
            self._round = loop.create_task(self._ask())
            await asyncio.wait({self._round}, timeout=MOMENT)
        if self._round is not None and self._round.done():
            self._round.result()  # a bug in it is one here
        return self._agreed

    async def agree_to(self, block: BlockRef) -> bool:
        """Whether m of n have this block, which lies far below what they agreed to be final."""

        async def at(provider: Provider) -> Hash32 | None:
            return await self._hash_at(provider, block.number)

        if block != self._stands:
            hashes = await self._from_all(at, block.number, enough=block.hash)
            if self._weigh("finalized", block.number, hashes) != block.hash:
                return False
            self._stands = block
        return True

    async def close(self) -> None:
        if self._round is not None:
            self._round.cancel()
            await asyncio.gather(self._round, return_exceptions=True)

    async def _ask(self) -> None:
        """One round of questions, of which `_agreed` is what came."""
        before = self._agreed.finalized
        told = await self._from_all(self._tags, before.number if before is not None else 0)
        safe = await self._settled("safe", told)
        finalized = await self._settled("finalized", told)
        if finalized is None or (before is not None and finalized.number < before.number):
            finalized = before
        self._agreed = Tags(safe, finalized)

    async def _settled(self, tag: str, told: Mapping[str, Tags]) -> BlockRef | None:
        """The highest block that m of n call `tag`."""
        claims: dict[str, BlockRef] = {
            name: ref for name, tags in told.items() if (ref := getattr(tags, tag)) is not None
        }
        for number in candidates(self._quorum.m, {name: ref.number for name, ref in claims.items()}):

            async def at(provider: Provider, number: int = number) -> Hash32 | None:
                claim = claims.get(provider.name)
                if claim is None or claim.number < number:
                    return None
                return claim.hash if claim.number == number else await self._hash_at(provider, number)

            if (hash_ := self._weigh(tag, number, await self._from_all(at, number))) is not None:
                return BlockRef(number, hash_)
        return None

    def _weigh(self, tag: str, number: int, hashes: Mapping[str, Hash32]) -> Hash32 | None:
        """The hash that m of n have at `number`, if they do; and say who has another."""
        hash_ = agreed(self._quorum.m, hashes)
        dissenters = sorted(name for name, other in hashes.items() if other != hash_) if hash_ else []
        for name in dissenters if tag == "finalized" else ():  # `safe` may well be another after a reorg
            _dissents.add(1, {"provider": name})
            words = self._quorum.words("", 0)
            why = f"block {number}: {words} have 0x{hash_.hex() if hash_ else ''}"
            self._told.add(name, NOT_FINAL, number, why, hashes[name], words)
            self._pool.turn_from(name)
        if hash_ is not None and not dissenters:
            return hash_
        views = ", ".join(f"{name} has 0x{said.hex()}" for name, said in sorted(hashes.items()))
        outcome = f"{self._quorum.words('', 0)} agree" if hash_ else f"fewer than {self._quorum.m} agree"
        if (said := f"{tag} block {number}: {outcome}: {views or 'none answers'}") != self._said.get(tag):
            level = logging.ERROR if len(set(hashes.values())) > 1 else logging.WARNING
            logger.log(level, "%s: %s", self._network, said)
            self._said[tag] = said
        return hash_

    async def _from_all(
        self, ask: Callable[[Provider], Awaitable[T | None]], number: int, enough: T | None = None
    ) -> dict[str, T]:
        """By their names, what the providers answer in time about the block at `number`; no longer waited for
        once m answer `enough`."""

        async def one(provider: Provider) -> T | None:
            try:
                return await ask(provider)
            except (RpcError, Contradiction) as error:
                logger.info("%s", error)
                if isinstance(error, Contradiction):
                    self._told.contradiction(provider.name, number, error)
                return None

        tasks = {asyncio.create_task(one(provider)): provider.name for provider in self._pool.providers}
        answers: dict[str, T] = {}
        loop = asyncio.get_running_loop()
        until, pending = loop.time() + PATIENCE, set(tasks)
        try:
            while pending and (left := until - loop.time()) > 0:
                done, pending = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                answers |= {tasks[task]: said for task in done if (said := task.result()) is not None}
                if enough is not None and list(answers.values()).count(enough) >= self._quorum.m:
                    break
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
        return answers

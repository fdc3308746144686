"""What the providers say of the chain, in types, hashed and proved.

Which of them is asked is the pool's to say (`nektar/chain/pool.py`); what makes blocks canonical, the
anchor's (`nektar/chain/anchor.py`): with a quorum, what is called safe and finalized is what its witnesses
agree on (`quorum.py`); with a pin no provider is believed whose chain is not seen to hold the pinned block,
nor any block below it that is not its ancestor (`pin.py`). Where a chain has no such tags, a depth says what
is final (`finality.py`).

What a provider does not have is told from what it did not answer. A block or receipts count as withheld only
where every provider answered, several times, that it has none; a fault of the connection never counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from indexer.dissents import Dissents
from indexer.finality import Finality
from indexer.headers import Heads, Link, heads_of, is_missing, links_of, mapping, named
from indexer.pin import OffThePin, Pin, another, descent
from indexer.prove import Contradiction, Proved, hash_of, prove
from indexer.quorum import Tags, Witnesses
from nektar.chain.anchor import Anchor, Pinned, Quorum, Single
from nektar.chain.bloom import bloom
from nektar.chain.jsonrpc import Malformed, quantity
from nektar.chain.logs import NUMBER_BITS
from nektar.chain.pool import Absent, Pool
from nektar.chain.rpc import (
    Call,
    Provider,
    RangeLimited,
    Refused,
    RpcError,
    Unreachable,
    check_chain_id,
    without_code,
)
from nektar.model import BlockRef, Hash32

logger = logging.getLogger(__name__)

# How often, and after how many seconds, a provider is asked again for what it says it does not have. Null is
# also what a node says of a block whose receipts it is still indexing; an error is final sooner.
PAUSES_AFTER_NULL = (0.1, 0.2, 0.4, 0.8)
PAUSES_AFTER_REFUSAL = (0.1, 0.2)
T = TypeVar("T")


class Served(NamedTuple):
    """A block, the name of the provider that served it, and what makes it canonical.

    `header`: who served its header where that is another, whose word it is then that it stands there."""

    proved: Proved
    provider: str
    anchor: Anchor
    header: str = ""

    @property
    def header_by(self) -> str:
        return self.header or self.provider


class Source:
    """The providers of one Network. `pool`: who of them is asked."""

    def __init__(
        self,
        providers: Sequence[Provider],
        chain_id: int,
        anchor: Anchor = Single(),  # noqa: B008  frozen
        network: str = "",
        finality_depth: int = 0,
    ) -> None:
        """`network` is only said where the providers dissent. `finality_depth`: as deep as that a block is
        final where they have no tags that say so; 0: nothing is then."""
        self.pool = Pool(providers, lies=Contradiction)
        self.answered = self.pool.best.name  # who gave the last answer
        self.dissents = Dissents()
        self._asked = 0  # the number of the block that was asked for last
        self._chain_id = chain_id
        self._anchor = anchor
        self._checked: set[str] = set()
        self._pin: Pin | None = None
        self._witnesses: Witnesses | None = None
        self._finality = Finality(network, finality_depth, anchor.enough, self._hash_at)
        if isinstance(anchor, Quorum):
            self._witnesses = Witnesses(network, self.pool, anchor, self._tags, self._hash_at, self.dissents)
        if isinstance(anchor, Pinned):
            self._pin = Pin(network, anchor.block, len(self), self._descent)

    async def close(self) -> None:
        if self._witnesses is not None:
            await self._witnesses.close()

    @property
    def in_flight(self) -> int:
        """How many requests the provider that is asked takes at once."""
        return self.pool.best.limits.in_flight

    @property
    def name(self) -> str:
        """The provider that is asked."""
        return self.pool.best.name

    def __len__(self) -> int:
        return len(self.pool)

    def turn_from(self, name: str) -> None:
        """Ask others first from now on: what this provider says is to be seen by another too."""
        self.pool.turn_from(name)

    def contradicted(self, name: str, number: int, error: Contradiction) -> None:
        """What this provider said of the block at `number` can't be, by what was said of others before."""
        self.pool.contradicted(name)
        self.dissents.contradiction(name, number, error)

    async def check_chain(self) -> None:
        """Raises WrongChain where a provider serves another chain, NotPinned where all lack the pinned block.
        Who can't be reached is checked later."""
        for provider in self.pool.providers:
            try:
                await self._check(provider)
            except (Unreachable, Refused, Contradiction) as error:
                logger.warning("%s", error)

    async def without_code(self, addresses: Sequence[str], head: int) -> frozenset[str]:
        """Those of the addresses at which no provider has a contract; `head` as in `rpc.without_code`.

        One provider that has it is enough, and one that refuses to tell is not waited for. Raises
        Unreachable or Contradiction where no provider can tell yet, WrongChain.
        """
        missing: frozenset[str] | None = None
        not_yet: Unreachable | Contradiction | None = None
        for provider in self.pool.providers:
            try:
                await self._check(provider)
                found = await without_code(provider, addresses, head)
            except (Refused, OffThePin) as error:
                logger.warning("%s", error)
            except (Unreachable, Contradiction) as error:
                not_yet = not_yet or error
            else:
                missing = found if missing is None else missing & found
                if not missing:
                    break
        if missing is None and not_yet is not None:
            raise not_yet
        return missing or frozenset()

    async def heads(self) -> Heads:
        """The chain's latest, safe and finalized blocks. Raises RpcError, Contradiction."""
        heads = await self._from_any(self._heads, self._asked)
        if self._witnesses is None:
            return heads
        agreed = await self._witnesses.agreed(Tags(heads.safe, heads.finalized))
        return heads._replace(safe=agreed.safe, finalized=agreed.finalized)

    @property
    def has_quorum(self) -> bool:
        """Whether what is final is what m of n providers agree on."""
        return self._witnesses is not None

    def is_bound(self, name: str, heads: Heads) -> bool:
        """Whether this provider's blocks must be those of the chain that these heads call final: since m of n
        do, or since it does itself. A depth below its head is nobody's word."""
        return self.has_quorum or (name == heads.provider and name in self._finality.tagged)

    async def hash_by(self, name: str, number: int) -> Hash32 | None:
        """What this provider has at `number`; None: nothing. Raises RpcError, Contradiction."""
        provider = next(each for each in self.pool.providers if each.name == name)
        with self._recorded(provider, number):
            return await self._hash_at(provider, number)

    async def calls_final(self, name: str, blocks: Sequence[BlockRef]) -> bool:
        """Whether this provider says now that its chain has these blocks, and that they are final. No where
        it does not say, or has no word of its own for what is final."""
        provider = next(each for each in self.pool.providers if each.name == name)
        try:
            finalized = (await self._heads(provider)).finalized
            if finalized is None or name not in self._finality.tagged:
                return False
            has = [await self._hash_at(provider, block.number) for block in blocks]
        except (RpcError, Contradiction) as error:
            logger.warning("%s", error)
            return False
        return finalized.number >= max(block.number for block in blocks) and has == [b.hash for b in blocks]

    async def stands(self, block: BlockRef) -> bool:
        """Whether the anchor lets this block count as final, one that is linked to a final one far above it
        by what its provider says. Raises nothing."""
        return self._witnesses is None or await self._witnesses.agree_to(block)

    async def links(self, first: int, last: int) -> dict[int, Link | None]:
        """What stands at these numbers; None where there is no block. Raises RpcError, Contradiction."""

        async def ask(provider: Provider) -> dict[int, Link | None]:
            return await self._links(provider, first, last)

        return await self._from_any(ask, first)

    async def block(self, number: int, *, settled: bool) -> Served | None:
        """The block at `number`, proved, or linked where no provider serves its receipts.

        None: there is no such block. Of a `settled` one, which the chain has for certain, that is said only
        when every provider, asked several times, has said so. Raises RpcError, Contradiction.
        """

        # Before, since somebody else may have it.
        ancestor = None if self._pin is None else await self._pin.ancestor(number)

        async def ask(provider: Provider) -> Served | None:
            served = await self._block(provider, number, ancestor, settled=settled)
            if served is None and settled:
                raise Absent(provider.name, f"block {number}: it has none")
            return served

        self._asked = number
        try:
            return await self._from_any(ask, number)
        except Absent:
            return None

    async def served(self, number: int) -> bool:
        """Whether any provider has a header at `number`. Raises RpcError, Contradiction."""

        async def ask(provider: Provider) -> bool:
            if (await self._links(provider, number, number))[number] is None:
                raise Absent(provider.name, f"block {number}: it has none")
            return True

        try:
            return await self._from_any(ask, number)
        except Absent:
            return False

    async def _from_any(self, ask: Callable[[Provider], Awaitable[T]], number: int) -> T:
        """The answer of the best provider of this chain that gives one, about the block at `number`. Raises
        as `Pool.first` does."""

        async def of_this_chain(provider: Provider) -> T:
            await self._check(provider)
            with self._recorded(provider, number):
                answer = await ask(provider)
            self.answered = provider.name
            return answer

        return await self.pool.first(of_this_chain)

    @contextmanager
    def _recorded(self, provider: Provider, number: int) -> Iterator[None]:
        """Where this provider contradicts itself, or a header, about the block at `number`, it is named."""
        try:
            yield
        except Contradiction as error:
            self.dissents.contradiction(provider.name, number, error)
            raise

    async def _check(self, provider: Provider) -> None:
        """Raises WrongChain, OffThePin, NotPinned; RpcError, Contradiction where it does not say."""
        if provider.name in self._checked:
            return
        await check_chain_id(provider, self._chain_id)
        if self._pin is not None:
            number = self._pin.block.number
            with self._recorded(provider, number):
                found = await self._links(provider, number, number)
            if found[number] is None:
                raise Unreachable(
                    provider.name, f"it does not serve block {number}, or not yet, which is pinned"
                )
            self._pin.holds(provider.name)
        self._checked.add(provider.name)

    async def _descent(self, first: int, top: BlockRef) -> list[Link]:
        """The blocks from `first` to `top`, which the pin knows. Raises RpcError, Contradiction."""

        async def ask(provider: Provider) -> list[Link]:
            found = await self._links(provider, first, top.number)
            with named(provider):
                links = descent(found, first, top)
            if (missing := top.number - len(links)) >= first:
                raise Absent(
                    provider.name,
                    f"block {missing}: it has no header, by which blocks below are known to be the pinned "
                    "one's, see docs/RUNBOOK.md#no-header-below-a-pinned-block",
                )
            return links

        return await self._from_any(ask, top.number)

    async def _tags(self, provider: Provider) -> Tags:
        await self._check(provider)
        heads = await self._heads(provider)
        return Tags(heads.safe, heads.finalized)

    async def _heads(self, provider: Provider) -> Heads:
        heads = await heads_of(provider)
        tags = await self._finality.of(provider, heads.latest.ref, Tags(heads.safe, heads.finalized))
        heads = heads._replace(safe=tags.safe, finalized=tags.finalized)
        return heads if self._pin is None else self._pin.heads(provider.name, heads)

    async def _hash_at(self, provider: Provider, number: int) -> Hash32 | None:
        await self._check(provider)
        link = (await self._links(provider, number, number))[number]
        return None if link is None else link.hash

    async def _links(self, provider: Provider, first: int, last: int) -> dict[int, Link | None]:
        found = await links_of(provider, first, last)
        for link in found.values():
            if self._pin is not None and link is not None:
                self._pin.compare(provider.name, link.ref)
        return found

    async def _block(
        self, provider: Provider, number: int, ancestor: Hash32 | None, *, settled: bool
    ) -> Served | None:
        block, receipts = await provider.batch(
            [
                Call("eth_getBlockByNumber", (hex(number), True)),
                Call("eth_getBlockReceipts", (hex(number),)),
            ]
        )
        if is_missing(block) and settled:
            block = await _insist(provider, Call("eth_getBlockByNumber", (hex(number), True)), block)
        if is_missing(block):
            return None
        with named(provider):
            block = mapping(block)
            block_hash = hash_of(block, number)
            if ancestor is not None and block_hash != ancestor:
                raise another(number, ancestor, block_hash)
            if not is_missing(receipts):
                try:
                    return Served(prove(block, _mappings(receipts)), provider.name, self._anchor)
                except (Contradiction, Malformed) as error:
                    # A reorg between the two answers looks like this; asked by hash there is no between.
                    logger.info("block %d: %s; asking by its hash", number, error)
            by_hash = Call("eth_getBlockReceipts", ("0x" + block_hash.hex(),))
            receipts = await _insist(provider, by_hash, receipts if is_missing(receipts) else None)
            if not is_missing(receipts):
                return Served(prove(block, _mappings(receipts)), provider.name, self._anchor)
        return await self._linked(provider, block, receipts)

    async def _linked(self, provider: Provider, block: Mapping[str, Any], said: Any) -> Served:
        """The block without `provider`'s receipts: with another's if it can be, else with logs alone."""
        with named(provider):  # before it is held against anybody else's receipts
            bare = Served(prove(block, None), provider.name, self._anchor)
        block_hash = "0x" + bare.proved.hash.hex()
        async for other in self._others(provider):
            receipts = await _insist(other, Call("eth_getBlockReceipts", (block_hash,)), None)
            if not is_missing(receipts) and (served := self._by(other, provider, block, receipts)):
                return served
        served = await self._with_logs(provider, block, bare)
        why = str(said) if isinstance(said, Refused) else f"provider {provider.name}: no receipts"
        logger.warning("block %d is only linked: %s", served.proved.number, why)
        return served

    async def _with_logs(self, provider: Provider, block: Mapping[str, Any], best: Served) -> Served:
        """The block, `best` without logs, with what is offered as these: all that its bloom tells of if
        anybody has them, the provider itself first; else the most that there are. Raises RangeLimited where
        they are too many."""
        block_hash = "0x" + best.proved.hash.hex()
        limited: RangeLimited | None = None

        async def ask(each: Provider) -> bool:
            """Whether these are all of them."""
            nonlocal best, limited
            (logs,) = await each.batch([Call("eth_getLogs", ({"blockHash": block_hash},))])
            if isinstance(logs, RangeLimited):
                limited = limited or logs
            offered = None if is_missing(logs) else self._by(each, provider, block, None, logs)
            if offered is not None and len(offered.proved.logs) > len(best.proved.logs):
                best = offered
            return bloom(best.proved.logs) == best.proved.bloom

        if await ask(provider):
            return best
        async for other in self._others(provider):
            if await ask(other):
                return best
        if limited is not None:
            raise limited
        return best

    async def _others(self, provider: Provider) -> AsyncIterator[Provider]:
        """The other providers of this chain, in order. Raises as `_check` does, but for those off the pin."""
        for other in self.pool.order():
            if other is not provider:
                try:
                    await self._check(other)
                except OffThePin as error:
                    logger.warning("%s", error)
                else:
                    yield other

    def _by(
        self, other: Provider, provider: Provider, block: Mapping[str, Any], receipts: Any, logs: Any = ()
    ) -> Served | None:
        """`provider`'s block with what `other` says is in it. Where that contradicts the header it is named,
        and None; raises Contradiction where it is the provider itself."""
        try:
            with named(other):
                proved = prove(block, None if receipts is None else _mappings(receipts), logs=_mappings(logs))
        except Contradiction as error:
            if other is provider:
                raise
            logger.warning("%s", error)
            self.contradicted(other.name, quantity(block, "number", NUMBER_BITS), error)
            return None
        return Served(proved, other.name, self._anchor, "" if other is provider else provider.name)


async def _insist(provider: Provider, call: Call, said: Any) -> Any:
    """The call's result, or what was said in its place each time; `said` is what was said so far."""
    tries = 0
    while True:
        pauses = PAUSES_AFTER_REFUSAL if isinstance(said, Refused) else PAUSES_AFTER_NULL
        (answer,) = await provider.batch([call])
        if not is_missing(answer) or tries >= len(pauses):
            return answer
        await asyncio.sleep(pauses[tries])
        tries += 1
        said = answer


def _mappings(answer: Any) -> Sequence[Mapping[str, Any]]:
    if isinstance(answer, list | tuple) and all(isinstance(each, Mapping) for each in answer):
        return answer
    raise Contradiction(f"expected a list of receipts or logs; got {str(answer)[:60]!r}")

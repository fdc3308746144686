"""Bulk reading: the events of any contracts, in a range of blocks, straight into the store's typed tables.

    ranges ──▶ asked for, several at once ──▶ read ──▶ gathered ──▶ decoded and inserted, in a thread

Each range is asked of one provider, of all of them as many as they take at once, and of the next where that
one brings nothing. A run that was cut off goes on where the store's coverage ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing, suppress
from functools import partial
from typing import NamedTuple

from indexer.asked import ANSWERS_AT_ONCE, served
from indexer.claim import BEAT, Claim
from indexer.correct import Correction, scopes
from indexer.dissents import Dissents
from indexer.filled import Filled
from indexer.links import Covered, Links
from indexer.orphans import orphans
from indexer.plan import Plan
from indexer.prove import Contradiction, contradiction
from indexer.ranges import LOGS_WANTED, MOST_BLOCKS, Range, Sizes
from indexer.reads import OCTETS_AN_INSERT, ROWS_AN_INSERT, Decoded, Read, decoded
from indexer.told import Told
from nektar.chain.jsonrpc import Malformed
from nektar.chain.pool import Pool
from nektar.chain.rpc import Oversized, Provider, RangeLimited, Refused, RpcError, Unreachable
from nektar.coverage import DissentRow
from nektar.errors import NektarError
from nektar.model import Level
from nektar.store.port import Store

logger = logging.getLogger(__name__)

# Blocks that are proved at once at most: what follows small ones may be large.
BLOCKS_A_REQUEST = 100
# Seconds that a range waits, twice as long with each try, where a provider that may have it brings no answer;
# and after how many that ends the run. Who asks to be left alone does so for a minute at most.
FIRST_PAUSE, PATIENCE = 1.0, 150.0


class TooMany(NamedTuple):
    """Blocks that are too many for one answer of this provider. How many of these it would serve, and how
    many it ever does, where it says so."""

    blocks: Range
    provider: str
    served: int | None = None
    limit: int | None = None


class Progress(NamedTuple):
    """What of the `blocks` that were to be read is in the store; `logs` that could not be read among them."""

    blocks: int
    done: int
    logs: int
    undecoded: int


class Begun(NamedTuple):
    """What a plan fills, what it corrects there, and what of its blocks is left to read."""

    claim: Claim
    filled: Filled
    correction: Correction | None
    left: Sequence[Range]


async def index(
    pool: Pool,
    opened: Callable[[], Store],
    plan: Plan,
    progress: Callable[[Progress], None],
    *,
    is_new: bool = False,
) -> Progress:
    """Read what of the plan the store does not have yet; `progress` is told after each insert. What is proved
    corrects what was reported before.

    The store is `opened` in the thread that inserts, which takes as long as many answers: where it `is_new`,
    what is left to read is known before that, and is asked for meanwhile.

    Who contradicts a header, or itself, is named in `dissent`. Raises RpcError, Contradiction, StoreError.
    """
    links, dissents = Links(), Dissents(plan.filter)
    with ThreadPoolExecutor(1, "insert") as inserting, ExitStack() as held:
        in_thread = partial(asyncio.get_running_loop().run_in_executor, inserting)

        async def begin() -> Begun:
            store = await in_thread(opened)
            claim = await in_thread(Claim, store, plan)
            held.callback(lambda: inserting.submit(claim.release).result())
            held.callback(asyncio.create_task(keep(claim)).cancel)
            filled = await in_thread(Filled, store, plan)
            try:
                stretches = await in_thread(filled.covered, Level.PROVED)
                gone = await orphans(pool, plan, stretches, dissents)
            finally:
                await in_thread(filled.say, DissentRow, dissents.take())
            begun, there = await in_thread(prepare, store, claim, filled, gone)
            for each in there if plan.level is Level.PROVED else []:
                links.add(each)
            held.callback(lambda: inserting.submit(filled.merge).result())
            await in_thread(filled.hold_merges)
            return begun

        async def keep(claim: Claim) -> None:
            while True:
                await asyncio.sleep(BEAT)
                with suppress(NektarError):  # whoever writes next finds out
                    await in_thread(claim.hold)

        def prepare(
            store: Store, claim: Claim, filled: Filled, gone: Sequence[Range]
        ) -> tuple[Begun, list[Covered]]:
            claim.hold()
            again = [each for blocks in gone for each in filled.forget(blocks)]
            filled.clear()
            correction = None
            if plan.level is Level.PROVED and filled.covered(Level.REPORTED):
                correction = Correction(store, plan, filled, Told(store, scopes(plan)))
            there = filled.there()
            left = filled.left([each.blocks for each in there], again)
            return Begun(claim, filled, correction, left), there

        begun = asyncio.create_task(begin())
        left = [plan.blocks] if is_new and not plan.audit else (await begun).left
        done = Progress(sum(each.blocks for each in left), 0, 0, 0)
        progress(done)

        def add(reads: Sequence[Read], to: Begun) -> Decoded:
            rows = decoded(reads, plan)
            to.claim.hold()
            if to.correction is None:
                to.filled.put(rows)
            else:
                to.correction.put(reads, rows)
            to.filled.cover(reads, rows)
            return rows

        async def insert(reads: Sequence[Read]) -> None:
            nonlocal done
            rows = await in_thread(add, reads, await begun)
            done = Progress(
                done.blocks,
                done.done + sum(read.blocks.blocks for read in reads),
                done.logs + rows.rows - len(rows.undecoded) + rows.lost,
                done.undecoded + rows.lost,
            )
            progress(done)

        # Blocks that hold nothing count as rows: what is not inserted is lost to a kill.
        gathered: list[Read] = []
        rows = octets = 0
        inserted = asyncio.create_task(insert([]))
        try:
            async with aclosing(_reads(pool, plan, left, dissents)) as reads:
                async for read in reads:
                    if read.ends is not None:
                        links.add(Covered(read.blocks, read.provider, read.ends))
                    gathered.append(read)
                    rows, octets = rows + max(read.rows, read.blocks.blocks), octets + read.held
                    if rows >= ROWS_AN_INSERT or octets >= OCTETS_AN_INSERT:
                        await inserted
                        inserted = asyncio.create_task(insert(gathered))
                        gathered, rows, octets = [], 0, 0
        finally:  # what was read before a fault is kept
            await inserted
            await insert(gathered)
            to = await begun
            if to.correction is not None:
                await in_thread(to.claim.hold)
                await in_thread(to.correction.settle)
            await in_thread(to.filled.say, DissentRow, dissents.take())
    return done


async def _reads(
    pool: Pool, plan: Plan, left: Sequence[Range], dissents: Dissents
) -> AsyncGenerator[Read, None]:
    """What the ranges hold, in any order; as many are asked for at once as the providers take."""
    is_proof = plan.level is Level.PROVED
    wanted = LOGS_WANTED * (ANSWERS_AT_ONCE if is_proof else 1)
    most = BLOCKS_A_REQUEST if is_proof else MOST_BLOCKS
    sizes = {provider.name: Sizes(wanted=wanted, most=most) for provider in pool.providers}
    work = list(reversed(left))
    asked: dict[asyncio.Task[Read | TooMany], Provider] = {}
    finished: set[asyncio.Task[Read | TooMany]] = set()
    try:
        while work or asked:
            while work and (provider := _free(pool, asked.values())) is not None:
                part, rest = work.pop().cut(sizes[provider.name].next)
                if rest is not None:
                    work.append(rest)
                asked[asyncio.create_task(_read(pool, provider, plan, part, dissents))] = provider
            finished, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            was_asked = {task: asked.pop(task).name for task in finished}
            for task in finished:
                match task.result():
                    case TooMany(blocks, provider_, served, limit):
                        if provider_ != was_asked[task]:
                            sizes[was_asked[task]].refused(blocks.blocks)
                        sizes[provider_].refused(blocks.blocks, served, limit)
                        work.append(blocks)
                    case read:
                        sizes[read.provider].held(read.blocks.blocks, read.rows, read.octets)
                        yield read
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, *finished, return_exceptions=True)


def _free(pool: Pool, asked: Iterable[Provider]) -> Provider | None:
    """The best provider that takes one more range than those that it is asked for."""
    under_way = Counter(provider.name for provider in asked)
    well = pool.well()
    return next((each for each in well if under_way[each.name] < each.limits.in_flight), None)


async def _read(
    pool: Pool, provider: Provider, plan: Plan, blocks: Range, dissents: Dissents
) -> Read | TooMany:
    """What the blocks hold, by this provider or by another, or that they are too many for one answer.

    Where one rests, hangs or is down, and no other has them, all are asked again, up to an end.
    """
    is_silent = False  # one of them

    async def ask(provider: Provider) -> Read | TooMany:
        nonlocal is_silent
        try:
            return await served(provider, plan, blocks)
        except RangeLimited as error:
            if blocks.blocks == 1:
                raise
            limit = None if error.suggested else error.blocks
            return TooMany(blocks, provider.name, error.blocks, limit)
        except Oversized:
            if blocks.blocks == 1:
                raise
            return TooMany(blocks, provider.name)
        except Unreachable:
            is_silent = True
            raise
        except (Contradiction, Malformed) as error:
            said = contradiction(f"provider {provider.name}", error)
            dissents.contradiction(provider.name, blocks.first, said)
            raise said from error

    until, pause = time.monotonic() + PATIENCE, FIRST_PAUSE
    while True:
        is_silent = False
        try:
            return await pool.first(ask, before=provider)
        except (RpcError, Contradiction) as error:
            if isinstance(error, Refused) and blocks.blocks > 1:  # in words that nobody knows, perhaps
                return TooMany(blocks, provider.name)
            if not is_silent or time.monotonic() + pause > until:
                raise
            logger.warning("%s; blocks %d to %d are asked for again", error, *blocks)
        await asyncio.sleep(pause)
        pause *= 2

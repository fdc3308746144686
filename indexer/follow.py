"""Following a chain: look at its head, do what `reconcile` says until there is nothing to do, and look again.

All that is known lies in the log. What is in flight when the process dies is fetched again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial

import msgspec

from indexer.backfill import BLOCKS_A_RECORD, BYTES_HELD, blocks, gap_end, records, size
from indexer.carried import Carried, Due, between, pages
from indexer.decode import NO_REASONS, Undecodable
from indexer.disputes import Disputes
from indexer.found import MAX_FOUND
from indexer.headers import Heads, Link
from indexer.prove import Contradiction
from indexer.reconcile import (
    Extend,
    Look,
    ReorgBelowFinality,
    TakeBack,
    View,
    Wait,
    differs,
    mark,
    reconcile,
)
from indexer.reverts import Reverts
from indexer.source import Served, Source
from indexer.writer import NetworkLog
from nektar.chain.abi import Abi
from nektar.chain.announced import Announced
from nektar.chain.pool import Absent
from nektar.chain.rpc import RpcError, Unreachable, WrongChain
from nektar.health import Health
from nektar.log import Gap, Record
from nektar.model import Address, BlockRef

logger = logging.getLogger(__name__)

# Steps taken on one look at the heads; then they are looked at again.
STEPS_A_LOOK = 256
# A reorg below finality stops the Network for good, so it is seen this often, and by every provider, first:
# a node that syncs, or one of several behind a balancer, can show another chain for a moment.
SIGHTINGS = 3
# A block is final when it is the one that the chain calls finalized, or is linked to it. A backfill would
# have to wait for its end to say so; so far below as this no fork has reached, and it is said on the way.
SETTLED_DEPTH = 1024
# A gap is never filled, so blocks have to be missing for this many seconds before one is written.
GAP_PATIENCE = 30.0
# A chain that stands still for so many seconds looks like a provider that does, so others are asked in turn
# until one shows something new: a fork or a head that one of them is stuck on must not hide the chain.
STANDSTILL = 30.0
# How long a provider may keep us waiting, in seconds, before that is said, and how often then.
PATIENCE = 10.0
# Seconds between two looks while heads are announced, for what is not: a socket that has gone deaf, finality.
QUIET = 1.0
# … and at least, whatever is announced: who announces without end must not make us ask others without end.
BREATH = 0.05
# Seconds before looking again after a fault; it doubles up to the second value while the fault lasts.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 15.0


class Follower:
    """Keeps one Network's log level with its chain."""

    def __init__(
        self,
        log: NetworkLog,
        source: Source,
        contracts: Mapping[Address, Abi],
        poll: float,
        health: Health,
        announced: Announced | None = None,
        reverts: Reverts | None = None,
        *,
        only_with_events: bool = False,
        named: str = "",
        caught_up: Callable[[], Awaitable[None]] | None = None,
        carried: Carried | None = None,
        writing: asyncio.Lock | None = None,
    ) -> None:
        """`poll`: seconds between two looks at the head, while nobody announces it. `reverts` says of blocks
        above the finalized one why calls failed; None: nobody is asked. `only_with_events` as of
        `indexer.decode.tables`. `named` is how it is called in health and in what is logged; `caught_up` is
        called whenever the log is level with its chain; `carried` is what an older log has for this one.
        Nothing is written while another holds `writing`."""
        self.named = named or log.network
        self.caught_up = caught_up
        self._carried = carried
        self.carry_until: float | None = None  # the loop's time from which on nothing more is carried over
        self._writing = writing or asyncio.Lock()
        self._log = log
        self._source = source
        self._contracts = contracts
        self._poll = poll
        self._announced = announced or Announced({})
        self._reverts = reverts
        self._only_with_events = only_with_events
        self._disputes = Disputes(source)
        self._sightings = Counter[str]()  # of a reorg below finality, by the provider
        self._waiting: float | None = None  # since when, or since it was last said
        self._news_at: float | None = None  # when blocks were last appended, or first looked for
        self._missed: tuple[int, float] | None = None  # the block that nobody serves, and since when
        self._health = health
        self._appending = False
        self._looked_at = 0.0  # when heads were last looked at, in seconds since 1970
        self._since = 0  # when the work on what is appended next began, in ns since 1970

    async def run(self, check: Callable[[], Awaitable[None]] | None = None) -> None:
        """Follow until cancelled, once `check` has returned. Providers' faults are waited out, in both;
        raises WrongChain, ReorgBelowFinality, BusError, and what else `check` does."""
        loop = asyncio.get_running_loop()
        pause, said = FIRST_PAUSE, ""
        while True:
            looked_at = loop.time()
            try:
                if check is not None:
                    await check()
                    check = None
                await self.look()
            except WrongChain:  # told only now, since the provider was not there before
                raise
            except (RpcError, Contradiction) as error:
                level = logging.ERROR if isinstance(error, Contradiction) else logging.WARNING
                logger.log(logging.DEBUG if str(error) == said else level, "%s: %s", self.named, error)
                said = str(error)
                self._health.waits(self.named, said)
                await self._record_dissents()
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if said:
                    logger.warning("%s: provider %s answers again", self.named, self._source.name)
                pause, said = FIRST_PAUSE, ""
                if 0 < self._sightings.total() <= SIGHTINGS * len(self._source):
                    await asyncio.sleep(FIRST_PAUSE)
                else:
                    await self._announced.wait(self._until_next_look())
                    await asyncio.sleep(looked_at + min(BREATH, self._poll) - loop.time())

    def _until_next_look(self) -> float:
        """Seconds until it is time to look again, if no head is announced before. One that was announced, and
        is not there yet, will soon be."""
        if not self._announced.live:
            return self._poll
        tip = self._log.known.tip
        there = tip is not None and tip.number >= self._announced.newest
        return max(QUIET, self._poll) if there else min(FIRST_PAUSE, self._poll)

    async def say_that_it_waits(self) -> None:
        """For a provider that is slow or says nothing, or for the next look: until cancelled. Where it is the
        bus that takes its time, nothing is said."""
        while True:
            await asyncio.sleep(PATIENCE)
            silent = self._health.silence(self.named)
            if silent >= PATIENCE and not self._appending:
                name = self._source.name
                self._health.waits(self.named, f"provider {name} was asked {silent:.0f} s ago")

    async def look(self) -> None:
        """One look at the heads, and all that follows from it. Raises RpcError, Contradiction too."""
        try:
            await self._look()
        except (RpcError, Contradiction):
            await self._record_dissents()
            raise
        await self._record_dissents()

    async def _record_dissents(self) -> None:
        if dissent := self._source.dissents.take():
            async with self._writing:
                await asyncio.to_thread(partial(self._log.append, [], dissent=dissent))

    async def _look(self) -> None:
        asked_at = self._looked_at = time.time()
        self._since = time.time_ns()
        view = View(await self._source.heads())
        await self._disputes.hear(view.heads, self._log.known)
        try:
            for _ in range(STEPS_A_LOOK):
                match reconcile(self._log.known, view):
                    case Look(first, last):
                        view = view.with_links(await self._source.links(first, last))
                    case Extend() as step:
                        view = view.with_links(await self._extend(step, view.heads))
                    case TakeBack(last):
                        await self._take_back(last, view.heads)
                    case Wait(why):
                        await self._append([], view.heads.safe, view.heads.finalized)
                        self._say_if_it_lasts(why)
                        if why:
                            self._health.waits(self.named, why)
                        else:
                            self._health.level(self.named, asked_at)
                            await self.carry_on()
                            if self.caught_up is not None:
                                await self.caught_up()
                        break
            self._sightings.clear()
            self._disputes.level(view.heads, self._log.known.base)
            self._turn_if_it_forks(view.heads)
            self._turn_if_it_stands_still()
        except ReorgBelowFinality as error:
            showed = self._source.answered
            self._sightings[showed] += 1
            await self._disputes.below_finality(showed, error, view.heads)
            if self._is_certain:
                raise
            level = logging.ERROR if self._sightings[showed] <= SIGHTINGS else logging.DEBUG
            logger.log(level, "%s: provider %s: %s", self.named, showed, error)
            self._health.waits(self.named, f"provider {showed}: {error}")

    def _turn_if_it_stands_still(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._news_at is None:
            self._news_at = now
        if now - self._news_at >= STANDSTILL:
            self._source.turn_from(self._source.name)

    def _turn_if_it_forks(self, heads: Heads) -> None:
        """Leave whose chain the log holds where another block than the log's was agreed to be final: who
        calls none of its own blocks final contradicts nobody, and would be followed on."""
        if heads.finalized is None:
            return
        ours = self._log.known.hash_at(heads.finalized.number)
        if ours is not None and ours != heads.finalized.hash:
            self._source.turn_from(self._source.name)

    @property
    def _is_certain(self) -> bool:
        """Whether every provider has shown a reorg below finality so often that there is no doubt. One that
        is down has shown nothing: until it answers this Network stands still, and does not end."""
        seen = self._sightings.values()
        return len(seen) == len(self._source) and min(seen) >= SIGHTINGS

    def _say_if_it_lasts(self, why: str) -> None:
        now = asyncio.get_running_loop().time()
        if not why or self._waiting is None:
            self._waiting = now if why else None
        elif now - self._waiting > PATIENCE:
            logger.warning("%s: waiting for provider %s: %s", self.named, self._source.name, why)
            self._waiting = now

    async def _extend(self, step: Extend, heads: Heads) -> dict[int, Link | None]:
        """Append those of the step's blocks that follow. Returns what stands at the first that does not, or
        where the head was said to be."""
        batch: list[Served] = []
        before: Served | None = None
        held, number = 0, step.first
        link: Link | None = None
        tip = self._log.known.tip
        try:
            async with aclosing(blocks(self._source, step.first, step.last, settled=step.settled)) as fetched:
                async for served in fetched:
                    self._health.moved(self.named)
                    link = Link(served.proved.number, served.proved.hash, served.proved.parent)
                    if tip is not None and link.parent != tip.hash:
                        if step.settled and before is not None:
                            raise await self._disputes.apart(before, served, heads)
                        await self._write(batch, heads)
                        return {number: link}
                    if heads.finalized is not None and differs(link.ref, heads.finalized):
                        raise await self._disputes.not_final(served, heads, heads.finalized)
                    await self._disputes.passed(link)
                    batch.append(served)
                    held += size(served)
                    tip, number, before = link.ref, number + 1, served
                    if len(batch) == BLOCKS_A_RECORD or held > BYTES_HELD:
                        await self._write(batch, heads)
                        batch, held = [], 0
                        if self._log.known.full and not step.settled:
                            return {}
        except RpcError:
            # What came before the fault is kept, so that a provider that often fails is still got on with.
            await self._write(batch, heads)
            raise
        await self._write(batch, heads)
        if number > step.last:
            return {step.last: link}
        if not step.settled:
            return {number: None}
        await self._skip(number, step.last, heads)
        return {}

    async def _skip(self, first: int, finalized: int, heads: Heads) -> None:
        """Append a gap, of blocks from `first` on that no provider serves, and the block after it."""
        now = asyncio.get_running_loop().time()
        if self._missed is None or self._missed[0] != first:
            self._missed = (first, now)
        if first == finalized or now - self._missed[1] < GAP_PATIENCE:
            raise Absent(
                self._source.name,
                f"block {first}: it does not serve it, and calls block {finalized} finalized",
            )
        last = await gap_end(self._source, first, finalized)
        child = await self._source.block(last + 1, settled=True)
        if child is None:
            raise Absent(
                self._source.name, f"block {last + 1}: it has the header, and does not serve the block"
            )
        logger.warning("%s: blocks %d to %d: no provider serves them", self.named, first, last)
        gap = Gap(first, last, child.proved.parent, "no provider serves these blocks")
        await self._write([child], heads, gap)

    async def _write(self, batch: Sequence[Served], heads: Heads, gap: Gap | None = None) -> None:
        """Append these blocks, `gap` before them, and between them what is carried over."""
        if not batch:
            return
        first, last = batch[0].proved.number, batch[-1].proved.number
        due = await asyncio.to_thread(self._carried.due, last) if self._carried else []
        for part, carried in between(first, batch, due):
            if part:
                await self._write_part(part, heads, gap, carried)
                gap = None
            else:
                await self._append([], None, None, carried=carried)

    async def carry_on(self) -> None:
        """Append all that is to be carried over by now, where the log is level with its chain."""
        if self._carried is None or self._log.known.tip is None:
            return
        for page in pages(await asyncio.to_thread(self._carried.due)):
            await self._append([], None, None, carried=page)
        if self.carry_until is not None and asyncio.get_running_loop().time() > self.carry_until:
            await asyncio.to_thread(self._log.append, [], beside=self._carried.ended())
            self._carried = None

    async def _write_part(
        self, batch: Sequence[Served], heads: Heads, gap: Gap | None, carried: Sequence[Due]
    ) -> None:
        """Append these blocks. Those far below what is called final are final too."""
        found = self._log.known.found
        above = -1 if heads.finalized is None else heads.finalized.number
        unfinal = [served.proved for served in batch if served.proved.number > above]
        contracts = {**self._contracts, **found.contracts()}
        why = NO_REASONS if self._reverts is None else await self._reverts.of(unfinal, contracts)
        new, dead = records(self._contracts, batch, found, why, only_with_events=self._only_with_events)
        tip = new[-1].blocks[-1].ref

        def is_settled(by: BlockRef | None) -> bool:
            return by is not None and by.number - tip.number >= SETTLED_DEPTH

        async def so_far(ref: BlockRef | None) -> BlockRef | None:
            return tip if is_settled(ref) and await self._source.stands(tip) else ref

        safe, finalized = await so_far(heads.safe), await so_far(heads.finalized)
        if is_settled(heads.finalized) and finalized is not tip and self._log.known.full:
            raise Unreachable(
                self._source.name,
                f"block {tip.number}: fewer providers than the anchor needs say that they have it, and as "
                "many blocks are held as may be that are not final",
            )
        before: list[Record] = [gap] if gap is not None else []
        level = tip.number >= heads.latest.number
        await self._append([*before, *new], safe, finalized, dead, carried, level=level)
        self._news_at = asyncio.get_running_loop().time()
        if len(self._log.known.found.kinds) >= MAX_FOUND > len(found.kinds):
            logger.warning(
                "%s: %d contracts are found, and further ones are not followed", self.named, MAX_FOUND
            )
        first, levels = batch[0].proved.number, {block.level for record in new for block in record.blocks}
        named = f"block {first}" if len(batch) == 1 else f"blocks {first} to {tip.number}"
        logger.info("%s: %s %s", self.named, named, " and ".join(sorted(levels)))
        if dead:  # one line, since strangers decide how many there are
            logger.warning(
                "%s: %s: %d could not be read (the first: %s); see `nektar dead`",
                self.named,
                named,
                len(dead),
                dead[0].reason,
            )

    async def _take_back(self, last: int, heads: Heads) -> None:
        """Undo all above number `last`."""
        undone = self._log.known.undo(last)
        for undo in undone:
            newest, oldest = undo.blocks[0].number, undo.blocks[-1].number
            logger.warning("%s: reorg: blocks %d to %d taken back", self.named, oldest, newest)
        await self._append(undone, heads.safe, heads.finalized)

    async def _append(
        self,
        records: Sequence[Record],
        safe: BlockRef | None,
        finalized: BlockRef | None,
        dead: Sequence[Undecodable] = (),
        carried: Sequence[Due] = (),
        *,
        level: bool = False,
    ) -> None:
        """Commit `records`, a mark where safe or finalized changed, and what is carried over to stand after
        them, in one transaction. `level`: with that the log is, as of the last look at the heads."""
        known = self._log.known.fold(records)
        marked = mark(known, safe, finalized)
        if marked is not None:
            found = known.found_at(marked.finalized.number)
            marked = msgspec.structs.replace(marked, contracts=found.written())
        together = [*records, marked] if marked is not None else records
        if together or carried:
            self._appending = True
            try:
                async with self._writing:
                    await asyncio.to_thread(self._commit, together, dead, carried, level)
            finally:
                self._appending = False
            self._health.moved(self.named)
        self._since = time.time_ns()

    def _commit(
        self, records: Sequence[Record], dead: Sequence[Undecodable], carried: Sequence[Due], level: bool
    ) -> None:
        beside = self._carried.so_far(carried) if self._carried else []
        brought = [each.record for each in carried]
        level_at = self._looked_at if level else None
        self._log.append(records, dead, self._since, carried=brought, beside=beside, level_at=level_at)
        if self._carried:
            self._carried.done(carried)

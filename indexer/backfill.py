"""Ranges of blocks: fetched several at once, handed on in order, cut into records of a good size.

Nothing is remembered here. What a backfill has done is what is in the log, and it goes on from there.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence

from indexer.decode import NO_REASONS, Undecodable, tables
from indexer.found import NOTHING, Found
from indexer.prove import level
from indexer.reverts import Reasons
from indexer.source import Served, Source
from nektar.chain.abi import Abi
from nektar.log import PART_BYTES, New
from nektar.model import Address, Block

# Blocks that are held until they are written. More would gain nothing: the bus does thousands of messages a
# second, and a consumer waits for a whole record.
BLOCKS_A_RECORD = 64
# What they may take together, as transactions and logs.
BYTES_HELD = 8 * 1024 * 1024


async def blocks(source: Source, first: int, last: int, *, settled: bool) -> AsyncGenerator[Served, None]:
    """The blocks from `first` to `last` in order, up to the first that there is none of.

    As many are asked for at once as the provider takes. See `Source.block` for `settled` and what it raises.
    """
    numbers = iter(range(first, last + 1))

    def ask(number: int) -> asyncio.Task[Served | None]:
        return asyncio.create_task(source.block(number, settled=settled))

    asked = deque(ask(number) for number in itertools.islice(numbers, source.in_flight))
    try:
        while asked:
            served = await asked[0]
            asked.popleft()
            if served is None:
                return
            if (number := next(numbers, None)) is not None:
                asked.append(ask(number))
            yield served
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def gap_end(source: Source, first: int, served: int) -> int:
    """The last of the blocks that no provider has a header of, from `first` on, below the block `served`.

    Looks at ever larger steps and then between the last two, so that years of expired history (EIP-4444)
    take a few dozen questions. Served blocks between two gaps may be jumped over, and count as absent.
    """
    absent, step = first, 1
    while absent + step < served and not await source.served(absent + step):
        absent, step = absent + step, 2 * step
    present = min(absent + step, served)
    while present - absent > 1:
        middle = (absent + present) // 2
        if await source.served(middle):
            present = middle
        else:
            absent = middle
    return absent


def size(served: Served) -> int:
    """About how many bytes of memory a block takes."""
    return sum(len(tx.raw) + len(tx.input) for tx in served.proved.transactions) + sum(
        len(log.data) + 32 * len(log.topics) for log in served.proved.logs
    )


def records(
    contracts: Mapping[Address, Abi],
    batch: Sequence[Served],
    found: Found = NOTHING,
    reverts: Reasons = NO_REASONS,
    *,
    only_with_events: bool = False,
) -> tuple[list[New], list[Undecodable]]:
    """`batch`, of consecutive blocks, as records whose tables fit one message if a single block's do. `found`
    are the contracts that blocks before it made; the rest is as of `tables`."""
    proved = [served.proved for served in batch]
    encoded, dead = tables(contracts, proved, found, reverts, only_with_events=only_with_events)
    if len(batch) > 1 and sum(map(len, encoded.values())) > PART_BYTES - 1000 * len(batch):
        half = len(batch) // 2
        made = found.made(encoded, [each.hash for each in proved[:half]])
        (left, dead_left), (right, dead_right) = (
            records(contracts, part, known, reverts, only_with_events=only_with_events)
            for part, known in ((batch[:half], found), (batch[half:], found.with_(made)))
        )
        return left + right, dead_left + dead_right
    made = found.made(encoded, [each.hash for each in proved])
    scope = {**contracts, **found.with_(made).contracts()}
    return [New(tuple(block(served, scope) for served in batch), encoded)], dead


def block(served: Served, contracts: Collection[Address]) -> Block:
    """The block as the log carries it; `contracts` are those in scope."""
    proved = served.proved
    return Block(
        number=proved.number,
        hash=proved.hash,
        parent=proved.parent,
        time=proved.time,
        level=level(proved, contracts),
        provider=served.provider,
        anchor=served.anchor.words(served.header_by, proved.number),
    )

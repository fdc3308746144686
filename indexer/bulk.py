"""Bulk reading: the events of any contracts, in a range of blocks, straight into the store's typed tables.

    ranges ──▶ asked for, several at once ──▶ read, in a thread ──▶ gathered ──▶ inserted, in another

A run that was cut off goes on where the store's coverage ends.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from typing import Any, NamedTuple

import msgspec

from indexer import reported
from indexer.decode import Undecodable
from indexer.filled import ROWS_AN_INSERT, Filled, Plan, Read
from indexer.prove import TIME_BITS
from indexer.ranges import Range, Sizes, missing
from indexer.reported import Batch
from nektar.chain.jsonrpc import parse_object, quantity
from nektar.chain.logs import Logs, read
from nektar.chain.rpc import Call, Provider, Refused
from nektar.store.port import Store

# Headers in one request, where logs don't say their block's time.
HEADERS_A_REQUEST = 100


class Progress(NamedTuple):
    """What of the `blocks` that were to be read is in the store."""

    blocks: int
    done: int
    logs: int
    undecoded: int


async def index(
    provider: Provider, store: Store, plan: Plan, progress: Callable[[Progress], None]
) -> Progress:
    """Read what of the plan the store does not have yet; `progress` is told after each insert.

    Raises RpcError, Contradiction, StoreError.
    """
    filled = Filled(store, plan)
    left = missing(plan.blocks, filled.there())
    done = Progress(sum(each.blocks for each in left), 0, 0, 0)
    progress(done)
    with ThreadPoolExecutor(1, "insert") as inserting:

        async def insert(reads: Sequence[Read]) -> None:
            nonlocal done
            await asyncio.get_running_loop().run_in_executor(inserting, filled.add, reads)
            done = Progress(
                done.blocks,
                done.done + sum(read.blocks.blocks for read in reads),
                done.logs + sum(read.logs for read in reads),
                done.undecoded + sum(len(read.lost) for read in reads),
            )
            progress(done)

        gathered: list[Read] = []
        inserted = asyncio.create_task(insert([]))
        try:
            async with aclosing(_reads(provider, plan, left)) as reads:
                async for read in reads:
                    gathered.append(read)
                    if sum(each.logs for each in gathered) >= ROWS_AN_INSERT:
                        await inserted
                        gathered, full = [], gathered
                        inserted = asyncio.create_task(insert(full))
        finally:  # what was read before a fault is kept
            await inserted
            await insert(gathered)
    return done


async def _reads(provider: Provider, plan: Plan, left: Sequence[Range]) -> AsyncGenerator[Read, None]:
    """What the ranges hold, in any order; as many are asked for at once as the provider takes."""
    sizes = Sizes()
    work = list(reversed(left))
    asked: set[asyncio.Task[Read | Range]] = set()
    with ThreadPoolExecutor(1, "read") as reading:
        try:
            while work or asked:
                while work and len(asked) < provider.limits.in_flight:
                    part, rest = work.pop().cut(sizes.next)
                    if rest is not None:
                        work.append(rest)
                    asked.add(asyncio.create_task(_read(provider, plan, part, reading)))
                finished, asked = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                for task in finished:
                    match task.result():
                        case Range() as refused:
                            sizes.refused(refused.blocks)
                            work.append(refused)
                        case read:
                            sizes.held(read.blocks.blocks, read.logs)
                            yield read
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)


async def _read(provider: Provider, plan: Plan, blocks: Range, reading: ThreadPoolExecutor) -> Read | Range:
    """What the blocks hold; or the range itself, where the provider does not serve so much at once."""
    topics = sorted({"0x" + topic.hex() for abi in plan.contracts.values() for topic in abi.topics})
    filter_ = {
        "address": ["0x" + address.hex() for address in plan.contracts],
        "fromBlock": hex(blocks.first),
        "toBlock": hex(blocks.last),
        "topics": [topics],
    }
    body = await provider.body([Call("eth_getLogs", (filter_,))])
    run = asyncio.get_running_loop().run_in_executor
    try:
        logs = await run(reading, _logs, provider.name, body)
    except Refused:
        if blocks.blocks == 1:
            raise
        return blocks
    if numbers := reported.untimed(logs):
        logs = reported.timed(logs, await _times(provider, numbers))
    batches, lost = await run(reading, _batches, logs, plan, blocks)
    return Read(blocks, provider.name, batches, lost, len(logs.number))


class _Answer(msgspec.Struct):
    error: Any = None


def _logs(provider: str, body: bytes) -> Logs:
    with _collecting_later():
        if (logs := read(body)) is not None:
            return logs
        answer = msgspec.json.decode(body, type=_Answer)
        raise Refused(provider, "eth_getLogs", 0, str(answer.error)[:200])


def _batches(logs: Logs, plan: Plan, blocks: Range) -> tuple[list[Batch], list[Undecodable]]:
    with _collecting_later():
        reported.check(logs, plan.contracts, blocks.first, blocks.last)
        return reported.batches(logs, plan.contracts)


@contextmanager
def _collecting_later() -> Iterator[None]:
    """Without the cyclic collector, which would go through a batch's objects again and again, in vain."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def _times(provider: Provider, numbers: Iterable[int]) -> dict[int, int]:
    """When these blocks were made, by their headers."""
    wanted, found = sorted(numbers), {}
    for start in range(0, len(wanted), HEADERS_A_REQUEST):
        part = wanted[start : start + HEADERS_A_REQUEST]
        answers = await provider.batch([Call("eth_getBlockByNumber", (hex(n), False)) for n in part])
        for number, answer in zip(part, answers, strict=True):
            if isinstance(answer, Refused):
                raise answer
            found[number] = quantity(parse_object(answer, "block"), "timestamp", TIME_BITS)
    return found

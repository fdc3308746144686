"""A range of blocks, asked of one provider: as `eth_getLogs` has it, or proved by headers and receipts.

Answers come one after the other, and a reorg may come between two. So what looks like a lie by two of them is
asked for once more in a way that leaves no between, or is `Apart`, and nobody's lie.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from indexer import proved, reported
from indexer.decode import uncollected
from indexer.headers import headers as headers_of
from indexer.links import Ends
from indexer.plan import Plan
from indexer.prove import Apart, Contradiction, hash_of
from indexer.ranges import Range
from indexer.reads import Read
from nektar.chain.jsonrpc import parse_object, quantity
from nektar.chain.logs import NO_LOGS, TIME_BITS, Logs
from nektar.chain.logs import read as read_logs
from nektar.chain.pool import Absent
from nektar.chain.receipts import read as read_receipts
from nektar.chain.rpc import Call, Provider, Refused, joined
from nektar.model import Level

logger = logging.getLogger(__name__)

# Answers with receipts that are read as one: an array costs the same for each step, however long it is, and a
# node takes longer for each log of a larger answer.
ANSWERS_AT_ONCE = 3


async def served(provider: Provider, plan: Plan, blocks: Range) -> Read:
    """What the blocks hold by what this provider says. Raises RpcError, Contradiction, Malformed."""
    ends, hashes = None, b""
    if plan.level is Level.PROVED:
        logs, headers, octets = await _proved(provider, plan, blocks)
        ends = Ends(headers[0].parent, headers[-1].hash)
        hashes = b"".join(each.hash for each in headers)
    else:
        logs, octets = await _reported(provider, plan, blocks)
    return Read(blocks, provider.name, logs, octets, ends, hashes)


async def _reported(provider: Provider, plan: Plan, blocks: Range) -> tuple[Logs, int]:
    """What `eth_getLogs` says, in how many bytes. Raises Refused too."""
    filter_: dict[str, Any] = {
        "address": ["0x" + address.hex() for address in plan.contracts],
        "fromBlock": hex(blocks.first),
        "toBlock": hex(blocks.last),
    }
    if not any(abi.anonymous for abi in plan.contracts.values()):  # which no topic names
        topics = {"0x" + topic.hex() for abi in plan.contracts.values() for topic in abi.topics}
        filter_["topics"] = [sorted(topics)]
    body = await provider.body([Call("eth_getLogs", (filter_,))])
    with uncollected():
        logs = read_logs(body)
    if logs is None:
        raise _refused(provider, "eth_getLogs", body)
    reported.check(logs, plan.contracts, blocks.first, blocks.last)
    if hashes := reported.untimed(logs):  # none but those that were asked for, by now
        logs = reported.timed(logs, await _times(provider, hashes))
    return logs, len(body)


async def _proved(provider: Provider, plan: Plan, blocks: Range) -> tuple[Logs, list[proved.Header], int]:
    """What the blocks' receipts say, each block proved, in about how many bytes. Raises Refused too."""
    numbers = range(blocks.first, blocks.last + 1)
    answers = await provider.batch([Call("eth_getBlockByNumber", (hex(n), True)) for n in numbers])
    for number, answer in zip(numbers, answers, strict=True):
        if isinstance(answer, Refused):
            raise answer
        if answer is None:
            raise Absent(provider.name, f"block {number}: it has none")
    with uncollected():
        headers = [proved.header(answer, number) for answer, number in zip(answers, numbers, strict=True)]
        proved.check_links(headers)
    holding = [each for each in headers if each.transactions and proved.may_hold(each, plan.contracts)]
    logs, octets = NO_LOGS, 0
    if holding:
        try:
            logs, octets = await _proved_logs(provider, holding, [hex(each.number) for each in holding])
        except Contradiction as error:
            # A reorg between the two answers looks like this; asked by their hashes there is no between.
            logger.info("provider %s: %s; asking by hashes", provider.name, error)
            hashes = ["0x" + each.hash.hex() for each in holding]
            logs, octets = await _proved_logs(provider, holding, hashes)
        logs = proved.wanted(logs, plan.contracts)
    return logs, headers, octets + sum(each.text for each in headers)


async def _proved_logs(
    provider: Provider, blocks: Sequence[proved.Header], asked: Sequence[str]
) -> tuple[Logs, int]:
    """All logs of the blocks, `asked` for by these names, in how many bytes. Raises Refused too."""
    calls = [Call("eth_getBlockReceipts", (each,)) for each in asked]
    part = -(-len(calls) // ANSWERS_AT_ONCE)
    body = joined([await provider.body(calls[at : at + part]) for at in range(0, len(calls), part)])
    with uncollected():
        receipts = read_receipts(body)
        if receipts is None:
            raise _refused(provider, "eth_getBlockReceipts", body)
        return proved.logs(blocks, receipts), len(body)


class _Answer(msgspec.Struct):
    error: Any = None


def _refused(provider: Provider, method: str, body: bytes) -> Refused:
    """Why there is no result in an answer. Raises Contradiction where it is none at all."""
    try:
        answer = msgspec.json.decode(body, type=_Answer | list[_Answer])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Contradiction(f"provider {provider.name}: {method}: expected an answer; {error}") from None
    errors = [each.error for each in (answer if isinstance(answer, list) else [answer]) if each.error]
    return Refused(provider.name, method, 0, str(errors[0] if errors else "no result")[:200])


async def _times(provider: Provider, hashes: Mapping[int, bytes]) -> dict[int, int]:
    """When these blocks were made, by their headers; each is the block that its logs name."""
    found = {}
    async for number, answer in headers_of(provider, sorted(hashes)):
        if answer is None:
            raise Absent(provider.name, f"block {number}: it has none")
        header = parse_object(answer, "block")
        if hash_of(header, number) != hashes[number]:
            raise Apart(
                f"block {number}: expected the header of 0x{hashes[number].hex()}, as its logs name it"
            )
        found[number] = quantity(header, "timestamp", TIME_BITS)
    return found

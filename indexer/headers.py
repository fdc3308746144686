"""Headers of blocks, without their transactions, as providers serve them: each hashes to what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from indexer.prove import Contradiction, contradiction, hash_of
from nektar.chain.jsonrpc import Malformed, octets, quantity
from nektar.chain.logs import NUMBER_BITS
from nektar.chain.rpc import Call, Provider, Refused, Unreachable
from nektar.model import BlockRef, Hash32

# Headers in one request: some 100 KB.
HEADERS_A_REQUEST = 100


class Link(NamedTuple):
    """A block's place in its chain, from a header that hashes to `hash`."""

    number: int
    hash: Hash32
    parent: Hash32

    @property
    def ref(self) -> BlockRef:
        return BlockRef(self.number, self.hash)


class Heads(NamedTuple):
    """Where a provider says that the chain stands. None: it says so of no block, or not yet."""

    latest: Link
    safe: BlockRef | None
    finalized: BlockRef | None
    provider: str = ""


async def headers(provider: Provider, numbers: Sequence[int]) -> AsyncIterator[tuple[int, object]]:
    """Each number and what is said to be its block; None: there is none. Raises RpcError, Refused too."""
    for start in range(0, len(numbers), HEADERS_A_REQUEST):
        part = numbers[start : start + HEADERS_A_REQUEST]
        answers = await provider.batch([Call("eth_getBlockByNumber", (hex(n), False)) for n in part])
        for number, answer in zip(part, answers, strict=True):
            if isinstance(answer, Refused):
                raise answer
            yield number, answer


async def links_of(provider: Provider, first: int, last: int) -> dict[int, Link | None]:
    """What this provider has at these numbers, asked for at once; None where it has no block, or refuses.

    Raises RpcError, Contradiction.
    """
    starts = range(first, last + 1, HEADERS_A_REQUEST)
    parts = [range(start, min(start + HEADERS_A_REQUEST, last + 1)) for start in starts]
    calls = ([Call("eth_getBlockByNumber", (hex(n), False)) for n in part] for part in parts)
    found: dict[int, Link | None] = {}
    for part, answers in zip(parts, await asyncio.gather(*map(provider.batch, calls)), strict=True):
        with named(provider):
            for number, answer in zip(part, answers, strict=True):
                found[number] = None if is_missing(answer) else _link(answer, number)
    return found


async def heads_of(provider: Provider) -> Heads:
    """Where the provider itself says that the chain stands. Raises RpcError, Contradiction."""
    latest, safe, finalized = await provider.batch(
        [Call("eth_getBlockByNumber", (tag, False)) for tag in ("latest", "safe", "finalized")]
    )
    if is_missing(latest):
        raise Unreachable(provider.name, f"expected its latest block; got {latest or 'none'}")
    with named(provider):
        return Heads(
            _link(latest),
            None if is_missing(safe) else _link(safe).ref,
            None if is_missing(finalized) else _link(finalized).ref,
            provider.name,
        )


def is_missing(answer: Any) -> bool:
    return answer is None or isinstance(answer, Refused)


def mapping(answer: Any) -> Mapping[str, Any]:
    """The block that is answered. Raises Contradiction."""
    if isinstance(answer, Mapping):
        return answer
    raise Contradiction(f"expected a block; got {str(answer)[:60]!r}")


@contextmanager
def named(provider: Provider) -> Iterator[None]:
    """Whatever contradicts itself within is said to come from this provider."""
    try:
        yield
    except (Contradiction, Malformed) as error:
        raise contradiction(f"provider {provider.name}", error) from error


def _link(answer: Any, number: int | None = None) -> Link:
    """A header's link. Raises Contradiction, Malformed."""
    header = mapping(answer)
    hash_ = hash_of(header, number)
    return Link(quantity(header, "number", NUMBER_BITS), hash_, Hash32(octets(header, "parentHash", 32)))

"""Stretches that the store calls proved, and that are not of the chain (any more): a reorg came after they
were read, or who served them was on a fork. Proofs can't tell: such blocks fit together, and to nothing else.

A stretch is linked, so its last block's hash tells of all of it, and of those that it goes on from. Where
most of the providers that have that block say another, the stretch is taken back: its coverage goes, then its
rows, and it is read anew. A death in between leaves rows that no coverage names, as any other does: they go
before their blocks are read again.

A line says who served it, and by whom it is another. Nobody is named in `dissent` for it: that one of them
lied can't be told from a reorg, nor which. Who serves a header that contradicts itself is, and says nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from indexer.dissents import Dissents
from indexer.headers import headers
from indexer.links import Covered
from indexer.plan import Plan
from indexer.prove import Contradiction, contradiction, hash_of
from indexer.ranges import Range
from nektar.chain.jsonrpc import Malformed, parse_object
from nektar.chain.pool import Pool
from nektar.chain.rpc import Provider, RpcError
from nektar.model import Hash32

logger = logging.getLogger(__name__)


async def orphans(pool: Pool, plan: Plan, proved: Sequence[Covered], dissents: Dissents) -> list[Range]:
    """Those of the stretches that the store calls proved at which the plan's own blocks come, and that are to
    be taken back.

    Raises RpcError or Contradiction where no provider says which blocks are there.
    """
    near = Range(plan.blocks.first - 1, plan.blocks.last + 1)
    stretches = [each for each in proved if each.blocks.first <= near.last and each.blocks.last >= near.first]
    if not stretches:
        return []
    said = await _said_of(pool, _chains(stretches), dissents)
    found = []
    for each in stretches:
        number = each.blocks.last
        hashes = {name: of[number] for name, of in said.items() if number in of}
        like = [name for name, hash_ in hashes.items() if hash_ == each.ends.hash]
        unlike = [name for name, hash_ in hashes.items() if hash_ not in (None, each.ends.hash)]
        is_orphan = len(unlike) > len(like)
        if is_orphan:
            logger.warning(
                "%s: blocks %d to %d are taken back: %s served them as proved, and by %s block %d is another",
                plan.name,
                *each.blocks,
                each.provider,
                ", ".join(unlike),
                number,
            )
            found.append(each.blocks)
        few, most = (like, unlike) if is_orphan else (unlike, like)
        for name in few if most else []:
            logger.warning(
                "provider %s: its block %d is not that of %s: one is on a fork", name, number, ", ".join(most)
            )
            pool.turn_from(name)
    return found


def _chains(stretches: Sequence[Covered]) -> list[list[Covered]]:
    """The stretches, those together of which each goes on from the one before it."""
    found: list[list[Covered]] = []
    for each in sorted(stretches):
        before = found[-1][-1] if found else None
        if (each.blocks.first, each.ends.parent) == (before and (before.blocks.last + 1, before.ends.hash)):
            found[-1].append(each)
        else:
            found.append([each])
    return found


async def _said_of(
    pool: Pool, chains: Sequence[Sequence[Covered]], dissents: Dissents
) -> Mapping[str, Mapping[int, Hash32 | None]]:
    """By provider, what it says of the last block of each chain, since that tells of all blocks before it;
    and of each of its stretches' where not all that have it say the stored hash. Raises as `_said` does."""
    said = await _said(pool, [chain[-1].blocks.last for chain in chains], dissents)
    doubtful = [
        each.blocks.last
        for chain in chains
        for each in chain[:-1]
        if {of[chain[-1].blocks.last] for of in said.values()} - {None} != {chain[-1].ends.hash}
    ]
    more = await _said(pool, doubtful, dissents) if doubtful else {}
    return {name: {**of, **more.get(name, {})} for name, of in said.items()}


async def _said(
    pool: Pool, numbers: Sequence[int], dissents: Dissents
) -> Mapping[str, Mapping[int, Hash32 | None]]:
    """By provider, the hashes of these blocks; None of one that it does not have. Raises RpcError,
    Contradiction where none says anything."""
    found = await asyncio.gather(*(_hashes(each, numbers) for each in pool.providers), return_exceptions=True)
    said = {}
    for provider, hashes in zip(pool.providers, found, strict=True):
        match hashes:
            case Contradiction():
                logger.warning("%s", hashes)
                pool.contradicted(provider.name)
                dissents.contradiction(provider.name, numbers[0], hashes)
            case RpcError():
                logger.warning("%s", hashes)
            case BaseException():
                raise hashes
            case _:
                said[provider.name] = hashes
    if not said:
        raise next(each for each in found if isinstance(each, BaseException))
    return said


async def _hashes(provider: Provider, numbers: Sequence[int]) -> dict[int, Hash32 | None]:
    """Raises RpcError, Contradiction."""
    try:
        return {
            number: None if header is None else hash_of(parse_object(header, "block"), number)
            async for number, header in headers(provider, numbers)
        }
    except (Contradiction, Malformed) as error:
        raise contradiction(f"provider {provider.name}", error) from error

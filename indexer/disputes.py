"""Where providers don't agree on a chain: who is named for it, and who is asked next.

Whoever is named in `dissent` has said what can't be, whatever the others are. So a provider is held to what
it calls final itself alone, or to what m of n do where they are the anchor: then it is asked once more, and
held to what it has below its own final block, since one that lags behind a reorg knows no better. It is named
for

* two blocks of its own that can't be parent and child, below that one;
* another block in the place of that, or of one that it called so while the log had it as final;
* a block that is no ancestor of that, which shows when the log has come to it over others' blocks.

Where it is one's word against another's, nobody is named. Whoever spoke first is asked last from then on, so
that the other one has to tell it all, and is held to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from indexer.dissents import NOT_FINAL
from indexer.headers import Heads, Link
from indexer.known import Known
from indexer.prove import Contradiction
from indexer.reconcile import ReorgBelowFinality
from indexer.source import Served, Source
from nektar.model import BlockRef

# Blocks that are remembered, the newest ones; each is forgotten where the log comes to what is called final.
MOST = 16


@dataclass
class _Block:
    """A block that did not fit to another's, and what its provider calls final above it."""

    provider: str
    ref: BlockRef
    finalized: BlockRef
    is_another: bool = False  # than the log's


class Disputes:
    """Those of a Network's providers."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._blocks: list[_Block] = []
        self._final: dict[str, BlockRef] = {}  # by provider, the log's final block that it called so itself

    async def hear(self, heads: Heads, known: Known) -> None:
        """Raises Contradiction where their provider itself has another block in the place of what it calls
        final, RpcError. It is asked for that only where the log has another there."""
        final = heads.finalized
        if final is None or self._source.has_quorum or known.hash_at(final.number) in (None, final.hash):
            return
        own = await self._source.hash_by(heads.provider, final.number)
        if own not in (None, final.hash) and self._source.is_bound(heads.provider, heads):
            raise self._named(heads.provider, BlockRef(final.number, own), _called_final(final))

    def level(self, heads: Heads, base: BlockRef | None) -> None:
        """A look has come to its end, and `base` is the log's final block."""
        if base is not None and heads.finalized == base and self._source.is_bound(heads.provider, heads):
            self._final[heads.provider] = base

    async def passed(self, link: Link) -> None:
        """This is the chain's next block, on those that passed before."""
        for each in self._blocks:
            if each.ref.number == link.number:
                each.is_another = each.ref.hash != link.hash
            if (
                each.is_another
                and each.finalized == link.ref
                and await self._is_sure(each.provider, each.ref)
            ):
                self._named(
                    each.provider, each.ref, f"{_called_final(link.ref)}, and does not descend from it"
                )
        self._blocks = [each for each in self._blocks if each.finalized.number > link.number]

    async def apart(self, before: Served, served: Served, heads: Heads) -> Contradiction:
        """`served` is no child of the block `before` it, and both are to be below what is called final."""
        first, second = before.header_by, served.header_by
        why = f"it is no child of 0x{before.proved.hash.hex()}"
        is_own = first == second and self._source.is_bound(second, heads)
        if is_own and await self._is_sure(second, before.proved.ref, served.proved.ref):
            return self._named(second, served.proved.ref, why)
        for each in (before, served):
            if heads.finalized is not None and self._source.is_bound(each.header_by, heads):
                self._blocks.append(_Block(each.header_by, each.proved.ref, heads.finalized))
        del self._blocks[:-MOST]
        self._source.turn_from(heads.provider if first == second and not is_own else first)
        return _said(second, served.proved.ref, f"{why}, of provider {first}")

    async def not_final(self, served: Served, heads: Heads, finalized: BlockRef) -> Contradiction:
        """`served` stands where these heads have another block as `finalized`."""
        why, provider = _called_final(finalized), served.header_by
        is_own = self._source.is_bound(provider, heads)
        if is_own and await self._is_sure(provider, served.proved.ref):
            return self._named(provider, served.proved.ref, why)
        self._source.turn_from(provider if is_own else heads.provider)
        by = "m of n providers" if self._source.has_quorum else f"provider {heads.provider}"
        return _said(provider, served.proved.ref, f"{why} by {by}")

    async def below_finality(self, provider: str, error: ReorgBelowFinality, heads: Heads) -> None:
        """This provider has shown another block than the log's final one."""
        if self._source.has_quorum:
            is_others = error.said == heads.finalized  # it is m of n who say another now
            is_broken = not is_others and await self._is_sure(provider, error.said)
        else:
            is_broken = self._final.get(provider) == error.known
        if is_broken:
            self._source.dissents.add(provider, NOT_FINAL, error.said.number, str(error), error.said.hash)
        self._source.turn_from(provider)

    async def _is_sure(self, provider: str, *blocks: BlockRef) -> bool:
        """Whether no reorg that this provider lags behind explains that it said so."""
        return not self._source.has_quorum or await self._source.calls_final(provider, blocks)

    def _named(self, provider: str, ref: BlockRef, why: str) -> Contradiction:
        error = _said(provider, ref, why)
        self._source.contradicted(provider, ref.number, error)
        return error


def _said(provider: str, ref: BlockRef, why: str) -> Contradiction:
    return Contradiction(f"provider {provider}: block {ref.number} 0x{ref.hash.hex()}: {why}")


def _called_final(ref: BlockRef) -> str:
    return f"0x{ref.hash.hex()} is called finalized"

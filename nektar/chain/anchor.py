"""What makes headers canonical. Roots and links prove that blocks belong together, and no more.

`networks[].anchor` in `nektar.yaml` is one of

| | finality rests on | a block's anchor |
|---|---|---|
| `single` | the word of the provider that was asked | `single:<provider>` |
| `quorum M/N`, `quorum M` | M of the N providers in `rpc` having that block as a final one | `quorum M/N` |
| `pinned NUMBER HASH` | being that block or an ancestor of it | `pinned`; above it as with `single` |

With a quorum, M is more than half of N: two halves could agree on two chains. What a pinned block's ancestors
are, its header and theirs say, so no other block up to NUMBER is taken (`indexer/pin.py`).

This file is pure: what the words mean, and what follows from what each provider says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from nektar.model import BlockRef, Hash32

EXPECTED = "expected `single`, `quorum M`, `quorum M/N` or `pinned NUMBER HASH`"

_QUORUM = re.compile(r"quorum ([1-9]\d{0,3})(?:/([1-9]\d{0,3}))?")
_PINNED = re.compile(r"pinned (0|[1-9]\d{0,17}) 0x([0-9a-fA-F]{64})")


class BadAnchor(ValueError):
    """The text is no anchor: what was expected."""


class Single(NamedTuple):
    """The provider that served a block."""

    @property
    def enough(self) -> int:
        """How many providers have to call a block final before it is."""
        return 1

    def words(self, provider: str, number: int) -> str:
        """The anchor of the block at `number`, as records carry it."""
        return f"single:{provider}"


class Quorum(NamedTuple):
    """`m` of `n` providers."""

    m: int
    n: int

    @property
    def enough(self) -> int:
        return self.m

    def words(self, provider: str, number: int) -> str:
        return f"quorum {self.m}/{self.n}"


class Pinned(NamedTuple):
    """This block and its ancestors."""

    block: BlockRef

    @property
    def enough(self) -> int:
        return 1

    def words(self, provider: str, number: int) -> str:
        return "pinned" if number <= self.block.number else Single().words(provider, number)


Anchor = Single | Quorum | Pinned


def parse(text: str, providers: int) -> Anchor:
    """The anchor of a Network with so many providers. Raises BadAnchor."""
    if text == "single":
        return Single()
    if match := _QUORUM.fullmatch(text):
        m, n = int(match[1]), int(match[2] or providers)
        if n != providers:
            raise BadAnchor(f"expected {providers} after the `/`, since rpc names so many; got {n}")
        if not n < 2 * m <= 2 * n:
            raise BadAnchor(f"expected more than half of the {n} providers in rpc, and no more; got {m}")
        return Quorum(m, n)
    if match := _PINNED.fullmatch(text):
        return Pinned(BlockRef(int(match[1]), Hash32(bytes.fromhex(match[2]))))
    raise BadAnchor(f"{EXPECTED}; got {text!r}")


def candidates(m: int, claimed: Mapping[str, int]) -> list[int]:
    """Numbers on which `m` providers may agree, highest first; `claimed` is what number each calls final."""
    numbers = sorted(claimed.values(), reverse=True)
    return list(dict.fromkeys(numbers[m - 1 :]))


def agreed(m: int, hashes: Mapping[str, Hash32]) -> Hash32 | None:
    """The hash that `m` providers have; `m` is more than half of all, so that there is one at most."""
    found = list(hashes.values())
    return next((hash_ for hash_ in found if found.count(hash_) >= m), None)

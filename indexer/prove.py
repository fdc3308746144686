"""Whether what a provider says of a block follows from the block's own header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from nektar.chain.transaction import Transaction
from nektar.errors import NektarError
from nektar.model import Address, Hash32, Level


class Contradiction(NektarError):
    """What a provider served can't be this block: ask another one. The message names what differed."""


class Log(msgspec.Struct, frozen=True):
    """One log, at the position that the receipts give it."""

    address: Address
    topics: tuple[Hash32, ...]
    data: bytes
    tx_index: int
    tx_hash: Hash32
    log_index: int  # in the block


class Proved(msgspec.Struct, frozen=True):
    """A block that holds together: its header hashes to `hash`, and all else follows from the header.

    At level `linked` the receipts were withheld: `statuses` are None, and `logs` are those offered that the
    header's bloom admits; what is not among them may have happened all the same.
    """

    number: int
    hash: Hash32
    parent: Hash32
    time: int  # seconds since 1970 UTC
    level: Level  # proved or linked
    transactions: tuple[Transaction, ...]
    statuses: tuple[bool | None, ...]  # one a transaction; None: not known (withheld, or before Byzantium)
    logs: tuple[Log, ...]  # all of the block, in order


def prove(
    block: Mapping[str, Any],
    receipts: Sequence[Mapping[str, Any]] | None,
    *,
    logs: Sequence[Mapping[str, Any]] = (),
) -> Proved:
    """The block that `eth_getBlockByNumber(…, true)` and `eth_getBlockReceipts` answered with, recomputed.

    `receipts` None says that no provider serves them; then `logs` are what `eth_getLogs` said of this block,
    and the level is `linked`. Whether the block is the one that was asked for (number, hash, parent) is for
    the caller to compare. Raises Contradiction for anything that is not a consistent block.
    """
    raise NotImplementedError

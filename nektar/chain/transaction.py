"""A transaction: as the root covers it, its hash, and who signed it."""

from __future__ import annotations

import msgspec

from nektar.model import Address, Hash32


class Transaction(msgspec.Struct, frozen=True):
    """What a transaction says, all of it covered by `transactionsRoot`."""

    hash: Hash32
    type: int
    to: Address | None  # None: it creates a contract
    value: int
    input: bytes
    raw: bytes  # EIP-2718 envelope: what the trie holds

"""Claims: what a stranger is shown, each checkable by itself, with nothing believed of who shows it."""

from __future__ import annotations

import msgspec

from nektar.model import G1, G2, Address, Hash32


class SignatureClaim(msgspec.Struct, frozen=True, tag="signature"):
    """An Operator signed this response to this Task.

    The key is the Operator's in the set that the Task committed to: `members` and `task` are the preimages of
    the set's hash and of the taskHash, and `index` is the Operator's place. `key_g2` is the same key in G2.
    """

    chain_id: int
    contract: Address  # the TaskManager: part of what was signed
    task: bytes  # preimage of the taskHash
    members: bytes  # preimage of the set hash that the task names
    index: int
    key_g2: G2
    response: bytes  # preimage of the response digest
    signature: G1


Claim = SignatureClaim


class Verified(msgspec.Struct, frozen=True):
    """What a checked SignatureClaim establishes."""

    chain_id: int
    contract: Address
    task_hash: Hash32
    operator: Address
    digest: Hash32

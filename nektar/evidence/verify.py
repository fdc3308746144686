"""Checks claims offline: preimages against hashes, membership, and the signature itself."""

from __future__ import annotations

from nektar.chain.keccak import keccak
from nektar.errors import NektarError
from nektar.evidence import bls
from nektar.evidence.bundle import Claim, Verified
from nektar.model import Hash32
from nektar.networks.encoding import operator_set, set_hash_of


class NotProved(NektarError):
    """A claim does not establish what it says; the message names the first thing that is wrong."""


def verify(claim: Claim) -> Verified:
    """What the claim establishes. Raises NotProved (or BadEncoding, for preimages no contract has hashed)."""
    if len(claim.contract) != 20 or not 0 <= claim.chain_id < 1 << 256:
        raise NotProved(
            f"domain: expected a chain id of uint256 and a contract of 20 bytes; got {claim.chain_id} and "
            f"{len(claim.contract)} bytes"
        )
    members = operator_set(claim.members)
    if members.hash != set_hash_of(claim.task):
        raise NotProved("membership: the task committed to another operator set")
    if not 0 <= claim.index < len(members.members):
        raise NotProved(f"membership: the set has {len(members.members)} members; got index {claim.index}")
    member = members.members[claim.index]
    if not bls.keys_match(member.key, claim.key_g2):
        raise NotProved("key: the key in G2 is not the member's")
    task_hash, digest = Hash32(keccak(claim.task)), Hash32(keccak(claim.response))
    signed = bls.signing_digest(claim.chain_id, claim.contract, task_hash, digest)
    if not bls.verify(claim.key_g2, signed, claim.signature):
        raise NotProved("signature: it is not the member's over this response to this task")
    return Verified(claim.chain_id, claim.contract, task_hash, member.operator, digest)

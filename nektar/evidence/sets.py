"""OperatorSets that evidence shows whole, from any provider: what comes is it or not, by its own hash."""

from __future__ import annotations

from collections import OrderedDict

from nektar.chain.jsonrpc import octets, parse_objects
from nektar.chain.keccak import keccak
from nektar.chain.pool import Absent
from nektar.chain.rpc import Provider
from nektar.evidence.canonical import Octets
from nektar.evidence.sought import SetSought
from nektar.networks.shown import SET_COMMITTED, set_of

# The findings of one incident name the same few sets. A thousand Operators' has 128 kB.
KEPT_BYTES = 32 * 1024 * 1024


class Sets:
    """Those that were fetched last are kept."""

    def __init__(self, keep_bytes: int = KEPT_BYTES) -> None:
        self._room = keep_bytes
        self._known: OrderedDict[Octets, Octets] = OrderedDict()

    async def of(self, provider: Provider, sought: SetSought) -> Octets:
        """The preimage of the set's hash. Raises Absent where the provider does not have it, Malformed,
        RpcError."""
        if sought.hash not in self._known:
            self._keep(sought.hash, await _fetched(provider, sought))
        self._known.move_to_end(sought.hash)
        return self._known[sought.hash]

    def _keep(self, set_hash: Octets, preimage: Octets) -> None:
        self._known[set_hash] = preimage
        self._room -= len(preimage)
        while self._room < 0 and len(self._known) > 1:
            _, oldest = self._known.popitem(last=False)
            self._room += len(oldest)


async def _fetched(provider: Provider, sought: SetSought) -> Octets:
    """Whoever logged it, and on whichever fork."""
    block = hex(sought.block)
    topics = ["0x" + SET_COMMITTED.hex(), "0x" + sought.hash.hex()]
    answer = await provider.call("eth_getLogs", {"fromBlock": block, "toBlock": block, "topics": topics})
    for log in parse_objects(answer, "logs"):
        preimage = Octets(set_of(octets(log, "data")))
        if keccak(preimage) == sought.hash:
            return preimage
    raise Absent(provider.name, f"its block {sought.block} commits no set 0x{sought.hash.hex()}")

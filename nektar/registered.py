"""What key each Operator has now, for whoever has to know it at once: one small message an Operator.

The fold `operators` says so where that changes, by an undo too, under `registered/NETWORK/GENERATION/ADDRESS`
of `nektar.checkpoints`, of which the newest message stays. An empty one: no key speaks for the Operator, who
is not registered, or no more.
"""

from __future__ import annotations

from nektar.bus.port import Bus, Message, partition_of
from nektar.log import CHECKPOINTS
from nektar.model import G1, Address
from nektar.rows import Change, OperatorRow, Row


def messages(network: str, generation: int, change: Change) -> list[Message]:
    """What the change of an OperatorRow says; nothing, where the key is the same as before."""
    before, after = _key(change.before), _key(change.after)
    row = change.after or change.before
    if before == after or not isinstance(row, OperatorRow):
        return []
    return [Message(CHECKPOINTS, _name(network, generation, row.operator), after)]


def key_of(bus: Bus, network: str, generation: int, operator: Address) -> G1 | None:
    """The key that speaks for the Operator, as it was last said; None: none does. Raises BusError."""
    partition = partition_of(network, bus.partitions)
    found = bus.last(CHECKPOINTS, partition, _name(network, generation, operator))
    return G1(found.value) if found and found.value else None


def _key(row: Row | None) -> bytes:
    return row.bls_key if isinstance(row, OperatorRow) and not row.deregistered_block else b""


def _name(network: str, generation: int, operator: bytes) -> bytes:
    return f"registered/{network}/{generation}/0x{operator.hex()}".encode()

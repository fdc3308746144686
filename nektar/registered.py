"""What key each Operator has now, for whoever has to know it at once: one small message an Operator.

The fold `operators` says so with each change of a row, an undone one included, under
`registered/NETWORK/GENERATION/ADDRESS` of `nektar.checkpoints`, of which the newest message stays.
"""

from __future__ import annotations

import msgspec

from nektar.bus.port import Bus, Message, partition_of
from nektar.log import CHECKPOINTS
from nektar.model import G1, Address
from nektar.rows import Change, OperatorRow, Row


class Registered(msgspec.Struct, frozen=True, array_like=True):
    """An Operator as the registry knows it now."""

    key: bytes  # BN254 G1, 64 bytes
    deregistered: int  # first block without duties for new Tasks; 0: it is registered


def messages(network: str, generation: int, change: Change) -> list[Message]:
    """What the change of an OperatorRow says; nothing, where that is the same as before."""
    before, after = _said(change.before), _said(change.after)
    row = change.after or change.before
    if before == after or not isinstance(row, OperatorRow):
        return []
    return [Message(CHECKPOINTS, _name(network, generation, row.operator), after)]


def read(bus: Bus, network: str, generation: int, address: Address) -> Registered | None:
    """The Operator as it was last said to be; None where the registry does not know it. Raises BusError."""
    partition = partition_of(network, bus.partitions)
    found = bus.last(CHECKPOINTS, partition, _name(network, generation, address))
    if found is None or not found.value:
        return None
    return msgspec.json.decode(found.value, type=Registered)


def key_of(registered: Registered | None) -> G1 | None:
    """The key that speaks for the Operator; None where it is not registered, or no more."""
    if registered is None or registered.deregistered:
        return None
    return G1(registered.key)


def _said(row: Row | None) -> bytes:
    """Empty: the registry does not know the Operator."""
    if not isinstance(row, OperatorRow):
        return b""
    return _encoder.encode(Registered(row.bls_key, row.deregistered_block))


def _name(network: str, generation: int, address: bytes) -> bytes:
    return f"registered/{network}/{generation}/0x{address.hex()}".encode()


_encoder = msgspec.json.Encoder()

"""Senders of telemetry that tests know: agents that a configuration names, and Operators that a fold does."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from nektar import registered
from nektar.bus.port import Bus, Message, partition_of
from nektar.config import Agent, NetworkConfig
from nektar.evidence import bls
from nektar.evidence.canonical import Octets
from nektar.rows import Change, OperatorRow
from nektar.tokens import Claims, Role, mint
from tests.indexer.test_heard import HOME

AUDIENCE = "here"
ALICE, BOB = "0x" + "a1" * 20, "0x" + "b0" * 20
SECRETS = {ALICE: 11, BOB: 12, "operator-1": 13, "aggregator": 14}
ROLES = {ALICE: Role.OPERATOR, BOB: Role.OPERATOR, "operator-1": Role.OBSERVER, "aggregator": Role.AGGREGATOR}
AGENTS = {
    name: Agent(role.value, "0x" + bls.public_keys(SECRETS[name])[0].hex())
    for name, role in ROLES.items()
    if role in (Role.OBSERVER, Role.AGGREGATOR)
}


def token(of: str = ALICE, secret: int | None = None, /, **other: Any) -> str:
    """A sender's, for HOME and an hour; with another secret than its own, or saying something else."""
    secret = secret or SECRETS[of]
    expires, twin = int(time.time()) + 3600, Octets(bls.public_keys(secret)[1])
    claims = Claims(HOME.name, HOME.chain_id, AUDIENCE, ROLES[of], of, expires, twin)
    return mint(secret, msgspec.structs.replace(claims, **other))


# One of each agent.
TOKENS = {name: token(name) for name in AGENTS}


def say(bus: Bus, *said: Message, network: NetworkConfig = HOME) -> None:
    """As the fold `operators` does of the Network's log."""
    with bus.writer("processors.operators", partition_of(network.name, bus.partitions)) as writer:
        writer.transaction(said)


def has_key(
    operator: str, secret: int | None, deregistered: int = 0, network: NetworkConfig = HOME
) -> Message:
    """That the Operator has a key now, or none."""
    address, row = bytes.fromhex(operator[2:]), None
    if secret:
        row = OperatorRow(address, bls.public_keys(secret)[0], "eu", 1, 0, True, 1, deregistered)
    other = OperatorRow(address, bytes(64), "eu", 1, 0, True, 1, 0)
    (message,) = registered.messages(network.name, network.generation, Change(other, row))
    return message


def as_of(seconds_ago: float = 0.0, network: NetworkConfig = HOME) -> Message:
    """That all keys of the log are said, up to a block of so long ago."""
    return registered.as_of(network.name, network.generation, int(time.time() - seconds_ago))

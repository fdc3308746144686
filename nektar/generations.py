"""Which generation of a Network's log stands, and which one is catching up with it.

A log is of one filter: what decides its content, and what it means. Another filter begins another log beside
it, the next generation, which reads the chain from its first block on. Until that one has caught up the older
one **stands**: its results are shown and told. Then the newer one takes its place, in one step.

What stands and what comes next is one small message a Network on the bus, under `generations/NETWORK` of
`nektar.checkpoints`, which the indexer alone writes and every role reads. It holds the filters whole: so a
log is followed, and folded, by what it was begun with, whatever `nektar.yaml` says by now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from nektar.bus.port import Bus, Message, partition_of
from nektar.config import Factory, NetworkConfig
from nektar.log import CHECKPOINTS, BrokenLog
from nektar.networks.adapter import Adapter, kind

# For how many seconds a role goes by what it read last.
FRESH_SECONDS = 1.0


class Filter(msgspec.Struct, frozen=True):
    """What decides the content of a log, and what it means. `abis` are by kind of contract."""

    abis: dict[str, Any]
    adapter: str
    calls: str
    chain_id: int
    contracts: dict[str, str]
    from_block: int
    factories: dict[str, Factory] = {}
    selector: dict[str, str] = {}
    terms: dict[str, int] = {}


class Generation(msgspec.Struct, frozen=True):
    """A log. `filter` is a `Filter` as it is written; empty where only its hash is known, as an earlier
    version left it. `begins`: nothing of it, or said because of it, lies below these offsets, by stream."""

    number: int
    hash: bytes
    filter: bytes = b""
    begins: dict[str, int] = {}


class Generations(msgspec.Struct, frozen=True):
    """A Network's logs. `before` stood before `standing`; `newest` is the highest number ever begun."""

    standing: Generation
    next: Generation | None = None
    before: int = 0
    newest: int = 0


# --- pure -------------------------------------------------------------------------------------------


def filter_of(network: NetworkConfig, abis: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """The filter that the configuration asks for, as it is hashed. `abis` are the adapter's; those of
    configured and found contracts count. How fast and by whom the chain is served is no part of it."""
    kinds = [*map(kind, network.contracts), *map(kind, network.factories)]
    content: dict[str, Any] = {
        "abis": {name: abis[name] for name in kinds},
        "adapter": network.adapter,
        "calls": network.calls,
        "chain_id": network.chain_id,
        "contracts": {contract: address.lower() for contract, address in network.contracts.items()},
        "from_block": network.from_block,
    }
    content |= {name: told for name in ("factories", "selector", "terms") if (told := getattr(network, name))}
    return msgspec.json.encode(content, order="deterministic")


def generation(number: int, filter_: bytes) -> Generation:
    return Generation(number, hashlib.sha256(filter_).digest(), filter_)


def wanted(said: Generations | None, filter_: bytes, at_least: int) -> Generations:
    """What is to be followed when the configuration asks for this filter, and a number of `at_least`.

    The log that has this filter goes on: also the one that stands, when a change is taken back before the
    next one has caught up. Where none has it a new one begins; and where the number is raised by hand, one
    begins whatever the filter.
    """
    new = generation(at_least, filter_)
    if said is None:
        return Generations(new, newest=at_least)
    if at_least <= said.newest:
        if said.next is not None and said.next.hash == new.hash and said.next.number >= at_least:
            return said
        if said.standing.hash == new.hash and said.standing.number >= at_least:
            return msgspec.structs.replace(
                said, standing=msgspec.structs.replace(said.standing, filter=filter_), next=None
            )
        new = generation(said.newest + 1, filter_)
    return msgspec.structs.replace(said, next=new, newest=new.number)


def handed_over(said: Generations) -> Generations:
    """The next one stands."""
    if said.next is None:
        return said
    return msgspec.structs.replace(said, standing=said.next, next=None, before=said.standing.number)


def begins(said: Generations | None, number: int, stream: str) -> int:
    """The offset of `stream` below which nothing of this generation lies, as far as is known."""
    known = (said.standing, said.next) if said else ()
    return next((each.begins.get(stream, 0) for each in known if each and each.number == number), 0)


def calls(said: Generations | None, number: int) -> str:
    """Of which blocks this generation takes calls, as configured; empty where that is not known."""
    known = (said.standing, said.next) if said else ()
    filters = (each.filter for each in known if each and each.number == number and each.filter)
    return next((msgspec.json.decode(each, type=Filter).calls for each in filters), "")


def numbered(network: NetworkConfig, of: Generation) -> NetworkConfig:
    """The configuration as of this generation's log, where its filter is what the configuration asks for."""
    return msgspec.structs.replace(network, generation=of.number)


def configured(network: NetworkConfig, of: Generation, adapter: Adapter) -> NetworkConfig | None:
    """The Network as this generation was begun; None where this version can't follow it: the adapter, or what
    it knows of the contracts, is another one by now, or its filter is not known."""
    if not of.filter:
        return None
    told = msgspec.json.decode(of.filter, type=Filter)
    asked: dict[str, Any] = {name: getattr(told, name) for name in Filter.__struct_fields__ if name != "abis"}
    then = msgspec.structs.replace(network, generation=of.number, **asked)
    try:
        same = told.adapter == network.adapter and filter_of(then, adapter.abi()) == of.filter
    except KeyError:  # a kind of contract that the adapter does not know any more
        return None
    return then if same else None


# --- on the bus -------------------------------------------------------------------------------------


def message(network: str, said: Generations) -> Message:
    """What says so on the bus."""
    return Message(CHECKPOINTS, _key(network), msgspec.msgpack.encode(said))


def read(bus: Bus, network: str) -> Generations | None:
    """What the bus says; None before an indexer has begun. Raises BrokenLog, BusError."""
    found = bus.last(CHECKPOINTS, partition_of(network, bus.partitions), _key(network))
    if found is None:
        return None
    try:
        return msgspec.msgpack.decode(found.value, type=Generations)
    except msgspec.DecodeError as error:
        raise BrokenLog(f"{CHECKPOINTS}, {_key(network).decode()}: expected generations; {error}") from error


class Standing:
    """Which generation of each Network stands, as of the last look: for whoever may not wait for the bus."""

    def __init__(self, bus: Bus, networks: Sequence[NetworkConfig]) -> None:
        self._bus = bus
        self._networks = networks
        self._known: dict[str, int] = {}

    def look(self) -> None:
        """Raises BrokenLog, BusError."""
        for network in self._networks:
            if (said := read(self._bus, network.name)) is not None:
                self._known[network.name] = said.standing.number

    def __call__(self, network: NetworkConfig) -> int:
        """Its number; the configured one before any indexer has begun."""
        return self._known.get(network.name, network.generation)


def _key(network: str) -> bytes:
    return f"generations/{network}".encode()

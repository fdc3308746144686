"""Contracts that other contracts make, found in the events that say so.

What is found follows from the log's own tables, so it is the same whether a block was just decoded or is read
back, goes with a block that is undone, and is written on every mark (`nektar.log.Mark.contracts`), from where
a restart takes it. A found contract is in scope from the whole block of its creation on: its constructor's
logs stand before the event that names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self, TypeAlias

import msgspec

from nektar.chain import abi
from nektar.chain.abi import Abi, EventType
from nektar.chain.table import values
from nektar.chain.types import Word
from nektar.config import ConfigError, Factory, NetworkConfig
from nektar.log import BrokenLog
from nektar.model import Address, Hash32
from nektar.networks.adapter import Adapter, kind

# How many found contracts are followed of one Network: every mark names them all, and anyone may have a
# factory make another. Those of the block in which this is reached are the last ones.
MAX_FOUND = 4096

ADDRESS_BYTES = 20
NOBODY = Address(bytes(ADDRESS_BYTES))

Made: TypeAlias = tuple[tuple[Address, str], ...]  # contracts that a block made, and of which kind each is


class Rule(NamedTuple):
    """A kind of contract, and the event in which its makers name each."""

    kind: str
    makers: frozenset[Address]  # those that are configured
    maker: str  # the kind of those that are found
    columns: Mapping[str, str]  # table of the event, in each of its layouts → column that holds the address


class Found(msgspec.Struct, frozen=True):
    """What is found by which rules, so far."""

    rules: tuple[Rule, ...] = ()
    abis: Mapping[str, Abi] = {}  # of each kind that is found
    configured: frozenset[Address] = frozenset()  # what is known anyway
    kinds: Mapping[Address, str] = {}

    def contracts(self, made: Made | None = None) -> dict[Address, Abi]:
        """The ABI of each contract that is found, or of those that were `made`."""
        found = self.kinds.items() if made is None else made
        return {address: self.abis[of] for address, of in found}

    def made(self, tables: Mapping[str, bytes], blocks: Iterable[Hash32]) -> list[Made]:
        """What each of these consecutive blocks made, and no block before it, by its rows in `tables`."""
        if not self.rules:
            return [() for _ in blocks]
        named = self._named(tables)
        kinds = dict(self.kinds)
        found: list[Made] = []
        for block in blocks:
            made: dict[Address, str] = {}
            # One may name those that it makes before its own maker has named it: until no more is found.
            while len(kinds) < MAX_FOUND and (
                more := {
                    each.made: each.rule.kind
                    for each in reversed(named.get(block, ()))
                    if each.made not in made
                    and each.made not in kinds
                    and (
                        each.by in each.rule.makers
                        or each.rule.maker in (kinds.get(each.by), made.get(each.by))
                    )
                }
            ):
                made |= more
            kinds |= made
            found.append(tuple(sorted(made.items())))
        return found

    def _named(self, tables: Mapping[str, bytes]) -> dict[Hash32, list[_Named]]:
        """Who names whom in which block, in the chain's order."""
        named: dict[Hash32, list[tuple[int, _Named]]] = {}
        for rule in self.rules:
            for table, column in rule.columns.items():
                if table not in tables:
                    continue
                for row in values(tables[table], ("block_hash", "log_index", "address", column)):
                    address = Address(row[column])
                    if address != NOBODY and address not in self.configured:
                        said = _Named(rule, Address(row["address"]), address)
                        named.setdefault(Hash32(row["block_hash"]), []).append((row["log_index"], said))
        return {
            block: [said for _, said in sorted(found, key=lambda each: each[0])]
            for block, found in named.items()
        }

    def with_(self, made: Iterable[Made]) -> Self:
        """This, and what was made since."""
        more = dict(each for block in made for each in block)
        return msgspec.structs.replace(self, kinds={**self.kinds, **more}) if more else self

    def written(self) -> tuple[bytes, ...]:
        """Each contract as a mark holds it: its address and its kind's name."""
        return tuple(address + of.encode() for address, of in self.kinds.items())

    def read(self, written: Sequence[bytes]) -> Self:
        """What a mark holds. Raises BrokenLog for a kind that no rule finds."""
        kinds = {}
        for each in written:
            of = each[ADDRESS_BYTES:].decode("utf-8", "replace")
            if of not in self.abis:
                raise BrokenLog(f"expected a contract of kinds {', '.join(self.abis) or 'none'}; got {of!r}")
            kinds[Address(each[:ADDRESS_BYTES])] = of
        return msgspec.structs.replace(self, kinds=kinds)


class _Named(NamedTuple):
    """A contract, and who said by which event that it made it."""

    rule: Rule
    by: Address
    made: Address


NOTHING = Found()


def found_by(network: NetworkConfig, adapter: Adapter) -> Found:
    """The rules of a Network's `factories`; nothing is found yet. Raises ConfigError for a wrong one."""
    abis = adapter.abi()
    for name in network.factories:
        if kind(name) not in abis:
            known = ", ".join(sorted(abis))
            raise _mistake(network, name, "", f"a kind of contract that the adapter knows ({known})", name)
    rules = tuple(_rule(network, name, factory, abis) for name, factory in network.factories.items())
    return Found(
        rules,
        {rule.kind: abi.load(abis[rule.kind]) for rule in rules},
        frozenset(map(_address, network.contracts.values())) if rules else frozenset(),
    )


def _rule(network: NetworkConfig, name: str, factory: Factory, abis: Mapping[str, Any]) -> Rule:
    contracts = [c for c in network.contracts if factory.contract in (c, kind(c))]
    found = factory.contract in map(kind, network.factories)
    if not contracts and not found:
        known = ", ".join([*network.contracts, *map(kind, network.factories)])
        raise _mistake(network, name, ".contract", f"a contract or a kind ({known})", factory.contract)
    events = [e for e in abi.load(abis[kind(factory.contract)]).events if e.name == factory.event]
    if not events:
        known = ", ".join(sorted({e.name for e in abi.load(abis[kind(factory.contract)]).events}))
        raise _mistake(network, name, ".event", f"an event of {factory.contract} ({known})", factory.event)
    return Rule(
        kind(name),
        frozenset(_address(network.contracts[c]) for c in contracts),
        factory.contract if found else "",
        {event.table: _column(network, name, factory, event) for event in events},
    )


def _column(network: NetworkConfig, name: str, factory: Factory, event: EventType) -> str:
    addresses = [
        each.column for each in event.arguments if isinstance(each.type, Word) and each.type.kind == "address"
    ]
    if factory.argument not in addresses:
        what = f"an argument of {factory.event} that is an address ({', '.join(addresses) or 'it has none'})"
        raise _mistake(network, name, ".argument", what, factory.argument)
    return factory.argument


def _address(written: str) -> Address:
    return Address(bytes.fromhex(written[2:]))


def _mistake(network: NetworkConfig, name: str, key: str, expected: str, got: str) -> ConfigError:
    return ConfigError(f"networks.{network.name}.factories.{name}{key}: expected {expected}; got {got!r}")

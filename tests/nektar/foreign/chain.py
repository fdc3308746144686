"""A chain on which other Networks' contracts speak: logs and calls, read as the indexer reads them.

`abi.json` holds the contracts' own declarations, those that matter here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eth_abi.abi import encode
from eth_hash.auto import keccak

from devnet.chain import Account
from indexer.decode import tables
from indexer.prove import Log, Proved
from nektar.chain.abi import load
from nektar.chain.table import values
from nektar.chain.transaction import Transaction
from nektar.model import Address, Block, Hash32, Level

ABIS: dict[str, dict[str, list[dict[str, Any]]]] = json.loads(
    Path(__file__).with_name("abi.json").read_bytes()
)
SENDER = Account(b"\x17" * 32)
BLOCK_SECONDS = 12


class Chain:
    """Blocks with what happened in them. Each `call` begins a transaction, and so does a log after `mine`."""

    def __init__(self, flavour: str, contracts: Mapping[Address, str]) -> None:
        self._abis = {address: ABIS[flavour][kind] for address, kind in contracts.items()}
        self._loaded = {address: load(abi) for address, abi in self._abis.items()}
        self._calls: list[tuple[Transaction, bool]] = []
        self._logs: list[Log] = []
        self.blocks: list[Proved] = []

    @property
    def number(self) -> int:
        """The block that is being made."""
        return len(self.blocks) + 1

    @property
    def time(self) -> int:
        return 1_800_000_000 + self.number * BLOCK_SECONDS

    def emit(self, address: Address, event: str, layout: int = 0, **arguments: Any) -> None:
        """A log of the newest transaction. Of events of one name `layout` says which."""
        entry = [e for e in self._abis[address] if e["type"] == "event" and e["name"] == event][layout]
        topics, data = [_topic0(entry)], []
        for parameter in entry["inputs"]:
            value = _plain(parameter, arguments[parameter["name"]])
            if parameter["indexed"]:
                topics.append(Hash32(encode([_type(parameter)], [value])))
            else:
                data.append((_type(parameter), value))
        assert arguments.keys() == {parameter["name"] for parameter in entry["inputs"]}
        if not self._calls:
            self._begin(Address(b"\xcc" * 20), b"", True)
        index = len(self._calls) - 1
        body = encode([type_ for type_, _ in data], [value for _, value in data])
        place = (index, self._calls[index][0].hash, len(self._logs))
        self._logs.append(Log(address, tuple(topics), body, *place))

    def call(self, address: Address, function: str, status: bool = True, **arguments: Any) -> None:
        """A transaction that calls this function."""
        entry = next(e for e in self._abis[address] if e["type"] == "function" and e["name"] == function)
        types = [_type(parameter) for parameter in entry["inputs"]]
        plain = [_plain(parameter, arguments[parameter["name"]]) for parameter in entry["inputs"]]
        self._begin(address, _topic0(entry)[:4] + encode(types, plain), status)

    def elsewhere(self) -> None:
        """A transaction to a contract that is none of these, which may call them."""
        self._begin(Address(b"\xcc" * 20), b"", True)

    def mine(self) -> None:
        block = Proved(
            number=self.number,
            hash=Hash32(keccak(b"block" + bytes([self.number >> 8, self.number & 255]))),
            parent=self.blocks[-1].hash if self.blocks else Hash32(bytes(32)),
            time=self.time,
            level=Level.PROVED,
            transactions=tuple(transaction for transaction, _ in self._calls),
            statuses=tuple(status for _, status in self._calls),
            logs=tuple(self._logs),
        )
        self.blocks.append(block)
        self._calls, self._logs = [], []

    def record(self) -> list[tuple[Block, dict[str, bytes]]]:
        """Each block, and its tables as the indexer writes them into the log."""
        found = []
        for proved in self.blocks:
            streams, lost = tables(self._loaded, [proved])
            assert lost == []
            block = Block(
                *(proved.number, proved.hash, proved.parent, proved.time, proved.level), "here", "single:here"
            )
            found.append((block, streams))
        return found

    def _begin(self, to: Address, data: bytes, status: bool) -> None:
        raw = SENDER.sign(1, len(self._calls), "0x" + to.hex(), data)
        self._calls.append((Transaction(Hash32(keccak(raw)), 0, to, 0, data, raw), status))


class Rows:
    """The rows of one record by what they are of: `rows("slasher", "SlashingRequested")`."""

    def __init__(
        self, flavour: str, addresses: Mapping[str, Sequence[Address]], streams: Mapping[str, bytes]
    ) -> None:
        self._addresses = addresses
        self._tables: dict[tuple[str, str], list[bytes]] = {}
        for contract, abi in ABIS[flavour].items():
            loaded = load(abi)
            for each in (*loaded.events, *loaded.functions):
                if each.table in streams:
                    self._tables.setdefault((contract, each.name), []).append(streams[each.table])

    def __call__(self, contract: str, name: str) -> list[dict[str, Any]]:
        known = self._addresses.get(contract, ())
        streams = self._tables.get((contract, name), ())
        return [row for stream in streams for row in values(stream) if row["address"] in known]


def _topic0(entry: Mapping[str, Any]) -> Hash32:
    return Hash32(keccak(f"{entry['name']}({','.join(map(_type, entry['inputs']))})".encode()))


def _type(parameter: Mapping[str, Any]) -> str:
    if not parameter["type"].startswith("tuple"):
        return str(parameter["type"])
    return f"({','.join(map(_type, parameter['components']))}){parameter['type'][5:]}"


def _plain(parameter: Mapping[str, Any], value: Any) -> Any:
    """A value as eth_abi takes it: structs as tuples in the declaration's order."""
    if parameter["type"].endswith("[]") and parameter["type"].startswith("tuple"):
        return [_plain(parameter | {"type": "tuple"}, each) for each in value]
    if parameter["type"] == "tuple":
        return tuple(_plain(each, value[each["name"]]) for each in parameter["components"])
    return "0x" + value.hex() if parameter["type"] == "address" else value

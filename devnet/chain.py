"""The devnet's side of the chain: a JSON-RPC client, an account that signs, and calls encoded from ABIs.

Operators, the aggregator and the driver are clients of this kind, each a process of its own, so what is
imported here is small: no web3, no eth-account. The pipeline has a client of its own (`nektar/chain`),
which believes nothing; this one talks to an anvil that the devnet has started itself.
"""

from __future__ import annotations

import http.client
import itertools
import json
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import msgspec

from devnet.compile import ABI_FILE
from nektar.chain import rlp
from nektar.chain.keccak import keccak
from nektar.errors import NektarError
from nektar.model import G1, G2

# The devnet's blocks have room for thousands of these, and no transaction of the Network needs half of it.
GAS_LIMIT = 10_000_000
# Far above the base fee of blocks that are nearly empty.
GAS_PRICE = 100 * 10**9
TIMEOUT_SECONDS = 30.0

Abi = Sequence[Mapping[str, Any]]


class DevnetError(NektarError):
    """The devnet could not do what it was asked."""


class Reverted(DevnetError):
    """The contract refused. `data` is what it said; `Contract.error` reads it."""

    def __init__(self, message: str, data: bytes) -> None:
        super().__init__(message)
        self.data = data


class Account:
    """An account of the chain, which signs by itself."""

    def __init__(self, key: bytes) -> None:
        from coincurve import PrivateKey

        self.key = key
        self._key = PrivateKey(key)
        public = self._key.public_key.format(compressed=False)
        self.address = "0x" + keccak(public[1:])[-20:].hex()
        """0x…, lower case."""

    @classmethod
    def from_key(cls, key: str) -> Account:
        """The account of a private key in hex, with or without 0x. Raises DevnetError."""
        try:
            secret = bytes.fromhex(key.removeprefix("0x"))
            if len(secret) == 32:
                return cls(secret)
        except ValueError:  # not hex, zero, or not below the curve's order
            pass
        raise DevnetError("private key: expected 32 bytes in hex, above zero and below the curve's order")

    def sign(
        self,
        chain_id: int,
        nonce: int,
        to: str | None,
        data: bytes = b"",
        value: int = 0,
        gas: int = GAS_LIMIT,
    ) -> bytes:
        """A signed transaction (EIP-155) as `eth_sendRawTransaction` and `Chain.reorg` take it. `to` None
        creates a contract."""
        target = b"" if to is None else bytes.fromhex(to[2:])
        fields = [rlp.number(nonce), rlp.number(GAS_PRICE), rlp.number(gas), rlp.string(target)]
        fields += [rlp.number(value), rlp.string(data)]
        unsigned = rlp.sequence([*fields, rlp.number(chain_id), rlp.number(0), rlp.number(0)])
        signature = self._key.sign_recoverable(keccak(unsigned), hasher=None)
        r, s = (int.from_bytes(signature[i : i + 32], "big") for i in (0, 32))
        v = chain_id * 2 + 35 + signature[64]
        return rlp.sequence([*fields, rlp.number(v), rlp.number(r), rlp.number(s)])


class Chain:
    """A JSON-RPC client over one kept connection. Any thread may use it; calls take turns."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None or parts.port is None:
            raise DevnetError(f"the devnet's chain: expected http://host:port; got {url!r}")
        self.url = url
        self.ws_url = f"ws://{parts.hostname}:{parts.port}"
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_SECONDS)
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._chain_id: int | None = None

    @property
    def chain_id(self) -> int:
        if self._chain_id is None:
            self._chain_id = int(self.rpc("eth_chainId"), 16)
        return self._chain_id

    def rpc(self, method: str, *params: object) -> Any:
        """The call's result. Raises Reverted where a contract refused, DevnetError for all else."""
        body = msgspec.json.encode(
            {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        )
        with self._lock:
            reply = self._post(method, body)
        if (error := reply.get("error")) is None:
            return reply["result"]
        data = error.get("data")
        message = f"{method}: {error.get('message')}"
        if isinstance(data, str) and data.startswith("0x") and error.get("code") == 3:
            raise Reverted(message, bytes.fromhex(data[2:]))
        raise DevnetError(message)

    def head(self) -> tuple[int, str]:
        """(number, hash) of the newest block."""
        block = self.rpc("eth_getBlockByNumber", "latest", False)
        return int(block["number"], 16), block["hash"]

    def mine(self, blocks: int = 1) -> tuple[int, str]:
        """Mine what waits in the pool into the first of so many blocks; the new head."""
        self.rpc("anvil_mine", hex(blocks))
        return self.head()

    def send(self, account: Account, to: str | None, data: bytes = b"", value: int = 0) -> str:
        """Sign a transaction with the account's next nonce and put it into the pool; its hash."""
        nonce = int(self.rpc("eth_getTransactionCount", account.address, "pending"), 16)
        raw = account.sign(self.chain_id, nonce, to, data, value)
        return str(self.rpc("eth_sendRawTransaction", "0x" + raw.hex()))

    def receipt(self, transaction: str) -> dict[str, Any]:
        """The receipt of a mined transaction, whether it succeeded or not."""
        receipt: dict[str, Any] | None = self.rpc("eth_getTransactionReceipt", transaction)
        if receipt is None:
            raise DevnetError(f"transaction {transaction} is not mined: expected it in a block by now")
        return receipt

    def call(self, to: str, data: bytes, sender: str | None = None) -> bytes:
        """What a call would return at the newest block. Raises Reverted."""
        request = {"to": to, "data": "0x" + data.hex(), "gas": hex(GAS_LIMIT)}
        if sender is not None:
            request["from"] = sender
        return bytes.fromhex(self.rpc("eth_call", request, "latest")[2:])

    def reorg(self, depth: int, transactions: Sequence[tuple[bytes, int]] = ()) -> tuple[int, str]:
        """Replace the newest `depth` blocks by as many others that hold `transactions` (signed, index of
        the new block counted from 0) and nothing else; the new head.

        The transactions of the removed blocks are gone, and nonces are what they were before them.

        The fee recipient counts the reorgs, so that a block never equals the one that it replaces: all
        else of two empty blocks may be the same, and anvil would bring the very block back.
        """
        latest = self.rpc("eth_getBlockByNumber", "latest", False)
        self.rpc("anvil_setCoinbase", f"0x{int(latest['miner'], 16) + 1:040x}")
        self.rpc("anvil_reorg", depth, [["0x" + raw.hex(), block] for raw, block in transactions])
        return self.head()

    def close(self) -> None:
        self._connection.close()

    def _post(self, method: str, body: bytes) -> dict[str, Any]:
        headers = {"content-type": "application/json"}
        for kept in (self._connection.sock is not None, False):
            try:
                self._connection.request("POST", "/", body, headers)
                reply: dict[str, Any] = msgspec.json.decode(self._connection.getresponse().read())
                return reply
            except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
                self._connection.close()
                # A kept connection may have been closed at the other end since; a new one says the truth.
                if not kept or isinstance(error, TimeoutError):
                    raise DevnetError(f"{self.url}: no answer to {method} ({error!r})") from error
        raise AssertionError("unreachable: the second attempt returns or raises")


class Contract:
    """Encodes and decodes by an ABI. Structs are tuples, `bytes` are bytes, addresses 0x…."""

    def __init__(self, abi: Abi) -> None:
        self._entries: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._errors: dict[bytes, Mapping[str, Any]] = {}
        self._events: dict[bytes, Mapping[str, Any]] = {}
        for entry in abi:
            self._entries[entry["type"], entry.get("name", "")] = entry
            if entry["type"] == "error":
                self._errors[keccak(_signature(entry))[:4]] = entry
            elif entry["type"] == "event":
                self._events[keccak(_signature(entry))] = entry

    def encode(self, name: str, *args: object) -> bytes:
        """The calldata of a call. Raises DevnetError where the ABI has no such function."""
        entry = self._entry("function", name)
        return keccak(_signature(entry))[:4] + _encode(entry["inputs"], args, name)

    def constructor(self, *args: object) -> bytes:
        """What a creation's bytecode is followed by."""
        entry = self._entries.get(("constructor", ""), {"inputs": ()})
        return _encode(entry["inputs"], args, "constructor")

    def result(self, name: str, data: bytes) -> Any:
        """What a function returned: the value, or a tuple where there are several."""
        from eth_abi.abi import decode

        values = decode([_type(i) for i in self._entry("function", name)["outputs"]], data)
        return values[0] if len(values) == 1 else values

    def topic(self, event: str) -> str:
        """topic0 of an event, 0x…."""
        return "0x" + keccak(_signature(self._entry("event", event))).hex()

    def event(self, log: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
        """(name, arguments by name) of a log; None where it is not one of this ABI's events."""
        from eth_abi.abi import decode

        entry = self._events.get(bytes.fromhex(log["topics"][0][2:]))
        if entry is None:
            return None
        indexed = [i for i in entry["inputs"] if i["indexed"]]
        plain = [i for i in entry["inputs"] if not i["indexed"]]
        values = dict(
            zip(
                (i["name"] for i in plain),
                decode([_type(i) for i in plain], _octets(log["data"])),
                strict=True,
            )
        )
        for each, word in zip(indexed, log["topics"][1:], strict=True):
            (values[each["name"]],) = decode([_type(each)], _octets(word))
        return entry["name"], values

    def error(self, data: bytes) -> str:
        """The custom error in revert data as people read it: `DeadlinePassed(12)`."""
        from eth_abi.abi import decode

        entry = self._errors.get(data[:4])
        if entry is None:
            return "0x" + data.hex()
        values = decode([_type(i) for i in entry["inputs"]], data[4:])
        shown = ("0x" + v.hex() if isinstance(v, bytes) else str(v) for v in values)
        return f"{entry['name']}({', '.join(shown)})"

    def _entry(self, kind: str, name: str) -> Mapping[str, Any]:
        try:
            return self._entries[kind, name]
        except KeyError:
            raise DevnetError(f"the contract's ABI has no {kind} {name}") from None


@cache
def _abis() -> dict[str, Abi]:
    abis: dict[str, Abi] = json.loads(ABI_FILE.read_text())
    return abis


def load_abi(contract: str) -> Abi:
    """The ABI of one of the reference contracts, by its name in nektar.yaml."""
    return _abis()[contract]


def registered_keys(chain: Chain, registry: str) -> dict[G1, G2]:
    """Every key that was ever registered, with its twin in G2, as the registry's events have them."""
    contract = Contract(load_abi("operator_registry"))
    topics = [contract.topic("OperatorRegistered"), contract.topic("KeyRotated")]
    logs = chain.rpc(
        "eth_getLogs", {"address": registry, "fromBlock": "0x0", "toBlock": "latest", "topics": [topics]}
    )
    keys: dict[G1, G2] = {}
    for log in logs:
        if (event := contract.event(log)) is not None:
            key, (x, y) = event[1]["key"], event[1]["keyG2"]
            keys[G1(_words(*key))] = G2(_words(*x, *y))
    return keys


def _words(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(32, "big") for number in numbers)


def _octets(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def _encode(inputs: Sequence[Mapping[str, Any]], args: Sequence[object], name: str) -> bytes:
    from eth_abi.abi import encode
    from eth_abi.exceptions import EncodingError

    types = [_type(i) for i in inputs]
    if len(args) != len(types):
        raise DevnetError(f"{name}: expected {len(types)} arguments ({', '.join(types)}); got {len(args)}")
    try:
        return encode(types, args)
    except EncodingError as error:
        raise DevnetError(f"{name}({', '.join(types)}): {error}") from error


def _type(parameter: Mapping[str, Any]) -> str:
    """A parameter's type as signatures write it: a tuple is its components in parentheses."""
    if not parameter["type"].startswith("tuple"):
        return str(parameter["type"])
    inner = ",".join(_type(component) for component in parameter["components"])
    return f"({inner}){parameter['type'][5:]}"


def _signature(entry: Mapping[str, Any]) -> bytes:
    return f"{entry['name']}({','.join(_type(i) for i in entry['inputs'])})".encode()

"""A second verifier, written from docs/EVIDENCE.md alone: it shares no code with the first.

Facts are tuples, whose first item names them as the page does, in lower case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import rlp
from eth_hash.auto import keccak
from py_ecc import optimized_bn128 as bn
from py_ecc import secp256k1
from py_ecc.optimized_bn128 import FQ, FQ2

P, R = bn.field_modulus, bn.curve_order
NAME, OCTETS = re.compile(r"[!-~]{1,100}"), re.compile("0x([0-9a-f]{2})*")
EMPTY = keccak(b"\x80")


class Refused(Exception):
    """The bundle proves nothing."""


class Reader(NamedTuple):
    chain_id: int
    contracts: dict[str, bytes]
    code: dict[str, bytes] = {}  # noqa: RUF012  read alone
    terms: dict[str, int] = {}  # noqa: RUF012


class Verdict(NamedTuple):
    id: bytes
    condition: str
    operator: bytes
    subject: bytes
    canonical: tuple[tuple[int, bytes], ...]


def need(is_so: object, why: str) -> None:
    if not is_so:
        raise Refused(why)


def word(number: int) -> bytes:
    return number.to_bytes(32, "big")


# --- the text -----------------------------------------------------------------------------------------


def natural(value: Any) -> None:
    need(type(value) is int and 0 <= value < 1 << 53, "a natural")


def name(value: Any) -> None:
    need(isinstance(value, str) and NAME.fullmatch(value), "a name")


def octets(value: Any) -> None:
    need(isinstance(value, str) and OCTETS.fullmatch(value), "octets")


def many(kind: Callable[[Any], None]) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        need(isinstance(value, list), "a list")
        for each in value:
            kind(each)

    return check


def fields(needed: dict[str, Any], optional: dict[str, Any] | None = None) -> Callable[[Any], None]:
    optional = optional or {}

    def check(value: Any) -> None:
        need(
            isinstance(value, dict) and needed.keys() <= value.keys() <= needed.keys() | optional.keys(),
            "keys",
        )
        for key, each in value.items():
            (needed | optional)[key](each)

    return check


def literally(text: str) -> Callable[[Any], None]:
    return lambda value: need(value == text, text)


CLAIMS = {
    "event": fields(
        {
            "contract": name,
            "block": natural,
            "transaction": natural,
            "log": natural,
            "receipt": octets,
            "proof": many(octets),
        }
    ),
    "call": fields(
        {
            "contract": name,
            "block": natural,
            "index": natural,
            "transaction": octets,
            "transaction_proof": many(octets),
            "receipt": octets,
            "receipt_proof": many(octets),
        }
    ),
    "member": fields({"task": octets, "index": natural}),
    "non_member": fields({"task": octets, "operator": octets}),
    "set_member": fields({"set": octets, "index": natural}),
    "signature": fields(
        {"task": octets, "index": natural, "key_g2": octets, "response": octets, "signature": octets}
    ),
    "forgery": fields(
        {"task": octets, "index": natural, "key_g2": octets, "response": octets, "signature": octets}
    ),
    "aggregate_signature": fields(
        {
            "task": octets,
            "non_signers": many(natural),
            "apk_g2": octets,
            "response": octets,
            "signature": octets,
        }
    ),
    "state": fields(
        {
            "contract": name,
            "block": natural,
            "account": many(octets),
            "variables": many(fields({"name": name, "keys": many(octets), "proof": many(octets)})),
        }
    ),
    "absence": fields(
        {"contract": name, "event": name, "first": natural, "last": natural},
        {"task": octets, "operator": octets},
    ),
    "refutation": fields({"task": octets, "response": octets, "divisor": octets}),
}


def claim_shape(value: Any) -> None:
    need(isinstance(value, dict) and value.get("claim") in CLAIMS, "a kind of claim")
    CLAIMS[value["claim"]]({key: each for key, each in value.items() if key != "claim"})


def contracts_shape(value: Any) -> None:
    need(isinstance(value, dict), "contracts")
    for key, each in value.items():
        name(key)
        octets(each)


BUNDLE = fields(
    {
        "format": literally("nektar-evidence/1"),
        "condition": name,
        "chain_id": natural,
        "contracts": contracts_shape,
        "operator": octets,
        "subject": octets,
        "blocks": many(fields({"header": octets}, {"receipts": many(octets)})),
        "sets": many(octets),
        "claims": many(claim_shape),
    }
)


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def read(text: bytes) -> Any:
    need(len(text) <= 16 << 20 and text.count(b'"0x') <= 262_144, "size")
    try:
        value = json.loads(text)
        need(canonical(value) == text, "canonical")
    except (ValueError, RecursionError) as error:
        raise Refused("JSON") from error
    BUNDLE(value)
    return value


def raw(text: str) -> bytes:
    return bytes.fromhex(text[2:])


# --- blocks -------------------------------------------------------------------------------------------

NUMBER, ANY = -1, -2
HEADER = [32, 32, 20, 32, 32, 32, 256, *[NUMBER] * 5, ANY, 32, 8, NUMBER, 32, NUMBER, NUMBER, 32, 32]


def unpacked(encoded: bytes) -> Any:
    try:
        return rlp.decode(encoded)
    except (rlp.exceptions.DecodingError, RecursionError) as error:
        raise Refused("RLP") from error


class Block(NamedTuple):
    number: int
    hash: bytes
    parent: bytes
    state: bytes
    transactions: bytes
    receipts: bytes
    bloom: int


def block(encoded: bytes) -> Block:
    items = unpacked(encoded)
    need(isinstance(items, list) and 15 <= len(items) <= 21, "a header")
    for item, size in zip(items, HEADER, strict=False):
        need(isinstance(item, bytes), "a header")
        need(size < 0 or len(item) == size, "a header's field")
        need(size != NUMBER or (len(item) <= 32 and item[:1] != b"\0"), "a header's number")
    return Block(int.from_bytes(items[8]), keccak(encoded), items[0], *items[3:6], int.from_bytes(items[6]))


class Log(NamedTuple):
    address: bytes
    topics: list[bytes]
    data: bytes


def bloom(items: Sequence[bytes]) -> int:
    bits = 0
    for item in items:
        digest = keccak(item)
        for i in (0, 2, 4):
            bits |= 1 << int.from_bytes(digest[i : i + 2]) % 2048
    return bits


def logs(encoded: bytes) -> list[Log]:
    return receipt_of(encoded)[1]


def receipt_of(encoded: bytes) -> tuple[bool | None, list[Log]]:
    """Whether the transaction succeeded, and what it logged."""
    items = unpacked(encoded[1:] if encoded[:1] and 1 <= encoded[0] <= 4 else encoded)
    need(isinstance(items, list) and len(items) == 4, "a receipt")
    status, gas, filter_, entries = items
    need(status in (b"", b"\1") or (isinstance(status, bytes) and len(status) == 32), "a status")
    need(isinstance(gas, bytes) and isinstance(filter_, bytes) and isinstance(entries, list), "a receipt")
    found = []
    for entry in entries:
        need(isinstance(entry, list) and len(entry) == 3, "a log")
        address, topics, data = entry
        need(isinstance(address, bytes) and len(address) == 20 and isinstance(data, bytes), "a log")
        need(isinstance(topics, list) and len(topics) <= 4, "topics")
        need(all(isinstance(topic, bytes) and len(topic) == 32 for topic in topics), "topics")
        found.append(Log(address, topics, data))
    bits = bloom([item for log in found for item in (log.address, *log.topics)])
    need(filter_ == bits.to_bytes(256), "the bloom of its logs")
    return (None if len(status) == 32 else status == b"\1"), found


# type: items, place of the target, place of the input
TRANSACTIONS = {0: (9, 3, 5), 1: (11, 4, 6), 2: (12, 5, 7), 3: (14, 5, 7), 4: (13, 5, 7)}


def call_of(encoded: bytes) -> tuple[bytes, bytes, bytes]:
    """(target, input, sender)"""
    kind = encoded[0] if encoded[:1] and 1 <= encoded[0] <= 4 else 0
    items = unpacked(encoded[1:] if kind else encoded)
    count, target, data = TRANSACTIONS[kind]
    need(isinstance(items, list) and len(items) == count, "a transaction")
    need(all(isinstance(items[i], bytes) for i in (target, data, -3, -2, -1)), "a transaction")
    v, r, s = (int.from_bytes(each) for each in items[-3:])
    signed = items[:-3]
    if not kind and v >= 35:
        chain_id, v = divmod(v - 35, 2)
        signed = [*signed, chain_id, 0, 0]
    elif not kind:
        v -= 27
    need(v in (0, 1) and 0 < r < secp256k1.N and 0 < s < secp256k1.N, "a signature")
    digest = keccak((encoded[:1] if kind else b"") + rlp.encode(signed))
    try:
        x, y = secp256k1.ecdsa_raw_recover(digest, (27 + v, r, s))
    except ValueError as error:
        raise Refused("a signature") from error
    return items[target], items[data], keccak(word(x) + word(y))[12:]


# --- tries --------------------------------------------------------------------------------------------


def held(root: bytes, key: bytes, proof: list[bytes]) -> bytes | None:
    """What a trie holds; None where it holds nothing."""
    if root == EMPTY and not proof:
        return None
    need(0 < len(proof) <= 65, "nodes")
    left, way = key.hex(), list(proof)

    def following(hash_: bytes) -> Any:
        need(way and keccak(way[0]) == hash_, "the next node")
        items = unpacked(way[0])
        need(
            len(way[0]) <= 532 or not any(isinstance(item, list) for item in items), "a long node with lists"
        )
        del way[0]
        return items

    node = following(root)
    while True:
        need(isinstance(node, list) and len(node) in (2, 17), "a node")
        if len(node) == 17:
            if not left:
                value, ends = node[16], True
            else:
                value, ends = node[int(left[0], 16)], False
            left = left[1:]
        else:
            need(isinstance(node[0], bytes) and node[0], "a path")
            path = node[0].hex()
            flag = int(path[0], 16)
            need(flag < 4 and (flag % 2 or path[1] == "0"), "a path")
            ends, path = flag >= 2, path[1:] if flag % 2 else path[2:]
            if not left.startswith(path) or (ends and left != path):
                need(not way, "no nodes beyond")
                return None
            value, left = node[1], left[len(path) :]
        if ends or value == b"":
            need(isinstance(value, bytes) and not way, "a value, and no nodes beyond")
            return value or None
        node = following(value) if isinstance(value, bytes) else value


def root_of(items: list[bytes]) -> bytes:
    pairs = [(rlp.encode(i).hex(), item) for i, item in enumerate(items)]

    def compact(nibbles: str, flag: int) -> bytes:
        odd = len(nibbles) % 2
        return bytes.fromhex(f"{flag + odd:x}" + ("" if odd else "0") + nibbles)

    def node(under: list[tuple[str, bytes]]) -> Any:
        if not under:
            return b""
        if len(under) == 1:
            return [compact(under[0][0], 2), under[0][1]]
        first = [nibbles for nibbles, _ in under]
        shared = 0
        while len({nibbles[shared] for nibbles in first}) == 1:
            shared += 1
        if shared:
            return [compact(first[0][:shared], 0), below([(n[shared:], item) for n, item in under])]
        return [*(below([(n[1:], item) for n, item in under if n[0] == d]) for d in "0123456789abcdef"), b""]

    def below(under: list[tuple[str, bytes]]) -> Any:
        made = node(under)
        encoded = rlp.encode(made)
        return made if len(encoded) < 32 or not made else keccak(encoded)

    return keccak(rlp.encode(node(pairs)))


# --- keys and signatures --------------------------------------------------------------------------------


def coordinates(point: bytes, count: int) -> list[int]:
    need(len(point) == 32 * count, "a point's size")
    numbers = [int.from_bytes(point[i : i + 32]) for i in range(0, len(point), 32)]
    need(max(numbers) < P and any(numbers), "coordinates")
    return numbers


def g1(point: bytes) -> Any:
    x, y = coordinates(point, 2)
    made = FQ(x), FQ(y), FQ(1)
    need(bn.is_on_curve(made, bn.b), "on the curve")
    return made


@lru_cache(None)
def g2(point: bytes) -> Any:
    x1, x0, y1, y0 = coordinates(point, 4)
    made = FQ2([x0, x1]), FQ2([y0, y1]), FQ2.one()
    need(bn.is_on_curve(made, bn.b2), "on the twist")
    need(bn.is_inf(bn.multiply(made, R)), "in the subgroup")
    return made


def same(a: Any, b: Any, c: Any, d: Any) -> bool:
    """Whether e(a, b) = e(c, d)."""
    product = bn.pairing(b, a, final_exponentiate=False) * bn.pairing(d, bn.neg(c), final_exponentiate=False)
    return bool(bn.final_exponentiate(product) == bn.FQ12.one())


@lru_cache(None)
def twins(key: bytes, twin: bytes) -> bool:
    return same(g1(key), bn.G2, bn.G1, g2(twin))


@lru_cache(None)
def is_signed(twin: bytes, digest: bytes, signature: bytes) -> bool:
    return same(g1(signature), bn.G2, hashed(digest), g2(twin))


def hashed(digest: bytes) -> Any:
    x = int.from_bytes(digest) % P
    while True:
        square = (x**3 + 3) % P
        y = pow(square, (P + 1) // 4, P)
        if y * y % P == square:
            return FQ(x), FQ(y), FQ(1)
        x = (x + 1) % P


def signed_digest(chain_id: int, manager: bytes, task_hash: bytes, digest: bytes) -> bytes:
    domain = keccak(
        keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
        + keccak(b"Nektar")
        + keccak(b"1")
        + word(chain_id)
        + manager.rjust(32, b"\0")
    )
    kind = keccak(b"Response(bytes32 taskHash,bytes32 responseDigest)")
    return keccak(b"\x19\x01" + domain + keccak(kind + task_hash + digest))


# --- claims -------------------------------------------------------------------------------------------


class Event(NamedTuple):
    contract: str
    signature: str
    task: int = 0
    operator: int = 0


TASK = "(bytes32,uint256,bytes32,bytes32,uint64,uint64,uint16,uint16,uint64)"
EVENTS = {
    "TaskSubmitted": Event("task_manager", f"TaskSubmitted(bytes32,uint64,address,{TASK})", 1),
    "Responded": Event(
        "task_manager",
        "Responded(bytes32,bytes32,(uint256,uint256),uint256[],bytes32,(uint256,uint256),"
        "(uint256[2],uint256[2]),uint64)",
        1,
    ),
    "Attested": Event(
        "task_manager",
        "Attested(bytes32,address,bytes32,(uint256,uint256),(uint256,uint256),bool,bool)",
        1,
        2,
    ),
    "TaskCancelled": Event("task_manager", "TaskCancelled(bytes32)", 1),
    "Paused": Event("task_manager", "Paused(address)"),
    "Unpaused": Event("task_manager", "Unpaused(address)"),
    "SlashingRequested": Event(
        "slashing_manager, trusted_slasher",
        "SlashingRequested(bytes32,bytes32,address,bytes32,uint256,uint64,uint64)",
        operator=3,
    ),
    "RequestedOnTrust": Event("trusted_slasher", "RequestedOnTrust(bytes32,address,address,bytes)"),
    "MissCounted": Event("slashing_manager", "MissCounted(bytes32,bytes32,address)", 2, 3),
    "SlashingVetoed": Event("slashing_manager, trusted_slasher", "SlashingVetoed(bytes32)"),
    "SlashingExecuted": Event(
        "slashing_manager, trusted_slasher",
        "SlashingExecuted(bytes32,address,uint256,address)",
        operator=2,
    ),
    "NetworkListed": Event("network_registry", "NetworkListed(bytes32,address,address)"),
    "OperatorSetCommitted": Event(
        "operator_registry",
        "OperatorSetCommitted(bytes32,uint64,(address,(uint256,uint256),uint256)[])",
    ),
    "Delegated": Event("delegation", "Delegated(address,address,uint256)", operator=1),
}


def is_of(contract: str, event: Event) -> bool:
    if "slash" in event.contract:
        contract = contract.split("/")[0]
    return contract in event.contract.split(", ")


def address(octets: bytes) -> bytes:
    need(not any(octets[:12]), "an address")
    return octets[12:]


# contract, slot, keys, offset, bytes
VARIABLES = {
    "setHash": ("operator_registry", 2, 0, 0, 32, 0),
    "_keys.registration": ("operator_registry", 5, 1, 4, 8, 0),
    "_ends": ("operator_registry", 8, 1, 0, 8, 0),
    "isUnderbonded": ("delegation", 3, 1, 0, 1, 0),
    "_status.state": ("task_manager", 3, 1, 0, 1, 0),
    "_status.submittedBlock": ("task_manager", 3, 1, 1, 8, 0),
    "_status.pauses": ("task_manager", 3, 1, 1, 8, 8),
    "_status.recordHash": ("task_manager", 3, 1, 3, 32, 0),
    "_pauses": ("task_manager", 4, 1, 0, 8, 0),
    "attestedDigest": ("task_manager", 6, 2, 0, 32, 0),
}


class Member(NamedTuple):
    operator: bytes
    key: bytes


def members_of(preimage: bytes) -> list[Member]:
    count = int.from_bytes(preimage[32:64])
    need(preimage[:32] == word(32) and count <= 100_000 and len(preimage) == 64 + 128 * count, "a set")
    found = []
    for at in range(64, len(preimage), 128):
        need(not any(preimage[at : at + 12]), "an address")
        found.append(Member(preimage[at + 12 : at + 32], preimage[at + 32 : at + 96]))
    return found


class Checked:
    """What claims are checked against, and what of it they need."""

    def __init__(self, bundle: Any, reader: Reader) -> None:
        self.reader = reader
        self.left = {"variables": 4096, "signatures": 512, "members": 16_384, "looks": 2_000_000}
        self.blocks: dict[int, Block] = {}
        self.receipts: dict[int, list[bytes]] = {}
        self.contracts = set(bundle["contracts"])
        self.used: set[tuple[str, object]] = {("contract", "task_manager")}
        newest = -1
        for part in bundle["blocks"]:
            made = block(raw(part["header"]))
            need(made.number > newest, "rising numbers")
            need(
                newest + 1 != made.number or not self.blocks or made.parent == self.blocks[newest].hash,
                "links",
            )
            newest = made.number
            self.blocks[newest] = made
            if "receipts" in part:
                self.receipts[newest] = [raw(each) for each in part["receipts"]]
        sets = [raw(each) for each in bundle["sets"]]
        need(sets == sorted(set(sets)), "sorted sets")
        self.sets = {keccak(each): members_of(each) for each in sets}
        self.named: dict[bytes, set[bytes]] = {}

    def all_used(self) -> bool:
        there = {("block", number) for number in self.blocks} | {("set", each) for each in self.sets}
        there |= {("receipts", number) for number in self.receipts}
        return there | {("contract", each) for each in self.contracts} == self.used

    def spend(self, what: str, count: int) -> None:
        self.left[what] -= count
        need(self.left[what] >= 0, f"fewer {what}")

    def block(self, number: int) -> Block:
        need(number in self.blocks, "the block")
        self.used.add(("block", number))
        return self.blocks[number]

    def address(self, contract: str) -> bytes:
        need(contract in self.contracts, "the contract")
        self.used.add(("contract", contract))
        return self.reader.contracts[contract]

    def members(self, task: bytes) -> list[Member]:
        need(len(task) == 288, "a Task")
        need(task[96:128] in self.sets, "the set")
        self.used.add(("set", task[96:128]))
        return self.sets[task[96:128]]

    def facts(self, claim: Any) -> list[tuple[Any, ...]]:
        made: list[tuple[Any, ...]] = getattr(self, claim["claim"])(claim)
        return made

    def event(self, claim: Any) -> list[tuple[Any, ...]]:
        at, receipt = self.block(claim["block"]), raw(claim["receipt"])
        proof = [raw(each) for each in claim["proof"]]
        need(held(at.receipts, rlp.encode(claim["transaction"]), proof) == receipt, "the receipt")
        entries = logs(receipt)
        need(claim["log"] < len(entries), "the log")
        log = entries[claim["log"]]
        need(log.address == self.address(claim["contract"]), "the contract's log")
        named = [
            each
            for each, event in EVENTS.items()
            if log.topics and keccak(event.signature.encode()) == log.topics[0]
            if is_of(claim["contract"], event)
        ]
        where = at.number, at.hash
        if named == ["TaskSubmitted"]:
            need(
                len(log.topics) == 4 and len(log.data) == 288 and keccak(log.data) == log.topics[1], "a Task"
            )
            return [("submitted", log.data, *where)]
        if named and named[0] not in ("TaskSubmitted", "Responded"):
            return [self.slashing(named[0], claim, log, at)]
        need(named == ["Responded"] and len(log.topics) == 3 and len(log.data) % 32 == 0, "evidence")
        words = [int.from_bytes(log.data[i : i + 32]) for i in range(0, len(log.data), 32)]
        need(len(words) >= 12 and words[2] == 352 and len(words) == 12 + words[11], "non-signers")
        return [("accepted", log.topics[1], log.topics[2], tuple(words[12:]), *where)]

    def slashing(self, name: str, claim: Any, log: Log, at: Block) -> tuple[Any, ...]:
        """What is said of slashings, and of what nobody owes."""
        topics, data = log.topics, [log.data[i : i + 32] for i in range(0, len(log.data), 32)]
        sizes = {
            **{"SlashingRequested": (4, 128), "SlashingVetoed": (2, 0), "MissCounted": (4, 0)},
            **{"TaskCancelled": (2, 0), "Paused": (1, 32), "Unpaused": (1, 32)},
            **{"SlashingExecuted": (3, 64), "NetworkListed": (3, 32), "RequestedOnTrust": (3, len(log.data))},
        }
        need(sizes.get(name) == (len(topics), len(log.data)), "its arguments")
        block = at.number, at.hash
        if "aused" in name:
            return "paused", *block
        if name == "TaskCancelled":
            return "cancelled", topics[1], *block
        about = log.address, topics[1]
        place = claim["transaction"], claim["log"]
        if name == "MissCounted":
            return "counted", *about, topics[2], address(topics[3]), block, place
        if name == "SlashingVetoed":
            return "vetoed", *about, block, place
        if name == "SlashingExecuted":
            return "executed", *about, address(data[1]), block, place
        if name == "NetworkListed":
            return "listed", topics[1], address(data[0]), *block
        if name == "RequestedOnTrust":
            need(len(data) >= 3 and data[1] == word(64), "evidence")
            count = int.from_bytes(data[2])
            rest = log.data[96:]
            need(len(rest) == -(-count // 32) * 32 and not any(rest[count:]), "evidence")
            return "trusted", *about, address(data[0]), rest[:count], *block
        task, set_ = (None, data[0]) if topics[2] == keccak(b"bond_breach") else (data[0], None)
        proved = claim["contract"].split("/")[0] == "slashing_manager"
        until = int.from_bytes(data[2]), int.from_bytes(data[3])
        return "requested", *about, address(topics[3]), topics[2], task, proved, *until, block, place, set_

    def forgery(self, claim: Any) -> list[tuple[Any, ...]]:
        self.spend("signatures", 1)
        [(_, task_hash, operator, index, _)] = self.member(claim)
        need(twins(self.members(raw(claim["task"]))[index].key, raw(claim["key_g2"])), "twins")
        need(len(raw(claim["signature"])) == 64, "64 bytes")
        try:
            self.signed(claim, raw(claim["key_g2"]))
        except Refused:
            self.address("task_manager")
            digest = keccak(raw(claim["response"]))
            return [("forged", task_hash, operator, digest, raw(claim["signature"]))]
        raise Refused("a forgery")

    def member(self, claim: Any) -> list[tuple[Any, ...]]:
        task = raw(claim["task"])
        members = self.members(task)
        need(claim["index"] < len(members), "the member")
        found = members[claim["index"]]
        return [("member", keccak(task), found.operator, claim["index"], keccak(found.key))]

    def non_member(self, claim: Any) -> list[tuple[Any, ...]]:
        task, operator = raw(claim["task"]), raw(claim["operator"])
        members = self.members(task)
        need(len(operator) == 20 and operator not in self.operators(task[96:128], members), "no member")
        return [("not member", keccak(task), operator)]

    def operators(self, set_hash: bytes, members: list[Member]) -> set[bytes]:
        if set_hash not in self.named:
            self.named[set_hash] = {each.operator for each in members}
        return self.named[set_hash]

    def set_member(self, claim: Any) -> list[tuple[Any, ...]]:
        hash_ = raw(claim["set"])
        need(hash_ in self.sets, "the set")
        self.used.add(("set", hash_))
        need(claim["index"] < len(self.sets[hash_]), "the member")
        found = self.sets[hash_][claim["index"]]
        return [("in set", hash_, found.operator, claim["index"], keccak(found.key))]

    def call(self, claim: Any) -> list[tuple[Any, ...]]:
        at, key = self.block(claim["block"]), rlp.encode(claim["index"])
        transaction, receipt = raw(claim["transaction"]), raw(claim["receipt"])
        need(held(at.transactions, key, [raw(n) for n in claim["transaction_proof"]]) == transaction, "it")
        need(held(at.receipts, key, [raw(n) for n in claim["receipt_proof"]]) == receipt, "its receipt")
        target, data, sender = call_of(transaction)
        need(target == self.address(claim["contract"]), "a call of the contract")
        succeeded, _ = receipt_of(receipt)
        what = claim["contract"], keccak(transaction), sender, data, succeeded
        return [("called", *what, at.number, at.hash)]

    def signature(self, claim: Any) -> list[tuple[Any, ...]]:
        self.spend("signatures", 1)
        [(_, task_hash, operator, index, _)] = self.member(claim)
        key = self.members(raw(claim["task"]))[index].key
        need(twins(key, raw(claim["key_g2"])), "twins")
        return [("signed", task_hash, operator, self.signed(claim, raw(claim["key_g2"])), True)]

    def aggregate_signature(self, claim: Any) -> list[tuple[Any, ...]]:
        self.spend("signatures", 1)
        members, out = self.members(raw(claim["task"])), claim["non_signers"]
        self.spend("members", len(members))
        need(out == sorted(set(out)) and (not out or out[-1] < len(members)), "non-signers")
        without = set(out)
        signers = [each for i, each in enumerate(members) if i not in without]
        need(signers, "signers")
        total = g1(signers[0].key)
        for each in signers[1:]:
            total = bn.add(total, g1(each.key))
        need(not bn.is_inf(total), "a sum")
        x, y = bn.normalize(total)
        need(twins(word(int(x)) + word(int(y)), raw(claim["apk_g2"])), "twins")
        digest = self.signed(claim, raw(claim["apk_g2"]))
        return [("signed", keccak(raw(claim["task"])), each.operator, digest, False) for each in signers]

    def signed(self, claim: Any, twin: bytes) -> bytes:
        digest = keccak(raw(claim["response"]))
        manager = self.address("task_manager")
        what = signed_digest(self.reader.chain_id, manager, keccak(raw(claim["task"])), digest)
        need(is_signed(twin, what, raw(claim["signature"])), "the signature")
        return digest

    def state(self, claim: Any) -> list[tuple[Any, ...]]:
        at, contract = self.block(claim["block"]), claim["contract"]
        self.spend("variables", len(claim["variables"]))
        value = held(at.state, keccak(self.address(contract)), [raw(each) for each in claim["account"]])
        need(value, "the account")
        account = unpacked(value or b"")
        need(isinstance(account, list) and len(account) == 4, "an account")
        root, code = account[2:]
        need(
            isinstance(root, bytes) and isinstance(code, bytes) and len(root) == len(code) == 32, "an account"
        )
        need(self.reader.code.get(contract, code) == code, "the code")
        found = []
        for each in claim["variables"]:
            need(each["name"] in VARIABLES, "a variable")
            of, slot, count, offset, size, start = VARIABLES[each["name"]]
            keys = [raw(key) for key in each["keys"]]
            need(of == contract and len(keys) == count and all(len(key) == 32 for key in keys), "keys")
            if each["name"] == "_pauses":
                index = int.from_bytes(keys[0])
                slot, start = int.from_bytes(keccak(word(slot))) + index // 4, 8 * (index % 4)
            else:
                for key in keys:
                    slot = int.from_bytes(keccak(key + word(slot)))
            stored = held(root, keccak(word((slot + offset) % 2**256)), [raw(n) for n in each["proof"]])
            number = b"" if stored is None else unpacked(stored)
            need(isinstance(number, bytes) and len(number) <= 32, "a word")
            short = int.from_bytes(number) // 256**start % 256**size
            found.append(("stored", contract, each["name"], tuple(keys), short, at.number, at.hash))
        return found

    def absence(self, claim: Any) -> list[tuple[Any, ...]]:
        event, first, last = EVENTS.get(claim["event"]), claim["first"], claim["last"]
        need(event is not None and is_of(claim["contract"], event), "an event")
        assert event is not None
        need(0 <= last - first < len(self.blocks), "the blocks")
        address, topics = self.address(claim["contract"]), {0: keccak(event.signature.encode())}
        named = {}
        for key, place, size in (("task", event.task, 32), ("operator", event.operator, 20)):
            if key in claim:
                named[key] = raw(claim[key])
                need(place and len(named[key]) == size, "a topic")
                topics[place] = named[key].rjust(32, b"\0")
        wanted = bloom([address, *topics.values()])
        self.spend("looks", last - first + 1)
        for number in range(first, last + 1):
            at = self.block(number)
            if at.bloom & wanted != wanted:
                continue
            need(number in self.receipts, "the receipts")
            self.used.add(("receipts", number))
            entries = [log for each in self.receipts[number] for log in logs(each)]
            need(root_of(self.receipts[number]) == at.receipts, "the receipts' root")
            self.spend("looks", len(entries))
            for log in entries:
                there = all(i < len(log.topics) and log.topics[i] == topic for i, topic in topics.items())
                need(log.address != address or not there, "no such log")
        return [("absent", claim["event"], first, last, named.get("task"), named.get("operator"))]

    def refutation(self, claim: Any) -> list[tuple[Any, ...]]:
        task, response, divisor = (raw(claim[key]) for key in ("task", "response", "divisor"))
        need(len(task) == 288 and len(response) == 64 and len(divisor) == 32, "sizes")
        n, p, q = (int.from_bytes(each) for each in (task[32:64], response[:32], response[32:]))
        d = int.from_bytes(divisor)
        by_itself = p < 2 or p * q != n
        need(d == 0 if by_itself else 1 < d < p and n % d == 0, "a refutation")
        return [("refuted", keccak(task), keccak(response))]


# --- the verdict --------------------------------------------------------------------------------------

Facts = Sequence[tuple[Any, ...]]
Terms = dict[str, int]
Condition = Callable[[bytes, bytes, Facts, Terms], bool]


def of(facts: Facts, kind: str) -> list[tuple[Any, ...]]:
    return [fact[1:] for fact in facts if fact[0] == kind]


def is_submitted(task_hash: bytes, facts: Facts) -> bool:
    return any(keccak(task) == task_hash for task, *_ in of(facts, "submitted"))


def accepted(task_hash: bytes, facts: Facts) -> set[bytes]:
    return {digest for task, digest, *_ in of(facts, "accepted") if task == task_hash}


def equivocation(operator: bytes, subject: bytes, facts: Facts, terms: Terms) -> bool:
    quorums = {digest for _, _, digest, alone in of(facts, "signed") if not alone}
    digests = {digest for task, who, digest, _ in of(facts, "signed") if (task, who) == (subject, operator)}
    return is_submitted(subject, facts) and quorums <= accepted(subject, facts) and len(digests) == 2


def invalid_response(operator: bytes, subject: bytes, facts: Facts, terms: Terms) -> bool:
    mine = [each for each in of(facts, "signed") if each[:2] == (subject, operator)]
    if not is_submitted(subject, facts) or len(mine) != 1:
        return False
    _, _, digest, alone = mine[0]
    return (subject, digest) in of(facts, "refuted") and (alone or digest in accepted(subject, facts))


def missed_duty(operator: bytes, subject: bytes, facts: Facts, terms: Terms) -> bool:
    if not {"miss_allowance", "miss_window"} <= terms.keys():
        return False
    tasks = of(facts, "submitted")
    numbers = [int.from_bytes(task[256:288]) for task, *_ in tasks]
    if len(tasks) != terms["miss_allowance"] + 1 or numbers != sorted(set(numbers)):
        return False
    if keccak(tasks[-1][0]) != subject or not 0 <= tasks[-1][1] - tasks[0][1] < terms["miss_window"]:
        return False
    return all(missed(operator, task, at, facts) for task, at, _ in tasks)


def missed(operator: bytes, task: bytes, at: int, facts: Facts) -> bool:
    deadline, grace = int.from_bytes(task[128:160]), int.from_bytes(task[160:192])
    hash_ = keccak(task)

    stored = {each[:3]: each[3:5] for each in of(facts, "stored")}

    def value_of(by: int, contract: str, name: str, *keys: bytes) -> int:
        value, known_at = stored.get((contract, name, keys), (0, -1))
        need(known_at >= by, name)
        return int(value)

    members = [each[2:] for each in of(facts, "member") if each[:2] == (hash_, operator)]
    responses = [each[2] for each in of(facts, "accepted") if each[0] == hash_]
    if not members:
        return False
    index, key_hash = members[-1]
    over, manager, registry = deadline + grace, "task_manager", "operator_registry"
    paused = value_of(over, manager, "_pauses", word(value_of(over, manager, "_status.pauses", hash_)))
    registration = value_of(0, registry, "_keys.registration", key_hash)
    end = value_of(at, registry, "_ends", word(registration))
    return (
        value_of(over, manager, "_status.state", hash_) != 4
        and not 0 < paused <= deadline
        and value_of(over, manager, "attestedDigest", hash_, operator.rjust(32, b"\0")) == 0
        and (
            index in responses[-1] if responses else value_of(over, manager, "_status.recordHash", hash_) == 0
        )
        and registration != 0
        and not 0 < end <= at
    )


def bond_breach(operator: bytes, subject: bytes, facts: Facts, terms: Terms) -> bool:
    shown, stored = of(facts, "in set"), of(facts, "stored")
    if [each[:2] for each in shown] != [(subject, operator)] or len({each[4:] for each in stored}) != 1:
        return False
    values = {each[:3]: each[3] for each in reversed(stored)}
    key_hash = shown[0][3]
    registration = values.get(("operator_registry", "_keys.registration", (key_hash,)), 0)
    return (
        values.get(("operator_registry", "setHash", ())) == int.from_bytes(subject)
        and registration != 0
        and values.get(("operator_registry", "_ends", (word(registration),))) == 0
        and values.get(("delegation", "isUnderbonded", (operator.rjust(32, b"\0"),)), 0) != 0
    )


PAIR, MEMBERS = "(uint256,uint256)", "(address,(uint256,uint256),uint256)[]"
ATTEST = keccak(f"attest({TASK},{PAIR},{MEMBERS},uint256,{PAIR})".encode())[:4]
RESPOND = keccak(f"respond({TASK},{PAIR},{MEMBERS},uint256[],{PAIR},(uint256[2],uint256[2]))".encode())[:4]


def rejected_response(operator: bytes, subject: bytes, facts: Facts, terms: Terms) -> bool:
    calls, signed = of(facts, "called"), of(facts, "signed")
    if not calls:
        return False
    contract, hash_, sender, data, succeeded, *_ = calls[0]
    if (hash_, contract, succeeded) != (subject, "task_manager", False) or data[:4] not in (ATTEST, RESPOND):
        return False
    if not signed:
        return bool(operator == sender)
    task, response = data[4:292], data[292:356]
    return (
        data[:4] == ATTEST
        and len(data) >= 4 + 15 * 32
        and signed[0][:3] == (keccak(task), operator, keccak(response))
        and is_submitted(keccak(task), facts)
    )


class Request(NamedTuple):
    slasher: bytes
    request: bytes
    operator: bytes
    condition: bytes
    task: bytes | None
    proved: bool
    veto: int
    execution: int
    block: tuple[int, bytes]
    place: tuple[int, int]
    set: bytes | None


def wrongful_slashing(operator: bytes, subject: bytes, facts: Facts, terms: Terms) -> bool:
    for i, each in enumerate(facts):
        for reason, holds in REASONS.items() if each[0] == "requested" else ():
            asked = Request(*each[1:])
            if keccak(asked.request + asked.slasher + reason.encode()) == subject:
                rest = [*facts[:i], *facts[i + 1 :]]
                return asked.operator == operator and holds(asked, rest, terms)
    return False


def only(facts: Facts, *kinds: str) -> list[Any] | None:
    """The facts of these kinds, if there is one of each and no other."""
    if sorted(kinds) != sorted(each[0] for each in facts):
        return None
    return [next(each[1:] for each in facts if each[0] == kind) for kind in kinds]


def end_of(task: bytes) -> int:
    return int.from_bytes(task[128:160]) + int.from_bytes(task[160:192])


def wrong_signed(asked: Request, facts: Facts, terms: Terms) -> bool:
    if asked.condition != keccak(b"missed_duty"):
        return False
    about = asked.task, asked.operator
    if shown := only(facts, "stored"):
        which = "task_manager", "attestedDigest", (asked.task, asked.operator.rjust(32, b"\0"))
        return bool(shown[0][:3] == which and shown[0][3] != 0)
    if shown := only(facts, "submitted", "accepted", "member"):
        submitted, accepted, member = shown
        of_it = keccak(submitted[0]) == asked.task == accepted[0] and member[:2] == about
        return bool(of_it and member[2] not in accepted[2])
    return False


OF_TASKS = [keccak(each) for each in (b"equivocation", b"invalid_response", b"missed_duty")]


def status(shown: Any, asked: Request, name: str) -> bool:
    return bool(shown[:3] == ("task_manager", f"_status.{name}", (asked.task,)))


def wrong_duty(asked: Request, facts: Facts, terms: Terms) -> bool:
    if asked.proved or asked.condition not in OF_TASKS:
        return False
    if shown := only(facts, "not member"):
        return bool(shown[0] == (asked.task, asked.operator))
    if asked.condition != keccak(b"missed_duty"):
        return False
    if shown := only(facts, "submitted"):
        return bool(keccak(shown[0][0]) == asked.task and asked.block[0] <= end_of(shown[0][0]))
    if any(asked.block[0] <= end_of(task) for task, *_ in of(facts, "submitted")):
        return False
    if shown := only(facts, "submitted", "cancelled"):
        return bool(keccak(shown[0][0]) == asked.task == shown[1][0])
    if shown := only(facts, "submitted", "paused"):
        (task, first, _), (at, _) = shown
        return bool(keccak(task) == asked.task and first <= at <= int.from_bytes(task[128:160]))
    return False


def wrong_unknown(asked: Request, facts: Facts, terms: Terms) -> bool:
    if asked.proved or asked.condition not in OF_TASKS or not (shown := only(facts, "stored")):
        return False
    *_, value, number, _ = shown[0]
    return status(shown[0], asked, "state") and value == 0 and number >= asked.block[0]


def wrong_window(asked: Request, facts: Facts, terms: Terms) -> bool:
    if asked.proved or asked.condition not in OF_TASKS or "slashing_window" not in terms:
        return False
    if shown := only(facts, "submitted"):
        if keccak(shown[0][0]) != asked.task:
            return False
        end = end_of(shown[0][0])
        if asked.condition == keccak(b"missed_duty"):
            if "max_duration" not in terms:
                return False
            end = shown[0][1] + terms["max_duration"]
    elif shown := only(facts, "stored"):
        value = shown[0][3]
        if not status(shown[0], asked, "submittedBlock") or value == 0 or "max_duration" not in terms:
            return False
        end = value + terms["max_duration"]
    else:
        return False
    return asked.block[0] > end + terms["slashing_window"]


def wrong_twice(asked: Request, facts: Facts, terms: Terms) -> bool:
    if not asked.proved and asked.condition == keccak(b"missed_duty") and (shown := only(facts, "counted")):
        return asked.task is not None and shown[0][2:4] == (asked.task, asked.operator)
    if asked.proved or not (shown := only(facts, "requested")):
        return False
    if asked.condition not in OF_TASKS and asked.set is None:
        return False
    other = Request(*shown[0])
    before = (other.block[0], other.place) < (asked.block[0], asked.place)
    same = (*other[2:5], other.set) == (*asked[2:5], asked.set)
    return other[:2] != asked[:2] and same and (other.proved or before)


def proofs_of(name: str) -> list[bytes]:
    said = {
        "equivocation": [
            f"proveEquivocation({TASK},{MEMBERS},uint256,{PAIR},{PAIR},{PAIR},{PAIR})",
            f"proveEquivocationInQuorum({TASK},{MEMBERS},uint256,{PAIR},uint256[],{PAIR},{PAIR})",
        ],
        "invalid_response": [
            f"proveInvalidResponse({TASK},{MEMBERS},uint256,{PAIR},{PAIR},uint256)",
            f"proveInvalidResponseInQuorum({TASK},{MEMBERS},uint256,{PAIR},uint256[],uint256)",
        ],
        "missed_duty": [f"proveMissedDuty({MEMBERS}[],({TASK},uint256,uint256,uint256[])[])"],
        "bond_breach": [f"proveBondBreach({MEMBERS},uint256)"],
    }
    return [keccak(each.encode())[:4] for each in said[name]]


class Calldata:
    """As Solidity reads it."""

    def __init__(self, data: bytes, head: int) -> None:
        need(len(data) >= 4 + 32 * head, "the head")
        self.data, self.size = data, len(data)

    def at(self, position: int, words: int = 1) -> bytes:
        part = b"" if position % 2**256 >= 2**255 else self.data[position : position + 32 * words]
        return part + bytes(32 * words - len(part))

    def number(self, position: int) -> int:
        return int.from_bytes(self.at(position))

    def array(self, word_: int, width: int) -> tuple[int, int]:
        offset = self.number(4 + 32 * word_)
        need(offset < 2**64 and 4 + offset + 32 <= self.size, "an array")
        length = self.number(4 + offset)
        need(length < 2**64 and 4 + offset + 32 + 32 * width * length <= self.size, "its elements")
        return 4 + offset + 32, length

    def leads(self, base: int, position: int, words: int) -> int:
        offset = self.number(position)
        need(with_sign(offset) < with_sign(self.size - base - 32 * words + 1), "what an offset leads to")
        return (base + offset) % 2**256

    def array_there(self, base: int, position: int, width: int) -> tuple[int, int]:
        head = self.leads(base, position, 1)
        length, start = self.number(head), (head + 32) % 2**256
        need(length < 2**64 and with_sign(start) <= with_sign(self.size - 32 * width * length), "elements")
        return start, length

    def members(self, position: int, length: int) -> tuple[bytes, list[Member]]:
        preimage = word(32) + word(length) + self.at(position, 4 * length)
        return keccak(preimage), members_of(preimage)

    def places(self, position: int, length: int) -> tuple[int, ...]:
        return tuple(self.number(position + 32 * i) for i in range(length))


def with_sign(number: int) -> int:
    number %= 2**256
    return number - 2**256 if number >= 2**255 else number


def is_other(set_: tuple[bytes, list[Member]], expected: bytes, index: int, operator: bytes) -> bool:
    """Whether the set is another, or the member in this place."""
    hash_, members = set_
    return hash_ != expected or index >= len(members) or members[index].operator != operator


Shows = Callable[[Facts], bool]


def alone(is_it: Callable[[tuple[Any, ...]], bool]) -> Shows:
    return lambda more: len(more) == 1 and is_it(more[0])


def wrong_proof(asked: Request, facts: Facts, terms: Terms) -> bool:
    trusted = [each for each in facts if each[0] == "trusted"]
    more = [each for each in facts if each[0] != "trusted"]
    named = ("equivocation", "invalid_response", "missed_duty", "bond_breach")
    name = next((each for each in named if keccak(each.encode()) == asked.condition), "")
    if len(trusted) != 1 or trusted[0][1:3] != asked[:2] or not trusted[0][4] or not name:
        return False
    shown_in = trusted[0][5]
    try:
        contradictions = flaws(asked, name, trusted[0][4], shown_in, terms)
    except Refused:
        return not more
    for each in contradictions:
        if each is True:
            return not more
        if callable(each) and each(more):
            return True
    return False


def flaws(asked: Request, name: str, data: bytes, shown_in: int, terms: Terms) -> list[bool | Shows]:
    """In turn: what is so or not by itself, or which fact would make it so. Refused: can't be read."""
    if data[:4] not in proofs_of(name):
        return [True]
    if name == "bond_breach":
        shown = Calldata(data, 2)
        set_ = shown.members(*shown.array(0, 4))
        index = shown.number(36)
        if asked.set not in (None, set_[0]) or is_other(set_, set_[0], index, asked.operator):
            return [True]
        return flaws_of_bond(set_[0], set_[1][index], shown_in)
    if asked.task is None:
        return []
    if name == "missed_duty":
        return flaws_of_misses(asked, data, shown_in, terms)
    return flaws_of_responses(asked, name, data, shown_in)


def flaws_of_responses(asked: Request, name: str, data: bytes, shown_in: int) -> list[bool | Shows]:
    twice, in_quorum = name == "equivocation", data[:4] == proofs_of(name)[1]
    shown = Calldata(data, {(1, 0): 19, (1, 1): 18, (0, 0): 16, (0, 1): 15}[twice, in_quorum])
    set_ = shown.members(*shown.array(9, 4))
    out = shown.places(*shown.array(13, 1)) if in_quorum else ()
    task, index, first = shown.at(4, 9), shown.number(4 + 320), shown.at(4 + 352, 2)
    after = 4 + 32 * (14 if in_quorum else 15)
    other, divisor = shown.at(after, 2), shown.number(after)
    n, p, q = (int.from_bytes(each) for each in (task[32:64], first[:32], first[32:]))
    right = p >= 2 and p * q == n and not (1 < divisor < p and n % divisor == 0)
    signed = [] if in_quorum else [(keccak(first), shown.at(4 + 416, 2))]
    if twice:
        signed.append((keccak(other), shown.at(after + 64, 2)))
    record = keccak(first), out
    hash_ = keccak(task)

    def is_another(fact: tuple[Any, ...]) -> bool:
        return bool(fact[:2] == ("accepted", hash_) and fact[2:4] != record)

    def is_none(fact: tuple[Any, ...]) -> bool:
        which = "stored", "task_manager", "_status.recordHash", (hash_,), 0
        return bool(fact[:5] == which and fact[5] >= shown_in)

    def is_forged(fact: tuple[Any, ...]) -> bool:
        return fact[0] == "forged" and fact[1:3] == (hash_, asked.operator) and fact[3:5] in signed

    return [
        *(hash_ != asked.task, is_other(set_, task[96:128], index, asked.operator)),
        *(first == other if twice else right, in_quorum and index in out),
        *((alone(is_another), alone(is_none)) if in_quorum else ()),
        alone(is_forged),
    ]


def flaws_of_misses(asked: Request, data: bytes, shown_in: int, terms: Terms) -> list[bool | Shows]:
    shown = Calldata(data, 2)
    sets, set_count = shown.array(0, 1)
    arrays = [shown.array_there(sets, sets + 32 * i, 4) for i in range(set_count)]
    start, count = shown.array(1, 1)
    if count != terms.get("miss_allowance", max(count, 1) - 1) + 1:
        return [True]
    which = range(count) if "miss_allowance" in terms else [count - 1]
    misses = [shown.leads(start, start + 32 * i, 12) for i in which]
    tasks = [shown.at(at, 9) for at in misses]
    numbers = [int.from_bytes(task[256:]) for task in tasks]
    found: list[bool | Shows] = [
        keccak(tasks[-1]) != asked.task,
        any(later <= earlier for earlier, later in pairwise(numbers)),
    ]
    for at, task in zip(misses, tasks, strict=True):
        place, index = shown.number(at + 288), shown.number(at + 320)
        set_ = shown.members(*arrays[place]) if place < set_count else (b"", [])
        try:
            out = shown.places(*shown.array_there(at, at + 352, 1))
        except Refused:
            out = None
        found.append(is_other(set_, task[96:128], index, asked.operator))
        found.append(shown_in <= end_of(task))
        found.append(shows_done(keccak(task), index, out, asked))
    return found


def shows_done(hash_: bytes, index: int, out: tuple[int, ...] | None, asked: Request) -> Shows:
    operator = asked.operator

    def is_it(fact: tuple[Any, ...]) -> bool:
        if fact[0] == "counted":
            before = (fact[5][0], fact[6]) < (asked.block[0], asked.place)
            return before and fact[3:5] == (hash_, operator)
        if fact[0] == "accepted":
            return fact[1] == hash_ and (index not in fact[3] or fact[3] != out)
        which = "stored", "task_manager", "attestedDigest", (hash_, operator.rjust(32, b"\0"))
        return bool(fact[:4] == which and fact[4] != 0)

    return alone(is_it)


def flaws_of_bond(set_hash: bytes, member: Member, shown_in: int) -> list[bool | Shows]:
    """By two facts each: what was stored, and that no event made it so in the block, or where to look."""
    who = member.operator

    def two(more: Facts, *kinds: str) -> list[tuple[Any, ...]] | None:
        found = sorted(more, key=lambda fact: str(fact[0]))
        return found if [fact[0] for fact in found] == [*kinds] else None

    def another_newest(more: Facts) -> bool:
        if (pair := two(more, "absent", "stored")) is None:
            return False
        absent, stored = pair
        here = "absent", "OperatorSetCommitted", shown_in, shown_in, None, None
        of = "stored", "operator_registry", "setHash", ()
        return bool(
            absent == here
            and stored[:4] == of
            and stored[4] != int.from_bytes(set_hash)
            and stored[5] == shown_in
        )

    def left(more: Facts) -> bool:
        pair = two(more, "stored", "stored")
        for brought, ends in (pair, pair[::-1]) if pair else ():
            key = "stored", "operator_registry", "_keys.registration", (keccak(member.key),)
            if brought[:4] == key and brought[4] != 0:
                end = "stored", "operator_registry", "_ends", (word(brought[4]),)
                if ends[:4] == end and 0 < ends[4] <= shown_in:
                    return True
        return False

    def kept(more: Facts) -> bool:
        if (pair := two(more, "absent", "stored")) is None:
            return False
        absent, stored = pair
        held = "stored", "delegation", "isUnderbonded", (who.rjust(32, b"\0"),), 0, shown_in
        return bool(absent == ("absent", "Delegated", shown_in, shown_in, None, who) and stored[:6] == held)

    return [another_newest, left, kept]


def wrong_after_veto(asked: Request, facts: Facts, terms: Terms) -> bool:
    if not (shown := only(facts, "vetoed", "executed")):
        return False
    vetoed, executed = shown
    before = (vetoed[2][0], vetoed[3]) < (executed[3][0], executed[4])
    return vetoed[:2] == asked[:2] == executed[:2] and before


def executed_at(asked: Request, facts: Facts) -> int | None:
    shown = only(facts, "executed")
    return shown[0][3][0] if shown and shown[0][:2] == asked[:2] else None


def wrong_early(asked: Request, facts: Facts, terms: Terms) -> bool:
    at = executed_at(asked, facts)
    return at is not None and at <= asked.veto


def wrong_late(asked: Request, facts: Facts, terms: Terms) -> bool:
    at = executed_at(asked, facts)
    return at is not None and at > asked.execution


def wrong_receiver(asked: Request, facts: Facts, terms: Terms) -> bool:
    shown = only(facts, "listed", "trusted") or only(facts, "listed", "executed")
    if not shown or "network" not in terms:
        return False
    (network, burner, *_), named = shown
    ours = int.from_bytes(network) == terms["network"]
    return bool(ours and named[:2] == asked[:2] and named[2] != burner)


REASONS: dict[str, Callable[[Request, Facts, Terms], bool]] = {
    "signed": wrong_signed,
    "no_duty": wrong_duty,
    "unknown_task": wrong_unknown,
    "window_passed": wrong_window,
    "twice": wrong_twice,
    "not_proved": wrong_proof,
    "after_veto": wrong_after_veto,
    "early": wrong_early,
    "after_expiry": wrong_late,
    "wrong_receiver": wrong_receiver,
}

CONDITIONS: dict[str, Condition] = {
    each.__name__: each
    for each in (
        *(equivocation, invalid_response, missed_duty, bond_breach, rejected_response),
        wrongful_slashing,
    )
}


def verify(text: bytes, reader: Reader, conditions: dict[str, Condition] = CONDITIONS) -> Verdict:
    """Raises Refused."""
    bundle = read(text)
    need(bundle["chain_id"] == reader.chain_id, "the chain")
    for contract, address in bundle["contracts"].items():
        need(reader.contracts.get(contract) == raw(address), "the contracts")
    need("task_manager" in bundle["contracts"], "a task_manager")
    operator, subject = raw(bundle["operator"]), raw(bundle["subject"])
    need(len(operator) == 20 and len(subject) == 32, "an operator and a subject")
    checked = Checked(bundle, reader)
    need(len(bundle["claims"]) <= 4096, "fewer claims")
    facts = [fact for claim in bundle["claims"] for fact in checked.facts(claim)]
    need(checked.all_used(), "nothing else")
    need(bundle["condition"] in conditions, "a condition that is known")
    holds = conditions[bundle["condition"]]
    need(holds(operator, subject, facts, reader.terms), bundle["condition"])
    manager = reader.contracts["task_manager"]
    named = [bundle["condition"], reader.chain_id, manager.hex(), subject.hex(), operator.hex()]
    tops = [number for number in checked.blocks if number + 1 not in checked.blocks]
    return Verdict(
        keccak(canonical(named)),
        bundle["condition"],
        operator,
        subject,
        tuple((number, checked.blocks[number].hash) for number in tops),
    )

"""A transaction as `transactionsRoot` covers it: its EIP-2718 envelope, its hash, and who signed it.

Types: 0 legacy, 1 access list (EIP-2930), 2 fee market (EIP-1559), 3 blob (EIP-4844), 4 set code (EIP-7702).
What JSON-RPC calls `from` is covered by no root: it is recovered from the signature, and never copied.
"""

from __future__ import annotations

from collections.abc import Sequence

import coincurve
import msgspec

from nektar.chain import rlp
from nektar.chain.jsonrpc import Malformed, Object, items, objects, octets, parse_octets, quantity
from nektar.chain.keccak import keccak
from nektar.errors import NektarError
from nektar.model import Address, Hash32

LEGACY, ACCESS_LIST, FEE_MARKET, BLOB, SET_CODE = range(5)
_FIELDS = (9, 11, 12, 14, 13)  # by type


class UnknownType(Malformed):
    """A transaction of a type that is not read here, and may be one of its chain."""


class Unsigned(NektarError):
    """A transaction whose signature names nobody."""


class Transaction(msgspec.Struct, frozen=True):
    """What a transaction says, all of it in `raw` and so covered by `transactionsRoot`."""

    hash: Hash32
    type: int
    to: Address | None  # None: it creates a contract
    value: int
    input: bytes
    raw: bytes  # EIP-2718 envelope: what the trie holds, and what the hash is of


def read_transaction(tx: Object) -> Transaction:
    """The transaction that a block from `eth_getBlockByNumber(…, true)` holds. Raises Malformed,
    UnknownType."""
    raw = encode_transaction(tx)
    return Transaction(
        hash=Hash32(keccak(raw)),
        type=transaction_type(tx),
        to=None if tx.get("to") is None else Address(octets(tx, "to", 20)),
        value=quantity(tx, "value"),
        input=octets(tx, "input"),
        raw=raw,
    )


def decode_transaction(raw: bytes) -> Transaction:
    """The transaction of an envelope, as the trie holds it. Raises BadRlp."""
    kind = raw[0] if raw[:1] and raw[0] <= 0x7F else LEGACY
    if kind > SET_CODE:
        raise rlp.BadRlp(f"transaction: expected a type of 0 to 4; got {kind}")
    fields = _fields(raw[1:] if kind else raw)
    # Before the target: nonce, gas price, gas; a chain id where there is a type; two prices from type 2 on.
    place = 3 if kind == LEGACY else 4 if kind == ACCESS_LIST else 5
    if len(fields) != _FIELDS[kind]:
        raise rlp.BadRlp(f"transaction: expected {_FIELDS[kind]} fields of type {kind}; got {len(fields)}")
    to, value, data = _strings(fields[place : place + 3])
    if len(to) not in (0, 20):
        raise rlp.BadRlp(f"transaction: expected a target of 20 bytes or none; got {len(to)}")
    return Transaction(
        hash=Hash32(keccak(raw)),
        type=kind,
        to=Address(to) if to else None,
        value=int.from_bytes(value),
        input=data,
        raw=raw,
    )


def transaction_type(of: Object) -> int:
    """The EIP-2718 type of a transaction or receipt; nodes from before Berlin leave it out."""
    return LEGACY if of.get("type") is None else quantity(of, "type")


def encode_transaction(tx: Object) -> bytes:
    """The EIP-2718 envelope, signature included. Raises Malformed, UnknownType."""
    kind = transaction_type(tx)
    if not LEGACY <= kind <= SET_CODE:  # before its fields, which such a type may lack
        raise UnknownType(f"type: expected a transaction of type 0 to 4; got {kind}")

    def n(key: str) -> bytes:
        return rlp.number(quantity(tx, key))

    to = rlp.string(b"" if tx.get("to") is None else octets(tx, "to", 20))
    call = [to, n("value"), rlp.string(octets(tx, "input"))]
    if kind == LEGACY:
        return rlp.sequence([n("nonce"), n("gasPrice"), n("gas"), *call, n("v"), n("r"), n("s")])
    fields = [n("chainId"), n("nonce")]
    fields += [n("gasPrice")] if kind == ACCESS_LIST else [n("maxPriorityFeePerGas"), n("maxFeePerGas")]
    fields += [n("gas"), *call, _access_list(tx)]
    if kind == BLOB:
        hashes = (
            rlp.string(parse_octets(h, "blobVersionedHashes", 32)) for h in items(tx, "blobVersionedHashes")
        )
        fields += [n("maxFeePerBlobGas"), rlp.sequence(hashes)]
    elif kind == SET_CODE:
        fields.append(rlp.sequence(_authorization(each) for each in objects(tx, "authorizationList")))
    fields += [_parity(tx), n("r"), n("s")]
    return bytes((kind,)) + rlp.sequence(fields)


def _access_list(tx: Object) -> bytes:
    return rlp.sequence(
        rlp.sequence(
            (
                rlp.string(octets(entry, "address", 20)),
                rlp.sequence(
                    rlp.string(parse_octets(key, "storageKeys", 32)) for key in items(entry, "storageKeys")
                ),
            )
        )
        for entry in objects(tx, "accessList")
    )


def _authorization(entry: Object) -> bytes:
    return rlp.sequence(
        (
            rlp.number(quantity(entry, "chainId")),
            rlp.string(octets(entry, "address", 20)),
            rlp.number(quantity(entry, "nonce")),
            _parity(entry),
            rlp.number(quantity(entry, "r")),
            rlp.number(quantity(entry, "s")),
        )
    )


def _parity(of: Object) -> bytes:
    """The signature's parity bit, which older nodes call `v`."""
    return rlp.number(quantity(of, "v" if of.get("yParity") is None else "yParity"))


def sender(transaction: Transaction) -> Address:
    """Who signed it: the only `from` there is proof of. Raises Unsigned."""
    try:
        signing_hash, parity, r, s = _signature(transaction.raw)
        signature = r.to_bytes(32) + s.to_bytes(32) + bytes((parity,))
        key = coincurve.PublicKey.from_signature_and_message(signature, signing_hash, hasher=None)
    except (rlp.BadRlp, ValueError, OverflowError) as error:
        raise Unsigned(f"transaction 0x{transaction.hash.hex()}: nobody's signature: {error}") from error
    return Address(keccak(key.format(compressed=False)[1:])[12:])


def gas(transaction: Transaction) -> int:
    """The most gas that it may take. Raises BadRlp."""
    kind = transaction.type
    fields = _fields(transaction.raw if kind == LEGACY else transaction.raw[1:])
    place = 2 if kind == LEGACY else 3 if kind == ACCESS_LIST else 4
    return int.from_bytes(_strings(fields[place : place + 1])[0])


def _signature(raw: bytes) -> tuple[bytes, int, int, int]:
    """(signing hash, parity, r, s) of an envelope. Raises BadRlp."""
    if raw[:1] <= b"\x7f":
        fields = _fields(raw[1:])
        parity, r, s = (int.from_bytes(each) for each in _strings(fields[-3:]))
        return keccak(raw[:1] + rlp.encode(fields[:-3])), parity, r, s
    fields = _fields(raw)
    v, r, s = (int.from_bytes(each) for each in _strings(fields[-3:]))
    signed: list[rlp.Item] = list(fields[:-3])
    if v in (27, 28):
        return keccak(rlp.encode(signed)), v - 27, r, s
    # EIP-155: v = 2 · chain id + 35 + parity, and the chain id is signed too.
    if v < 35:
        raise rlp.BadRlp(f"expected a signature's v of 27, 28, or 35 and more; got {v}")
    chain_id, parity = divmod(v - 35, 2)
    protected = rlp.sequence([*map(rlp.encode, signed), rlp.number(chain_id), b"\x80", b"\x80"])
    return keccak(protected), parity, r, s


def _fields(encoded: bytes) -> Sequence[rlp.Item]:
    fields = rlp.decode(encoded)
    if isinstance(fields, bytes) or len(fields) < 9:
        raise rlp.BadRlp("expected a transaction's list of fields; got something shorter")
    return fields


def _strings(fields: Sequence[rlp.Item]) -> list[bytes]:
    if not all(isinstance(each, bytes) for each in fields):
        raise rlp.BadRlp("expected byte strings among a transaction's fields; got a list")
    return [each for each in fields if isinstance(each, bytes)]

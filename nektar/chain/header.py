"""A block's hash, recomputed from its header (yellow paper 4.4.3, and the EIPs below).

Each fork appended fields and took none away, so the fields that are there say which fork it is. A field that
is left out or made up changes the hash.
"""

from __future__ import annotations

import msgspec

from nektar.chain import rlp
from nektar.chain.jsonrpc import Malformed, Object, octets, quantity
from nektar.chain.keccak import keccak
from nektar.model import BlockRef, Hash32

BLOOM_BYTES = 256
NUMBER = -1  # instead of a size in bytes
NUMBER_BYTES = 32  # the most that one takes
ANY = None

# (JSON-RPC's name, size in bytes), in the header's order.
FRONTIER: tuple[tuple[str, int | None], ...] = (
    ("parentHash", 32),
    ("sha3Uncles", 32),
    ("miner", 20),
    ("stateRoot", 32),
    ("transactionsRoot", 32),
    ("receiptsRoot", 32),
    ("logsBloom", BLOOM_BYTES),
    ("difficulty", NUMBER),
    ("number", NUMBER),
    ("gasLimit", NUMBER),
    ("gasUsed", NUMBER),
    ("timestamp", NUMBER),
    ("extraData", ANY),
    ("mixHash", 32),
    ("nonce", 8),
)
LATER: tuple[tuple[str, int | None], ...] = (
    ("baseFeePerGas", NUMBER),  # London, EIP-1559
    ("withdrawalsRoot", 32),  # Shanghai, EIP-4895
    ("blobGasUsed", NUMBER),  # Cancun, EIP-4844
    ("excessBlobGas", NUMBER),
    ("parentBeaconBlockRoot", 32),  # Cancun, EIP-4788
    ("requestsHash", 32),  # Prague, EIP-7685
)

# What a block's JSON has beside its header.
_BESIDE = frozenset({"hash", "size", "totalDifficulty", "transactions", "uncles", "withdrawals"})


def unknown_fields(block: Object) -> list[str]:
    """What this JSON of a block has that no fork known here does: a later one's, another chain's, or a node's
    own."""
    return sorted(block.keys() - _BESIDE - {name for name, _ in (*FRONTIER, *LATER)})


def encode_header(block: Object) -> bytes:
    """The header's RLP, from the answer to `eth_getBlockByNumber`. Raises Malformed, naming the field."""
    fields = list(FRONTIER)
    present = [field for field in LATER if block.get(field[0]) is not None]
    if present != list(LATER[: len(present)]):
        missing = next(name for name, _ in LATER if block.get(name) is None)
        raise Malformed(f"{missing}: expected it in a header that has {present[-1][0]}; it is missing")
    return rlp.sequence(
        rlp.number(quantity(block, name)) if size == NUMBER else rlp.string(octets(block, name, size))
        for name, size in fields + present
    )


class Header(msgspec.Struct, frozen=True):
    """What a header that was read says, and what it is the hash of."""

    number: int
    hash: Hash32
    parent: Hash32
    time: int  # seconds since 1970 UTC
    state_root: Hash32
    transactions_root: Hash32
    receipts_root: Hash32
    bloom: bytes

    @property
    def ref(self) -> BlockRef:
        return BlockRef(self.number, self.hash)


def read_header(encoded: bytes) -> Header:
    """The header that `encode_header` wrote. Raises BadRlp, also for what no fork's header is."""
    fields = rlp.decode(encoded, depth=1)
    known = (*FRONTIER, *LATER)
    if isinstance(fields, bytes) or not len(FRONTIER) <= len(fields) <= len(known):
        raise rlp.BadRlp(f"header: expected a list of {len(FRONTIER)} to {len(known)} fields")
    of: dict[str, bytes] = {}
    for (name, size), field in zip(known, fields, strict=False):
        if not isinstance(field, bytes) or (size not in (NUMBER, ANY) and len(field) != size):
            raise rlp.BadRlp(f"header: {name}: expected {size} bytes")
        if size == NUMBER and (field[:1] == b"\0" or len(field) > NUMBER_BYTES):
            raise rlp.BadRlp(f"header: {name}: expected a number as RLP has it, below 2^256")
        of[name] = field
    return Header(
        number=int.from_bytes(of["number"]),
        hash=Hash32(keccak(encoded)),
        parent=Hash32(of["parentHash"]),
        time=int.from_bytes(of["timestamp"]),
        state_root=Hash32(of["stateRoot"]),
        transactions_root=Hash32(of["transactionsRoot"]),
        receipts_root=Hash32(of["receiptsRoot"]),
        bloom=of["logsBloom"],
    )


def header_hash(block: Object) -> Hash32:
    """The hash that the header's own content gives, whatever `block["hash"]` says. Raises Malformed."""
    return Hash32(keccak(encode_header(block)))

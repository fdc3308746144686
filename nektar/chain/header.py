"""A block's hash, recomputed from its header (yellow paper 4.4.3, and the EIPs below).

Each fork appended fields and took none away, so the fields that are there say which fork it is. A field that
is left out or made up changes the hash.
"""

from __future__ import annotations

from nektar.chain import rlp
from nektar.chain.jsonrpc import Malformed, Object, octets, quantity
from nektar.chain.keccak import keccak
from nektar.model import Hash32

BLOOM_BYTES = 256
NUMBER = -1  # instead of a size in bytes
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


def header_hash(block: Object) -> Hash32:
    """The hash that the header's own content gives, whatever `block["hash"]` says. Raises Malformed."""
    return Hash32(keccak(encode_header(block)))

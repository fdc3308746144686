"""A receipt as `receiptsRoot` covers it (yellow paper 4.3.1; EIP-658 and EIP-2718).

Covered are the type, the status (before Byzantium the state root), the gas used so far, the bloom, and each
log's address, topics and data. Where a log stands in the block, and in which transaction, is covered by
being where it is: positions are counted, and never copied.
"""

from __future__ import annotations

import msgspec

from nektar.chain import rlp
from nektar.chain.bloom import bloom
from nektar.chain.jsonrpc import Malformed, Object, items, objects, octets, parse_octets, quantity
from nektar.chain.transaction import LEGACY, SET_CODE, transaction_type
from nektar.model import Address, Hash32

MAX_TOPICS = 4  # LOG0 to LOG4
_DEPTH = 4  # lists in lists: receipt, logs, log, topics


class Entry(msgspec.Struct, frozen=True):
    """What a contract logged, before anyone says where."""

    address: Address
    topics: tuple[Hash32, ...]
    data: bytes


class Receipt(msgspec.Struct, frozen=True):
    """What a receipt says, all of it in `raw`."""

    type: int
    status: bool | None  # None: before Byzantium receipts did not say
    bloom: bytes
    entries: tuple[Entry, ...]
    raw: bytes  # EIP-2718 envelope: what the trie holds


def read_entry(log: Object) -> Entry:
    """What a log of `eth_getBlockReceipts` or `eth_getLogs` says that a root can cover. Raises Malformed."""
    topics = tuple(Hash32(parse_octets(topic, "topics", 32)) for topic in items(log, "topics"))
    if len(topics) > MAX_TOPICS:
        raise Malformed(f"topics: expected at most {MAX_TOPICS}; got {len(topics)}")
    return Entry(Address(octets(log, "address", 20)), topics, octets(log, "data"))


def read_receipt(receipt: Object) -> Receipt:
    """One of the receipts that `eth_getBlockReceipts` answers with; its bloom is computed from its logs.

    Raises Malformed, also for a type it does not know.
    """
    kind, status = type_and_status(receipt)
    entries = tuple(read_entry(log) for log in objects(receipt, "logs"))
    filter_ = bloom(entries)
    raw = encode_receipt(receipt, filter_, b"".join(map(_encode_entry, entries)))
    return Receipt(kind, status, filter_, entries, raw)


def decode_receipt(raw: bytes) -> Receipt:
    """The receipt of an envelope, as the trie holds it. Raises BadRlp, also where its bloom is not of its
    logs."""
    kind = raw[0] if raw[:1] and raw[0] <= SET_CODE else LEGACY
    fields = rlp.decode(raw[1:] if kind else raw, depth=_DEPTH)
    if isinstance(fields, bytes) or len(fields) != 4:
        raise rlp.BadRlp("receipt: expected a list of 4 fields")
    first, gas, filter_, logs = fields
    if not isinstance(first, bytes) or not isinstance(gas, bytes) or isinstance(logs, bytes):
        raise rlp.BadRlp("receipt: expected a status, gas, a bloom, and a list of logs")
    if len(first) != 32 and first not in (b"", b"\x01"):
        raise rlp.BadRlp("receipt: expected a status of 0 or 1, or a state root")
    entries = tuple(map(_decode_entry, logs))
    if filter_ != bloom(entries):
        raise rlp.BadRlp("receipt: expected the bloom of its logs; got another")
    return Receipt(kind, bool(first) if len(first) < 32 else None, filter_, entries, raw)


def _decode_entry(item: rlp.Item) -> Entry:
    if isinstance(item, bytes) or len(item) != 3:
        raise rlp.BadRlp("log: expected a list of 3 fields")
    address, topics, data = item
    if not isinstance(address, bytes) or len(address) != 20 or not isinstance(data, bytes):
        raise rlp.BadRlp("log: expected an address of 20 bytes, topics and data")
    if isinstance(topics, bytes) or len(topics) > MAX_TOPICS:
        raise rlp.BadRlp(f"log: expected a list of at most {MAX_TOPICS} topics")
    words = [topic for topic in topics if isinstance(topic, bytes) and len(topic) == 32]
    if len(words) != len(topics):
        raise rlp.BadRlp("log: expected topics of 32 bytes")
    return Entry(Address(address), tuple(map(Hash32, words)), data)


def type_and_status(receipt: Object) -> tuple[int, bool | None]:
    """A receipt's type, and whether its transaction succeeded; None: it does not say. Raises Malformed."""
    kind = transaction_type(receipt)
    if not LEGACY <= kind <= SET_CODE:
        raise Malformed(f"type: expected a receipt of type 0 to 4; got {kind}")
    if receipt.get("status") is None:
        return kind, None
    if (number := quantity(receipt, "status")) > 1:
        raise Malformed(f"status: expected 0x0 or 0x1; got {number:#x}")
    return kind, bool(number)


def encode_receipt(receipt: Object, filter_: bytes, entries: bytes) -> bytes:
    """The envelope of a receipt whose logs have this bloom, and, one after the other, this RLP. Raises
    Malformed."""
    kind, status = type_and_status(receipt)
    encoded = rlp.sequence(
        (
            rlp.string(octets(receipt, "root", 32)) if status is None else rlp.number(int(status)),
            rlp.number(quantity(receipt, "cumulativeGasUsed")),
            rlp.string(filter_),
            rlp.list_head(len(entries)) + entries,
        )
    )
    return bytes((kind,)) + encoded if kind else encoded


def _encode_entry(entry: Entry) -> bytes:
    # 0x94 and 0xa0: RLP prefixes of 20 and of 32 bytes.
    topics = rlp.sequence(b"\xa0" + topic for topic in entry.topics)
    return rlp.sequence((b"\x94" + entry.address, topics, rlp.string(entry.data)))

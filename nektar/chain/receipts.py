"""Receipts of many blocks at once (`eth_getBlockReceipts`), encoded as `receiptsRoot` covers them.

What is one log's in `receipt.py` is all logs' here: their RLP is written as columns, their bloom's bits are
computed as columns, and only receipts themselves are looked at one by one. The text of an answer is taken
apart by its braces; what is written in another way than nodes write it is parsed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from nektar.chain import logs as columns
from nektar.chain import rlp, scan
from nektar.chain.columns import Ints, Octets
from nektar.chain.header import BLOOM_BYTES
from nektar.chain.jsonrpc import Object, check_density, is_dense, objects, parse_object
from nektar.chain.keccak import keccak
from nektar.chain.logs import Logs
from nektar.chain.receipt import encode_receipt

_LOGS, _RESULT = b'"logs":[', b'"result":['


class Receipts(NamedTuple):
    """Receipts in the order of the answer, and the logs of all of them."""

    said: Sequence[Object]  # each as JSON-RPC has it, without its logs
    logs: Logs
    ends: Ints  # how many logs the receipts up to this one have


class _Reply(msgspec.Struct):
    result: list[Any]
    error: Any = None


_replies = msgspec.json.Decoder(list[_Reply] | _Reply)
_objects = msgspec.json.Decoder(list[dict[str, Any]])


def read(body: bytes) -> Receipts | None:
    """The receipts of an answer to one call, or to several in one request; None where one has none, but an
    error. Raises Malformed."""
    found = regular(body)
    return _parsed(body) if found is None else found


def _parsed(body: bytes) -> Receipts | None:
    check_density(body)
    try:
        decoded = _replies.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    replies = decoded if isinstance(decoded, list) else [decoded]
    if any(reply.error is not None for reply in replies):
        return None
    said = [each for reply in replies for each in reply.result]
    found = [objects(parse_object(each, "receipts"), "logs") for each in said]
    logs = columns.one_by_one(msgspec.json.encode([log for each in found for log in each]))
    return Receipts(
        [{**each, "logs": []} for each in said],
        logs,
        np.cumsum([len(each) for each in found], dtype=np.int64),
    )


def regular(body: bytes) -> Receipts | None:
    """The same of an answer that is written as nodes write it; None for any other. Raises Malformed."""
    characters = np.frombuffer(body, np.uint8)
    opens = np.flatnonzero(characters == ord("{"))
    if is_dense(len(opens), len(body)):
        return None
    closes = np.flatnonzero(characters == ord("}"))
    if len(opens) != len(closes):
        return None
    # How many objects are open at each brace: before it for one that closes, with it for one that opens.
    before = np.searchsorted(closes, opens)
    depth_opened = np.arange(1, len(opens) + 1) - before
    depth_closed = np.searchsorted(opens, closes) - np.arange(len(closes))
    if len(opens) and (depth_opened.max() > 3 or depth_closed.min() < 1):
        return None
    starts = [opens[depth_opened == depth] for depth in (1, 2, 3)]
    ends = [closes[depth_closed == depth] + 1 for depth in (1, 2, 3)]
    if any(len(a) != len(b) for a, b in zip(starts, ends, strict=True)):
        return None
    outer = _without(body, characters, Cut(starts[0], ends[0]), Cut(starts[1], ends[1]), _RESULT)
    inner = _without(body, characters, Cut(starts[1], ends[1]), Cut(starts[2], ends[2]), _LOGS)
    if outer is None or inner is None:
        return None
    around, within = _around(body, Cut(starts[0], ends[0]), outer), b"[" + b",".join(inner) + b"]"
    check_density(around)
    check_density(within)
    try:
        replies, said = _replies.decode(around), _objects.decode(within)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    results = [reply.result for reply in (replies if isinstance(replies, list) else [replies])]
    # A brace in a text was none, or what is cut out is hidden by a key that comes twice, perhaps escaped.
    for text, key, count, expected in (
        (around, b'"result"', len(results), len(starts[0])),
        (within, b'"logs"', len(said), len(starts[1])),
    ):
        if count != expected or text.count(key) != count or b"\\" in text:
            return None
    if any(results) or any(each.get("logs") != [] for each in said):
        return None
    found = columns.regular(body + bytes(scan.PADDING), starts[2], ends[2])
    return None if found is None else Receipts(said, found, np.searchsorted(starts[2], ends[1]))


class Cut(NamedTuple):
    """Where objects stand in a text."""

    starts: Ints
    ends: Ints


def _around(body: bytes, replies: Cut, texts: Sequence[bytes]) -> bytes:
    """What is around the replies and between them as it stands, and these `texts` in their places."""
    starts, ends = replies.starts.tolist(), replies.ends.tolist()
    parts = [body[end:start] for end, start in zip([0, *ends], [*starts, len(body)], strict=True)]
    return b"".join(part for both in zip(parts, [*texts, b""], strict=True) for part in both)


def _without(body: bytes, characters: Octets, of: Cut, items: Cut, before: bytes) -> list[bytes] | None:
    """The texts of objects without the items of one array each, which begins with `before`; None where items
    stand elsewhere, or anything but a comma is between them."""
    first, last = np.searchsorted(items.starts, of.starts), np.searchsorted(items.starts, of.ends)
    if len(items.starts) > 1:
        together = np.ones(len(items.starts) - 1, bool)
        together[last[(last > first) & (last < len(items.starts))] - 1] = False
        comma = (items.starts[1:] == items.ends[:-1] + 1) & (characters[items.ends[:-1]] == ord(","))
        if not comma[together].all():
            return None
    found = []
    for start, end, low, high in zip(
        of.starts.tolist(), of.ends.tolist(), first.tolist(), last.tolist(), strict=True
    ):
        if low == high:
            found.append(body[start:end])
            continue
        head, tail = body[start : items.starts[low]], body[items.ends[high - 1] : end]
        if not head.endswith(before) or not tail.startswith(b"]"):
            return None
        found.append(head + tail)
    return found


def encoded(of: Receipts, filters: Octets) -> list[bytes]:
    """Each receipt's EIP-2718 envelope, `filters` being the `blooms` of their logs. Raises Malformed."""
    entries, sizes = _entries(of.logs)
    bounds = np.concatenate([[0], np.cumsum(sizes)])[np.concatenate([[0], of.ends])].tolist()
    return [
        encode_receipt(said, filters[row].tobytes(), entries[bounds[row] : bounds[row + 1]])
        for row, said in enumerate(of.said)
    ]


def blooms(of: Receipts) -> Octets:
    """The bloom filter of each receipt's logs, (receipts, 256)."""
    logs = of.logs
    bits = np.zeros((len(of.said), BLOOM_BYTES * 8), bool)
    receipt = np.searchsorted(of.ends, np.arange(len(logs.number)), side="right")
    _set(bits, receipt, logs.address)
    for place in range(int(logs.topic_count.max(initial=0))):
        rows = np.flatnonzero(logs.topic_count > place)
        _set(bits, receipt[rows], logs.topics[rows, place])
    return np.packbits(bits, axis=1)


def _set(bits: Any, receipt: Ints, items: Octets) -> None:
    """Set what each item sets in the filter of its receipt; those are in order."""
    if len(items) and not (items != items[:1]).any():
        receipt, items = receipt[np.flatnonzero(np.diff(receipt, prepend=-1))], items[:1]
    # Bit 0 is the last byte's lowest.
    bits[receipt[:, None], BLOOM_BYTES * 8 - 1 - _bits(items)] = True


def _bits(items: Octets) -> Ints:
    """The three bits of each item, (items, 3): of one that comes again and again, computed once."""
    texts = np.ascontiguousarray(items).view(f"V{items.shape[1]}").ravel().tolist()
    once = dict.fromkeys(texts)
    digests = np.frombuffer(b"".join(map(keccak, once)), np.uint8).reshape(-1, 32)
    found: Ints = np.ascontiguousarray(digests[:, :6]).view(">u2").astype(np.int64) & 2047
    if len(once) == len(texts):
        return found
    row = dict(zip(once, range(len(once)), strict=True))
    return found[[row[text] for text in texts]]


def _entries(logs: Logs) -> tuple[bytes, Ints]:
    """The RLP of every log, one after the other, and how many bytes each has."""
    starts = np.cumsum(logs.data.size) - logs.data.size
    data = np.frombuffer(logs.data.data, np.uint8)
    parts: list[tuple[Ints, Octets]] = []
    for topics, size in set(zip(logs.topic_count.tolist(), logs.data.size.tolist(), strict=True)):
        rows = np.flatnonzero((logs.topic_count == topics) & (logs.data.size == size))
        bodies = data[starts[rows][:, None] + np.arange(size)]
        if size == 1:  # a byte below 0x80 is its own RLP
            low = bodies[:, 0] < 0x80
            parts.append((rows[low], _alike(logs, rows[low], topics, b"", bodies[low])))
            parts.append((rows[~low], _alike(logs, rows[~low], topics, b"\x81", bodies[~low])))
        else:
            parts.append((rows, _alike(logs, rows, topics, rlp.string_head(size), bodies)))
    joined = columns.in_order_of_rows(len(logs.number), parts)
    return joined.data, joined.size


def _alike(logs: Logs, rows: Ints, topics: int, data_head: bytes, data: Octets) -> Octets:
    """The RLP of logs that have as many topics and as much data, a row each."""
    words = np.empty((len(rows), topics, 33), np.uint8)
    words[:, :, 0] = 0xA0
    words[:, :, 1:] = logs.topics[rows, :topics]
    list_head = rlp.list_head(33 * topics)
    size = 21 + len(list_head) + 33 * topics + len(data_head) + data.shape[1]
    head = rlp.list_head(size) + b"\x94"
    found = np.empty((len(rows), len(head) + size - 1), np.uint8)
    at = 0
    for part in (head, logs.address[rows], list_head, words.reshape(len(rows), 33 * topics), data_head, data):
        values = np.frombuffer(part, np.uint8) if isinstance(part, bytes) else part
        width = values.shape[-1]
        found[:, at : at + width] = values
        at += width
    return found

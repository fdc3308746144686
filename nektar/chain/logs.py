"""Logs as JSON-RPC writes them (`eth_getLogs`, and in receipts), read into columns.

Most answers are regular and are read by `scan`, at a fraction of a parse; any other one log by log, with the
same result, or with an error that says what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from nektar.chain import jsonrpc, scan
from nektar.chain.columns import Ints, Joined, Octets
from nektar.chain.jsonrpc import Malformed, parse_octets, quantity
from nektar.chain.receipt import MAX_TOPICS
from nektar.model import Address

# What columns hold, in bits. A header may say more and hash right, and no root covers a log's place; but no
# chain's says more. Numbers of blocks are counted with as signed ones, times are a DateTime in the store.
NUMBER_BITS = 63
TIME_BITS = 32
INDEX_BITS = 32

UNTIMED = -1
HASH, ADDRESS = 32, 20


class Logs(NamedTuple):
    """Logs, a row each, in the order of the answer."""

    number: Ints
    time: Ints  # of the block, in seconds since 1970 UTC; UNTIMED where the log does not say
    block_hash: Octets  # (rows, 32)
    tx_index: Ints
    tx_hash: Octets  # (rows, 32)
    log_index: Ints
    address: Octets  # (rows, 20)
    topics: Octets  # (rows, 4, 32); zero where there is none
    topic_count: Ints
    data: Joined

    def __bool__(self) -> bool:
        return len(self.number) > 0

    @property
    def octets(self) -> int:
        """How many bytes they take here."""
        sizes = [int(getattr(self, name).nbytes) for name in self._fields if name != "data"]
        return sum(sizes) + len(self.data.data) + self.data.size.nbytes

    @property
    def addresses(self) -> set[Address]:
        """Whose they are, each once."""
        alike = not (self.address != self.address[:1]).any()
        joined = (self.address[:1] if alike else self.address).tobytes()
        return {Address(joined[at : at + ADDRESS]) for at in range(0, len(joined), ADDRESS)}

    @classmethod
    def joined(cls, parts: Sequence[Logs]) -> Logs:
        """All of the parts, one of which there is at least, one after the other."""
        if len(parts) == 1:
            return parts[0]
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in cls._fields
            if name != "data"
        }
        return cls(**columns, data=Joined.joined([part.data for part in parts]))

    def take(self, rows: Ints) -> Logs:
        """Those of `rows`, in their order."""
        columns = {name: getattr(self, name)[rows] for name in self._fields if name != "data"}
        return Logs(**columns, data=self.data.take(rows))


class _Text(msgspec.Struct, gc=False):
    """One log as JSON-RPC writes it."""

    address: str
    topics: tuple[str, ...]
    data: str
    block_hash: str = msgspec.field(name="blockHash")
    block_number: str = msgspec.field(name="blockNumber")
    transaction_hash: str = msgspec.field(name="transactionHash")
    transaction_index: str = msgspec.field(name="transactionIndex")
    log_index: str = msgspec.field(name="logIndex")
    block_timestamp: str | None = msgspec.field(name="blockTimestamp", default=None)
    removed: bool = False


_KEYS = frozenset(field.encode_name for field in msgspec.structs.fields(_Text))
_texts = msgspec.json.Decoder(list[_Text])


def read(body: bytes) -> Logs | None:
    """The logs that a JSON-RPC answer has as its result; None where it has none, but an error.

    Raises Malformed, also for logs that a reorg has removed.
    """
    if (array := jsonrpc.result_array(body)) is not None:
        found = _regular(body + bytes(scan.PADDING), *array)
        if found is not None:
            return found
    text = jsonrpc.result(body)
    return None if text is None else one_by_one(text)


def _regular(text: bytes, start: int, end: int) -> Logs | None:
    objects = scan.array_of_objects(text, start + 1, end - 1)
    return None if objects is None else regular(text, *objects)


def regular(text: bytes, starts: Ints, ends: Ints) -> Logs | None:
    """The logs whose texts are `text[start:end]` (see `scan.groups`); None where they are not alike."""
    groups = scan.groups(text, starts, ends, _KEYS)
    if groups is None:
        return None
    try:
        return _columns(len(starts), groups)
    except scan.Unlike:
        return None


def _columns(count: int, groups: Sequence[scan.Group]) -> Logs:
    """The groups' values in the order of their rows. Raises Unlike."""

    def numbers(path: str, bits: int) -> Ints:
        found: Ints = _in_order(count, [(group.rows, group.numbers(path, bits)) for group in groups])
        return found

    def octets(path: str, size: int) -> Octets:
        found: Octets = _in_order(count, [(group.rows, group.octets(path, size)) for group in groups])
        return found

    if not count:
        return one_by_one(b"[]")
    topics = np.zeros((count, MAX_TOPICS, HASH), np.uint8)
    topic_count: Ints = np.zeros(count, np.int64)
    timed = [group.layout.first.get("blockTimestamp") is not None for group in groups]
    if any(timed) and not all(timed):  # what digits stand there, nobody would read
        raise scan.Unlike
    for group in groups:
        said = group.layout.first
        named = said.get("topics")
        if said.get("removed", False) is not False or not isinstance(named, list) or len(named) > MAX_TOPICS:
            raise scan.Unlike
        for place in range(len(named)):
            topics[group.rows, place] = group.octets(f"topics/{place}", HASH)
        topic_count[group.rows] = len(named)
    return Logs(
        number=numbers("blockNumber", NUMBER_BITS),
        time=numbers("blockTimestamp", TIME_BITS) if all(timed) else np.full(count, UNTIMED, np.int64),
        block_hash=octets("blockHash", HASH),
        tx_index=numbers("transactionIndex", INDEX_BITS),
        tx_hash=octets("transactionHash", HASH),
        log_index=numbers("logIndex", INDEX_BITS),
        address=octets("address", ADDRESS),
        topics=topics,
        topic_count=topic_count,
        data=in_order_of_rows(count, [(group.rows, group.octets("data")) for group in groups]),
    )


def _in_order(count: int, parts: Sequence[tuple[Ints, Any]]) -> Any:
    """The values of all rows, from those of some rows each."""
    if len(parts) == 1:
        return parts[0][1]
    found = np.empty((count, *parts[0][1].shape[1:]), parts[0][1].dtype)
    for rows, values in parts:
        _whole(found)[rows] = _whole(values)
    return found


def _whole(values: Any) -> Any:
    """Rows as one value each, which are moved faster than their parts."""
    width = values.itemsize * (values.shape[1] if values.ndim > 1 else 1)
    return np.ascontiguousarray(values).view(f"V{width}").ravel() if width else values


def in_order_of_rows(count: int, parts: Sequence[tuple[Ints, Octets]]) -> Joined:
    """The bytes of all rows, from those of some rows each, which may differ in how many they have."""
    sizes: Ints = np.zeros(count, np.int64)
    for rows, values in parts:
        sizes[rows] = values.shape[1]
    if len({values.shape[1] for _, values in parts}) == 1:
        return Joined(_in_order(count, parts).tobytes(), sizes)
    joined = np.empty(sizes.sum(), np.uint8)
    starts = np.cumsum(sizes) - sizes
    for rows, values in parts:
        joined[starts[rows][:, None] + np.arange(values.shape[1])] = values
    return Joined(joined.tobytes(), sizes)


def one_by_one(array: bytes) -> Logs:
    """The logs of a JSON array, by a parse of each. Raises Malformed."""
    try:
        texts = _texts.decode(array)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"logs: expected them as JSON-RPC has them; {error}") from None
    if any(text.removed for text in texts):
        raise Malformed("logs: the node says that a reorg has removed one; ask again")
    if texts and max(len(text.topics) for text in texts) > MAX_TOPICS:
        raise Malformed(f"topics: expected at most {MAX_TOPICS}; got more")
    topics = np.zeros((len(texts), MAX_TOPICS, HASH), np.uint8)
    for row, text in enumerate(texts):
        for place, topic in enumerate(text.topics):
            topics[row, place] = np.frombuffer(parse_octets(topic, "topics", HASH), np.uint8)
    untimed = any(text.block_timestamp is None for text in texts)
    return Logs(
        number=_numbers([text.block_number for text in texts], "blockNumber", NUMBER_BITS),
        time=np.full(len(texts), UNTIMED, np.int64)
        if untimed
        else _numbers([text.block_timestamp for text in texts], "blockTimestamp", TIME_BITS),
        block_hash=_octets([text.block_hash for text in texts], "blockHash", HASH),
        tx_index=_numbers([text.transaction_index for text in texts], "transactionIndex", INDEX_BITS),
        tx_hash=_octets([text.transaction_hash for text in texts], "transactionHash", HASH),
        log_index=_numbers([text.log_index for text in texts], "logIndex", INDEX_BITS),
        address=_octets([text.address for text in texts], "address", ADDRESS),
        topics=topics,
        topic_count=np.fromiter((len(text.topics) for text in texts), np.int64, len(texts)),
        data=Joined.of([parse_octets(text.data, "data") for text in texts]),
    )


def _numbers(texts: Sequence[str | None], name: str, bits: int) -> Ints:
    return np.fromiter((quantity({name: text}, name, bits) for text in texts), np.int64, len(texts))


def _octets(texts: Sequence[str], name: str, size: int) -> Octets:
    found = b"".join(parse_octets(text, name, size) for text in texts)
    return np.frombuffer(found, np.uint8).reshape(len(texts), size)


NO_LOGS = one_by_one(b"[]")

"""One partition number of the embedded bus: a file with its streams, their consumers' offsets, and fences.

All co-partitioned streams of the Networks lie in one such file, so that outputs, consumed offsets and a
checkpoint are one SQLite transaction; telemetry's lie in another, where no Network waits for them. SQLite
lets one writer in at a time and shows readers committed transactions only, which is the order and the
isolation that the port promises.

A **fence** is a name with an epoch that only grows: `writer:<transactional id>` and `group:<group>`. Whoever
writes shows its epoch inside its transaction; where the file knows a later one, it is a zombie.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from nektar.bus.database import Database
from nektar.bus.port import BusError, Delivered, Fenced, Message
from nektar.bus.rules import COMPACTED, KEPT_SECONDS, OFFSET_BITS, PASSING

# A message's row id is its stream's number and its offset, so that one B-tree holds each stream in order.
MAX_STREAMS = 1 << 14

# One read returns about this much at most, so that 500 large messages are not held in memory at once.
FETCH_BYTES = 16 * 1024 * 1024

_SCHEMA = """
CREATE TABLE streams (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, next INTEGER NOT NULL);
CREATE TABLE messages (
  id INTEGER PRIMARY KEY, time REAL NOT NULL, key BLOB NOT NULL, headers BLOB, value BLOB NOT NULL
);
CREATE INDEX messages_by_key ON messages (key);
CREATE TABLE offsets (
  "group" TEXT NOT NULL, stream TEXT NOT NULL, next INTEGER NOT NULL, PRIMARY KEY ("group", stream)
) WITHOUT ROWID;
CREATE TABLE fences (name TEXT PRIMARY KEY, epoch INTEGER NOT NULL) WITHOUT ROWID
"""

_headers = msgspec.msgpack.Decoder(dict[str, bytes])


class Partition:
    """A connection to one partition's file, made where it does not exist yet. One thread at a time."""

    def __init__(self, path: Path, number: int) -> None:
        self.number = number
        self._database = Database(path, _SCHEMA)
        self._ids: dict[str, int] = {}

    # --- reading ------------------------------------------------------------------------------------

    def version(self) -> int:
        """A number that changes when another connection has committed to this partition."""
        return self._database.version()

    def read(self, stream: str, start: int, max_messages: int) -> list[Delivered]:
        """Committed messages from offset `start` on, in order; fewer than there are where they are large."""
        found: list[Delivered] = []
        first = self._first(stream)
        if first is None:
            return found
        size = 0
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT id, time, key, headers, value FROM messages"
                " WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
                (first + start, first + (1 << OFFSET_BITS), max_messages),
            )
            for row in rows:
                found.append(self._delivered(stream, first, row))
                size += len(row[4])
                if size >= FETCH_BYTES:
                    break
            rows.close()
        return found

    def last(self, stream: str, key: bytes) -> Delivered | None:
        """The newest committed message with this key."""
        first = self._first(stream)
        if first is None:
            return None
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT id, time, key, headers, value FROM messages"
                " WHERE key = ? AND id >= ? AND id < ? ORDER BY id DESC LIMIT 1",
                (key, first, first + (1 << OFFSET_BITS)),
            ).fetchone()
        return None if row is None else self._delivered(stream, first, row)

    def end(self, stream: str) -> int:
        """The offset that the next message will have."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT next FROM streams WHERE name = ?", (stream,)).fetchone()
        return row[0] if row else 0

    def committed(self, group: str) -> dict[str, int]:
        """stream → next offset to read, for every stream in which the group has committed one."""
        with self._database.reading() as connection:
            return dict(
                connection.execute('SELECT stream, next FROM offsets WHERE "group" = ?', (group,)).fetchall()
            )

    def epoch(self, fence: str) -> int:
        """The epoch that `fence` stands at; 0 where it has never been raised."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT epoch FROM fences WHERE name = ?", (fence,)).fetchone()
        return row[0] if row else 0

    def _first(self, stream: str) -> int | None:
        """The row id of the stream's offset 0. A stream's number never changes once it is committed."""
        if stream not in self._ids:
            with self._database.reading() as connection:
                row = connection.execute("SELECT id FROM streams WHERE name = ?", (stream,)).fetchone()
            if row is None:
                return None
            self._ids[stream] = row[0]
        return self._ids[stream] << OFFSET_BITS

    def _delivered(self, stream: str, first: int, row: tuple[int, float, bytes, bytes, bytes]) -> Delivered:
        id_, when, key, packed, value = row
        headers = _headers.decode(packed) if packed else {}
        return Delivered(stream, self.number, id_ - first, key, value, headers, when)

    # --- writing ------------------------------------------------------------------------------------

    def raise_fence(self, fence: str, above: int = 0) -> int:
        """Fence whoever holds `fence`; returns the epoch that is now ours, which is higher than `above`."""
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO fences VALUES (:fence, :above + 1)"
                " ON CONFLICT DO UPDATE SET epoch = max(epoch, :above) + 1",
                {"fence": fence, "above": above},
            )
            row = connection.execute("SELECT epoch FROM fences WHERE name = ?", (fence,)).fetchone()
            return int(row[0])

    def hold(self, fence: str, epoch: int) -> None:
        """Take up `fence` with an epoch given out elsewhere (a lease's). Raises Fenced for an old one."""
        with self._database.writing() as connection:
            self._show(connection, fence, epoch)

    def write(
        self,
        messages: Sequence[Message],
        offsets: Mapping[str, int],
        group: str,
        fences: Mapping[str, int],
    ) -> None:
        """Append `messages` and set the group's `offsets` in one transaction, showing `fences`.

        Raises Fenced, BusFull, BusError; then nothing was written.
        """
        with self._database.writing() as connection:
            for fence, epoch in fences.items():
                self._show(connection, fence, epoch)
            connection.executemany(
                "INSERT OR REPLACE INTO offsets VALUES (?, ?, ?)",
                [(group, stream, offset) for stream, offset in offsets.items()],
            )
            self._append(connection, messages)

    def close(self) -> None:
        self._database.close()

    def _show(self, connection: sqlite3.Connection, fence: str, epoch: int) -> None:
        row = connection.execute("SELECT epoch FROM fences WHERE name = ?", (fence,)).fetchone()
        known = row[0] if row else 0
        if known > epoch:
            raise Fenced(
                f"partition {self.number}: {fence} is at epoch {known}, ours was {epoch}: "
                "another process has taken over; stop this one"
            )
        if known < epoch:
            connection.execute("INSERT OR REPLACE INTO fences VALUES (?, ?)", (fence, epoch))

    def _append(self, connection: sqlite3.Connection, messages: Sequence[Message]) -> None:
        now = time.time()
        next_ids: dict[str, int] = {}
        rows = []
        for message in messages:
            id_ = next_ids.get(message.stream)
            if id_ is None:
                id_ = _next_id(connection, message.stream)
            next_ids[message.stream] = id_ + 1
            headers = msgspec.msgpack.encode(message.headers) if message.headers else None
            rows.append((id_, now, message.key, headers, message.value))
        connection.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?)", rows)
        connection.executemany(
            "UPDATE streams SET next = ? WHERE name = ?",
            [(id_ & ((1 << OFFSET_BITS) - 1), stream) for stream, id_ in next_ids.items()],
        )
        for stream in COMPACTED.intersection(next_ids):
            _compact(connection, next_ids[stream], {m.key for m in messages if m.stream == stream})
        for stream in PASSING.intersection(next_ids):
            _let_go(connection, next_ids[stream], now - KEPT_SECONDS, 2 * len(messages))


def _next_id(connection: sqlite3.Connection, stream: str) -> int:
    row = connection.execute("SELECT id, next FROM streams WHERE name = ?", (stream,)).fetchone()
    if row is None:
        ((count,),) = connection.execute("SELECT count(*) FROM streams").fetchall()
        if count >= MAX_STREAMS:
            raise BusError(f"stream {stream!r}: expected at most {MAX_STREAMS} streams; use another bus")
        connection.execute("INSERT INTO streams (name, next) VALUES (?, 0)", (stream,))
        row = connection.execute("SELECT id, next FROM streams WHERE name = ?", (stream,)).fetchone()
    return int(row[0]) << OFFSET_BITS | int(row[1])


def _compact(connection: sqlite3.Connection, end_id: int, keys: Iterable[bytes]) -> None:
    """Delete all but the newest message of each key in the stream that ends before `end_id`."""
    first = end_id >> OFFSET_BITS << OFFSET_BITS
    for key in keys:
        connection.execute(
            "DELETE FROM messages WHERE key = :key AND id >= :first AND id <"
            " (SELECT max(id) FROM messages WHERE key = :key AND id >= :first AND id < :end)",
            {"key": key, "first": first, "end": end_id},
        )


def _let_go(connection: sqlite3.Connection, end_id: int, before: float, most: int) -> None:
    """Delete the oldest messages of the stream that ends before `end_id`, those produced before this time;
    a few more at a time than are written, so that it keeps up and takes no long time."""
    connection.execute(
        "DELETE FROM messages WHERE time < :before AND id IN"
        " (SELECT id FROM messages WHERE id >= :first AND id < :end ORDER BY id LIMIT :most)",
        {"before": before, "first": end_id >> OFFSET_BITS << OFFSET_BITS, "end": end_id, "most": most},
    )

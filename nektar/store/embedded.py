"""The embedded store: chDB in this process, which owns its path."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

from nektar.arrow import pa
from nektar.store import native, readonly
from nektar.store.driver import Ask, DriverStore
from nektar.store.port import SqlError, StoreDown, StoreHeld, failure, holder
from nektar.store.schema import literal, quoted

# Far more than a definition takes, so that whatever else writes to the disk meanwhile leaves room for it.
DEFINITION_BYTES = 16 << 20
# mallopt(3): blocks of this size and more are mapped one by one, and unmapped when they are freed. By itself
# glibc raises that to 32 MB once such a block was freed, and keeps in the process what answers have taken.
_M_MMAP_THRESHOLD, MAPPED_BYTES = -3, 1 << 20
# Whoever sets that has set for good, at 128 KB, how much of what is free is kept in the process: so little
# that each message's memory would be given back, and asked for again page by page.
_M_TRIM_THRESHOLD, KEPT_BYTES = -1, 32 << 20

# Where both want a processor, merges of parts get a tenth of what those get who read and write. Should they
# fall behind, ClickHouse makes inserts wait for them.
_ENGINE = "os_threads_nice_value_merge_mutate=10"

_TIME = "max_execution_time"
_NAMES_AND_TYPES = "JSONCompactEachRowWithNamesAndTypes"


class EmbeddedStore(DriverStore):
    """A chDB directory, through clickhouse-connect. One process a path, one path a process."""

    def __init__(self, url: str, path: Path) -> None:
        if held := holder(path):
            raise StoreHeld(
                f"store {path}: held by {held}, a store role or whoever else has it open; stop that first"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreDown(f"store {path}: can't be made: {error.strerror}") from None
        self._path = str(path.resolve())
        if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
            mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)
            mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        import chdb

        self._connect: Any = chdb.connect
        # The first connection decides for all of the process, for as long as there is one.
        self._inserting = _Kept(lambda: self._connect(f"{self._path}?{_ENGINE}"))
        self._rewriting = _Kept(self._for_rewriting)
        try:
            with self._inserting.one():
                super().__init__(url, f"chdb://{self._path}")
        except (RuntimeError, SqlError) as error:  # chDB does not say that another process was quicker
            self._inserting.close()
            raise StoreHeld(
                f"store {path}: can't be opened ({error}); see that no other process has it open, or put a "
                "copy of it back"
            ) from error

    def command(self, sql: str) -> None:
        """See `Store.command`. Not on a disk that is almost full: chDB leaves an empty file there for the
        view that it could not write, and a store with such a file never opens again."""
        defines = not sql.startswith(("SYSTEM ", "INSERT "))
        if defines and shutil.disk_usage(self._path).free < DEFINITION_BYTES:
            raise StoreDown(
                f"store {self._path}: the disk is full (expected {DEFINITION_BYTES >> 20} MB free to "
                "define tables in); what was stored is kept: free space and start again"
            )
        super().command(sql)

    def _for_rewriting(self) -> Any:
        connection = self._connect(self._path)
        _set(connection, readonly.settings({}))
        return connection

    def end(self, query_id: str) -> None:
        """See `Store.end`."""
        try:
            with closing(self._connect(self._path)) as connection:
                connection.query(f"KILL QUERY WHERE Settings['log_comment'] = {literal(query_id)} ASYNC")
        except Exception as error:
            raise failure(error, self.url) from error

    def _put(self, table: str, rows: Any, settings: Mapping[str, object]) -> None:
        """By way of memory: clickhouse-connect would compress the rows and write them to a file first."""
        names = ", ".join(map(quoted, rows.column_names))
        chosen = ", ".join(f"{name} = {literal(str(value))}" for name, value in settings.items())
        with self._inserting.one() as connection, _in_memory() as file:
            place = f"/dev/fd/{file.fileno()}"
            # Not by way of Python, which would write each buffer when it has the interpreter's lock again.
            with pa.OSFile(place, "w") as sink, pa.ipc.new_stream(sink, rows.schema) as stream:
                stream.write_table(rows)
            file.seek(0)
            connection.query(
                f"INSERT INTO {quoted(table)} ({names}) FROM INFILE {literal(place)}"
                f" COMPRESSION 'none' SETTINGS {chosen} FORMAT ArrowStream"
            )

    def close(self) -> None:
        self._inserting.close()
        self._rewriting.close()
        super().close()

    def _written(self, sql: str, query_id: str) -> str:
        """On a connection that is kept: it is over too soon to be ended (`readonly.rewriting`), and leaves
        nothing to give back."""
        with self._rewriting.one() as connection:
            return readonly.rewritten(connection.query(readonly.rewriting(sql), "TSVRaw").bytes())

    @contextmanager
    def _asking(self, settings: Mapping[str, str], database: str | None, query_id: str) -> Iterator[Ask]:
        # chDB gives queries ids of its own, so ours is the comment by which `end` finds them. It stands
        # first, since what is set after `readonly` is refused, and is not for the asker to choose.
        mark = {"log_comment": query_id}
        settings = {**mark, **settings, **mark}
        began = time.monotonic()

        def ask(sql: str, fmt: str, params: Mapping[str, str]) -> bytes:
            with self._under(settings, database) as connection:
                body = _piped(connection, sql, fmt, params)
            if body or readonly.format_of(sql, fmt) != "Native":
                return body
            # DESCRIBE runs scalar subqueries again: in the time that the query has left.
            left = float(settings[_TIME]) - (time.monotonic() - began)
            with self._under({**settings, _TIME: f"{max(left, 0.001):.3f}"}, database) as connection:
                return _no_rows(connection, readonly.without_format(sql), params)

        try:
            yield ask
        finally:
            self._give_back()

    @contextmanager
    def _under(self, settings: Mapping[str, str], database: str | None) -> Iterator[Any]:
        """A connection of its own keeps USE and SET private and runs beside others."""
        with closing(self._connect(self._path)) as connection:
            if database:
                connection.query(f"USE {quoted(database)}")
            _set(connection, settings)
            yield connection

    def _give_back(self) -> None:
        """Have the allocator return what the query took. It keeps that for seconds, and of several greedy
        queries' leftovers the process would grow past its limit; where there is little, this takes 1 ms."""
        with closing(self._connect(self._path)) as connection:
            connection.query("SYSTEM JEMALLOC PURGE")


class _Kept:
    """Connections that are kept for whoever wants one next: nobody waits for another's."""

    def __init__(self, open_: Callable[[], Any]) -> None:
        self._open = open_
        self._idle: list[Any] = []

    @contextmanager
    def one(self) -> Iterator[Any]:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._open()
        try:
            yield connection
        finally:
            self._idle.append(connection)

    def close(self) -> None:
        """Close all; none is in use."""
        while self._idle:
            self._idle.pop().close()


def _set(connection: Any, settings: Mapping[str, str]) -> None:
    connection.query("SET " + ", ".join(f"{name} = {literal(value)}" for name, value in settings.items()))


def _in_memory() -> IO[bytes]:
    """A file that is nowhere else, or on systems that have no such file, one on the disk without a name."""
    if create := getattr(os, "memfd_create", None):
        return os.fdopen(create("rows"), "wb", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _piped(connection: Any, sql: str, fmt: str, params: Mapping[str, str]) -> bytes:
    """What the query answers. Raises Refused where it is too long.

    Through a pipe: what chDB returns it first holds whole, outside of all limits, however long it is.
    """
    fmt, bare = readonly.format_of(sql, fmt), readonly.without_format(sql)
    reading, writing = os.pipe()
    with ThreadPoolExecutor(1, "answer") as reader:
        coming = reader.submit(_drained, reading)
        try:
            try:
                outfile = literal(f"/dev/fd/{writing}")
                connection.query(f"{bare} INTO OUTFILE {outfile} TRUNCATE FORMAT {fmt}", params=dict(params))
            finally:
                os.close(writing)
        except Exception:
            coming.result()  # where nobody read on, that is why it failed
            raise
        return coming.result()


def _drained(reading: int) -> bytes:
    """All that comes through a pipe. Raises Refused where that is more than an answer may have: before it is
    copied, since an exception keeps for a while what its frames hold."""
    size = 0
    try:
        # A page of it that nothing is written to takes no memory.
        with mmap.mmap(-1, readonly.MAX_ANSWER_BYTES + 1) as room:
            with memoryview(room) as view:
                while size < len(view) and (more := os.readv(reading, [view[size:]])):
                    size += more
            if size > readonly.MAX_ANSWER_BYTES:
                raise readonly.too_long()
            return room[:size]
    finally:
        os.close(reading)


def _no_rows(connection: Any, sql: str, params: Mapping[str, str]) -> bytes:
    """The Native block that names a query's columns and holds no rows, which chDB leaves out."""
    if sql.startswith(("SELECT", "WITH")):
        described = connection.query(f"DESCRIBE TABLE ({sql})", "JSONCompactEachRow", params=dict(params))
        columns = [native.Values(*_loaded(line)[:2]) for line in described.bytes().splitlines()]
    else:  # SHOW and its like stand in no other query, and cost nothing to ask again
        names, types = connection.query(sql, _NAMES_AND_TYPES, params=dict(params)).bytes().splitlines()
        columns = [native.Values(*pair) for pair in zip(_loaded(names), _loaded(types), strict=True)]
    return native.block(columns, 0)


def _loaded(line: bytes) -> Any:
    """Names as JSON, which may be any bytes."""
    return json.loads(line.decode(errors="surrogateescape"))

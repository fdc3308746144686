"""The embedded store: chDB in this process, which owns its path."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nektar.store import readonly
from nektar.store.driver import Ask, DriverStore
from nektar.store.port import SqlError, StoreDown, StoreHeld, holder
from nektar.store.schema import literal, quoted

# Far more than a definition takes, so that whatever else writes to the disk meanwhile leaves room for it.
DEFINITION_BYTES = 16 << 20


class EmbeddedStore(DriverStore):
    """A chDB directory, through clickhouse-connect. One process a path, one path a process."""

    def __init__(self, url: str, path: Path) -> None:
        if held := holder(path):
            raise StoreHeld(f"store {path}: held by {held}: the store role runs already; stop it first")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreDown(f"store {path}: can't be made: {error.strerror}") from None
        self._path = str(path.resolve())
        import chdb

        self._connect: Any = chdb.connect
        try:
            super().__init__(url, f"chdb://{self._path}")
        except SqlError as error:  # chDB does not say that another process was quicker
            raise StoreHeld(
                f"store {path}: can't be opened ({error}); see that no other process has it open, or put a "
                "copy of it back"
            ) from error

    def command(self, sql: str) -> None:
        """See `Store.command`. Not on a disk that is almost full: chDB leaves an empty file there for the
        view that it could not write, and a store with such a file never opens again."""
        if shutil.disk_usage(self._path).free < DEFINITION_BYTES:
            raise StoreDown(
                f"store {self._path}: the disk is full (expected {DEFINITION_BYTES >> 20} MB free to "
                "define tables in); what was stored is kept: free space and start again"
            )
        super().command(sql)

    @contextmanager
    def _asking(self, settings: Mapping[str, str], database: str | None) -> Iterator[Ask]:
        """A connection of its own keeps USE and SET private and runs beside others."""
        connection = self._connect(self._path)
        try:
            if database:
                connection.query(f"USE {quoted(database)}")
            connection.query("SET " + ", ".join(f"{k} = {literal(v)}" for k, v in settings.items()))

            def ask(sql: str, fmt: str, params: Mapping[str, str]) -> bytes:
                body = bytes(connection.query(sql, fmt, params=dict(params)).bytes())
                if not body and readonly.format_of(sql, fmt) == "Native":
                    return _no_rows(connection, readonly.without_format(sql), params)
                return body

            yield ask
        finally:
            connection.close()


def _no_rows(connection: Any, sql: str, params: Mapping[str, str]) -> bytes:
    """The Native block that names a query's columns and holds no rows, which chDB leaves out."""
    asked = connection.query(f"DESCRIBE TABLE ({sql})", "JSONCompactEachRow", params=dict(params))
    columns = [json.loads(line)[:2] for line in asked.bytes().splitlines()]
    parts = [_varint(len(columns)), _varint(0)]
    for text in (text for column in columns for text in column):
        parts += [_varint(len(text.encode())), text.encode()]
    return b"".join(parts)


def _varint(number: int) -> bytes:
    """LEB128, as ClickHouse's Native format counts."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])

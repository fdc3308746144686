"""The embedded store: chDB in this process, which owns its path."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from nektar.store import readonly
from nektar.store.client import StoreDown, failure, holder, refusal
from nektar.store.schema import literal, quoted


class EmbeddedStore:
    """A chDB directory, through clickhouse-connect. One process a path, one path a process."""

    def __init__(self, url: str, path: Path) -> None:
        self.url = url
        if held := holder(path):
            raise StoreDown(f"store {path}: held by {held}: the store role runs already; stop it first")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreDown(f"store {path}: can't be made: {error.strerror}") from None
        self._path = str(path.resolve())
        import chdb
        import clickhouse_connect

        self._connect: Any = chdb.connect
        try:
            self._client = clickhouse_connect.get_client(dsn=f"chdb://{self._path}")
            names = self.rows(readonly.TABLE_FUNCTIONS)
        except Exception as error:
            raise failure(error, url) from error
        self._table_functions = frozenset(name for (name,) in names)

    def command(self, sql: str) -> None:
        try:
            self._client.command(sql)
        except Exception as error:
            raise failure(error, self.url) from error

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        try:
            return [tuple(row) for row in self._client.query(sql).result_rows]
        except Exception as error:
            raise failure(error, self.url) from error

    def insert(self, table: str, rows: Any, token: str) -> None:
        try:
            self._client.insert_arrow(table, rows, settings={"insert_deduplication_token": token})
        except Exception as error:
            raise failure(error, self.url) from error

    def read(
        self,
        sql: str,
        fmt: str = "TabSeparated",
        params: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
        database: str | None = None,
    ) -> bytes:
        """See `Store.read`. A connection of its own keeps settings private and runs beside others."""
        try:
            chosen = readonly.settings(settings or {})
            connection = self._connect(self._path)
            try:
                if database:
                    connection.query(f"USE {quoted(database)}")
                connection.query("SET " + ", ".join(f"{k} = {literal(v)}" for k, v in chosen.items()))
                written = connection.query(readonly.rewriting(sql), "TSVRaw").bytes().decode().rstrip("\n")
                readonly.check(written, self._table_functions)
                values = dict(params or {})
                body = bytes(connection.query(written, fmt, params=values).bytes())
                if not body and readonly.format_of(written, fmt) == "Native":
                    return _no_rows(connection, readonly.without_format(written), values)
                return body
            finally:
                connection.close()
        except readonly.Refused as refused:
            raise refusal(refused) from None
        except Exception as error:
            raise failure(error, self.url) from error

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _no_rows(connection: Any, sql: str, params: dict[str, str]) -> bytes:
    """The Native block that names a query's columns and holds no rows, which chDB leaves out."""
    asked = connection.query(f"DESCRIBE TABLE ({sql})", "JSONCompactEachRow", params=params)
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

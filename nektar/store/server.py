"""A ClickHouse server as the store, over its HTTP interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from nektar.store import readonly
from nektar.store.client import failure, refusal, unescaped


class ServerStore:
    """`clickhouse://USER:PASSWORD@HOST:PORT/DATABASE`; the database must exist."""

    def __init__(self, url: str) -> None:
        self.url = url
        import clickhouse_connect

        try:
            # Without a session, requests of several threads may run beside each other.
            self._client = clickhouse_connect.get_client(dsn=url, autogenerate_session_id=False)
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
        settings = {"insert_deduplication_token": token, "async_insert": 0}
        try:
            self._client.insert_arrow(table, rows, settings=settings)
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
        """See `Store.read`."""
        try:
            chosen = readonly.settings(settings or {})
            asked = self._client.raw_query(readonly.rewriting(sql), settings=chosen, fmt="TSVRaw")
            written = asked.decode().rstrip("\n")
            readonly.check(written, self._table_functions)
            # The client writes the format itself.
            fmt, written = readonly.format_of(written, fmt), readonly.without_format(written)
            if database:
                chosen["database"] = database
            values = {name: unescaped(value) for name, value in (params or {}).items()}  # it escapes them
            return bytes(self._client.raw_query(written, values, chosen, fmt))
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

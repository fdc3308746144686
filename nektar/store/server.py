"""A ClickHouse server as the store, over its HTTP interface.

The tests hold what is ours here (the URL, errors, what is sent) against a small HTTP server that answers as
ClickHouse does. A real server, its replicas and its user rights are not part of the tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, ClassVar

from nektar.store import readonly
from nektar.store.driver import Ask, DriverStore
from nektar.store.port import unescaped
from nektar.store.schema import literal

_PLACEHOLDER = re.compile(r"\{\w+:[^}]+\}")


class ServerStore(DriverStore):
    """`clickhouse://USER:PASSWORD@HOST:PORT/DATABASE`; the database must exist."""

    insert_settings: ClassVar[Mapping[str, object]] = {**DriverStore.insert_settings, "async_insert": 0}

    def __init__(self, url: str) -> None:
        # Without a session, requests of several threads may run beside each other.
        super().__init__(url, url, autogenerate_session_id=False)

    def end(self, query_id: str) -> None:
        """See `Store.end`."""
        self.command(f"KILL QUERY WHERE query_id = {literal(query_id)} ASYNC")

    def _put(self, table: str, rows: Any, settings: Mapping[str, object]) -> None:
        self._client.insert_arrow(table, rows, settings=settings)

    @contextmanager
    def _asking(self, settings: Mapping[str, str], database: str | None, query_id: str) -> Iterator[Ask]:
        # An error is an answer of its own, instead of the end of one.
        sent = {**settings, "wait_end_of_query": "1"} | ({"database": database} if database else {})
        if query_id:
            sent["query_id"] = query_id

        def ask(sql: str, fmt: str, params: Mapping[str, str]) -> bytes:
            # Without a placeholder for the server, the client would write the values into the text itself,
            # which has been checked as it stands.
            params = params if _PLACEHOLDER.search(sql) else {}
            values = {name: unescaped(value) for name, value in params.items()}  # the client escapes them
            # The format too is the client's to write.
            sql, fmt = readonly.without_format(sql), readonly.format_of(sql, fmt)
            stream = self._client.raw_stream(sql, values, sent, fmt, use_database=database is None)
            with closing(stream):
                answer = bytes(stream.read(readonly.MAX_ANSWER_BYTES + 1))
            if len(answer) > readonly.MAX_ANSWER_BYTES:
                raise readonly.too_long()
            return answer

        yield ask

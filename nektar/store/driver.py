"""What both stores do alike: statements, rows and inserts through a clickhouse-connect client, and the gate
that a stranger's query passes. They differ in how they connect, and in how one such query is run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any, ClassVar, Self

from nektar.arrow import pa
from nektar.store import readonly
from nektar.store.port import failure, insert_failure, refusal

Ask = Callable[[str, str, Mapping[str, str]], bytes]
"""(query, format where it names none, escaped parameters) → what it answers. Raises Refused for too much."""


# Tables from which a materialized view fills another: an insert that comes twice comes once there, too, and
# one that was cut off between the two is made up for. Others need not pay for it.
_FEEDING = frozenset({"otel_traces"})
# How long a statement of ours may be: a view names all tables of its kind, and a condition all contracts that
# are read at once. ClickHouse by itself takes 256 KiB, which is a view of 380 tables. Strangers have limits
# of their own (`readonly.LIMITS`).
_OURS: Mapping[str, object] = {"max_query_size": 64 << 20, "max_ast_elements": 10_000_000}


def _as_number(field: Any) -> Any:
    """A field as it comes from ClickHouse, which has times as numbers."""
    return field.with_type(pa.int64()) if pa.types.is_timestamp(field.type) else field


class DriverStore(ABC):
    """A `Store` over clickhouse-connect."""

    # Sent with every insert, beside its token. Rows of one key may stand in it twice: views read FINAL. The
    # indexes of telemetry's tables take as long as all the rest of an insert: merges make them.
    insert_settings: ClassVar[Mapping[str, object]] = {
        "optimize_on_insert": 0,
        "materialize_skip_indexes_on_insert": 0,
    }

    def __init__(self, url: str, dsn: str, **options: Any) -> None:
        """Connect to `dsn`. Raises StoreDown where that fails."""
        self.url = url
        import clickhouse_connect

        try:
            self._client: Any = clickhouse_connect.get_client(dsn=dsn, **options)
        except Exception as error:
            raise failure(error, url) from error
        for name, value in _OURS.items():
            with suppress(clickhouse_connect.driver.exceptions.ProgrammingError):  # where one may only read
                self._client.set_client_setting(name, value)
        self._table_functions = frozenset(name for (name,) in self.rows(readonly.TABLE_FUNCTIONS))

    @abstractmethod
    def _asking(
        self, settings: Mapping[str, str], database: str | None, query_id: str
    ) -> AbstractContextManager[Ask]:
        """A way to run queries under `settings` that nobody else's queries notice, and `end` finds."""

    @abstractmethod
    def _put(self, table: str, rows: Any, settings: Mapping[str, object]) -> None:
        """Insert a pyarrow Table under these settings."""

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

    def arrow(self, sql: str, schema: Any) -> Any:
        # Text is what its column says: `bytes` stand in a String too.
        settings = {"output_format_arrow_string_as_string": 0}
        try:
            found = self._client.query_arrow(sql, settings=settings)
        except Exception as error:
            raise failure(error, self.url) from error
        return found.cast(pa.schema(map(_as_number, schema))).cast(schema)

    def insert(self, table: str, rows: Any, token: str) -> None:
        settings = {**self.insert_settings, "insert_deduplication_token": token}
        if table in _FEEDING:
            settings["deduplicate_blocks_in_dependent_materialized_views"] = 1
        try:
            self._put(table, rows, settings)
        except Exception as error:
            raise insert_failure(error, self.url) from error

    def read(
        self,
        sql: str,
        fmt: str = "TabSeparated",
        params: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
        database: str | None = None,
        query_id: str = "",
    ) -> bytes:
        """See `Store.read`."""
        try:
            chosen = readonly.settings(settings or {})
            written = self._written(sql, query_id)
            readonly.check(written, self._table_functions, fmt)
            with self._asking(chosen, database, query_id) as ask:
                return ask(written, fmt, params or {})
        except readonly.Refused as refused:
            raise refusal(refused) from None
        except Exception as error:
            raise failure(error, self.url) from error

    def _written(self, sql: str, query_id: str) -> str:
        """`sql` as ClickHouse writes it, under nobody's settings, some of which (`offset`, `extremes`) would
        change what is written."""
        with self._asking(readonly.settings({}), None, query_id) as ask:
            return readonly.rewritten(ask(readonly.rewriting(sql), "TSVRaw", {}))

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

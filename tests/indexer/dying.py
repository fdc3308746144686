"""A store that dies before one of its writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from nektar.store.port import Store


class Killed(Exception):
    """The process is no more."""


def _killed() -> NoReturn:
    raise Killed


# Not of bulk reading: the schema, and claims, which a run that has died in a test still gives back. That of a
# process that was killed is tests/indexer/test_claim.py's.
ASIDE = ("schema_migrations", "abi_entries", "claims")


class Dying:
    """A store that does so many writes of bulk reading, and then dies before each."""

    def __init__(self, store: Store, writes: int, die: Callable[[], None] = _killed) -> None:
        self._store = store
        self._left = writes
        self._die = die

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def _write(self) -> None:
        self._left -= 1
        if self._left < 0:
            self._die()

    def insert(self, table: str, *given: Any) -> None:
        if table not in ASIDE:
            self._write()
        self._store.insert(table, *given)

    def command(self, sql: str) -> None:
        is_aside = sql.startswith(tuple(f"INSERT INTO {table} " for table in ASIDE))
        if sql.startswith(("INSERT", "DELETE")) and not is_aside:
            self._write()
        self._store.command(sql)

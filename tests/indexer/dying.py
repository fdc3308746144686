"""A store that dies before one of its writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from nektar.store.port import Store


class Killed(Exception):
    """The process is no more."""


def _killed() -> NoReturn:
    raise Killed


class Dying:
    """A store that does so many writes of bulk reading, its schema aside, and then dies before each."""

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
        if table != "abi_entries":
            self._write()
        self._store.insert(table, *given)

    def command(self, sql: str) -> None:
        is_schema = sql.startswith(("INSERT INTO schema_migrations", "INSERT INTO abi_entries"))
        if sql.startswith(("INSERT", "DELETE")) and not is_schema:
            self._write()
        self._store.command(sql)

"""Brings a store up to what this version of the code expects; run by whoever opens it for writing.

The model's tables come from numbered SQL files in `migrations/`, which never change once released. What
the ABIs name is made where it is missing: a changed event has another hash, hence another table. Views hold
nothing and may be made anew. All of it may be run again at any time, also after it was killed halfway: every
statement makes only what is missing, and a migration is written down when all of its statements have run.
What is derived from the ABIs and the model is written down in the same way, as number 0 with a hash of its
statements: they are hundreds, and most starts find that all of them have run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from nektar.chain import abi
from nektar.networks.adapter import Adapter
from nektar.store.port import Store, StoreMistake, shown
from nektar.store.schema import Table, abi_table, create_table, literal, model_tables
from nektar.store.views import create_views

_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
  `number` UInt32 COMMENT 'Number of the migration',
  `name` String COMMENT 'Its file',
  `sha256` String COMMENT 'Hash of the file as it was applied',
  `applied` DateTime('UTC') DEFAULT now() COMMENT 'When it was applied'
)
ENGINE = ReplacingMergeTree ORDER BY number
COMMENT 'Migrations of the schema that this store has seen'
"""

# What is derived, in the ledger.
_DERIVED = 0, "derived from the ABIs and the model"


class Migration(msgspec.Struct, frozen=True):
    """One file of `migrations/`: NNNN_what_it_does.sql, its statements ending in `;` at a line's end."""

    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def statements(self) -> list[str]:
        return [text.strip() for text in f"{self.sql}\n".split(";\n") if text.strip()]


def migrations() -> list[Migration]:
    """Every migration, in order."""
    found = [
        Migration(int(file.name.partition("_")[0]), file.name, file.read_text("utf-8"))
        for file in Path(__file__).with_name("migrations").iterdir()
        if file.name.endswith(".sql")
    ]
    return sorted(found, key=lambda migration: migration.number)


def migrate(store: Store, adapters: Iterable[Adapter]) -> list[str]:
    """Bring `store` up to date for these adapters; returns the names of the migrations applied now.

    Raises StoreMistake where the store was made by a newer or a different version of the code.
    """
    known = migrations()
    store.command(_LEDGER)
    applied = {
        number: (name, sha)
        for number, name, sha in store.rows("SELECT number, name, sha256 FROM schema_migrations FINAL")
    }
    _check(store, known, applied)
    done = []
    for migration in known:
        if migration.number in applied:
            continue
        for statement in migration.statements:
            store.command(statement)
        _write_down(store, migration.number, migration.name, migration.sha256)
        done.append(migration.name)
    _, written = applied.get(_DERIVED[0], ("", ""))
    _derive(store, abi_tables(adapters), written)
    return done


def _derive(store: Store, named: Mapping[str, Table], written: str) -> None:
    """Make the tables of the ABIs and all views, unless the ledger says (`written`) that just these were made
    last, and none is missing."""
    wanted = {name: create_table(table) for name, table in named.items()}
    wanted |= create_views([*model_tables(), *named.values()])
    digest = hashlib.sha256("\n".join(wanted.values()).encode()).hexdigest()
    if written == digest:
        there = store.rows("SELECT name FROM system.tables WHERE database = currentDatabase()")
        if wanted.keys() <= {name for (name,) in there}:
            return
    _write_down(store, *_DERIVED, "")  # until all of it is there, some of it is another version's
    for statement in wanted.values():
        store.command(statement)
    _write_down(store, *_DERIVED, digest)


def _write_down(store: Store, number: int, name: str, sha256: str) -> None:
    values = f"{number}, {literal(name)}, {literal(sha256)}"
    store.command(f"INSERT INTO schema_migrations (number, name, sha256) VALUES ({values})")  # noqa: S608


def abi_tables(adapters: Iterable[Adapter]) -> dict[str, Table]:
    """Table name → table, of every event and function that the adapters' ABIs name."""
    abis = [abi.load(contract) for adapter in adapters for contract in adapter.abi().values()]
    entries: list[abi.EventType | abi.FunctionType] = []
    for each in abis:
        entries += [*each.events, *each.functions]
    return {entry.table: abi_table(entry) for entry in entries}


def _check(store: Store, known: list[Migration], applied: Mapping[int, tuple[str, str]]) -> None:
    newest = max((migration.number for migration in known), default=0)
    if applied and max(applied) > newest:
        name, _ = applied[max(applied)]
        raise StoreMistake(
            f"store {shown(store.url)}: made by a newer version (it has migration {name}, this one knows up "
            f"to {newest:04}): upgrade, or name another store"
        )
    for migration in known:
        name, sha = applied.get(migration.number, (migration.name, migration.sha256))
        if sha != migration.sha256:
            raise StoreMistake(
                f"store {shown(store.url)}: migration {name} is another one than when it was applied: "
                "expected an unchanged file; install a released version, or name another store"
            )

"""Brings a store up to what this version of the code expects; run by whoever opens it for writing.

The model's tables come from numbered SQL files in `migrations/`, which never change once released. What
the ABIs name is made where it is missing: a changed event has another hash, hence another table. The entry
of its ABI is kept (`abi_entries`), so that views show all tables that there are, and not only those of the
ABIs that whoever makes them knows. Views hold nothing and may be made anew. All of it may be run again at
any time, also after it was killed halfway: every statement makes only what is missing, and a migration is
written down when all of its statements have run. What is derived from the ABIs and the model is written down
in the same way, as number 0 with a hash of its statements: they are hundreds, and most starts find that all
of them have run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from nektar.arrow import pa
from nektar.chain import abi
from nektar.networks.adapter import Adapter
from nektar.store.port import Store, StoreMistake, shown
from nektar.store.schema import Table, abi_table, create_table, literal, model_tables
from nektar.store.service import service_views
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

Entry = abi.EventType | abi.FunctionType

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
    make_tables(store, _named(adapters))
    return done


def make_tables(store: Store, entries: Iterable[Entry]) -> None:
    """Make the tables of these entries, and the views of all that the store has; but not what the ledger says
    was made before, unless some of it is missing."""
    named = {entry.table: entry for entry in entries}
    known = _known(store, named)
    every = list(({entry.table: entry for entry in known} | named).values())
    made = _statements(known)
    wanted = _statements(every) if len(every) > len(known) else made
    if not _is_made(store, made):
        made = {}
    if not (new := {name: statement for name, statement in wanted.items() if made.get(name) != statement}):
        return
    _write_down(store, *_DERIVED, "")  # until all of it is there, some of it is another version's
    for statement in new.values():
        store.command(statement)
    if added := every[len(known) :]:
        columns = {
            "number": pa.array(range(len(known), len(every)), pa.uint32()),
            "name": [entry.table for entry in added],
            "entry": [entry.entry for entry in added],
        }
        store.insert("abi_entries", pa.table(columns), _digest(wanted))
    _write_down(store, *_DERIVED, _digest(wanted))


def _known(store: Store, named: Mapping[str, Entry]) -> list[Entry]:
    """What the store has tables of, in the order in which they were made; those that are `named` as they are,
    since reading an ABI takes time."""
    rows = store.rows("SELECT name, entry FROM abi_entries FINAL ORDER BY number, name")
    return [
        named[name] if name in named else _entries([abi.load([json.loads(entry)])])[0] for name, entry in rows
    ]


def _statements(entries: Iterable[Entry]) -> dict[str, str]:
    """Name → statement, of the entries' tables and of all views."""
    tables = {entry.table: abi_table(entry) for entry in entries}
    made = {name: create_table(table) for name, table in tables.items()}
    return made | create_views([*model_tables(), *tables.values()]) | service_views()


def _is_made(store: Store, statements: Mapping[str, str]) -> bool:
    """Whether the ledger says that just these were run last, and nothing is missing."""
    written = store.rows(f"SELECT sha256 FROM schema_migrations FINAL WHERE number = {_DERIVED[0]}")  # noqa: S608
    if written != [(_digest(statements),)]:
        return False
    there = store.rows("SELECT name FROM system.tables WHERE database = currentDatabase()")
    return statements.keys() <= {name for (name,) in there}


def _digest(statements: Mapping[str, str]) -> str:
    return hashlib.sha256("\n".join(statements.values()).encode()).hexdigest()


def _write_down(store: Store, number: int, name: str, sha256: str) -> None:
    values = f"{number}, {literal(name)}, {literal(sha256)}"
    store.command(f"INSERT INTO schema_migrations (number, name, sha256) VALUES ({values})")  # noqa: S608


def abi_tables(adapters: Iterable[Adapter]) -> dict[str, Table]:
    """Table name → table, of every event and function that the adapters' ABIs name."""
    return {entry.table: abi_table(entry) for entry in _named(adapters)}


def _named(adapters: Iterable[Adapter]) -> list[Entry]:
    return _entries(abi.load(contract) for adapter in adapters for contract in adapter.abi().values())


def _entries(abis: Iterable[abi.Abi]) -> list[Entry]:
    """Every event and function, once."""
    found: dict[str, Entry] = {}
    for each in abis:
        found |= {event.table: event for event in each.events}
        found |= {function.table: function for function in each.functions}
    return list(found.values())


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

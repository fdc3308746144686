from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from nektar.chain import abi
from nektar.store import migrate as module
from nektar.store.client import open_store
from nektar.store.migrate import Migration, make_tables, migrate, migrations
from nektar.store.port import Store, StoreError
from nektar.store.schema import create_table, model_tables
from tests.nektar.store.things import EVENT, Things

# Number → hash of every migration that a release has shipped. Add a line with each release; never change one.
RELEASED: dict[int, str] = {}

DESCRIBED = """
SELECT table, name, type, comment, default_expression FROM system.columns WHERE database = currentDatabase()
"""


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"chdb://{tmp_path / 'store'}") as opened:
        yield opened


def columns_of(store: Store) -> list[tuple[object, ...]]:
    return sorted(store.rows(DESCRIBED))


def test_migrating_twice_is_migrating_once_also_after_dying_halfway(fresh: Store) -> None:
    (first, *_) = migrations()
    for statement in first.statements[:3]:  # killed here: nothing is written down
        fresh.command(statement)
    assert migrate(fresh, [Things()]) == [m.name for m in migrations()]
    before = columns_of(fresh)
    fresh.command(f"INSERT INTO {EVENT.table} (network, block_number, version) VALUES ('n', 1, 1)")
    assert migrate(fresh, [Things()]) == []
    assert columns_of(fresh) == before
    assert fresh.rows("SELECT count() FROM event_everything") == [(1,)]

    # What the migrations made is what the model says, column by column.
    derived = {t.name: create_table(t) for t in model_tables()}
    for name, statement in derived.items():
        made = fresh.rows(f"SHOW CREATE TABLE {name}")[0][0]
        fresh.command(statement.replace(f"`{name}`", "`derived`", 1))
        assert fresh.rows("SHOW CREATE TABLE derived")[0][0] == made.replace(name, "derived", 1), (
            f"{name}: the model has moved on; write migrations/{len(migrations()) + 1:04}_….sql"
        )
        fresh.command("DROP TABLE derived SYNC")


def test_a_start_makes_only_what_is_not_as_it_is_wanted(
    fresh: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(fresh, [Things()])
    ran: list[str] = []
    run = fresh.command
    monkeypatch.setattr(fresh, "command", lambda sql: (ran.append(sql), run(sql)))
    migrate(fresh, [Things()])
    assert [sql.split("(")[0].strip() for sql in ran] == ["CREATE TABLE IF NOT EXISTS schema_migrations"]
    fresh.command("DROP VIEW duties SYNC")
    migrate(fresh, [Things()])
    assert fresh.rows("SELECT count() FROM duties") == [(0,)]
    migrate(fresh, [])  # another configuration: the tables that it lacks hold rows, and stay
    assert fresh.rows("SELECT count() FROM event_everything") == [(0,)]


def test_views_that_another_version_made_in_part_are_made_anew(
    fresh: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(fresh, [Things()])
    wanted = fresh.rows("SHOW CREATE VIEW duties")
    ours = module.create_views
    other = {
        "duties": "CREATE OR REPLACE VIEW duties AS SELECT 1",
        "zzz": "CREATE VIEW and that is where it dies",
    }
    monkeypatch.setattr(module, "create_views", lambda tables: other)
    with pytest.raises(StoreError):
        migrate(fresh, [Things()])
    assert fresh.rows("SHOW CREATE VIEW duties") != wanted
    monkeypatch.setattr(module, "create_views", ours)
    migrate(fresh, [Things()])
    assert fresh.rows("SHOW CREATE VIEW duties") == wanted


def _paused(*inputs: tuple[str, str]) -> abi.EventType:
    arguments = [{"type": type_, "name": name} for type_, name in inputs]
    return abi.load([{"type": "event", "name": "Paused", "inputs": arguments}]).event("Paused")


def test_a_view_shows_every_layout_that_the_store_has_whoever_made_its_table(fresh: Store) -> None:
    migrate(fresh, [Things()])
    one, two, three = (
        _paused(("address", "by"), ("uint64", "until")),
        _paused(("address", "by"), ("uint64[]", "ids")),
        _paused(("uint256", "by")),
    )

    def shown() -> list[tuple[object, ...]]:
        return fresh.rows(
            "SELECT * EXCEPT (block_hash, block_time, tx_hash) FROM event_paused ORDER BY network"
        )

    zero = "0x" + "00" * 20
    nothing = (0, 0, 0, zero)
    for name, event in (("one", one), ("two", two), ("three", three)):
        make_tables(fresh, [event])
        fresh.command(f"INSERT INTO {event.table} (network, level) VALUES ('{name}', 'proved')")
    assert shown() == [
        ("one", *nothing, zero, 0, "proved", [], None),
        ("three", *nothing, None, None, "proved", [], 0),
        ("two", *nothing, zero, None, "proved", [], None),
    ]
    columns = [name for (name,) in fresh.rows("SELECT name FROM system.columns WHERE table = 'event_paused'")]
    assert columns[-4:] == ["until", "level", "ids", f"by_{three.table[-8:]}"]
    assert fresh.rows("SELECT count() FROM events WHERE network IN ('one', 'two', 'three')") == [(3,)]

    before = shown()
    ran: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        run = fresh.command
        patched.setattr(fresh, "command", lambda sql: (ran.append(sql), run(sql)))
        migrate(fresh, [Things()])
        migrate(fresh, [])
        make_tables(fresh, [two])
    assert [sql.split("(")[0].strip() for sql in ran] == ["CREATE TABLE IF NOT EXISTS schema_migrations"] * 2
    assert shown() == before


def test_a_view_may_have_more_tables_than_clickhouse_takes_in_a_statement_by_itself(fresh: Store) -> None:
    migrate(fresh, [])
    arguments = [("uint8", f"{'argument' * 30}_{place}") for place in range(100)]
    make_tables(fresh, [_paused(*arguments, ("bool", f"layout_{layout}")) for layout in range(5)])
    view = "FROM system.tables WHERE name = 'event_paused'"
    assert fresh.rows(f"SELECT length(create_table_query) > 262144 {view}") == [(1,)]
    assert fresh.rows("SELECT count() FROM event_paused") == [(0,)]


def test_a_store_of_a_newer_version_is_refused_and_left_alone(fresh: Store) -> None:
    migrate(fresh, [])
    fresh.command("INSERT INTO schema_migrations (number, name, sha256) VALUES (9999, '9999_later.sql', 'x')")
    with pytest.raises(StoreError, match=r"made by a newer version \(it has migration 9999_later.sql"):
        migrate(fresh, [Things()])
    assert fresh.rows("EXISTS TABLE event_everything") == [(0,)]


def test_a_migration_that_has_changed_since_it_was_applied_is_refused(
    fresh: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(fresh, [])
    (first, *rest) = migrations()
    changed = Migration(first.number, first.name, first.sql + "\n-- changed\n")
    monkeypatch.setattr(module, "migrations", lambda: [changed, *rest])
    with pytest.raises(StoreError, match="is another one than when it was applied"):
        migrate(fresh, [])


def test_migrations_are_numbered_without_holes_and_released_ones_never_change() -> None:
    known = migrations()
    assert [m.number for m in known] == list(range(1, len(known) + 1))
    assert all(re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", m.name) for m in known)
    hashes = {m.number: m.sha256 for m in known}
    assert {number: hashes.get(number) for number in RELEASED} == RELEASED


def test_every_table_and_column_of_the_store_is_documented(store: Store) -> None:
    silent = store.rows(f"SELECT table, name FROM ({DESCRIBED}) WHERE comment = ''")
    assert silent == []
    tables = "SELECT name FROM system.tables WHERE database = currentDatabase() AND comment = ''"
    assert store.rows(tables) == []


def test_every_hash_and_address_has_a_hex_alias(store: Store) -> None:
    rows = store.rows(f"SELECT table, name, type FROM ({DESCRIBED})")
    there = {(table, name) for table, name, _ in rows}
    fixed = {(table, name) for table, name, type_ in rows if type_.startswith("FixedString")}
    assert fixed
    assert {(table, f"{name}_hex") for table, name in fixed} <= there

"""The SQL endpoint read by clickhouse-go, the driver of Go programs and of Grafana's ClickHouse plugin.

The Go side is the module in tests/go, built and run. This side fills a store: any values in every table of
the schema, and what tests/go/store.sql says.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.claim import Claim
from indexer.plan import Plan
from indexer.ranges import Range
from nektar.model import Level
from nektar.otlp import SIGNALS
from nektar.senders import Sender
from nektar.store.client import open_store
from nektar.store.migrate import abi_tables, migrate
from nektar.store.otel import tables
from nektar.store.port import Store
from nektar.store.schema import model_tables, quoted
from nektar.store.serve import serve
from nektar.store.service import say_objectives
from tests.nektar.store.things import Things
from tests.otlp import some
from tests.programs import MODULE, build, go
from tests.seeds import thorough

NOW = 1_790_000_000 * 10**9  # of spans and log records, ns since 1970
ROWS = 50  # in each table of the schema


def fill(store: Store) -> None:
    """Put rows into every table of the schema, and make those of store.sql."""
    for table in [*model_tables(), *abi_tables([Things()]).values()]:
        columns = [("network", "String"), *((c.name, c.type) for c in table.columns), ("version", "UInt64")]
        names = ", ".join(quoted(name) for name, _ in columns)
        structure = ", ".join(f"{quoted(name)} {type_}" for name, type_ in columns).replace("'", "\\'")
        store.command(
            f"INSERT INTO {quoted(table.name)} ({names}) "
            f"SELECT {names} FROM generateRandom('{structure}', 7, 20, 3) LIMIT {ROWS}"
        )
    say_objectives(store, {"home": 0.99})
    Claim(store, Plan("index", 1, {}, Range(1, 2), Level.PROVED))
    for signal in SIGNALS:
        for name, table in tables(signal, some(signal, 10, NOW), Sender("an agent")).items():
            store.insert(name, table, name)
    for statement in (MODULE / "store.sql").read_text("utf-8").split(";\n")[:-1]:
        store.command(statement)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go tests as a program."""
    return build(tmp_path_factory.mktemp("go") / "endpoint.test", "test", "-c", ".")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with open_store(f"chdb://{tmp_path_factory.mktemp('store')}") as store:
        migrate(store, [Things()])
        fill(store)
        with serve(store, "127.0.0.1:0") as endpoint:
            yield endpoint.address


@thorough
def test_clickhouse_go_and_the_statements_of_grafanas_plugin(reader: Path, address: str) -> None:
    ran = go(str(reader), "-test.v", "-test.timeout", "300s", NEKTAR_SQL=address)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for name in go(str(reader), "-test.list", ".").stdout.split():
        assert f"--- PASS: {name} " in ran.stdout

"""The SQL endpoint read by clickhouse-go, the driver of Go programs and of Grafana's ClickHouse plugin.

The Go side is the module in tests/go, built and run. This side fills a store: any values in every table of
the schema, and what tests/go/store.sql says.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nektar.store.client import open_store
from nektar.store.migrate import abi_tables, migrate
from nektar.store.port import Store
from nektar.store.schema import model_tables, quoted
from nektar.store.serve import serve
from tests.nektar.store.things import Things

MODULE = Path(__file__).parents[2] / "go"
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
    for name in ("otel_logs", "otel_traces"):
        described = store.rows(
            f"SELECT name, type FROM system.columns WHERE table = '{name}' AND database = currentDatabase() "
            "AND default_kind NOT IN ('ALIAS', 'MATERIALIZED')"
        )
        structure = ", ".join(f"{quoted(n)} {type_}" for n, type_ in described).replace("'", "\\'")
        chosen = ", ".join(
            "now64(9)" if n == "Timestamp" else quoted(n) for n, _ in described
        )  # one partition
        store.command(
            f"INSERT INTO {name} ({', '.join(quoted(n) for n, _ in described)}) "
            f"SELECT {chosen} FROM generateRandom('{structure}', 7, 20, 3) LIMIT {ROWS}"
        )
    for statement in (MODULE / "store.sql").read_text("utf-8").split(";\n")[:-1]:
        store.command(statement)


def go(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    # Some distributions turn off that an older Go fetches the one that go.mod names.
    environment = {"GOTOOLCHAIN": "auto", **os.environ, **more}
    return subprocess.run(
        arguments, cwd=MODULE, env=environment, capture_output=True, text=True, timeout=1200, check=False
    )


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go tests as a program. Go's own cache makes the second build quick."""
    if shutil.which("go") is None:
        pytest.skip("needs go: install Go 1.21 or newer (it fetches the toolchain that go.mod names)")
    had = go("go", "mod", "download")
    if had.returncode:
        pytest.skip(f"needs go: the modules of {MODULE.name} can't be had: {had.stderr.strip()[-500:]}")
    program = tmp_path_factory.mktemp("go") / "endpoint.test"
    built = go("go", "test", "-c", "-o", str(program), ".")
    assert built.returncode == 0, built.stderr
    return program


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with open_store(f"chdb://{tmp_path_factory.mktemp('store')}") as store:
        migrate(store, [Things()])
        fill(store)
        with serve(store, "127.0.0.1:0") as endpoint:
            yield endpoint.address


def test_clickhouse_go_and_the_statements_of_grafanas_plugin(reader: Path, address: str) -> None:
    ran = go(str(reader), "-test.v", "-test.timeout", "300s", NEKTAR_SQL=address)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for name in go(str(reader), "-test.list", ".").stdout.split():
        assert f"--- PASS: {name} " in ran.stdout

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nektar.store import readonly
from nektar.store.port import SqlError, Store, StoreError, escaped

NAMES = frozenset({"url", "s3", "remote"})


@pytest.fixture(scope="module")
def trap() -> Iterator[tuple[str, list[str]]]:
    """A web server that nobody may be led to, and what it was asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/bucket/x.csv", asked
    server.shutdown()
    server.server_close()
    thread.join()


ATTEMPTS = [
    "INSERT INTO progress_rows (network) VALUES ('x')",
    "DROP TABLE progress_rows",
    "TRUNCATE progress_rows",
    "ALTER TABLE progress_rows DELETE WHERE 1",
    "OPTIMIZE TABLE progress_rows FINAL",
    "CREATE TABLE mine (a UInt8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE mine (a UInt8)",
    "CREATE FUNCTION f AS x -> x",
    "SYSTEM STOP MERGES",
    "KILL QUERY WHERE 1",
    "SET readonly = 0",
    "USE system",
    "GRANT ALL ON *.* TO x",
    "EXECUTE AS x SELECT 1",
    "BACKUP TABLE progress_rows TO File('{file}')",
    "SELECT 1; DROP TABLE progress_rows",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT 1 SETTINGS max_execution_time = 0",
    "SELECT * FROM (SELECT 1 SETTINGS max_memory_usage = 0)",
    "SELECT * FROM (SELECT 1 settings readonly = 0)",
    "SELECT 1 INTO OUTFILE '{file}.out'",
    "SELECT 1 into/**/outfile '{file}.out' TRUNCATE",
    "SELECT file('{file}')",
    "SELECT `file`('{file}')",
    "SELECT \"file\" /* */ ('{file}')",
    "SELECT arrayMap(file, ['{file}'])",
    "SELECT arrayMap(`FILE`, ['{file}'])",
    "SELECT * APPLY(file) FROM (SELECT '{file}')",
    "SELECT COLUMNS('p') APPLY file FROM (SELECT '{file}' AS p)",
    "DESCRIBE (SELECT arrayMap(file, ['{file}']))",
    "SELECT arrayMap(aiGenerate, ['{url}'])",
    "SELECT * FROM file('{file}', 'LineAsString')",
    "SELECT * FROM `{file}`",
    "SELECT * FROM '{file}'",
    "DESCRIBE file('{file}')",
    "DESCRIBE `{file}`",
    "EXISTS TABLE `{file}`",
    "EXPLAIN SELECT * FROM file('{file}', 'LineAsString')",
    "WITH (SELECT * FROM file('{file}', 'LineAsString')) AS x SELECT x",
    "INSERT INTO FUNCTION file('{file}.out') SELECT 1",
    "INSERT INTO progress_rows FROM INFILE '{file}' FORMAT CSV",
    "SELECT * FROM url('{url}')",
    "DESCRIBE url('{url}')",
    "DESCRIBE TABLE url('{url}', 'CSV')",
    "SELECT * FROM s3('{url}')",
    "DESCRIBE s3('{url}')",
    "SELECT * FROM remote('{host}', system.one)",
    "DESCRIBE remote('{host}', system.one)",
    "SELECT * FROM executable('id', 'TSV', 'a String')",
    "SELECT * FROM Python(asked)",
    "SELECT * FROM sqlite('{file}', 't')",
]


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_nothing_but_the_store_is_read_and_nothing_is_written(
    store: Store, trap: tuple[str, list[str]], tmp_path: Path, attempt: str
) -> None:
    url, asked = trap
    secret = tmp_path / "secret"
    secret.write_text("s3cr3t\n")
    before = store.rows(
        "SELECT name, total_rows FROM system.tables WHERE database = currentDatabase() ORDER BY name"
    )
    sql = attempt.format(file=secret, url=url, host=url.split("/")[2])
    with pytest.raises(SqlError) as refused:
        store.read(sql)
    assert "s3cr3t" not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert asked == []
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    after = store.rows(
        "SELECT name, total_rows FROM system.tables WHERE database = currentDatabase() ORDER BY name"
    )
    assert after == before


@pytest.mark.parametrize(
    ("sql", "answer"),
    [
        ("SELECT 1", b"1\n"),
        ("select 1 -- a comment; with a semicolon", b"1\n"),
        (
            "SELECT 'file(', 'INTO OUTFILE ''x''', `a b` FROM (SELECT 1 AS `a b`)",
            b"file(\tINTO OUTFILE \\'x\\'\t1\n",
        ),
        ("WITH x AS (SELECT 2 AS n) SELECT format('{}!', toString(n)) FROM x", b"2!\n"),
        ("(SELECT 1) UNION ALL (SELECT 1)", b"1\n1\n"),
        ("SELECT sum(number) FROM numbers(4)", b"6\n"),
        ("SELECT 1 AS a FORMAT JSONEachRow", b'{"a":1}\n'),
        ("SELECT getSetting('readonly')", b"1\n"),
        ("SELECT name FROM system.settings WHERE name = 'readonly'", b"readonly\n"),
        ("SHOW TABLES LIKE 'schema_m%'", b"schema_migrations\n"),
        ("SELECT 'ä\\t\\\\', '\\'' FORMAT TSVRaw", "ä\t\\\t'\n".encode()),
    ],
)
def test_what_reads_the_store_is_answered(store: Store, sql: str, answer: bytes) -> None:
    assert store.read(sql) == answer


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({"extremes": "1"}, b"0\n1\n2\n\n0\n2\n"),
        ({"offset": "1"}, b"1\n2\n"),
        ({"limit": "1"}, b"0\n"),
        ({"output_format_tsv_crlf_end_of_line": "1"}, b"0\r\n1\r\n2\r\n"),
    ],
)
def test_settings_change_how_the_answer_looks_and_not_what_is_asked(
    store: Store, settings: dict[str, str], answer: bytes
) -> None:
    assert store.read("SELECT number FROM numbers(3) FORMAT TSV", settings=settings) == answer


def test_parameters_are_values_and_never_sql(store: Store) -> None:
    value = "a'\\ b\t\n) FROM file('x') --"
    assert (
        store.read("SELECT {x:String} FORMAT TSVRaw", params={"x": escaped(value)}) == f"{value}\n".encode()
    )


@pytest.mark.parametrize(
    "sql", ["SELECT arrayMap({f:Identifier}, [{x:String}])", "SELECT * FROM {f: Identifier}"]
)
def test_a_parameter_can_name_no_function_nor_table(store: Store, tmp_path: Path, sql: str) -> None:
    (tmp_path / "secret").write_text("s3cr3t\n")
    with pytest.raises(SqlError, match="expected a value"):
        store.read(sql, params={"f": "file", "x": str(tmp_path / "secret")})


def test_every_function_of_this_clickhouse_that_could_reach_out_is_known(store: Store) -> None:
    looks = "match(lower(name), '^ai|^file$|catboost|^url$|^http|exec|dns|llm|^remote|python|udf|script')"
    known = store.rows(f"SELECT lower(name) FROM system.functions WHERE {looks}")
    assert known
    for (name,) in known:
        with pytest.raises(readonly.Refused):
            readonly.check(f"SELECT arrayMap({name}, x)", frozenset())


def test_limits_stand_before_readonly_and_may_only_be_lowered(store: Store) -> None:
    asked = "SELECT getSetting('max_result_rows')"
    limit = readonly.LIMITS["max_result_rows"]
    lowered = [("5", 5), ("0", limit), (str(limit * 2), limit)]
    for wanted, stands in [*lowered, *((none, limit) for none in ("-1", "x", "²", "9" * 5000))]:
        assert store.read(asked, settings={"max_result_rows": wanted}) == f"{stands}\n".encode()
    with pytest.raises(SqlError, match="Limit for result exceeded"):
        store.read("SELECT number FROM numbers(10)", settings={"max_result_rows": "5"})


def test_a_query_of_many_tables_is_refused_before_it_ends_the_engine(store: Store) -> None:
    def joined(tables: int) -> str:
        return "SELECT 1 FROM " + ", ".join(f"numbers(1) AS t{i}" for i in range(tables))

    assert store.read(joined(500)) == b"1\n"
    for tables in (2_400, 6_000):
        began = time.monotonic()
        with pytest.raises(SqlError, match="AST is too big"):
            store.read(joined(tables))
        assert time.monotonic() - began < 3  # they took longer before the engine was ended by the larger one
    assert store.read("SELECT 1") == b"1\n"


@pytest.mark.parametrize(
    "name", ["allow_ddl", "max_network_bandwidth", "format_schema", "additional_table_filters"]
)
def test_a_setting_that_is_not_about_how_results_look_is_refused(store: Store, name: str) -> None:
    with pytest.raises(SqlError, match=f"Cannot modify '{name}' setting in readonly mode") as refused:
        store.read("SELECT 1", settings={name: "1"})
    assert refused.value.code == 164


def test_no_setting_that_may_be_chosen_is_the_place_of_a_file_or_of_a_server(
    store: Store, tmp_path: Path
) -> None:
    """Every textual setting of this ClickHouse that passes the gate is set to a file's path, for every format
    that there is: nothing is ever written there."""
    names = [
        name
        for name, type_ in store.rows("SELECT name, type FROM system.settings")
        if type_ == "String" and _passes(name)
    ]
    formats = [name for (name,) in store.rows("SELECT name FROM system.formats WHERE is_output")]
    assert names
    assert len(formats) > 50
    precious = tmp_path / "precious"
    precious.write_text("precious")
    for fmt in formats:
        with contextlib.suppress(StoreError):  # many formats can't say it; none may write
            store.read("SELECT 1 AS x", fmt, settings=dict.fromkeys(names, str(precious)))
        assert [path.name for path in tmp_path.iterdir()] == ["precious"], fmt
        assert precious.read_text() == "precious", fmt
    with pytest.raises(SqlError, match="Cannot modify 'output_format_schema' setting"):
        store.read("SELECT 1 AS x", "Protobuf", settings={"output_format_schema": str(precious)})
    with pytest.raises(SqlError, match="The format Protobuf reaches out"):
        store.read("SELECT 1 AS x FORMAT Protobuf")


def _passes(name: str) -> bool:
    try:
        readonly.settings({name: "1"})
    except readonly.Refused:
        return False
    return True


def test_settings_of_one_query_do_not_reach_the_next_one_nor_the_sink(store: Store) -> None:
    store.read(
        "SELECT 1", settings={"session_timezone": "Asia/Tokyo", "max_result_rows": "1"}, database="system"
    )
    assert store.read("SELECT currentDatabase(), timezone()") != b"system\tAsia/Tokyo\n"
    store.command("INSERT INTO progress_rows (network, processor) VALUES ('still', 'writable')")


@given(st.text(), st.sampled_from(["url", "S3", "Remote", "file", "aiGenerate"]))
def test_no_string_or_quoting_hides_a_call_that_reaches_out(text: str, name: str) -> None:
    inside = text.replace("\\", "\\\\").replace("'", "\\'")
    quoted = text.replace("\\", "\\\\").replace("`", "\\`")
    for call in (name, f"`{name}`"):
        written = f"SELECT '{inside}' AS `{quoted}`, {call}('{inside}')"
        with pytest.raises(readonly.Refused):
            readonly.check(written, NAMES)
    readonly.check(f"SELECT '{inside}', '{name}(1) INTO OUTFILE' AS `a`", NAMES)

from __future__ import annotations

import gzip
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

import clickhouse_connect
import pytest

from nektar.http import CantListen, bind
from nektar.store import readonly
from nektar.store import serve as module
from nektar.store.client import open_store
from nektar.store.native import GREETING, Values, block, greeting
from nektar.store.port import ABORTED, SqlError, Store, StoreError, escaped
from nektar.store.readonly import MAX_QUERY_BYTES
from nektar.store.schema import literal
from nektar.store.serve import Endpoint, serve

MAX = 2**256 - 1


@pytest.fixture(scope="module")
def endpoint(store: Store) -> Iterator[Endpoint]:
    store.command(
        "INSERT INTO operators_rows (network, operator, region, stake, version) "
        f"VALUES ('n', unhex('{'ab' * 20}'), 'eu', {MAX}, 1)"
    )
    with serve(store, "127.0.0.1:0") as running:
        yield running


def ask(endpoint: Endpoint, sql: str, **params: str) -> tuple[int, bytes, Any]:
    """(status, body, headers) of a POST."""
    request = urllib.request.Request(f"http://{endpoint.address}/?{urlencode(params)}", sql.encode())
    try:
        with urllib.request.urlopen(request, timeout=40) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


@pytest.fixture(scope="module")
def client(endpoint: Endpoint) -> Iterator[Any]:
    host, port = endpoint.address.split(":")
    with clickhouse_connect.get_client(host=host, port=int(port)) as connected:
        yield connected


def test_clickhouse_connect_reads_rows_columns_arrow_and_parameters(client: Any) -> None:
    found = client.query("SELECT operator, stake FROM operators")
    assert found.column_names == ("operator", "stake")
    assert found.result_rows == [(f"0x{'ab' * 20}", MAX)]
    nothing = client.query("SELECT operator, stake FROM operators WHERE operator = 'none'")
    assert (nothing.column_names, nothing.result_rows) == (("operator", "stake"), [])
    assert client.query_arrow("SELECT number FROM numbers(3)").to_pydict() == {"number": [0, 1, 2]}
    value = "it's \\ \t\n back"
    assert client.query("SELECT {x:String} AS x", parameters={"x": value}).result_rows == [(value,)]
    assert client.query("SELECT toDateTime(0, 'UTC') AS t, [1, 2] AS a, (1, 'x') AS p").row_count == 1
    with pytest.raises(clickhouse_connect.driver.exceptions.DatabaseError, match="READONLY"):
        client.command("CREATE TABLE x (a UInt8) ENGINE = Memory")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl: install it")
def test_curl_reads_by_get_and_post(endpoint: Endpoint) -> None:
    def curl(*arguments: str) -> str:
        command = ["curl", "-sS", "--noproxy", "*", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=40, check=True).stdout

    url = f"http://{endpoint.address}"
    assert curl(f"{url}/ping") == "Ok.\n"
    assert curl(f"{url}/?query=SELECT%201") == "1\n"
    assert curl(url, "-d", "SELECT region FROM operators FORMAT JSONEachRow") == '{"region":"eu"}\n'
    assert curl("-G", url, "--data-urlencode", "query=SELECT {n:UInt8} + 1", "-d", "param_n=4") == "5\n"
    assert curl(url, "-d", "DROP TABLE tasks_rows").startswith("Code: 164. DB::Exception: ")


def test_errors_are_worded_and_numbered_as_clickhouse_does(endpoint: Endpoint) -> None:
    for sql, status, code in [
        ("SELECT nope", 404, 47),
        ("SELECT * FROM nope", 404, 60),
        ("SELECT 1 FROM", 400, 62),
        ("DROP TABLE tasks_rows", 403, 164),
        ("SELECT throwIf(1)", 500, 395),
        ("SELECT {x:UInt8}", 500, 456),
    ]:
        got, body, headers = ask(endpoint, sql)
        assert (got, headers["X-ClickHouse-Exception-Code"]) == (status, str(code)), sql
        assert body.startswith(f"Code: {code}. DB::Exception: ".encode())
        assert b"formatQuery" not in body


def test_formats_databases_and_settings_come_in_the_url_and_transport_keys_are_dropped(
    endpoint: Endpoint,
) -> None:
    transport = {
        "session_id": "s",
        "client_protocol_version": "54405",
        "wait_end_of_query": "1",
        "user": "default",
    }
    _, body, headers = ask(endpoint, "SELECT 1 AS a", default_format="CSVWithNames", **transport)
    assert body == b'"a"\n1\n'
    assert headers["Content-Type"] == "text/csv; charset=UTF-8; header=present"
    _, body, headers = ask(
        endpoint, "SELECT toUInt64(1) AS a FORMAT JSON", output_format_json_quote_64bit_integers="1"
    )
    assert json.loads(body)["data"] == [{"a": "1"}]
    assert headers["X-ClickHouse-Format"] == "JSON"
    assert ask(endpoint, "SELECT currentDatabase()", database="system")[1] == b"system\n"
    assert ask(endpoint, "SELECT 1", database="no`pe")[0] == 404
    assert (
        ask(endpoint, "SELECT 1", query_id="a\r\nSet-Cookie: b")[2]["X-ClickHouse-Query-Id"]
        == "aSet-Cookie:b"
    )
    assert ask(endpoint, "SELECT 1", compress="1")[0] == 501
    assert ask(endpoint, "SELECT 1", allow_ddl="1")[0] == 403


def test_a_query_that_is_too_long_or_no_text_is_refused(endpoint: Endpoint) -> None:
    status, body, _ = ask(endpoint, f"SELECT 1 -- {'x' * MAX_QUERY_BYTES}")
    assert (status, body[:9]) == (413, b"Code: 307")
    request = urllib.request.Request(f"http://{endpoint.address}/", b"SELECT '\xff'")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    assert refused.value.code == 400
    assert ask(endpoint, "SELECT 1")[1] == b"1\n"


@pytest.mark.parametrize(
    ("sql", "status", "code", "lowered"),
    [
        ("SELECT sum(cityHash64(number)) FROM numbers(1000000000000)", 408, 159, {"max_execution_time": "1"}),
        ("SELECT length(groupArray(number)) FROM numbers(100000000)", 500, 241, {}),
        ("SELECT number FROM numbers(1000001)", 500, 396, {}),
        ("SELECT number FROM numbers(100000)", 500, 396, {"max_result_bytes": "1000"}),
    ],
)
def test_time_memory_rows_and_bytes_of_an_answer_have_limits_that_nobody_lifts(
    endpoint: Endpoint, sql: str, status: int, code: int, lowered: dict[str, str]
) -> None:
    lifted = {"max_memory_usage": "0", "max_result_rows": "0", "max_result_bytes": "0", "readonly": "2"}
    got, body, _ = ask(endpoint, sql, **(lifted | lowered))
    assert (got, body.split(b".")[0]) == (status, f"Code: {code}".encode())


def test_queries_run_beside_each_other_and_beside_inserts(endpoint: Endpoint, store: Store) -> None:
    def insert() -> None:
        for i in range(20):
            store.command(f"INSERT INTO progress_rows (network, processor, version) VALUES ('n', 'p{i}', 1)")

    with ThreadPoolExecutor(9) as pool:
        writing = pool.submit(insert)
        answers = list(
            pool.map(lambda i: ask(endpoint, f"SELECT {i} + count() * 0 FROM operators"), range(40))
        )
        writing.result()
    assert [body for _, body, _ in answers] == [f"{i}\n".encode() for i in range(40)]


def send(endpoint: Endpoint, body: bytes, path: str = "/", **headers: str) -> tuple[int, bytes, Any]:
    """(status, body as it came, headers) of a POST with these headers, their _ read as -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://{endpoint.address}{path}", body, named)
    try:
        with urllib.request.urlopen(request, timeout=40) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def test_answers_are_packed_for_who_takes_gzip_and_is_worth_it(endpoint: Endpoint) -> None:
    many = b"SELECT number FROM numbers(1000)"
    plain = send(endpoint, many)
    assert plain[2]["Content-Encoding"] is None
    _, body, headers = send(endpoint, many, Accept_Encoding="zstd, gzip;q=0.9")
    assert headers["Content-Encoding"] == "gzip"
    assert len(body) < len(plain[1])
    assert gzip.decompress(body) == plain[1]
    for answer in (
        send(endpoint, b"SELECT 1", Accept_Encoding="gzip"),
        send(endpoint, many, Accept_Encoding="br, zstd"),
        send(endpoint, many, "/?enable_http_compression=0", Accept_Encoding="gzip"),
        send(endpoint, b"SELECT nope", Accept_Encoding="gzip"),
    ):
        assert answer[2]["Content-Encoding"] is None


def test_a_packed_query_is_read_and_a_bomb_is_not(endpoint: Endpoint) -> None:
    def packed(body: bytes, encoding: str = "gzip") -> tuple[int, bytes, Any]:
        return send(endpoint, body, Content_Encoding=encoding)

    assert packed(gzip.compress(b"SELECT 1 + 1"))[:2] == (200, b"2\n")
    for status, code, answer in [
        (413, 307, packed(gzip.compress(b"SELECT 1 -- " + bytes(50 << 20), 1))),
        (400, 354, packed(b"SELECT 1")),
        (400, 354, packed(gzip.compress(b"SELECT 1")[:-4])),
        (400, 89, packed(b"SELECT 1", "br")),
        (501, 48, send(endpoint, b"--x--", Content_Type="multipart/form-data; boundary=x")),
        (501, 48, send(endpoint, b"SELECT 1", "/?decompress=1")),
    ]:
        assert (answer[0], answer[2]["X-ClickHouse-Exception-Code"]) == (status, str(code))
    assert ask(endpoint, "SELECT 1")[1] == b"1\n"


def test_rows_sent_to_be_inserted_are_refused_as_such(endpoint: Endpoint) -> None:
    query = urlencode({"query": "INSERT INTO progress_rows FORMAT Native"})
    status, body, _ = send(endpoint, b"\1\1\1a\6UInt64\xff\xff\xff\xff\xff\xff\xff\xff", f"/?{query}")
    assert (status, body[:9]) == (403, b"Code: 164")


def test_the_first_query_of_clickhouse_go_is_answered_at_the_revision_that_it_reads(
    endpoint: Endpoint, store: Store
) -> None:
    ((version,),) = store.rows("SELECT version()")
    native = {"default_format": "Native", "client_protocol_version": "54460"}
    assert ask(endpoint, GREETING, **native)[1] == greeting("nektar", version, "UTC", 54460)
    # It fails where the next query would, and everyone else is answered by ClickHouse.
    assert ask(endpoint, GREETING, database="nope", **native)[0] == 404
    assert ask(endpoint, GREETING, default_format="Native")[1].startswith(b"\x04\x01")
    assert ask(endpoint, GREETING, client_protocol_version="54460")[1].split(b"\t")[3] == b"UTC\n"


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("SELECT operator, stake FROM operators WHERE 0", [("operator", "String"), ("stake", "UInt256")]),
        ("WITH 1 AS x SELECT x WHERE x = 2", [("x", "UInt8")]),
        ("SELECT {n:UInt8} AS n WHERE n = 2 FORMAT Native", [("n", "UInt8")]),
        ("SHOW TABLES LIKE 'nope'", [("name", "String")]),
    ],
)
def test_an_answer_without_rows_names_its_columns_in_native(
    endpoint: Endpoint, sql: str, columns: list[tuple[str, str]]
) -> None:
    _, body, _ = ask(endpoint, sql, default_format="Native", param_n="1")
    assert body == block([Values(*column) for column in columns], 0)


def test_bytes_that_are_no_text_are_refused_in_a_query_and_kept_in_an_answer(endpoint: Endpoint) -> None:
    for sql in (r"SELECT '\xff'", r"SELECT 1 AS `\xff` WHERE 0"):
        status, body, _ = ask(endpoint, sql, default_format="Native")
        assert (status, body[:9]) == (400, b"Code: 62.")
        assert "unhex('…')".encode() in body
    assert ask(endpoint, "SELECT unhex('ff')")[1] == b"\xff\n"
    cast = "CAST(tuple(1), concat('Tuple(`', unhex('ff'), '` UInt8)'))"
    for rows in (1, 0):
        named = f"SELECT untuple({cast}) AS t WHERE {rows}"
        _, body, _ = ask(endpoint, named, default_format="Native")
        assert body.startswith(bytes([1, rows]) + b"\x03t.\xff\x05UInt8"), body


def test_naming_the_columns_of_an_answer_without_rows_is_within_the_querys_time(endpoint: Endpoint) -> None:
    slow = "SELECT x FROM (SELECT (SELECT sum(sleepEachRow(0.1)) FROM numbers(12)) AS x) WHERE x < 0"
    within = {"max_execution_time": "2", "max_block_size": "1", "default_format": "Native"}
    began = time.monotonic()
    status, body, _ = ask(endpoint, slow, **within)
    assert (status, body.split(b".")[0]) == (408, b"Code: 159"), time.monotonic() - began


def test_the_time_zone_is_utc_until_the_asker_names_one(endpoint: Endpoint) -> None:
    assert ask(endpoint, "SELECT timezone(), toDateTime(0)")[1] == b"UTC\t1970-01-01 00:00:00\n"
    told = ask(endpoint, "SELECT toDateTime(0)", session_timezone="Asia/Tokyo")[1]
    assert told == b"1970-01-01 09:00:00\n"


def test_a_query_whose_client_goes_is_ended_and_makes_room(store: Store) -> None:
    endless = f"SELECT sum(cityHash64(number)), '{time.time_ns()}' FROM numbers(1000000000000)"
    running = f"SELECT count() FROM system.processes WHERE startsWith(query, {literal(endless)})"

    def until(number: int) -> None:
        deadline = time.monotonic() + 20
        while store.rows(running) != [(number,)]:
            assert time.monotonic() < deadline, f"{store.rows(running)} queries run, not {number}"

    with serve(store, "127.0.0.1:0") as narrow:
        host, port = narrow.address.split(":")
        head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(endless)}\r\n\r\n"
        asking = [socket.create_connection((host, int(port))) for _ in range(module.RUNNING + 2)]
        for connection in asking:
            connection.sendall(f"{head}{endless}".encode())
        until(module.RUNNING)
        for connection in asking:
            connection.close()
        until(0)
        assert ask(narrow, "SELECT 1")[1] == b"1\n"
        deadline = time.monotonic() + 20
        while narrow._asked:
            assert time.monotonic() < deadline, f"{narrow._asked} still hold a place"
            time.sleep(0.01)


def test_more_queries_than_may_wait_are_told_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 0)
    monkeypatch.setattr(module, "RUNNING", 1)
    with serve(store, "127.0.0.1:0") as narrow, ThreadPoolExecutor(4) as pool:
        statuses = [s for s, _, _ in pool.map(lambda _: ask(narrow, "SELECT sleep(0.3)"), range(4))]
    assert sorted(set(statuses)) == [200, 503]


@pytest.mark.parametrize("fmt", ["CSV SETTINGS readonly = 0", "no-such"])
def test_a_format_is_a_name_and_nothing_more(endpoint: Endpoint, fmt: str) -> None:
    status, body, _ = ask(endpoint, "SELECT 1", default_format=fmt)
    assert (status, body[:9]) == (400, b"Code: 73.")


def test_an_answer_that_cannot_be_made_gives_its_place_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RUNNING", 1)
    monkeypatch.setattr(module, "WAITING", 0)  # whoever finds no place is told so
    with serve(store, "127.0.0.1:0") as narrow:
        with monkeypatch.context() as patch:
            patch.setattr(module, "_TEXT", "日本")  # which no header can hold
            assert ask(narrow, "SELECT 1")[0] == 500
        assert ask(narrow, "SELECT 1")[1] == b"1\n"


def test_names_of_queries_and_formats_are_ascii(endpoint: Endpoint) -> None:
    for _ in range(module.RUNNING):
        status, body, headers = ask(endpoint, "SELECT 1", query_id="заказ-1")
        assert (status, body, headers["X-ClickHouse-Query-Id"]) == (200, b"1\n", "-1")
        for sql in ("SELECT 1", "SELECT 1 FORMAT JSON -- x"):
            status, body, _ = ask(endpoint, sql, default_format="日本")
            assert (status, body[:9]) == (400, b"Code: 73.")
    assert ask(endpoint, "SELECT 1")[1] == b"1\n"


def test_white_space_in_a_query_holds_nobody_up(endpoint: Endpoint) -> None:
    blank = " " * 48_000
    began = time.monotonic()
    for sql in (f"SELECT 1 FORMAT JSON{blank}x", f"SELECT throwIf(1, 'a{blank}b')"):
        assert ask(endpoint, sql)[0] in (400, 500)
    assert time.monotonic() - began < 2  # read anew from each space, each took more than twice as long
    for end in ("", ";", " ;\n ", blank):
        assert ask(endpoint, f"SELECT 1 FORMAT JSON{end}")[2]["X-ClickHouse-Format"] == "JSON"


def nested(depth: int) -> str:
    """BETWEENs within each other, of each of which ClickHouse writes the left side twice."""
    return f"SELECT {'(' * depth}1{' BETWEEN 1 AND 2)' * depth}"


def test_a_short_query_that_is_long_to_write_anew_is_refused_at_once(endpoint: Endpoint) -> None:
    began = time.monotonic()
    for sql, code in [
        (nested(25), b"Code: 168"),  # 100 s
        (nested(25).replace("BETWEEN", "not\tbetween"), b"Code: 168"),
        (f"SELECT {'CASE WHEN 1 THEN ' * 200}", b"Code: 718"),  # 5 s
    ]:
        status, body, _ = ask(endpoint, sql)
        assert (status, body.split(b".")[0]) == (500, code)
    assert time.monotonic() - began < 3
    several = "AND number BETWEEN 1 AND 2 " * 12
    assert ask(endpoint, f"SELECT count() FROM numbers(9) WHERE 1 {several}")[1] == b"2\n"


def test_nobody_waits_for_anothers_query_to_be_written_anew(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, go_on = threading.Event(), threading.Event()
    rewriting = readonly.rewriting

    def slow(sql: str) -> str:
        if sql == "SELECT 'slow'":
            held.set()
            assert go_on.wait(20)
        return rewriting(sql)

    monkeypatch.setattr(readonly, "rewriting", slow)
    with serve(store, "127.0.0.1:0") as narrow, ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, narrow, "SELECT 'slow'")
        assert held.wait(20)
        second = pool.submit(ask, narrow, "SELECT 'quick'")
        try:
            assert second.result(timeout=10)[1] == b"quick\n"
        finally:
            go_on.set()
        assert first.result()[1] == b"slow\n"


def test_an_answer_has_as_many_bytes_as_it_may_and_no_more(endpoint: Endpoint) -> None:
    rows = "SELECT repeat('x', 1023) FROM numbers({n:UInt32})"
    assert len(ask(endpoint, rows, param_n="31000")[1]) == 31000 << 10
    status, body, _ = ask(endpoint, rows, param_n="33000")
    assert (status, body.split(b".")[0]) == (500, b"Code: 396")
    # What ClickHouse keeps little of, and writes much of.
    status, body, _ = ask(endpoint, f"SELECT 1 AS {'n' * 1000} FROM numbers(100000) FORMAT JSONEachRow")
    assert (status, body.split(b".")[0]) == (500, b"Code: 396")


def test_a_client_that_does_not_take_its_answer_gives_way_to_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RUNNING", 1)
    monkeypatch.setattr(module, "SEND_SECONDS", 0.3)
    long = f"/?{urlencode({'query': 'SELECT number, number FROM numbers(1000000)'})}"
    with serve(store, "127.0.0.1:0") as narrow:
        host, port = narrow.address.split(":")
        with socket.create_connection((host, int(port))) as sleeping:
            sleeping.sendall(f"GET {long} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert sleeping.recv(12) == b"HTTP/1.1 200"
            assert ask(narrow, "SELECT 1")[1] == b"1\n"


def test_small_queries_are_answered_beside_a_large_one(endpoint: Endpoint) -> None:
    large, answered = "SELECT sum(cityHash64(number)) FROM numbers(1000000000000)", 0
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask, endpoint, large, max_execution_time="2")
        while not running.done():
            assert ask(endpoint, "SELECT 1")[1] == b"1\n"
            answered += 1
    assert running.result()[0] == 408
    assert answered > 2


def test_a_busy_port_is_one_clear_line(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            CantListen, match=f"listen.sql: 127.0.0.1:{port}: Address already in use; stop what"
        ):
            serve(store, f"127.0.0.1:{port}")


def test_closing_frees_the_port_and_ends_the_thread(store: Store) -> None:
    before = threading.active_count()
    with serve(store, "127.0.0.1:0") as running:
        address = running.address
        assert ask(running, "SELECT 1")[1] == b"1\n"
    assert threading.active_count() == before
    with serve(store, address) as again:
        assert again.address == address


def test_who_has_opened_the_endpoint_is_told_of_a_query_that_does_not_end(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LATE_SECONDS", 0.1)
    told = threading.Event()
    slow = "SELECT arrayLevenshteinDistance(range(20000), range(20000))"  # a second of one function
    with ThreadPoolExecutor(1) as pool:
        with serve(store, "127.0.0.1:0", told.set) as narrow:
            pool.submit(ask, narrow, slow)
            deadline = time.monotonic() + 20
            while not narrow._running:
                assert time.monotonic() < deadline
        assert told.is_set()
        assert not narrow._running  # it was waited for all the same
    assert f"0 s after the endpoint was to close; running: {slow!r}" in caplog.text


def test_an_engine_that_takes_no_connection_is_said_as_the_stores_own_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: str) -> None:
        raise RuntimeError("Code: 236. DB::Exception: fatal. (ABORTED)")

    monkeypatch.setattr(store, "_connect", refused)
    for asked in (lambda: store.end("x"), lambda: store.read("SELECT 1")):
        with pytest.raises(StoreError) as said:
            asked()
        assert said.value.code == ABORTED


def test_nobody_can_say_in_a_query_that_the_engine_has_failed(store: Store) -> None:
    told = threading.Event()
    said = "Code: 236. DB::Exception: fatal. (ABORTED)"
    with serve(store, "127.0.0.1:0", told.set) as narrow:
        for sql, more in [
            (said, {}),
            (f"SELECT throwIf(1, '{said}')", {}),
            (f"SELECT `{said}`", {}),
            (f"SELECT toUInt8('{said}')", {}),
            ("SELECT {x:UInt8}", {"param_x": said}),
            ("SELECT {y:UInt8}", {f"param_{said}": said}),
            ("SELECT 1", {"database": said}),
            ("SELECT 1", {"default_format": said}),
            ("SELECT 1", {"session_timezone": said}),
            ("SELECT 1", {said: said}),
        ]:
            status, body, _ = ask(narrow, sql, **more)
            assert status != 200
            assert not body.startswith(b"Code: 236"), (sql, more)
    assert not told.is_set()


def test_a_kept_connection_is_answered_without_waiting_for_acknowledgements() -> None:
    # asyncio sets TCP_NODELAY where the socket says TCP; without it each answer took 40 ms more.
    with bind("127.0.0.1:0", "listen.sql") as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_the_other_kind_of_store_reads_through_the_same_gate(endpoint: Endpoint) -> None:
    with open_store(f"clickhouse://{endpoint.address}/default") as server:
        assert server.rows("SELECT region FROM operators") == [("eu",)]
        assert (
            server.read("SELECT {x:String} FORMAT CSV", params={"x": escaped("a\tb\\'")}) == b'"a\tb\\\'"\n'
        )
        assert server.read("SELECT currentDatabase()", database="system") == b"system\n"
        # What has been checked is what runs: no value is written into the text.
        assert server.read("SELECT '%(x)s'", params={"x": "', file('x"}) == b"%(x)s\n"
        for sql, code in [
            ("DROP TABLE tasks_rows", 164),
            ("SELECT 1 INTO OUTFILE 'x'", 164),
            ("SELECT nope", 47),
        ]:
            with pytest.raises(SqlError) as refused:
                server.read(sql)
            assert refused.value.code == code

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nektar.config import Config, Listen
from nektar.store import client
from nektar.store.client import ask, asking, open_store, records
from nektar.store.port import (
    SqlError,
    StoreDown,
    StoreError,
    StoreMissing,
    StoreMistake,
    escaped,
    failure,
    identity,
    shown,
    unescaped,
)
from nektar.store.serve import serve

NOBODY = "127.0.0.1:1"  # tcpmux: nothing listens there
HOLD = """
import sys
from nektar.store.client import open_store
with open_store(sys.argv[1]) as store:
    print("open", flush=True)
    sys.stdin.read()
"""


def config(path: Path, listen: str = NOBODY) -> Config:
    return Config(providers={}, networks=(), store=f"chdb://{path}", listen=Listen(sql=listen))


def test_who_asks_reads_the_running_endpoint_and_else_the_store_itself(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with open_store(f"chdb://{path}") as store:
        store.command("CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n")
        store.command("INSERT INTO t VALUES (7)")
        with serve(store, "127.0.0.1:0") as endpoint:
            asked = config(path, endpoint.address)
            assert ask(asked, "SELECT n FROM t", "CSVWithNames") == b'"n"\n7\n'
            value = "a'\\ b\t\nä"
            found = records(asked, "SELECT {x:String} AS x, n FROM t WHERE n = {n:UInt64}", x=value, n=7)
            assert found == [{"x": value, "n": 7}]
            with pytest.raises(SqlError, match="Unknown expression identifier `nope`") as refused:
                ask(asked, "SELECT nope")
            assert (refused.value.code, refused.value.exit_code) == (47, 2)
            # Another store's endpoint is nobody.
            with pytest.raises(StoreMissing, match="there is none yet; start it with `nektar up`"):
                ask(config(tmp_path / "other", endpoint.address), "SELECT 1")
    assert records(config(path), "SELECT n FROM t") == [{"n": 7}]
    with pytest.raises(SqlError, match="READONLY"):
        ask(config(path), "DROP TABLE t")


def test_several_questions_open_a_store_that_nobody_serves_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(f"chdb://{tmp_path / 'store'}"):
        pass
    opened = []
    monkeypatch.setattr(client, "open_store", lambda url: opened.append(url) or open_store(url))
    with asking(config(tmp_path / "store")) as answer:
        assert not opened
        assert [answer("SELECT {n:UInt8} AS n", "JSONEachRow", {"n": n}) for n in (1, 2)] == [
            *(b'{"n":1}\n', b'{"n":2}\n'),
        ]
    assert len(opened) == 1
    with open_store(f"chdb://{tmp_path / 'store'}"):  # it is closed again
        pass


def test_asking_makes_no_store_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing):
        ask(config(tmp_path / "none"), "SELECT 1")
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_another_process_holds_is_named_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "store"
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, f"chdb://{path}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin
    assert child.stdout
    with child:
        try:
            assert child.stdout.readline() == b"open\n"
            with pytest.raises(StoreDown, match=f"held by process {child.pid}, a store role or whoever else"):
                open_store(f"chdb://{path}")
            with pytest.raises(
                StoreDown, match=f"held by process {child.pid}, whose SQL endpoint does not answer"
            ):
                ask(config(path), "SELECT 1")
        finally:
            child.kill()
    with open_store(f"chdb://{path}") as store:  # nothing stays locked after kill -9
        assert store.rows("SELECT 1") == [(1,)]


def test_a_url_or_path_that_can_not_be_opened_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(
        StoreMistake, match="expected chdb:///PATH or clickhouse://HOST:PORT/DATABASE; got 'postgres"
    ):
        open_store("postgres://x")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreDown, match="can't be made"):
        open_store(f"chdb://{tmp_path / 'file' / 'store'}")
    with pytest.raises(StoreDown, match=r"store clickhouse://u:…@127.0.0.1:1/d: ") as down:
        open_store("clickhouse://u:s3cr3t@127.0.0.1:1/d")
    assert "s3cr3t" not in str(down.value)
    assert "\n" not in str(down.value)


@pytest.mark.parametrize(
    ("said", "kind", "means"),
    [
        (
            "Code: 243. DB::Exception: Cannot reserve 1.00 MiB, not enough space. (NOT_ENOUGH_SPACE)",
            StoreDown,
            "the disk is full",
        ),
        (
            "Code: 75. DB::ErrnoException: write: errno: 28, strerror: No space left on device",
            StoreDown,
            "the disk is full",
        ),
        (
            "Code: 241. DB::Exception: Memory limit exceeded (MEMORY_LIMIT_EXCEEDED)",
            StoreDown,
            "out of memory",
        ),
        (
            "Code: 236. DB::Exception: The server is shutting down due to a fatal error. (ABORTED)",
            StoreDown,
            "the engine has failed",
        ),
        ("Connection refused", StoreDown, "Connection refused; see that it runs"),
        ("Code: 53. DB::Exception: Type mismatch\nStack trace: …", SqlError, "Type mismatch"),
        (
            "HTTP 404: Code: 60. DB::Exception: No table. (UNKNOWN_TABLE) (version 26.9.2.1)",
            SqlError,
            "No table.",
        ),
    ],
)
def test_only_what_the_rows_are_to_blame_for_is_an_sql_error(
    said: str, kind: type[StoreError], means: str
) -> None:
    error = failure(RuntimeError(said), "chdb:///x")
    assert type(error) is kind
    assert means in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("repeated", [" ", "(version ", ": In scope SELECT formatQuerySingleLine("])
def test_an_error_is_put_into_words_in_one_pass_whatever_it_repeats(repeated: str) -> None:
    said = f"Code: 395. DB::Exception: {repeated * (256_000 // len(repeated))}x\nand more"
    began = time.monotonic()
    failure(RuntimeError(said), "chdb:///x")
    assert time.monotonic() - began < 1  # anew from each place, it took from 3 s to minutes


@given(st.text())
def test_parameters_are_escaped_and_come_back(text: str) -> None:
    assert unescaped(escaped(text)) == text
    assert not {"\t", "\n"} & set(escaped(text))


def test_passwords_are_in_no_message_and_no_identity() -> None:
    assert shown("clickhouse://user:pass@host/db") == "clickhouse://user:…@host/db"
    assert identity("clickhouse://u:a@host/db") == identity("clickhouse://u:b@host/db")
    assert identity("chdb:///a") != identity("chdb:///b")

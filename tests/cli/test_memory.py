"""The store's process stays within its memory, whatever strangers ask it and however many at once."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml

from devnet.anvil import free_port
from nektar.role import ends_with_parent
from nektar.store.serve import RUNNING
from tests.seeds import thorough

MOST_MB = 800
MEMORY, ANSWER = "Code: 241. DB::Exception: ", "Code: 396. DB::Exception: "
# What takes memory, and what makes an answer long of which ClickHouse keeps little.
GREEDY = [
    ("SELECT length(groupArray(number)) FROM numbers(100000000)", MEMORY),
    ("SELECT number, count() FROM numbers(30000000) GROUP BY number", MEMORY),
    ("SELECT count() FROM numbers(10000000) AS a JOIN numbers(10000000) AS b USING number", MEMORY),
    # Surely too long: of a row group that just takes the memory, threads' order would decide.
    (f"SELECT number{15 * ', number'} FROM numbers(1000000) FORMAT Parquet", ANSWER),
    ("SELECT repeat('x', 1000000) FROM numbers(1000)", MEMORY),
    ("SELECT repeat('x', 100) FROM numbers(1000000)", ANSWER),
    (f"SELECT number AS {'n' * 1000} FROM numbers(1000000) FORMAT JSONEachRow", ANSWER),
]


def ask(address: str, sql: str) -> str:
    try:
        with urlopen(Request(f"http://{address}/", sql.encode()), timeout=60) as answer:
            return str(answer.read().decode())
    except HTTPError as error:
        return error.read().decode()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@thorough
def test_greedy_queries_at_once_are_refused_and_the_process_stays_small(tmp_path: Path) -> None:
    address, path = f"127.0.0.1:{free_port()}", tmp_path / "nektar.yaml"
    network = {"name": "one", "chain_id": 1, "rpc": ["a"], "contracts": {}}
    providers, listen = {"a": {"url": "http://127.0.0.1:1"}}, {"sql": address}
    path.write_text(
        yaml.safe_dump({"data_dir": "data", "providers": providers, "networks": [network], "listen": listen})
    )
    command = [sys.executable, "-m", "cli.main", "up", "store", "--config", str(path)]
    with ExitStack() as opened:
        store = opened.enter_context(
            subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=ends_with_parent())
        )
        opened.callback(store.terminate)
        pool = opened.enter_context(ThreadPoolExecutor(8))
        assert store.stderr is not None
        while f"SQL at http://{address}" not in store.stderr.readline():
            assert store.poll() is None
        # As many of one kind as run at once, then all kinds together.
        asked = [each for each in GREEDY for _ in range(RUNNING)] + GREEDY
        answers = list(pool.map(lambda each: ask(address, each[0]), asked))
        # An honest answer of 26 MB, to many at once.
        rows = "SELECT number, number, number, number FROM numbers(1000000)"
        assert {len(each) for each in pool.map(lambda _: ask(address, rows), range(4))} == {27_555_560}
        assert ask(address, "SELECT 1") == "1\n"
        status = Path(f"/proc/{store.pid}/status").read_text()
    for (sql, code), said in zip(asked, answers, strict=True):
        assert said.startswith(code), sql
        assert said.count("\n") == 1
    (most,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    assert int(most) / 1024 < MOST_MB

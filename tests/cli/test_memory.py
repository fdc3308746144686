"""The store's process stays within its memory, whatever strangers ask it and however many at once."""

from __future__ import annotations

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from nektar.store.serve import RUNNING
from tests.cli.command import PATIENCE, up, write

MOST_MB = 800
MEMORY, ANSWER = "Code: 241. DB::Exception: ", "Code: 396. DB::Exception: "
# What takes memory, and what makes an answer long of which ClickHouse keeps little.
GREEDY = [
    ("SELECT length(groupArray(number)) FROM numbers(100000000)", MEMORY),
    ("SELECT number, count() FROM numbers(30000000) GROUP BY number", MEMORY),
    ("SELECT count() FROM numbers(10000000) AS a JOIN numbers(10000000) AS b USING number", MEMORY),
    ("SELECT number, number, number, number FROM numbers(1000000) FORMAT Parquet", MEMORY),
    ("SELECT repeat('x', 1000000) FROM numbers(1000)", MEMORY),
    ("SELECT repeat('x', 100) FROM numbers(1000000)", ANSWER),
    (f"SELECT number AS {'n' * 1000} FROM numbers(1000000) FORMAT JSONEachRow", ANSWER),
]


def ask(address: str, sql: str) -> str:
    try:
        with urlopen(Request(f"http://{address}/", sql.encode()), timeout=PATIENCE) as answer:
            return str(answer.read().decode())
    except HTTPError as error:
        return error.read().decode()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_greedy_queries_at_once_are_refused_and_the_process_stays_small(tmp_path: Path) -> None:
    with up("store", "--config", write(tmp_path)) as store:
        address = store.until("SQL at http://").rpartition("http://")[2].strip()
        with ThreadPoolExecutor(8) as pool:
            # As many of one kind as run at once, then all kinds together.
            asked = [each for each in GREEDY for _ in range(RUNNING)] + GREEDY
            answers = list(pool.map(lambda each: ask(address, each[0]), asked))
            assert ask(address, "SELECT 1") == "1\n"
            # An honest answer of 26 MB, to many at once.
            rows = "SELECT number, number, number, number FROM numbers(1000000)"
            assert {len(each) for each in pool.map(lambda _: ask(address, rows), range(4))} == {27_555_560}
        for (_, code), said in zip(asked, answers, strict=True):
            assert said.startswith(code)
            assert said.count("\n") == 1
        status = Path(f"/proc/{store.process.pid}/status").read_text()
        (most,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
        assert int(most) / 1024 < MOST_MB

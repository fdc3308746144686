"""What goes wrong with `nektar up` while it runs, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from devnet.anvil import find_anvil, free_port
from devnet.chain import Chain, DevnetError
from nektar.role import ROLES, ends_with_parent
from tests.cli.command import MISTAKE, PATIENCE, nektar, ours, refused, up, write
from tests.cli.test_mistakes import taken


@pytest.mark.real
def test_one_up_a_data_dir_answers_sql_and_ends_all_its_roles_on_ctrl_c(tmp_path: Path, chain: Chain) -> None:
    path = write(tmp_path, chain.url)
    pids = [tmp_path / "data" / "run" / f"{role}.pid" for role in ROLES]
    with up("--config", path) as first:
        first.until("SQL at http://")
        refused(nektar("up", "--config", path), "another `nektar up` runs it", "another data_dir", code=1)
        refused(nektar("up", "store", "--config", path), "held by process", code=1)
        for statement, says in (
            ("SELEC 1", "Syntax error"),
            ("SELECT * FROM nothing", "nothing"),
            ("DROP TABLE duties_rows", "Expected SELECT"),
            ("INSERT INTO duties_rows SELECT * FROM duties_rows", "Expected SELECT"),
            ("SELECT * FROM file('/etc/passwd')", "file"),
        ):
            refused(nektar("sql", statement, "--config", path), says, code=MISTAKE)
        answered = nektar("sql", "SELECT 1, 2 FORMAT CSV", "--config", path)
        assert (answered.returncode, answered.stdout) == (0, "1,2\n")
        checked = nektar("check", "--config", path)
        assert checked.returncode == 0, checked.stderr
        assert "the store role answers there" in checked.stdout
        assert first.process.poll() is None
        roles = [int(pid.read_text()) for pid in pids]
        os.killpg(first.process.pid, signal.SIGINT)
        assert first.end() == 0
        assert ours(first.said) == []
    for role in roles:
        with pytest.raises(ProcessLookupError):
            os.kill(role, 0)
    assert not any(pid.exists() for pid in pids)


@pytest.mark.real
def test_a_provider_may_come_late_but_not_with_another_chain(tmp_path: Path) -> None:
    try:
        anvil = find_anvil()
    except DevnetError as error:
        pytest.skip(f"needs anvil: {error}")
    port = free_port()
    with up("indexer", "--config", write(tmp_path, f"http://127.0.0.1:{port}")) as indexer:
        indexer.until("can't connect (Connection refused); check its url")
        indexer.until("indexer.follow")  # it goes on trying
        assert indexer.process.poll() is None
        chain = subprocess.Popen(
            [anvil, "--port", str(port), "--chain-id", "5", "--silent"], preexec_fn=ends_with_parent()
        )
        try:
            assert indexer.end() == MISTAKE
        finally:
            chain.terminate()
            chain.wait()
        (line,) = ours(indexer.said)
        assert "expected chain 31337, as chain_id says; it serves chain 5" in line


def test_up_ends_at_once_with_a_port_that_is_taken(tmp_path: Path) -> None:
    with taken() as listen:
        done = nektar("up", "--config", write(tmp_path, listen={"sql": listen}))
    assert done.returncode == MISTAKE
    lines = ours(done.stderr)
    assert [listen in line for line in lines] == [True, False]
    assert "store: stopped" in lines[1]


def test_a_role_that_is_killed_is_started_again(tmp_path: Path) -> None:
    path = write(tmp_path)
    pid = tmp_path / "data" / "run" / "processors.pid"
    with up("processors", "indexer", "--config", path) as supervisor:
        supervisor.until("can't connect")
        os.kill(killed := int(pid.read_text()), signal.SIGKILL)
        supervisor.until("processors ended after")
        deadline = time.monotonic() + PATIENCE
        while int(pid.read_text()) == killed:
            assert time.monotonic() < deadline
        assert supervisor.process.poll() is None

"""What goes wrong on real machines gets one clear line and a non-zero exit, and loses nothing."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kafka import KafkaAdminClient

from devnet.anvil import anvil
from devnet.chain import Chain, DevnetError
from nektar import bus as buses
from nektar.bus.port import Message, partition_of
from nektar.config import load
from nektar.log import NETWORK, key
from nektar.role import ROLES
from tests.seeds import thorough

CHAIN_ID = 31337
SECRET = "api-key-that-nobody-may-see"
NOBODY = "0x00000000000000000000000000000000000000aa"


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    try:
        with anvil(chain_id=CHAIN_ID, slots=2) as running:
            running.mine()
            yield running
    except DevnetError as error:
        pytest.skip(f"needs anvil: {error}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write(directory: Path, url: str = "http://127.0.0.1:1", **changes: object) -> Path:
    """A nektar.yaml of one Network in `directory`, with these top-level keys or the Network's own changed."""
    network = {"name": "one", "chain_id": CHAIN_ID, "rpc": ["mine"], "contracts": {"task_manager": NOBODY}}
    config: dict[str, object] = {
        "data_dir": "data",
        "providers": {"mine": {"url": f"{url}/?key={SECRET}"}},
        "networks": [network],
        "listen": {name: f"127.0.0.1:{free_port()}" for name in ("sql", "otlp", "otlp_grpc")}
        | {"metrics": "127.0.0.1:0"},
    }
    for name, value in changes.items():
        (network if name in ("chain_id", "contracts", "factories", "adapter") else config)[name] = value
    path = directory / "nektar.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def nektar(*arguments: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", *(str(a) for a in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def ours(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("nektar: ")]


def refused(done: subprocess.CompletedProcess[str], *says: str) -> None:
    """It failed, its one line of ours says this, and neither a traceback nor the secret is anywhere."""
    lines = ours(done)
    assert done.returncode > 0, done.stdout
    assert len(lines) == 1, done.stderr
    for words in says:
        assert words in lines[0]
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr + done.stdout


def test_a_provider_that_does_not_answer(tmp_path: Path) -> None:
    refused(nektar("check", "--config", write(tmp_path)), "provider mine", "can't connect")


@pytest.mark.real
def test_a_chain_of_another_id(tmp_path: Path, chain: Chain) -> None:
    path = write(tmp_path, chain.url, chain_id=1)
    refused(nektar("check", "--config", path), "expected chain 1", "31337")
    refused(nektar("up", "indexer", "--config", path), "expected chain 1", "31337")


@pytest.mark.real
def test_no_contract_at_an_address(tmp_path: Path, chain: Chain) -> None:
    """The supervisor ends with the role, whose line it is: starting it again can't help."""
    path = write(tmp_path, chain.url)
    says = (
        "networks.one.contracts: expected a contract",
        f"chain {CHAIN_ID} has none at task_manager {NOBODY}",
    )
    for command in (["check"], ["up", "indexer"]):
        done = nektar(*command, "--config", path)
        refused(done, *says)
        assert done.returncode == 2
    done = nektar("up", "indexer", "processors", "--config", path)
    assert done.returncode == 2
    first, second = ours(done)
    assert all(words in first for words in says)
    assert second == "nektar: indexer: stopped (exit code 2); its own line above says what to mend"


@pytest.mark.real
@thorough
def test_a_collectors_port_that_is_free_taken_or_its_own(tmp_path: Path, chain: Chain) -> None:
    path = write(tmp_path, chain.url, contracts={}, telemetry={"audience": "us"})
    listen = load(path).listen
    done = nektar("check", "--config", path)
    assert (
        f"listen.otlp {listen.otlp}: free\nlisten.otlp_grpc {listen.otlp_grpc}: free\n"
        "telemetry: taken from registered Operators\n"
    ) in done.stdout
    for name, at in (("listen.otlp", listen.otlp), ("listen.otlp_grpc", listen.otlp_grpc)):
        host, _, port = at.rpartition(":")
        with socket.create_server((host, int(port))):
            refused(nektar("check", "--config", path), f"{name}: {at}", "another port")
            refused(nektar("up", "collector", "--config", path), f"{name}: {at}", "another port")
    command = [sys.executable, "-m", "cli.main", "up", "collector", "--config", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as collector:
        deadline = time.monotonic() + 60
        while nektar("check", "--config", path).stdout.count("the collector answers there") < 2:
            assert time.monotonic() < deadline
            assert collector.poll() is None
        collector.terminate()
        _, errors = collector.communicate(timeout=30)
    assert collector.returncode == 0
    assert "takes it from registered Operators" in errors


def test_a_contract_that_the_adapter_does_not_know(tmp_path: Path) -> None:
    path = write(tmp_path, contracts={"task_boss": NOBODY})
    refused(nektar("check", "--config", path), "task_boss", "task_manager")


def test_a_factory_whose_event_the_abi_does_not_have(tmp_path: Path) -> None:
    factories = {"burner": {"contract": "task_manager", "event": "Made", "argument": "burner"}}
    says = "factories.burner.event: expected an event of task_manager (Attested"
    refused(nektar("check", "--config", write(tmp_path, factories=factories)), says, "got 'Made'")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"adapter": "unheard-of"}, "expected one of nektar"),
        ({"bus": "pigeon://post"}, "expected sqlite:///DIRECTORY"),
        ({"store": "drawer://left"}, "expected chdb:///PATH or clickhouse://"),
        ({"data_dir": "nektar.yaml"}, "Not a directory"),
    ],
)
def test_a_place_that_can_not_be(tmp_path: Path, change: dict[str, object], says: str) -> None:
    refused(nektar("up", "store", "--config", write(tmp_path, **change)), says)


@thorough
def test_brokers_that_do_not_answer(tmp_path: Path) -> None:
    done = nektar("up", "store", "--config", write(tmp_path, bus=f"kafka://me:{SECRET}@127.0.0.1:1"))
    refused(done, "kafka 127.0.0.1:1: no broker answers; see that one runs")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.real
def test_a_topic_that_loses_messages(tmp_path: Path, chain: Chain, kafka_url: str) -> None:
    contract = NOBODY.replace("aa", "bb")
    chain.rpc("anvil_setCode", contract, "0x00")
    bus = f"{kafka_url}?prefix=check."
    path = write(tmp_path, chain.url, contracts={"task_manager": contract}, bus=bus)
    done = nektar("check", "--config", path)
    assert done.returncode == 0, done.stderr
    assert f"bus {bus}: opens, and keeps what is written" in done.stdout
    with KafkaAdminClient(bootstrap_servers=kafka_url.removeprefix("kafka://")) as admin:
        name = f"check.{NETWORK}"
        settings = {"num_partitions": 8, "configs": {"retention.ms": "604800000"}}
        admin.create_topics({name: settings}, wait_for_metadata=True)
    refused(nektar("check", "--config", path), f"topic {name}: expected retention.ms=-1; got 604800000")


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        path = write(tmp_path, listen={"sql": listen, "metrics": "127.0.0.1:0"})
        refused(nektar("up", "store", "--config", path), listen, "in use", "another port")


def test_sql_that_is_wrong_or_writes(tmp_path: Path) -> None:
    path = write(tmp_path)
    refused(nektar("sql", "SELECT 1", "--config", path), "there is none yet", "nektar up")
    assert nektar("migrate", "--config", path).returncode == 0
    for statement, says in (
        ("SELEC 1", "Syntax error"),
        ("SELECT * FROM nothing", "nothing"),
        ("DROP TABLE duties_rows", "Expected SELECT"),
        ("SELECT * FROM file('/etc/passwd')", "file"),
    ):
        refused(nektar("sql", statement, "--config", path), says)
    assert nektar("sql", "SELECT count() FROM duties", "--config", path).returncode == 0


def test_a_directory_that_no_demo_has_made_is_never_deleted(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "precious").write_text("keep me")
    refused(nektar("demo", "--keep", tmp_path), "no demo has made", "empty directory")
    assert (tmp_path / "precious").read_text() == "keep me"


def test_a_missing_anvil_names_node_and_npm(tmp_path: Path) -> None:
    environment = {**os.environ, "NEKTAR_ANVIL": str(tmp_path / "nothing")}
    command = [sys.executable, "-m", "cli.main", "demo", "--keep", str(tmp_path / "demo")]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    refused(done, "NEKTAR_ANVIL")


@pytest.mark.parametrize(
    ("target", "tools", "says"),
    [
        (
            ".venv/ready",
            {"python3": "#!/bin/sh\necho Python 3.9.1\nexit 1\n"},
            "expected Python 3.11, 3.12 or 3.13",
        ),
        ("node_modules/ready", {}, "expected Node 20 or newer"),
        ("node_modules/ready", {"node": "#!/bin/sh\necho v18.0.0\nexit 1\n"}, "found v18.0.0"),
    ],
)
def test_make_without_a_fitting_python_or_node(
    tmp_path: Path, target: str, tools: dict[str, str], says: str
) -> None:
    root = Path(__file__).parent.parent.parent
    for name in ("Makefile", "pyproject.toml", "package.json", "package-lock.json"):
        shutil.copy(root / name, tmp_path)
    shutil.copytree(root / "requirements", tmp_path / "requirements")
    path = tmp_path / "bin"
    path.mkdir()
    for name in ("make", "bash", "sh", "echo"):
        if found := shutil.which(name):
            (path / name).symlink_to(found)
    for name, script in tools.items():
        (path / name).write_text(script)
        (path / name).chmod(0o755)
    done = subprocess.run(
        ["make", target], cwd=tmp_path, env={"PATH": str(path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert says in done.stderr
    assert sum(line.startswith("nektar: ") for line in done.stderr.splitlines()) == 1


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A nektar.yaml whose Network's log begins with bytes that are no record."""
    path = write(tmp_path)
    bus = buses.open(load(path).bus_url)
    with bus.writer("somebody", partition_of("one", bus.partitions)) as writer:
        writer.transaction([Message(NETWORK, key("one", 1), b"this is no record")])
    bus.close()
    return path


def test_a_broken_record_stops_the_roles_and_stays_where_it_is(broken: Path) -> None:
    partition = partition_of("one", 8)
    for command in (["up", "processors"], ["up", "indexer"], ["replay"]):
        done = nektar(*command, "--config", broken)
        refused(done, NETWORK, f"partition {partition}", "offset 0", "expected a log record")
    bus = buses.open(load(broken).bus_url)
    assert [m.value for m in bus.read(NETWORK, partition)] == [b"this is no record"]
    bus.close()


def test_a_broken_record_is_a_dead_letter_of_the_store_and_does_not_stop_it(broken: Path) -> None:
    command = [sys.executable, "-m", "cli.main", "up", "store", "--config", str(broken)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as store:
        try:
            deadline = time.monotonic() + 60
            while b"this is no record".hex() not in nektar("dead", "--json", "--config", broken).stdout:
                assert time.monotonic() < deadline
                assert store.poll() is None
            assert nektar("sql", "SELECT count() FROM blocks", "--config", broken).returncode == 0
            store.terminate()
            _, errors = store.communicate(timeout=30)
        finally:  # where it is not as it should be, nobody waits for it
            store.kill()
    assert store.returncode == 0
    assert "Traceback" not in errors


def test_a_full_disk(tmp_path: Path) -> None:
    probe = ["unshare", "-Urm", "true"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("needs mount namespaces")
    path, data = write(tmp_path), tmp_path / "data"
    data.mkdir()
    inside = (
        f'mount -t tmpfs -o size=2m full "{data}" && head -c 4m /dev/zero > "{data}/ballast" 2>/dev/null; '
        f'exec "{sys.executable}" -m cli.main up processors --config "{path}"'
    )
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", inside], capture_output=True, text=True, timeout=60, check=False
    )
    refused(done, "the disk is full")


@pytest.mark.real
def test_ctrl_c_ends_every_child(tmp_path: Path, chain: Chain) -> None:
    path = write(tmp_path, chain.url, contracts={})
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "up", "--config", str(path)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    pids = [tmp_path / "data" / "run" / f"{role}.pid" for role in ROLES]
    deadline = time.monotonic() + 30
    while not all(p.exists() for p in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    children = [int(p.read_text()) for p in pids]
    refused(nektar("up", "--config", path), "another `nektar up` runs")
    os.killpg(supervisor.pid, signal.SIGINT)
    _, errors = supervisor.communicate(timeout=30)
    assert "Traceback" not in errors
    assert SECRET not in errors
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
    assert not any(p.exists() for p in pids)

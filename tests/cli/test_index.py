"""`nektar index` and `nektar coverage` as a person types them, on a real chain; also killed in the middle."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.load import BUNDLED, Load, load
from cli.index import read_abi
from cli.settings import data_config
from devnet.chain import DevnetError
from devnet.processes import Child
from devnet.proxy import proxied
from nektar.arrow import pa
from nektar.chain.types import AbiError
from nektar.store import schema
from nektar.store.client import open_store
from nektar.store.migrate import migrate
from nektar.store.schema import generations_table

pytestmark = pytest.mark.real

LOGS = 20_000


@pytest.fixture(scope="module")
def chain() -> Iterator[Load]:
    try:
        with load(BUNDLED, LOGS) as made:
            yield made
    except DevnetError as error:
        pytest.skip(f"needs anvil: {error}")


@pytest.fixture(scope="module")
def liar(chain: Load) -> Iterator[tuple[Child, str]]:
    with proxied(chain.url) as made:
        yield made


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "cli.main", *map(str, arguments)]


def stderr(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the command says on stderr, beside how far it has come, which slow ones say."""
    return [line for line in done.stderr.splitlines() if not line.startswith("sample: ")]


def nektar(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, check=False)


def index(of: Load, directory: Path, *more: object, name: str = "sample", rpc: str = "") -> list[str]:
    what = ("--rpc", rpc or of.url, "--abi", of.abi, "--address", of.address, "--name", name)
    return command("index", *what, "--from", of.first, "--to", of.last, "--dir", directory, *more)


def sums(directory: Path, name: str = "sample") -> list[int]:
    """Rows, different places, and the sum of these."""
    sums = "count() AS n, uniqExact(place) AS p, sum(place) AS s"
    sql = f"SELECT {sums} FROM event_sample WHERE network = '{name}'"
    done = nektar("sql", sql, "--dir", directory, "--format", "TSV")
    assert done.returncode == 0, done.stderr
    return [int(each) for each in done.stdout.split()]


ALL = [LOGS, LOGS, LOGS * (LOGS - 1) // 2]


@pytest.mark.parametrize("level", ["reported", "proved"])
def test_any_contracts_events_fill_tables_that_sql_reads(chain: Load, tmp_path: Path, level: str) -> None:
    first = index(chain, tmp_path, "--check", level)
    done = subprocess.run(first, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{LOGS:,} logs {level}" in done.stdout
    assert f"event_sample: {LOGS:,} rows in the store" in done.stdout
    assert sums(tmp_path) == ALL
    again = subprocess.run([*first, "--json"], capture_output=True, text=True, check=True)
    said = json.loads(again.stdout)
    assert (said["read"], sum(said["stored"].values())) == (0, LOGS)
    covered = nektar("coverage", "--dir", tmp_path, "--json")
    assert covered.returncode == 0
    (stretch,) = [json.loads(line) for line in covered.stdout.splitlines()]
    assert len(stretch.pop("filter")) == 8
    assert [stretch] == [
        {
            "network": "sample",
            "kind": "logs",
            "level": level,
            "provider": "rpc",
            "anchor": "single:rpc",
            "first": chain.first,
            "last": chain.last,
            "blocks": chain.last - chain.first + 1,
        }
    ]


def ran(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)


# Before which of its writes a run is killed; the next goes on, and is killed before a later one.
WRITES = (1, 2, 4, 7, 12, 20)


def killed_again_and_again(arguments: list[str], rows_an_insert: int) -> subprocess.CompletedProcess[str]:
    """The first of these runs that got to its end. Those before each ended by a kill -9."""
    for runs, writes in enumerate(WRITES):
        more = [str(writes), str(rows_an_insert), *arguments[3:]]
        done = ran([sys.executable, "-m", "tests.cli.dying_index", *more])
        if done.returncode != -signal.SIGKILL:
            assert runs > 2
            return done
    raise AssertionError("it never got to its end")


def test_a_run_that_is_killed_between_its_writes_is_gone_on_with(chain: Load, tmp_path: Path) -> None:
    done = killed_again_and_again(index(chain, tmp_path, "--json"), 4_000)
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["read"] < LOGS  # it went on, and began nothing anew
    assert sums(tmp_path) == ALL


def test_an_audit_names_each_lie_and_corrects_it_also_when_it_is_killed(
    chain: Load, tmp_path: Path, liar: tuple[Child, str]
) -> None:
    child, url = liar
    child.tell({"lie": "altered data", "seed": 3, "chance": 1.0})
    reported = ran(index(chain, tmp_path, "--check", "reported", rpc=url))
    child.tell({"lie": ""})
    assert reported.returncode == 0, reported.stderr
    done = killed_again_and_again(index(chain, tmp_path, "--audit"), 4_000)
    assert done.returncode == 3, done.stderr
    shown = [line for line in done.stdout.splitlines() if line.startswith("  altered: block ")]
    assert len(shown) == 20
    assert all(line.endswith("reported by rpc") for line in shown)
    assert len(stderr(done)) == 1
    assert sums(tmp_path) == ALL
    again = ran(index(chain, tmp_path, "--audit", "--json"))
    assert again.returncode == 3
    said = json.loads(again.stdout)
    lies = said["lies"]
    assert (said["blocks"], said["dissent"]) == (0, len(lies))
    assert len({(lie["block_number"], lie["log_index"]) for lie in lies}) == len(lies) > 20
    assert {(lie["lie"], lie["provider"]) for lie in lies} == {("altered", "rpc")}
    assert f"  and {len(lies) - 20} lies more" in done.stdout
    assert done.stderr.startswith(f"nektar: sample: {len(lies)} lies were reported of blocks ")

    covered = nektar("coverage", "--dir", tmp_path, "--json")
    assert covered.returncode == 0
    *stretches, told = map(json.loads, covered.stdout.splitlines())
    assert {each["level"] for each in stretches} == {"proved"}
    blocks = [lie["block_number"] for lie in lies]
    assert told == {
        "network": "sample",
        "provider": "rpc",
        "lie": "altered",
        "lies": len(lies),
        "first": min(blocks),
        "last": max(blocks),
        "why": "",
    }
    assert "dissent" in nektar("coverage", "--dir", tmp_path).stdout


def test_an_audit_of_what_is_as_it_was_reported_ends_well(chain: Load, tmp_path: Path) -> None:
    assert ran(index(chain, tmp_path, "--check", "reported")).returncode == 0
    done = ran(index(chain, tmp_path, "--audit"))
    assert done.returncode == 0, done.stderr
    assert "no lie was found" in done.stdout
    assert f"{LOGS:,} logs proved" in done.stdout


def test_an_audit_that_leaves_blocks_unproved_says_so(chain: Load, tmp_path: Path) -> None:
    most = chain.last - 5
    assert ran(index(chain, tmp_path, "--check", "reported", "--to", most)).returncode == 0
    done = ran(index(chain, tmp_path, "--audit"))
    assert done.returncode == 1, done.stdout
    assert "  5 blocks are not proved: nothing was reported of them" in done.stdout
    assert "no lie" not in done.stdout
    blocks = chain.last - chain.first + 1
    assert f"sample: 5 of {blocks} blocks are not proved, from block {chain.last - 4} on" in done.stderr
    done = ran(index(chain, tmp_path, "--audit", "--json"))
    assert (done.returncode, json.loads(done.stdout)["unproved"]) == (1, 5)
    assert ran(index(chain, tmp_path, "--audit", "--to", most)).returncode == 0


def test_several_providers_are_read_by_and_those_that_are_down_or_behind_are_left_out(
    chain: Load, tmp_path: Path, liar: tuple[Child, str]
) -> None:
    child, url = liar
    child.tell({"lie": "stale head"})
    network = {"name": "n", "chain_id": 31337, "rpc": ["good"], "contracts": {"registry": chain.address}}
    config = {"providers": {"good": {"url": chain.url}}, "networks": [network], "data_dir": str(tmp_path)}
    (tmp_path / "nektar.yaml").write_text(json.dumps(config))
    more = ("--rpc", "http://127.0.0.1:1", "--rpc", "good", "--config", tmp_path / "nektar.yaml")
    done = ran(index(chain, tmp_path, *more, rpc=url))
    child.tell({"lie": ""})
    assert done.returncode == 0, done.stderr
    assert "provider rpc: its newest block is" in done.stderr
    assert "provider rpc-2: " in done.stderr
    assert sums(tmp_path) == ALL


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("--address", "0x12"), "--address: expected 0x and 40 hex digits"),
        (("--abi", "nowhere.json"), "--abi: nowhere.json can't be read"),
        (("--rpc", "nobody"), "--rpc: expected a URL or a provider's name"),
        (("--rpc", "${NEKTAR_NO_SUCH}"), "NEKTAR_NO_SUCH is not set"),
        (("--to", "99999999"), "expected blocks in order, up to the newest"),
        (("--to", "0"), "expected blocks in order"),
        (("--name", "Not A Name"), "--name: expected"),
        (("--check", "linked"), "--check: expected reported or proved"),
        (("--check", "reported", "--audit"), "--audit proves what was reported"),
    ],
)
def test_a_mistake_is_one_clear_line(chain: Load, tmp_path: Path, change: tuple[str, str], says: str) -> None:
    done = subprocess.run(index(chain, tmp_path, *change), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(stderr(done)) == 1


def test_without_a_last_block_none_is_read_that_is_not_final(chain: Load, tmp_path: Path) -> None:
    """Anvil calls none of the last 64 final."""
    arguments = index(chain, tmp_path)
    at = arguments.index("--to")
    done = ran([*arguments[:at], *arguments[at + 2 :], "--from", str(chain.last)])
    assert done.returncode == 2, done.stdout
    assert "--from: expected a final block" in done.stderr


def test_a_networks_name_is_refused_by_the_configuration_and_by_the_store(
    chain: Load, tmp_path: Path
) -> None:
    network = {"name": "sample", "chain_id": 31337, "rpc": ["p"], "contracts": {"registry": chain.address}}
    config = {"providers": {"p": {"url": chain.url}}, "networks": [network], "data_dir": str(tmp_path)}
    (tmp_path / "nektar.yaml").write_text(json.dumps(config))
    configured = ran(index(chain, tmp_path, "--config", tmp_path / "nektar.yaml"))
    (tmp_path / "nektar.yaml").unlink()
    with open_store(data_config(None, tmp_path, new=True).store_url) as store:
        migrate(store, [])
        row = pa.table({"generation": pa.array([1], pa.uint32()), "bus": ["b"], "stands": [True]})
        store.insert(generations_table().name, schema.stored(row, "sample", 1 << 48, False), "once")
    stored = ran(index(chain, tmp_path))
    for done in (configured, stored):
        assert done.returncode == 2, done.stderr
        assert "--name: sample is a Network's" in done.stderr
        assert len(stderr(done)) == 1


def test_a_provider_that_is_not_there_is_one_clear_line(chain: Load, tmp_path: Path) -> None:
    done = subprocess.run(
        index(chain, tmp_path, rpc="http://127.0.0.1:1"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "provider rpc" in done.stderr
    assert "127.0.0.1" not in done.stderr
    assert len(stderr(done)) == 1


@pytest.mark.parametrize("type_", ["fixed168x10", "L.S storage", "L.E"])
@pytest.mark.parametrize("kind", ["function", "error", None])
def test_entries_that_are_no_events_are_not_read_and_may_hold_what_no_abi_should(
    tmp_path: Path, type_: str, kind: str | None
) -> None:
    posted = {"type": "event", "name": "Posted", "inputs": [{"type": "uint256", "name": "n"}]}
    other = {"name": "f", "inputs": [{"type": type_, "name": "s"}]} | ({"type": kind} if kind else {})
    file = tmp_path / "abi.json"
    file.write_text(json.dumps([other, posted]))
    read = read_abi(file)
    assert [event.name for event in read.events] == ["Posted"]
    file.write_text(json.dumps([posted, other | {"type": "event"}]))
    with pytest.raises(AbiError, match=f"f: expected a type that .*{type_}"):
        read_abi(file)
    file.write_text(json.dumps([posted, "other"]))
    with pytest.raises(AbiError, match="expected an ABI's list of objects"):
        read_abi(file)

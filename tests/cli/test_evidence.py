"""`nektar evidence`, `verify` and `dispute`, on a real chain's finding: what they print, and how they end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import yaml

from devnet.anvil import free_port
from nektar import bus as buses
from nektar.config import load
from nektar.evidence import bundle as bundles
from nektar.model import Network
from nektar.rows import Change, Finding
from nektar.store.client import open_store
from nektar.store.migrate import migrate
from processors import docket, outputs
from processors.conditions.equivocation import Equivocation
from processors.conditions.invalid_response import InvalidResponse
from processors.sink import Sink
from tests.devnet.contracts.conftest import CHAIN_ID, TERMS, Site, on_anvil
from tests.processors.real_chain import ADAPTER, found, gathered

pytestmark = pytest.mark.real
CONDITION = Equivocation()

site = pytest.fixture(scope="module", name="site")(on_anvil)


@pytest.fixture(scope="module")
def finding(site: Site) -> Finding:
    task = site.submit(n=91)
    for answer in ((7, 13), (13, 7)):
        site.attest(0, task, answer)
    (finding,) = found(site, CONDITION)
    return finding


@pytest.fixture
def home(tmp_path: Path, site: Site) -> Path:
    """A directory with the Network's nektar.yaml."""
    network = {
        "name": "home",
        "chain_id": CHAIN_ID,
        "rpc": ["p"],
        "contracts": site.contracts,
        "terms": {name: getattr(TERMS, name) for name in sorted(ADAPTER.terms)},
    }
    config = {
        "data_dir": ".",
        "providers": {"p": {"url": site.chain.url}},
        "listen": {"sql": "127.0.0.1:1"},
        "networks": [network],
    }
    (tmp_path / "nektar.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


@pytest.fixture
def file(tmp_path: Path, site: Site, finding: Finding) -> Path:
    path = tmp_path / "bundle.json"
    path.write_bytes(bundles.write(gathered(site, CONDITION, finding)))
    return path


def nektar(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def refusal(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line that says why."""
    assert (done.returncode, done.stdout) == (code, "")
    (line,) = done.stderr.splitlines()
    return line


def test_a_bundle_is_proved_offline(home: Path, file: Path, finding: Finding) -> None:
    done = nektar("verify", file, "--dir", home, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["finding"] == f"0x{finding.id.hex()}"
    assert said["operator"] == f"0x{finding.operator.hex()}"
    assert (said["proved"], said["condition"], said["blocks_checked"]) == (True, "equivocation", False)
    told = nektar("verify", file, "--dir", home).stdout
    assert "proved: equivocation by 0x" in told
    assert "if these blocks are the chain's" in told


def test_whoever_verifies_needs_neither_store_nor_bus_nor_web3(home: Path, file: Path) -> None:
    program = (
        "import sys, cli.main\n"
        f"sys.argv = ['nektar', 'verify', {str(file)!r}, '--dir', {str(home)!r}]\n"
        "try: cli.main.main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'chdb', 'kafka', 'web3', 'pyarrow', 'clickhouse_connect', 'aiohttp'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_it_can_be_told_what_to_believe_instead_of_by_a_file(site: Site, file: Path, tmp_path: Path) -> None:
    told = ("--chain-id", CHAIN_ID, "--contract", f"task_manager={site.contracts['task_manager']}")
    assert nektar("verify", file, *told).returncode == 0
    assert "task_manager" in refusal(nektar("verify", file, *told[:3], "task_manager=0x" + "11" * 20), 1)
    assert "--contract" in refusal(nektar("verify", file, *told[:2]), 2)
    assert "--contract" in refusal(nektar("verify", file, *told[:3], "task_manager=0x11"), 2)
    assert "--term" in refusal(nektar("verify", file, *told, "--term", "minimum=x"), 2)


def test_what_is_altered_or_of_another_network_is_refused_in_one_line(home: Path, file: Path) -> None:
    text = file.read_text()
    file.write_text(text.replace('"chain_id":31999', '"chain_id":31998'))
    assert "chain" in refusal(nektar("verify", file, "--dir", home), 1)
    file.write_text(text + "\n")
    assert "refused" in refusal(nektar("verify", file, "--dir", home), 1)
    file.write_text("no JSON")
    assert "refused" in refusal(nektar("verify", file, "--dir", home), 1)
    file.write_text(text.replace('"equivocation"', '"sedition"'))
    assert "sedition" in refusal(nektar("verify", file, "--dir", home), 1)


def test_what_could_not_be_checked_is_not_said_to_be_refused(home: Path, file: Path, tmp_path: Path) -> None:
    assert "no such file" in refusal(nektar("verify", home / "nothing", "--dir", home), 4).lower()
    assert "directory" in refusal(nektar("verify", tmp_path, "--dir", home), 4).lower()
    nobody = f"http://127.0.0.1:{free_port()}"
    assert "--rpc" in refusal(nektar("verify", file, "--dir", home, "--rpc", nobody), 4)


@pytest.mark.parametrize(
    "mistake", [("--rpc", "nonsense"), ("--block-hash", "zzz"), ("--block-hash", "0x11")]
)
def test_a_mistake_in_what_is_asked_is_said_to_be_one(
    home: Path, file: Path, mistake: tuple[str, str]
) -> None:
    assert mistake[0] in refusal(nektar("verify", file, "--dir", home, *mistake), 2)


def test_its_blocks_are_held_against_hashes_and_providers(site: Site, home: Path, file: Path) -> None:
    (block,) = json.loads(nektar("verify", file, "--dir", home, "--json").stdout)["blocks"]
    checked = nektar("verify", file, "--dir", home, "--block-hash", block["hash"], "--json")
    assert json.loads(checked.stdout)["blocks_checked"]
    bare = block["hash"].removeprefix("0x").upper()
    assert nektar("verify", file, "--dir", home, "--block-hash", bare).returncode == 0
    wrong = nektar("verify", file, "--dir", home, "--block-hash", "0x" + "00" * 32)
    assert str(block["number"]) in refusal(wrong, 3)
    assert nektar("verify", file, "--dir", home, "--rpc", site.chain.url).returncode == 0


def keep(home: Path, finding: Finding, bundle: str, missing: str = "") -> None:
    """In the store of this directory, as the prosecutor puts it out."""
    config, row = load(home / "nektar.yaml"), docket.evidence(finding, bundle, missing)
    messages = outputs.messages(Network("home", CHAIN_ID, {}), "prosecutor", 0, [Change(None, row)])
    with buses.open(config.bus_url) as bus, open_store(config.store_url) as store:
        with bus.writer("test", 0) as writer:
            writer.transaction(messages)
        migrate(store, [])
        with Sink(store, bus, {}) as sink:
            while sink.turn(0.0):
                pass


def test_where_there_can_be_no_evidence_the_reason_is_told(home: Path, finding: Finding) -> None:
    other = msgspec.structs.replace(finding, id=b"\xee" * 32)
    keep(home, other, "", "bundle: expected at most 9 bytes; got 10")
    for command in ("evidence", "dispute"):
        why = refusal(nektar(command, "0xeeee", "--dir", home), 1)
        assert "there is no evidence for it: bundle: expected at most 9 bytes" in why


def test_the_challenge_of_a_wrong_response_is_printed_as_well(site: Site, home: Path) -> None:
    condition = InvalidResponse()
    site.attest(1, site.submit(n=77), (7, 13))
    finding = max(found(site, condition), key=lambda each: each.block_number)
    bundle = gathered(site, condition, finding)
    keep(home, finding, bundles.write(bundle).decode())
    printed = json.loads(nektar("dispute", finding.id.hex(), "--challenge", "--dir", home).stdout)
    challenge = condition.challenge(bundle)
    assert challenge is not None
    assert printed["to"] == site.contracts["task_manager"]
    assert printed["data"] == "0x" + challenge.calldata.hex()


def test_a_findings_bundle_and_its_unsigned_dispute_come_from_the_store(
    site: Site, home: Path, file: Path, finding: Finding
) -> None:
    keep(home, finding, file.read_text())
    name = finding.id.hex()[:10]
    out = home / "out.json"
    assert nektar("evidence", name, "-o", out, "--dir", home).returncode == 0
    assert out.read_bytes() == file.read_bytes()
    assert nektar("evidence", f"0x{name}", "--dir", home).stdout == file.read_text()
    shown = f"0x{name[:8]}…{finding.id.hex()[-4:]}"  # as tables show it
    assert nektar("evidence", shown, "--dir", home).stdout == file.read_text()
    assert "evidence" in refusal(nektar("evidence", "0xffff", "--dir", home), 1)
    refusal(nektar("dispute", name, "--challenge", "--dir", home), 1)  # there is no response to overturn
    transaction = json.loads(nektar("dispute", name, "--dir", home).stdout)
    assert transaction.keys() == {"chainId", "data", "to", "value"}
    sent = site.chain.call(transaction["to"], bytes.fromhex(transaction["data"][2:]))
    assert len(sent) == 32


def test_after_a_reorg_the_chain_has_other_blocks(site: Site, home: Path, file: Path) -> None:
    """The last one here: what the others are about is gone then."""
    (block,) = json.loads(nektar("verify", file, "--dir", home, "--json").stdout)["blocks"]
    site.chain.reorg(site.head - block["number"] + 1)
    assert "the provider has 0x" in refusal(nektar("verify", file, "--dir", home, "--rpc", site.chain.url), 3)

"""The whole path on the real thing: chain, operators, pipeline, judge, with every role killed once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from devnet.anvil import find_anvil
from devnet.chain import DevnetError
from nektar.role import ROLES

pytestmark = pytest.mark.real
KEYS = {
    "seed",
    "bus",
    "store",
    "blocks",
    "reorgs",
    "tasks",
    "duties",
    "truth",
    "found",
    "precision",
    "recall",
}
KEYS |= {"recall", "lost", "duplicated", "latency_ms", "webhooks"}


@pytest.fixture(autouse=True)
def anvil_is_here() -> None:
    try:
        find_anvil()
    except DevnetError as error:
        pytest.skip(f"needs anvil: {error}")


def nektar(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def test_found_equals_truth_though_every_role_is_killed_once(tmp_path: Path) -> None:
    stale = tmp_path / "build" / "demo" / "summary.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}")
    done = nektar(tmp_path, "demo", "--seed", "77", "--operators", "8", "--kill", ",".join(ROLES))
    assert done.returncode == 0, done.stderr + done.stdout
    summary = json.loads(stale.read_text())
    assert summary.keys() >= KEYS
    assert sorted(k["role"] for k in summary["kills"]) == sorted(ROLES)
    facts = [Counter(json.dumps(f, sort_keys=True) for f in summary[s]) for s in ("truth", "found")]
    assert facts[0] == facts[1]
    assert set(summary["duties"]) == {"excused", "late", "missed", "pending", "signed", "unknown"}
    assert (summary["precision"], summary["recall"], summary["lost"], summary["duplicated"]) == (1, 1, 0, 0)
    assert summary["latency_ms"]["block_to_store"]["n"] > 100
    hooks = summary["webhooks"]
    assert hooks["due"] == hooks["delivered"] == hooks["verified"] > 0
    assert hooks["sent"] >= hooks["delivered"] + hooks["repeated_id"]
    assert hooks["retracted"] >= sum(f["value"] == "retracted" for f in summary["found"])
    assert summary["latency_ms"]["block_to_webhook"]["n"] > 0
    # What it left answers with nothing running.
    here = ("--dir", "build/demo")
    asked = nektar(tmp_path, "sql", *here, "SELECT count() AS n FROM duties", "--format", "JSONEachRow")
    assert json.loads(asked.stdout)["n"] == sum(summary["duties"].values())
    for command in ("tasks", "operators", "findings", "dead"):
        answered = nektar(tmp_path, command, *here, "--json")
        assert answered.returncode == 0, answered.stderr
    assert len(nektar(tmp_path, "tasks", *here, "--json").stdout.splitlines()) == summary["tasks"]
    replayed = nektar(tmp_path, "replay", *here, "--json")
    assert replayed.returncode == 0, replayed.stderr
    assert [json.loads(line)["difference"] for line in replayed.stdout.splitlines()] == [None, None, None]

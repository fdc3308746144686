"""What a machine can't run is skipped loudly; what NEKTAR_REQUIRE names (`anvil`, `corpora`, `kafka`, `go`,
`java`) may not be.

A test that needs something says so in its skip reason: `pytest.skip("needs anvil: …")`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import py_ecc
import pytest
from hypothesis import settings

from devnet.chain import DevnetError
from devnet.kafka import Cluster, copied, kafka
from nektar.config import Config
from tests.spans import Counted, Spans, installed, reader

# The contract's own asserts say what they compared, as those of test files do.
pytest.register_assert_rewrite("tests.nektar.bus.contract")

# py_ecc, an oracle, raises it to 100,000 for its whole process, where JSON that deep overflows C's stack; no
# role's process has it.
assert py_ecc.__name__
sys.setrecursionlimit(1_000)

# How long an example takes is the machine's, which other tests keep busy; what is to be quick is in bench/.
settings.register_profile("nektar", deadline=None)
settings.load_profile("nektar")

REQUIRED = [name for name in os.environ.get("NEKTAR_REQUIRE", "").split(",") if name]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[None] | pytest.TestReport:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = str(call.excinfo.value if call.excinfo else report.longrepr)
        missing = [name for name in REQUIRED if f"needs {name}" in reason]
        if missing:
            report.outcome = "failed"
            report.longrepr = f"NEKTAR_REQUIRE={','.join(missing)} forbids this skip: {reason}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section("SKIPPED: this machine did not run", sep="!")
        for report in skipped:
            why = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr
            terminalreporter.line(f"{report.nodeid}: {why}")


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_where_tests_run() -> Iterator[None]:
    """A configuration without `data_dir` keeps its data, and secrets, in the working directory."""
    data = Path(Config(providers={}, networks=()).data_dir)
    before = _files(data)
    yield
    assert _files(data) == before, "a test needs a `data_dir` of its own"


def _files(folder: Path) -> dict[Path, int]:
    """When each file in it was changed last, in ns since 1970."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="session")
def kafka_cluster() -> Iterator[Cluster]:
    """A Kafka of one broker, started with the first test that needs it, one a test process."""
    try:
        copied()
    except DevnetError as error:
        pytest.skip(f"needs kafka: {error}")
    with kafka() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def kafka_url(kafka_cluster: Cluster) -> str:
    return kafka_cluster.url


@pytest.fixture
def spans() -> Iterator[Spans]:
    """The spans that end in this process while the test runs."""
    spans = installed()
    spans.kept, spans.looking = [], True
    yield spans
    spans.looking = False


@pytest.fixture
def counted() -> Counted:
    """What this process counts from now on."""
    return Counted(reader())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole demos first: one of them last would be waited for by every other test process."""
    items.sort(key=lambda item: item.path.name != "test_demo.py")

"""The indexer behind a provider that lies: what happens, lie by lie, and that docs/LIES.md says so.

A real anvil, the devnet's proxy before it, the role on a real bus. `NEKTAR_WRITE=1` writes the table anew.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from devnet.anvil import free_port
from devnet.liar import LIES
from devnet.processes import Child
from indexer import follow
from nektar.bus.sqlite import SqliteBus
from nektar.config import Config, Limits, Provider
from nektar.log import New
from nektar.model import Block, Level
from tests.indexer.rules import Reading, records, rows
from tests.indexer.test_role import PATIENCE, World, network, running, world

pytestmark = pytest.mark.real

PAGE = Path(__file__).parents[2] / "docs" / "LIES.md"
LEVEL = "the log is the chain"
TWO_REORGS = "two reorgs within a second"
# Who is asked, in order of preference. Quorums become columns of their own.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "with an honest second provider": ("liar", "honest"),
    "alone": ("liar",),
}
# Lies that no header contradicts: other consistent chains, and what only time can show to be false.
NOT_TOLD = {"forked head", "invented fork", "false finalized"}
# What is waited for where nothing is to come, in seconds.
WHILE = 1.0
LIMITS, SHORT = Limits(timeout=1.0), Limits(timeout=0.3)


class Stage:
    """A chain, an honest provider of it, and one that lies when it is told to."""

    def __init__(self, there: World, liar: Child, port: int) -> None:
        self.there, self.liar = there, liar
        self.urls = {"liar": f"http://127.0.0.1:{port}", "honest": there.chain.url}
        self.ever: dict[str, Counter[str]] = {}  # what each block that the chain ever had says

    def note(self) -> None:
        """Remember what the chain says now."""
        hashes, logs = self.there.truth_from(max(0, self.there.chain.head()[0] - 9))
        for block_hash in hashes:
            self.ever.setdefault(block_hash, Counter())
        for (block_hash, what), count in logs.items():
            self.ever[block_hash][what] = count

    def go_on(self) -> None:
        self.there.say(3)
        self.there.chain.mine(2)
        self.there.say()
        self.note()

    def reorg(self, depth: int) -> None:
        self.there.reorg(depth)
        self.note()


@contextmanager
def stage() -> Iterator[Stage]:
    with world() as there:
        port = free_port()
        liar = Child("proxy", "devnet.proxy", there.chain.url, str(port))
        try:
            liar.wait_for("listening", port)
            found = Stage(there, liar, port)
            found.go_on()
            found.go_on()
            yield found
        finally:
            liar.stop()


class Case:
    """One lie, told to an indexer that has these providers."""

    seed = 7
    chance = 1.0

    def __init__(self, stage: Stage, lie: str, rpc: tuple[str, ...], folder: Path) -> None:
        self.stage, self.lie, self.rpc = stage, lie, rpc
        self.first = stage.there.chain.head()[0] - 3
        self.folder = folder

    def outcome(self, said: pytest.LogCaptureFixture) -> str:
        """What happened while the lie was told, and once it was over."""
        chain, there = self.stage.there.chain, self.stage.there
        limits = SHORT if self.lie == "hung" else LIMITS
        config = Config(
            providers={name: Provider(url, limits=limits) for name, url in self.stage.urls.items()},
            networks=(network("net", there.address, rpc=self.rpc, from_block=self.first),),
        )
        lie = {"lie": "" if self.lie == TWO_REORGS else self.lie, "seed": self.seed, "chance": self.chance}
        is_from_the_start = self.lie == "invented fork"  # once the log has the chain's finality, it is none
        if is_from_the_start:
            self.stage.liar.tell(lie)
        said.clear()
        with SqliteBus(self.folder) as self.bus, running(config, self.bus):
            if not is_from_the_start:
                self.until(lambda: self.tip is not None and self.tip.number == chain.head()[0])
                said.clear()
                self.stage.liar.tell(lie)
            if self.lie == TWO_REORGS:
                self.stage.reorg(2)
                self.stage.reorg(1)
            self.stage.go_on()
            is_alone = len(self.rpc) == 1
            patience = WHILE if is_alone and self.lie == "stale head" else PATIENCE
            self.watch(lambda: self.at_the_head or (is_alone and bool(self.words(said))), patience)
            if self.lie == "false finalized":
                self.until(lambda: self.reading.finalized == (self.tip and self.tip.ref))
                self.stage.reorg(2)
                self.until(lambda: "net: stopped" in said.text)
            during = self.found(said)
            self.stage.liar.tell({"lie": ""})
            if self.lie == "invented fork":
                self.until(lambda: "net: stopped" in said.text)
            elif "stops" not in during:
                self.until(lambda: self.is_the_chain)
            after = self.found(said)
        self.assert_nothing_false_was_ever_taken()
        return during if during == after else f"{during}; when it ends, {after}"

    def until(self, claim: Callable[[], bool]) -> None:
        assert self.watch(claim), "waited in vain"

    def watch(self, claim: Callable[[], bool], patience: float = PATIENCE) -> bool:
        """Whether it comes to hold."""
        deadline = time.monotonic() + patience
        while not (holds := claim()) and time.monotonic() < deadline:
            time.sleep(0.03)  # looking takes the time of those who are looked at
        return holds

    @property
    def reading(self) -> Reading:
        return Reading(records(self.bus, "net"))

    @property
    def tip(self) -> Block | None:
        blocks = self.reading.blocks
        return blocks[-1] if blocks else None

    @property
    def at_the_head(self) -> bool:
        tip = self.tip
        return tip is not None and tip.number == self.stage.there.chain.head()[0]

    @property
    def is_the_chain(self) -> bool:
        hashes, _ = self.stage.there.truth_from(self.first)
        return ["0x" + block.hash.hex() for block in self.reading.blocks] == hashes

    def words(self, said: pytest.LogCaptureFixture) -> str:
        """What the role says first of why it waits, without numbers."""
        found = (r.getMessage() for r in said.records if r.getMessage().startswith("net: provider "))
        text = next(found, "").removeprefix("net: ").removeprefix("provider liar: ")
        text = re.sub(r"(?<!HTTP )\b(?!0x)[0-9.]+\b", "N", re.sub(r"0x[0-9a-f]+", "0x…", text))
        return re.split(r"; |, recomputed|: expected 0x…|\(byte|: char", text)[0].replace("|", "")[:90]

    def found(self, said: pytest.LogCaptureFixture) -> str:
        """What the log and the role say now."""
        if "net: stopped" in said.text:
            return "**the Network stops**: the log has a block as final that the chain has not"
        reading = self.reading
        if self.is_the_chain:
            linked = [block for block in reading.blocks if block.level is Level.LINKED]
            missing = sum((self.truth_of(reading) - self.rows_of(reading)).values())
            if not linked:
                return LEVEL
            lacks = ", without what happened in them" if missing else ""
            return f"{LEVEL}, its blocks `linked`{lacks}"
        hashes, _ = self.stage.there.truth_from(self.first)
        if "0x" + reading.blocks[-1].hash.hex() in hashes:
            words = self.words(said)
            return f"the log waits: “{words}”" if words else "the log stands still, and nothing is said"
        assert {block.anchor for block in reading.blocks[-2:]} == {"single:liar"}
        assert reading.finalized is not None
        is_final = "0x" + reading.finalized.hash.hex() not in hashes
        return f"**taken, {'and final' if is_final else 'and not final'}**: the anchor is `single:liar`"

    def truth_of(self, reading: Reading) -> Counter[tuple[str, str]]:
        hashes = ["0x" + block.hash.hex() for block in reading.blocks]
        return Counter({(h, what): n for h in hashes for what, n in self.stage.ever.get(h, {}).items()})

    def rows_of(self, reading: Reading) -> Counter[tuple[str, str]]:
        events = [row for row in reading.rows.elements() if row[0].startswith("event_")]
        return Counter(("0x" + block_hash.hex(), "0x" + what.hex()) for _, block_hash, what in events)

    def assert_nothing_false_was_ever_taken(self) -> None:
        """Also what was taken back again: a proved block says what the chain's says, a linked one no more."""
        with SqliteBus(self.folder) as bus:
            for record in records(bus, "net"):
                if not isinstance(record, New):
                    continue
                told: dict[str, Counter[str]] = {}
                for table, block_hash, what in rows(record.tables).elements():
                    if table.startswith("event_"):
                        told.setdefault("0x" + block_hash.hex(), Counter())["0x" + what.hex()] += 1
                for block in record.blocks:
                    block_hash_ = "0x" + block.hash.hex()
                    if block_hash_ not in self.stage.ever:
                        assert self.lie in NOT_TOLD
                        continue
                    says = told.get(block_hash_, Counter())
                    truth = self.stage.ever[block_hash_]
                    assert says == truth if block.level is Level.PROVED else says <= truth


HEAD = """# A lying provider

What happens when the devnet's proxy (`devnet/liar.py`) tells each of its lies to an indexer: in all of its
answers, with an honest provider as the second of two, and alone. `tests/indexer/test_lies.py` tries it and
holds this page to what it sees; it looks at everything that ever came onto the log, also what was taken back.

**What contradicts a header never comes onto the log**, and so not into the store. What is consistent can't be
told by looking at one provider: another chain, and a block that is called final and is not. There the anchor
says whose word it is (`single:liar`). What is in quotation marks is what the role says first.

"""


def page(found: Mapping[str, Mapping[str, str]]) -> str:
    lines = [f"| lie | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += [
        f"| {lie} | {' | '.join(outcomes[column] for column in COLUMNS)} |" for lie, outcomes in found.items()
    ]
    return HEAD + "\n".join(lines) + "\n"


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "STANDSTILL", 0.3)


def test_each_lie_does_what_the_page_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found: dict[str, dict[str, str]] = {}
    with stage() as there:
        for lie in (*LIES, TWO_REORGS):
            for column, rpc in COLUMNS.items():
                case = Case(there, lie, rpc, tmp_path / f"{lie} {column}")
                started = time.monotonic()
                try:
                    found.setdefault(lie, {})[column] = case.outcome(caplog)
                except BaseException as error:
                    error.add_note(f"{lie}, {column}")
                    raise
                print(f"{time.monotonic() - started:4.1f} s {lie:32} {column[:5]}: {found[lie][column]}")
    told = page(found)
    if os.environ.get("NEKTAR_WRITE"):
        PAGE.write_text(told, "utf-8")
    assert told == PAGE.read_text("utf-8")


def test_any_mixture_of_lies_ends_in_the_chain(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with stage() as there:
        for seed in range(4):
            for column, rpc in COLUMNS.items():
                case = Case(there, "any", rpc, tmp_path / f"{seed} {column}")
                case.seed, case.chance = seed, 0.3
                assert LEVEL in case.outcome(caplog), (seed, column)

"""The indexer behind a provider that lies: what happens, lie by lie, and that docs/LIES.md says so.

A real anvil, the devnet's proxy before it, the role on a real bus. `NEKTAR_WRITE=1` writes the table anew.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest

from devnet.chain import Chain
from devnet.liar import LIES, VIEWS
from devnet.processes import Child
from devnet.proxy import proxied
from indexer import follow, quorum
from nektar.bus.sqlite import SqliteBus
from nektar.chain import ranks, rpc
from nektar.chain.pool import Pool
from nektar.config import Config, Limits, Provider
from nektar.log import Mark, New
from nektar.model import Block, BlockRef, Level
from tests.indexer.lies_page import hold, table, tried
from tests.indexer.rules import Reading, named, records, rows
from tests.indexer.test_role import PATIENCE, World, network, running, world
from tests.seeds import seeds

pytestmark = pytest.mark.real

LEVEL = "the log is the chain"
TWO_REORGS = "two reorgs within a second"


class Asked(NamedTuple):
    """Whose word is asked for, in order of preference, and what makes headers canonical."""

    rpc: tuple[str, ...]
    anchor: str = "single"

    @property
    def is_alone(self) -> bool:
        return len(self.rpc) == 1

    @property
    def is_quorum(self) -> bool:
        return self.anchor.startswith("quorum")

    @property
    def is_pinned(self) -> bool:
        return self.anchor == "pinned"

    @property
    def words(self) -> str:
        """The anchor of a new block that the liar served."""
        return self.anchor if self.is_quorum else "single:liar"


COLUMNS: Mapping[str, Asked] = {
    "with an honest second provider": Asked(("liar", "honest")),
    "alone": Asked(("liar",)),
    "`quorum 2/3`, two of them honest": Asked(("liar", "honest", "other"), "quorum 2/3"),
    "`pinned`, alone": Asked(("liar",), "pinned"),
}
# Lies that no header contradicts: other consistent chains, and what only time can show to be false.
NOT_TOLD = {"forked head", "invented fork", "invented past", "false finalized"}
# Those of blocks that the chain calls final: none is once the log has its finality.
OF_THE_PAST = {"invented fork", "invented past"}
# Those that make a provider stand still, so that others are to be asked soon.
STANDS_STILL = {"stale head", "invented past", "any"}
# What is waited for where nothing is to come, in seconds.
WHILE = 1.0
LIMITS, SHORT = Limits(timeout=5.0), Limits(timeout=0.3)


class Stage:
    """A chain, an honest provider of it, and one that lies when it is told to."""

    def __init__(self, there: World, liar: Child, url: str) -> None:
        self.there, self.liar = there, liar
        self.urls = {
            "liar": url,
            "honest": there.chain.url,
            "other": there.chain.url.replace("127.0.0.1", "localhost"),
        }
        self.ever: dict[str, Counter[str]] = {}  # what each block that the chain ever had says

    def note(self) -> None:
        """Remember what the chain says now."""
        hashes, logs = self.there.truth_from(max(0, self.there.chain.head()[0] - 9))
        for block_hash in hashes:
            self.ever.setdefault(block_hash, Counter())
        for (block_hash, what), count in logs.items():
            self.ever[block_hash][what] = count

    def tell(self, lie: Mapping[str, Any]) -> None:
        self.liar.tell(dict(lie))
        if lie["lie"] in VIEWS:  # a chain of its own begins where the first question finds the head
            told = Chain(self.urls["liar"])
            told.rpc("eth_blockNumber")
            told.close()

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
    with world() as there, proxied(there.chain.url) as (liar, url):
        found = Stage(there, liar, url)
        found.go_on()
        found.go_on()
        yield found


class Case:
    """One lie, told to an indexer that has these providers."""

    seed = 7
    chance = 1.0

    def __init__(self, stage: Stage, lie: str, asked: Asked, folder: Path) -> None:
        self.stage, self.lie, self.asked = stage, lie, asked
        head, rpc = stage.there.chain.head()[0], stage.there.chain.rpc
        self.first = head - (5 if asked.is_pinned else 3)
        self.pinned = rpc("eth_getBlockByNumber", hex(head - 2), False)
        self.folder = folder

    def outcome(self, said: pytest.LogCaptureFixture) -> str:
        """What happened while the lie was told, and once it was over; and who is named for it."""
        chain, there = self.stage.there.chain, self.stage.there
        limits = SHORT if self.lie == "hung" else LIMITS
        config = Config(
            providers={name: Provider(url, limits=limits) for name, url in self.stage.urls.items()},
            networks=(
                network(
                    "net",
                    there.address,
                    rpc=self.asked.rpc,
                    anchor=self.anchor,
                    from_block=self.first,
                ),
            ),
        )
        lie = {"lie": "" if self.lie == TWO_REORGS else self.lie, "seed": self.seed, "chance": self.chance}
        is_from_the_start = self.asked.is_pinned or self.lie in OF_THE_PAST
        if is_from_the_start:
            self.stage.tell(lie)
        if self.lie == "invented past":  # which is to end below what is final
            self.stage.go_on()
        said.clear()
        with self.hurry(), SqliteBus(self.folder) as self.bus, running(config, self.bus):
            if not is_from_the_start:
                self.until(lambda: self.tip is not None and self.tip.number == chain.head()[0])
                said.clear()
                self.stage.tell(lie)
            if self.lie == TWO_REORGS:
                self.stage.reorg(2)
                self.stage.reorg(1)
            self.stage.go_on()
            is_quorum = self.asked.is_quorum
            is_stuck = self.asked.is_alone and self.lie == "stale head"
            self.watch(lambda: self.has_come(said), WHILE if is_stuck else PATIENCE)
            if self.lie == "false finalized":
                self.until(lambda: is_quorum or self.reading.finalized == (self.tip and self.tip.ref))
                self.stage.reorg(2)
                self.until(lambda: "net: stopped" in said.text or (is_quorum and self.is_the_chain))
            during = self.found(said)
            self.stage.liar.tell({"lie": ""})
            if "and final" in during:
                self.until(lambda: "net: stopped" in said.text)
            elif "the Network" not in during:
                self.until(lambda: self.is_the_chain)
            after = self.found(said)
        self.assert_nothing_false_was_ever_taken()
        with SqliteBus(self.folder) as bus:
            names = {name for name, _ in named(bus, "net")}
        assert names <= ({"liar"} if self.lie != TWO_REORGS else set())
        what = during if during == after else f"{during}; when it ends, {after}"
        if self.asked.is_quorum and self.lie == "forked head":  # which may be over before its final block is
            return f"{what}; liar is named if one of its blocks comes to be final"
        return f"{what}; liar is named" if names else what

    @property
    def anchor(self) -> str:
        """As `nektar.yaml` has it; a block is pinned that the chain has and will not lose."""
        if not self.asked.is_pinned:
            return self.asked.anchor
        return f"pinned {int(self.pinned['number'], 16)} {self.pinned['hash']}"

    def hurry(self) -> AbstractContextManager[object]:
        """Where the lie is to stand still, turn soon from who does; else whoever is only slow, on a machine
        that is busy, would be left before its lie is taken."""
        return patch.object(follow, "STANDSTILL", 0.3 if self.lie in STANDS_STILL else follow.STANDSTILL)

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

    def has_come(self, said: pytest.LogCaptureFixture) -> bool:
        """Whether what comes of the lie is there to be seen."""
        if self.asked.is_quorum:  # which is asked with the lie in force, before anything new is final
            return self.is_the_chain and self.is_final
        is_over = self.at_the_head or "net: stopped" in said.text
        return is_over or (self.asked.is_alone and bool(self.words(said)))

    @property
    def is_final(self) -> bool:
        """Whether the log has as final what the chain calls so."""
        final = self.stage.there.chain.rpc("eth_getBlockByNumber", "finalized", False)
        found = self.reading.finalized
        return found is not None and found.number == int(final["number"], 16) and self.is_on_the_chain(found)

    def is_on_the_chain(self, ref: BlockRef) -> bool:
        block = self.stage.there.chain.rpc("eth_getBlockByNumber", hex(ref.number), False)
        return bool(block["hash"] == "0x" + ref.hash.hex())

    def words(self, said: pytest.LogCaptureFixture) -> str:
        """What the role says first of why it waits, without numbers."""
        found = (r.getMessage() for r in said.records if r.getMessage().startswith("net: provider "))
        text = next(found, "").removeprefix("net: ").removeprefix("provider liar: ")
        text = re.sub(r"(?<!HTTP )\b(?!0x)[0-9.]+\b", "N", re.sub(r"0x[0-9a-f]+", "0x…", text))
        return re.split(r"; |, recomputed|: expected 0x…|\(byte|: char", text)[0].replace("|", "")[:90]

    def found(self, said: pytest.LogCaptureFixture) -> str:
        """What the log and the role say now."""
        if "is pinned; got" in said.text:
            return "**the Network is not followed**: the provider has another block than the pinned one"
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
        if not reading.blocks or "0x" + reading.blocks[-1].hash.hex() in hashes:
            words = self.words(said)
            return f"the log waits: “{words}”" if words else "the log stands still, and nothing is said"
        assert {block.anchor for block in reading.blocks[-2:]} == {self.asked.words}
        assert reading.finalized is not None
        is_final = "0x" + reading.finalized.hash.hex() not in hashes
        return (
            f"**taken, {'and final' if is_final else 'and not final'}**: the anchor is `{self.asked.words}`"
        )

    def truth_of(self, reading: Reading) -> Counter[tuple[str, str]]:
        hashes = ["0x" + block.hash.hex() for block in reading.blocks]
        return Counter({(h, what): n for h in hashes for what, n in self.stage.ever.get(h, {}).items()})

    def rows_of(self, reading: Reading) -> Counter[tuple[str, str]]:
        events = [row for row in reading.rows.elements() if row[0].startswith("event_")]
        return Counter(("0x" + block_hash.hex(), "0x" + what.hex()) for _, block_hash, what in events)

    def assert_nothing_false_was_ever_taken(self) -> None:
        """Also what was taken back again: a proved block says what the chain's says, a linked one no more.

        What a quorum called final is so.
        """
        with SqliteBus(self.folder) as bus:
            for record in records(bus, "net"):
                if isinstance(record, Mark) and self.asked.is_quorum:
                    assert self.is_on_the_chain(record.finalized)
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
                        assert block.anchor == self.asked.words
                        continue
                    says = told.get(block_hash_, Counter())
                    truth = self.stage.ever[block_hash_]
                    assert says == truth if block.level is Level.PROVED else says <= truth


HEAD = """# A lying provider

What happens when the devnet's proxy (`devnet/liar.py`) tells each of its lies to an indexer: in all of its
answers, with an honest provider as the second of two, alone, as one of three of which two must agree on what
is final, and alone where a block of the chain is pinned, to whoever begins below that. It is the one that is
preferred. `tests/indexer/test_lies.py` tries it and holds this page to what it sees; it looks at everything
that ever came onto the log, also what was taken back. Where it says so the liar is named, in the table
`dissent`; nobody else ever is.

**What contradicts a header never comes onto the log**, and so not into the store. What is consistent can't be
told by looking at one provider: another chain, and a block that is called final and is not. There the anchor
says whose word it is (`single:liar`). What is in quotation marks is what the role says first.

**A quorum catches both.** Blocks of the liar's own chain may come onto the log for a moment; none of them is
ever final, and what the others agree on takes their place. A false finality is not followed, so that a reorg
there is one like any other.

**A pin catches whatever is below it**: no block there comes onto the log that is not its ancestor. Above it a
provider's word counts as with `single`, and the anchor says so.

"""


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    # The liar has a way of one more process, and stays the first to be asked.
    monkeypatch.setattr(ranks, "MARGIN", 60.0)
    monkeypatch.setattr(rpc, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(quorum, "PATIENCE", 0.4)
    monkeypatch.setattr(quorum, "AGAIN", 0.2)


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Who is said to have contradicted a header: nobody honest ever is."""
    names: set[str] = set()
    contradicted = Pool.contradicted
    monkeypatch.setattr(Pool, "contradicted", lambda self, name: names.add(name) or contradicted(self, name))
    yield names
    assert names <= {"liar"}


def test_each_lie_does_what_the_page_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lies, columns = (*LIES, TWO_REORGS), list(COLUMNS)
    found: dict[tuple[str, str], str] = {}
    with stage() as there:
        for lie, column in tried(lies, columns):
            case = Case(there, lie, COLUMNS[column], tmp_path / f"{lie} {column}")
            started = time.monotonic()
            try:
                found[lie, column] = case.outcome(caplog)
            except BaseException as error:
                error.add_note(f"{lie}, {column}")
                raise
            print(f"{time.monotonic() - started:4.1f} s {lie:32} {column[:5]}: {found[lie, column]}")
    hold(HEAD + table(lies, columns, found))


def test_any_mixture_of_lies_ends_in_the_chain(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with stage() as there:
        for seed in range(seeds(2, 4)):
            for column, asked in COLUMNS.items():
                case = Case(there, "any", asked, tmp_path / f"{seed} {column}")
                case.seed, case.chance = seed, 0.3
                assert LEVEL in case.outcome(caplog), (seed, column)

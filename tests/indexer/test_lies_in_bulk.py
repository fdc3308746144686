"""Bulk reading by a provider that lies: what happens, who is named, and that docs/LIES.md says so.

A real anvil, the devnet's proxy before it, a real store. `NEKTAR_WRITE=1` writes the table anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bench.load import Load, Shape, load
from devnet.chain import Chain, DevnetError
from devnet.liar import LIES, VIEWS
from devnet.processes import Child
from devnet.proxy import proxied
from indexer import bulk
from indexer.plan import Plan
from indexer.prove import Contradiction
from indexer.ranges import Range, Sizes
from nektar.chain import pace, rpc
from nektar.chain.pool import Pool
from nektar.chain.rpc import Provider, RpcError
from nektar.config import Limits
from nektar.model import Level
from nektar.store.client import open_store
from nektar.store.migrate import migrate
from nektar.store.port import Store
from tests.indexer.lies_page import BULK, hold, table, tried
from tests.indexer.test_bulk import plan, rows
from tests.indexer.test_bulk_audit import audit, coverage, differences, lies_of, run, said

pytestmark = pytest.mark.real

LEVEL = "the store is the chain"
SHAPE, BLOCKS = Shape(3, 2), 12
# Which block is final is asked for where `--to` is left out, and then only those up to it are read.
NOT_MET = {"false finalized", "finalized block of no chain", "forked head"}


class Halves(Sizes):
    """The first half is asked of the provider that is preferred, the other of the next where there is one."""

    def __init__(self, **_: int) -> None:
        super().__init__(most=BLOCKS // 2)
        self.next = BLOCKS // 2


class Asked(NamedTuple):
    level: Level
    rpc: tuple[str, ...] = ("liar",)
    is_begun: bool = False  # the first half is proved already, by somebody honest


EMPTY: Mapping[str, Asked] = {
    "`reported`, alone": Asked(Level.REPORTED),
    "`proved`, alone": Asked(Level.PROVED),
    "`proved`, with an honest second provider": Asked(Level.PROVED, ("liar", "honest")),
}
BEGUN: Mapping[str, Asked] = {
    "alone": Asked(Level.PROVED, is_begun=True),
    "with an honest second provider": Asked(Level.PROVED, ("liar", "honest"), is_begun=True),
}


class Stage(NamedTuple):
    """A chain, a provider of it that lies when it is told to, and what the chain says."""

    chain: Load
    liar: Child
    url: str
    store: Store
    true: Mapping[tuple[int, int], Any]

    def providers(self, names: tuple[str, ...], lie: str = "") -> list[Provider]:
        limits = Limits(timeout=0.3 if lie == "hung" else 5.0, in_flight=1)
        return [Provider(name, self.url if name == "liar" else self.chain.url, limits) for name in names]

    def tell(self, lie: str) -> None:
        self.liar.tell({"lie": lie, "seed": 7, "chance": 1.0})
        if lie in VIEWS:  # a chain of its own begins where the first question finds the head
            told = Chain(self.url)
            told.rpc("eth_blockNumber")
            told.close()

    def outcome(self, lie: str, asked: Asked) -> str:
        """What happened while the lie was told, and once it was over; and who is named for it."""
        of = plan(self.chain, asked.level)
        half = of._replace(blocks=Range(of.blocks.first, of.blocks.first + BLOCKS // 2 - 1))
        if asked.is_begun:
            run(self.store, half, *self.providers(("before",)))
        before = said(self.store, of.name)
        self.tell(lie)
        try:
            run(self.store, of, *self.providers(asked.rpc, lie))
        except (RpcError, Contradiction) as error:
            ended = words(error)
        else:
            ended = ""
        self.tell("")
        told, named = said(self.store, of.name), self.named(of)
        lies = differences(told, dict(self.true))
        if ended:
            assert told.items() <= self.true.items()  # nothing false, if not all
            run(self.store, of, *self.providers(asked.rpc))
            back = "" if before.items() <= told.items() else "what was there is taken back, and "
            what = f"{back}the run ends: “{ended}”"
        elif not lies:
            what = LEVEL
        else:
            by_whom = {each[3] for each in coverage(self.store, of)}
            assert by_whom == {"liar"}, "where what was proved is taken back, all of it is"
            run(self.store, audit(of) if of.level is Level.REPORTED else of, *self.providers(("honest",)))
            if of.level is Level.REPORTED:
                assert lies_of(self.store, of) == lies
                what = (
                    f"**taken**; an audit finds {', '.join(sorted({f'`{kind}`' for _, _, kind, _ in lies}))}"
                )
            else:
                back = ", and what was there taken back" if before else ""
                what = f"**taken**{back}; an honest provider takes it back"
        assert said(self.store, of.name) == self.true
        assert self.named(of) <= {"liar"}
        return f"{what}; liar is named" if named else what

    def named(self, of: Plan) -> set[str]:
        """Who stands in `dissent`."""
        return set(rows(self.store, f"SELECT DISTINCT provider FROM dissent WHERE network = '{of.name}'"))


def words(error: Exception) -> str:
    """What is said of why the run ends, without numbers."""
    text = str(error)
    while text.startswith("provider liar: "):
        text = text.removeprefix("provider liar: ")
    text = re.sub(r"(?<!HTTP )\b(?!0x)[0-9.]+\b", "N", re.sub(r"0x[0-9a-f]+", "0x…", text))
    return re.split(r"; |: a reorg|: expected 0x…|\(byte|: char", text)[0].replace("|", "")[:90]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("lies")
    try:
        with (
            load(SHAPE, SHAPE.logs_a_block * BLOCKS) as chain,
            proxied(chain.url) as (liar, url),
            open_store(f"chdb://{folder / 'store'}") as store,
        ):
            migrate(store, [])
            of = plan(chain, Level.PROVED)
            run(store, of, Provider("honest", chain.url))
            yield Stage(chain, liar, url, store, said(store, of.name))
    except DevnetError as error:
        pytest.skip(f"needs anvil: {error}")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(pace, "SLOWEST", 1_000.0)
    monkeypatch.setattr(bulk, "PATIENCE", 0.0)
    monkeypatch.setattr(bulk, "Sizes", Halves)


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Who is said to have contradicted a header: nobody honest ever is."""
    names: set[str] = set()
    contradicted = Pool.contradicted
    monkeypatch.setattr(Pool, "contradicted", lambda self, name: names.add(name) or contradicted(self, name))
    yield names
    assert names <= {"liar"}


HEAD = f"""{BULK}
What the same lies do to bulk reading (`tests/indexer/test_lies_in_bulk.py`), but for those about the newest
blocks: without `--to` it reads final ones. With two providers the liar is asked for the first half. A run
that ends has put nothing false into the store, and when the lie ends the next one makes the store the chain.
Where it says so the liar is named, in the table `dissent`; nobody else ever is.

**What is only reported is the provider's word**, held to what was asked for and to itself: an audit by an
honest provider finds what is false, names each lie and corrects it. **What contradicts a header is not taken
as proved.** Another chain is consistent by itself: the anchor is `single:liar`, and where another provider
serves some of the blocks, or is asked later, they do not fit.

"""
MIDDLE = """
Where the first half of the blocks is proved already, by somebody honest who is asked no more, a run asks
first what stands where that ends. A header that contradicts itself takes nothing back. Another chain does,
where its provider is alone: a reorg looks like it, also where that chain turns out to end below the newest
blocks. Nobody is named for that; a line in the log says it.

"""


def outcomes(stage: Stage, columns: Mapping[str, Asked]) -> str:
    """The table of them."""
    lies = [lie for lie in LIES if lie not in NOT_MET]
    found = {}
    for lie, column in tried(lies, list(columns)):
        try:
            found[lie, column] = stage.outcome(lie, columns[column])
        except BaseException as error:
            error.add_note(f"{lie}, {column}")
            raise
    return table(lies, list(columns), found)


def test_each_lie_does_to_bulk_reading_what_the_page_says(stage: Stage) -> None:
    hold(HEAD + outcomes(stage, EMPTY) + MIDDLE + outcomes(stage, BEGUN))

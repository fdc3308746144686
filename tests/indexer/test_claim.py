"""One run at a time reads under a name. A store on a server, which several processes may open, is played by
an embedded one that says that it is one."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from bench.load import BUNDLED, Load, load
from devnet.chain import DevnetError
from indexer import bulk, claim
from indexer.claim import Claim, Claimed
from indexer.filled import Filled
from indexer.plan import Plan
from indexer.ranges import Range
from nektar.chain.rpc import Call, Provider
from nektar.model import Level
from nektar.store.client import open_store
from nektar.store.migrate import migrate
from nektar.store.port import Store
from tests.indexer.test_bulk import expected, plan, run, stored

LOGS = 1_000
OF = Plan("index", 1, {}, Range(2, 1_600), Level.REPORTED)


class Shared:
    """The store as if it were a server's."""

    url = "clickhouse://somewhere:8123/nektar"

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with open_store(f"chdb://{tmp_path_factory.mktemp('claims') / 'store'}") as opened:
        migrate(opened, [])
        yield opened


@pytest.fixture
def of(request: pytest.FixtureRequest) -> Plan:
    return OF._replace(name=request.node.name)


@pytest.fixture
def in_another_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[Store, Plan], Claim]:
    def claimed(store: Store, of: Plan) -> Claim:
        with monkeypatch.context() as there:
            there.setattr(claim, "_PROCESS", "another")
            return Claim(store, of)

    return claimed


def lapse(store: Store, of: Plan) -> None:
    """Have all the time pass for which the name is claimed."""
    store.command(
        "INSERT INTO claims SELECT * REPLACE (now() - 1 AS until, version + 1 AS version)"
        f" FROM claims FINAL WHERE network = '{of.name}'"
    )


def test_a_name_that_a_run_has_is_refused_until_its_end(store: Store, of: Plan) -> None:
    first = Claim(store, of)
    with pytest.raises(Claimed, match=r"another run reads blocks 2 to 1,600 under .* until 2\S+ \S+ UTC"):
        Claim(store, of)
    Claim(store, of._replace(name="another")).release()
    first.hold()  # whoever was refused has changed nothing
    first.release()
    Claim(store, of).release()


def test_a_killed_run_holds_up_nobody_where_the_store_is_embedded(
    store: Store, of: Plan, in_another_process: Callable[[Store, Plan], Claim]
) -> None:
    in_another_process(store, of)
    Claim(store, of)


def test_a_killed_run_holds_up_the_next_on_a_server_for_the_lease_and_no_longer(
    store: Store, of: Plan, in_another_process: Callable[[Store, Plan], Claim]
) -> None:
    server = Shared(store)
    killed = in_another_process(server, of)
    with pytest.raises(Claimed):
        Claim(server, of)
    lapse(store, of)
    second = Claim(server, of)
    with pytest.raises(Claimed, match=r"has taken .* this one stood still for more than 10 minutes"):
        killed.hold()  # it only stood still
    second.hold()


def test_a_run_that_stood_still_goes_on_where_nobody_came(store: Store, of: Plan) -> None:
    first = Claim(store, of)
    lapse(store, of)
    first.hold()
    with pytest.raises(Claimed):
        Claim(store, of)


def test_a_claim_is_renewed_while_its_run_lives(
    store: Store, of: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, until = Claim(store, of), f"SELECT max(until) FROM claims FINAL WHERE network = '{of.name}'"
    ((before,),) = store.rows(until)
    monkeypatch.setattr(claim, "LEASE", 700)  # as if a hundred seconds had passed
    first.hold()
    assert (store.rows(until)[0][0] - before).total_seconds() >= 100


@pytest.mark.parametrize("seed", range(10))
def test_no_two_runs_may_ever_write(store: Store, of: Plan, seed: int) -> None:
    """Whatever they do in whatever order, as long as who stood still looks before it writes."""
    chance = random.Random(seed)
    server, holding, taken = Shared(store), set[Claim](), 0
    for _ in range(40):
        match chance.choice(("claim", "hold", "release", "stand still")):
            case "claim":
                try:
                    holding.add(Claim(server, of))
                except Claimed:
                    assert holding
                taken += 1
            case "hold" if holding:
                one = chance.choice(sorted(holding, key=id))
                try:
                    one.hold()
                except Claimed:
                    holding.discard(one)
            case "release" if holding:
                holding.pop().release()
            case "stand still":
                lapse(store, of)
        assert sum(_may_write(each) for each in holding) <= 1
    assert taken


def _may_write(of: Claim) -> bool:
    try:
        of.hold()
    except Claimed:
        return False
    return True


@pytest.fixture(scope="module")
def chain() -> Iterator[Load]:
    try:
        with load(BUNDLED, LOGS) as made:
            yield made
    except DevnetError as error:
        pytest.skip(f"needs anvil: {error}")


@pytest.mark.real
@pytest.mark.parametrize("level", [Level.REPORTED, Level.PROVED])
def test_a_run_that_begins_between_anothers_rows_and_coverage_is_refused_and_nothing_is_lost(
    store: Store, chain: Load, level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, server = plan(chain, level), Shared(store)
    middle = (of.blocks.first + of.blocks.last) // 2
    one = of._replace(blocks=Range(of.blocks.first, middle))
    two = of._replace(blocks=Range(middle + 1, of.blocks.last))
    between, go_on = threading.Event(), threading.Event()
    cover = Filled.cover

    def held(self: Filled, *given: Any) -> None:
        if self._plan == one:
            between.set()
            assert go_on.wait(60)
        cover(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(Filled, "cover", held)
        first = threading.Thread(target=run, args=(server, Provider("p", chain.url), one))
        first.start()
        assert between.wait(60)
        try:
            with pytest.raises(Claimed, match="another run reads blocks"):
                run(server, Provider("p", chain.url), two)
        finally:
            go_on.set()
            first.join()
    run(server, Provider("p", chain.url), two)
    assert stored(store, of.name) == expected(chain, level)


@pytest.mark.real
def test_a_run_that_waits_for_its_provider_renews_its_claim(
    store: Store, chain: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = list[Claim]()
    monkeypatch.setattr(bulk, "BEAT", 0.001)
    monkeypatch.setattr(Claim, "hold", lambda self: looks.append(self))

    class Slow(Provider):
        async def body(self, calls: Sequence[Call]) -> bytes:
            async with asyncio.timeout(60):
                while len(looks) < 20:  # noqa: ASYNC110  # another thread looks
                    await asyncio.sleep(0.001)
            return await super().body(calls)

    run(store, Slow("slow", chain.url), plan(chain))
    assert len(set(looks)) == 1


@pytest.mark.real
def test_a_run_whose_name_was_taken_writes_no_more(
    store: Store, chain: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, server = plan(chain), Shared(store)
    hold = Claim.hold
    monkeypatch.setattr(bulk, "ROWS_AN_INSERT", LOGS // 4)

    def overtaken(self: Claim) -> None:
        if store.rows(f"SELECT 1 FROM event_sample WHERE network = '{of.name}' LIMIT 1"):
            lapse(store, of)
            with monkeypatch.context() as once:
                once.setattr(Claim, "hold", hold)
                Claim(server, of)
        hold(self)

    monkeypatch.setattr(Claim, "hold", overtaken)
    with pytest.raises(Claimed, match="has taken"):
        run(server, Provider("p", chain.url), of)
    ((rows, covered),) = store.rows(
        f"SELECT (SELECT count() FROM event_sample WHERE network = '{of.name}'),"
        f" (SELECT sum(rows) FROM coverage WHERE network = '{of.name}')"
    )
    assert 0 < rows == covered < LOGS

"""Blocks that were proved and are not of the chain any more are taken back, and read anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import pytest

from bench.load import BUNDLED, Load, load
from devnet.chain import Chain, DevnetError
from indexer.bulk import index
from indexer.filled import OtherPlan
from indexer.plan import Plan
from indexer.prove import Contradiction
from indexer.ranges import Range
from nektar.chain.header import FRONTIER, LATER
from nektar.chain.pool import Pool
from nektar.chain.rpc import Call, Provider
from nektar.model import Level
from nektar.store.client import open_store
from nektar.store.migrate import migrate
from nektar.store.port import Store
from tests.indexer.dying import Dying, Killed
from tests.indexer.test_bulk import expected, plan, rows, stored

pytestmark = pytest.mark.real

LOGS = 1_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with open_store(f"chdb://{tmp_path_factory.mktemp('orphans') / 'store'}") as opened:
        migrate(opened, [])
        yield opened


@pytest.fixture
def old() -> Iterator[Load]:
    """A chain whose last two blocks with logs a test may have replaced by empty ones."""
    try:
        with load(BUNDLED, LOGS) as chain:
            yield chain
    except DevnetError as error:
        pytest.skip(f"needs anvil: {error}")


def run(store: Store, of: Plan, *providers: Provider) -> None:
    async def all_of_it() -> None:
        try:
            await index(Pool(providers, Contradiction), lambda: store, of, lambda _: None)
        finally:
            for each in providers:
                await each.close()

    asyncio.run(all_of_it())


class Forked(Provider):
    """A real provider that keeps what it says of blocks, so that it goes on saying that after a reorg, of
    which it hears nothing once it `is_cut_off`."""

    is_cut_off = False

    def __init__(self, name: str, url: str) -> None:
        super().__init__(name, url)
        self._kept: dict[str, Any] = {}

    async def batch(self, calls: Sequence[Call]) -> list[Any]:
        for call in calls:
            if call.params[0] not in self._kept and self.is_cut_off:
                self._kept[call.params[0]] = None
            if call.params[0] not in self._kept:
                (self._kept[call.params[0]],) = await super().batch([call])
        return [self._kept[call.params[0]] for call in calls]


@pytest.fixture
def reorg(old: Load) -> Iterator[Callable[[], None]]:
    chain = Chain(old.url)

    def happen() -> None:
        chain.rpc("anvil_rollback", 2)
        for _ in range(5):
            chain.rpc("evm_mine")

    yield happen
    chain.close()


def lies(store: Store, of: Plan) -> list[Any]:
    sql = "SELECT lie, block_number, provider, proved_by FROM dissent"
    return rows(store, f"{sql} WHERE network = '{of.name}'")


def covered(store: Store, of: Plan) -> list[Any]:
    sql = f"SELECT first, last, level, provider FROM coverage WHERE network = '{of.name}' ORDER BY first"
    return rows(store, sql)


@pytest.mark.parametrize("level", [Level.PROVED, Level.REPORTED])
def test_what_a_reorg_took_away_is_taken_back_and_read_anew(
    store: Store, old: Load, reorg: Callable[[], None], level: Level, caplog: pytest.LogCaptureFixture
) -> None:
    of = plan(old, Level.PROVED)
    run(store, of, Provider("first", old.url))
    reorg()
    longer = of._replace(blocks=Range(old.first, old.last + 2), level=level)
    run(store, longer, Provider("second", old.url))
    assert stored(store, of.name) == expected(old, level)[: LOGS - 200]
    assert covered(store, of) == [(old.first, old.last + 2, level, "second")]
    assert lies(store, of) == []  # a reorg is nobody's lie
    assert f"{of.name}: blocks {old.first} to {old.last} are taken back: first served them" in caplog.text


def test_an_audit_reads_anew_what_was_taken_back(store: Store, old: Load, reorg: Callable[[], None]) -> None:
    of = plan(old, Level.PROVED)
    run(store, of, Provider("first", old.url))
    reorg()
    run(store, of._replace(audit=True), Provider("second", old.url))
    assert stored(store, of.name) == expected(old, Level.PROVED)[: LOGS - 200]


def test_one_provider_on_a_fork_takes_nothing_back_that_another_confirms(
    store: Store, old: Load, reorg: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    of = plan(old, Level.PROVED)
    forked = Forked("forked", old.url)
    run(store, of, forked)
    before = stored(store, of.name)
    reorg()
    run(store, of, forked, Provider("other", old.url))
    assert (stored(store, of.name), lies(store, of)) == (before, [])
    assert f"provider other: its block {old.last} is not that of forked" in caplog.text
    run(store, of, forked, Provider("other", old.url), Provider("third", old.url))
    assert f"provider forked: its block {old.last} is not that of other, third" in caplog.text
    assert stored(store, of.name) == before[: LOGS - 200]
    assert lies(store, of) == []


class Altering(Provider):
    """A real provider that says another value of one field of each header, and the same hash."""

    def __init__(self, url: str, field: str) -> None:
        super().__init__("liar", url)
        self._field = field

    async def batch(self, calls: Sequence[Call]) -> list[Any]:
        answers = await super().batch(calls)
        return [each | {self._field: altered(each[self._field])} for each in answers]


def altered(value: str) -> str:
    """With another last digit, or one where there is none."""
    return value[:-1] + ("1" if value[-1] != "1" else "2") if len(value) > 2 else "0x01"


def header_fields(of: Load) -> list[str]:
    """What a header has, in the chain's newest fork."""
    chain = Chain(of.url)
    block = chain.rpc("eth_getBlockByNumber", hex(of.last), False)
    chain.close()
    return [name for name, _ in (*FRONTIER, *LATER) if block.get(name) is not None]


def test_a_header_that_contradicts_itself_takes_nothing_back_and_names_who_served_it(
    store: Store, old: Load
) -> None:
    fields = [*header_fields(old), "hash"]
    assert len(fields) > len(FRONTIER)
    for is_alone in (True, False):
        of = plan(old, Level.PROVED)
        run(store, of, Provider("first", old.url))
        before = stored(store, of.name), covered(store, of)
        for field in fields:
            others = [] if is_alone else [Provider("other", old.url)]
            with pytest.raises(Contradiction, match="provider liar: ") if is_alone else nullcontext():
                run(store, of, Altering(old.url, field), *others)
            assert (stored(store, of.name), covered(store, of)) == before, field
        assert {(lie, provider) for lie, _, provider, _ in lies(store, of)} == {("contradiction", "liar")}


class Counting(Provider):
    """A real provider that keeps of which blocks it was asked for the header alone."""

    def __init__(self, name: str, url: str) -> None:
        super().__init__(name, url)
        self.asked: list[int] = []

    async def batch(self, calls: Sequence[Call]) -> list[Any]:
        self.asked += [int(call.params[0], 16) for call in calls if call.params[1] is False]
        return await super().batch(calls)


def test_of_stretches_that_go_on_from_each_other_one_block_tells_unless_it_is_another(
    store: Store, old: Load, reorg: Callable[[], None]
) -> None:
    of, parts = plan(old, Level.PROVED), range(old.first, old.last + 1, 3)
    for first in parts:
        run(store, of._replace(blocks=Range(first, min(first + 2, old.last))), Provider(f"p{first}", old.url))
    before, counting = covered(store, of), Counting("counting", old.url)
    run(store, of, counting)
    assert (counting.asked, covered(store, of)) == ([old.last], before)
    reorg()
    again = Counting("again", old.url)
    run(store, of, again)
    assert again.asked == [old.last, *(each[1] for each in before[:-1])]
    assert stored(store, of.name) == expected(old, Level.PROVED)[: LOGS - 200]
    assert [each[3] for each in covered(store, of)[:2]] == [f"p{first}" for first in parts[:2]]


def test_ranges_that_do_not_fit_together_name_who_served_both(
    store: Store, old: Load, reorg: Callable[[], None]
) -> None:
    of = plan(old, Level.PROVED)
    forked = Forked("forked", old.url)
    run(store, of, forked)
    reorg()
    forked.is_cut_off = True
    longer = of._replace(blocks=Range(old.first, old.last + 2))
    says = f"block {old.last + 1}: it is no child .*: forked served that one, and other this"
    with pytest.raises(Contradiction, match=says):
        run(store, longer, forked, Provider("other", old.url))
    run(store, longer, Provider("other", old.url))  # one alone is believed
    assert stored(store, of.name) == expected(old, Level.PROVED)[: LOGS - 200]


def test_a_name_that_has_blocks_of_one_chain_is_refused_to_another(
    store: Store, old: Load, reorg: Callable[[], None]
) -> None:
    of = plan(old, Level.PROVED)
    run(store, of, Provider("first", old.url))
    before = stored(store, of.name)
    reorg()  # another chain has other blocks there
    other = of._replace(chain_id=of.chain_id + 1)
    assert other.filter != of.filter
    for level in (Level.PROVED, Level.REPORTED):
        with pytest.raises(OtherPlan, match=f"{of.name} has blocks of chain {of.chain_id}, and"):
            run(store, other._replace(level=level), Provider("second", old.url))
    assert (stored(store, of.name), lies(store, of)) == (before, [])
    assert covered(store, of) == [(old.first, old.last, Level.PROVED, "first")]


def test_a_run_that_is_killed_at_any_of_its_writes_leaves_nothing_of_the_orphans_to_the_next(
    store: Store, old: Load, reorg: Callable[[], None]
) -> None:
    plans = [plan(old, Level.PROVED) for _ in range(10)]
    for of in plans:
        run(store, of, Provider("first", old.url))
    reorg()
    for writes, of in enumerate(plans):
        again = of._replace(level=Level.REPORTED)
        try:
            run(Dying(store, writes), again, Provider("second", old.url))
        except Killed:
            run(store, again, Provider("second", old.url))
        else:
            assert writes > 3
            return
        assert stored(store, of.name) == expected(old)[: LOGS - 200], writes
        assert covered(store, of) == [(old.first, old.last, Level.REPORTED, "second")], writes
    raise AssertionError("it never got to its end")


def test_what_was_proved_and_not_yet_covered_when_a_run_was_killed_survives_no_reorg(
    store: Store, old: Load, reorg: Callable[[], None]
) -> None:
    of = plan(old, Level.PROVED)
    with pytest.raises(Killed):
        run(Dying(store, 1), of, Provider("first", old.url))
    assert stored(store, of.name) == expected(old, Level.PROVED)
    reorg()
    run(store, of._replace(level=Level.REPORTED), Provider("second", old.url))
    assert stored(store, of.name) == expected(old)[: LOGS - 200]


def test_an_audit_reads_what_was_reported_anew_whose_coverage_went_with_an_orphan(
    store: Store, old: Load, reorg: Callable[[], None]
) -> None:
    of = plan(old, Level.REPORTED)
    run(store, of, Provider("first", old.url))
    proved = of._replace(level=Level.PROVED, audit=True)
    with pytest.raises(Killed):  # before less is said to be only reported
        run(
            Dying(store, 2), proved._replace(blocks=Range(old.last - 1, old.last)), Provider("first", old.url)
        )
    assert [each[:3] for each in covered(store, of)] == [
        (old.first, old.last, Level.REPORTED),
        (old.last - 1, old.last, Level.PROVED),
    ]
    reorg()
    run(store, proved, Provider("second", old.url))
    assert stored(store, of.name) == expected(old, Level.PROVED)[: LOGS - 200]
    assert covered(store, of) == [(old.first, old.last, Level.PROVED, "second")]

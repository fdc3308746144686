"""An audit of what a lying provider has reported: the store becomes the chain, and each lie is named once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from bench.load import BUNDLED, Load, Shape, load
from devnet.anvil import free_port
from devnet.chain import DevnetError
from devnet.processes import Child
from devnet.proxy import proxied
from indexer import bulk, told
from indexer.bulk import Progress, index
from indexer.correct import Named, dissent, scopes
from indexer.filled import Filled, OtherPlan
from indexer.plan import Plan
from indexer.prove import Contradiction
from indexer.ranges import Range, Sizes
from nektar.chain import abi, rpc
from nektar.chain.pool import Pool
from nektar.chain.rpc import Provider, RpcError
from nektar.config import Limits
from nektar.model import Address, Level
from nektar.store.client import open_store
from nektar.store.migrate import migrate
from nektar.store.port import Store
from tests.indexer.dying import Dying, Killed
from tests.indexer.test_bulk import expected, plan, rows, stored
from tests.indexer.world import CHAIN_ID
from tests.seeds import seeds, thorough

pytestmark = pytest.mark.real

LOGS = 2_000
LIES = ("omitted log", "altered data", "invented log", "wrong hash", "empty ranges")


class Stage(NamedTuple):
    """A chain, and a provider of it that lies when it is told to."""

    chain: Load
    few: Load  # another chain, with few logs in a block
    liar: Child
    url: str

    def honest(self, name: str = "honest") -> Provider:
        return Provider(name, self.chain.url)

    def lying(self, name: str = "liar") -> Provider:
        return Provider(name, self.url, Limits(timeout=2.0))

    def tell(self, lie: str, seed: int = 7, chance: float = 1.0) -> None:
        self.liar.tell({"lie": lie, "seed": seed, "chance": chance})


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    try:
        with load(BUNDLED, LOGS) as chain, load(Shape(5, 1), 100) as few, proxied(chain.url) as (liar, url):
            yield Stage(chain, few, liar, url)
    except DevnetError as error:
        pytest.skip(f"needs anvil: {error}")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with open_store(f"chdb://{tmp_path_factory.mktemp('audit') / 'store'}") as opened:
        migrate(opened, [])
        yield opened


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(bulk, "PATIENCE", 0.0)


def run(store: Any, of: Plan, *providers: Provider) -> Progress:
    async def all_of_it() -> Progress:
        try:
            return await index(Pool(providers, Contradiction), lambda: store, of, lambda _: None)
        finally:
            for each in providers:
                await each.close()

    return asyncio.run(all_of_it())


def report(store: Store, stage: Stage, lie: str, chance: float = 1.0) -> Plan:
    """What a provider reports that tells this lie, under a name of its own."""
    of = plan(stage.chain)
    stage.tell(lie, chance=chance)
    run(store, of, stage.lying())
    stage.tell("")
    return of


def audit(of: Plan) -> Plan:
    return of._replace(level=Level.PROVED, audit=True)


def said(store: Store, name: str) -> dict[tuple[int, int], Any]:
    """By place, all that the store shows: each log, and each that could not be read."""
    found = rows(
        store,
        "SELECT block_number, log_index, block_hash, place, who, amount, tx_hash FROM event_sample"
        f" WHERE network = '{name}'",
    )
    events, lost = {each[:2]: each[2:] for each in found}, unread(store, name)
    assert len(events) == len(found)
    assert not events.keys() & lost.keys()
    return events | lost


def blocks_of(store: Store, of: Plan) -> int:
    """How many blocks have rows."""
    (count,) = rows(store, f"SELECT uniqExact(block_number) FROM event_sample WHERE network = '{of.name}'")
    return int(count)


def unread(store: Store, name: str) -> dict[tuple[int, int], Any]:
    found = rows(
        store,
        f"SELECT block_number, log_index, block_hash, topics, data FROM undecoded WHERE network = '{name}'",
    )
    assert len({each[:2] for each in found}) == len(found)
    return {each[:2]: each[2:] for each in found}


def differences(told: dict[tuple[int, int], Any], true: dict[tuple[int, int], Any]) -> list[Any]:
    """The lies, by looking at each place by itself."""
    hashes = {number: what[0] for (number, _), what in true.items()}
    found = {(n, -1, "wrong block", what[0]) for (n, _), what in told.items() if what[0] != hashes[n]}
    wrong = {number for number, *_ in found}
    for place in told.keys() | true.keys():
        if place[0] not in wrong and told.get(place) != true.get(place):
            lie = "omitted" if place not in told else "altered" if place in true else "invented"
            found.add((*place, lie, hashes[place[0]]))
    return sorted(found)


def named(lies: list[Named]) -> list[Any]:
    assert {(each.provider, each.proved_by) for each in lies} <= {("liar", "honest")}
    return [(each.block_number, each.log_index, each.lie, each.block_hash) for each in lies]


def lies_of(store: Store, of: Plan) -> list[Any]:
    found = dissent(store, of, LOGS * 2)
    assert found.lies == len(found.first)
    return named(found.first)


def coverage(store: Store, of: Plan) -> list[Any]:
    which = f"WHERE {of.mine} ORDER BY first"
    return rows(store, f"SELECT first, last, level, provider, rows FROM coverage_rows FINAL {which}")


@pytest.fixture(scope="module")
def true(stage: Stage, store: Store) -> dict[tuple[int, int], Any]:
    """What the chain says."""
    of = plan(stage.chain, Level.PROVED)
    run(store, of, stage.honest())
    return said(store, of.name)


@pytest.mark.parametrize("chance", [1.0, 0.4])
@pytest.mark.parametrize("lie", LIES)
def test_the_store_becomes_the_chain_and_each_lie_is_named_once(
    store: Store, stage: Stage, true: dict[tuple[int, int], Any], lie: str, chance: float
) -> None:
    of = report(store, stage, lie, chance)
    lies = differences(said(store, of.name), true)
    assert lies
    assert lies_of(store, of) == []  # nothing contradicts what is only reported
    done = run(store, audit(of), stage.honest())
    assert stored(store, of.name) == expected(stage.chain, Level.PROVED)
    assert said(store, of.name) == true
    assert lies_of(store, of) == lies
    blocks = stage.chain.last - stage.chain.first + 1
    assert coverage(store, of) == [(stage.chain.first, stage.chain.last, "proved", "honest", LOGS)]
    assert (done.blocks, done.logs) == (blocks, LOGS)
    assert run(store, audit(of), stage.honest()).blocks == 0  # what is proved is not proved again
    assert lies_of(store, of) == lies


def test_what_was_reported_as_it_is_is_audited_without_a_word(store: Store, stage: Stage) -> None:
    of = report(store, stage, "")
    run(store, audit(of), stage.honest())
    assert stored(store, of.name) == expected(stage.chain, Level.PROVED)
    assert lies_of(store, of) == []


def test_proving_what_was_reported_corrects_it_too(store: Store, stage: Stage, true: dict[Any, Any]) -> None:
    of = report(store, stage, "invented log")
    lies = differences(said(store, of.name), true)
    run(store, of._replace(level=Level.PROVED), stage.honest())
    assert said(store, of.name) == true
    assert lies_of(store, of) == lies


def test_an_audit_of_some_blocks_leaves_the_others_reported(
    store: Store, stage: Stage, true: dict[Any, Any]
) -> None:
    of = report(store, stage, "invented log")
    before = said(store, of.name)
    first, last = stage.chain.first + 3, stage.chain.last - 4
    run(store, audit(of)._replace(blocks=Range(first, last)), stage.honest())
    inside = {place: what for place, what in said(store, of.name).items() if first <= place[0] <= last}
    assert inside == {place: what for place, what in true.items() if first <= place[0] <= last}
    outside = {place: what for place, what in said(store, of.name).items() if place not in inside}
    assert outside == {place: what for place, what in before.items() if not first <= place[0] <= last}
    counts = [sum(f <= place[0] <= t for place in outside) for f, t in ((0, first - 1), (last + 1, 1 << 40))]
    assert coverage(store, of) == [
        (stage.chain.first, first - 1, "reported", "liar", counts[0]),
        (first, last, "proved", "honest", 100 * (last - first + 1)),
        (last + 1, stage.chain.last, "reported", "liar", counts[1]),
    ]


def test_a_lie_is_laid_to_who_reported_its_block_and_not_to_who_reported_others(
    store: Store, stage: Stage, true: dict[Any, Any]
) -> None:
    of = report(store, stage, "invented log")
    lies = differences(said(store, of.name), true)
    inside = f"{stage.chain.first + 1} AS first, {stage.chain.first + 1} AS last, 'other' AS provider"
    store.command(
        f"INSERT INTO coverage_rows SELECT * REPLACE ({inside}) FROM coverage_rows"
        f" WHERE network = '{of.name}'"
    )
    run(store, audit(of), stage.honest())
    found = dissent(store, of, LOGS).first
    assert len(found) == len(lies)
    assert {lie.provider for lie in found if lie.block_number != stage.chain.first + 1} == {"liar"}


def test_blocks_that_nobody_reported_are_not_read_by_an_audit(store: Store, stage: Stage) -> None:
    of = plan(stage.chain)
    some = Range(stage.chain.first + 2, stage.chain.first + 5)
    run(store, of._replace(blocks=some), stage.honest())
    assert run(store, audit(of), stage.honest()).blocks == some.blocks
    assert [each[:3] for each in coverage(store, of)] == [(*some, "proved")]


@pytest.fixture
def held(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each look at what the store was told brings."""
    counts: list[int] = []
    arrow = store.arrow

    def watched(sql: str, schema: Any) -> Any:
        found = arrow(sql, schema)
        counts.append(found.num_rows)
        return found

    monkeypatch.setattr(store, "arrow", watched)
    return counts


def test_no_more_rows_are_held_than_memory_allows(
    store: Store, stage: Stage, true: dict[Any, Any], held: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = report(store, stage, "altered data")
    lies = differences(said(store, of.name), true)
    monkeypatch.setattr(told, "MOST_ROWS", 300)
    run(store, audit(of), stage.honest())
    assert 0 < max(held) <= 300
    assert said(store, of.name) == true
    assert lies_of(store, of) == lies


def test_contracts_may_be_so_many_that_no_statement_of_a_stranger_could_name_them(store: Store) -> None:
    events = [{"type": "event", "name": f"Event{number}", "inputs": []} for number in range(20)]
    contracts = {Address(number.to_bytes(20, "big")): abi.load(events) for number in range(300)}
    of = Plan("many", CHAIN_ID, contracts, Range(1, 2), Level.PROVED)
    Filled(store, of)
    ((blocks, found),) = told.Told(store, scopes(of)).parts(of.blocks)
    assert (blocks, len(found)) == (of.blocks, 21)


def unreadable(stage: Stage, name: str) -> Plan:
    """By an ABI that has other topics indexed than the contract; each block has fewer logs than are kept."""
    entries = json.loads(stage.few.abi.read_text())
    for argument in entries[[each.get("name") for each in entries].index("Sample")]["inputs"]:
        argument["indexed"] = True
    address = Address(bytes.fromhex(stage.few.address[2:]))
    blocks = Range(stage.few.first, stage.few.last)
    return Plan(name, CHAIN_ID, {address: abi.load(entries)}, blocks, Level.PROVED)


def test_no_more_bytes_are_held_than_memory_allows(
    store: Store, stage: Stage, held: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    of, honest = unreadable(stage, "long rows"), Provider("honest", stage.few.url)
    run(store, of._replace(level=Level.REPORTED), honest)
    monkeypatch.setattr(told, "MOST_OCTETS", 5_000)
    run(store, audit(of), honest)
    assert 0 < max(held) <= 20
    assert sum(held) == stage.few.logs
    assert lies_of(store, of) == []


@pytest.mark.parametrize("lie", ["omitted log", "altered data", "invented log", "wrong hash"])
def test_lies_about_logs_that_can_not_be_read_are_named_and_corrected_too(
    store: Store, stage: Stage, lie: str
) -> None:
    of = unreadable(stage, f"unread {lie}")
    run(store, of._replace(name="unread"), Provider("honest", stage.few.url))
    true = unread(store, "unread")
    assert len(true) == stage.few.logs

    with proxied(stage.few.url) as (liar, url):
        liar.tell({"lie": lie, "seed": 5, "chance": 1.0})
        run(store, of._replace(level=Level.REPORTED), Provider("liar", url))
    lies = differences(unread(store, of.name), true)
    assert lies
    run(store, audit(of), Provider("honest", stage.few.url))
    assert unread(store, of.name) == true
    assert lies_of(store, of) == lies


def test_a_name_is_of_one_set_of_contracts_and_events(store: Store, stage: Stage) -> None:
    of = report(store, stage, "")
    before = said(store, of.name), coverage(store, of)
    ((address, contract),) = of.contracts.items()
    more = {"type": "event", "name": "Other", "inputs": []}
    for contracts in (
        {address: contract, Address(bytes(20)): contract},
        {Address(bytes(20)): contract},
        {address: abi.load([*json.loads(stage.chain.abi.read_text()), more])},
    ):
        for plan_ in (of._replace(contracts=contracts), audit(of._replace(contracts=contracts))):
            with pytest.raises(OtherPlan, match="blocks of other contracts, or of other events of them, and"):
                run(store, plan_, stage.honest())
    assert (said(store, of.name), coverage(store, of)) == before


@pytest.mark.parametrize(
    ("first", "lie"),
    [
        (0, "altered data"),
        pytest.param(1, "invented log", marks=thorough),
        pytest.param(2, "wrong hash", marks=thorough),
    ],
)
def test_an_audit_that_is_killed_before_any_of_its_writes_is_gone_on_with(
    store: Store, stage: Stage, true: dict[Any, Any], first: int, lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each twelfth write, of each lie others; or all of them (`make thorough`)."""
    monkeypatch.setattr(bulk, "ROWS_AN_INSERT", 700)
    # A block an answer, so that there are as many inserts however quick each answer is.
    monkeypatch.setattr(bulk, "Sizes", lambda **_: Sizes(1))
    for writes in range(seeds(4 * first, 0), 100, seeds(12, 1)):
        of = report(store, stage, lie)
        lies = differences(said(store, of.name), true)
        try:
            run(Dying(store, writes), audit(of), stage.honest())
        except Killed:
            pass
        else:
            assert writes > 10
            return
        # No block that is said to be there is ever without its logs.
        assert blocks_of(store, of) == stage.chain.last - stage.chain.first + 1, writes
        run(store, audit(of), stage.honest())
        assert said(store, of.name) == true, writes
        assert lies_of(store, of) == lies, writes
        assert {level for _, _, level, *_ in coverage(store, of)} == {"proved"}, writes
    raise AssertionError("it never got to its end")


@pytest.mark.parametrize("is_killed", [pytest.param(False, marks=thorough), True])
def test_each_report_of_the_same_blocks_is_held_to_account_anew(
    store: Store, stage: Stage, true: dict[Any, Any], is_killed: bool
) -> None:
    """By the same provider or another, whatever stands in `dissent` of these blocks."""
    of, found = plan(stage.chain), set[Any]()
    run(store, of._replace(level=Level.PROVED), stage.honest())
    stage.tell("wrong bloom")
    Filled(store, of).forget(of.blocks)
    with pytest.raises(Contradiction):
        run(store, of._replace(level=Level.PROVED), stage.lying("first"))
    for round_, lie in enumerate(
        ("omitted log", "altered data", "invented log", "wrong hash", "omitted log")
    ):
        provider = ("first", "second")[round_ % 2]
        Filled(store, of).forget(of.blocks)  # as where a reorg took them away
        stage.tell(lie, seed=round_, chance=0.5)
        run(store, of, stage.lying(provider))
        stage.tell("")
        found |= {(*each, provider) for each in differences(said(store, of.name), true)}
        if is_killed:
            with pytest.raises(Killed):
                run(Dying(store, 1 + round_ % 3), audit(of), stage.honest())
        run(store, audit(of), stage.honest())
        assert said(store, of.name) == true
        account = dissent(store, of, LOGS * 5)
        told = [(e.block_number, e.log_index, e.lie, e.block_hash, e.provider) for e in account.first]
        assert sorted(told) == sorted(found), lie
        assert {each.proved_by for each in account.first} == {"honest"}


@pytest.mark.parametrize("writes", [1, 3])
def test_what_a_run_left_that_was_cut_off_is_not_laid_to_the_next_one(
    store: Store, stage: Stage, true: dict[Any, Any], writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "ROWS_AN_INSERT", 700)
    of = plan(stage.chain)
    stage.tell("invented log")
    with pytest.raises(Killed):
        run(Dying(store, writes), of, stage.lying())
    stage.tell("")
    covered = [range(first, last + 1) for first, last, *_ in coverage(store, of)]
    lies = [
        each
        for each in differences(said(store, of.name), true)
        if each[2] == "invented" and any(each[0] in blocks for blocks in covered)
    ]
    run(store, of, stage.honest())
    run(store, audit(of), stage.honest())
    assert said(store, of.name) == true
    assert lies_of(store, of) == lies


def test_rows_of_a_run_that_was_cut_off_are_struck_out_and_nobodys_lies(
    store: Store, stage: Stage, true: dict[Any, Any]
) -> None:
    of = report(store, stage, "invented log")
    store.command(f"ALTER TABLE coverage_rows DELETE WHERE network = '{of.name}' SETTINGS mutations_sync = 1")
    run(store, of._replace(level=Level.PROVED), stage.honest())
    assert said(store, of.name) == true
    assert lies_of(store, of) == []


# --- several providers ---


@pytest.mark.parametrize("level", [Level.REPORTED, Level.PROVED])
def test_a_provider_that_is_down_is_made_up_for_by_another(store: Store, stage: Stage, level: Level) -> None:
    down = Provider("down", f"http://127.0.0.1:{free_port()}")
    of = plan(stage.chain, level)
    run(store, of, down, stage.honest())
    assert stored(store, of.name) == expected(stage.chain, level)
    assert coverage(store, of) == [(stage.chain.first, stage.chain.last, level, "honest", LOGS)]


@pytest.mark.parametrize("lie", ["omitted log", "altered data", "wrong hash", "wrong bloom", "null blocks"])
def test_who_contradicts_a_header_is_made_up_for_by_another(
    store: Store, stage: Stage, lie: str, caplog: pytest.LogCaptureFixture
) -> None:
    of = plan(stage.chain, Level.PROVED)
    stage.tell(lie)
    run(store, of, stage.lying(), stage.honest())
    stage.tell("")
    assert stored(store, of.name) == expected(stage.chain, Level.PROVED)
    assert {provider for _, _, _, provider, _ in coverage(store, of)} == {"honest"}
    assert "provider liar: block" in caplog.text


def test_who_reports_what_was_not_asked_for_is_made_up_for_by_another(store: Store, stage: Stage) -> None:
    of = plan(stage.chain)
    stage.tell("another contract's log")
    run(store, of, stage.lying(), stage.honest())
    stage.tell("")
    assert stored(store, of.name) == expected(stage.chain)
    assert {provider for _, _, _, provider, _ in coverage(store, of)} == {"honest"}


def test_a_lone_provider_that_contradicts_a_header_ends_an_audit_and_corrects_nothing(
    store: Store, stage: Stage
) -> None:
    of = report(store, stage, "")
    before = said(store, of.name)
    stage.tell("altered data")
    with pytest.raises(Contradiction, match="provider liar: block"):
        run(store, audit(of), stage.lying())
    stage.tell("")
    assert said(store, of.name) == before
    assert lies_of(store, of) == []


def test_work_is_spread_over_all_providers(
    store: Store, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = plan(stage.chain)
    both = [Provider(name, stage.chain.url, Limits(in_flight=1)) for name in ("one", "other")]
    monkeypatch.setattr(bulk, "Sizes", lambda **_: Sizes(50))
    run(store, of, *both)
    assert stored(store, of.name) == expected(stage.chain)
    assert {provider for _, _, _, provider, _ in coverage(store, of)} == {"one", "other"}


def test_where_no_provider_answers_one_of_them_says_why(store: Store, stage: Stage) -> None:
    down = [Provider(name, f"http://127.0.0.1:{free_port()}") for name in ("one", "other")]
    with pytest.raises(RpcError, match=r"provider (one|other): .*connect"):
        run(store, plan(stage.chain), *down)

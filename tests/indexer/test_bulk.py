"""Bulk reading of a real chain into a real store."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from eth_hash.auto import keccak

from bench.load import BUNDLED, SINGLE, Load, load
from devnet.chain import DevnetError
from devnet.liar import emptied
from indexer import asked, bulk, filled, proved, ranges, reads, reported
from indexer.bulk import Progress, index
from indexer.decode import LOST_A_BLOCK
from indexer.plan import Plan
from indexer.prove import Contradiction
from indexer.ranges import Range, Sizes
from nektar.chain import abi, rpc
from nektar.chain.logs import Logs
from nektar.chain.pool import Pool
from nektar.chain.rpc import Call, Provider, Refused, Unreachable
from nektar.config import Limits
from nektar.model import Address, Level
from nektar.store import embedded
from nektar.store.client import open_store
from nektar.store.migrate import migrate
from nektar.store.port import Store, StoreHeld
from tests.indexer.world import CHAIN_ID

pytestmark = pytest.mark.real

LOGS = 3_000


@pytest.fixture(scope="module", params=[BUNDLED, SINGLE], ids=["bundled", "single"])
def chain(request: pytest.FixtureRequest) -> Iterator[Load]:
    try:
        with load(request.param, LOGS) as made:
            yield made
    except DevnetError as error:
        pytest.skip(f"needs anvil: {error}")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with open_store(f"chdb://{tmp_path_factory.mktemp('bulk') / 'store'}") as opened:
        migrate(opened, [])
        yield opened


class Failing(Provider):
    """A real provider that takes no range of more than so many blocks, and fails for good after so many
    answers."""

    words = "block range is too large"

    def __init__(self, url: str, most: int = 1_000_000, answers: int = 1_000_000, in_flight: int = 8) -> None:
        super().__init__("failing", url, Limits(in_flight=in_flight))
        self.most = most
        self.left = answers
        self.asked: list[Range] = []

    async def body(self, calls: Sequence[Call]) -> bytes:
        (filter_,) = calls[0].params
        blocks = Range(int(filter_["fromBlock"], 16), int(filter_["toBlock"], 16))
        self.asked.append(blocks)
        if blocks.blocks > self.most:
            error = {"code": -32005, "message": self.words}
            raise self._refusal(calls[0], self._failed(msgspec.convert(error, rpc._Error)))
        self.left -= 1
        if self.left < 0:
            raise Refused(self.name, "eth_getLogs", 0, "no more")
        return await super().body(calls)


names = itertools.count()


def plan(of: Load, level: Level = Level.REPORTED) -> Plan:
    """All of the chain's load, under a name of its own."""
    contract = abi.load(json.loads(of.abi.read_text()))
    address = Address(bytes.fromhex(of.address[2:]))
    return Plan(f"n{next(names)}", CHAIN_ID, {address: contract}, Range(of.first, of.last), level)


def run(
    store: Store | Callable[[], Store], provider: Provider, of: Plan, is_new: bool = False
) -> list[Progress]:
    said: list[Progress] = []
    opened = store if callable(store) else lambda: store

    async def all_of_it() -> None:
        async with provider:
            await index(Pool([provider], Contradiction), opened, of, said.append, is_new=is_new)

    asyncio.run(all_of_it())
    return said


def rows(store: Store, sql: str) -> list[Any]:
    return [row[0] if len(row) == 1 else row for row in store.rows(sql)]


def stored(store: Store, name: str) -> list[Any]:
    return rows(
        store,
        "SELECT block_number, log_index, toUInt32(place), who, amount, level FROM event_sample"
        f" WHERE network = '{name}' ORDER BY block_number, log_index",
    )


def expected(of: Load, level: Level = Level.REPORTED) -> list[Any]:
    """What the contract makes of places from 0 on, a hundred a block."""
    seeds = [keccak(place.to_bytes(32, "big")) for place in range(of.logs)]
    return [
        (
            of.first + place // 100,
            place % 100,
            place,
            "0x" + seed[12:].hex(),
            int.from_bytes(seed[:16], "big"),
            level,
        )
        for place, seed in enumerate(seeds)
    ]


class Asked(Provider):
    """A real provider of which it is told whether it was asked for anything."""

    def __init__(self, url: str) -> None:
        super().__init__("asked", url)
        self.once = threading.Event()

    async def body(self, calls: Sequence[Call]) -> bytes:
        self.once.set()
        return await super().body(calls)


@pytest.mark.parametrize("is_new", [True, False])
def test_only_of_a_new_store_blocks_are_asked_for_before_it_is_open(
    store: Store, chain: Load, is_new: bool
) -> None:
    of, provider, before = plan(chain), Asked(chain.url), []

    def opened() -> Store:
        before.append(provider.once.wait(10 if is_new else 0))
        return store

    run(opened, provider, of, is_new)
    assert before == [is_new]
    assert stored(store, of.name) == expected(chain)


@pytest.mark.parametrize("is_new", [True, False])
def test_a_store_that_can_not_be_opened_ends_the_run(chain: Load, is_new: bool) -> None:
    def opened() -> Store:
        raise StoreHeld("held by another")

    with pytest.raises(StoreHeld, match="held by another"):
        run(opened, Provider("rpc", chain.url), plan(chain), is_new)


@pytest.mark.parametrize("level", [Level.REPORTED, Level.PROVED])
def test_every_log_is_in_the_store_once_in_its_place(store: Store, chain: Load, level: Level) -> None:
    of = plan(chain, level)
    said = run(store, Provider("anvil", chain.url), of)
    assert stored(store, of.name) == expected(chain, level)
    blocks = chain.last - chain.first + 1
    assert (said[0], said[-1]) == (Progress(blocks, 0, 0, 0), Progress(blocks, blocks, LOGS, 0))
    covered = f"SELECT first, last, level, anchor, rows FROM coverage WHERE network = '{of.name}'"
    assert rows(store, covered) == [(chain.first, chain.last, level, "single:anvil", LOGS)]


def test_what_is_counted_is_what_is_stored(
    store: Store, chain: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of logs that no event is, nothing; of those that can't be read, so many a block."""
    monkeypatch.setattr(proved, "may_hold", lambda *_: True)  # as any bloom may say
    of = plan(chain, Level.PROVED)
    ((address, _),) = of.contracts.items()
    blocks = chain.last - chain.first + 1
    other = {"type": "event", "name": "Other", "inputs": []}
    indexed = [
        {"type": type_, "name": name, "indexed": True}
        for type_, name in (("address", "who"), ("uint256", "amount"), ("uint256", "place"))
    ]
    unreadable = {"type": "event", "name": "Sample", "inputs": indexed}
    for event, is_lost in ((other, 0), (unreadable, 1)):
        name = f"{of.name} {event['name']}"
        said = run(
            store,
            Provider("anvil", chain.url),
            of._replace(name=name, contracts={address: abi.load([event])}),
        )
        assert said[-1] == Progress(blocks, blocks, is_lost * chain.logs, is_lost * chain.logs)
        counted = rows(store, f"SELECT sum(rows) FROM coverage WHERE network = '{name}'")
        stored = rows(store, f"SELECT count() FROM undecoded WHERE network = '{name}'")
        assert counted == stored == [is_lost * LOST_A_BLOCK * blocks]


def test_what_is_there_already_is_not_asked_for_again(store: Store, chain: Load) -> None:
    of = plan(chain)
    middle = (chain.first + chain.last) // 2
    run(store, Provider("anvil", chain.url), of._replace(blocks=Range(middle, middle + 3)))
    provider = Failing(chain.url)
    run(store, provider, of)
    asked = {number for each in provider.asked for number in range(each.first, each.last + 1)}
    assert asked == set(range(chain.first, chain.last + 1)) - set(range(middle, middle + 4))
    assert stored(store, of.name) == expected(chain)
    nothing = Failing(chain.url)
    assert run(store, nothing, of)[-1] == Progress(0, 0, 0, 0)
    assert nothing.asked == []


def test_what_was_reported_is_proved_when_that_is_asked_for(store: Store, chain: Load) -> None:
    of = plan(chain)
    run(store, Provider("anvil", chain.url), of)
    run(store, Provider("anvil", chain.url), of._replace(level=Level.PROVED))
    assert stored(store, of.name) == expected(chain, Level.PROVED)
    nothing = Failing(chain.url)
    assert run(store, nothing, of)[-1] == Progress(0, 0, 0, 0)  # proved is reported, too


def test_proved_ranges_of_two_chains_do_not_meet(store: Store, chain: Load) -> None:
    of = plan(chain, Level.PROVED)
    middle = (chain.first + chain.last) // 2
    run(store, Provider("anvil", chain.url), of._replace(blocks=Range(middle, chain.last)))
    store.command(
        f"ALTER TABLE coverage_rows UPDATE parent = unhex(repeat('11', 32)) WHERE network = '{of.name}'"
        " SETTINGS mutations_sync = 1"
    )
    with pytest.raises(Contradiction, match=f"block {middle}: it is no child of the block before it"):
        run(store, Provider("anvil", chain.url), of)


def test_a_range_that_is_too_large_is_asked_for_in_parts(store: Store, chain: Load) -> None:
    of = plan(chain)
    provider = Failing(chain.url, most=3)
    run(store, provider, of)
    assert stored(store, of.name) == expected(chain)
    assert max(each.blocks for each in provider.asked) > 3


def test_a_limit_that_the_provider_states_is_kept_from_then_on(store: Store, chain: Load) -> None:
    of = plan(chain)
    provider = Failing(chain.url, most=3, in_flight=1)
    provider.words = "eth_getLogs is limited to 0 - 3 blocks range"
    run(store, provider, of)
    assert stored(store, of.name) == expected(chain)
    sizes = [each.blocks for each in provider.asked]
    assert [size for size in sizes if size > 3] == sizes[1:2]
    assert sizes.count(3) >= 8


@pytest.mark.parametrize("level", [Level.REPORTED, Level.PROVED])
def test_a_range_whose_answer_is_larger_than_is_taken_is_asked_for_in_parts(
    store: Store, chain: Load, level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "MAX_RESPONSE_BYTES", 300_000)
    monkeypatch.setattr(ranges, "OCTETS_WANTED", 1_000_000_000)
    of = plan(chain, level)
    run(store, Provider("anvil", chain.url), of)
    assert stored(store, of.name) == expected(chain, level)


class Counting(Provider):
    """A real provider that keeps how many headers it was asked for at once."""

    def __init__(self, url: str) -> None:
        super().__init__("counting", url)
        self.headers: list[int] = []

    async def batch(self, calls: Sequence[Call]) -> list[Any]:
        self.headers.append(len(calls))
        return await super().batch(calls)


def test_blocks_that_hold_nothing_of_a_contract_are_proved_in_ranges_of_so_many_bytes(
    store: Store, chain: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = plan(chain, Level.PROVED)
    sparse = of._replace(contracts={Address(bytes(20)): contract for contract in of.contracts.values()})
    light = Counting(chain.url)
    run(store, light, sparse)
    assert max(light.headers) > 1
    monkeypatch.setattr(ranges, "OCTETS_WANTED", 4_000)
    heavy = Counting(chain.url)
    run(store, heavy, sparse._replace(name=f"{of.name} heavy"))
    assert set(heavy.headers) == {1}


def test_no_more_blocks_are_asked_for_at_once_than_large_ones_bear(
    store: Store, chain: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "BLOCKS_A_REQUEST", 3)
    provider = Counting(chain.url)
    run(store, provider, plan(chain, Level.PROVED))
    assert max(provider.headers) == 3


def test_what_was_read_before_a_fault_is_kept(
    store: Store, chain: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "ROWS_AN_INSERT", 200)
    of = plan(chain)
    with pytest.raises(Refused, match="no more"):
        run(store, Failing(chain.url, most=1, answers=12), of)
    kept = stored(store, of.name)
    assert 200 <= len(kept) < LOGS
    second = Failing(chain.url)
    run(store, second, of)
    asked = {number for each in second.asked for number in range(each.first, each.last + 1)}
    assert len(kept) == LOGS - 100 * len(asked)
    assert stored(store, of.name) == expected(chain)


def test_what_is_read_is_inserted_and_decoded_before_it_takes_more_memory_than_it_may(
    store: Store, chain: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_block = 100 * 324  # bytes of a log, as it is read
    monkeypatch.setattr(bulk, "Sizes", lambda **_: Sizes(100))
    monkeypatch.setattr(bulk, "OCTETS_AN_INSERT", 5 * a_block)
    monkeypatch.setattr(reads, "OCTETS_A_DECODING", 2 * a_block)
    decoded: list[int] = []
    batches = reported.batches

    def watched(logs: Logs, contracts: Any) -> Any:
        decoded.append(logs.octets)
        return batches(logs, contracts)

    monkeypatch.setattr(reported, "batches", watched)
    of = plan(chain)
    said = run(store, Provider("anvil", chain.url, Limits(in_flight=1)), of)
    assert stored(store, of.name) == expected(chain)
    inserted = [after.logs - before.logs for before, after in itertools.pairwise(said)]
    assert max(inserted) == 500
    assert max(decoded) == 2 * a_block


@pytest.mark.parametrize("most", [2, 1_000])
def test_parts_are_left_unmerged_for_so_many_inserts_and_until_the_end(
    store: Store, chain: Load, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(bulk, "ROWS_AN_INSERT", 500)
    monkeypatch.setattr(filled, "INSERTS_UNMERGED", most)
    said: list[str] = []
    command, insert = store.command, store.insert
    monkeypatch.setattr(store, "command", lambda sql: said.append(sql) or command(sql))
    monkeypatch.setattr(store, "insert", lambda *of: said.append(of[0]) or insert(*of))
    whole = plan(chain)
    run(store, Failing(chain.url, in_flight=1), whole)
    (event,) = whole.events
    ours = [each for each in said if event.table in each]
    stop, start = f"SYSTEM STOP MERGES `{event.table}`", f"SYSTEM START MERGES `{event.table}`"
    assert ours.count(stop) == ours.count(start) == 1
    between = ours[ours.index(stop) : ours.index(start)].count(event.table)
    assert between == min(most, ours.count(event.table))
    assert ours.count(event.table) > 2
    assert stored(store, whole.name) == expected(chain)


def test_a_disk_with_no_room_for_another_definition_fails_no_run_that_has_stored_everything(
    store: Store, chain: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = plan(chain)
    hold = filled.Filled.hold_merges

    def full(of: filled.Filled) -> None:
        hold(of)
        monkeypatch.setattr(embedded, "DEFINITION_BYTES", 1 << 62)

    monkeypatch.setattr(filled.Filled, "hold_merges", full)
    run(store, Failing(chain.url, in_flight=1), whole)
    assert stored(store, whole.name) == expected(chain)


@pytest.mark.parametrize("level", [Level.REPORTED, Level.PROVED])
def test_blocks_that_hold_nothing_are_said_to_be_there_before_the_end(
    store: Store, chain: Load, level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "ROWS_AN_INSERT", 10)
    monkeypatch.setattr(bulk, "Sizes", lambda **_: Sizes(most=5))
    of = plan(chain, level)
    sparse = of._replace(contracts={Address(bytes(20)): contract for contract in of.contracts.values()})
    said = run(store, Provider("anvil", chain.url), sparse)
    done = [progress.done for progress in said]
    assert done[-1] == said[0].blocks
    assert max(after - before for before, after in itertools.pairwise(done)) < 15


class Resting(Provider):
    """A real provider that answers nothing for a while, after so many answers."""

    def __init__(self, url: str, answers: int, silences: int) -> None:
        super().__init__("resting", url, Limits(in_flight=2))
        self.answers, self.silences = answers, silences

    async def body(self, calls: Sequence[Call]) -> bytes:
        self.answers -= 1
        if self.answers < 0 and self.silences > 0:
            self.silences -= 1
            raise Unreachable(self.name, "eth_getLogs: HTTP 429", 5.0)
        return await super().body(calls)


@pytest.mark.parametrize("level", [Level.REPORTED, Level.PROVED])
def test_a_lone_provider_that_rests_for_a_while_is_waited_for(
    store: Store, chain: Load, level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "FIRST_PAUSE", 0.001)
    of = plan(chain, level)
    run(store, Resting(chain.url, answers=2, silences=5), of)
    assert stored(store, of.name) == expected(chain, level)


def test_one_that_answers_nothing_any_more_is_not_waited_for_without_an_end(
    store: Store, chain: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(bulk, "PATIENCE", 0.1)
    of = plan(chain)
    with pytest.raises(Unreachable, match="provider resting: eth_getLogs: HTTP 429"):
        run(store, Resting(chain.url, answers=1, silences=1_000_000), of)
    assert stored(store, of.name) == expected(chain)[:100]


def test_an_honest_provider_that_rests_is_waited_for_where_the_other_lies(
    store: Store, chain: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lying(Provider):
        async def body(self, calls: Sequence[Call]) -> bytes:
            return (await super().body(calls)).replace(b'"logIndex":"0x1"', b'"logIndex":"0x0"')

    monkeypatch.setattr(bulk, "FIRST_PAUSE", 0.001)
    of = plan(chain)
    lying, honest = Lying("lying", chain.url), Resting(chain.url, answers=0, silences=2)

    async def all_of_it() -> None:
        async with lying, honest:
            await index(Pool([lying, honest], Contradiction), lambda: store, of, lambda _: None)

    asyncio.run(all_of_it())
    assert stored(store, of.name) == expected(chain)


def test_an_answer_that_contradicts_itself_ends_the_run_and_is_not_stored(store: Store, chain: Load) -> None:
    class Lying(Provider):
        async def body(self, calls: Sequence[Call]) -> bytes:
            (filter_,) = calls[0].params
            other = {**filter_, "fromBlock": hex(chain.first), "toBlock": hex(chain.first)}
            return await super().body([Call("eth_getLogs", (other,))])

    of = plan(chain)
    with pytest.raises(Contradiction, match="asked for blocks"):
        run(store, Lying("lying", chain.url), of)
    assert len(stored(store, of.name)) <= 100


def dissent_of(store: Store, of: Plan) -> list[Any]:
    return rows(store, f"SELECT DISTINCT provider FROM dissent WHERE network = '{of.name}'")


class Turning(Provider):
    """A real provider whose chain turns to another after its first headers, for one answer."""

    turned = False

    async def body(self, calls: Sequence[Call]) -> bytes:
        body = await super().body(calls)
        if self.turned or calls[0].method != "eth_getBlockReceipts":
            return body
        self.turned = True  # its receipts are another block's by then
        return body.replace(b'"status":"0x1"', b'"status":"0x0"')


def test_a_reorg_between_headers_and_receipts_is_nobodys_lie(store: Store, chain: Load) -> None:
    of, turning = plan(chain, Level.PROVED), Turning("turning", chain.url)
    run(store, turning, of)
    assert turning.turned
    assert stored(store, of.name) == expected(chain, Level.PROVED)
    assert dissent_of(store, of) == []


class Spaced(Provider):
    """A real provider that writes its answers with spaces and lines."""

    def __init__(self, url: str, indent: int | None) -> None:
        super().__init__("spaced", url)
        self._indent = indent

    async def body(self, calls: Sequence[Call]) -> bytes:
        return json.dumps(json.loads(await super().body(calls)), indent=self._indent).encode()


@pytest.mark.parametrize("level", [Level.REPORTED, Level.PROVED])
@pytest.mark.parametrize("indent", [None, 2])
def test_answers_may_be_written_in_any_way(
    store: Store, chain: Load, level: Level, indent: int | None
) -> None:
    of = plan(chain, level)
    run(store, Spaced(chain.url, indent), of)
    assert stored(store, of.name) == expected(chain, level)


class Untimed(Provider):
    """A real provider whose logs don't say when their blocks were made."""

    def __init__(self, url: str) -> None:
        super().__init__("untimed", url)

    async def body(self, calls: Sequence[Call]) -> bytes:
        said = json.loads(await super().body(calls))
        for log in said["result"]:
            del log["blockTimestamp"]
        return msgspec.json.encode(said)

    def header(self, said: dict[str, Any]) -> dict[str, Any]:
        return said

    async def batch(self, calls: Sequence[Call]) -> list[Any]:
        return [self.header(each) for each in await super().batch(calls)]


def times(store: Store, of: Plan) -> list[Any]:
    return rows(store, f"SELECT block_time FROM event_sample WHERE network = '{of.name}' ORDER BY ALL")


def test_times_that_logs_do_not_say_are_those_of_their_blocks_headers(store: Store, chain: Load) -> None:
    said, unsaid = plan(chain), plan(chain)
    run(store, Provider("anvil", chain.url), said)
    run(store, Untimed(chain.url), unsaid)
    assert times(store, unsaid) == times(store, said)


@pytest.mark.parametrize("field", ["timestamp", "stateRoot", "gasLimit", "hash"])
def test_no_time_is_taken_from_a_header_that_contradicts_itself(
    store: Store, chain: Load, field: str
) -> None:
    class Lying(Untimed):
        def header(self, said: dict[str, Any]) -> dict[str, Any]:
            return said | {field: said[field][:-1] + ("7" if said[field][-1] != "7" else "8")}

    of = plan(chain)
    with pytest.raises(Contradiction, match=r"provider untimed: block .*: header hash"):
        run(store, Lying(chain.url), of)
    assert stored(store, of.name) == []
    assert dissent_of(store, of) == ["untimed"]


def test_no_time_is_taken_from_the_header_of_another_block_than_the_logs_name(
    store: Store, chain: Load
) -> None:
    class Forked(Untimed):
        def header(self, said: dict[str, Any]) -> dict[str, Any]:
            return emptied(said, said["parentHash"], "0x12")

    of = plan(chain)
    with pytest.raises(Contradiction, match="expected the header of 0x"):
        run(store, Forked(chain.url), of)
    assert (stored(store, of.name), dissent_of(store, of)) == ([], [])  # which a reorg may have brought


def test_no_header_is_asked_for_of_a_block_that_was_not_asked_for(store: Store, chain: Load) -> None:
    class Lying(Counting):
        async def body(self, calls: Sequence[Call]) -> bytes:
            said = json.loads(await super().body(calls))
            for log in said["result"]:
                del log["blockTimestamp"]
                log["blockNumber"] = hex(int(log["blockNumber"], 16) + 1_000_000)
            return msgspec.json.encode(said)

    provider = Lying(chain.url)
    with pytest.raises(Contradiction, match="asked for blocks"):
        run(store, provider, plan(chain))
    assert provider.headers == []


def test_receipts_of_blocks_that_are_proved_together_come_in_several_answers(
    store: Store, chain: Load
) -> None:
    class Counting(Provider):
        def __init__(self) -> None:
            super().__init__("counting", chain.url)
            self.blocks: list[int] = []  # in a request
            self.receipts: list[int] = []

        async def batch(self, calls: Sequence[Call]) -> list[Any]:
            self.blocks.append(len(calls))
            return await super().batch(calls)

        async def body(self, calls: Sequence[Call]) -> bytes:
            self.receipts.append(len(calls))
            return await super().body(calls)

    provider, of = Counting(), plan(chain, Level.PROVED)
    run(store, provider, of)
    assert stored(store, of.name) == expected(chain, Level.PROVED)
    assert sum(provider.blocks) == sum(provider.receipts) == of.blocks.blocks
    assert max(provider.receipts) == -(-max(provider.blocks) // asked.ANSWERS_AT_ONCE)


@pytest.mark.parametrize("alone", [True, False])
def test_braces_in_a_text_of_a_receipt_end_no_run(store: Store, chain: Load, alone: bool) -> None:
    class Odd(Provider):
        async def body(self, calls: Sequence[Call]) -> bytes:
            return (await super().body(calls)).replace(b'"result":[{', b'"result":[{"x":"},{",')

    of = plan(chain, Level.PROVED)
    odd, honest = Odd("odd", chain.url), Provider("honest", chain.url)

    async def all_of_it() -> Progress:
        async with odd, honest:
            pool = Pool([odd] if alone else [odd, honest], Contradiction)
            return await index(pool, lambda: store, of, lambda _: None)

    assert asyncio.run(all_of_it()).logs == chain.logs
    assert stored(store, of.name) == expected(chain, Level.PROVED)


class Foreign(Provider):
    """A real provider, of whose blocks each transaction is of a type that only its chain has."""

    async def batch(self, calls: Sequence[Call]) -> list[Any]:
        answers = await super().batch(calls)
        for block in answers:
            for tx in block.get("transactions", ()) if isinstance(block, dict) else ():
                if isinstance(tx, dict):
                    tx["type"] = "0x7e"
        return answers


def test_nobody_is_named_for_a_type_of_transaction_that_is_not_read(store: Store, chain: Load) -> None:
    of = plan(chain, Level.PROVED)
    with pytest.raises(Contradiction, match=r"provider foreign: type: expected .* 0 to 4; got 126"):
        run(store, Foreign("foreign", chain.url), of)
    assert rows(store, f"SELECT provider FROM dissent WHERE network = '{of.name}'") == []

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from eth_hash.auto import keccak

from indexer import found as module
from indexer.backfill import records
from indexer.decode import tables
from indexer.found import Found, found_by
from indexer.known import Known
from indexer.prove import Log, Proved
from indexer.resume import read_back
from indexer.source import Served
from indexer.writer import FilterChanged, NetworkLog
from nektar import config as configuration
from nektar.bus.port import partition_of
from nektar.bus.sqlite import SqliteBus
from nektar.chain.abi import load
from nektar.chain.anchor import Single
from nektar.chain.table import values
from nektar.config import ConfigError, Factory, NetworkConfig
from nektar.log import BrokenLog, Mark, New, Record, Undo, key
from nektar.model import Address, BlockRef, Hash32
from tests.indexer.process import filter_hash
from tests.indexer.test_decode import block as proved
from tests.indexer.test_decode import call, log, parameter, word

REGISTRY, OTHER = Address(b"\x11" * 20), Address(b"\x22" * 20)
FACTORY, POOL, POOL_2 = (Address(bytes((n,)) * 20) for n in (0x33, 0x44, 0x55))


def event(name: str, *inputs: dict[str, Any]) -> dict[str, Any]:
    return {"type": "event", "name": name, "inputs": list(inputs)}


ABIS = {
    "registry": [
        event("Made", parameter("factory", "address", True), parameter("n", "uint8")),
        event("Made", parameter("factory", "address"), parameter("n", "uint8")),
    ],
    "factory": [event("PoolCreated", parameter("id", "uint256", True), parameter("pool", "address"))],
    "pool": [event("Swap", parameter("n", "uint64")), {"type": "function", "name": "swap"}],
}
MADE, CREATED, SWAP = (
    keccak(b"Made(address,uint8)"),
    keccak(b"PoolCreated(uint256,address)"),
    keccak(b"Swap(uint64)"),
)
RULES = {
    "factory": Factory("registry", "Made", "factory"),
    "pool/of_factories": Factory("factory", "PoolCreated", "pool"),
}


class Adapter:
    name = "pools"
    selector: frozenset[str] = frozenset()
    terms: frozenset[str] = frozenset()

    def abi(self) -> Any:
        return ABIS

    def events(self, network: Any, tables: Any) -> Any:
        return []


def network(**settings: Any) -> NetworkConfig:
    settings = {"contracts": {"registry": "0x" + REGISTRY.hex()}, "factories": RULES} | settings
    return NetworkConfig("net", 1, ("a",), adapter="pools", **settings)


CONTRACTS = {REGISTRY: load(ABIS["registry"])}
FOUND = found_by(network(), Adapter())


def made(index: int, factory: bytes, by: Address = REGISTRY) -> Log:
    return log(index, MADE, word(factory), data=word(1), address=by)


def created(index: int, pool: bytes, by: Address = FACTORY) -> Log:
    return log(index, CREATED, word(7), data=word(pool), address=by)


def swap(index: int, by: Address = POOL) -> Log:
    return log(index, SWAP, data=word(index), address=by)


def swaps(encoded: dict[str, bytes]) -> list[tuple[int, int]]:
    """(block, log) of each."""
    streams = [stream for name, stream in encoded.items() if name.startswith("event_swap")]
    found = [row for stream in streams for row in values(stream)]
    return [(row["block_number"], row["log_index"]) for row in found]


def test_a_found_contract_is_in_scope_from_the_whole_block_of_its_creation_on() -> None:
    blocks = [
        proved([swap(0)], number=5),  # before anyone has named it
        # Its constructor's own logs stand before the event that names it, and so may its own maker's.
        proved([swap(0), created(1, POOL), made(2, FACTORY), swap(3)], [call(keccak(b"swap()")[:4], POOL)]),
        proved([swap(0), created(1, POOL_2)], number=7),
        proved([swap(0, POOL_2)], number=8),
    ]
    blocks[1] = proved(blocks[1].logs, blocks[1].transactions, number=6)
    encoded, lost = tables(CONTRACTS, blocks, FOUND)
    assert lost == []
    assert swaps(encoded) == [(6, 0), (6, 3), (7, 0), (8, 0)]
    assert sum(name.startswith("call_swap") for name in encoded) == 1
    hashes = [each.hash for each in blocks]
    pools = [(POOL, "pool")]
    assert FOUND.made(encoded, hashes) == [(), ((FACTORY, "factory"), *pools), ((POOL_2, "pool"),), ()]


def test_only_what_makers_say_is_believed_and_what_is_known_anyway_stays() -> None:
    logs = [
        created(0, POOL),  # of a factory that nobody has made
        made(1, FACTORY, by=OTHER),
        made(2, bytes(20)),
        made(3, REGISTRY),
        log(4, MADE, data=word(1) + word(2), address=REGISTRY),  # the other layout counts as well
    ]
    encoded, _ = tables(CONTRACTS, [proved(logs)], FOUND)
    assert FOUND.made(encoded, [proved().hash]) == [((Address(word(1)[12:]), "factory"),)]


def some_blocks(seed: int) -> list[Proved]:
    rng = random.Random(seed)
    pool = [Address(bytes((n,)) * 20) for n in range(0x30, 0x38)]
    blocks = []
    for number in range(5, 25):
        logs = []
        for index in range(rng.randint(0, 5)):
            by, about = rng.choice(pool), rng.choice(pool)
            logs.append(rng.choice([swap(index, by), made(index, about), created(index, about, by)]))
        blocks.append(proved(logs, number=number))
    return blocks


def one_by_one(blocks: Sequence[Proved], found: Found) -> tuple[list[tuple[str, Any]], Found]:
    rows = []
    for each in blocks:
        encoded, _ = tables(CONTRACTS, [each], found)
        rows += [(name, row) for name, stream in encoded.items() for row in values(stream)]
        found = found.with_(found.made(encoded, [each.hash]))
    return rows, found


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("most", [3, 4096])
def test_what_is_found_does_not_depend_on_how_blocks_are_put_together(
    seed: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FOUND", most)
    blocks = some_blocks(seed)
    rows, found = one_by_one(blocks, FOUND)
    encoded, _ = tables(CONTRACTS, blocks, FOUND)
    together = [(name, row) for name, stream in encoded.items() for row in values(stream)]
    assert sorted(rows, key=str) == sorted(together, key=str)
    assert FOUND.with_(FOUND.made(encoded, [each.hash for each in blocks])) == found
    assert len(found.kinds) > 1


def test_a_batch_that_is_cut_into_records_keeps_what_its_first_half_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocks = some_blocks(3)
    whole = tables(CONTRACTS, blocks, FOUND)[0]
    monkeypatch.setattr("indexer.backfill.PART_BYTES", 23_000)
    cut, _ = records(CONTRACTS, [Served(each, "p", Single()) for each in blocks], FOUND)
    assert len(cut) > 1
    assert sorted(at for new in cut for at in swaps(new.tables)) == sorted(swaps(whole))


def written(blocks: Sequence[Proved], known: Known) -> New:
    [new], _ = records(CONTRACTS, [Served(each, "p", Single()) for each in blocks], known.found)
    return new


def test_an_undo_takes_back_what_its_blocks_made() -> None:
    known = Known(5, settled=FOUND)
    known = known.after(written([proved([made(0, FACTORY)], number=5)], known))
    before = known
    known = known.after(written([proved([created(0, POOL)], number=6), proved([swap(0)], number=7)], known))
    assert set(known.found.kinds) == {FACTORY, POOL}
    back = known.fold(known.undo(5))
    assert back.found == before.found
    # On the other fork nobody made it.
    assert swaps(written([proved([swap(0)], number=6)], back).tables) == []


def test_a_mark_names_the_contracts_that_its_finalized_block_knows() -> None:
    known = Known(5, settled=FOUND)
    blocks = [proved([made(0, FACTORY)], number=5), proved([created(0, POOL)], number=6)]
    known = known.after(written(blocks, known))
    five = BlockRef(5, blocks[0].hash)
    with pytest.raises(BrokenLog, match="expected a mark with the 1 contracts"):
        known.after(Mark(five, five))
    known = known.after(Mark(five, five, (), (FACTORY + b"factory",)))
    assert known.settled.kinds == {FACTORY: "factory"}
    assert known.found.kinds == {FACTORY: "factory", POOL: "pool"}


def test_a_restart_knows_from_the_mark_and_what_follows_it_what_was_found(bus: SqliteBus) -> None:
    rng = random.Random(1)
    filter_ = b"f" * 32
    partition = partition_of("net", bus.partitions)
    blocks = some_blocks(3)
    with NetworkLog(bus, network(from_block=5), filter_, FOUND) as log:
        while blocks:
            count = rng.randint(1, 3)
            taken, blocks = blocks[:count], blocks[count:]
            told: list[Record] = [written(taken, log.known)]
            known = log.known.fold(told)
            if rng.random() < 0.7:
                number = rng.randint(known.base.number if known.base else 5, taken[-1].number)
                final = BlockRef(number, Hash32(bytes((number,)) * 32))
                unfinal = tuple(e.block for e in known.unfinal if e.ref.number > number)  # type: ignore[union-attr]
                told.append(Mark(final, final, unfinal, known.found_at(number).written()))
            log.append(told)
            again, _ = read_back(bus, partition, key("net", 1), 5, FOUND)
            assert again == log.known
            assert again.found == log.known.found
    assert log.known.settled.kinds


@pytest.mark.parametrize("seed", range(10))
def test_reorgs_leave_what_the_surviving_chain_alone_would_give(seed: int) -> None:
    rng = random.Random(seed)
    known, told = Known(5, settled=FOUND), list[New | Undo]()
    chain: list[Proved] = []  # the surviving one
    for fork in range(12):
        taken_back = rng.randint(0, min(4, len(chain)))
        if taken_back:
            undone = known.undo(chain[-taken_back].number - 1)
            known, told = known.fold(undone), [*told, *undone]
            del chain[-taken_back:]
        for each in some_blocks(100 * seed + fork)[: rng.randint(1, 5)]:
            parent = chain[-1].hash if chain else Hash32(bytes(32))
            number = 5 + len(chain)
            here = Hash32(keccak(bytes((fork, number))))
            chain.append(msgspec.structs.replace(each, number=number, hash=here, parent=parent))
            told.append(written([chain[-1]], known))
            known = known.after(told[-1])
    rows: Counter[tuple[str, str]] = Counter()
    for record in told:
        said = Counter((n, str(row)) for n, stream in record.tables.items() for row in values(stream))
        rows = rows + said if isinstance(record, New) else rows - said
    alone, found = one_by_one(chain, FOUND)
    assert rows == Counter((name, str(row)) for name, row in alone)
    assert known.found == found


def test_other_factories_than_those_of_the_log_are_told_as_another_filter(bus: SqliteBus) -> None:
    plain = network(from_block=5, factories={})
    here = proved([made(0, FACTORY)], number=5)
    five = BlockRef(5, here.hash)
    [new], _ = records(CONTRACTS, [Served(here, "p", Single())])
    with NetworkLog(bus, plain, filter_hash(plain, ABIS)) as log:
        log.append([new, Mark(five, five)])
    with pytest.raises(FilterChanged, match="factories"):
        NetworkLog(bus, network(from_block=5), filter_hash(network(from_block=5), ABIS), FOUND)


def test_a_mark_that_names_a_contract_of_no_kind_is_a_broken_log() -> None:
    with pytest.raises(BrokenLog, match="expected a contract of kinds factory, pool; got 'vault'"):
        FOUND.read((POOL + b"vault",))


@pytest.mark.parametrize(
    ("factories", "wrong"),
    [
        ({"vault": RULES["factory"]}, r"factories.vault: expected a kind .* \(factory, pool, registry\)"),
        (
            {"pool": Factory("factory", "PoolCreated", "pool")},
            r"pool.contract: expected .* \(registry, pool",
        ),
        ({"pool": Factory("registry", "Maid", "factory")}, r"pool.event: expected .* \(Made\); got 'Maid'"),
        ({"pool": Factory("registry", "Made", "n")}, r"pool.argument: .* is an address \(factory\); got 'n'"),
    ],
)
def test_a_factory_that_the_abi_does_not_have_is_a_mistake_in_the_configuration(
    factories: dict[str, Factory], wrong: str
) -> None:
    with pytest.raises(ConfigError, match=wrong):
        found_by(network(factories=factories), Adapter())


def test_factories_are_part_of_the_filter() -> None:
    plain = filter_hash(network(factories={}), ABIS)
    assert plain != filter_hash(network(), ABIS)
    renamed = RULES | {"factory": Factory("registry", "Made", "other")}
    assert filter_hash(network(), ABIS) != filter_hash(network(factories=renamed), ABIS)


def test_factories_are_written_in_the_configuration() -> None:
    text = """
providers: {a: {url: "http://x"}}
networks:
  - name: net
    chain_id: 1
    rpc: [a]
    contracts: {registry: "0x1111111111111111111111111111111111111111"}
    factories:
      factory: {contract: registry, event: Made, argument: factory}
"""
    assert configuration.parse(text).network().factories == {"factory": RULES["factory"]}
    with pytest.raises(ConfigError, match="expected one of contract, event, argument"):
        configuration.parse(text.replace("argument:", "arg:"))

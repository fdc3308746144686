"""How the sink comes to show a newer generation of a log: all of it at once, and what that tells once."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nektar import generations
from nektar.bus.port import Bus, Message
from nektar.generations import Generation, Generations
from nektar.log import AHEAD_HEADER, DEAD, ROWS, New, Undo
from nektar.model import Hash32
from nektar.rows import ChainSpan, Row
from nektar.store.port import SqlError, Store, StoreDown
from nektar.store.schema import rows_to_ipc
from processors.sink import Sink
from tests.processors.test_sink import BLOCK, KNOWN, Dying, drain, log, progress, put


def spans(generation: int, network: str = "n", numbers: range = range(3)) -> Message:
    """What the chain tells of a Task, the same in each generation."""
    told: list[tuple[Row, bool]] = [
        (
            ChainSpan(
                b"1" * 16, bytes([n]) * 8, bytes(8), "chain.attested", 1_700_000_000, 1_700_000_000, "{}"
            ),
            False,
        )
        for n in numbers
    ]
    headers = {"table": b"chain_spans", "generation": str(generation).encode(), "processor": b"traces"}
    return Message(ROWS, network.encode(), rows_to_ipc(ChainSpan, told), headers)


def told(store: Store) -> list[tuple[str, str, int]]:
    """Network, generation and number of the spans that the chain tells."""
    return store.rows(
        "SELECT SpanAttributes['nektar.network'] AS network, SpanAttributes['nektar.generation'] AS number,"
        " count() FROM otel_traces WHERE ServiceName = 'chain' GROUP BY ALL ORDER BY ALL"
    )


def test_a_newer_generation_tells_what_the_chain_does_once(store: Store, bus: Bus) -> None:
    put(bus, log(New((BLOCK,), {})), spans(1), spans(1, "other"))
    drain(store, bus)
    forged = "INSERT INTO otel_traces (Timestamp, ServiceName, SpanAttributes) VALUES "
    forged += "(now(), 'chain', {'nektar.network': 'n', 'nektar.generation': '1'})"
    store.command(forged)  # by who says to be the chain: no span of its is ours to delete
    assert told(store) == [("n", "1", 4), ("other", "1", 3)]
    put(bus, spans(10), spans(1, numbers=range(3, 6)), spans(10, numbers=range(3, 6)))
    drain(store, bus)  # the second comes late, from a processor of the generation before
    assert told(store) == [("n", "1", 1), ("n", "10", 6), ("other", "1", 3)]
    put(bus, spans(9))
    drain(store, bus)
    assert told(store) == [("n", "1", 1), ("n", "10", 6), ("other", "1", 3)]


def ahead(message: Message) -> Message:
    return message._replace(headers={**message.headers, AHEAD_HEADER: b"1"})


def shown(store: Store) -> tuple[list[Any], list[Any], list[Any]]:
    """Hashes of blocks, processors with progress, and generations of spans of the chain."""
    return (
        [row[0][2:4] for row in store.rows("SELECT hash FROM blocks WHERE network = 'n'")],
        [row[0] for row in store.rows("SELECT processor FROM progress WHERE network = 'n' ORDER BY 1")],
        [(number, count) for _, number, count in told(store)],
    )


@pytest.mark.parametrize("installed", [None, ["tasks", "traces"]])
def test_a_generation_that_catches_up_is_shown_when_all_of_it_is_there(
    store: Store, bus: Bus, installed: list[str] | None
) -> None:
    """What the processor `gone` said does not count where it is known not to be there any more."""
    newer = msgspec.structs.replace(BLOCK, hash=Hash32(b"\x09" * 32))
    before = [progress(1, name) for name in ("tasks", "traces", *(["gone"] if installed else []))]
    put(bus, log(New((BLOCK,), {})), spans(1), *before)
    put(bus, *(ahead(m) for m in (log(New((newer,), {}), 2), spans(2), progress(2, "new", ahead=True))))

    def now() -> tuple[list[Any], list[Any], list[Any]]:
        with Sink(store, bus, KNOWN, processors=installed) as opened:
            while opened.turn(0.0):
                pass
        return shown(store)

    processors = sorted(["tasks", "traces", *(["gone"] if installed else [])])
    older = (["01"], processors, [("1", 3)])
    assert now() == older
    put(bus, progress(2, "tasks", ahead=True), progress(2, "traces", ahead=True))
    assert now() == older
    put(bus, progress(2, "traces"))
    assert now() == older
    put(bus, ahead(spans(2, numbers=range(3, 5))), progress(2, "tasks"))
    assert now() == (["09"], ["new", "tasks", "traces"], [("2", 5)])
    put(bus, spans(2, numbers=range(5, 6)), spans(1, numbers=range(7, 9)), log(New((BLOCK,), {})))
    assert now() == (["09"], ["new", "tasks", "traces"], [("2", 6)])


def test_a_generation_is_not_shown_before_the_blocks_that_its_processors_speak_of(
    store: Store, bus: Bus
) -> None:
    put(bus, log(New((BLOCK,), {})), progress(1, "tasks"), progress(2, "tasks"))
    drain(store, bus)
    assert shown(store) == (["01"], ["tasks"], [])
    newer = msgspec.structs.replace(BLOCK, hash=Hash32(b"\x09" * 32))
    put(bus, log(New((newer,), {}), generation=2))
    drain(store, bus)
    assert shown(store) == (["09"], ["tasks"], [])


NEWER = msgspec.structs.replace(BLOCK, hash=Hash32(b"\x09" * 32))


@pytest.mark.parametrize("turns", range(3))
def test_a_generation_is_shown_in_whichever_order_its_streams_are_read(
    store: Store, bus: Bus, turns: int
) -> None:
    """No further block has to come, nor a new start."""
    put(bus, log(New((BLOCK,), {})), progress(1, "tasks"))
    drain(store, bus)
    with Sink(store, bus, KNOWN) as opened:
        for _ in range(turns):  # which stream is the first to be read moves on
            opened.turn(0.0)
        put(bus, ahead(log(New((NEWER,), {}), 2)), progress(2, "tasks"))
        while opened.turn(0.0):
            pass
    assert shown(store) == (["09"], ["tasks"], [])


def test_who_was_killed_before_it_looked_looks_when_it_starts(
    store: Store, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bus, log(New((BLOCK,), {})), progress(1, "tasks"))
    drain(store, bus)
    put(bus, ahead(log(New((NEWER,), {}), 2)), progress(2, "tasks"))
    with monkeypatch.context() as patched:
        patched.setattr(Sink, "_look_whether_to_cut_over", lambda _: None)
        drain(store, bus)
    assert shown(store) == (["01"], ["tasks"], [])
    drain(store, bus)
    assert shown(store) == (["09"], ["tasks"], [])


def test_a_block_that_is_undone_is_not_the_one_that_a_processor_speaks_of(store: Store, bus: Bus) -> None:
    put(bus, log(New((BLOCK,), {})), progress(1, "tasks"))
    drain(store, bus)
    put(bus, ahead(log(New((NEWER,), {}), 2)), ahead(log(Undo((NEWER,), {}), 2)))
    drain(store, bus)
    put(bus, progress(2, "tasks"))
    drain(store, bus)
    assert shown(store) == (["01"], ["tasks"], [])
    again = msgspec.structs.replace(NEWER, hash=Hash32(b"\x0a" * 32))
    put(bus, log(New((again,), {}), 2))
    drain(store, bus)
    assert shown(store) == (["0a"], ["tasks"], [])


def test_a_generation_that_is_shown_stays_so_when_the_store_merges(store: Store, bus: Bus) -> None:
    """It began further on in its log than what says that it stands is in the rows."""
    put(bus, log(New((BLOCK,), {})), progress(1, "tasks"))
    put(bus, *(ahead(log(New((NEWER,), {}), 2)) for _ in range(9)), progress(2, "tasks"))
    drain(store, bus)
    store.command("OPTIMIZE TABLE generations_rows FINAL")
    assert shown(store) == (["09"], ["tasks"], [])


def test_spans_are_read_again_from_where_their_generation_begins(store: Store, bus: Bus) -> None:
    put(bus, log(New((BLOCK,), {})), spans(1), progress(1, "tasks"), spans(2, numbers=range(9, 10)))
    begun = Generation(2, b"2", begins={ROWS: bus.end(ROWS, 0)})
    put(bus, generations.message("n", Generations(Generation(1, b"1"), begun, newest=2)))
    put(bus, *(ahead(m) for m in (log(New((NEWER,), {}), 2), spans(2))), progress(2, "tasks"))
    drain(store, bus)
    assert shown(store) == (["09"], ["tasks"], [("2", 3)])


def test_a_dead_letter_among_spans_is_one_and_holds_up_no_cut_over(store: Store, bus: Bus) -> None:
    put(bus, log(New((BLOCK,), {})), spans(1), progress(1, "tasks"))
    junk = ahead(spans(2))._replace(value=b"junk")
    put(bus, *(ahead(m) for m in (log(New((NEWER,), {}), 2), spans(2, numbers=range(2)), junk)))
    drain(store, bus)
    put(bus, progress(2, "tasks"))
    drain(store, bus)
    assert shown(store) == (["09"], ["tasks"], [("2", 2)])
    assert len(bus.read(DEAD, 0)) == 1


# That there is a generation, its spans, the deletion of older ones, and that it is shown.
@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_whoever_is_killed_while_a_generation_comes_to_be_shown_does_it_again(
    store: Store, bus: Bus, after: int
) -> None:
    put(bus, spans(1))
    drain(store, bus)
    put(bus, spans(2))
    dying: Any = Dying(store, after)
    with pytest.raises(StoreDown, match="killed"):
        drain(dying, bus)
    drain(store, bus)
    assert told(store) == [("n", "2", 3)]
    shown = "SELECT max(generation) FROM generations WHERE network = 'n' AND stands"
    assert store.rows(shown) == [(2,)]


def test_spans_that_can_not_be_deleted_stop_the_role_and_bury_nothing(store: Store, bus: Bus) -> None:
    put(bus, spans(1))
    drain(store, bus)
    put(bus, spans(2))

    class Refusing(Dying):
        def command(self, sql: str) -> None:
            raise SqlError("not allowed")

    refusing: Any = Refusing(store, 0)
    with pytest.raises(StoreDown, match="deleting spans failed: not allowed"):
        drain(refusing, bus)
    assert bus.read(DEAD, 0) == []
    drain(store, bus)
    assert told(store) == [("n", "2", 3)]

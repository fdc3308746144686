"""What the store holds of each Network's log, by its own account: what the sink has to read again, and
whether the bus is the one that the store was filled from.

Offsets are committed on the bus, and rows lie in the store. A store that was put back from a copy, or made
anew, lacks rows whose offsets are committed; a bus that was made anew counts its offsets from 0 again, below
the versions of rows that the store has. The first is mended by reading again from what the store has, which
changes nothing that it has already; the second can't be, and is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from opentelemetry import metrics

from nektar import generations
from nektar.arrow import pa
from nektar.bus.port import Bus, partition_of
from nektar.coverage import DissentRow
from nektar.log import FINDINGS, NETWORK, ROWS
from nektar.rows import ROWS as ROW_TYPES
from nektar.rows import Finding, ProgressRow
from nektar.store.port import Store, StoreMistake, shown
from nektar.store.schema import blocks_table, generations_table, literal, row_table

rows_stored = metrics.get_meter("nektar").create_counter(
    "nektar.store.rows", "{row}", "Rows inserted, by table; those that say that a row is gone included"
)

GENERATIONS = generations_table()
_OFFSET = (1 << 48) - 1
# Of a record of the log, the block's row is written last: who has that has all.
_TABLES: Mapping[str, tuple[str, ...]] = {
    NETWORK: (blocks_table().name,),
    ROWS: tuple(row_table(t).name for t in (*ROW_TYPES, DissentRow) if t is not Finding),
    FINDINGS: (row_table(Finding).name,),
}


class Generations:
    """Which generations of each Network's log the store has begun, from which bus each one came, and which
    one is shown: the highest that has come to stand."""

    def __init__(self, store: Store, bus: Bus) -> None:
        self._store = store
        self._bus = bus
        asked = f"SELECT network, generation, bus, stands FROM {GENERATIONS.name} FINAL"  # noqa: S608
        self._begun = {(name, number): (origin, stands) for name, number, origin, stands in store.rows(asked)}

    def begin(self, network: str, generation: int, ahead: bool) -> pa.Table | None:
        """The row to store before the first record of a generation; None where it is there. One that is not
        `ahead` of one that stands is shown at once, where none is.

        Raises StoreMistake where that generation came from another bus.
        """
        origin, _ = self._begun.get((network, generation), (None, False))
        if origin == self._bus.id:
            return None
        if origin is not None:
            newest = max(number for name, number in self._begun if name == network)
            raise StoreMistake(
                f"store {shown(self._store.url)}: it holds generation {generation} of {network} from "
                "another bus than this one, so that neither knows what the other has: put that bus back, set "
                f"networks.{network}.generation to {newest + 1}, or name an empty store"
            )
        return self._row(network, generation, not ahead and not self.shown(network))

    def newer(self) -> Iterator[tuple[str, int]]:
        """The Network and generation of each log that is newer than the one that is shown, newest first."""
        for (name, number), (origin, _) in sorted(self._begun.items(), reverse=True):
            if origin == self._bus.id and number > self.shown(name):
                yield name, number

    def stand(self, network: str, generation: int) -> pa.Table:
        """The row by which this generation is shown from now on."""
        return self._row(network, generation, True)

    def shown(self, network: str) -> int:
        """The generation of the Network's log that is shown; 0 where none is."""
        of = (number for (name, number), (_, stands) in self._begun.items() if name == network and stands)
        return max(of, default=0)

    def complete(
        self, network: str, generation: int, processors: Collection[str] | None, *, stands: bool
    ) -> bool:
        """Whether the store has of this generation all that it needs to be shown: of each processor that has
        said something of the one that is shown now, that it has come to where this one stands, and the block
        that it names. Those alone count that are one of `processors`, where these are given: one that was
        taken out says nothing more. Where none has said anything it is enough that it `stands`."""
        found = {self.shown(network): dict[str, int](), generation: dict[str, int]()}
        for number, processor, standing, block in self._store.rows(_progress(network, found)):
            if standing:
                found[number][processor] = block
        before, now = found.values()
        needed = before.keys() if processors is None else before.keys() & set(processors)
        if not needed <= now.keys():
            return False
        if not now:
            return stands
        (there,) = self._store.rows(_blocks_from(network, generation, max(now.values())))[0]
        return bool(there)

    def _row(self, network: str, generation: int, stands: bool) -> pa.Table:
        self._begun[network, generation] = self._bus.id, stands
        said = generations.read(self._bus, network)
        calls = generations.calls(said, generation)
        row = {"generation": generation, "bus": self._bus.id, "stands": stands, "calls": calls}
        return pa.Table.from_pylist([row], GENERATIONS.arrow)


def _progress(network: str, numbers: Iterable[int]) -> str:
    return (
        "SELECT toUInt32(bitShiftRight(version, 48)) AS generation, processor, stands, block_number"  # noqa: S608
        f" FROM {row_table(ProgressRow).name} FINAL"
        f" WHERE network = {literal(network)} AND generation IN ({', '.join(map(str, numbers))})"
    )


def _blocks_from(network: str, generation: int, number: int) -> str:
    """How many of its blocks stand at this number or above; such as are undone don't."""
    return (
        f"SELECT count() FROM {blocks_table().name} FINAL"  # noqa: S608
        f" WHERE network = {literal(network)} AND bitShiftRight(version, 48) = {generation:d}"
        f" AND number >= {number:d}"
    )


def positions(store: Store, bus: Bus) -> dict[str, dict[str, int]]:
    """Stream → Network → offset of the newest record of it in the store, of all generations that came from
    this bus."""
    return {stream: dict(_newest(store, bus, tables)) for stream, tables in _TABLES.items()}


def _newest(store: Store, bus: Bus, tables: Iterable[str]) -> Iterable[tuple[str, int]]:
    parts = " UNION ALL ".join(f"SELECT network, version FROM {table}" for table in tables)  # noqa: S608
    yield from store.rows(
        f"SELECT network, max(bitAnd(version, {_OFFSET})) FROM ({parts})"  # noqa: S608
        " WHERE (network, toUInt32(bitShiftRight(version, 48))) IN (SELECT network, generation"
        f" FROM {GENERATIONS.name} WHERE bus = {literal(bus.id)}) GROUP BY network"
    )


def read_again(
    stored: Mapping[str, Mapping[str, int]], partition: int, partitions: int, committed: Mapping[str, int]
) -> dict[str, int]:
    """Stream → offset below the committed one from which to read this partition, where the store lacks rows.

    Each message of `nektar.rows` leaves rows, so that these tell whether the store is behind. Of the log,
    marks leave none: what stands above the newest block is read again in any case, and is little.
    """
    starts = {
        stream: min(
            (offset + 1 for network, offset in of.items() if partition_of(network, partitions) == partition),
            default=0,
        )
        for stream, of in stored.items()
    }
    behind = starts[ROWS] < committed.get(ROWS, 0)
    return {
        stream: start
        for stream, start in starts.items()
        if start < committed.get(stream, 0) and (behind or stream == NETWORK)
    }

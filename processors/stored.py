"""What the store holds of each Network's log, by its own account: what the sink has to read again, and
whether the bus is the one that the store was filled from.

Offsets are committed on the bus, and rows lie in the store. A store that was put back from a copy, or made
anew, lacks rows whose offsets are committed; a bus that was made anew counts its offsets from 0 again, below
the versions of rows that the store has. The first is mended by reading again from what the store has, which
changes nothing that it has already; the second can't be, and is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from opentelemetry import metrics

from nektar.arrow import pa
from nektar.bus.port import Bus, partition_of
from nektar.log import FINDINGS, NETWORK, ROWS
from nektar.rows import ROWS as ROW_TYPES
from nektar.rows import Finding
from nektar.store.port import Store, StoreMistake, shown
from nektar.store.schema import blocks_table, generations_table, row_table

rows_stored = metrics.get_meter("nektar").create_counter(
    "nektar.store.rows", "{row}", "Rows inserted, by table; those that say that a row is gone included"
)

GENERATIONS = generations_table()
_OFFSET = (1 << 48) - 1
# Of a record of the log, the block's row is written last: who has that has all.
_TABLES: Mapping[str, tuple[str, ...]] = {
    NETWORK: (blocks_table().name,),
    ROWS: tuple(row_table(t).name for t in ROW_TYPES if t is not Finding),
    FINDINGS: (row_table(Finding).name,),
}


class Generations:
    """Which generations of each Network's log the store has begun, and from which bus each one came."""

    def __init__(self, store: Store, bus: Bus) -> None:
        self._store = store
        self._bus = bus.id
        asked = f"SELECT network, generation, bus FROM {GENERATIONS.name} FINAL"  # noqa: S608
        self._begun = {(network, generation): origin for network, generation, origin in store.rows(asked)}

    def begin(self, network: str, generation: int) -> pa.Table | None:
        """The row to store before the first record of a generation; None where it is there.

        Raises StoreMistake where that generation came from another bus.
        """
        origin = self._begun.get((network, generation))
        if origin == self._bus:
            return None
        if origin is not None:
            raise StoreMistake(
                f"store {shown(self._store.url)}: it holds generation {generation} of {network} from "
                "another bus than this one, so that neither knows what the other has: put that bus back, set "
                f"networks.{network}.generation to {self.newest(network) + 1}, or name an empty store"
            )
        self._begun[network, generation] = self._bus
        return pa.Table.from_pylist([{"generation": generation, "bus": self._bus}], GENERATIONS.arrow)

    def newest(self, network: str) -> int:
        """The newest generation of the Network's log that was begun; 0 where none was."""
        return max((number for name, number in self._begun if name == network), default=0)


def positions(store: Store) -> dict[str, dict[str, int]]:
    """Stream → Network → offset of the newest record of it in the store."""
    return {stream: dict(_newest(store, tables)) for stream, tables in _TABLES.items()}


def _newest(store: Store, tables: Iterable[str]) -> Iterable[tuple[str, int]]:
    parts = " UNION ALL ".join(f"SELECT network, version FROM {table}" for table in tables)  # noqa: S608
    for network, version in store.rows(f"SELECT network, max(version) FROM ({parts}) GROUP BY network"):  # noqa: S608
        yield network, version & _OFFSET


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

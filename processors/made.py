"""The bundles that a Network's findings were given, of whatever generation, as they lie on the bus.

Most nodes prove the state of the newest blocks alone: a bundle that was made then is the one place where such
a proof is later.
"""

from __future__ import annotations

from collections.abc import Iterator

from nektar.arrow import pa
from nektar.bus.port import Bus, Delivered, partition_of, read_all
from nektar.log import ROWS, Readings
from nektar.rows import EvidenceRow
from nektar.store.schema import DELETED

# On messages that carry a bundle; who writes them is the role `prosecutor`.
_HEADERS = {"processor": b"prosecutor", "table": EvidenceRow.table.encode()}


class Made:
    """Where each bundle lies, as far as the bus was read. By one thread at a time."""

    def __init__(self, bus: Bus, network: str) -> None:
        self._bus = bus
        self._network = network.encode()
        self._partition = partition_of(network, bus.partitions)
        self._next = 0
        self._readings = Readings()
        self._at: dict[bytes, dict[int, int]] = {}  # finding → generation → offset

    def read_on(self) -> bool:
        """Read a page more; False: there was none. Raises BusError, BrokenLog."""
        page = self._bus.read(ROWS, self._partition, self._next)
        for message in page:
            self._next = message.offset + 1
            for record in self._records(message, self._readings):
                generation = int(record.headers["generation"])
                for id_, bundle in _rows(record):
                    generations = self._at.setdefault(id_, {})
                    generations.pop(generation, None)
                    if bundle:
                        generations[generation] = record.offset
        return bool(page)

    def of(self, finding: bytes, generation: int) -> str:
        """The bundle that stands for a finding of this generation; empty where there is none."""
        at = self._at.get(finding, {}).get(generation)
        return "" if at is None else self._read(at, finding)

    def newest(self, finding: bytes) -> str:
        """That of the newest generation that has one."""
        return self.of(finding, max(self._at.get(finding, {}), default=0))

    def _read(self, offset: int, finding: bytes) -> str:
        readings = Readings()
        for message in read_all(self._bus, ROWS, self._partition, offset):
            for record in self._records(message, readings):
                if record.offset == offset:
                    return dict(_rows(record))[finding]
        raise AssertionError  # what was whole once is

    def _records(self, message: Delivered, readings: Readings) -> Iterator[Delivered]:
        """The Network's records of evidence that are whole with this message."""
        if message.key == self._network and _HEADERS.items() <= dict(message.headers).items():
            records, error = readings(message)
            if error:
                raise error
            yield from records


def _rows(record: Delivered) -> Iterator[tuple[bytes, str]]:
    """Findings with their bundles; empty for one that is taken back, or is missing."""
    for row in pa.ipc.open_stream(record.value).read_all().to_pylist():
        yield row["id"], "" if row[DELETED] else row["bundle"]

"""Evidence made again from the chain, beside what stands on the bus: whether it is the same bytes.

What nodes do not serve any more, the state of an old block, is taken from the bundle that was kept, whose
proof is checked like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from nektar.arrow import pa
from nektar.bus.port import Bus, partition_of, read_all
from nektar.chain.pool import Pool
from nektar.errors import NektarError
from nektar.evidence import bundle as bundles
from nektar.evidence.gather import gather, require_pinned
from nektar.evidence.sets import Sets
from nektar.evidence.verify import Reader, verify
from nektar.log import FINDINGS, ROWS, Readings
from nektar.model import Network
from nektar.rows import EvidenceRow, Finding, FindingStatus
from nektar.store.schema import DELETED
from processors import outputs
from processors.conditions.condition import Condition
from processors.prosecutor import NAME


class Again(NamedTuple):
    """What came of making a finding's evidence again."""

    finding: Finding
    same: bool
    difference: str = ""  # empty: the same, or there is none on the bus yet


async def prove_again(
    bus: Bus, network: Network, pool: Pool, conditions: Mapping[str, Condition], reader: Reader
) -> list[Again]:
    """Each finding that stands, with whether the chain gives its evidence again, and the reader accepts it.
    Raises BusError."""
    kept = _evidence(bus, network)
    found, sets = [], Sets()
    for finding in _findings(bus, network):
        condition = conditions.get(finding.condition)
        if condition is None or not kept.get(finding.id):
            found.append(Again(finding, same=False))
            continue
        text = kept[finding.id].encode()
        try:
            before, sought = bundles.read(text), condition.claims(finding)
            after = await pool.first(lambda each: gather(each, network, finding, sought, before, sets))  # noqa: B023
            verdict = verify(after, reader, lambda name: conditions[name].holds)
            require_pinned(verdict, finding, sought)
        except NektarError as error:
            found.append(Again(finding, same=False, difference=str(error)))
            continue
        same = bundles.write(after) == text
        found.append(Again(finding, same, "" if same else "the chain gives another bundle"))
    return found


def _findings(bus: Bus, network: Network) -> list[Finding]:
    """Those of the Network's generation that stand, as they were told last."""
    newest: dict[bytes, Finding] = {}
    for message in _whole(bus, FINDINGS, network, {}):
        finding = outputs.finding_of(message)
        newest[finding.id] = finding
    return [each for each in newest.values() if each.status != FindingStatus.RETRACTED]


def _evidence(bus: Bus, network: Network) -> dict[bytes, str]:
    """The bundles on the bus by finding; empty where there can be none."""
    standing: dict[bytes, str] = {}
    headers = {"processor": NAME.encode(), "table": EvidenceRow.table.encode()}
    for message in _whole(bus, ROWS, network, headers):
        for row in pa.ipc.open_stream(message).read_all().to_pylist():
            if row[DELETED]:
                standing.pop(row["id"], None)
            else:
                standing[row["id"]] = row["bundle"]
    return standing


def _whole(bus: Bus, stream: str, network: Network, headers: Mapping[str, bytes]) -> list[bytes]:
    """The values of whole records of the Network's generation with these headers."""
    wanted = {"generation": str(network.generation).encode(), **headers}
    partition, readings = partition_of(network.name, bus.partitions), Readings()
    found = []
    for message in read_all(bus, stream, partition, end=bus.end(stream, partition)):
        if message.key == network.name.encode() and wanted.items() <= dict(message.headers).items():
            records, error = readings(message)
            if error:
                raise error
            found += [record.value for record in records]
    return found

"""Evidence made again from the chain, beside what stands on the bus: whether it is the same bytes.

What nodes do not serve any more, the state of an old block, is taken from the bundle that was kept, whose
proof is checked like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from nektar.bus.port import Bus, partition_of, read_all
from nektar.chain.pool import Pool
from nektar.errors import NektarError
from nektar.evidence import bundle as bundles
from nektar.evidence.gather import gather, require_pinned
from nektar.evidence.sets import Sets
from nektar.evidence.verify import Reader, verify
from nektar.log import FINDINGS, Readings
from nektar.model import Network
from nektar.rows import Finding, FindingStatus
from processors import outputs
from processors.conditions.condition import Condition
from processors.made import Made


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
    made = Made(bus, network.name)
    while made.read_on():
        pass
    found, sets = [], Sets()
    for finding in _findings(bus, network):
        condition = conditions.get(finding.condition)
        text = made.of(finding.id, network.generation).encode()
        if condition is None or not text:
            found.append(Again(finding, same=False))
            continue
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
    key, generation = network.name.encode(), str(network.generation).encode()
    partition, readings = partition_of(network.name, bus.partitions), Readings()
    for message in read_all(bus, FINDINGS, partition, end=bus.end(FINDINGS, partition)):
        if (message.key, message.headers.get("generation")) == (key, generation):
            records, error = readings(message)
            if error:
                raise error
            findings = [outputs.finding_of(record.value) for record in records]
            newest |= {finding.id: finding for finding in findings}
    return [each for each in newest.values() if each.status != FindingStatus.RETRACTED]

"""What is said when a generation of a Network's log takes the older one's place (`nektar/generations.py`).

While it caught up, all that it put out was marked as ahead, so that nobody was told. With the record by which
it comes to stand, each processor says of its findings what differs from what was told so far, once: what is
found and was not told, or not so; and of what was told and is not found, that it is retracted. All of it is a
function of what lies on `nektar.findings` below that record's transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from nektar import trace
from nektar.bus.port import Bus, Delivered, Message, partition_of
from nektar.log import AHEAD_HEADER, FINDINGS, split
from nektar.model import Network
from nektar.rows import FindingStatus
from processors.said import whole

# On what is said because of a handover: no record of the log alone gives it.
HANDOVER_HEADER = "nektar-handover"


class Known(NamedTuple):
    """The findings of a processor by id, as their newest versions say them."""

    told: dict[str, dict[str, Any]]
    found: dict[str, dict[str, Any]]  # by the generation that comes to stand


def difference(bus: Bus, network: Network, processor: str, offset: int, traceparent: bytes) -> list[Message]:
    """What the processor says when it has come to the record at `offset`, by which `network`'s generation
    comes to stand. All that it has put out before must be on the bus. Raises BusError."""
    partition = partition_of(network.name, bus.partitions)
    mine = {"processor": processor.encode()}
    end = bus.end(FINDINGS, partition)
    known = read(
        whole(bus, FINDINGS, partition, end, network.name.encode(), mine), str(network.generation).encode()
    )
    headers = {"generation": str(network.generation).encode(), **mine, HANDOVER_HEADER: b"1"}
    headers |= trace.header(traceparent)
    return [
        Message(FINDINGS, network.name.encode(), part, headers | numbered)
        for event in events(known, offset, traceparent)
        for part, numbered in split(json.dumps(event, separators=(",", ":")).encode())
    ]


def read(findings: Iterable[Delivered], generation: bytes) -> Known:
    """What was told, and what the `generation` that comes to stand has found."""
    known = Known({}, {})
    for each in findings:
        try:
            event = json.loads(each.value)
            id_ = str(event["subject"])
            event["data"]["status"], event["data"]["block_hash"]
        except (ValueError, KeyError, TypeError):
            continue  # it is a dead letter by now, and was told to nobody
        if AHEAD_HEADER not in each.headers:
            known.told[id_] = event
        elif each.headers.get("generation") == generation:
            known.found[id_] = event
    return known


def events(known: Known, offset: int, traceparent: bytes = b"") -> Iterator[dict[str, Any]]:
    """The CloudEvents that say what differs, in the order of their findings' ids."""
    for id_ in sorted(known.told.keys() | known.found.keys()):
        told, found = _live(known.told.get(id_)), _live(known.found.get(id_))
        if found is None:
            if told is not None:
                yield _again(told, FindingStatus.RETRACTED, offset, traceparent)
        elif told is None or _stands(told) != _stands(found):
            yield _again(found, found["data"]["status"], offset, traceparent)


def _live(event: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if event is None or event["data"]["status"] == FindingStatus.RETRACTED else event


def _stands(event: Mapping[str, Any]) -> tuple[str, str]:
    """What of a finding makes it worth telling again: its status, and the block that it rests on."""
    return event["data"]["status"], event["data"]["block_hash"]


def _again(event: dict[str, Any], status: str, offset: int, traceparent: bytes) -> dict[str, Any]:
    said = {
        name: value for name, value in event.items() if name not in (trace.TRACEPARENT, "datacontenttype")
    }
    carried = {trace.TRACEPARENT: traceparent.decode()} if traceparent else {}
    data = said.pop("data")
    return {
        **said,
        "id": f"{said['subject']}/{offset}",
        "type": f"nektar.finding.{status}",
        **carried,
        "datacontenttype": "application/json",
        "data": {**data, "status": status},
    }

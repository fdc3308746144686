"""What the demo's watcher was told, beside what it was to be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, Self

import msgspec

from cli.latency import figures
from devnet.receiver import Delivery
from nektar import bus as buses
from nektar.bus.port import read_all
from nektar.config import Config
from nektar.log import FINDINGS, Joiner
from processors.watchers import group_of
from processors.webhook import webhook_id

WATCHER = "demo"
# What SQL and the receiver say of a finding, in the words of both.
SAID = ("finding", "condition", "operator", "task_input", "status")
DUE = "SELECT count() AS n FROM findings_history"
FOUND = "SELECT id AS finding, condition, operator, task_input, status FROM findings"

Ask = Callable[[str], Sequence[Mapping[str, Any]]]
"""Rows of a statement."""


class Told(msgspec.Struct, frozen=True):
    """The comparison: figures for the summary, and what is not as it should be."""

    webhooks: dict[str, int]
    latencies: dict[str, dict[str, float]]
    wrong: str


def watcher(url: str, secret_file: str) -> dict[str, object]:
    """How the demo's nektar.yaml names its receiver."""
    return {"name": WATCHER, "url": url, "secret": f"file:{secret_file}"}


class Findings:
    """`nektar.findings`, and how far the watcher has come with it. A context."""

    def __init__(self, config: Config) -> None:
        self._bus = buses.open(config.bus_url)
        # Members that never poll hold nothing, and may look.
        groups = (group_of(WATCHER, first) for first in (True, False))
        self._groups = [self._bus.consumer(group, [FINDINGS]) for group in groups]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._bus.close()

    def told(self) -> bool:
        """Whether the watcher has taken all that lies there: nothing is left from its groups' offsets on."""
        return not any(
            self._bus.read(FINDINGS, partition, group.committed(FINDINGS, partition) or 0, 1)
            for partition in range(self._bus.partitions)
            for group in self._groups
        )

    def due(self) -> dict[str, float]:
        """webhook-id of each version of a finding → when it lay there, seconds since 1970."""
        found: dict[str, float] = {}
        for partition in range(self._bus.partitions):
            join = Joiner()
            for message in read_all(self._bus, FINDINGS, partition):
                if (value := join(message.value, message.headers)) is not None:
                    found[webhook_id(value)] = message.time
        return found


def compare(ask: Ask, due: Mapping[str, float], announced: Mapping[str, float], report: Any) -> Told:
    """What was due, by SQL and on the bus (`Findings.due`), beside what the receiver reports. `announced` is
    block hash → when a subscriber heard of it, seconds since 1970."""
    came = msgspec.convert(report["deliveries"], list[Delivery])
    ids = {delivery.id for delivery in came}
    first: dict[str, Delivery] = {}  # verified, of each id, in the order in which they came
    for delivery in came:
        if delivery.verified:
            first.setdefault(delivery.id, delivery)
    verified = list(first.values())
    webhooks = {
        "due": ask(DUE)[0]["n"],
        "sent": report["requests"],
        "delivered": len(ids),
        "verified": len(verified),
        "retracted": sum(delivery.status == "retracted" for delivery in verified),
        "repeated_id": len(came) - len(ids),
    }
    last = {delivery.finding: tuple(getattr(delivery, name) for name in SAID) for delivery in verified}
    found = {row["finding"]: tuple(row[name] for name in SAID) for row in ask(FOUND)}
    latencies = {
        "block_to_webhook": figures(_since_block(verified, announced)),
        "fold_to_webhook": figures(sorted((d.when - due[d.id]) * 1000 for d in verified if d.id in due)),
    }
    wrong = (
        _miscounted(webhooks)
        or _not_due(ids, due)
        or _otherwise(last, found)
        or _untimed(latencies["block_to_webhook"])
    )
    return Told(webhooks, latencies, wrong)


def _miscounted(webhooks: Mapping[str, int]) -> str:
    if webhooks["due"] == webhooks["delivered"] == webhooks["verified"]:
        return ""
    counts = ", ".join(f"{webhooks[name]} {name}" for name in ("due", "delivered", "verified"))
    return f"expected every version of every finding once; got {counts}"


def _not_due(came: Set[str], due: Mapping[str, float]) -> str:
    differ = sorted(came ^ due.keys())
    return f"what came is not what lies on the bus, {differ[0]} among others" if differ else ""


def _otherwise(last: Mapping[str, object], found: Mapping[str, object]) -> str:
    differ = sorted(f for f in last.keys() | found.keys() if last.get(f) != found.get(f))
    if not differ:
        return ""
    return f"SQL says {found.get(differ[0])}, and the last that was told is {last.get(differ[0])}"


def _untimed(block_to_webhook: Mapping[str, float]) -> str:
    if block_to_webhook["n"]:
        return ""
    return "expected to time at least one finding from its block's announcement on; no block was announced"


def _since_block(verified: Sequence[Delivery], announced: Mapping[str, float]) -> list[float]:
    """Milliseconds from a block's announcement until the watcher knew of each finding that it brought. What
    is `seen` there once more, since a mark went back, is no news of the block."""
    waited: dict[tuple[str, str], float] = {}
    for delivery in verified:
        if delivery.status == "seen" and delivery.block_hash in announced:
            since = announced[delivery.block_hash]
            waited.setdefault((delivery.finding, delivery.block_hash), (delivery.when - since) * 1000)
    return sorted(waited.values())

"""What was taken is written to the bus, by lanes of the collector's own; and whether the bus is there.

A request's signed responses and reports are on their Networks' logs before anything else of it is anywhere.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any, Self

from indexer.clients import Client
from indexer.heard import Found, Fresh, Heard, records
from indexer.lanes import Lane
from nektar import trace
from nektar.bus.port import Bus, BusError, Message, partition_of, partition_of_key
from nektar.config import Config, NetworkConfig
from nektar.generations import Standing
from nektar.log import DEAD, OTLP_SPANS, BrokenLog
from nektar.model import Signed

log = logging.getLogger(__name__)

# Seconds between two questions to the bus, while nothing is written, by which to see that it is there.
ASK_EVERY = 1.0
# Seconds that whoever asks is waited for at the end.
ASKED_SECONDS = 0.05


class Writes:
    """The lanes, one a partition for telemetry and one a Network for its log; shared between event loops."""

    def __init__(self, config: Config, bus: Bus, heard: Heard) -> None:
        self._bus = bus
        self._heard = heard
        self.standing = Standing(bus, config.networks)
        self.standing.look()
        self._opened = ExitStack()
        try:
            self._lanes = {p: self._lane(f"collector/{p}", p) for p in range(bus.partitions)}
            self._logs = {
                network.name: self._lane(
                    f"collector/log/{network.name}", partition_of(network.name, bus.partitions)
                )
                for network in config.networks
            }
            # A Networks' stream, to which no transaction writes that writes telemetry's.
            self._dead = self._lane("collector/dead", partition_of(DEAD, bus.partitions))
        except BaseException:
            self._opened.close()
            raise
        self._answered_at = time.time()
        self._closing = threading.Event()
        # Of its own, since nobody waits for it: a bus that is gone may let it wait for a minute.
        self._asking = threading.Thread(target=self._ask, name="collector asks", daemon=True)
        self._asking.start()

    @property
    def level_at(self) -> float:
        """All that was taken before is on the bus, which was there; in seconds since 1970."""
        return self._waiting_since or self._answered_at

    def check(self) -> None:
        """Raises Fenced where another collector writes by our lanes, Broken where we can't any more."""
        for lane in self._all_lanes:
            if lane.over:
                raise lane.over

    async def write(
        self, brought: Fresh, messages: Sequence[Message], letter: Message | None, of: Client
    ) -> None:
        """Commit what is for Networks' logs, then the rest, and a letter when all else is there: what is sent
        again brings another. Raises BusError."""
        # Who gives up waiting for another's write does not end it.
        others = [asyncio.shield(asyncio.wrap_future(other)) for other in brought.others]
        for_logs = records(brought.to_write, of.sender, self.standing)
        await asyncio.gather(*(self._log(*each, of) for each in for_logs), *others)
        parts: dict[int, list[Message]] = {}
        for message in messages:
            parts.setdefault(partition_of_key(message.key, self._bus.partitions), []).append(message)
        writes = [self._lanes[partition].write(part) for partition, part in parts.items()]
        await asyncio.gather(*map(asyncio.wrap_future, writes))
        if letter:
            await asyncio.wrap_future(self._dead.write([letter]))

    def close(self) -> None:
        """Write what was handed over, then end."""
        self._closing.set()
        self._asking.join(ASKED_SECONDS)
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def _log(
        self, network: NetworkConfig, found: Sequence[Found], message: Message, of: Client
    ) -> None:
        """Append what was brought to the Network's log, which begins a trace."""

        def ended(writing: Future[None]) -> None:
            # Not when its request ends: that may give up before a commit which succeeds after all.
            failed = writing.cancelled() or writing.exception()
            self._heard.end(found, of, written=not failed)

        kind = "signed" if isinstance(found[0].brought, Signed) else "told"
        said: dict[str, Any] = {trace.NETWORK: network.name, trace.RECORDS: [kind]}
        with trace.root("collect", trace.carried(message.headers), time.time_ns(), said):
            writing = self._logs[network.name].write([message])
            writing.add_done_callback(ended)
            await asyncio.wrap_future(writing)

    def _lane(self, transactional_id: str, partition: int) -> Lane:
        return self._opened.enter_context(Lane(self._bus, transactional_id, partition))

    @property
    def _all_lanes(self) -> list[Lane]:
        return [*self._lanes.values(), *self._logs.values(), self._dead]

    @property
    def _waiting_since(self) -> float | None:
        return min((at for lane in self._all_lanes if (at := lane.since)), default=None)

    def _ask(self) -> None:
        """See now and then that the bus is there, while no write tells."""
        while not self._closing.wait(ASK_EVERY):
            began = time.time()
            try:
                self.standing.look()
                if self._waiting_since is None:
                    self._bus.end(OTLP_SPANS, 0)
                    self._answered_at = began
            except (BusError, BrokenLog):
                pass  # it is not there: as of when it was, `level_at` says
            except Exception:  # whatever it is, nobody else would ask from then on
                log.exception("the bus could not be asked")

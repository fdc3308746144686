"""The logs of a Network that this process writes: the one that stands, and one that catches up with it.

Which these are follows from what the bus says, and what the configuration asks for (`nektar.generations`).
It is decided, and a log handed over, by one writer a Network, `indexer/NETWORK`, which whoever begins opens
first: who was there before decides nothing from then on, and can't hand over.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import NamedTuple, Self

import msgspec

from indexer.carried import Carried
from indexer.found import found_by
from indexer.known import Known
from indexer.resume import read_back
from indexer.writer import NetworkLog, log_writer
from nektar import generations
from nektar.bus.port import Bus, partition_of
from nektar.config import NetworkConfig
from nektar.generations import Generation, Generations
from nektar.log import NETWORK, ROWS, key
from nektar.networks.adapter import Adapter

_NO_FILTER = b"-"  # is no filter's hash, so that a log is read back no further than to its own


class Written(NamedTuple):
    """A log, and the Network as it was begun for."""

    network: NetworkConfig
    log: NetworkLog


class Logs:
    """`goes_on` is the log that the configuration asks for. `older` is the one that stands while that catches
    up with it; None where `goes_on` stands, or where the older one can't be followed any more."""

    goes_on: Written
    older: Written | None

    def __init__(self, bus: Bus, network: NetworkConfig, adapter: Adapter) -> None:
        """Raises BrokenLog, FilterChanged, BusError."""
        self._bus = bus
        self._network = network
        self._partition = partition_of(network.name, bus.partitions)
        self._opened = ExitStack()
        filter_ = generations.filter_of(network, adapter.abi())
        with ExitStack() as opened:
            self._writer = opened.enter_context(bus.writer(f"indexer/{network.name}", self._partition))
            while True:
                self.said = self._decide(filter_)
                logs = opened.enter_context(ExitStack())
                self._open(logs, adapter)
                if generations.read(bus, network.name) == self.said:
                    break
                logs.close()  # another began just then, and has decided otherwise
            self._opened = opened.pop_all()
        self.carried = self._carried()

    @property
    def catching_up(self) -> bool:
        return self.said.next is not None

    def hand_over(self) -> None:
        """Let the log that has caught up take the older one's place, with what is to be carried by now: what
        comes to the older one later is folded there, and in the newer one only after that. Raises Fenced
        where another has begun; BusError."""
        said = generations.handed_over(self.said)
        due = self.carried.due() if self.carried else []
        beside = [generations.message(self._network.name, said)]
        if self.carried:
            beside += self.carried.so_far(due)
        self.goes_on.log.hand_over(self._writer, beside, [each.record for each in due])
        if self.carried:
            self.carried.done(due)
        self.said = said

    def _carried(self) -> Carried | None:
        """What an older log has for the one that goes on; None where that is all there."""
        older = self.said.standing.number if self.said.next else self.said.before
        if not older:
            return None
        carried = Carried(self._bus, self._network.name, older, self.goes_on.network.generation)
        return None if carried.over else carried

    def _decide(self, filter_: bytes) -> Generations:
        said = generations.read(self._bus, self._network.name)
        begun = said or self._begun_before()
        wanted = generations.wanted(begun, filter_, self._network.generation)
        if begun is not None and wanted.next is not None and wanted.newest > begun.newest:
            next_ = msgspec.structs.replace(wanted.next, begins=self._ends(wanted.newest))
            wanted = msgspec.structs.replace(wanted, next=next_)
            if self._is_empty(begun.standing):
                wanted = generations.handed_over(wanted)  # there is nothing to be shown until then
        if wanted != said:
            self._writer.transaction([generations.message(self._network.name, wanted)])
        return wanted

    def _begun_before(self) -> Generations | None:
        """What an earlier version has begun, which said of its filter only the hash."""
        number = self._network.generation
        _, made_with = read_back(
            self._bus, self._partition, key(self._network.name, number), 0, filter_=_NO_FILTER
        )
        return None if made_with is None else Generations(Generation(number, made_with), newest=number)

    def _ends(self, number: int) -> dict[str, int]:
        """Where the streams end that a log of this number will be written to, unless it has been already."""
        if self._bus.last(NETWORK, self._partition, key(self._network.name, number)) is not None:
            return {}
        return {stream: self._bus.end(stream, self._partition) for stream in (NETWORK, ROWS)}

    def _is_empty(self, of: Generation) -> bool:
        """Whether its log has no block. Who wrote it before us is fenced, so that it gets none now."""
        name = self._network.name
        with self._bus.writer(log_writer(name, of.number), self._partition):
            known, made_with = read_back(
                self._bus, self._partition, key(name, of.number), 0, filter_=_NO_FILTER
            )
        return made_with is None and known.tip is None

    def _open(self, opened: ExitStack, adapter: Adapter) -> None:
        standing, next_ = self.said.standing, self.said.next
        goes_on = next_ or standing
        self.older = None
        # One of the same filter was left by hand: it is of no use to whoever raised the number.
        if next_ is not None and next_.hash != standing.hash:
            then = generations.configured(self._network, standing, adapter)
            if then is not None:
                self.older = self._written(opened, then, standing, adapter, ahead=False)
        self.goes_on = self._written(opened, self._network, goes_on, adapter, ahead=next_ is not None)

    def _written(
        self, opened: ExitStack, network: NetworkConfig, of: Generation, adapter: Adapter, *, ahead: bool
    ) -> Written:
        numbered = generations.numbered(network, of)
        log = NetworkLog(self._bus, numbered, of.hash, found_by(numbered, adapter), ahead=ahead)
        return Written(numbered, opened.enter_context(log))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._opened.close()


def has_caught_up(older: Known | None, newer: Known) -> bool:
    """Whether the newer log may take the older one's place, now that it is level with its chain: it knows as
    many blocks, as many to be safe and as many to be final, so that nothing has to be taken back which is
    said again a moment later. `older` is None where nobody follows that one any more."""
    if newer.base is None:
        return False  # nothing of it is final
    return older is None or all(n >= o for o, n in zip(_reached(older), _reached(newer), strict=True))


def _reached(known: Known) -> list[int]:
    """The numbers of the newest block, of the safe and of the final one; -1: none."""
    safe = known.marked[0] if known.marked else None
    return [-1 if block is None else block.number for block in (known.tip, safe, known.base)]

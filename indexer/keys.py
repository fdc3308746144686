"""Operators' keys as the fold `operators` says them (`nektar/registered.py`), for whoever may not wait for
the bus: read on and on by a thread for each partition that a Network is in, and looked up in memory.

A key counts within a second of being said. Where the bus is silent, or the chain is not followed, what was
known last is gone by for a while, and then nothing is known.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from nektar import registered
from nektar.bus.port import Bus, BusError, partition_of, read_all
from nektar.config import NetworkConfig
from nektar.errors import NektarError
from nektar.log import CHECKPOINTS
from nektar.model import G1, Address
from nektar.registered import Said

log = logging.getLogger(__name__)

# Seconds between two looks at what is new.
LOOK_EVERY = 0.25
# For so many seconds what was read is gone by while nothing more can be: a writer that is killed inside a
# transaction holds up all readers of its partition on Kafka for some twenty.
SILENT_SECONDS = 30.0
# … and for so many after the log was level with its chain. Before it has been so once, nobody knows whose key
# was changed since; later it shuts nobody out if a provider is down, or a chain stands still, for hours.
OLD_SECONDS = 24 * 3_600.0
# Of a log; a registry has places for fewer. Some 200 bytes each.
MAX_KEYS = 65_536


class NotKnown(NektarError):
    """Whether a key is an Operator's can't be told now: ask again."""


class Keys:
    """The keys of these Networks' Operators, each in the log that is `standing`."""

    def __init__(
        self,
        bus: Bus,
        networks: Sequence[NetworkConfig],
        standing: Callable[[NetworkConfig], int],
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._networks = {network.name: network for network in networks}
        self._standing = standing
        self._now = now
        self._clock = clock
        self._keys: dict[tuple[str, int], dict[Address, G1]] = {}  # by Network and generation
        self._as_of: dict[tuple[str, int], int] = {}  # likewise; seconds since 1970
        self._read: dict[int, float] = {}  # partition → when all that it held was read, by `clock`
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._follow, args=(partition,), name=f"keys/{partition}", daemon=True)
            for partition in {self._partition(name) for name in self._networks}
        ]
        for thread in self._threads:
            thread.start()

    def key(self, network: NetworkConfig, operator: Address) -> G1 | None:
        """The key that speaks for the Operator; None: none does. Raises NotKnown."""
        read = self._read.get(self._partition(network.name))
        if read is None or self._clock() - read > SILENT_SECONDS:
            raise NotKnown("Operators' keys can't be looked up now")
        of = network.name, self._standing(network)
        if (as_of := self._as_of.get(of)) is None:
            raise NotKnown("the Network's Operators are not known yet")
        if (age := self._now() - as_of) > OLD_SECONDS:
            raise NotKnown(f"the Network's Operators are known as they were {age:.0f} s ago")
        return self._keys.get(of, {}).get(operator)

    def close(self, seconds: float) -> None:
        """Read no more. Whoever waits for the bus is waited for so long, and ends by itself."""
        self._closing.set()
        for thread in self._threads:
            thread.join(seconds)

    def _partition(self, name: str) -> int:
        return partition_of(name, self._bus.partitions)

    def _follow(self, partition: int) -> None:
        start, pause = 0, 0.0
        while not self._closing.wait(pause):
            pause, asked = LOOK_EVERY, self._clock()
            try:
                end = self._bus.end(CHECKPOINTS, partition)
                for message in read_all(self._bus, CHECKPOINTS, partition, start, end):
                    if said := registered.read(message):
                        self._take(said)
                    start = message.offset + 1
            except BusError:
                continue  # as of when it was there, `key` says
            except Exception:  # whatever it is, nobody else would read on
                log.exception("Operators' keys could not be read")
                continue
            start, self._read[partition] = end, asked
            self._forget()

    def _take(self, said: Said) -> None:
        of = said.network, said.generation
        if said.network not in self._networks:
            return
        if said.operator is None:
            self._as_of[of] = said.time
            return
        keys = self._keys.setdefault(of, {})
        if said.key is None:
            keys.pop(said.operator, None)
        elif said.operator in keys or len(keys) < MAX_KEYS:
            keys[said.operator] = said.key
        else:
            log.error(
                "%s: more than %d Operators: 0x%s is unknown", said.network, MAX_KEYS, said.operator.hex()
            )

    def _forget(self) -> None:
        """What is said of logs in whose place a newer generation stands."""
        for network, generation in list(self._as_of.keys() | self._keys.keys()):
            if generation < self._standing(self._networks[network]):
                self._keys.pop((network, generation), None)
                self._as_of.pop((network, generation), None)

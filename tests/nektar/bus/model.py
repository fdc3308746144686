"""The port as lists: what a bus must agree with, on any calls in any order."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import strategies as st

from nektar.bus.port import Bus, Delivered, Fenced, Message
from tests.nektar.bus.reading import everything, take

_run = itertools.count()


class Model:
    """A bus as lists, and one as it is, given the same random calls."""

    def __init__(self, bus: Bus, data: st.DataObject) -> None:
        self.bus = bus
        self.data = data
        self.prefix = f"model-{next(_run)}-"
        self.streams = [self.prefix + name for name in ("s", "t")]
        self.group = self.prefix + "g"
        self.written: dict[tuple[str, int], list[tuple[bytes, bytes, dict[str, bytes]]]] = defaultdict(list)
        self.read: dict[tuple[str, int], int] = defaultdict(int)
        self.committed: dict[tuple[str, int], int] = {}
        self.writers = {p: bus.writer(self.prefix + str(p), p) for p in (0, 1)}
        self.consumer = bus.consumer(self.group, self.streams)

    def run(self) -> None:
        steps = (self.write, self.write, self.abort, self.process, self.process, self.seek, self.restart)
        try:
            for step in self.data.draw(st.lists(st.sampled_from(steps), max_size=14)):
                step()
            self.drain()
            self.compare()
        finally:
            self.consumer.close()
            for writer in self.writers.values():
                writer.close()

    def batch(self) -> list[Message]:
        return self.data.draw(
            st.lists(
                st.builds(
                    Message,
                    st.sampled_from(self.streams),
                    st.sampled_from([b"", b"a", b"b"]),
                    st.binary(max_size=12),
                    st.dictionaries(st.sampled_from(["h", "i"]), st.binary(max_size=3)),
                ),
                max_size=6,
            )
        )

    def partition(self) -> int:
        return self.data.draw(st.sampled_from((0, 1)))

    def keep(self, partition: int, batch: list[Message]) -> None:
        for message in batch:
            self.written[message.stream, partition].append(
                (message.key, message.value, dict(message.headers))
            )

    def write(self) -> None:
        partition, batch = self.partition(), self.batch()
        self.writers[partition].transaction(batch)
        self.keep(partition, batch)

    def abort(self) -> None:
        batch = self.batch()

        def broken() -> Iterator[Message]:
            yield from batch
            raise LookupError

        with pytest.raises(LookupError):
            self.writers[self.partition()].transaction(broken())

    def drain(self) -> dict[tuple[str, int], list[Delivered]]:
        """Poll everything there is, and see that it is what the model has next."""
        wanted = sum(len(written) - self.read[pair] for pair, written in list(self.written.items()))
        got: dict[tuple[str, int], list[Delivered]] = defaultdict(list)
        for message in take(self.consumer, wanted):
            got[message.stream, message.partition].append(message)
        assert not self.consumer.poll(0)
        for pair, messages in got.items():
            assert [(m.key, m.value, m.headers) for m in messages] == self.written[pair][self.read[pair] :]
            self.read[pair] = len(self.written[pair])
        return got

    def process(self) -> None:
        """Read all, then commit a part of one partition together with outputs, or alone."""
        got, partition = self.drain(), self.partition()
        offsets = {}
        for stream in self.streams:
            messages = got[stream, partition]
            if messages:
                count = self.data.draw(st.integers(0, len(messages)))
                offsets[stream] = messages[count].offset if count < len(messages) else messages[-1].offset + 1
                self.committed[stream, partition] = self.read[stream, partition] - len(messages) + count
        if self.data.draw(st.booleans()):
            batch = self.batch()
            self.writers[partition].transaction(batch, offsets, self.group)
            self.keep(partition, batch)
        else:
            for stream, offset in offsets.items():
                self.consumer.commit(stream, partition, offset)
        for stream, offset in offsets.items():
            assert self.consumer.committed(stream, partition) == offset

    def seek(self) -> None:
        self.drain()
        stream, partition = self.data.draw(st.sampled_from(self.streams)), self.partition()
        there = everything(self.bus, stream, partition)
        if there:
            index = self.data.draw(st.integers(0, len(there) - 1))
            self.consumer.seek(stream, partition, there[index].offset)
            self.read[stream, partition] = index

    def restart(self) -> None:
        """A new member, after the old one left, begins where the group committed; and a new writer too."""
        self.consumer.close()
        self.consumer = self.bus.consumer(self.group, self.streams)
        self.read = defaultdict(int, self.committed)
        partition = self.partition()
        old, self.writers[partition] = (
            self.writers[partition],
            self.bus.writer(self.prefix + str(partition), partition),
        )
        with old, pytest.raises(Fenced):
            old.transaction([])

    def compare(self) -> None:
        for stream, partition in itertools.product(self.streams, (0, 1)):
            got = everything(self.bus, stream, partition)
            written = self.written[stream, partition]
            assert [(m.key, m.value, m.headers) for m in got] == written
            offsets = [message.offset for message in got]
            assert offsets == sorted(set(offsets))
            assert self.bus.end(stream, partition) > max(offsets, default=-1)
            newest = {message.key: message for message in got}
            for key in (b"", b"a", b"b"):
                assert self.bus.last(stream, partition, key) == newest.get(key)

"""A process that the bus's tests start and kill: `worker.py COMMAND URL ARGUMENT…`. Uses the port alone.

It says on stdout, a line each, what the test waits for.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from itertools import count, groupby

import nektar.bus
from nektar.bus.port import Bus, Consumer, Delivered, Fenced, Message, Writer


def say(*words: object) -> None:
    print(*words, flush=True)


def produce(bus: Bus, stream: str, partition: str, name: str, transactions: str, size: str) -> None:
    """Write `transactions` (0: endless) of `size` messages `name/i/j`."""
    with bus.writer(f"produce-{name}", int(partition)) as writer:
        say("ready")
        sys.stdin.readline()
        for i in range(int(transactions)) if int(transactions) else count():
            writer.transaction(
                Message(stream, name.encode(), f"{name}/{i}/{j}".encode()) for j in range(int(size))
            )
    say("done")


def produce_large(bus: Bus, stream: str, partition: str, size: str, bytes_each: str) -> None:
    """Write transactions of `size` messages of `bytes_each` without end, numbered over all of them."""
    with bus.writer("produce-large", int(partition)) as writer:
        say("ready")
        for i in count():
            body = i.to_bytes(8, "big") + b"\0" * int(bytes_each)
            writer.transaction(Message(stream, b"large", body) for _ in range(int(size)))


def hang(bus: Bus, stream: str, partition: str) -> None:
    """Begin a transaction, say so, and never come to its end."""
    with bus.writer("hang", int(partition)) as writer:
        writer.transaction([Message(stream, b"k", b"whole")])

        def messages():
            yield Message(stream, b"k", b"half")
            say("writing")
            sys.stdin.readline()

        writer.transaction(messages())


def leave_open(bus: Bus, stream: str, partition: str, seconds: str) -> None:
    """Kafka: send half a transaction, which brokers abort after so many seconds, and never end it."""
    from nektar.bus import transactions

    transactions.TRANSACTION_SECONDS = float(seconds)
    with bus.writer("leave-open", int(partition)) as writer:
        producer = writer._producer
        producer.begin_transaction()
        bus._topics.ensure([stream])
        producer.send(bus._topics.name(stream), b"half", b"k", [], int(partition)).get(30)
        say("open")
        sys.stdin.readline()


def member(bus: Bus, group: str, stream: str) -> None:
    """Join a group, say what is assigned and read, commit nothing."""
    with bus.consumer(group, [stream], on_assigned=lambda p: say("assigned", *sorted(p))) as consumer:
        while True:
            for message in consumer.poll(1):
                say("read", message.partition, message.value.decode())


def transform(bus: Bus, group: str, source: str, target: str) -> None:
    """Consume, transform, produce: each batch's outputs and its offset in one transaction."""
    writers: dict[int, Writer] = {}

    def take(partitions: frozenset[int]) -> None:
        for partition in partitions:
            writers[partition] = bus.writer(f"{group}-{partition}", partition)

    def give_up(partitions: frozenset[int]) -> None:
        for partition in partitions:
            writers.pop(partition).close()

    def one_batch(consumer: Consumer, partition: int, batch: Sequence[Delivered]) -> None:
        writers[partition].transaction(
            [Message(target, m.key, b"%d " % m.offset + m.value) for m in batch],
            {source: batch[-1].offset + 1},
            group,
        )

    with bus.consumer(group, [source], on_assigned=take, on_revoked=give_up) as consumer:
        say("ready")
        while True:
            for partition, batch in groupby(consumer.poll(1, 7), key=lambda m: m.partition):
                with suppress(Fenced):  # read again by whoever holds it now
                    one_batch(consumer, partition, list(batch))


if __name__ == "__main__":
    commands = {f.__name__: f for f in (produce, produce_large, hang, leave_open, member, transform)}
    with closing(nektar.bus.open(sys.argv[2])) as opened:
        commands[sys.argv[1]](opened, *sys.argv[3:])

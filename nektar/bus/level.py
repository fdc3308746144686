"""Up to when a reader has dealt with all that its partitions had: what its health says of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nektar.bus.port import Consumer, Delivered


class Level:
    """Polls for a consumer of `streams`, and remembers of each partition how far what it brought was dealt
    with: a poll may bring of one alone, while there is much more in another."""

    def __init__(self, consumer: Consumer, streams: Sequence[str]) -> None:
        self._consumer = consumer
        self._streams = streams
        self._at: dict[tuple[str, int], float] = {}
        self._answered = 0.0
        self._spare_at: float | None = None  # when it was seen that others hold all there is

    def poll(self, timeout: float, max_messages: int = 500) -> Sequence[Delivered]:
        """The consumer's. Whoever calls it has dealt with what it brought before, or has gone back there."""
        batch = self._consumer.poll(timeout, max_messages)
        answered = self._consumer.answered_at
        if self._consumer.assignment():
            self._spare_at = None
        elif not batch and answered != self._answered:
            # Not where it has given up what it held, and does not know yet what it will be dealt.
            self._spare_at = answered
        self._answered = answered
        # What has just been brought is not dealt with; and it says nothing of what has nothing more.
        brought = {(message.stream, message.partition) for message in batch}
        self._at |= {where: at for where, at in self._consumer.at_end().items() if where not in brought}
        return batch

    def took(self, messages: Iterable[Delivered]) -> None:
        """These are dealt with, and all before them."""
        for message in messages:
            self._at[message.stream, message.partition] = message.time

    @property
    def at(self) -> float | None:
        """All that there was at this time is dealt with, in seconds since 1970. None while that can't be
        told, since nothing is known yet of a partition that it holds."""
        held = self._consumer.assignment()
        self._at = {source: at for source, at in self._at.items() if source[1] in held}
        if not held:
            return self._spare_at
        return min(self._at.values()) if len(self._at) == len(held) * len(self._streams) else None

"""The bloom filter over a block's logs (yellow paper 4.3.1): 2048 bits, three for each address and topic.

A bit that is not set proves absence; bits that are set prove nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from nektar.chain.header import BLOOM_BYTES
from nektar.chain.keccak import keccak


class HasAddressAndTopics(Protocol):
    """A log, as far as the bloom sees it."""

    @property
    def address(self) -> bytes: ...
    @property
    def topics(self) -> Iterable[bytes]: ...


def bloom(logs: Iterable[HasAddressAndTopics]) -> bytes:
    """The 256 bytes that these logs, and no others, leave in the filter."""
    items: set[bytes] = set()
    for log in logs:
        items.add(log.address)
        items.update(log.topics)
    bits = 0
    for item in items:
        bits |= _bits(item)
    return bits.to_bytes(BLOOM_BYTES)


def union(blooms: Iterable[bytes]) -> bytes:
    """The filter of all the logs that these filters are of."""
    bits = 0
    for each in blooms:
        bits |= int.from_bytes(each)
    return bits.to_bytes(BLOOM_BYTES)


def may_contain(bloom: bytes, item: bytes) -> bool:
    """False proves that no log has this address or topic; True that one may."""
    bits = _bits(item)
    return int.from_bytes(bloom) & bits == bits


def mask(items: Iterable[bytes]) -> int:
    """The bits that all of these set: a filter without one of them has no log with all of these."""
    bits = 0
    for item in items:
        bits |= _bits(item)
    return bits


def bit_numbers(item: bytes) -> tuple[int, int, int]:
    """The three bits that an address or topic sets; bit 0 is the lowest of the last byte."""
    a, b, c, d, e, f = keccak(item)[:6]
    return (a << 8 | b) & 2047, (c << 8 | d) & 2047, (e << 8 | f) & 2047


def _bits(item: bytes) -> int:
    one, two, three = bit_numbers(item)
    return 1 << one | 1 << two | 1 << three

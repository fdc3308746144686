"""What telemetry brings onto the Networks' logs: so much of each sender's, and each only once.

What is done here keeps a log from being flooded: what can't be a signature or a report stays off it
(`brought.py`), each is written once for each sender, and a sender has budgets of what is written, one of
signatures and one of all else: an attempt that fails costs nothing. Where nobody is asked for a token each
network address is one (`clients.py`), and all of them have a budget together. Who sends one again while it is
being written waits for that, and is told what became of it. The span that carries one is stored whatever
becomes of it.

What was written is remembered for each sender apart: were another one's report enough, an Operator could
report its own second signature and then so much else that folds forget it (`processors/early.py`), and the
peer's later report would be taken for the same.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import msgspec

from indexer.brought import Place, brought
from indexer.budget import Budget
from indexer.clients import Client
from nektar import trace
from nektar.bus.port import BusError, Message
from nektar.config import NetworkConfig
from nektar.log import NETWORK, PART_BYTES, SignedBatch, ToldBatch, encode, key
from nektar.model import Address, Brought, Heartbeat, Signed
from nektar.otlp import Signal
from nektar.senders import Sender
from nektar.tokens import Role

log = logging.getLogger(__name__)


class Allowance(NamedTuple):
    """What a sender may bring in a minute, and how much of it is remembered."""

    per_minute: int
    remembered: int


# An Aggregator of two hundred Operators with a Task every ten seconds brings as many signatures as this, and
# reports some more steps of them. Each is 0.3 KB of a log that keeps everything. Those of half an hour at
# full budget are remembered, in some MB.
SIGNATURES = Allowance(1_200, 32_768)
REPORTS = Allowance(3_600, 32_768)
# Of an Operator, who brings its own: one of a Task each second, with six steps and a heartbeat. Of a thousand
# of them what is remembered is some 100 MB.
OPERATORS_SIGNATURES = Allowance(60, 256)
OPERATORS_REPORTS = Allowance(480, 512)
# Of a network address, where nobody is asked for a token, and of all of them together: fewer than ten that
# flood leave others theirs.
ADDRESS_SIGNATURES = Allowance(SIGNATURES.per_minute, 512)
ADDRESSES_PER_MINUTE = 10 * SIGNATURES.per_minute
# Of so many senders is remembered what they brought: more than Networks have. Whoever is forgotten may bring
# the same once more, which changes nothing.
SENDERS = 4_096


class Found(NamedTuple):
    """Something for a log, the Network whose it is, and what it is remembered by."""

    network: NetworkConfig
    brought: Brought
    digest: bytes


class Fresh(NamedTuple):
    """What a request has to write, and what of it others are writing: done when that is on its log, and
    failing with BusError where it is not."""

    to_write: list[Found]
    others: list[Future[None]]


class Heard:
    """What was brought for the configured Networks. Safe to share between threads."""

    def __init__(
        self,
        networks: Sequence[NetworkConfig],
        signatures: Allowance = SIGNATURES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._networks: dict[Place, list[NetworkConfig]] = {}
        for network in networks:
            if address := network.contracts.get("task_manager"):
                place = Place(network.chain_id, Address(bytes.fromhex(address[2:])))
                self._networks.setdefault(place, []).append(network)
        self._signatures = signatures
        self._clock = clock
        self._lock = threading.Lock()
        self._addresses = Budget(ADDRESSES_PER_MINUTE, 60.0, clock())
        self._bringers: OrderedDict[Client, _Bringer] = OrderedDict()  # who was heard of last is last

    def fresh(self, signal: Signal, request: Any, body: bytes, of: Client) -> Fresh:
        """What of `request`, whose protobuf is `body`, belongs onto a log and is not there yet. One of a
        Network has no business on another's, though both be on one contract."""
        found: dict[bytes, Found] = {}
        for place, message in brought(signal, request, body, of.sender):
            for network in self._networks.get(place, ()):
                if of.sender.network in ("", network.name):
                    each = Found(network, message, _digest(network, message))
                    found.setdefault(each.digest, each)
        if not found:
            return Fresh([], [])
        with self._lock:
            return self._bringer(of).begin(found, self._clock(), of)

    def end(self, found: Sequence[Found], of: Client, *, written: bool) -> None:
        """These stand on their logs now; or not, and then cost nothing. Each that was to write ends once."""
        if found:
            with self._lock:
                self._bringers[of].end(found, written)

    def _bringer(self, of: Client) -> _Bringer:
        """What it has brought; of those who have not been heard of for longest all is forgotten."""
        if (known := self._bringers.get(of)) is None:
            idle = (name for name, each in self._bringers.items() if not each.is_writing)
            if len(self._bringers) >= SENDERS and (longest := next(idle, None)):
                del self._bringers[longest]
            known = self._bringers[of] = self._begin(of)
        self._bringers.move_to_end(of)
        return known

    def _begin(self, of: Client) -> _Bringer:
        now = self._clock()
        if of.place:
            return _Bringer(_Kind(ADDRESS_SIGNATURES, now, self._addresses), _Kind(REPORTS, now))
        if of.sender.role == Role.OPERATOR:
            return _Bringer(_Kind(OPERATORS_SIGNATURES, now), _Kind(OPERATORS_REPORTS, now))
        return _Bringer(_Kind(self._signatures, now), _Kind(REPORTS, now))


class _Bringer:
    """What a sender has brought, and what is left of its budgets."""

    def __init__(self, signatures: _Kind, reports: _Kind) -> None:
        self._kinds = {True: signatures, False: reports}
        # Paid for and being written; whoever gets no answer sends the same again.
        self._under_way: dict[bytes, Future[None]] = {}
        self._dropped = 0
        self._said = -60.0

    @property
    def is_writing(self) -> bool:
        return bool(self._under_way)

    def begin(self, wanted: Mapping[bytes, Found], now: float, of: Client) -> Fresh:
        """Those of `wanted` that are not written and that the budgets allow, which are under way from now on;
        and those that are already."""
        fresh = Fresh([], [])
        for digest, found in wanted.items():
            kind = self._kinds[isinstance(found.brought, Signed)]
            if digest in kind.written:
                continue
            if other := self._under_way.get(digest):
                fresh.others.append(other)
            elif not kind.take(now):
                self._dropped += 1
            else:
                self._under_way[digest] = Future()
                fresh.to_write.append(found)
        self._say(now, of)
        return fresh

    def end(self, found: Iterable[Found], written: bool) -> None:
        """What was under way is written, or is not and is paid back. Whoever waits for it is told."""
        for each in found:
            waited_for = self._under_way.pop(each.digest)
            kind = self._kinds[isinstance(each.brought, Signed)]
            if written:
                kind.remember(each.digest)
                waited_for.set_result(None)
            else:
                kind.give_back()
                waited_for.set_exception(BusError("what was sent before for a Network's log was not written"))

    def _say(self, now: float, of: Client) -> None:
        """Say what was kept off, at most once a minute."""
        if self._dropped and now - self._said >= 60:
            log.warning(
                "sender %s: %d signed responses or reports beyond %d and %d a minute are not on the log; "
                "their spans are kept",
                of,
                self._dropped,
                self._kinds[True].per_minute,
                self._kinds[False].per_minute,
            )
            self._dropped, self._said = 0, now


class _Kind:
    """Signatures, or reports: what of them is written, and what is left of their budgets."""

    def __init__(self, allowance: Allowance, now: float, *shared: Budget) -> None:
        """`shared` with others."""
        self.written: OrderedDict[bytes, None] = OrderedDict()  # oldest first
        self.per_minute = allowance.per_minute
        self._budgets = (Budget(allowance.per_minute, 60.0, now), *shared)
        self._remembered = allowance.remembered

    def take(self, now: float) -> bool:
        """Whether there is one left, which is gone then."""
        for i, budget in enumerate(self._budgets):
            if not budget.take(now):
                for paid in self._budgets[:i]:
                    paid.give_back()
                return False
        return True

    def give_back(self) -> None:
        """One that was taken cost nothing after all."""
        for budget in self._budgets:
            budget.give_back()

    def remember(self, digest: bytes) -> None:
        self.written[digest] = None
        while len(self.written) > self._remembered:
            self.written.popitem(last=False)


def records(
    found: Sequence[Found],
    sender: Sender,
    standing: Callable[[NetworkConfig], int] = lambda network: network.generation,
) -> Iterator[tuple[NetworkConfig, Sequence[Found], Message]]:
    """The messages that put these, which `sender` brought, onto their logs, of the generations that are
    `standing`: each a record that travels whole, and what is in it."""
    of: dict[tuple[str, bool], list[Found]] = {}
    for each in found:
        of.setdefault((each.network.name, isinstance(each.brought, Signed)), []).append(each)
    for (_, is_signed), all_ in of.items():
        # Twice its parts is more than any of them takes as msgpack.
        most = max(1, PART_BYTES // (2 * max(_size(each.brought) for each in all_) + 1_000))
        network = all_[0].network
        log_of = key(network.name, standing(network))
        for i in range(0, len(all_), most):
            part = all_[i : i + most]
            messages: Any = tuple(each.brought for each in part)
            value = encode(SignedBatch(messages) if is_signed else ToldBatch(messages))
            headers = sender.headers | trace.header(trace.begin(log_of, [value]))
            yield network, part, Message(NETWORK, log_of, value, headers)


def _size(message: Brought) -> int:
    """What may be long of it, in bytes."""
    return 0 if isinstance(message, Heartbeat) else len(message.response)


def _digest(network: NetworkConfig, message: Brought) -> bytes:
    """What makes it the same as another, of one sender."""
    if isinstance(message, Signed):
        said = b"".join((message.operator, message.task_hash, message.digest, message.signature))
    else:
        said = _encoder.encode(message)
    return hashlib.sha256(key(network.name, network.generation) + said).digest()[:16]


_encoder = msgspec.msgpack.Encoder()

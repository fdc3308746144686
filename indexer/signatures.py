"""Signed responses that telemetry brings: found in spans and log records, and put onto the Networks' logs.

A signature proves itself, so it counts whoever reports it: a peer, an Aggregator, the Operator itself. It is
not verified here, which would take the Network's state, but when it first matters. What is done here keeps a
log from being flooded: what can't be a signature stays off it, each is written once for each sender, and a
sender has a budget of what is written: an attempt that fails costs nothing. Who sends one again while it is
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

from indexer.budget import Budget
from nektar import telemetry, trace
from nektar.bus.port import BusError, Message
from nektar.chain.keccak import keccak
from nektar.config import NetworkConfig
from nektar.log import NETWORK, PART_BYTES, SignedBatch, encode, key
from nektar.model import G1, Address, Hash32, Signed
from nektar.otlp import Signal, groups
from nektar.senders import Sender
from nektar.tokens import Role

log = logging.getLogger(__name__)

# Signatures a sender may bring in a minute: an Aggregator of two hundred Operators with a Task every ten
# seconds brings as many. Each is 0.3 KB of a log that keeps everything.
PER_MINUTE = 1_200
# Signatures of a sender that are remembered: those of half an hour at full budget, in some MB.
REMEMBERED = 32_768
# Of an Operator, who brings its own: one of a Task each second. Of a thousand of them that are some 40 MB.
OPERATORS_PER_MINUTE, OPERATORS_REMEMBERED = 60, 256
# Of so many senders is remembered what they brought: more than Networks have. Whoever is forgotten may bring
# the same once more, which changes nothing.
SENDERS = 4_096
# The longest preimage of a digest. The reference contracts' is 64 bytes.
MAX_RESPONSE_BYTES = 1_024
SCHEME = "bls-bn254"

_NEEDED = (
    telemetry.CHAIN_ID,
    telemetry.CONTRACT,
    telemetry.TASK_HASH,
    telemetry.OPERATOR,
    telemetry.RESPONSE,
    telemetry.RESPONSE_DIGEST,
    telemetry.SIGNATURE,
)
_MARK = telemetry.SIGNATURE.encode()


class Place(NamedTuple):
    """What a signature is bound to."""

    chain_id: int
    contract: Address


class Found(NamedTuple):
    """A signed response, the Network that it is for, and what it is remembered by."""

    network: NetworkConfig
    signed: Signed
    digest: bytes


class Fresh(NamedTuple):
    """What a request has to write, and what of it others are writing: done when that is on its log, and
    failing with BusError where it is not."""

    to_write: list[Found]
    others: list[Future[None]]


class Signatures:
    """Signed responses of the configured Networks. Safe to share between threads."""

    def __init__(
        self,
        networks: Sequence[NetworkConfig],
        per_minute: int = PER_MINUTE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._networks: dict[Place, list[NetworkConfig]] = {}
        for network in networks:
            if address := network.contracts.get("task_manager"):
                place = Place(network.chain_id, Address(bytes.fromhex(address[2:])))
                self._networks.setdefault(place, []).append(network)
        self._per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._senders: OrderedDict[Sender, _Sender] = OrderedDict()  # who was heard of last is last

    def fresh(self, signal: Signal, request: Any, body: bytes, sender: Sender) -> Fresh:
        """What of `request`, whose protobuf is `body`, belongs onto a log and is not there yet. One of a
        Network has no business on another's, though both be on one contract."""
        if _MARK not in body:
            return Fresh([], [])
        with self._lock:
            known = self._known(sender)
            found: dict[bytes, Found] = {}
            for place, signed in _signed(signal, request, sender):
                for network in self._networks.get(place, ()):
                    each = Found(network, signed, _digest(network, signed))
                    if sender.network in ("", network.name) and each.digest not in known.written:
                        found.setdefault(each.digest, each)
            allowed, others = known.begin(found, self._clock(), sender)
            return Fresh([found[digest] for digest in allowed], others)

    def _known(self, sender: Sender) -> _Sender:
        """What it has brought; of those who have not been heard of for longest all is forgotten."""
        if (known := self._senders.get(sender)) is None:
            budget = self._per_minute, REMEMBERED
            if sender.role == Role.OPERATOR:
                budget = OPERATORS_PER_MINUTE, OPERATORS_REMEMBERED
            idle = (name for name, each in self._senders.items() if not each.is_writing)
            if len(self._senders) >= SENDERS and (longest := next(idle, None)):
                del self._senders[longest]
            known = self._senders[sender] = _Sender(*budget, self._clock())
        self._senders.move_to_end(sender)
        return known

    def end(self, found: Sequence[Found], sender: Sender, *, written: bool) -> None:
        """These stand on their logs now; or not, and then cost nothing. Each that was to write ends once."""
        with self._lock:
            self._senders[sender].end([each.digest for each in found], written)


class _Sender:
    """What a sender has brought, and what is left of its budget."""

    def __init__(self, per_minute: int, remembered: int, now: float) -> None:
        self.written: OrderedDict[bytes, None] = OrderedDict()  # oldest first
        # Paid for and being written; whoever gets no answer sends the same again.
        self._under_way: dict[bytes, Future[None]] = {}
        self._budget = Budget(per_minute, 60.0, now)
        self._remembered = remembered
        self._dropped = 0
        self._said = -60.0

    @property
    def is_writing(self) -> bool:
        return bool(self._under_way)

    def begin(
        self, wanted: Iterable[bytes], now: float, sender: Sender
    ) -> tuple[list[bytes], list[Future[None]]]:
        """Those of `wanted` that the budget allows, which are under way from now on; and those that are."""
        allowed, others = list[bytes](), list[Future[None]]()
        for digest in wanted:
            if other := self._under_way.get(digest):
                others.append(other)
            elif not self._budget.take(now):
                self._dropped += 1
            else:
                self._under_way[digest] = Future()
                allowed.append(digest)
        self._say(now, sender)
        return allowed, others

    def end(self, digests: Iterable[bytes], written: bool) -> None:
        """What was under way is written, or is not and is paid back. Whoever waits for it is told."""
        for digest in digests:
            waited_for = self._under_way.pop(digest)
            if written:
                self.written[digest] = None
                waited_for.set_result(None)
            else:
                self._budget.give_back()
                waited_for.set_exception(BusError("a signed response, sent before, was not written"))
        while len(self.written) > self._remembered:
            self.written.popitem(last=False)

    def _say(self, now: float, sender: Sender) -> None:
        """Say what was kept off, at most once a minute."""
        if self._dropped and now - self._said >= 60:
            log.warning(
                "sender %s: %d signed responses beyond %d a minute are not on the log; their spans are kept",
                sender.brought_by,
                self._dropped,
                self._budget.most,
            )
            self._dropped, self._said = 0, now


def records(
    found: Sequence[Found],
    sender: Sender,
    standing: Callable[[NetworkConfig], int] = lambda network: network.generation,
) -> Iterator[tuple[NetworkConfig, Sequence[Found], Message]]:
    """The messages that put these, which one sender brought, onto their logs, of the generations that are
    `standing`, each a record that travels whole, and what is in it."""
    of: dict[str, list[Found]] = {}
    for each in found:
        of.setdefault(each.network.name, []).append(each)
    for all_ in of.values():
        # Twice its parts is more than any of them takes as msgpack.
        most = max(1, PART_BYTES // (2 * max(len(each.signed.response) for each in all_) + 1_000))
        network = all_[0].network
        log_of = key(network.name, standing(network))
        for i in range(0, len(all_), most):
            part = all_[i : i + most]
            batch = tuple(each.signed for each in part)
            value = encode(SignedBatch(batch))
            headers = sender.headers | trace.header(trace.begin(log_of, [value]))
            yield network, part, Message(NETWORK, log_of, value, headers)


def _signed(signal: Signal, request: Any, sender: Sender) -> Iterator[tuple[Place, Signed]]:
    for group in groups(signal, request):
        for item in group.items:
            said = {a.key: a.value for a in item.attributes if a.key.startswith("nektar.")}
            if telemetry.SIGNATURE in said and (found := _read(said, sender)):
                yield found


def _read(said: Mapping[str, Any], sender: Sender) -> tuple[Place, Signed] | None:
    """The signed response that these attributes are; None where they are none."""
    scheme = said.get(telemetry.SIGNATURE_SCHEME)
    if any(name not in said for name in _NEEDED) or (scheme is not None and scheme.string_value != SCHEME):
        return None
    try:
        contract = Address(_octets(said[telemetry.CONTRACT], 20))
        task_hash = Hash32(_octets(said[telemetry.TASK_HASH], 32))
        operator = Address(_octets(said[telemetry.OPERATOR], 20))
        digest = Hash32(_octets(said[telemetry.RESPONSE_DIGEST], 32))
        signature = G1(_octets(said[telemetry.SIGNATURE], 64))
        response = _octets(said[telemetry.RESPONSE])
    except ValueError:
        return None
    if len(response) > MAX_RESPONSE_BYTES or keccak(response) != digest:
        return None
    place = Place(said[telemetry.CHAIN_ID].int_value, contract)
    return place, Signed(None, task_hash, operator, digest, signature, response, brought_by=sender.brought_by)


def _octets(value: Any, length: int | None = None) -> bytes:
    """The bytes in a string 0x…. Raises ValueError."""
    text = value.string_value
    octets = bytes.fromhex(text[2:])
    if text != "0x" + octets.hex() or length not in (None, len(octets)):
        raise ValueError(text)
    return octets


def _digest(network: NetworkConfig, signed: Signed) -> bytes:
    """What makes it the same as another, of one sender."""
    log_of = key(network.name, network.generation)
    parts = (log_of, signed.operator, signed.task_hash, signed.digest, signed.signature)
    return hashlib.sha256(b"".join(parts)).digest()[:16]

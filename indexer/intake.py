"""What is done with a request of telemetry, whichever way it came: read, unpacked, checked, put onto the bus.

A request that is taken is on the bus: its signed responses on their Networks' logs first (`heard.py`),
then what it holds on `otlp_spans`, `otlp_logs` or `otlp_metrics`. Killed in between, it has answered nothing,
and the client sends again: the same bytes are the same rows, and the same signature changes nothing.

Nothing that is sent is believed (`otlp.py`) or can take more than its share: bodies are bounded before and
after they are unpacked, and what all requests under way hold together is bounded, too (`room.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple, Self

from opentelemetry import metrics

from indexer import otlp, otlp_json
from indexer.admission import Admission, Busy
from indexer.heard import Found, Fresh, Heard, records
from indexer.lanes import Lane
from indexer.refusals import bad, busy, large, later, unknown
from indexer.room import Room, Share
from indexer.turns import Turns
from indexer.unpack import NotPacked, TooLarge, unpacked
from nektar import trace
from nektar.bus.port import Bus, BusError, Message, partition_of, partition_of_key
from nektar.config import Config, NetworkConfig
from nektar.generations import Standing
from nektar.log import OTLP_SPANS, BrokenLog
from nektar.model import Signed
from nektar.monitor import own_token
from nektar.otlp import BadRequest, Signal, check_size, parse
from nektar.senders import OWN, UNAUTHENTICATED, Sender
from nektar.tokens import PREFIX, BadToken

log = logging.getLogger(__name__)

answered = metrics.get_meter("nektar").create_counter(
    "nektar.collector.requests", "{request}", "Requests answered, by protocol, signal and status"
)
_items = metrics.get_meter("nektar").create_counter(
    "nektar.collector.items", "{item}", "Spans, log records and data points put onto the bus"
)

# Of one request, packed or not: what a stock exporter sends at once is far below.
MAX_BODY_BYTES = 4 * 1024 * 1024
# Of all requests under way together, as they came and as they were unpacked.
MAX_HELD_BYTES = 32 * 1024 * 1024
# Seconds that a client may take to send a body, that it waits for its turn to be unpacked, and that the bus
# may take to commit it; stock exporters wait ten in all.
READ_SECONDS = 10.0
TURN_SECONDS = 5.0
COMMIT_SECONDS = 8.0
# Seconds between two questions to the bus, while nothing is written, by which to see that it is there.
ASK_EVERY = 1.0
# Seconds that whoever asks is waited for at the end.
ASKED_SECONDS = 0.05


class Body(NamedTuple):
    """A request as it came: protobuf, or JSON."""

    packed: bytes
    encoding: str = ""  # of ENCODINGS; empty: it is not packed
    is_json: bool = False


Read = Callable[[Share], Awaitable[Body]]
"""Reads a request, and takes its share of the room for what it reads. Raises Refused."""


class _Taken(NamedTuple):
    """What is to be written of a request, and what the client is told about the rest."""

    signed: Fresh
    messages: list[Message]
    items: int
    rejected: int
    why: str


class Intake:
    """Takes requests of the configured senders, onto the lanes that it writes by."""

    def __init__(self, config: Config, bus: Bus) -> None:
        self._bus = bus
        tokens = config.telemetry.senders
        self._is_open = config.telemetry.is_open
        # Roles bring their own spans by a token that no sender has.
        self._senders = [
            (sender, _hashed(token))
            for sender, token in [
                *((Sender(name), token) for name, token in tokens.items()),
                (OWN, own_token(config)),
            ]
            if token
        ]
        self._heard = Heard(config.networks)
        self._standing = Standing(bus, config.networks)
        self._standing.look()
        self._room = Room(MAX_HELD_BYTES)
        # Requests are unpacked and checked under one interpreter lock anyhow: so only one is in memory in its
        # largest form.
        self._turns = Turns("otlp")
        self._under_way = set[asyncio.Task[Any]]()  # or nobody might hold a request whose client has gone
        self._admission = Admission(config, bus, self._standing) if config.telemetry.audience else None
        # Of its own: whoever is admitted need not wait for those who are not.
        self._admitting = ThreadPoolExecutor(1, "admission")
        self._opened = ExitStack()
        try:
            self._lanes = {p: self._lane(f"collector/{p}", p) for p in range(bus.partitions)}
            self._logs = {
                network.name: self._lane(
                    f"collector/log/{network.name}", partition_of(network.name, bus.partitions)
                )
                for network in config.networks
            }
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

    @property
    def _waiting_since(self) -> float | None:
        return min((at for lane in self._all_lanes if (at := lane.since)), default=None)

    def _ask(self) -> None:
        """See now and then that the bus is there, while no write tells."""
        while not self._closing.wait(ASK_EVERY):
            began = time.time()
            try:
                self._standing.look()
                if self._waiting_since is None:
                    self._bus.end(OTLP_SPANS, 0)
                    self._answered_at = began
            except (BusError, BrokenLog):
                pass  # it is not there: as of when it was, `level_at` says
            except Exception:  # whatever it is, nobody else would ask from then on
                log.exception("the bus could not be asked")

    @property
    def _all_lanes(self) -> list[Lane]:
        return [*self._lanes.values(), *self._logs.values()]

    def check(self) -> None:
        """Raises Fenced where another collector writes by our lanes, Broken where we can't any more."""
        for lane in self._all_lanes:
            if lane.over:
                raise lane.over

    def close(self) -> None:
        """Write what was taken, then end."""
        self._closing.set()
        self._asking.join(ASKED_SECONDS)
        self._turns.close()
        self._admitting.shutdown(cancel_futures=True)
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _lane(self, transactional_id: str, partition: int) -> Lane:
        return self._opened.enter_context(Lane(self._bus, transactional_id, partition))

    # --- one request --------------------------------------------------------------------------------

    async def take(self, signal: Signal, authorization: str, peer: str, read: Read) -> Any:
        """Put what `read` reads onto the bus: OTLP's response, which says what of it is refused.

        `authorization` is what the client says of itself in the header of this name, `peer` its network
        address. What is read goes its way where the caller is cancelled. Raises Refused, and whatever `read`
        raises.
        """
        try:
            sender = await self._sender(authorization, peer)
            share = Share(self._room, sender)
            try:
                async with asyncio.timeout(READ_SECONDS):
                    body = await read(share)
            except BaseException:
                share.free()
                raise
            putting = asyncio.create_task(self._put(signal, body, sender, share))
            del body
            self._under_way.add(putting)
            putting.add_done_callback(self._under_way.discard)
            return await asyncio.shield(putting)
        except BadRequest as error:
            raise bad(str(error)) from error
        except TimeoutError as error:
            raise later("it took too long") from error
        except BusError as error:
            log.error("%s", error)
            raise later("the bus does not take it now") from error

    async def _put(self, signal: Signal, body: Body, sender: Sender, share: Share) -> Any:
        """Unpack, check and write what was read. Raises Refused, BadRequest, TimeoutError, BusError."""
        try:
            taking = self._turns.take(sender, partial(self._take, signal, body, sender, share))
            del body
            taken: _Taken = await _begun_within(TURN_SECONDS, taking)
            async with asyncio.timeout(COMMIT_SECONDS):
                await self._write(taken, sender)
        finally:
            share.free()
        said = signal.response()
        if taken.rejected:
            setattr(said.partial_success, f"rejected_{signal.items}", taken.rejected)
            said.partial_success.error_message = taken.why
        _items.add(taken.items, {"signal": signal.name})
        return said

    async def _sender(self, authorization: str, peer: str) -> Sender:
        """Whose token it is. Raises Refused, BusError.

        Those of nektar.yaml are all compared, each in a time that tells nothing."""
        if self._is_open:
            return UNAUTHENTICATED
        scheme, _, token = authorization.partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else ""
        if self._admission and token.startswith(PREFIX):
            return await self._admitted(self._admission, token, peer)
        given = _hashed(token)
        names = [name for name, known in self._senders if hmac.compare_digest(given, known)]
        if not names:
            known = " or one of `nektar token`" if self._admission else ""
            raise unknown(f"expected `Authorization: Bearer TOKEN` with a token of telemetry.senders{known}")
        return names[0]

    async def _admitted(self, admission: Admission, token: str, peer: str) -> Sender:
        """Whom a token names that is signed. Raises Refused, BusError."""
        try:
            if (sender := admission.known(token)) is None:
                sender = await asyncio.get_running_loop().run_in_executor(
                    self._admitting, admission.admit, token, peer
                )
        except BadToken as error:
            raise unknown(str(error)) from error
        except Busy as error:
            raise busy(str(error)) from error
        return sender

    def _take(self, signal: Signal, sent: Body, sender: Sender, share: Share) -> _Taken:
        """Unpack and check a request, in a thread. Raises Refused, BadRequest."""
        body = sent.packed
        if sent.encoding:
            try:
                body = unpacked(body, sent.encoding, MAX_BODY_BYTES)
            except NotPacked as error:
                raise bad(str(error)) from error
            except TooLarge as error:
                raise large(MAX_BODY_BYTES) from error
            share.take(len(body))
        request = otlp_json.parse(signal, body) if sent.is_json else parse(signal, body)
        check_size(signal, request)
        reasons = otlp.refuse(signal, request, time.time_ns())
        why = "; ".join(f"{n} {signal.items}: {reason}" for reason, n in reasons.most_common(5))
        left = otlp.count(signal, request)
        if reasons and not left:
            raise bad(why)
        if otlp.drop_empty(signal, request) or sent.is_json or reasons:
            body = request.SerializeToString(deterministic=True)
        messages = otlp.messages(signal, request, body, sender.headers) if left else []
        # Last of all: others wait for what begins here.
        signed = self._heard.fresh(signal, request, body, sender)
        return _Taken(signed, messages, left, reasons.total(), why)

    async def _write(self, taken: _Taken, sender: Sender) -> None:
        """Commit it: signatures first, so that no span is there whose signature is not. Raises BusError."""
        # Who gives up waiting for another's write does not end it.
        others = [asyncio.shield(asyncio.wrap_future(other)) for other in taken.signed.others]
        signed = records(taken.signed.to_write, sender, self._standing)
        await asyncio.gather(*(self._log(*each, sender) for each in signed), *others)
        of: dict[int, list[Message]] = {}
        for message in taken.messages:
            of.setdefault(partition_of_key(message.key, self._bus.partitions), []).append(message)
        await _all([self._lanes[partition].write(messages) for partition, messages in of.items()])

    async def _log(
        self, network: NetworkConfig, found: Sequence[Found], message: Message, sender: Sender
    ) -> None:
        """Append what was brought to the Network's log, which begins a trace."""

        def ended(writing: Future[None]) -> None:
            # Not when its request ends: that may give up before a commit which succeeds after all.
            failed = writing.cancelled() or writing.exception()
            self._heard.end(found, sender, written=not failed)

        kind = "signed" if isinstance(found[0].brought, Signed) else "told"
        said = {trace.NETWORK: network.name, trace.RECORDS: [kind]}
        with trace.root("collect", trace.carried(message.headers), time.time_ns(), said):
            writing = self._logs[network.name].write([message])
            writing.add_done_callback(ended)
            await asyncio.wrap_future(writing)


async def _begun_within(seconds: float, work: Future[Any]) -> Any:
    """What becomes of `work`, if it begins within so many seconds; it can't be given up then, and takes room.
    Raises TimeoutError, and whatever it raises."""
    done = asyncio.wrap_future(work)
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.shield(done)
    except TimeoutError:
        if work.cancel():
            raise
        return await done


async def _all(writes: Sequence[Any]) -> None:
    await asyncio.gather(*map(asyncio.wrap_future, writes))


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()

"""What is done with a request of telemetry, whichever way it came: read, unpacked, checked, put onto the bus.

A request that is taken is on the bus: its signed responses on their Networks' logs first (`heard.py`),
then what it holds on `otlp_spans`, `otlp_logs` or `otlp_metrics` (`writes.py`). Killed in between, it has
answered nothing, and the client sends again: the same bytes are the same rows, and the same signature changes
nothing.

Nothing that is sent is believed (`otlp.py`) or can take more than its share: bodies are bounded before and
after they are unpacked, what all requests under way hold together is bounded, too (`room.py`), and so is what
each client sends for long (`quota.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple, Self

from opentelemetry import metrics

from indexer import otlp, otlp_json
from indexer.admission import Admission
from indexer.clients import Client, client
from indexer.fair_queue import Busy
from indexer.heard import Fresh, Heard
from indexer.keys import NotKnown
from indexer.letters import Letters
from indexer.quota import Quotas
from indexer.refusals import bad, busy, large, later, unknown
from indexer.remembered import Remembered
from indexer.room import Room, Share
from indexer.turns import Turns
from indexer.unpack import NotPacked, TooLarge, unpacked
from indexer.writes import Writes
from nektar.bus.port import Bus, BusError, Message
from nektar.config import Config
from nektar.otlp import BadRequest, Signal, check_size, parse
from nektar.senders import Sender
from nektar.tokens import BadToken

log = logging.getLogger(__name__)

answered = metrics.get_meter("nektar").create_counter(
    "nektar.collector.requests", "{request}", "Requests answered, by protocol, signal and status"
)
_refused = metrics.get_meter("nektar").create_counter(
    "nektar.collector.refused",
    "{item}",
    "Spans, log records and data points refused by themselves, by reason",
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
# Requests that are remembered as given up, for whoever sends them again.
GIVEN_UP = 4_096
# Seconds after which an Operator is to come again whose key can't be told: it takes a while.
KNOWN_AFTER = 5.0
# Seconds that whoever asks the bus for keys is waited for at the end.
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

    brought: Fresh
    messages: list[Message]
    letter: Message | None  # about what is refused
    size: int  # of all of it, in bytes
    items: int
    rejected: int
    why: str


class Intake:
    """Takes requests of the configured senders, onto the lanes that it writes by."""

    def __init__(self, config: Config, bus: Bus) -> None:
        """Raises ConfigError, BrokenLog, BusError."""
        self._heard = Heard(config.networks)
        self._writes = Writes(config, bus, self._heard)
        self._room = Room(MAX_HELD_BYTES)
        self._quotas = Quotas(config.telemetry.quota)
        self._letters = Letters()
        # Requests are unpacked and checked under one interpreter lock anyhow: so only one is in memory in its
        # largest form.
        self._turns = Turns("otlp")
        self._under_way = set[asyncio.Task[Any]]()  # or nobody might hold a request whose client has gone
        # What was not written in time for its client, which sends it again: then its answer is there.
        self._given_up = Remembered[bytes, Future[Any]](GIVEN_UP)
        self._admission = Admission(config, bus, self._writes.standing)

    @property
    def level_at(self) -> float:
        """All that was taken before is on the bus, which was there; in seconds since 1970."""
        return self._writes.level_at

    def check(self) -> None:
        """Raises Fenced where another collector writes by our lanes, Broken where we can't any more."""
        self._writes.check()

    def close(self) -> None:
        """Write what was taken, then end."""
        self._turns.close()
        self._admission.close(ASKED_SECONDS)
        self._writes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- one request --------------------------------------------------------------------------------

    async def take(self, signal: Signal, authorization: str, peer: str, read: Read) -> Any:
        """Put what `read` reads onto the bus: OTLP's response, which says what of it is refused.

        `authorization` is what the client says of itself in the header of this name, `peer` its network
        address. What is read goes its way where the caller is cancelled. Raises Refused, and whatever `read`
        raises.
        """
        try:
            of = client(await self._sender(authorization, peer), peer)
            self._quotas.check(of)
            share = Share(self._room, of)
            try:
                async with asyncio.timeout(READ_SECONDS):
                    body = await read(share)
            except BaseException:
                share.free()
                raise
            putting = asyncio.create_task(self._put(signal, body, share))
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

    async def _put(self, signal: Signal, body: Body, share: Share) -> Any:
        """Unpack, check and write what was read. Raises Refused, BadRequest, TimeoutError, BusError."""
        try:
            name = _name(signal, body, share.client)
            writing = self._given_up.get(name)
            if writing is None or (writing.done() and writing.exception()):
                taking = self._turns.take(share.client, partial(self._take, signal, body, share))
                del body
                taken: _Taken = await _begun_within(TURN_SECONDS, taking)
                loop, held = asyncio.get_running_loop(), share.given()
                writing = asyncio.run_coroutine_threadsafe(self._write(signal, taken, held), loop)
                del taken
            else:
                del body  # the room has what is being written, and not that it came again
        finally:
            share.free()
        done = asyncio.wrap_future(writing)
        done.add_done_callback(_seen)
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                return await asyncio.shield(done)
        except TimeoutError:
            self._given_up.put(name, writing)
            raise

    async def _write(self, signal: Signal, taken: _Taken, share: Share) -> Any:
        """Write what was taken, however long it takes: what nobody waits for any more takes room, too. Raises
        Refused, BusError."""
        of = share.client
        try:
            await self._writes.write(taken.brought, taken.messages, taken.letter, of)
        except BusError:  # it comes again
            self._quotas.spend(of, -taken.size, -taken.items - taken.rejected)
            if taken.letter:
                self._letters.give_back(of)
            raise
        finally:
            share.free()
        _items.add(taken.items, {"signal": signal.name, "sender": of.kind})
        if taken.rejected and not taken.items:
            raise bad(taken.why)
        said = signal.response()
        if taken.rejected:
            setattr(said.partial_success, f"rejected_{signal.items}", taken.rejected)
            said.partial_success.error_message = taken.why
        return said

    async def _sender(self, authorization: str, peer: str) -> Sender:
        """Who sends it. Raises Refused."""
        try:
            return await self._admission.admit(authorization, peer)
        except BadToken as error:
            raise unknown(str(error)) from error
        except Busy as error:
            raise busy(str(error)) from error
        except NotKnown as error:
            raise later(str(error), KNOWN_AFTER) from error

    def _take(self, signal: Signal, sent: Body, share: Share) -> _Taken:
        """Unpack and check a request, in a thread. Raises Refused, BadRequest."""
        body, of = sent.packed, share.client
        if sent.encoding:
            body = self._unpacked(sent, share)
        self._quotas.spend(of, size := len(body), 0)
        request = otlp_json.parse(signal, body) if sent.is_json else parse(signal, body)
        check_size(signal, request)
        sample = otlp.Sample(signal)
        reasons = otlp.refuse(signal, request, time.time_ns(), sample)
        for reason, n in reasons.items():
            _refused.add(n, {"signal": signal.name, "reason": reason.partition(":")[0]})
        why = "; ".join(f"{n} {signal.items}: {reason}" for reason, n in reasons.most_common(5))
        left = otlp.count(signal, request)
        self._quotas.spend(of, 0, left + reasons.total())
        if otlp.drop_empty(signal, request) or sent.is_json or reasons:
            body = request.SerializeToString(deterministic=True)
        messages = otlp.messages(signal, request, body, of.sender.headers) if left else []
        letter = self._letters.about(signal, of, far, sample) if (far := reasons[otlp.FAR]) else None
        # Last of all: others wait for what begins here.
        brought = self._heard.fresh(signal, request, body, of)
        return _Taken(brought, messages, letter, size, left, reasons.total(), why)

    def _unpacked(self, sent: Body, share: Share) -> bytes:
        """Raises Refused."""
        try:
            body = unpacked(sent.packed, sent.encoding, MAX_BODY_BYTES)
        except NotPacked as error:
            raise bad(str(error)) from error
        except TooLarge as error:
            self._quotas.spend(share.client, MAX_BODY_BYTES, 0)
            raise large(MAX_BODY_BYTES) from error
        share.take(len(body))
        return body


def _name(signal: Signal, body: Body, of: Client) -> bytes:
    """What a request has in common with the same one of the same client, sent again."""
    said = repr((signal.name, body.encoding, body.is_json, of)).encode()
    return hashlib.blake2b(said + b"\0" + body.packed, digest_size=16).digest()


def _seen(done: asyncio.Future[Any]) -> None:
    """Whoever waited may have given up: then nobody else asks what became of it."""
    if not done.cancelled():
        done.exception()


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

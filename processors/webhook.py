"""A watcher's webhook: one event to one receiver, signed, and what the receiver says to it.

The body is a CloudEvent in JSON as it lies on the bus (structured mode of the CloudEvents HTTP binding), the
headers are those of Standard Webhooks 1.0.0 (https://www.standardwebhooks.com). `webhook-id` is made of the
event's own bytes: the same for every attempt and from wherever it is sent, another for every other event,
whichever Network or generation it is of (the latter by its `traceparent`). It holds no full stop, which the
signature's scheme sets between its parts.

A receiver is not believed either: redirects are not followed, nothing that it says is shown, and of what it
says no more is read than it takes to keep the connection. Messages name the watcher and show no part of its
URL, which may hold a secret.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import enum
import hashlib
import os
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import NamedTuple, Self

import aiohttp
import standardwebhooks
from yarl import URL

from nektar.config import ConfigError, Watcher
from nektar.trace import TRACEPARENT

CONTENT_TYPE = "application/cloudevents+json"
SECRET_PREFIX = "whsec_"  # noqa: S105  what every secret begins with
# As the specification has it: at least 24 bytes, 64 at most.
SECRET_BYTES = range(24, 65)
# An answer is its status. What follows is read only so that the connection can be used again.
MAX_ANSWER_BYTES = 16 * 1024
# What a receiver may ask us to wait (Retry-After), in seconds.
LONGEST_ASKED = 3600.0

# Statuses by which a receiver says "not now", beside 5xx.
_NOT_NOW = {408, 425, 429}
_GONE = 410


class Outcome(enum.Enum):
    """What became of an attempt."""

    TAKEN = "taken"  # a whole answer of 2xx: it is the receiver's now
    LATER = "later"  # no answer, or one that says that another time may do
    REFUSED = "refused"  # the same will be refused until a person mends something, here or there
    GONE = "gone"  # the receiver asks for no more


class Answer(NamedTuple):
    """The outcome, in words too, and for how many seconds the receiver asks to be left alone."""

    outcome: Outcome
    words: str
    after: float = 0.0


def webhook_id(event: bytes) -> str:
    """The event's `webhook-id`, by which a receiver knows what has come before."""
    return f"msg_{hashlib.sha256(event).hexdigest()[:32]}"


def answer(status: int, headers: Mapping[str, str]) -> Answer:
    """What a receiver means by a status."""
    words = f"it answers {status}"
    if 200 <= status < 300:
        return Answer(Outcome.TAKEN, words)
    if status == _GONE:
        return Answer(Outcome.GONE, f"{words}: it asks for no more; take the watcher out of nektar.yaml")
    if status in _NOT_NOW or status >= 500:
        asked = headers.get("retry-after", "")
        after = float(asked) if asked.isascii() and asked.isdigit() else 0.0  # a date is not understood
        return Answer(Outcome.LATER, words, min(after, LONGEST_ASKED))
    if 300 <= status < 400:
        return Answer(Outcome.REFUSED, f"{words}, which is not followed; put the place itself into its url")
    return Answer(Outcome.REFUSED, f"{words}; check its url and its secret, there and here")


class Webhook:
    """A watcher's receiver and the connections to it. A context, within one event loop."""

    def __init__(self, watcher: Watcher) -> None:
        """Raises ConfigError, which shows neither URL nor secret."""
        self.timeout = watcher.timeout
        try:
            self._url = URL(watcher.url)
            if not self._url.host:
                raise ValueError
            # What else the client would refuse, at each attempt.
            self._url.host.encode("idna")
            if self._url.user is not None:
                aiohttp.encode_basic_auth(self._url.user, self._url.password or "", "latin1")
        except ValueError:
            raise ConfigError(
                f"watchers.{watcher.name}.url: expected http:// or https:// and HOST[:PORT][/PATH]; "
                "got something else"
            ) from None
        self._signer = standardwebhooks.Webhook(_key(watcher))
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self.timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"user-agent": "nektar-watchtower", "accept-encoding": "identity"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    def headers(self, event: bytes, now: datetime, traceparent: str = "") -> dict[str, str]:
        """What goes with an attempt at `now`. The event is UTF-8."""
        id_ = webhook_id(event)
        return {
            "content-type": CONTENT_TYPE,
            "webhook-id": id_,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self.signature(id_, now, event),
            **({TRACEPARENT: traceparent} if traceparent else {}),
        }

    def signature(self, id_: str, now: datetime, body: bytes) -> str:
        """The signature of `id.timestamp.body`, in the whole seconds of the timestamp."""
        return self._signer.sign(id_, now, body.decode())

    async def send(self, event: bytes, traceparent: str = "") -> Answer:
        """One attempt, by which whoever receives it may go on with the trace. An answer that breaks off is
        none: the receiver gets the event again."""
        # Between attempts nothing ran in this loop: let it see first which connections have been closed. It
        # looks in its next round, and acts on what it saw within that round, after us: so twice.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        try:
            headers = self.headers(event, datetime.now(UTC), traceparent)
            async with self._session.post(
                self._url, data=event, headers=headers, allow_redirects=False
            ) as response:
                size = 0
                async for chunk in response.content.iter_any():
                    size += len(chunk)
                    if size > MAX_ANSWER_BYTES:
                        response.close()
                        break
                return answer(response.status, response.headers)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            return Answer(Outcome.LATER, self._why(error))

    async def reach(self) -> str:
        """Connect, TLS included, and say nothing: an empty string, or why that failed."""
        tls = self._url.scheme == "https"
        try:
            async with asyncio.timeout(self.timeout):
                _, writer = await asyncio.open_connection(self._url.host, self._url.port, ssl=tls or None)
            writer.transport.abort()
        except (OSError, TimeoutError, ValueError) as error:
            return self._why(error)
        return ""

    def _why(self, error: Exception) -> str:
        """Why no answer came, in words of our own: a library's may hold the URL."""
        if isinstance(error, ssl.CertificateError):
            return "its certificate can't be verified; check its url"
        if isinstance(error, ValueError):
            return "it can't be asked; check its url"
        if isinstance(error, TimeoutError):
            return f"no answer within {self.timeout:g} s"
        if isinstance(error, aiohttp.ClientConnectorError):
            error = error.os_error
        elif isinstance(error, aiohttp.ClientError):
            return f"the connection broke off ({type(error).__name__})"
        if isinstance(error, ssl.SSLError):
            return f"TLS fails ({error.reason}); check its url"
        # asyncio's own wording shows the address, and not what happened.
        code = error.errno or 0 if isinstance(error, OSError) else 0
        why = os.strerror(code) if code > 0 else "no such host"
        return f"can't connect ({why}); check its url, and that it runs"


def _key(watcher: Watcher) -> bytes:
    """The bytes that the watcher's secret stands for."""
    text = watcher.secret.removeprefix(SECRET_PREFIX)
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        key = b""
    if len(key) not in SECRET_BYTES:
        raise ConfigError(
            f"watchers.{watcher.name}.secret: expected {SECRET_PREFIX} and 24 to 64 random bytes in base64; "
            f'make one with: python -c "import base64, os; '
            f"print('{SECRET_PREFIX}' + base64.b64encode(os.urandom(32)).decode())\""
        )
    return key

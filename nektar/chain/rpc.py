"""One JSON-RPC provider, asked at the pace it bears (JSON-RPC 2.0 over HTTP; execution-apis for the methods).

What matters to whoever asks is why there is no answer, so there are two kinds of error:

* `Refused`: the provider answered, and the answer is an error. It may not have what was asked for, and
  asking again changes nothing soon. `RangeLimited` is the one that a smaller question mends;
* `Unreachable`: no answer came: connection, timeout, overload, rate limit, nonsense instead of JSON-RPC. It
  says nothing about the chain. It was already retried, with jittered backoff, `TRIES` times; but not where
  it took all the time that it has, which is long.

Which is which is told by `faults.py`; how many requests are under way, and how many calls a second are sent,
by `pace.py`. Requests are sent in the order in which they are asked for, so that none waits for ever.

Messages name the provider as `nektar.yaml` does and never show its URL, which may hold a secret.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import aiohttp
import msgspec
from opentelemetry import metrics
from yarl import URL

from nektar.chain.faults import Fault, Kind, of_error, of_status
from nektar.chain.jsonrpc import Malformed, check_density, parse_octets, quantity
from nektar.chain.pace import Pace, Sent
from nektar.config import Config, ConfigError, Limits, NetworkConfig
from nektar.config import Provider as Settings
from nektar.errors import NektarError

TRIES = 4
FIRST_PAUSE = 0.05  # seconds; doubles with each try, and half of it is chance
# After a rate limit, in multiples of that: plans count by the second.
RATE_PAUSE = 5
# A provider that asks for a longer rest than so many seconds is not waited for within a question: another may
# answer meanwhile. Whoever has no other waits in `_turn`.
LONGEST_REST = 2.0
# The receipts of a full block with much data are tens of MB; nothing honest that is asked for here is more.
MAX_RESPONSE_BYTES = 256 * 1024 * 1024
# So much of an answer says whether it is an error: of its members, in any order, only `result` is long.
START_BYTES = 512
# An error page or object is no longer; what is, is cut.
MAX_ERROR_BYTES = 64 * 1024
# An error's text comes from outside and ends in one line of a log.
SHOWN = 200
# What the event loop's own clock can tell, in seconds.
PRECISION = 0.001

_counted = metrics.get_meter("nektar").create_counter(
    "nektar.provider.faults", "{fault}", "Requests to a provider that brought no answer, by the kind of fault"
)

T = TypeVar("T")


class RpcError(NektarError):
    """A provider did not give what it was asked for. `provider` is its name."""

    def __init__(self, provider: str, why: str) -> None:
        super().__init__(f"provider {provider}: {why}")
        self.provider = provider


class Unreachable(RpcError):
    """No answer came, so nothing is known: ask again later, or ask another provider.

    `rest`: seconds for which the provider said that it wants to be left alone."""

    def __init__(self, provider: str, why: str, rest: float = 0.0) -> None:
        super().__init__(provider, why)
        self.rest = rest


class Oversized(Unreachable):
    """The answer is larger than any that is taken: ask for less at once, or ask another provider."""


class Refused(RpcError):
    """The provider answered with an error: JSON-RPC's `code`, `message` (bounded) and `data`."""

    def __init__(self, provider: str, method: str, code: int, message: str, data: Any = None) -> None:
        super().__init__(provider, f"{method}: refused with code {code}: {message}")
        self.code = code
        self.message = message
        self.data = data


class RangeLimited(Refused):
    """Too many blocks, logs or bytes for one call.

    `blocks`: how many it would serve, where it says so; that may be no fewer than were asked for.
    `suggested`: of those that were asked for, which says nothing of others."""

    def __init__(
        self,
        provider: str,
        method: str,
        code: int,
        message: str,
        data: Any,
        blocks: int | None,
        suggested: bool = False,
    ) -> None:
        super().__init__(provider, method, code, message, data)
        self.blocks = blocks
        self.suggested = suggested


class WrongChain(RpcError):
    """The provider serves another chain than the configuration says."""

    exit_code = 2


class Call(NamedTuple):
    """One method and its parameters."""

    method: str
    params: tuple[Any, ...] = ()


class _Error(msgspec.Struct):
    code: int = 0
    message: str = ""
    data: Any = None


class _Reply(msgspec.Struct):
    id: int | str | None = None
    result: Any = None
    error: _Error | None = None


class _Failed(Exception):
    """What came is no answer to these calls together; `error`, where it is one in JSON-RPC."""

    def __init__(self, fault: Fault, why: str, error: _Error | None = None) -> None:
        super().__init__(why)
        self.fault = fault
        self.error = error or _Error(message=why)


_TRANSIENT, _HUNG = Fault(Kind.TRANSIENT), Fault(Kind.TRANSIENT)
_replies = msgspec.json.Decoder(list[_Reply] | _Reply)


class Provider:
    """A provider of chain data. Use it as an async context manager, within one event loop."""

    def __init__(self, name: str, url: str, limits: Limits = Limits()) -> None:  # noqa: B008  frozen
        """Raises RpcError for a URL that is none of HTTP. Nothing is connected yet."""
        try:
            self._url = URL(url)
        except ValueError:
            self._url = URL()
        if self._url.scheme not in ("http", "https") or not self._url.host:
            raise RpcError(name, f"providers.{name}.url: expected http://… or https://…; got another kind")
        self.name = name
        self.limits = limits
        self.most_calls = 1_000_000  # in one request, as far as is known; it falls as the provider says
        self._secret = url
        self._session: aiohttp.ClientSession | None = None
        self._pace = Pace(limits, time.monotonic)
        self._queue = asyncio.Lock()  # wakes whoever waits in the order in which they came
        self._over = asyncio.Event()
        self._hung = 0  # requests that took all their time

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(self, method: str, *params: Any) -> Any:
        """The method's result, `None` where it is null. Raises Refused, Unreachable."""
        (answer,) = await self.batch([Call(method, params)])
        if isinstance(answer, Refused):
            raise answer
        return answer

    async def batch(self, calls: Sequence[Call]) -> list[Any]:
        """An answer a call, in the calls' order: its result, or a `Refused` in its place.

        All travel in one request, unless the provider takes no batches, or none so large. Raises Unreachable.
        """
        part = self.most_calls
        if len(calls) <= part:
            try:
                return await self._tried(calls, self._answers)
            except _Failed as failed:
                if len(calls) == 1:
                    return [self._refusal(calls[0], failed)]
                part = len(calls) // 2
                self._take_fewer(failed, part)
        return [
            answer
            for start in range(0, len(calls), part)
            for answer in await self.batch(calls[start : start + part])
        ]

    async def body(self, calls: Sequence[Call]) -> bytes:
        """The response to these calls, undecoded, for whoever parses much at once.

        They travel as in `batch`, the responses of parts joined; a reply's `id` is the call's place in its
        request, from 1 on. A body that is an error as a whole, or whose first reply is one, is raised as
        Refused, RangeLimited or Unreachable; errors further back in a batch are for whoever parses it.
        """
        part = self.most_calls
        if len(calls) <= part:
            try:
                return await self._tried(calls, self._unless_error)
            except _Failed as failed:
                if failed.fault.kind is not Kind.BATCH or len(calls) == 1:
                    raise self._refusal(calls[0], failed) from None
                part = len(calls) // 2
                self._take_fewer(failed, part)
        return joined([await self.body(calls[at : at + part]) for at in range(0, len(calls), part)])

    async def ping(self) -> tuple[float, int]:
        """How many seconds a small question takes, out of its turn and not tried again; and the number of the
        newest block. Raises Unreachable, Refused."""
        call = Call("eth_blockNumber")
        began = time.monotonic()
        try:
            (said,) = self._answers([call], await self._post(_question([call])))
            if isinstance(said, Refused):
                raise said
            return time.monotonic() - began, quantity({call.method: said}, call.method)
        except (_Failed, Malformed) as error:
            raise Unreachable(self.name, f"{call.method}: {error}") from None

    def _take_fewer(self, failed: _Failed, calls: int) -> None:
        """Remember how many calls a request may hold; a large answer is no reason to."""
        if failed.fault.kind is Kind.BATCH:
            self.most_calls = min(self.most_calls, calls)

    async def _tried(self, calls: Sequence[Call], read: Callable[[Sequence[Call], bytes], T]) -> T:
        """What `read` makes of the answer. Raises _Failed where fewer calls at once may mend it, Unreachable,
        and what `read` raises."""
        for attempt in itertools.count(1):
            try:
                return await self._once(calls, read)
            except _Failed as failed:
                fault = failed.fault
                if fault.kind not in (Kind.RATE, Kind.TRANSIENT):
                    raise
                if attempt >= TRIES or fault is _HUNG or fault.retry_after > LONGEST_REST:
                    raise Unreachable(self.name, f"{calls[0].method}: {failed}", fault.retry_after) from None
                pause = FIRST_PAUSE * 2**attempt * (RATE_PAUSE if fault.kind is Kind.RATE else 1)
                await asyncio.sleep(max(fault.retry_after, pause * random.uniform(0.25, 0.75)))  # noqa: S311
        raise AssertionError  # there is no end of attempts

    async def _once(self, calls: Sequence[Call], read: Callable[[Sequence[Call], bytes], T]) -> T:
        question = _question(calls)
        sent, fault = await self._turn(len(calls)), None
        try:
            return read(calls, await self._post(question))
        except _Failed as failed:
            fault = failed.fault
            _counted.add(1, {"provider": self.name, "kind": fault.kind.value})
            raise
        finally:
            self._pace.done(sent, fault)
            self._over.set()

    async def _turn(self, calls: int) -> Sent:
        """Wait until a request of so many calls may be sent. Raises Unreachable once one before it has hung:
        whoever asks may ask another provider, and not wait for the same in its turn."""
        hung = self._hung
        async with self._queue:
            while (wait := self._pace.wait()) is None or wait > PRECISION:
                if wait is None:
                    self._over.clear()
                    await self._over.wait()
                else:
                    await asyncio.sleep(wait)
            if self._hung != hung:
                raise Unreachable(
                    self.name, f"no answer within {self.limits.timeout:g} s to what came before"
                )
            return self._pace.sent(calls)

    def _answers(self, calls: Sequence[Call], body: bytes) -> list[Any]:
        """`batch`'s answers. Raises _Failed."""
        replies = self._decoded(body)
        if isinstance(replies, _Reply):
            if len(calls) > 1:
                raise self._not_a_batch(replies)
            replies = [replies]
        # A range limit within a batch is one of the batch: geth cuts its answer off where that gets too long.
        answered = (Kind.REFUSED, Kind.RANGE) if len(calls) == 1 else (Kind.REFUSED,)
        found: dict[int | str | None, Any] = {}
        for reply in replies:
            found[reply.id] = reply.result
            if reply.error is not None:
                found[reply.id] = failed = self._failed(reply.error)
                if failed.fault.kind not in answered:
                    raise failed
        answers = []
        for id_, call in enumerate(calls, 1):
            if id_ not in found:
                raise _Failed(_TRANSIENT, f"{call.method}: its answer is missing")
            answer = found[id_]
            answers.append(self._refusal(call, answer) if isinstance(answer, _Failed) else answer)
        return answers

    def _unless_error(self, calls: Sequence[Call], body: bytes) -> bytes:
        """`body` as it is, if its start promises a result, and its end no error. Raises _Failed."""
        start, end = body[:START_BYTES], body[-START_BYTES:]
        result, error = start.find(b'"result"'), start.find(b'"error"')
        if result >= 0 and not 0 <= error < result and b'"error":{' not in end:
            if end.rstrip()[-1:] not in (b"}", b"]"):
                raise _Failed(_TRANSIENT, "expected a JSON-RPC answer; it is cut short")
            return body
        replies = self._decoded(body)
        if isinstance(replies, _Reply):
            if len(calls) > 1:
                raise self._not_a_batch(replies)
            replies = [replies]
        for reply in replies:
            if reply.error is not None:
                raise self._failed(reply.error)
        return body

    def _decoded(self, body: bytes) -> list[_Reply] | _Reply:
        try:
            check_density(body)
            replies: list[_Reply] | _Reply = _replies.decode(body)
        except Malformed as error:
            raise _Failed(_TRANSIENT, str(error)) from None
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
            raise _Failed(_TRANSIENT, f"expected a JSON-RPC answer; {error}") from None
        return replies

    def _not_a_batch(self, reply: _Reply) -> _Failed:
        """What it means to get one reply to many calls."""
        failed = self._failed(reply.error or _Error(message="got one answer to many calls"))
        if failed.fault.kind is Kind.REFUSED:
            failed.fault = Fault(Kind.BATCH)
        return failed

    def _failed(self, error: _Error) -> _Failed:
        return _Failed(_judged(error), f"code {error.code}: {self._shown(error.message)}", error)

    def _refusal(self, call: Call, failed: _Failed) -> Refused:
        error = failed.error
        said = self._shown(error.message)
        if failed.fault.kind is Kind.RANGE:
            _, _, blocks, suggested = failed.fault
            return RangeLimited(self.name, call.method, error.code, said, error.data, blocks, suggested)
        return Refused(self.name, call.method, error.code, said, error.data)

    async def _post(self, question: bytes) -> bytes:
        """The response's body. Raises _Failed, Unreachable."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self.limits.timeout),
                connector=aiohttp.TCPConnector(limit=self.limits.in_flight + 1),  # and one for `ping`
                headers={"content-type": "application/json"},
            )
        try:
            async with self._session.post(self._url, data=question, allow_redirects=False) as response:
                answer = await self._read(response)
        except aiohttp.ClientConnectorError as error:
            # asyncio's own wording shows the address, and not what happened.
            code = error.os_error.errno or 0
            why = os.strerror(code) if code > 0 else error.os_error.strerror or "no such host"
            raise _Failed(_TRANSIENT, f"can't connect ({why}); check its url, and that it runs") from None
        except TimeoutError:
            self._hung += 1
            raise _Failed(_HUNG, f"no answer within {self.limits.timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _Failed(_TRANSIENT, f"the connection failed ({type(error).__name__})") from None
        if response.status == 200:
            return answer
        fault = of_status(response.status, response.headers.get("retry-after", ""), time.time())
        if fault is not None:
            raise self._told_better(answer, fault) or _Failed(fault, f"HTTP {response.status}")
        # Some providers answer a refused call with 400 and a JSON-RPC error; others have just a page.
        if not answer.lstrip().startswith((b"{", b"[")):
            raise Unreachable(self.name, f"HTTP {response.status}; check its url and key")
        return answer

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        most = MAX_RESPONSE_BYTES if response.status == 200 else MAX_ERROR_BYTES
        chunks, size = [], 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > most:
                if response.status != 200:
                    break
                raise Oversized(self.name, f"an answer is larger than {MAX_RESPONSE_BYTES} bytes")
            chunks.append(chunk)
        return b"".join(chunks)

    def _told_better(self, page: bytes, fault: Fault) -> _Failed | None:
        """What the JSON-RPC error in an error page says, where that says more than the HTTP status."""
        try:
            replies = self._decoded(page)
        except _Failed:
            return None
        first = replies if isinstance(replies, _Reply) else next(iter(replies), _Reply())
        failed = self._failed(first.error or _Error())
        if failed.fault.kind in (Kind.REFUSED, Kind.TRANSIENT):
            return None
        rest = max(failed.fault.retry_after, fault.retry_after)
        failed.fault = failed.fault._replace(retry_after=rest)
        return failed

    def _shown(self, text: str) -> str:
        """Text from outside: one line, bounded, and without our secret."""
        line = " ".join(text.replace(self._secret, "…").split())
        return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"


def _question(calls: Sequence[Call]) -> bytes:
    asked = [
        {"jsonrpc": "2.0", "id": id_, "method": call.method, "params": call.params}
        for id_, call in enumerate(calls, 1)
    ]
    return msgspec.json.encode(asked if len(calls) > 1 else asked[0])


def joined(bodies: Sequence[bytes]) -> bytes:
    """Responses to several requests as if they were one's: a list of all replies."""
    parts: list[bytes | memoryview] = []
    for reply in (body.strip() for body in bodies):
        parts += (b",", memoryview(reply)[1:-1] if reply.startswith(b"[") else reply)
    return b"".join((b"[", *parts[1:], b"]"))  # the one copy of them


def _judged(error: _Error) -> Fault:
    data = error.data
    text = data if isinstance(data, str) else "" if data is None else msgspec.json.encode(data).decode()
    return of_error(error.code, error.message, text)


async def check_chain_id(provider: Provider, expected: int) -> None:
    """Raises WrongChain unless the provider serves the chain `expected`; RpcError where it does not say."""
    try:
        served = quantity({"eth_chainId": await provider.call("eth_chainId")}, "eth_chainId")
    except Malformed as error:
        raise Unreachable(provider.name, str(error)) from None
    if served != expected:
        raise WrongChain(
            provider.name,
            f"expected chain {expected}, as chain_id says; it serves chain {served}: mend chain_id or rpc",
        )


async def without_code(provider: Provider, addresses: Sequence[str], head: int) -> frozenset[str]:
    """Those of the addresses at which no contract stands at the provider's latest block.

    Raises Unreachable also where that block is too old to tell: it is below `head`, or the provider syncs.
    Raises Refused.
    """
    codes = [Call("eth_getCode", (address, "latest")) for address in addresses]
    syncing, number, *found = await provider.batch([Call("eth_syncing"), Call("eth_blockNumber"), *codes])
    for answer in (number, *found):
        if isinstance(answer, Refused):
            raise answer
    try:
        latest = quantity({"eth_blockNumber": number}, "eth_blockNumber")
        empty = {
            address
            for address, code in zip(addresses, found, strict=True)
            if not parse_octets(code, f"code at {address}")
        }
    except Malformed as error:
        raise Unreachable(provider.name, str(error)) from None
    if empty and (latest < head or isinstance(syncing, Mapping)):
        still = "and still syncs" if latest >= head else f"and not yet at block {head}"
        raise Unreachable(
            provider.name,
            f"it is at block {latest}, {still}, and can't tell yet whether a contract stands at "
            f"{', '.join(sorted(empty))}",
        )
    return frozenset(empty)


async def open_providers(config: Config, network: str, opened: AsyncExitStack) -> list[Provider]:
    """The Network's providers, which close with `opened`, if nobody else has them open."""
    return [
        await opened.enter_async_context(_shared(name, config.providers[name]))
        for name in config.network(network).rpc
    ]


class _Open:
    """A provider, and how many have it open."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.users = 0


# One for all who ask it in a process, since what it bears, and its `limits`, are of all of them together.
_open: dict[tuple[asyncio.AbstractEventLoop, str, Settings], _Open] = {}


@asynccontextmanager
async def _shared(name: str, settings: Settings) -> AsyncIterator[Provider]:
    key = asyncio.get_running_loop(), name, settings
    if key not in _open:
        _open[key] = _Open(Provider(name, settings.url, settings.limits))
    one = _open[key]
    one.users += 1
    try:
        yield one.provider
    finally:
        one.users -= 1
        if not one.users:
            del _open[key]
            await one.provider.close()


def first_telling_block(network: NetworkConfig) -> int:
    """The block that a provider must have come to before its word counts that a contract is not there: a node
    that has not begun to sync shows the genesis block alone."""
    return max(network.from_block, 1)


def no_contract(network: NetworkConfig, missing: Collection[str]) -> ConfigError:
    """What is wrong where these addresses have no code."""
    named = ", ".join(f"{name} {at}" for name, at in network.contracts.items() if at in missing)
    return ConfigError(
        f"networks.{network.name}.contracts: expected a contract at each address; chain {network.chain_id} "
        f"has none at {named} (asked: {', '.join(network.rpc)}): check the address, and that rpc serves the "
        "chain that it is on"
    )

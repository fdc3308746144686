"""One JSON-RPC provider, asked within its limits (JSON-RPC 2.0 over HTTP; execution-apis for the methods).

What matters to whoever asks is why there is no answer, so there are two kinds of error:

* `Refused`: the provider answered, and the answer is an error. It may not have what was asked for, and
  asking again changes nothing soon;
* `Unreachable`: no answer came: connection, timeout, overload, rate limit, nonsense instead of JSON-RPC. It
  says nothing about the chain. It was already retried, with jittered backoff, `TRIES` times.

Messages name the provider as `nektar.yaml` does and never show its URL, which may hold a secret.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp
import msgspec
from yarl import URL

from nektar.chain.jsonrpc import Malformed, parse_octets, quantity
from nektar.config import ConfigError, Limits, NetworkConfig
from nektar.errors import NektarError

TRIES = 4
FIRST_PAUSE = 0.05  # seconds; doubles with each try, and half of it is chance
# The receipts of a full block with much data are tens of MB; nothing honest that is asked for here is more.
MAX_RESPONSE_BYTES = 256 * 1024 * 1024
# An error's text comes from outside and ends in one line of a log.
SHOWN = 200

_OVERLOADED = {408, 425, 429}  # HTTP statuses that a later try may mend, beside 5xx
_LATER = {-32005, 429}  # JSON-RPC codes for "limit exceeded" (EIP-1474), as rate limits use them
_LATER_WORDS = re.compile(
    r"rate.?limit|too many requests|capacity|timed? ?out|try again|temporar|overload", re.IGNORECASE
)


class RpcError(NektarError):
    """A provider did not give what it was asked for. `provider` is its name."""

    def __init__(self, provider: str, why: str) -> None:
        super().__init__(f"provider {provider}: {why}")
        self.provider = provider


class Unreachable(RpcError):
    """No answer came, so nothing is known: ask again later, or ask another provider."""


class Refused(RpcError):
    """The provider answered with an error, of JSON-RPC's `code`."""

    def __init__(self, provider: str, method: str, code: int, why: str) -> None:
        super().__init__(provider, f"{method}: refused with code {code}: {why}")
        self.code = code


class WrongChain(RpcError):
    """The provider serves another chain than the configuration says."""

    exit_code = 2


class Call(NamedTuple):
    """One method and its parameters."""

    method: str
    params: tuple[Any, ...] = ()


class _Fault(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Reply(msgspec.Struct):
    id: int | str | None = None
    result: Any = None
    error: _Fault | None = None


class _Transient(Exception):
    """Worth another try."""


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
        self._secret = url
        self._session: aiohttp.ClientSession | None = None
        self._ids = itertools.count(1)
        self._free = asyncio.Semaphore(limits.in_flight)
        self._next_slot = 0.0
        self._takes_batches = True

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

        All travel in one request, unless the provider takes no batches. Raises Unreachable.
        """
        if len(calls) > 1 and not self._takes_batches:
            return [answer for call in calls for answer in await self.batch([call])]
        for attempt in itertools.count(1):
            try:
                answers = await self._ask(calls)
            except _Transient as fault:
                if attempt >= TRIES:
                    raise Unreachable(self.name, f"{calls[0].method}: {fault}") from None
                await asyncio.sleep(FIRST_PAUSE * 2**attempt * random.uniform(0.25, 0.75))  # noqa: S311
            else:
                break
        if answers is None:
            self._takes_batches = False
            return await self.batch(calls)
        return answers

    async def body(self, calls: Sequence[Call]) -> bytes:
        """One request's answer as it came. Raises Unreachable."""
        asked = [
            {"jsonrpc": "2.0", "id": next(self._ids), "method": call.method, "params": call.params}
            for call in calls
        ]
        await self._wait_for_slot(len(calls))
        async with self._free:
            return await self._post(msgspec.json.encode(asked if len(calls) > 1 else asked[0]))

    async def _ask(self, calls: Sequence[Call]) -> list[Any] | None:
        """One request. None: the provider takes no batches. Raises _Transient."""
        ids = [next(self._ids) for _ in calls]
        asked = [
            {"jsonrpc": "2.0", "id": id_, "method": call.method, "params": call.params}
            for id_, call in zip(ids, calls, strict=True)
        ]
        await self._wait_for_slot(len(calls))
        async with self._free:
            body = await self._post(msgspec.json.encode(asked if len(calls) > 1 else asked[0]))
        try:
            replies = _replies.decode(body)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
            raise _Transient(f"expected a JSON-RPC answer; {error}") from None
        if isinstance(replies, _Reply):
            if len(calls) > 1:
                self._raise_if_transient(replies)
                return None
            replies = [replies]
        by_id = {reply.id: reply for reply in replies}
        answers = []
        for id_, call in zip(ids, calls, strict=True):
            if (reply := by_id.get(id_)) is None:
                raise _Transient(f"{call.method}: its answer is missing")
            self._raise_if_transient(reply)
            if reply.error is None:
                answers.append(reply.result)
            else:
                answers.append(
                    Refused(self.name, call.method, reply.error.code, self._shown(reply.error.message))
                )
        return answers

    def _raise_if_transient(self, reply: _Reply) -> None:
        error = reply.error
        if error is not None and (error.code in _LATER or _LATER_WORDS.search(error.message)):
            raise _Transient(f"code {error.code}: {self._shown(error.message)}")

    async def _post(self, body: bytes) -> bytes:
        """The response's body. Raises _Transient, RpcError."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self.limits.timeout),
                connector=aiohttp.TCPConnector(limit=self.limits.in_flight),
                headers={"content-type": "application/json"},
            )
        try:
            async with self._session.post(self._url, data=body, allow_redirects=False) as response:
                if response.status in _OVERLOADED or response.status >= 500:
                    raise _Transient(f"HTTP {response.status}")
                chunks, size = [], 0
                async for chunk in response.content.iter_any():
                    size += len(chunk)
                    if size > MAX_RESPONSE_BYTES:
                        raise Unreachable(self.name, f"an answer is larger than {MAX_RESPONSE_BYTES} bytes")
                    chunks.append(chunk)
                answer = b"".join(chunks)
                # Some providers answer a refused call with 400 and a JSON-RPC error; others have just a page.
                if response.status != 200 and not answer.lstrip().startswith((b"{", b"[")):
                    raise Unreachable(self.name, f"HTTP {response.status}; check its url and key")
                return answer
        except aiohttp.ClientConnectorError as error:
            # asyncio's own wording shows the address, and not what happened.
            code = error.os_error.errno or 0
            why = os.strerror(code) if code > 0 else error.os_error.strerror or "no such host"
            raise _Transient(f"can't connect ({why}); check its url, and that it runs") from None
        except TimeoutError:
            raise _Transient(f"no answer within {self.limits.timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _Transient(f"the connection failed ({type(error).__name__})") from None

    async def _wait_for_slot(self, calls: int) -> None:
        """Spread calls evenly over time, so that no second has more than the limit."""
        now = asyncio.get_running_loop().time()
        wait = self._next_slot - now
        self._next_slot = max(self._next_slot, now) + calls / self.limits.requests_per_second
        if wait > 0.001:  # the event loop's own precision
            await asyncio.sleep(wait)

    def _shown(self, text: str) -> str:
        """Text from outside: one line, bounded, and without our secret."""
        line = " ".join(text.replace(self._secret, "…").split())
        return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"


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

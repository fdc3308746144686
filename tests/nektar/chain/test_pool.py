"""A pool of real providers on real servers that are quick, slow, down, behind or dishonest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web

from nektar.chain import ranks, rpc
from nektar.chain.pool import BEHIND, Absent, Pool
from nektar.chain.ranks import DOUBT_SECONDS, FIRST_REST
from nektar.chain.rpc import Provider, Unreachable
from nektar.config import Limits
from tests.spans import Counted


class Lie(Exception):
    """What a provider said contradicts a header."""


class Clock:
    now = 5000.0

    def __call__(self) -> float:
        return self.now


class Server:
    """A provider's, whose faults are attributes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seconds = 0.0  # that it takes to answer
        self.down = False
        self.head = 100
        self.asked = 0

    async def handle(self, request: web.Request) -> web.Response:
        call = msgspec.json.decode(await request.read())
        self.asked += 1
        await asyncio.sleep(self.seconds)
        if self.down:
            return web.Response(status=503)
        said = hex(self.head) if call["method"] == "eth_blockNumber" else self.name
        return web.Response(body=msgspec.json.encode({"id": call["id"], "result": said}))


@asynccontextmanager
async def pool_of(names: str, limits: Limits) -> AsyncIterator[tuple[Pool, dict[str, Server], Clock]]:
    clock, servers = Clock(), {name: Server(name) for name in names}
    async with AsyncExitStack() as opened:
        providers = []
        for name, server in servers.items():
            app = web.Application()
            app.router.add_post("/", server.handle)
            runner = web.AppRunner(app)
            await runner.setup()
            opened.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
            providers.append(await opened.enter_async_context(Provider(name, url, limits)))
        yield Pool(providers, Lie, clock), servers, clock


LIMITS = Limits(timeout=0.2)
Use = Callable[[Pool, dict[str, Server], Clock], Awaitable[None]]


def with_pool(names: str, use: Use, limits: Limits = LIMITS) -> None:
    async def go() -> None:
        async with pool_of(names, limits) as (pool, servers, clock):
            await use(pool, servers, clock)

    asyncio.run(go())


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "FIRST_PAUSE", 0.001)


async def who(provider: Provider) -> Any:
    return await provider.call("who")


def lying(liars: Iterable[str]) -> Callable[[Provider], Awaitable[Any]]:
    async def ask(provider: Provider) -> Any:
        if provider.name in liars:
            raise Lie(f"provider {provider.name}: receiptsRoot")
        return await who(provider)

    return ask


def test_one_that_is_down_is_left_alone_and_one_that_comes_back_is_not_turned_to_for_that() -> None:
    async def use(pool: Pool, servers: dict[str, Server], clock: Clock) -> None:
        assert await pool.first(who) == "a"
        servers["a"].down = True
        assert [await pool.first(who) for _ in range(3)] == ["b"] * 3
        assert servers["a"].asked == 1 + rpc.TRIES, "asked once more, with all its tries, and then not"
        servers["a"].down = False
        clock.now += 2 * FIRST_REST
        assert await pool.first(who) == "b"

    with_pool("ab", use)


def test_a_hung_provider_costs_one_patience_and_not_one_for_each_question() -> None:
    async def use(pool: Pool, servers: dict[str, Server], clock: Clock) -> None:
        servers["a"].seconds = 0.5  # more than the timeout
        together = await asyncio.gather(*(pool.first(who) for _ in range(20)))  # more than are sent at once
        assert together == ["b"] * 20
        assert servers["a"].asked <= LIMITS.in_flight
        asked = servers["a"].asked
        assert [await pool.first(who) for _ in range(8)] == ["b"] * 8
        assert servers["a"].asked == asked

    with_pool("ab", use)


def test_where_all_are_down_the_first_ones_reason_is_raised_and_all_were_asked() -> None:
    async def use(pool: Pool, servers: dict[str, Server], clock: Clock) -> None:
        for server in servers.values():
            server.down = True
        with pytest.raises(Unreachable, match="provider a: who: HTTP 503"):
            await pool.first(who)
        assert [server.asked for server in servers.values()] == [rpc.TRIES] * 3
        servers["b"].down = False
        assert await pool.first(who) == "b", "and who rests is asked where nobody else is left"

    with_pool("abc", use)


def test_who_contradicts_a_header_is_last_for_a_good_while_named_and_counted(
    caplog: pytest.LogCaptureFixture, counted: Counted
) -> None:
    async def use(pool: Pool, servers: dict[str, Server], clock: Clock) -> None:
        assert await pool.first(lying("a")) == "b"
        assert await pool.first(who) == "b"
        servers["b"].down = True
        assert await pool.first(who) == "c", "rather one that rests not and was never doubted"
        servers["c"].down = True
        assert await pool.first(who) == "a", "what it says is checked, so it is better than nobody"
        clock.now += DOUBT_SECONDS + 1
        assert [provider.name for provider in pool.order()][-1] != "a"

    with caplog.at_level(logging.WARNING):
        with_pool("abc", use)
    assert "provider a: receiptsRoot; asking another provider" in caplog.text
    assert "provider a is asked last for the next 10 minutes" in caplog.text
    assert counted("nektar.provider.contradictions") == {("a",): 1}


def test_work_is_given_to_who_is_well_and_to_others_where_that_one_brings_nothing() -> None:
    async def use(pool: Pool, servers: dict[str, Server], clock: Clock) -> None:
        a, b, c = pool.providers
        assert pool.well() == [a, b, c]
        assert await pool.first(who, before=b) == "b"
        servers["b"].down = True
        assert await pool.first(who, before=b) == "a"
        assert pool.well() == [a, c]
        pool.contradicted("c")
        assert pool.well() == [a]
        pool.contradicted("a")
        assert set(pool.well()) == {a, b, c}, "somebody has to be asked"
        clock.now += DOUBT_SECONDS
        assert set(pool.well()) == {a, b, c}

    with_pool("abc", use)


def test_absent_is_said_only_where_all_say_so() -> None:
    async def use(pool: Pool, servers: dict[str, Server], clock: Clock) -> None:
        async def absent(provider: Provider) -> None:
            raise Absent(provider.name, "block 5: it has none")

        async def absent_or_down(provider: Provider) -> Any:
            if provider.name != "b":
                raise Absent(provider.name, "block 5: it has none")
            return await who(provider)

        with pytest.raises(Absent):
            await pool.first(absent)
        servers["b"].down = True
        with pytest.raises(Unreachable):
            await pool.first(absent_or_down)
        with pytest.raises(Lie):
            await pool.first(lying("abc"))

    with_pool("abc", use)


def test_the_quickest_is_preferred_once_it_was_measured() -> None:
    async def use(pool: Pool, servers: dict[str, Server], clock: Clock) -> None:
        servers["a"].seconds = 0.05
        for _ in range(3):
            await pool.probe()
        assert await pool.first(who) == "b"
        servers["a"].seconds, servers["b"].seconds = 0.0, 0.05
        for _ in range(30):
            await pool.probe()
        assert await pool.first(who) == "b", "not twice within a while"

    with_pool("ab", use)


def test_a_probe_measures_the_provider_and_not_what_it_has_to_do() -> None:
    async def use(pool: Pool, servers: dict[str, Server], clock: Clock) -> None:
        (provider,) = pool.providers
        servers["a"].seconds = 0.02
        work = [asyncio.create_task(pool.first(who)) for _ in range(20)]
        await asyncio.sleep(0.03)
        seconds, head = await provider.ping()
        assert not work[-1].done()
        assert seconds < 0.1
        assert head == 100
        await asyncio.gather(*work)

    with_pool("a", use, Limits(in_flight=1, timeout=5))


def test_one_that_stays_behind_most_others_is_left_and_one_that_boasts_changes_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "MARGIN", 1.0)  # who is quicker is not the question

    async def use(pool: Pool, servers: dict[str, Server], clock: Clock) -> None:
        servers["c"].head = 10**9
        for _ in range(3):
            await pool.probe()
        assert await pool.first(who) == "a"
        servers["a"].head -= BEHIND + 1
        await pool.probe()
        assert await pool.first(who) == "a", "once is a moment's delay"
        await pool.probe()
        assert await pool.first(who) != "a"

    with_pool("abc", use, Limits())
    assert "provider a: its newest block is 96" in caplog.text


def test_a_provider_alone_is_not_probed() -> None:
    async def use(pool: Pool, servers: dict[str, Server], clock: Clock) -> None:
        await pool.watch()
        assert servers["a"].asked == 0

    with_pool("a", use)

"""The client against a real HTTP server that answers as providers do, well and badly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web

from nektar.chain import rpc
from nektar.chain.pace import SLOWEST
from nektar.chain.rpc import (
    TRIES,
    Call,
    Oversized,
    Provider,
    RangeLimited,
    Refused,
    RpcError,
    Unreachable,
    WrongChain,
    check_chain_id,
    no_contract,
    open_providers,
    without_code,
)
from nektar.config import Config, Limits, NetworkConfig
from nektar.config import Provider as Settings

DEFAULT = Limits()
SECRET = "s3cr3t-k3y"
LIMITS = Limits()
Handler = Callable[[Any], Awaitable[web.StreamResponse] | web.StreamResponse]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "FIRST_PAUSE", 0.001)


@asynccontextmanager
async def served(handler: Handler, limits: Limits = LIMITS) -> AsyncIterator[Provider]:
    """A provider whose server answers each decoded body by `handler`."""

    async def handle(request: web.Request) -> web.StreamResponse:
        answer = handler(msgspec.json.decode(await request.read()))
        return answer if isinstance(answer, web.StreamResponse) else await answer

    app = web.Application()
    app.router.add_post("/{key}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with Provider("mine", f"http://127.0.0.1:{port}/{SECRET}", limits) as provider:
            yield provider
    finally:
        await runner.cleanup()


def say(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def result(asked: dict[str, Any], value: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": asked["id"], "result": value}


def error(asked: dict[str, Any], code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": asked["id"], "error": {"code": code, "message": message}}


def run_with(handler: Handler, use: Callable[[Provider], Awaitable[Any]], limits: Limits = LIMITS) -> Any:
    async def go() -> Any:
        async with served(handler, limits) as provider:
            return await use(provider)

    return asyncio.run(go())


def test_a_call_gives_its_result_and_null_is_a_result() -> None:
    asked: list[Any] = []

    def handler(body: Any) -> web.Response:
        asked.append(body)
        return say(result(body, None if body["method"] == "nothing" else ["0x1"]))

    async def use(provider: Provider) -> Any:
        return await provider.call("some", "0x2", False), await provider.call("nothing")

    assert run_with(handler, use) == (["0x1"], None)
    assert (asked[0]["method"], asked[0]["params"]) == ("some", ["0x2", False])


def test_a_batch_is_one_request_whose_answers_may_come_in_any_order() -> None:
    requests = []

    def handler(body: Any) -> web.Response:
        requests.append(len(body))
        answers = [result(each, each["params"][0]) for each in body]
        answers[1] = error(body[1], -32000, "missing receipts: pruned")
        return say(answers[::-1])

    async def use(provider: Provider) -> Any:
        return await provider.batch([Call("m", (n,)) for n in range(4)])

    answers = run_with(handler, use)
    assert [answers[i] for i in (0, 2, 3)] == [0, 2, 3]
    assert isinstance(answers[1], Refused)
    assert answers[1].code == -32000
    assert str(answers[1]) == "provider mine: m: refused with code -32000: missing receipts: pruned"
    assert requests == [4]


def test_a_refusal_is_not_asked_again() -> None:
    asked = []

    def handler(body: Any) -> web.Response:
        asked.append(body)
        return say(error(body, -32601, "the method does not exist"))

    async def use(provider: Provider) -> Any:
        return await provider.call("eth_getBlockReceipts", "0x1")

    with pytest.raises(Refused, match="provider mine: eth_getBlockReceipts: refused with code -32601"):
        run_with(handler, use)
    assert len(asked) == 1


FAULTS: dict[str, Callable[[Any], web.Response]] = {
    "overload": lambda body: web.Response(status=503),
    "too many requests": lambda body: web.Response(status=429),
    "no JSON": lambda body: web.Response(text="<html>bad gateway</html>"),
    "no UTF-8": lambda body: web.Response(
        body=b'{"id":%d,"result":"\xff"}' % (body[0] if isinstance(body, list) else body)["id"]
    ),
    "JSON of another kind": lambda body: say("no"),
    "another id": lambda body: say({"jsonrpc": "2.0", "id": -7, "result": 1}),
    "a rate limit as JSON-RPC": lambda body: say(error(body, -32005, "limit exceeded")),
    "a rate limit in words": lambda body: say(error(body, -32000, "Rate limit reached")),
    "mostly braces": lambda body: say(result(body, [{}] * 9999)),
    "junk nested deeply": lambda body: web.Response(text='{"result":' + "[" * 9999 + "]" * 9999 + "}"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_tried_again_and_passes(fault: str) -> None:
    asked = []

    def handler(body: Any) -> web.Response:
        asked.append(body)
        return FAULTS[fault](body) if len(asked) < TRIES else say(result(body, "0x1"))

    async def use(provider: Provider) -> Any:
        return await provider.call("eth_chainId")

    assert run_with(handler, use) == "0x1"
    assert len(asked) == TRIES


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_lasts_is_unreachable_and_no_refusal(fault: str) -> None:
    async def use(provider: Provider) -> Any:
        return await provider.call("eth_chainId")

    with pytest.raises(Unreachable, match="provider mine: eth_chainId: "):
        run_with(FAULTS[fault], use)


def test_no_error_shows_the_url() -> None:
    def echoing(body: Any) -> web.Response:
        return say(error(body, -32000, f"no such path: {shown[0]}\nsecond line"))

    shown: list[str] = []
    said = []

    async def use(provider: Provider) -> Any:
        shown.append(str(provider._url))
        with pytest.raises(Refused) as refused:
            await provider.call("m")
        said.append(str(refused.value))

    run_with(echoing, use)

    async def nobody_listens() -> None:
        async with Provider("mine", f"http://127.0.0.1:1/{SECRET}") as provider:
            with pytest.raises(Unreachable) as unreachable:
                await provider.call("m")
            said.append(str(unreachable.value))

    asyncio.run(nobody_listens())
    for url in (f"ftp://host/{SECRET}", SECRET, f"http://[{SECRET}"):
        with pytest.raises(RpcError) as bad:
            Provider("mine", url)
        said.append(str(bad.value))
    assert len(said) == 5
    assert not [text for text in said if SECRET in text or "\n" in text]
    assert all(text.startswith("provider mine: ") for text in said)


def test_a_wrong_key_is_named_once_and_not_tried_again() -> None:
    asked = []

    def handler(body: Any) -> web.Response:
        asked.append(body)
        return web.Response(status=401, text="unauthorized")

    async def use(provider: Provider) -> Any:
        return await provider.call("m")

    with pytest.raises(RpcError, match="HTTP 401; check its url and key"):
        run_with(handler, use)
    assert len(asked) == 1


def test_a_redirect_is_not_followed() -> None:
    def handler(body: Any) -> web.Response:
        return web.Response(status=302, headers={"location": "http://127.0.0.1:1/elsewhere"})

    async def use(provider: Provider) -> Any:
        return await provider.call("m")

    with pytest.raises(RpcError, match="HTTP 302"):
        run_with(handler, use)


def test_a_provider_without_batches_is_asked_one_by_one() -> None:
    sizes = []

    def handler(body: Any) -> web.Response:
        sizes.append(len(body) if isinstance(body, list) else 0)
        if isinstance(body, list):
            return say({"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "no batches"}})
        return say(result(body, body["method"]))

    async def use(provider: Provider) -> Any:
        return [await provider.batch([Call("a"), Call("b")]) for _ in range(2)]

    assert run_with(handler, use) == [["a", "b"], ["a", "b"]]
    assert sizes == [2, 0, 0, 0, 0]


def too_many(limit: int, says: Callable[[Any], web.Response], sizes: list[int]) -> Handler:
    """A server that answers `says` to a request of more than `limit` calls."""

    def handler(body: Any) -> web.Response:
        calls = body if isinstance(body, list) else [body]
        sizes.append(len(calls))
        if len(calls) > limit:
            return says(calls)
        answers = [result(call, call["method"]) for call in calls]
        return say(answers if isinstance(body, list) else answers[0])

    return handler


@pytest.mark.parametrize(
    "says",
    [
        lambda calls: say([error(calls[0], -32600, "batch too large")]),  # geth: one reply, in a list
        lambda calls: say(error(calls[0], -32005, "Number of requests exceeds max batch size")),
        lambda calls: web.Response(status=413, text="<html>Request Entity Too Large</html>"),
    ],
    ids=["geth", "Besu", "a proxy"],
)
def test_a_batch_that_is_too_large_is_cut_and_the_next_ones_are_no_larger(
    says: Callable[[Any], web.Response],
) -> None:
    sizes: list[int] = []
    calls = [Call(f"m{n}") for n in range(10)]

    async def use(provider: Provider) -> Any:
        return [await provider.batch(calls) for _ in range(2)]

    assert run_with(too_many(3, says, sizes), use) == [[call.method for call in calls]] * 2
    # the second batch is sent in parts from the start
    assert sizes == [10, 5, 2, 2, 1, 2, 2, 1, 2, 2, 2, 2, 2]


def test_an_answer_that_gets_too_long_is_asked_for_in_parts_this_once() -> None:
    sizes: list[int] = []

    def cut_off(calls: Any) -> web.Response:
        return say(
            [result(calls[0], "m0"), *(error(each, -32003, "response too large") for each in calls[1:])]
        )

    async def use(provider: Provider) -> Any:
        answers = await provider.batch([Call("m0"), Call("m1")])
        return answers, provider.most_calls

    answers, most = run_with(too_many(1, cut_off, sizes), use)
    assert answers == ["m0", "m1"]
    assert sizes == [2, 1, 1]
    assert most > 1


def test_a_range_limit_is_a_refusal_that_says_how_many_blocks_would_be_served() -> None:
    async def use(provider: Provider) -> None:
        with pytest.raises(RangeLimited) as limited:
            await provider.call("eth_getLogs", {})
        assert limited.value.blocks == 10_000
        with pytest.raises(RangeLimited) as limited:
            await provider.body([Call("eth_getLogs", ({},))])
        assert limited.value.blocks == 10_000

    asked = []

    def handler(body: Any) -> web.Response:
        asked.append(body)
        return say(error(body, -32614, "eth_getLogs is limited to a 10,000 range"), status=500)

    run_with(handler, use)
    assert len(asked) == 2, "a range limit is not tried again, whatever HTTP says"


def test_a_rate_limit_of_one_call_is_one_of_the_whole_batch() -> None:
    asked = []

    def handler(body: Any) -> web.Response:
        asked.append(len(body))
        answers = [result(each, "0x1") for each in body]
        if len(asked) < TRIES:  # as Alchemy does
            answers[1] = error(body[1], 429, "Your app has exceeded its compute units per second capacity")
        return say(answers)

    async def use(provider: Provider) -> Any:
        return await provider.batch([Call("m")] * 3)

    assert run_with(handler, use) == ["0x1"] * 3
    assert asked == [3] * TRIES


def test_a_rest_that_is_asked_for_is_kept_or_left_to_whoever_asks() -> None:
    asked: list[float] = []
    rest = "0.3"

    def handler(body: Any) -> web.Response:
        asked.append(asyncio.get_running_loop().time())
        if len(asked) == 1:
            return web.Response(status=429, headers={"retry-after": rest})
        return say(result(body, 1))

    async def use(provider: Provider) -> Any:
        return await provider.call("m")

    assert run_with(handler, use) == 1
    assert asked[1] - asked[0] >= 0.29

    asked.clear()
    rest = "30"
    with pytest.raises(Unreachable, match="HTTP 429") as unreachable:
        run_with(handler, use)
    assert unreachable.value.rest == 30
    assert len(asked) == 1, "half a minute is not waited for within a question"


def test_rate_limits_lower_the_pace_and_answers_raise_it_again() -> None:
    limited = True

    def handler(body: Any) -> web.Response:
        return web.Response(status=429) if limited else say(result(body, 1))

    async def use(provider: Provider) -> None:
        nonlocal limited
        with pytest.raises(Unreachable):
            await provider.call("m")
        window, rate = provider._pace.window, provider._pace.rate
        assert window <= LIMITS.in_flight / 2
        assert rate == SLOWEST
        limited = False
        for _ in range(window + 1):
            await provider.call("m")
        assert provider._pace.window > window
        assert provider._pace.rate > rate

    run_with(handler, use)


def test_whoever_asks_first_is_served_first_and_a_question_given_up_holds_nobody() -> None:
    seen: list[str] = []
    asked = asyncio.Event()

    async def handler(body: Any) -> web.Response:
        seen.append(body["method"])
        asked.set()
        await asyncio.sleep(0.01)
        return say(result(body, 1))

    async def use(provider: Provider) -> None:
        tasks = [asyncio.create_task(provider.call(f"m{n}")) for n in range(8)]
        await asked.wait()
        for given_up in (0, 3):  # one that is under way, one that waits
            tasks[given_up].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run_with(handler, use, Limits(in_flight=1))
    assert seen == ["m0", "m1", "m2", "m4", "m5", "m6", "m7"]


def test_a_body_is_handed_on_undecoded() -> None:
    long = "0x" + "ab" * 5000

    def handler(body: Any) -> web.Response:
        calls = body if isinstance(body, list) else [body]
        # members in any order, and null where there is no error
        answers = [{"error": None, "result": [long], "id": each["id"], "jsonrpc": "2.0"} for each in calls]
        return say(answers if isinstance(body, list) else answers[0])

    async def use(provider: Provider) -> Any:
        return await provider.body([Call("m")]), await provider.body([Call("m"), Call("m")])

    one, two = run_with(handler, use)
    assert msgspec.json.decode(one)["result"] == [long]
    assert [each["id"] for each in msgspec.json.decode(two)] == [1, 2]


# Whoever parses a body sees what is wrong within it.
UNSEEN = ("another id", "no UTF-8", "mostly braces", "junk nested deeply")
BODY_FAULTS = {name: answer for name, answer in FAULTS.items() if name not in UNSEEN} | {
    "a cut answer": lambda body: web.Response(text='{"id":1,"result":["0xab')
}


@pytest.mark.parametrize("fault", BODY_FAULTS)
def test_a_body_is_tried_again_as_any_answer_is(fault: str) -> None:
    asked = []

    def handler(body: Any) -> web.Response:
        asked.append(body)
        return BODY_FAULTS[fault](body) if len(asked) < TRIES else say(result(body, "0x1"))

    async def use(provider: Provider) -> Any:
        return await provider.body([Call("eth_chainId")])

    assert msgspec.json.decode(run_with(handler, use))["result"] == "0x1"
    assert len(asked) == TRIES


def test_a_body_that_is_a_refusal_is_raised() -> None:
    async def use(provider: Provider) -> None:
        with pytest.raises(Refused, match="code -32601: no such method"):
            await provider.body([Call("m")])
        with pytest.raises(Refused, match="code -32601: no such method"):
            await provider.body([Call("m")] * 8)

    def handler(body: Any) -> web.Response:
        if isinstance(body, list):
            return say([error(body[0], -32601, "no such method"), *(result(each, []) for each in body[1:])])
        return say(error(body, -32601, "no such method"))

    run_with(handler, use)


def test_a_body_with_a_refusal_behind_its_result_is_raised() -> None:
    def handler(body: Any) -> web.Response:
        return say({"id": 1, "result": [], "error": {"code": -32005, "message": "more than 10000 results"}})

    async def use(provider: Provider) -> None:
        with pytest.raises(RangeLimited):
            await provider.body([Call("eth_getLogs", ({},))])

    run_with(handler, use)


@pytest.mark.parametrize("most", [1, 2, 3, 8])
def test_a_body_of_many_calls_is_asked_for_in_parts_where_the_provider_takes_no_more(most: int) -> None:
    asked: list[int] = []

    def handler(body: Any) -> web.Response:
        calls = body if isinstance(body, list) else [body]
        asked.append(len(calls))
        if len(calls) > most:
            return say({"id": None, "error": {"code": -32600, "message": "batch too large"}})
        answers = [result(each, each["params"]) for each in calls]
        return say(answers if isinstance(body, list) else answers[0])

    async def use(provider: Provider) -> Any:
        calls = [Call("m", (place,)) for place in range(8)]
        return await provider.body(calls), await provider.body(calls)

    for body in run_with(handler, use):
        assert [each["result"] for each in msgspec.json.decode(body)] == [[place] for place in range(8)]
    assert sum(each > most for each in asked) <= 3  # what it takes is remembered


def test_an_answer_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "MAX_RESPONSE_BYTES", 1000)

    async def use(provider: Provider) -> Any:
        return await provider.call("m")

    assert run_with(lambda body: say(result(body, "x" * 900)), use) == "x" * 900
    with pytest.raises(Oversized, match="larger than 1000 bytes"):
        run_with(lambda body: say(result(body, "x" * 1000)), use)


def test_limits_hold_for_requests_in_flight_and_for_time() -> None:
    now = most = 0

    async def handler(body: Any) -> web.Response:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        return say(result(body, 1))

    async def use(provider: Provider) -> Any:
        return await asyncio.gather(*(provider.call("m") for _ in range(12)))

    assert run_with(handler, use, Limits(in_flight=3)) == [1] * 12
    assert most == 3

    async def never(body: Any) -> web.Response:
        await asyncio.sleep(5)
        return say(None)

    async def ask(provider: Provider) -> Any:
        return await provider.call("m")

    with pytest.raises(Unreachable, match=r"no answer within 0\.05 s"):
        run_with(never, ask, Limits(timeout=0.05))


def test_calls_are_spread_over_time() -> None:
    async def use(provider: Provider) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(6):
            await provider.call("m")
        return loop.time() - began

    assert run_with(lambda body: say(result(body, 1)), use, Limits(requests_per_second=50)) >= 0.09


def test_another_chain_is_said_in_one_line() -> None:
    async def use(provider: Provider) -> None:
        await check_chain_id(provider, 5)
        with pytest.raises(WrongChain, match="expected chain 1, as chain_id says; it serves chain 5"):
            await check_chain_id(provider, 1)

    run_with(lambda body: say(result(body, "0x5")), use)


SYNCING = {"currentBlock": "0x9", "highestBlock": "0xa"}
REFUSED = object()


def asked_for_code(changed: dict[str, Any]) -> frozenset[str]:
    """What is found of 0xaa, which answers as `changed` says, and of 0xbb, which is empty."""
    says = {"eth_syncing": False, "eth_blockNumber": "0xa", "eth_getCode": "0x60"} | changed

    def answer(call: Any) -> dict[str, Any]:
        if call["method"] == "eth_getCode" and call["params"] == ["0xbb", "latest"]:
            return result(call, "0x")
        if (said := says[call["method"]]) is REFUSED:
            return {"id": call["id"], "error": {"code": -32601, "message": "no such method"}}
        return result(call, said)

    async def use(provider: Provider) -> frozenset[str]:
        return await without_code(provider, ["0xaa", "0xbb"], 9)

    found: frozenset[str] = run_with(lambda body: say([answer(call) for call in body]), use)
    return found


@pytest.mark.parametrize(
    "changed", [{}, {"eth_blockNumber": "0x9"}, {"eth_syncing": REFUSED}, {"eth_syncing": None}]
)
def test_an_address_without_code_is_found_at_the_head(changed: dict[str, Any]) -> None:
    assert asked_for_code(changed) == {"0xbb"}


@pytest.mark.parametrize(
    ("changed", "kind", "says"),
    [
        (
            {"eth_blockNumber": "0x8"},
            Unreachable,
            "it is at block 8, and not yet at block 9, and can't tell yet",
        ),
        ({"eth_syncing": SYNCING}, Unreachable, "it is at block 10, and still syncs, and can't tell yet"),
        ({"eth_blockNumber": "many"}, Unreachable, "eth_blockNumber: expected a number"),
        ({"eth_getCode": None}, Unreachable, "code at 0xaa: expected bytes"),
        ({"eth_getCode": "0x6"}, Unreachable, "code at 0xaa: expected bytes"),
        ({"eth_getCode": REFUSED}, Refused, "eth_getCode: refused with code -32601"),
        ({"eth_blockNumber": REFUSED}, Refused, "eth_blockNumber: refused with code -32601"),
    ],
)
def test_a_provider_that_has_not_come_so_far_or_talks_nonsense_can_not_tell(
    changed: dict[str, Any], kind: type[RpcError], says: str
) -> None:
    with pytest.raises(kind, match=says):
        asked_for_code(changed)


def test_where_all_have_code_it_does_not_matter_how_far_a_provider_has_come() -> None:
    says = {"eth_syncing": SYNCING, "eth_blockNumber": "0x1", "eth_getCode": "0x60"}

    async def use(provider: Provider) -> frozenset[str]:
        return await without_code(provider, ["0xaa"], 9)

    assert (
        run_with(lambda body: say([result(call, says[call["method"]]) for call in body]), use) == frozenset()
    )


def test_what_is_said_of_an_address_without_a_contract_names_all_that_may_be_wrong() -> None:
    network = NetworkConfig(
        "net", 5, ("a", "b"), {"task_manager": "0x" + "ab" * 20, "slashing": "0x" + "cd" * 20}
    )
    wrong = no_contract(network, {"0x" + "ab" * 20})
    assert str(wrong).startswith(
        "networks.net.contracts: expected a contract at each address; chain 5 has none at "
    )
    assert f"at task_manager 0x{'ab' * 20} (asked: a, b)" in str(wrong)
    assert wrong.exit_code == 2


def test_a_chain_id_that_is_no_number_is_no_chain() -> None:
    async def use(provider: Provider) -> None:
        with pytest.raises(RpcError, match="provider mine: eth_chainId: expected a number"):
            await check_chain_id(provider, 1)

    run_with(lambda body: say(result(body, "many")), use)


def test_networks_that_name_one_provider_ask_it_within_its_limits_together_until_the_last_one_ends() -> None:
    under_way, most = 0, 0

    async def handler(body: Any) -> web.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return say(result(body, "0x1"))

    async def use(mine: Provider) -> None:
        networks = tuple(NetworkConfig(name, 1, ("p", "q"), {}) for name in ("one", "two"))
        settings = Settings(str(mine._url), limits=Limits(in_flight=1))
        config = Config(providers={"p": settings, "q": settings}, networks=networks)
        async with AsyncExitStack() as first, AsyncExitStack() as second:
            one, other = await open_providers(config, "one", first)
            same, _ = await open_providers(config, "two", second)
            assert (one.name, other.name) == ("p", "q")
            await asyncio.gather(*(each.call("m") for each in 10 * [one, same]))
            assert most == 1
            calls = asyncio.gather(*(same.call("m") for _ in range(10)))
            await first.aclose()
            assert await calls == 10 * ["0x1"]
        async with AsyncExitStack() as again:
            (fresh, _) = await open_providers(config, "one", again)
            assert fresh is not one

    run_with(handler, use)

"""web3 on a real anvil, by way of a pool whose providers fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession, web
from web3 import AsyncWeb3
from web3.exceptions import ContractLogicError, Web3RPCError

import devnet
from devnet.anvil import anvil, find_anvil
from devnet.chain import Account, Chain, DevnetError
from nektar.chain import rpc
from nektar.chain.pool import Pool
from nektar.chain.rpc import Call, Provider, Unreachable, WrongChain
from nektar.chain.web3_provider import PoolProvider
from nektar.config import Limits

pytestmark = pytest.mark.real

CHAIN_ID = 31337
IN_FLIGHT = 3
KEY = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"  # anvil's first account
TOKEN = json.loads((Path(devnet.__file__).parent / "artifacts.json").read_text())["collateral_token"][
    "bytecode"
]
ABI = [
    {"type": "function", "name": "mint", "stateMutability": "nonpayable", "outputs": [],
     "inputs": [{"name": "to", "type": "address"}, {"name": "amount", "type": "uint256"}]},
    {"type": "function", "name": "balanceOf", "stateMutability": "view",
     "inputs": [{"name": "of", "type": "address"}], "outputs": [{"name": "", "type": "uint256"}]},
    {"type": "function", "name": "symbol", "stateMutability": "view",
     "inputs": [], "outputs": [{"name": "", "type": "string"}]},
]  # fmt: skip


class There:
    """A chain with a token on it, 1,000 of which belong to its owner."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.owner = Account.from_key(KEY)
        owner = bytes(12) + bytes.fromhex(self.owner.address[2:])
        sent = chain.send(self.owner, None, bytes.fromhex(TOKEN.removeprefix("0x")) + owner)
        chain.mine()
        self.token: str = chain.receipt(sent)["contractAddress"]
        mint = AsyncWeb3().eth.contract(abi=ABI).encode_abi("mint", [self.checked(self.owner.address), 1000])
        chain.send(self.owner, self.token, bytes.fromhex(mint[2:]))
        chain.mine()

    @staticmethod
    def checked(address: str) -> Any:
        return AsyncWeb3.to_checksum_address(address)


@pytest.fixture(scope="module")
def there() -> Iterator[There]:
    try:
        find_anvil()
    except DevnetError as error:
        pytest.skip(f"needs anvil: {error}")
    with anvil(chain_id=CHAIN_ID, slots=2) as chain:
        yield There(chain)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "FIRST_PAUSE", 0.001)


class Proxy:
    """Before anvil, with faults."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self.refuses: dict[str, Any] | None = None  # every call of a contract, with this error
        self.down = False
        self.asked = 0
        self.now = self.most = 0  # under way

    async def handle(self, request: web.Request) -> web.Response:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self._answer(await request.read())
        finally:
            self.now -= 1

    async def _answer(self, body: bytes) -> web.Response:
        self.asked += 1
        if self.down:
            return web.Response(status=503)
        if self.refuses is not None and b"eth_call" in body:
            refusal = {"jsonrpc": "2.0", "id": msgspec.json.decode(body)["id"], "error": self.refuses}
            return web.Response(body=msgspec.json.encode(refusal))
        async with (
            ClientSession() as session,
            session.post(self._upstream, data=body, headers={"content-type": "application/json"}) as answer,
        ):
            return web.Response(body=await answer.read())


@asynccontextmanager
async def pool_of(url: str, proxies: int) -> AsyncIterator[tuple[Pool, list[Proxy]]]:
    made = [Proxy(url) for _ in range(proxies)]
    async with AsyncExitStack() as opened:
        providers = []
        for name, proxy in zip("abc", made, strict=False):
            app = web.Application()
            app.router.add_post("/", proxy.handle)
            runner = web.AppRunner(app)
            await runner.setup()
            opened.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            at = f"http://127.0.0.1:{runner.addresses[0][1]}/"
            providers.append(
                await opened.enter_async_context(Provider(name, at, Limits(timeout=5, in_flight=IN_FLIGHT)))
            )
        yield Pool(providers, lies=ZeroDivisionError), made


def with_web3(
    there: There,
    use: Callable[[AsyncWeb3[Any], Pool, list[Proxy]], Awaitable[None]],
    chain_id: int = CHAIN_ID,
) -> None:
    async def go() -> None:
        async with pool_of(there.chain.url, 2) as (pool, proxies):
            await use(AsyncWeb3(PoolProvider(pool, chain_id)), pool, proxies)

    asyncio.run(go())


def test_contracts_are_called_and_blocks_are_read(there: There) -> None:
    async def use(w3: AsyncWeb3[Any], pool: Pool, proxies: list[Proxy]) -> None:
        assert await w3.is_connected()
        token = w3.eth.contract(address=there.checked(there.token), abi=ABI)
        assert await token.functions.symbol().call() == "NKC"
        assert await token.functions.balanceOf(there.checked(there.owner.address)).call() == 1000
        block = await w3.eth.get_block("latest")
        number, head = there.chain.head()
        assert (block["number"], "0x" + bytes(block["hash"]).hex()) == (number, head)
        assert (await w3.eth.get_block(block["hash"]))["number"] == number
        assert await w3.eth.get_code(there.checked(there.token))

    with_web3(there, use)


def test_a_revert_is_an_answer_of_the_first_that_is_asked(there: There) -> None:
    async def use(w3: AsyncWeb3[Any], pool: Pool, proxies: list[Proxy]) -> None:
        nobody = there.checked("0x" + "ab" * 20)
        token = w3.eth.contract(address=there.checked(there.token), abi=ABI)
        with pytest.raises(ContractLogicError) as reverted:
            await token.functions.mint(nobody, 1).call({"from": nobody})
        assert nobody[2:].lower() in str(reverted.value.data), "OwnableUnauthorizedAccount(nobody)"
        assert proxies[1].asked == 0
        assert pool.best.name == "a"

    with_web3(there, use)


def test_one_that_is_down_or_has_pruned_the_state_is_passed_over(there: There) -> None:
    async def use(w3: AsyncWeb3[Any], pool: Pool, proxies: list[Proxy]) -> None:
        token = w3.eth.contract(address=there.checked(there.token), abi=ABI)
        proxies[0].refuses = {
            "code": -32000,
            "message": "missing trie node 0xab (path ) state is not available",
        }
        assert await token.functions.symbol().call() == "NKC"
        assert pool.best.name == "a", "to lack some old state is no fault of it"
        proxies[1].refuses = {"code": -32601, "message": "no such method"}
        with pytest.raises(Web3RPCError, match="missing trie node"):
            await token.functions.symbol().call()
        proxies[0].refuses = proxies[1].refuses = None
        proxies[0].down = True
        assert await token.functions.symbol().call() == "NKC"
        assert pool.best.name == "b"
        proxies[1].down = True
        with pytest.raises(Unreachable):
            await token.functions.symbol().call()
        assert not await w3.is_connected()

    with_web3(there, use)


def test_calls_share_the_pace_of_the_pools_providers(there: There) -> None:
    async def use(w3: AsyncWeb3[Any], pool: Pool, proxies: list[Proxy]) -> None:
        balances = [w3.eth.get_balance(there.checked(there.owner.address)) for _ in range(20)]
        work = [provider.batch([Call("eth_chainId")]) for provider in pool.providers[:1] for _ in range(20)]
        await asyncio.gather(*balances, *work)
        assert proxies[0].asked >= 40
        assert proxies[0].most == IN_FLIGHT

    with_web3(there, use)


def test_a_provider_of_another_chain_answers_nothing(there: There) -> None:
    async def use(w3: AsyncWeb3[Any], pool: Pool, proxies: list[Proxy]) -> None:
        with pytest.raises(WrongChain):
            await w3.eth.get_block("latest")

    with_web3(there, use, chain_id=1)

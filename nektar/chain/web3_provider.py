"""web3's async provider over a pool, so that calls of contracts share its pace, its order and its failover.

    w3 = AsyncWeb3(PoolProvider(pool, chain_id))
    await w3.eth.contract(address=…, abi=…).functions.minimumStake().call()

What a provider can't answer, because it has pruned that state or lacks the method, the next one is asked; a
revert is an answer, and web3 raises it as its `ContractLogicError`. Where no provider answers, `Unreachable`
is raised. What is answered is a provider's word, and proved by nothing. web3's own batches are not to be had.

This file imports web3, which takes 70 MB: import it where it is used.
"""

from __future__ import annotations

import json
from typing import Any

from web3 import AsyncWeb3
from web3.providers.async_base import AsyncBaseProvider
from web3.types import RPCEndpoint, RPCResponse

from nektar.chain.pool import Pool
from nektar.chain.rpc import Call, Provider, Refused, RpcError, check_chain_id

# JSON-RPC's code for a call that the EVM reverted (execution-apis); some nodes only say so in words.
REVERTED = 3
# What no other provider would take either.
BAD_REQUEST, BAD_PARAMS = -32600, -32602


class PoolProvider(AsyncBaseProvider):
    """Of one chain. It belongs to the event loop of the pool's providers."""

    # A contract could have us ask any URL that it names (EIP-3668), from wherever this runs.
    global_ccip_read_enabled = False

    def __init__(self, pool: Pool, chain_id: int) -> None:
        super().__init__()
        self._pool = pool
        self._chain_id = chain_id
        self._checked: set[str] = set()

    async def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Raises Unreachable, WrongChain."""
        call = _call(method, params)

        async def ask(provider: Provider) -> Any:
            if provider.name not in self._checked:
                await check_chain_id(provider, self._chain_id)
                self._checked.add(provider.name)
            (answer,) = await provider.batch([call])
            return answer

        return _response(await self._pool.first(ask, _may_be_mended))

    async def is_connected(self, show_traceback: bool = False) -> bool:
        try:
            await self.make_request(RPCEndpoint("eth_chainId"), [])
        except RpcError:
            return False
        return True


def _call(method: str, params: Any) -> Call:
    """web3 hands over bytes and structures of its own; they travel as JSON has them."""
    return Call(method, tuple(json.loads(AsyncWeb3.to_json({"params": params or []}))["params"]))


def _may_be_mended(answer: Any) -> bool:
    """Whether another provider may answer what this one refuses."""
    if not isinstance(answer, Refused) or answer.code in (REVERTED, BAD_REQUEST, BAD_PARAMS):
        return False
    return not answer.message.lower().startswith("execution reverted")


def _response(answer: Any) -> RPCResponse:
    if not isinstance(answer, Refused):
        return {"jsonrpc": "2.0", "id": 1, "result": answer}
    error: dict[str, Any] = {"code": answer.code, "message": answer.message}
    if answer.data is not None:
        error["data"] = answer.data
    return {"jsonrpc": "2.0", "id": 1, "error": error}  # type: ignore[typeddict-item]

"""Headers of blocks, without their transactions, as providers serve them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from nektar.chain.rpc import Call, Provider, Refused

# Headers in one request: some 100 KB.
HEADERS_A_REQUEST = 100


async def headers(provider: Provider, numbers: Sequence[int]) -> AsyncIterator[tuple[int, object]]:
    """Each number and what is said to be its block; None: there is none. Raises RpcError, Refused too."""
    for start in range(0, len(numbers), HEADERS_A_REQUEST):
        part = numbers[start : start + HEADERS_A_REQUEST]
        answers = await provider.batch([Call("eth_getBlockByNumber", (hex(n), False)) for n in part])
        for number, answer in zip(part, answers, strict=True):
            if isinstance(answer, Refused):
                raise answer
            yield number, answer

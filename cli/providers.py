"""The providers that a command is told to read by: URLs, `${NAME}` of one, or names of the configuration."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from indexer.prove import Contradiction
from nektar.chain.jsonrpc import Malformed, quantity
from nektar.chain.logs import NUMBER_BITS
from nektar.chain.pool import Pool
from nektar.chain.rpc import Call, Provider, Refused, RpcError, Unreachable
from nektar.config import Config, ConfigError, Limits, resolve

logger = logging.getLogger(__name__)


class Chain(NamedTuple):
    """What a provider serves: the chain's id, its newest block, and the newest that it calls final."""

    id: int
    newest: int
    final: int | None


def named(config: Config, told: Sequence[str]) -> list[Provider]:
    """The providers, those of URLs called rpc, rpc-2 … in their order. Raises ConfigError, RpcError."""
    found: dict[str, Provider] = {}
    for place, rpc in enumerate(told, 1):
        if known := config.providers.get(rpc):
            found[rpc] = Provider(rpc, known.url, known.limits)
            continue
        url = resolve(rpc, "--rpc")
        if "://" not in url:
            names = ", ".join(config.providers) or "none is configured"
            raise ConfigError(f"--rpc: expected a URL or a provider's name ({names}); got {rpc!r:.80}")
        name = "rpc" if place == 1 else f"rpc-{place}"
        found[name] = Provider(name, url, Limits())
    return list(found.values())


@asynccontextmanager
async def serving(providers: Sequence[Provider], last: int | None) -> AsyncIterator[tuple[Pool, Chain]]:
    """Those of the providers that answer and have the block `last` (None: what the first calls final that
    calls one so), and what the first of these serves.

    Raises RpcError where none answers, ConfigError where they serve two chains, or name no final block.
    """
    async with AsyncExitStack() as opened:
        for each in providers:
            await opened.enter_async_context(each)
        said = await asyncio.gather(*map(_chain, providers), return_exceptions=True)
        able: dict[Provider, Chain] = {}
        for provider, chain in zip(providers, said, strict=True):
            if isinstance(chain, Chain):
                able[provider] = chain
            elif not isinstance(chain, RpcError) or len(providers) == 1:
                raise chain
            else:
                logger.warning("%s; it is not asked", chain)
        if not able:
            raise next(each for each in said if isinstance(each, RpcError))
        if len({chain.id for chain in able.values()}) > 1:
            ids = ", ".join(f"{provider.name} chain {chain.id}" for provider, chain in able.items())
            raise ConfigError(f"--rpc: expected providers of one chain; got {ids}")
        final = next((chain.final for chain in able.values() if chain.final is not None), None)
        if (needed := final if last is None else last) is None:
            names = ", ".join(provider.name for provider in able)
            raise ConfigError(
                f"--to: expected a block, since {names} calls none final; others may still change"
            )
        # Of a block that none has, whoever asks is told.
        asked = {p: c for p, c in able.items() if c.newest >= needed} or able
        for provider in able.keys() - asked.keys():
            logger.warning(
                "provider %s: its newest block is %d, and %d is to be read; it is not asked",
                provider.name,
                able[provider].newest,
                needed,
            )
        pool = Pool(list(asked), Contradiction)
        watching = asyncio.create_task(pool.watch())
        try:
            yield pool, next(iter(asked.values()))._replace(final=final)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def _chain(provider: Provider) -> Chain:
    """What the provider serves. Raises RpcError."""
    blocks = [Call("eth_getBlockByNumber", (tag, False)) for tag in ("latest", "finalized")]
    id_, newest, final = await provider.batch([Call("eth_chainId"), *blocks])
    for answer in (id_, newest):
        if isinstance(answer, Refused):
            raise answer
    try:
        id_ = quantity({"eth_chainId": id_}, "eth_chainId", NUMBER_BITS)
        return Chain(id_, _number(newest) or 0, _number(final))
    except Malformed as error:
        raise Unreachable(provider.name, str(error)) from None


def _number(block: object) -> int | None:
    return quantity(block, "number", NUMBER_BITS) if isinstance(block, dict) else None

"""Which of the providers that a command names are asked, and up to which block."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from cli.providers import Chain, serving
from nektar.chain.rpc import Call, Provider, Refused
from nektar.config import ConfigError

NO_SUCH = Refused("p", "eth_getBlockByNumber", -39001, "finalized block not found")


class Saying(Provider):
    """A provider of a chain of 100 blocks, which says this of `finalized`."""

    def __init__(self, final: object, name: str = "p") -> None:
        super().__init__(name, "http://127.0.0.1:1")
        self._final = final

    async def batch(self, calls: Sequence[Call]) -> list[Any]:
        answers = {"eth_chainId": "0x1", "latest": {"number": "0x64"}, "finalized": self._final}
        return [answers[str(call.params[0]) if call.params else call.method] for call in calls]

    async def ping(self) -> tuple[float, int]:
        return 0.0, 100


def served(last: int | None, *finals: object) -> Chain:
    async def ask() -> Chain:
        providers = [Saying(final, f"p{place}") for place, final in enumerate(finals)]
        async with serving(providers, last) as (_, chain):
            return chain

    return asyncio.run(ask())


@pytest.mark.parametrize(("said", "final"), [({"number": "0x0"}, 0), ({"number": "0x40"}, 64)])
def test_what_is_final_is_what_a_provider_calls_so(said: object, final: int) -> None:
    assert served(None, said) == Chain(1, 100, final)


@pytest.mark.parametrize("said", [None, NO_SUCH])
def test_where_no_block_is_called_final_the_last_is_to_be_given(said: object) -> None:
    with pytest.raises(ConfigError, match="--to: expected a block, since p0 calls none final"):
        served(None, said)
    assert served(70, said) == Chain(1, 100, None)
    assert served(None, said, {"number": "0x40"}) == Chain(1, 100, 64)

"""Why calls failed: they are run again at the block before theirs, and the answer is put into words.

That is `reported`, and neither checked nor the same for ever: the state is that of the parent block, not that
in the middle of a block, and nodes have it of some last blocks only. So it is asked of unfinal blocks alone,
and once. A record waits for it a fraction of a second; where that was in vain nobody is asked for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeAlias

from indexer.prove import Proved
from nektar.chain.abi import Abi, ErrorType
from nektar.chain.revert import told
from nektar.chain.rpc import Call, Provider, Refused, RpcError
from nektar.chain.transaction import Transaction, Unsigned, gas, sender
from nektar.model import Address, Hash32

logger = logging.getLogger(__name__)

# (block, place of the transaction in it) → why it failed
Reasons: TypeAlias = Mapping[tuple[Hash32, int], str]

# Asked of a block, and together: strangers may send calls that fail as many as a block holds.
CALLS_A_BLOCK = 16
CALLS_AT_ONCE = 64
# Seconds that a record may wait for them, and for which nobody is asked after that was in vain.
PATIENCE = 0.2
REST = 60.0


class Failed(NamedTuple):
    """A call that failed."""

    block: Proved
    tx_index: int
    tx: Transaction


class Reverts:
    """Asks providers why calls failed."""

    def __init__(self, providers: Sequence[Provider], errors: Mapping[bytes, ErrorType]) -> None:
        """`errors` by selector: of all the Network's contracts, since one may hand on another's."""
        self._providers = providers
        self._errors = errors
        self._next = 0
        self._rests_until = 0.0

    async def of(self, blocks: Sequence[Proved], contracts: Mapping[Address, Abi]) -> Reasons:
        """Why calls to the contracts failed, as far as a provider says so at once. Raises nothing of its."""
        now = asyncio.get_running_loop().time()
        if not self._providers or now < self._rests_until:
            return {}
        provider = self._providers[self._next % len(self._providers)]
        # No more than what its limits let it be asked in that time, since blocks are asked for after that.
        most = min(CALLS_AT_ONCE, int(PATIENCE * provider.limits.requests_per_second))
        calls = failed(blocks, contracts)[:most]
        if not calls:
            return {}
        try:
            async with asyncio.timeout(PATIENCE):
                answers = await provider.batch([_question(each) for each in calls])
        except (RpcError, TimeoutError) as error:
            self._rest(now, provider, str(error) or f"no answer within {PATIENCE:g} s")
            return {}
        found = {
            (each.block.hash, each.tx_index): said
            for each, answer in zip(calls, answers, strict=True)
            if (said := told(answer, self._errors)) is not None
        }
        if not found and all(isinstance(answer, Refused) for answer in answers):
            self._rest(now, provider, str(answers[0]))
        return found

    def _rest(self, now: float, provider: Provider, why: str) -> None:
        logger.info("provider %s does not say why calls fail: %s", provider.name, why)
        self._next += 1
        self._rests_until = now + REST


def failed(blocks: Sequence[Proved], contracts: Mapping[Address, Abi]) -> list[Failed]:
    """The first of each block's failed calls that are rows."""
    found = []
    for block in blocks:
        of_block = [
            Failed(block, index, tx)
            for index, (tx, status) in enumerate(zip(block.transactions, block.statuses, strict=True))
            if status is False
            and tx.to is not None
            and (abi := contracts.get(tx.to)) is not None
            and abi.called(tx.input) is not None
        ]
        found += of_block[:CALLS_A_BLOCK]
    return found


def _question(call: Failed) -> Call:
    tx = call.tx
    asked = {
        "to": f"0x{(tx.to or b'').hex()}",
        "data": f"0x{tx.input.hex()}",
        "value": hex(tx.value),
        "gas": hex(gas(tx)),
    }
    with suppress(Unsigned):  # nobody's, as no chain has it
        asked["from"] = f"0x{sender(tx).hex()}"
    return Call("eth_call", (asked, hex(max(call.block.number - 1, 0))))

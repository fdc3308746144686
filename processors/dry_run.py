"""Asks a provider what the slashing contract would say to a proof, on the state of one block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nektar.chain.abi import ErrorType
from nektar.chain.header import encode_header, read_header
from nektar.chain.jsonrpc import Malformed, parse_object
from nektar.chain.pool import Absent
from nektar.chain.revert import told
from nektar.chain.rpc import Provider, Refused, RpcError
from nektar.evidence.verify import NotProved
from nektar.model import BlockRef, Network
from nektar.rows import DryRunRow
from processors.conditions.condition import Dispute


async def dry_run(
    provider: Provider,
    network: Network,
    finding: bytes,
    dispute: Dispute,
    at: BlockRef,
    errors: Mapping[bytes, ErrorType],
) -> DryRunRow:
    """What comes of the proof after this block. Raises RpcError where the provider can't say."""
    call = {
        "to": "0x" + network.contract(dispute.contract).hex(),
        "data": "0x" + dispute.calldata.hex(),
    }
    block = {"blockHash": "0x" + at.hash.hex()}  # EIP-1898
    revert, gas = "", 0
    try:
        await provider.call("eth_call", call, block)
        accepted = True
    except Refused as refused:
        accepted, said = False, told(refused, errors)
        if said is None:  # it did not run it
            raise
        revert = said or "reverted without a reason"
    if accepted:
        gas = await _gas(provider, call, block)
    return DryRunRow(finding, at.number, at.hash, provider.name, accepted, gas, revert)


async def _gas(provider: Provider, call: Mapping[str, str], block: Mapping[str, str]) -> int:
    try:
        return int(await provider.call("eth_estimateGas", call, block), 16)
    except (RpcError, ValueError, TypeError):
        return 0


async def newest(provider: Provider) -> BlockRef:
    """The provider's newest block. Raises RpcError, NotProved."""
    answer: Any = await provider.call("eth_getBlockByNumber", "latest", False)
    if answer is None:
        raise Absent(provider.name, "it has no newest block")
    try:
        return read_header(encode_header(parse_object(answer, "block"))).ref
    except Malformed as error:
        raise NotProved(f"provider {provider.name}: {error}") from error

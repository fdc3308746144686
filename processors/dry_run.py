"""Asks a provider what the slashing contract would say to a proof, on the state of one block.

A call of an address without code succeeds, and so does one of a contract that takes whatever comes. So the
proof is accepted where the answer is the request that it makes; any other says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nektar.chain.abi import ErrorType
from nektar.chain.header import encode_header, read_header
from nektar.chain.jsonrpc import Malformed, parse_object
from nektar.chain.pool import Absent
from nektar.chain.revert import told
from nektar.chain.rpc import SHOWN, Provider, Refused, RpcError
from nektar.evidence.bundle import Bundle
from nektar.evidence.verify import NotProved
from nektar.model import BlockRef, Network
from nektar.networks.encoding import request_id
from nektar.rows import DryRunRow
from processors.conditions.condition import Dispute


async def dry_run(
    provider: Provider,
    network: Network,
    finding: bytes,
    bundle: Bundle,
    dispute: Dispute,
    at: BlockRef,
    errors: Mapping[bytes, ErrorType],
) -> DryRunRow:
    """What comes of the bundle's proof after this block. Raises RpcError where the provider can't say, also
    since the contract does not stand there yet."""
    contract = network.contract(dispute.contract)
    call = {"to": "0x" + contract.hex(), "data": "0x" + dispute.calldata.hex()}
    block = {"blockHash": "0x" + at.hash.hex()}  # EIP-1898
    revert, gas = "", 0
    try:
        answer = await provider.call("eth_call", call, block)
    except Refused as refused:
        accepted, said = False, told(refused, errors)
        if said is None:  # it did not run it
            raise
        revert = said or "reverted without a reason"
    else:
        about = bundle.condition, bundle.subject, bundle.operator
        expected = "0x" + request_id(network.chain_id, contract, *about).hex()
        if answer != expected:
            raise RpcError(
                provider.name,
                f"eth_call: expected {dispute.contract} {call['to']} to answer a proof with its request "
                f"{expected} or an error; after block {at.number} the answer is {str(answer)[:SHOWN]!r}: "
                "no such contract stands there, or the provider did not run it",
            )
        accepted, gas = True, await _gas(provider, call, block)
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

"""A real chain as the indexer would have written it into the log, for folds to be shown."""

from __future__ import annotations

import asyncio

from devnet.deploy import NETWORK
from indexer.decode import tables
from indexer.prove import Proved, prove
from nektar import fold as calculus
from nektar.chain.abi import load
from nektar.chain.rpc import Provider
from nektar.evidence.bundle import Bundle
from nektar.evidence.gather import gather
from nektar.evidence.reader import terms_of
from nektar.evidence.verify import Reader
from nektar.log import New
from nektar.model import Address, Block, Network
from nektar.networks.nektar import NektarNetwork
from nektar.rows import Change, Finding
from processors.conditions.condition import Condition
from tests.devnet.contracts.conftest import CHAIN_ID, Site

ADAPTER = NektarNetwork()


def network(site: Site) -> Network:
    addresses = {name: Address(bytes.fromhex(address[2:])) for name, address in site.contracts.items()}
    terms = {name: getattr(site.terms, name) for name in ADAPTER.terms}
    return Network("home", CHAIN_ID, addresses, selector={"network": "0x" + NETWORK.hex()}, terms=terms)


def log(site: Site, first: int = 0) -> New:
    """All of the chain from a block on as the indexer writes it."""
    chain, known = site.chain, network(site).contracts
    proved: list[Proved] = []
    for number in range(first, site.head + 1):
        header = chain.rpc("eth_getBlockByNumber", hex(number), True)
        proved.append(prove(header, chain.rpc("eth_getBlockReceipts", hex(number))))
    abis = {known[name]: load(abi) for name, abi in ADAPTER.abi().items()}
    found, lost = tables(abis, proved)
    assert not lost
    blocks = (Block(p.number, p.hash, p.parent, p.time, p.level, "anvil", "single:anvil") for p in proved)
    return New(tuple(blocks), found)


def found(site: Site, condition: Condition) -> list[Finding]:
    """What the condition's fold finds on the chain as it is."""
    record, net = log(site), network(site)
    begun = calculus.begin(condition.detect, net)
    _, changes = calculus.apply(condition.detect, begun, record, ADAPTER.events(net, record.tables))
    return [
        change.after for change in changes if isinstance(change, Change) and isinstance(change.after, Finding)
    ]


def reader(site: Site) -> Reader:
    """What whoever checks evidence knows of the Network."""
    net = network(site)
    return Reader(net.chain_id, net.contracts, terms=terms_of(net))


def gathered(site: Site, condition: Condition, finding: Finding) -> Bundle:
    """The finding's bundle, of what the chain's node serves."""

    async def ask() -> Bundle:
        async with Provider("anvil", site.chain.url) as provider:
            return await gather(provider, network(site), finding, condition.claims(finding))

    return asyncio.run(ask())

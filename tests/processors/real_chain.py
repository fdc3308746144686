"""A real chain as the indexer would have written it into the log, for folds to be shown."""

from __future__ import annotations

from indexer.decode import tables
from indexer.prove import Proved, prove
from nektar.chain.abi import load
from nektar.log import New
from nektar.model import Address, Block, Network
from nektar.networks.nektar import NektarNetwork
from tests.devnet.contracts.conftest import CHAIN_ID, Site

ADAPTER = NektarNetwork()


def network(site: Site) -> Network:
    addresses = {name: Address(bytes.fromhex(address[2:])) for name, address in site.contracts.items()}
    return Network("home", CHAIN_ID, addresses)


def log(site: Site) -> New:
    """All of the chain as the indexer writes it."""
    chain, known = site.chain, network(site).contracts
    proved: list[Proved] = []
    for number in range(site.head + 1):
        header = chain.rpc("eth_getBlockByNumber", hex(number), True)
        proved.append(prove(header, chain.rpc("eth_getBlockReceipts", hex(number))))
    abis = {known[name]: load(abi) for name, abi in ADAPTER.abi().items()}
    found, lost = tables(abis, proved)
    assert not lost
    blocks = (Block(p.number, p.hash, p.parent, p.time, p.level, "anvil", "single:anvil") for p in proved)
    return New(tuple(blocks), found)

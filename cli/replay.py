"""`nektar replay`: what follows from the log, and the evidence for it, made again and compared."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from cli.settings import adapters, conditions, folds, read_config
from cli.setup import CheckFailed
from nektar.bus.port import Bus
from nektar.chain.pool import Pool
from nektar.chain.rpc import open_providers
from nektar.config import Config
from nektar.model import Network


def replay(
    config_path: Path | None, directory: Path | None, network: str | None, evidence: bool, as_json: bool
) -> None:
    """Fold each log that is followed again and compare with what was put out, and where `evidence` is asked
    for, make that again from the chain. Raises CheckFailed where they differ."""
    from nektar import bus as buses
    from processors.followed import followed
    from processors.replay import replay as fold_again

    config, _ = read_config(config_path, directory)
    if network:
        config = msgspec.structs.replace(config, networks=(config.network(network),))
    named = adapters(config)
    bus = buses.open(config.bus_url)
    differ = []
    try:
        for each in followed(config, named, bus):
            for fold in folds():
                result = fold_again(bus, each, named[each.name], fold)
                line = {
                    "network": each.name,
                    "generation": each.generation,
                    "fold": fold.name,
                    "records": result.records,
                    "blocks": result.blocks,
                    "events": result.events,
                    "digest": result.digest,
                    "behind": result.behind,
                    "difference": result.difference,
                }
                if as_json:
                    print(json.dumps(line))
                else:
                    verdict = "the same" if result.agrees else f"NOT the same: {result.difference}"
                    if result.behind:
                        verdict += f", {result.behind} messages still to come"
                    print(
                        f"{each.name} {fold.name}: {result.records} records, {result.blocks} blocks, "
                        f"{result.events} events → {verdict} ({result.digest[:16]})"
                    )
                if not result.agrees:
                    differ.append(f"{each.name}/{fold.name}")
            if evidence and not asyncio.run(_prove_again(config, bus, each, as_json)):
                differ.append(f"{each.name}/evidence")
    finally:
        bus.close()
    if differ:
        raise CheckFailed(f"replay: {', '.join(differ)}: what the log folds to is not what stands on the bus")


async def _prove_again(config: Config, bus: Bus, network: Network, as_json: bool) -> bool:
    """Whether the chain gives the evidence again that stands on the bus."""
    from nektar.evidence.reader import reader_of
    from nektar.evidence.verify import NotProved
    from processors.reproof import prove_again

    reader = reader_of(config.network(network.name), network)
    async with AsyncExitStack() as opened:
        pool = Pool(await open_providers(config, network.name, opened), lies=NotProved)
        found = await prove_again(bus, network, pool, conditions(), reader)
    differ = [each for each in found if each.difference]
    if as_json:
        print(
            json.dumps(
                {
                    "network": network.name,
                    "generation": network.generation,
                    "findings": len(found),
                    "same": sum(each.same for each in found),
                    "differences": {f"0x{each.finding.id.hex()}": each.difference for each in differ},
                }
            )
        )
    else:
        print(f"{network.name} evidence: {sum(e.same for e in found)} of {len(found)} findings' → the same")
        for each in differ:
            print(f"  0x{each.finding.id.hex()}: {each.difference}")
    return not differ

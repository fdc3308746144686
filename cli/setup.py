"""Commands that prepare and verify: `init`, `check`, `migrate`, `replay`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from cli.settings import adapters, folds, read_config
from nektar.config import Config, ConfigError
from nektar.errors import NektarError

STARTER = """\
# Nektar Watchtower. Unknown keys are errors; `nektar check` reaches everything named here.
# A value ${NAME} is read from the environment, file:PATH from a file: keep secrets out of this file.
data_dir: ./nektar-data

providers:
  mine:
    url: http://127.0.0.1:8545        # a JSON-RPC endpoint of your chain

networks:
  - name: my-network
    adapter: nektar                    # which flavour of contracts
    chain_id: 31337
    rpc: [mine]                        # names of providers, first choice first
    from_block: 0                      # the block of the first deployment
    contracts:
      operator_registry: "0x0000000000000000000000000000000000000000"
      task_manager: "0x0000000000000000000000000000000000000000"
      slashing_manager: "0x0000000000000000000000000000000000000000"

listen:
  sql: 127.0.0.1:8123                  # read-only SQL on ClickHouse's HTTP interface
"""


class CheckFailed(NektarError):
    """Something that the configuration names does not answer as it should."""


def init(path: Path) -> None:
    """Write a starter file; never over one that is there."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(STARTER)
    except FileExistsError:
        raise ConfigError(f"{path}: is there already; name another file") from None
    except OSError as error:
        raise ConfigError(f"{path}: can't be written: {error.strerror}") from error
    print(f"wrote {path}: put your RPC and contracts in, then run `nektar check` and `nektar up`")


def check(config_path: Path | None, directory: Path | None) -> None:
    """Reach all that the configuration names. Raises the first thing that is wrong."""
    config, path = read_config(config_path, directory)
    print(f"{path}: valid")

    from indexer.contracts import contracts_of
    from nektar import bus as buses
    from nektar.store.client import ask, endpoint
    from nektar.store.listen import bind
    from nektar.store.port import StoreMissing, shown

    named = adapters(config)
    for network in config.networks:
        contracts_of(network, named[network.name])
    asyncio.run(_check_chains(config))
    bus = buses.open(config.bus_url)
    bus.close()
    print(f"bus {config.bus_url}: opens")
    try:
        ask(config, "SELECT 1", "TabSeparated")
    except StoreMissing:
        print(f"store {shown(config.store_url)}: not there yet; `nektar up` makes it")
    else:
        print(f"store {shown(config.store_url)}: answers")
    if endpoint(config) is None:
        bind(config.listen.sql).close()
        print(f"listen.sql {config.listen.sql}: free")
    else:
        print(f"listen.sql {config.listen.sql}: the store role answers there")


async def _check_chains(config: Config) -> None:
    from indexer.contracts import no_contract, reached
    from nektar.chain.rpc import Provider, check_chain_id, without_code

    for network in config.networks:
        for name in network.rpc:
            settings = config.providers[name]
            async with Provider(name, settings.url, settings.limits) as provider:
                await check_chain_id(provider, network.chain_id)
                addresses = tuple(network.contracts.values())
                missing = await without_code(provider, addresses, reached(network, None))
            if missing:
                raise no_contract(network, missing)
            served = f"{network.name}: provider {name} serves chain {network.chain_id}"
            if missing is None:
                print(f"{served}; it is still syncing, so whether the contracts are there can't be said yet")
            else:
                print(f"{served} and its contracts")


def migrate(config_path: Path | None, directory: Path | None) -> None:
    """Bring the store's schema up to date."""
    config, _ = read_config(config_path, directory)

    from nektar.store.client import open_store
    from nektar.store.migrate import migrate as bring_up_to_date

    with open_store(config.store_url) as store:
        done = bring_up_to_date(store, adapters(config).values())
    print(
        f"{config.store_url}: {len(done)} migrations applied" if done else f"{config.store_url}: up to date"
    )


def replay(config_path: Path | None, directory: Path | None, network: str | None, as_json: bool) -> None:
    """Fold each log again and compare with what was put out. Raises CheckFailed where they differ."""
    config, _ = read_config(config_path, directory)

    from nektar import bus as buses
    from processors.replay import replay as fold_again
    from processors.runner import network_of

    chosen = [config.network(network)] if network else list(config.networks)
    named = adapters(config)
    bus = buses.open(config.bus_url)
    differ = []
    try:
        for settings in chosen:
            for fold in folds():
                result = fold_again(bus, network_of(settings), named[settings.name], fold)
                line = {
                    "network": settings.name,
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
                        f"{settings.name} {fold.name}: {result.records} records, {result.blocks} blocks, "
                        f"{result.events} events → {verdict} ({result.digest[:16]})"
                    )
                if not result.agrees:
                    differ.append(f"{settings.name}/{fold.name}")
    finally:
        bus.close()
    if differ:
        raise CheckFailed(f"replay: {', '.join(differ)}: what the log folds to is not what stands on the bus")

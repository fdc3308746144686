"""Commands that prepare and verify: `init`, `check`, `migrate`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from cli.settings import adapters, read_config
from nektar.config import Config, ConfigError, NetworkConfig, reached_at
from nektar.errors import NektarError
from nektar.role import ROLES

if TYPE_CHECKING:
    from nektar.chain.rpc import Provider

STARTER = """\
# Nektar Watchtower. Unknown keys are errors; `nektar check` reaches everything named here.
# A value ${NAME} is read from the environment, file:PATH from a file: keep secrets out of this file.
data_dir: ./nektar-data

providers:
  mine:
    url: http://127.0.0.1:8545        # a JSON-RPC endpoint of your chain
    # ws: ws://127.0.0.1:8545         # where it announces new heads, if it does; it is polled otherwise
    # limits:                         # how hard each role's process may ask it, for all of its Networks
    #   { requests_per_second: 100000, in_flight: 8, timeout: 20 }

networks:
  - name: my-network
    adapter: nektar                    # which flavour of contracts
    chain_id: 31337
    rpc: [mine]                        # names of providers; the best is asked, and the next where it fails
    anchor: single                     # or `quorum 2/3`, or `pinned NUMBER HASH`: what makes blocks canonical
    # finality_depth: 64               # only on a chain without `finalized` tag: as deep a block is final
    from_block: 0                      # the block of the first deployment
    # poll: 2                          # seconds between looks at the head, 3 calls each, if none tells it
    contracts:
      operator_registry: "0x0000000000000000000000000000000000000000"
      delegation: "0x0000000000000000000000000000000000000000"
      task_manager: "0x0000000000000000000000000000000000000000"
      slashing_manager: "0x0000000000000000000000000000000000000000"
      # trusted_slasher, veto_committee, network_registry: to see slashings that should not happen
    # objective: 0.99                  # share of stake that is to be on time over 30 days
    # selector: {network: "0x…"}        # the Network's id in the registry: which Burner is its own
    # terms:                           # what contracts hold in their code, and conditions rest on
    #   minimum: 100000000000000000000 # Delegation's: less stake than that breaks a bond
    #   slashing_window: 100000        # SlashingManager's: how long after a task it can be slashed for
    #   miss_allowance: 2              # so many misses are no offence
    #   miss_window: 600               # in tasks submitted in so many blocks
    #   max_duration: 110000           # TaskManager's: how long a task and its grace last at most

listen:
  sql: 127.0.0.1:8123                  # read-only SQL on ClickHouse's HTTP interface
  otlp: 127.0.0.1:4318                 # telemetry of Operators, by OTLP over HTTP
  otlp_grpc: 127.0.0.1:4317            # the same over gRPC; "": not at all
  metrics: 127.0.0.1:9464              # /metrics, /healthz, /readyz of the first role; each next one's one up

# Who may send telemetry: nobody, while this names no audience.
# telemetry:
#   audience: our-collector            # what tokens call it, which registered Operators mint (`nektar token`)
#   agents:                            # who else has a key of its own: its BN254 G1 in hex
#     gateway: { role: aggregator, key: "0x…" }
#   proxies: [10.0.0.7]                # who stands before it, and is believed for whom (X-Forwarded-For)
#   unauthenticated: true              # instead of an audience: everyone may, and all that comes is marked so
#   quota:                             # how much each may send for long
#     { bytes_per_second: 33554432, items_per_second: 50000, burst: 10 }

# watchers:                            # who is told of findings, by webhook (Standard Webhooks)
#   - name: my-team
#     url: https://alerts.example.com/nektar
#     secret: ${NEKTAR_MY_TEAM_SECRET} # whsec_ and 24 to 64 random bytes in base64; the receiver has it, too
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
    from indexer.found import found_by
    from nektar import bus as buses
    from nektar import http
    from nektar.networks.adapter import require_known
    from nektar.store.client import ask, endpoint
    from nektar.store.port import StoreMissing, shown

    config, path = read_config(config_path, directory)
    print(f"{path}: valid")
    named = adapters(config)
    for network in config.networks:
        require_known(network, named[network.name])
        found_by(network, named[network.name])
    asyncio.run(_check_chains(config))
    asyncio.run(_check_watchers(config))
    with closing(buses.open(config.bus_url)) as bus:
        bus.check()
    print(f"bus {buses.shown(config.bus_url)}: opens, and keeps what is written")
    try:
        ask(config, "SELECT 1", "TabSeparated")
    except StoreMissing:
        print(f"store {shown(config.store_url)}: not there yet; `nektar up` makes it")
    else:
        print(f"store {shown(config.store_url)}: answers")
    if endpoint(config) is None:
        http.bind(config.listen.sql, "listen.sql").close()
        print(f"listen.sql {config.listen.sql}: free")
    else:
        print(f"listen.sql {config.listen.sql}: the store role answers there")
    for key, at, collects in (
        ("listen.otlp", config.listen.otlp, _collects),
        ("listen.otlp_grpc", config.listen.otlp_grpc, _collects_by_grpc),
    ):
        if not at:
            print(f"{key}: nowhere")
        elif collects(config):
            print(f"{key} {at}: the collector answers there")
        else:
            http.bind(at, key).close()
            print(f"{key} {at}: free")
    print(f"telemetry: taken from {config.telemetry.taken_from}")
    if config.listen.metrics.endswith(":0"):
        print(f"listen.metrics {config.listen.metrics}: each role takes any port that is free")
    else:
        _check_pages(config)


def _check_pages(config: Config) -> None:
    """Say of each role whether it answers at its place from `listen.metrics` on. Raises CantListen where
    somebody else does."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, build_opener

    from nektar import http
    from nektar.monitor import address
    from nektar.store.client import CONNECT_TIMEOUT

    for role in ROLES:
        at = address(role, config)
        said = b""
        try:
            with build_opener(ProxyHandler({})).open(
                f"http://{reached_at(at)}/readyz", timeout=CONNECT_TIMEOUT
            ) as answer:
                said = answer.read(64)
        except HTTPError as error:
            with error:
                said = error.read(64)
        except (OSError, HTTPException, ValueError):
            pass
        if said.startswith(f'{{"role":"{role}"'.encode()):
            print(f"listen.metrics {at}: the {role} answers there")
        else:
            http.bind(at, f"listen.metrics (of the {role})").close()
            print(f"listen.metrics {at}: free, for the {role}")


def _collects(config: Config) -> bool:
    """Whether the collector answers at `listen.otlp`: it takes a request of nothing from its own roles, and
    where these have no token, asks for one."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, Request, build_opener

    from nektar.store.client import CONNECT_TIMEOUT

    url = f"http://{reached_at(config.listen.otlp)}/v1/traces"
    headers = {"content-type": "application/x-protobuf", **_authorization(config)}
    try:
        request = Request(url, b"", headers, method="POST")
        with build_opener(ProxyHandler({})).open(request, timeout=CONNECT_TIMEOUT) as answer:
            return bool(answer.status == 200)
    except HTTPError as error:
        with error:
            return error.code == 401 and "authorization" not in headers
    except (OSError, HTTPException, ValueError, OverflowError):
        return False


def _collects_by_grpc(config: Config) -> bool:
    """The same at `listen.otlp_grpc`."""
    import grpc

    from nektar.store.client import CONNECT_TIMEOUT

    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(reached_at(config.listen.otlp_grpc), options) as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        token = [*_authorization(config).items()]
        try:
            export(b"", timeout=CONNECT_TIMEOUT, metadata=token)
        except grpc.RpcError as error:
            return bool(error.code() is grpc.StatusCode.UNAUTHENTICATED and not token)
    return True


def _authorization(config: Config) -> dict[str, str]:
    """The header by which a collector with this configuration knows its own roles; none where they have no
    token."""
    from nektar.monitor import own_token

    token = own_token(config)
    return {"authorization": f"Bearer {token}"} if token else {}


async def _check_chains(config: Config) -> None:
    from indexer.headers import heads_of
    from indexer.source import Source
    from nektar.chain.anchor import Pinned
    from nektar.chain.anchor import parse as parse_anchor
    from nektar.chain.announced import announces
    from nektar.chain.rpc import Provider as Asked
    from nektar.chain.rpc import check_chain_id, first_telling_block, no_contract, without_code

    for network in config.networks:
        anchor = parse_anchor(network.anchor, len(network.rpc))
        final: dict[str, int] = {}
        for name in network.rpc:
            settings = config.providers[name]
            async with Asked(name, settings.url, settings.limits) as provider:
                await check_chain_id(provider, network.chain_id)
                if isinstance(anchor, Pinned):
                    await Source([provider], network.chain_id, anchor).check_chain()
                if settings.ws and not await announces(name, settings.ws):
                    raise CheckFailed(f"providers.{name}.ws: expected a WebSocket that announces new heads")
                addresses = tuple(network.contracts.values())
                if missing := await without_code(provider, addresses, first_telling_block(network)):
                    raise no_contract(network, missing)
                if (finalized := (await heads_of(provider)).finalized) is not None:
                    final[name] = finalized.number
                await _check_code(provider, network)
            print(f"{network.name}: provider {name} serves chain {network.chain_id} and its contracts")
        _check_finality(network, final, enough=anchor.enough)


async def _check_code(provider: Provider, network: NetworkConfig) -> None:
    """Raises CheckFailed where a contract's code is not what nektar.yaml says."""
    from nektar.chain.jsonrpc import parse_octets
    from nektar.chain.keccak import keccak

    for name, expected in network.code.items():
        code = await provider.call("eth_getCode", network.contracts[name], "latest")
        if (got := f"0x{keccak(parse_octets(code, name)).hex()}") != expected.lower():
            raise CheckFailed(
                f"networks.{network.name}.code.{name}: expected the hash of the code at "
                f"{network.contracts[name]}, {got}; got {expected}"
            )


def _check_finality(network: NetworkConfig, final: Mapping[str, int], *, enough: int) -> None:
    """Say what makes blocks final; `final` is the block that each provider calls so which does, and `enough`
    how many have to. Raises CheckFailed where nothing does."""
    tagged = ", ".join(f"{name} block {number}" for name, number in final.items())
    if len(final) >= enough:
        ignored = "; finality_depth is ignored" if network.finality_depth else ""
        print(f"{network.name}: what is final providers say ({tagged}){ignored}")
    elif network.finality_depth:
        depth = network.finality_depth
        print(f"{network.name}: blocks {depth} deep are final (finality_depth), since providers call none so")
    else:
        raise CheckFailed(
            f"networks.{network.name}: expected {enough} of its providers to call a block final; got "
            f"{tagged or 'none'}: name providers that do, or on a chain that has no `finalized` tag set "
            "finality_depth"
        )


async def _check_watchers(config: Config) -> None:
    from processors.watchers import check as webhook_of

    for watcher in config.watchers:
        if why := await webhook_of(watcher).reach():
            raise CheckFailed(f"watchers.{watcher.name}: {why}")
        print(f"watcher {watcher.name}: answers; send it a test event with `nektar watchers test`")


def migrate(config_path: Path | None, directory: Path | None) -> None:
    """Bring the store's schema up to date."""
    from nektar.store.client import open_store
    from nektar.store.migrate import migrate as bring_up_to_date
    from nektar.store.port import shown

    config, _ = read_config(config_path, directory)
    with open_store(config.store_url) as store:
        done = bring_up_to_date(store, adapters(config).values())
    print(f"{shown(config.store_url)}: {f'{len(done)} migrations applied' if done else 'up to date'}")

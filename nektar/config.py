"""`nektar.yaml`: the one file that configures everything, checked whole before anything starts.

Unknown keys are errors. Secrets come from the environment (`${NAME}`) or files (`file:PATH`), never from
the file itself. Times are seconds unless the name says otherwise.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml

from nektar.chain.anchor import BadAnchor, Pinned, Quorum
from nektar.chain.anchor import parse as parse_anchor
from nektar.errors import NektarError
from nektar.role import ROLES
from nektar.senders import RESERVED

NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
Name = Annotated[str, msgspec.Meta(pattern=NAME)]
HexHash = Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-fA-F]{64}$")]
HexAddress = Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-fA-F]{40}$")]
Port = Annotated[str, msgspec.Meta(pattern=r"^[^\s]*:\d{1,5}$")]
"""host:port"""
PortOrNone = Annotated[str, msgspec.Meta(pattern=r"^$|^[^\s]*:\d{1,5}$")]
"""host:port; empty: nowhere"""
# Of 30 days that leaves seven hours: enough for the restarts of a month, and not for a day that nobody looks.
DEFAULT_OBJECTIVE = 0.99


class ConfigError(NektarError):
    """A mistake in the configuration: where, what was expected, what to do."""

    exit_code = 2


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How hard a provider may be asked by each process that asks it, for all of that one's Networks."""

    requests_per_second: Annotated[float, msgspec.Meta(gt=0)] = 100_000.0
    in_flight: Annotated[int, msgspec.Meta(ge=1, le=256)] = 8
    timeout: Annotated[float, msgspec.Meta(gt=0)] = 20.0


class Provider(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str
    ws: Annotated[str, msgspec.Meta(pattern=r"^(wss?://\S+)?$")] = (
        ""  # where it announces its heads, if it does
    )
    limits: Limits = Limits()


class Listen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where roles listen. Loopback by default: only telemetry can ask for a token yet."""

    sql: Port = "127.0.0.1:8123"
    otlp: Port = "127.0.0.1:4318"  # OTLP over HTTP, at the port that the protocol gives it
    otlp_grpc: PortOrNone = "127.0.0.1:4317"  # the same over gRPC
    metrics: Port = "127.0.0.1:9464"  # the first role's; each next role's is one higher (nektar/role.py)


class Agent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody of a Network who is no Operator, and sends telemetry by tokens of a key of its own."""

    role: Literal["aggregator", "observer"]
    key: Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-f]{128}$")]  # BN254 G1, x then y
    networks: tuple[Name, ...] = ()  # that it is of; none: all

    def is_of(self, network: str) -> bool:
        return not self.networks or network in self.networks


class Quota(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much telemetry one sender may send; where nobody is asked for a token, one network address."""

    # Bytes as they are unpacked; spans, log records and data points. By default more than all of a Network's
    # Operators send together, and than the store takes for long on two cores.
    bytes_per_second: Annotated[int, msgspec.Meta(ge=1_024)] = 32 * 1024 * 1024
    items_per_second: Annotated[int, msgspec.Meta(ge=1)] = 50_000
    # What comes of so many seconds may come at once.
    burst: Annotated[float, msgspec.Meta(ge=1, le=3_600)] = 10.0


class Telemetry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may send telemetry, and whether roles send their own."""

    # What tokens that senders' keys sign call this collector; empty: none is taken.
    audience: Annotated[str, msgspec.Meta(max_length=128)] = ""
    # Who else than Operators, whom the chain knows, may send by such a token, by name.
    agents: dict[Name, Agent] = {}
    # Instead of that: everyone may send, nobody is asked for a token, and all that comes is marked so.
    unauthenticated: bool = False
    # Addresses and networks of proxies, whose X-Forwarded-For is believed: each peer has a share of what
    # tokens may cost, and all that come by another proxy are one.
    proxies: tuple[str, ...] = ()
    quota: Quota = Quota()
    # Where roles send their own spans: true is to `listen.otlp`, else the base URL of another collector.
    own: bool | Annotated[str, msgspec.Meta(pattern=r"^https?://\S+$")] = True
    # The token by which the collector knows roles' own spans; needed only where the roles share no data_dir.
    own_token: Annotated[str, msgspec.Meta(pattern=r"^$|^\S{16,}$")] = ""

    @property
    def taken_from(self) -> str:
        """From whom telemetry is taken, in words."""
        if self.unauthenticated:
            return "everyone, unauthenticated"
        if not self.audience:
            return "nobody, since telemetry names no audience"
        return ", ".join(["registered Operators", *self.agents])


class Watcher(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is told of findings: a webhook, signed as Standard Webhooks say."""

    name: Name
    url: Annotated[str, msgspec.Meta(pattern=r"^https?://\S+$")]
    secret: Annotated[str, msgspec.Meta(pattern=r"^whsec_[A-Za-z0-9+/=]{32,}$")]
    timeout: Annotated[float, msgspec.Meta(gt=0, le=60)] = 10.0
    networks: tuple[Name, ...] = ()  # none: all
    conditions: tuple[str, ...] = ()  # none: all


class Factory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where contracts are named that others make."""

    contract: str  # who makes them: a name under `contracts`, or a kind of those or of found ones
    event: str  # the event in which each is named
    argument: str  # its argument that is the new contract's address


class NetworkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Name
    chain_id: Annotated[int, msgspec.Meta(ge=1)]
    rpc: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]  # names of providers
    contracts: dict[str, HexAddress]  # names the adapter knows → addresses; of several of a kind: kind/name
    adapter: Name = "nektar"
    factories: dict[str, Factory] = {}  # kinds of contracts that the adapter knows → where each is named
    selector: dict[str, str] = {}  # which part of contracts that many Networks share is this one's
    terms: dict[str, Annotated[int, msgspec.Meta(ge=0)]] = {}  # what contracts hold in their code
    code: dict[str, HexHash] = {}  # names under `contracts` → hash of that contract's code, for evidence
    anchor: str = "single"  # what makes blocks canonical (nektar/chain/anchor.py)
    # As deep as that a block is final, on a chain whose providers call none so (indexer/finality.py).
    finality_depth: Annotated[int, msgspec.Meta(ge=0, le=65_536)] = 0
    from_block: Annotated[int, msgspec.Meta(ge=0)] = 0
    calls: Literal["all", "with_events"] = "all"  # with_events: of blocks that hold an event of the Network
    # Share of stake that is to be on time over 30 days. It is held against what is counted by whoever reads
    # that, and decides nothing of what a log means: a change shows with the store role's next start.
    objective: Annotated[float, msgspec.Meta(gt=0, lt=1)] = DEFAULT_OBJECTIVE
    generation: Annotated[int, msgspec.Meta(ge=1)] = 1
    # Seconds between looks at the head, of three calls each, where no provider announces it.
    poll: Annotated[float, msgspec.Meta(gt=0, le=60)] = 2.0


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    providers: dict[str, Provider]
    networks: Annotated[tuple[NetworkConfig, ...], msgspec.Meta(min_length=1)]
    data_dir: str = "./nektar-data"
    bus: str = ""  # default: sqlite under data_dir
    store: str = ""  # default: chdb under data_dir
    listen: Listen = Listen()
    telemetry: Telemetry = Telemetry()
    watchers: tuple[Watcher, ...] = ()

    @property
    def bus_url(self) -> str:
        return self.bus or f"sqlite://{Path(self.data_dir).absolute() / 'bus'}"

    @property
    def store_url(self) -> str:
        return self.store or f"chdb://{Path(self.data_dir).absolute() / 'store'}"

    def network(self, name: str | None = None) -> NetworkConfig:
        """The Network called `name`, or the only one. Raises ConfigError."""
        known = ", ".join(n.name for n in self.networks)
        if name is None:
            if len(self.networks) == 1:
                return self.networks[0]
            raise ConfigError(f"several Networks are configured ({known}): name one with --network")
        for network in self.networks:
            if network.name == name:
                return network
        raise ConfigError(f"network: expected one of {known}; got {name!r}")


_REFERENCE = re.compile(r"^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$|^file:(.+)$")


def reached_at(listen: str) -> str:
    """The host:port by which what listens at `listen` is reached here."""
    host, _, port = listen.rpartition(":")
    everywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104  # not bound here
    return f"{everywhere.get(host, host)}:{port}"


def parse(text: str, where: str = "nektar.yaml", base: Path | None = None) -> Config:
    """The configuration in `text`. Relative paths in it are relative to `base`.

    Raises ConfigError naming the key, what was expected and what came.
    """
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: expected keys and values; write a starter with `nektar init`")
    try:
        config = msgspec.convert(_resolve(data, where, "", base or Path()), Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}{_known_keys(str(error))}") from error
    for network in config.networks:
        for provider in network.rpc:
            if provider not in config.providers:
                raise ConfigError(
                    f"{where}: networks.{network.name}.rpc: expected a name under providers "
                    f"({', '.join(config.providers)}); got {provider!r}"
                )
        for name in network.code:
            if name not in network.contracts:
                raise ConfigError(
                    f"{where}: networks.{network.name}.code: expected names under contracts "
                    f"({', '.join(network.contracts)}); got {name!r}"
                )
        _check_anchor(config, network, f"{where}: networks.{network.name}")
    names = [network.name for network in config.networks]
    if len(set(names)) != len(names):
        raise ConfigError(f"{where}: networks: two Networks share a name ({', '.join(names)})")
    first = int(config.listen.metrics.rpartition(":")[2])
    if first and first + len(ROLES) > 65_536:
        raise ConfigError(
            f"{where}: listen.metrics: expected a port and {len(ROLES) - 1} more after it, one a role, up to "
            f"65535; got {first}"
        )
    for name in ("sql", "otlp", "otlp_grpc"):
        port = int(getattr(config.listen, name).rpartition(":")[2] or 0)
        if first and first <= port < first + len(ROLES):
            raise ConfigError(
                f"{where}: listen.metrics: {first} to {first + len(ROLES) - 1} are the roles', one each, and "
                f"listen.{name} is {port}: choose another for one of the two"
            )
    _check_telemetry(config.telemetry, names, f"{where}: telemetry")
    told = [watcher.name for watcher in config.watchers]
    if len(set(told)) != len(told):
        raise ConfigError(f"{where}: watchers: two watchers share a name ({', '.join(told)})")
    for watcher in config.watchers:
        for told_of in watcher.networks:
            if told_of not in names:
                raise ConfigError(
                    f"{where}: watchers.{watcher.name}.networks: expected names of {', '.join(names)}; "
                    f"got {told_of!r}"
                )
    if base is not None and not Path(config.data_dir).is_absolute():
        config = msgspec.structs.replace(config, data_dir=str((base / config.data_dir).absolute()))
    return config


def _check_anchor(config: Config, network: NetworkConfig, where: str) -> None:
    """Raises ConfigError for an anchor that is none, or that would hold less than it says."""
    if len(set(network.rpc)) < len(network.rpc):
        raise ConfigError(f"{where}.rpc: expected each provider once; got {', '.join(network.rpc)}")
    try:
        anchor = parse_anchor(network.anchor, len(network.rpc))
    except BadAnchor as error:
        raise ConfigError(f"{where}.anchor: {error}") from error
    urls = [config.providers[name].url for name in network.rpc]
    if isinstance(anchor, Quorum) and len(set(urls)) < len(urls):
        raise ConfigError(
            f"{where}.anchor: expected providers that are not the same for {network.anchor!r}; two of "
            f"{', '.join(network.rpc)} have one url"
        )
    if isinstance(anchor, Pinned) and anchor.block.number < network.from_block:
        raise ConfigError(
            f"{where}.anchor: expected a pinned block at or above from_block, {network.from_block}, so that "
            f"the log holds it; got {anchor.block.number}"
        )


def _known_keys(error: str) -> str:
    """What else to write, where msgspec names an unknown field and its place (`$.networks[0]`)."""
    if "unknown field" not in error:
        return ""
    structs = {
        "networks": NetworkConfig,
        "factories": Factory,
        "providers": Provider,
        "limits": Limits,
        "listen": Listen,
        "telemetry": Telemetry,
        "agents": Agent,
        "quota": Quota,
        "watchers": Watcher,
    }
    place = re.findall(r"[a-z]+", error.partition("$")[2])
    return f"; expected one of {', '.join(structs.get(place[-1] if place else '', Config).__struct_fields__)}"


def load(path: Path) -> Config:
    """The configuration in the file at `path`. Raises ConfigError."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; write a starter with `nektar init`") from None
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: expected text in UTF-8; got the byte {error.object[error.start]:#04x}"
        ) from error
    return parse(text, str(path), path.absolute().parent)


def find(config: Path | None, directory: Path | None) -> Path:
    """Which file to read: `--config`, then `--dir`'s own, then $NEKTAR_CONFIG, then ./nektar.yaml."""
    if config is not None:
        return config
    if directory is not None:
        return directory / "nektar.yaml"
    return Path(os.environ.get("NEKTAR_CONFIG") or "nektar.yaml")


def _check_telemetry(telemetry: Telemetry, networks: Sequence[str], where: str) -> None:
    """Raises ConfigError where one sender could be taken for another, or for nobody."""
    for name, agent in telemetry.agents.items():
        if name in RESERVED:
            raise ConfigError(f"{where}.agents: {name} is the pipeline's own name; give the sender another")
        if name.startswith("0x"):
            raise ConfigError(f"{where}.agents: expected a name that is no Operator's address; got {name!r}")
        for of in agent.networks:
            if of not in networks:
                raise ConfigError(
                    f"{where}.agents.{name}.networks: expected names of {', '.join(networks)}; got {of!r}"
                )
    if telemetry.agents and not telemetry.audience:
        raise ConfigError(f"{where}.audience: expected what the agents' tokens call this collector")
    if telemetry.audience and telemetry.unauthenticated:
        raise ConfigError(
            f"{where}: with unauthenticated nobody is asked for a token, with audience everybody is: keep one"
        )
    for proxy in telemetry.proxies:
        try:
            ip_network(proxy)
        except ValueError:
            raise ConfigError(
                f"{where}.proxies: expected addresses and networks, as 10.0.0.7 or 10.0.0.0/8; got {proxy!r}"
            ) from None


def resolve(value: str, where: str) -> str:
    """What an option's value names: `${NAME}` an environment variable, `file:PATH` a file's content, else
    itself. Raises ConfigError."""
    return str(_resolve(value, where, "", Path()))


def _resolve(value: Any, where: str, key: str, base: Path) -> Any:
    """`value` with every `${NAME}` and `file:PATH` string replaced by what it names."""
    if isinstance(value, dict):
        return {k: _resolve(v, where, f"{key}.{k}".lstrip("."), base) for k, v in value.items()}
    if isinstance(value, list):
        return [_resolve(v, where, f"{key}[{i}]", base) for i, v in enumerate(value)]
    if not isinstance(value, str) or not (match := _REFERENCE.match(value)):
        return value
    name, path = match.groups()
    if name:
        if name not in os.environ:
            raise ConfigError(f"{where}: {key}: the environment variable {name} is not set")
        return os.environ[name]
    try:
        return (base / path).read_text("utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{where}: {key}: {path} can't be read: {error.strerror}") from error

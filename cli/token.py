"""`nektar token`: mints a bearer token by which a sender of telemetry is known."""

from __future__ import annotations

import re
import time
from pathlib import Path
from urllib.parse import quote

from cli.settings import read_config
from nektar import config as configuration
from nektar import tokens
from nektar.config import NAME, Config, ConfigError
from nektar.evidence import bls
from nektar.evidence.canonical import Octets
from nektar.model import G1
from nektar.tokens import Claims, Role

DAY = 24 * 3600


def run(
    role: str,
    sender: str,
    key: str,
    days: int,
    network: str | None,
    chain_id: int | None,
    audience: str | None,
    config_path: Path | None,
    directory: Path | None,
) -> None:
    """Print the value of `OTEL_EXPORTER_OTLP_HEADERS`. Raises ConfigError."""
    config = None
    if network is None or chain_id is None or audience is None or config_path or directory:
        config, _ = read_config(config_path, directory)
        of = config.network(network)
        network, chain_id = of.name, chain_id or of.chain_id
        audience = audience or config.telemetry.audience
        if not audience:
            raise ConfigError("telemetry.audience: expected what the collector is called; it is not set")
    secret = _secret(key)
    public, twin = bls.public_keys(secret)
    name = sender.lower() if role == Role.OPERATOR else sender
    _check_sender(Role(role), name, network, public, config)
    expires = int(time.time()) + days * DAY
    try:
        claims = Claims(network, chain_id, audience, Role(role), name, expires, Octets(twin))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    print("authorization=" + quote(f"Bearer {tokens.mint(secret, claims)}"))


def _check_sender(role: Role, name: str, network: str, key: G1, config: Config | None) -> None:
    """Say now what a collector would refuse, as far as it can be known here: what is an Operator's key the
    chain says. Raises ConfigError."""
    agents = config.telemetry.agents if config else {}
    if role is Role.OPERATOR:
        if name in agents:
            raise ConfigError(f"--role: {name} is an {agents[name].role} in telemetry.agents; say that it is")
        return
    if not re.fullmatch(NAME, name) or name.startswith("0x"):
        raise ConfigError(
            f"expected the name of an {role} as telemetry.agents has it, of a-z, 0-9, _ and -, or --role "
            f"operator for an address; got {name[:80]!r}"
        )
    if config is None:
        return
    if (agent := agents.get(name)) is None:
        raise ConfigError(f"expected one of telemetry.agents ({', '.join(agents) or 'none'}); got {name!r}")
    if Role(agent.role) is not role:
        raise ConfigError(f"--role: {name} is an {agent.role} in telemetry.agents; got {role}")
    if not agent.is_of(network):
        raise ConfigError(
            f"--network: {name} is of {', '.join(agent.networks)} in telemetry.agents; got {network}"
        )
    if agent.key != "0x" + key.hex():
        raise ConfigError(f"--key: telemetry.agents has another key for {name} than this secret's")


def _secret(named: str) -> int:
    """The secret that the option names, which is never an argument itself. Raises ConfigError."""
    if not named.startswith(("file:", "${")):
        raise ConfigError(
            "--key: expected file:PATH or ${NAME} of an environment variable: arguments are for all to see"
        )
    value = configuration.resolve(named, "--key")
    try:
        secret = int(value, 16)
        bls.public_keys(secret)
    except ValueError:
        raise ConfigError(f"--key: expected a BN254 secret in hex; {named} holds something else") from None
    return secret

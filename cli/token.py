"""`nektar token`: mints a bearer token by which a sender of telemetry is known."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import quote

from cli.settings import read_config
from nektar import config as configuration
from nektar import tokens
from nektar.config import ConfigError
from nektar.evidence import bls
from nektar.evidence.canonical import Octets
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
    if network is None or chain_id is None or audience is None:
        config, _ = read_config(config_path, directory)
        of = config.network(network)
        network, chain_id = of.name, chain_id or of.chain_id
        audience = audience or config.telemetry.audience
        if not audience:
            raise ConfigError("telemetry.audience: expected what the collector is called; it is not set")
    secret = _secret(key)
    name = sender.lower() if role == Role.OPERATOR else sender
    twin, expires = Octets(bls.public_keys(secret)[1]), int(time.time()) + days * DAY
    try:
        claims = Claims(network, chain_id, audience, Role(role), name, expires, twin)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    print("authorization=" + quote(f"Bearer {tokens.mint(secret, claims)}"))


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

"""`nektar watchers test`: a signed event to each watcher, and what came back."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path

from cli.settings import read_config
from nektar.config import ConfigError, Watcher
from nektar.errors import NektarError
from processors.watchers import check
from processors.webhook import Answer, Outcome, Webhook


class NotTaken(NektarError):
    """A receiver did not take the test event."""


def test(name: str | None, config_path: Path | None, directory: Path | None) -> None:
    """Send each watcher, or the one called `name`, an event of the type `nektar.test`. Raises NotTaken."""
    config, path = read_config(config_path, directory)
    chosen = [watcher for watcher in config.watchers if name in (None, watcher.name)]
    if not chosen:
        known = ", ".join(watcher.name for watcher in config.watchers) or "none: it has no `watchers`"
        raise ConfigError(
            f"watchers test: expected a watcher that {path} names ({known}); got {name or 'none'}"
        )
    refused = [watcher.name for watcher in chosen if not _took(watcher, check(watcher))]
    if refused:
        raise NotTaken(f"watchers test: {', '.join(refused)} did not take it; findings would wait")


def _took(watcher: Watcher, webhook: Webhook) -> bool:
    started = time.monotonic()
    answer = asyncio.run(_send(webhook))
    taken = answer.outcome is Outcome.TAKEN
    milliseconds = (time.monotonic() - started) * 1000
    print(f"{watcher.name}: {'taken' if taken else 'NOT taken'}: {answer.words} ({milliseconds:.0f} ms)")
    return taken


async def _send(webhook: Webhook) -> Answer:
    event = {
        "specversion": "1.0",
        "id": secrets.token_hex(16),
        "source": "/nektar/watchers/test",
        "type": "nektar.test",
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "datacontenttype": "application/json",
        "data": {},
    }
    async with webhook:
        return await webhook.send(json.dumps(event).encode())

"""`nektar index`: any contract's events, straight into the store's typed tables; no Network is needed."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

from cli.settings import data_config
from indexer.bulk import Progress, index
from indexer.filled import Plan
from indexer.ranges import Range
from nektar.chain import abi
from nektar.chain.jsonrpc import quantity
from nektar.chain.logs import NUMBER_BITS
from nektar.chain.rpc import Provider, Refused
from nektar.config import Config, ConfigError, Limits, resolve
from nektar.model import Address, Level
from nektar.store.client import open_store
from nektar.store.migrate import migrate
from nektar.store.port import Store

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
# Without a terminal a line now and then is enough.
PLAIN_LINE_SECONDS = 5.0


def run(
    rpc: str,
    abi_file: Path,
    addresses: list[str],
    first: int,
    last: int | None,
    check: str,
    name: str,
    config_path: Path | None,
    directory: Path | None,
    as_json: bool,
) -> None:
    """Read the events of `addresses` in blocks `first` to `last` (None: the newest that is final)."""
    config = data_config(config_path, directory, new=True)
    if check not in (Level.REPORTED, Level.PROVED):
        raise ConfigError(f"--check: expected reported or proved; got {check!r:.80}")
    level = Level(check)
    contract = read_abi(abi_file)
    for address in addresses:
        if not _ADDRESS.fullmatch(address):
            raise ConfigError(f"--address: expected 0x and 40 hex digits; got {address!r:.80}")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--name: expected letters, digits, - and _, as {_NAME.pattern}; got {name!r:.80}")
    contracts = {Address(bytes.fromhex(address[2:])): contract for address in addresses}
    with open_store(config.store_url) as store:
        migrate(store, [])
        began = time.monotonic()
        done, blocks = asyncio.run(
            _index(
                config, rpc, store, Plan(name, contracts, Range(first, last or first), level), last is None
            )
        )
        stored = _count(store, name, contract, blocks)
        seconds = time.monotonic() - began
    if as_json:
        found = {
            "name": name,
            "first": blocks.first,
            "last": blocks.last,
            "level": str(level),
            "read": done.logs,
        }
        print(
            json.dumps({**found, "stored": stored, "undecoded": done.undecoded, "seconds": round(seconds, 3)})
        )
        return
    rate = f" ({done.logs / seconds:,.0f} a second)" if done.logs else ""
    print(f"{name}: blocks {blocks.first:,} to {blocks.last:,}: {done.logs:,} logs {level}{rate}")
    for table, count in stored.items():
        print(f"  {table.rpartition('_')[0]}: {count:,} rows in the store")
    if done.undecoded:
        print(f"  undecoded: {done.undecoded:,} logs that the ABI can't have made; see the table `undecoded`")


def read_abi(path: Path) -> abi.Abi:
    """The ABI in a file: a JSON list, or an object that holds one as `abi`. Raises ConfigError, AbiError."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"--abi: {path} can't be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"--abi: {path}: expected JSON; {error}") from None
    entries = found.get("abi") if isinstance(found, dict) else found
    if not isinstance(entries, list):
        raise ConfigError(f"--abi: {path}: expected a list of entries, or an object with one as `abi`")
    contract = abi.load(entries)
    if not contract.events:
        raise ConfigError(f"--abi: {path}: expected events; it names none")
    return contract


async def _index(
    config: Config, rpc: str, store: Store, plan: Plan, to_newest: bool
) -> tuple[Progress, Range]:
    """Index the plan; where `to_newest`, up to the newest block that is final."""
    async with _provider(config, rpc) as provider:
        newest = await _number(provider, "latest") or 0
        if to_newest:
            final = await _number(provider, "finalized") or newest
            plan = plan._replace(blocks=Range(plan.blocks.first, final))
        blocks = plan.blocks
        if not blocks.first <= blocks.last <= newest:
            raise ConfigError(
                f"--from, --to: expected blocks in order, up to the newest, {newest}; got {blocks.first} and "
                f"{blocks.last}"
            )
        with Shown(plan.name) as shown:
            return await index(provider, store, plan, shown.on), blocks


def _provider(config: Config, rpc: str) -> Provider:
    """The provider that the configuration calls so, or the one at this URL."""
    if known := config.providers.get(rpc):
        return Provider(rpc, known.url, known.limits)
    url = resolve(rpc, "--rpc")
    if "://" not in url:
        named = ", ".join(config.providers) or "none is configured"
        raise ConfigError(f"--rpc: expected a URL or a provider's name ({named}); got {rpc!r:.80}")
    return Provider("rpc", url, Limits())


async def _number(provider: Provider, tag: str) -> int | None:
    """The number of the block that the chain calls so; None where it has no such tag."""
    try:
        block = await provider.call("eth_getBlockByNumber", tag, False)
    except Refused:
        return None
    return quantity(block, "number", NUMBER_BITS) if isinstance(block, dict) else None


def _count(store: Store, name: str, contract: abi.Abi, blocks: Range) -> dict[str, int]:
    """How many rows of these blocks each table has."""
    counts = {}
    for event in contract.events:
        ((count,),) = store.rows(
            f"SELECT count() FROM {event.table} FINAL WHERE network = '{name}'"  # noqa: S608  # checked
            f" AND block_number BETWEEN {blocks.first} AND {blocks.last}"
        )
        counts[event.table] = int(count)
    return counts


class Shown:
    """Progress with rate and time left: live on a terminal, a line now and then elsewhere."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._name = name
        self._console = Console(stderr=True)
        self._bar: Any = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} blocks, {task.fields[logs]:,} logs"),
            TextColumn("{task.fields[rate]:,.0f} logs/s"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task(name, total=0, logs=0, rate=0.0)
        self._began = self._said = time.monotonic()

    def __enter__(self) -> Shown:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def on(self, progress: Progress) -> None:
        now = time.monotonic()
        rate = progress.logs / (now - self._began) if now > self._began else 0.0
        self._bar.update(
            self._task, total=progress.blocks, completed=progress.done, logs=progress.logs, rate=rate
        )
        if not self._console.is_terminal and now - self._said >= PLAIN_LINE_SECONDS:
            self._said = now
            self._console.print(
                f"{self._name}: {progress.done:,} of {progress.blocks:,} blocks, {progress.logs:,} logs, "
                f"{rate:,.0f} a second",
                highlight=False,
                soft_wrap=True,
            )

"""`nektar index`: any contract's events, straight into the store's typed tables; no Network is needed."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cli.providers import named, serving
from cli.settings import data_config
from indexer.bulk import Progress, index
from indexer.correct import Dissent, dissent
from indexer.decode import LOST_A_BLOCK
from indexer.filled import covered
from indexer.plan import Plan
from indexer.ranges import Range, missing
from nektar.chain import abi
from nektar.chain.rpc import Provider
from nektar.config import ConfigError
from nektar.errors import NektarError
from nektar.model import Address, Level
from nektar.store.client import is_new, open_store
from nektar.store.migrate import migrate
from nektar.store.port import Store
from nektar.store.schema import generations_table, literal

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_GENERATIONS = generations_table().name
# Without a terminal a line now and then is enough.
PLAIN_LINE_SECONDS = 5.0
# Lies that are told one by one on a terminal; all are in the store.
SHOWN_LIES, SHOWN_LIES_AS_JSON = 20, 1000


class Lied(NektarError):
    """An audit has found lies. All that it was told to do is done."""

    exit_code = 3


class Unproved(NektarError):
    """An audit has blocks before it of which nothing was reported: it says nothing of them."""


class Outcome(NamedTuple):
    """What came of a plan."""

    plan: Plan
    done: Progress
    stored: Mapping[str, int]  # rows by table
    found: Dissent
    unproved: Sequence[Range]
    seconds: float


def run(
    rpc: list[str],
    abi_file: Path,
    addresses: list[str],
    first: int,
    last: int | None,
    check: str,
    audit: bool,
    name: str,
    config_path: Path | None,
    directory: Path | None,
    as_json: bool,
) -> None:
    """Read the events of `addresses` in blocks `first` to `last` (None: the newest that is final).

    Raises Lied where an audit of these blocks, this one or an earlier, has found lies; Unproved where it has
    left some of them unproved.
    """
    config = data_config(config_path, directory, new=True)
    if check not in (Level.REPORTED, Level.PROVED):
        raise ConfigError(f"--check: expected reported or proved; got {check!r:.80}")
    level = Level(check)
    if audit and level is not Level.PROVED:
        raise ConfigError("--audit proves what was reported: expected --check proved, or none; got reported")
    contract = read_abi(abi_file)
    for address in addresses:
        if not _ADDRESS.fullmatch(address):
            raise ConfigError(f"--address: expected 0x and 40 hex digits; got {address!r:.80}")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--name: expected letters, digits, - and _, as {_NAME.pattern}; got {name!r:.80}")
    if name in {network.name for network in config.networks}:
        raise _taken(name)
    contracts = {Address(bytes.fromhex(address[2:])): contract for address in addresses}
    providers = named(config, rpc)
    began = time.monotonic()

    def plan_of(chain_id: int, blocks: Range) -> Plan:
        return Plan(name, chain_id, contracts, blocks, level, audit)

    with ExitStack() as held:

        @cache
        def opened() -> Store:
            store = held.enter_context(open_store(config.store_url))
            migrate(store, [])
            if store.rows(f"SELECT 1 FROM {_GENERATIONS} WHERE network = {literal(name)} LIMIT 1"):  # noqa: S608
                raise _taken(name)
            return store

        empty = is_new(config.store_url)
        done, plan = asyncio.run(_index(providers, opened, plan_of, first, last, empty))
        store = opened()
        stored = _count(store, name, contract, plan.blocks)
        seconds = time.monotonic() - began
        found = dissent(store, plan, SHOWN_LIES_AS_JSON if as_json else SHOWN_LIES)
        proved = [each.blocks for each in covered(store, plan, Level.PROVED)]
    unproved = missing(plan.blocks, proved)
    (_say_as_json if as_json else _say)(Outcome(plan, done, stored, found, unproved, seconds))
    if audit and found.lies:
        raise Lied(
            f"{name}: {found.lies:,} lies were reported of blocks {plan.blocks.first:,} to "
            f"{plan.blocks.last:,}, by {', '.join(found.providers)}; the rows are corrected, and the table "
            "`dissent` names each"
        )
    if audit and unproved:
        raise Unproved(
            f"{name}: {_blocks(unproved):,} of {plan.blocks.blocks:,} blocks are not proved, from block "
            f"{unproved[0].first:,} on: nothing was reported of them (see `nektar coverage`); "
            "--check proved without --audit reads them"
        )


def _blocks(ranges: Sequence[Range]) -> int:
    return sum(each.blocks for each in ranges)


def _taken(name: str) -> ConfigError:
    return ConfigError(
        f"--name: {name} is a Network's, whose rows and gaps would no longer be told from these: expected "
        "another name"
    )


def _say(of: Outcome) -> None:
    plan, done, stored, found, unproved, seconds = of
    (first, last), rate = plan.blocks, f" ({done.logs / seconds:,.0f} a second)" if done.logs else ""
    read = f", {done.blocks:,} of them audited" if plan.audit else ""
    print(f"{plan.name}: blocks {first:,} to {last:,}{read}: {done.logs:,} logs {plan.level}{rate}")
    for table, count in stored.items():
        print(f"  {table.rpartition('_')[0]}: {count:,} rows in the store")
    if done.undecoded:
        print(
            f"  undecoded: {done.undecoded:,} logs that the ABI can't have made; the table `undecoded` has "
            f"{LOST_A_BLOCK} of each block"
        )
    for lie in found.first:
        log = "" if lie.log_index < 0 else f", log {lie.log_index}"
        print(f"  {lie.lie}: block {lie.block_number:,} ({lie.block_hash}){log}: reported by {lie.provider}")
    if (more := found.lies - len(found.first)) > 0:
        print(f"  and {more:,} lies more; see the table `dissent`")
    if plan.audit and unproved:
        print(f"  {_blocks(unproved):,} blocks are not proved: nothing was reported of them")
    elif plan.audit and not found.lies:
        print("  no lie was found")


def _say_as_json(of: Outcome) -> None:
    plan, done, stored, found, unproved, seconds = of
    said = {
        "name": plan.name,
        "first": plan.blocks.first,
        "last": plan.blocks.last,
        "level": str(plan.level),
        "blocks": done.blocks,
        "read": done.logs,
        "stored": stored,
        "undecoded": done.undecoded,
        "dissent": found.lies,
        "unproved": _blocks(unproved),
        "lies": [msgspec.structs.asdict(lie) for lie in found.first],
        "seconds": round(seconds, 3),
    }
    print(json.dumps(said))


def read_abi(path: Path) -> abi.Abi:
    """The events of the ABI in a file: a JSON list, or an object that holds one as `abi`. Raises ConfigError,
    AbiError."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"--abi: {path} can't be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"--abi: {path}: expected JSON; {error}") from None
    entries = found.get("abi") if isinstance(found, dict) else found
    if not isinstance(entries, list):
        raise ConfigError(f"--abi: {path}: expected a list of entries, or an object with one as `abi`")
    contract = abi.load_events(entries)
    if not contract.events:
        raise ConfigError(f"--abi: {path}: expected events; it names none")
    return contract


async def _index(
    providers: Sequence[Provider],
    opened: Callable[[], Store],
    plan_of: Callable[[int, Range], Plan],
    first: int,
    last: int | None,
    empty: bool,
) -> tuple[Progress, Plan]:
    """Index the plan of the providers' chain; where `last` is None, up to the newest block that is final."""
    async with serving(providers, last) as (pool, chain):
        if last is None and chain.final is not None:
            if first > chain.final:
                raise ConfigError(
                    f"--from: expected a final block, {chain.final} at most; got {first}: "
                    "give --to for blocks that may still change"
                )
            last = chain.final
        if last is None or not first <= last <= chain.newest:
            raise ConfigError(
                f"--from, --to: expected blocks in order, up to the newest, {chain.newest}; got {first} and "
                f"{last}"
            )
        plan = plan_of(chain.id, Range(first, last))
        with Shown(plan.name) as shown:
            return await index(pool, opened, plan, shown.on, is_new=empty), plan


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
        if self._console.is_terminal:
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

"""What providers are asked for a finding: its evidence, verified, and what its contract says of the proof.

None of them is believed: a bundle counts once the verifier has accepted it, and of several providers the
first whose answer holds is taken. That the contract refuses a proof nobody can show: so all are asked until
one says that it accepts.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack
from typing import Any, NamedTuple, Self, TypeVar

from nektar.bus.port import Bus
from nektar.chain.abi import ErrorType, load
from nektar.chain.pool import Pool
from nektar.chain.rpc import Oversized, Provider, RpcError, Unreachable, open_providers
from nektar.config import Config
from nektar.errors import NektarError
from nektar.evidence import bundle as bundles
from nektar.evidence.bundle import Bundle
from nektar.evidence.canonical import NotCanonical
from nektar.evidence.gather import Forgotten, gather, require_pinned
from nektar.evidence.reader import reader_of
from nektar.evidence.sets import Sets
from nektar.evidence.sought import Sought
from nektar.evidence.verify import NotProved, TooMuch, verify
from nektar.model import BlockRef, Network, UnknownContract
from nektar.networks.adapter import Adapter
from nektar.rows import DryRunRow, Finding
from processors.conditions.condition import Condition, Dispute
from processors.docket import MOST_ATTEMPTS, Case, Key
from processors.dry_run import dry_run, newest
from processors.made import Made

log = logging.getLogger(__name__)

T = TypeVar("T")


class Unshowable(NektarError):
    """Nobody can be shown a finding's evidence, whichever provider is asked for it."""


class Unserved(NektarError):
    """Providers have answered, and none of them serves what a case needs; each says why not."""

    def __init__(self, errors: Sequence[Exception]) -> None:
        why = "; ".join(map(str, errors))
        super().__init__(f"no provider that answers serves what it needs: {why}")
        self.is_forgotten = any(isinstance(error, Forgotten) for error in errors)


class Done(NamedTuple):
    """What came of working on a case: its bundle, or why there is none; dry runs of some of the providers, or
    that there is none."""

    bundle: bytes = b""
    missing: str = ""
    runs: Sequence[DryRunRow] = ()
    providers: Sequence[str] = ()
    nothing: bool = False


class Work:
    """What is asked of providers, in a thread of its own: one event loop, a pool for each Network."""

    def __init__(
        self,
        config: Config,
        adapters: Mapping[str, Adapter],
        conditions: Mapping[str, Condition],
        bus: Bus,
    ) -> None:
        self._config = config
        self._conditions = conditions
        self._errors: dict[str, Mapping[bytes, ErrorType]] = {}
        for network in config.networks:
            abis = adapters[network.name].abi().values()
            self._errors[network.name] = {k: v for abi in abis for k, v in load(abi).errors.items()}
        self._networks: dict[tuple[str, int], Network] = {}
        self._pools: dict[str, Pool] = {}
        self._sets = Sets()
        self._made = {network.name: Made(bus, network.name) for network in config.networks}
        self._reading = asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._opened = AsyncExitStack()
        self._thread = threading.Thread(target=self._loop.run_forever, name="providers", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.start(self._open()).result()
        return self

    def __exit__(self, *exc: object) -> None:
        self.start(self._close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def look(self, networks: Sequence[Network]) -> None:
        """Know these generations of the Networks."""
        self._networks = {(network.name, network.generation): network for network in networks}

    def knows(self, key: Key) -> bool:
        """Whether the finding is of a log that is followed."""
        return key[:2] in self._networks

    def on(self, key: Key, case: Case) -> Future[Done | None]:
        """Begin with what is to be done next about a case; None: not now."""
        return self.start(self._next(self._networks[key[:2]], case))

    async def _open(self) -> None:
        for network in self._config.networks:
            providers = await open_providers(self._config, network.name, self._opened)
            self._pools[network.name] = Pool(providers, lies=NotProved)

    async def _close(self) -> None:
        mine = asyncio.current_task()
        running = [task for task in asyncio.all_tasks() if task is not mine]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._loop.shutdown_default_executor()  # a page of the bus that is read
        await self._opened.aclose()

    async def _next(self, network: Network, case: Case) -> Done | None:
        condition = self._conditions.get(case.finding.condition)
        if condition is None:
            return Done(nothing=True)
        if not case.bundle:
            try:
                return Done(bundle=await self._evidence(network, case.finding, condition))
            except Unshowable as error:
                return Done(missing=str(error))
        bundle = bundles.read(case.bundle.encode())
        dispute = condition.dispute(bundle) if condition.dispute else None
        if dispute is None:
            return Done(nothing=True)
        try:
            network.contract(dispute.contract)
        except UnknownContract as error:
            log.warning("%s: no dry run: %s", network.name, error)
            return Done(nothing=True)
        if not case.refused:
            try:
                return await self._tried(network, case, bundle, dispute, self._at_first)
            except (
                Unserved
            ) as error:  # nobody keeps that state, as most nodes do for some hundred blocks alone
                log.info("%s: %s; its proof is tried on a later block", network.name, error)
        return await self._tried(network, case, bundle, dispute, self._at_later)

    async def _evidence(self, network: Network, finding: Finding, condition: Condition) -> bytes:
        """The finding's bundle. State that nobody serves any more is taken from one that it was given before,
        by another generation of the log. Raises Unshowable, Unserved, RpcError."""
        pool, sought = self._pools[network.name], _sought(condition, finding)
        try:
            return await _first(pool, lambda each: self._gathered(each, network, finding, sought))
        except Unserved as error:
            kept = await self._kept(network, finding) if error.is_forgotten else None
            if kept is None:
                raise
        return await _first(pool, lambda each: self._gathered(each, network, finding, sought, kept))

    async def _kept(self, network: Network, finding: Finding) -> Bundle | None:
        """The newest bundle that the finding was given."""
        made = self._made[network.name]
        async with self._reading:
            while await asyncio.to_thread(made.read_on):
                pass
            text = await asyncio.to_thread(made.newest, finding.id)
        try:
            return bundles.read(text.encode()) if text else None
        except NotCanonical as error:
            log.warning("%s, finding 0x%s: its bundle: %s", network.name, finding.id.hex(), error)
            return None

    async def _gathered(
        self,
        provider: Provider,
        network: Network,
        finding: Finding,
        sought: Sought,
        kept: Bundle | None = None,
    ) -> bytes:
        """The bundle of what the provider serves, as every verifier accepts it. Raises NotProved, RpcError;
        Unshowable for what no verifier takes, however true it is. A provider's lie is found before that, so
        that no finding is given up because of it."""
        bundle = await gather(provider, network, finding, sought, kept, self._sets)
        reader = reader_of(self._config.network(network.name), network)
        try:
            verdict = verify(bundle, reader, lambda name: self._conditions[name].holds)
            require_pinned(verdict, finding, sought)
            if verdict.id != finding.id:
                raise NotProved(f"it proves finding 0x{verdict.id.hex()}; expected 0x{finding.id.hex()}")
            text = bundles.write(bundle)
            bundles.read(text)
        except (TooMuch, NotCanonical) as error:
            raise Unshowable(str(error)) from error
        except NotProved as error:
            raise NotProved(f"what provider {provider.name} serves is no evidence: {error}") from error
        return text

    async def _tried(
        self,
        network: Network,
        case: Case,
        bundle: Bundle,
        dispute: Dispute,
        place: Callable[[Provider, Case], Awaitable[BlockRef | None]],
    ) -> Done | None:
        """What providers say of the proof, each on the state of its place, up to the first that accepts it;
        None: not now. Raises Unserved, RpcError where none can say."""
        pool, errors = self._pools[network.name], self._errors[network.name]
        runs: list[DryRunRow] = []

        async def accepts(provider: Provider) -> bool:
            if (at := await place(provider, case)) is None:
                return False
            runs.append(await dry_run(provider, network, case.finding.id, bundle, dispute, at, errors))
            return runs[-1].accepted

        if await _first(pool, accepts, is_less=lambda accepted: not accepted):
            for run in runs[:-1]:
                log.warning(
                    "%s, finding 0x%s: provider %s accepts the proof; %s says: %s",
                    *(network.name, run.id.hex(), runs[-1].provider, run.provider, run.revert),
                )
        return Done(runs=runs, providers=[each.name for each in pool.providers]) if runs else None

    async def _at_first(self, provider: Provider, case: Case) -> BlockRef | None:
        """The finding's block, once that is the newest no more: a node that is asked for its newest block may
        import the next one under the call, and answer for that (anvil does)."""
        return case.finding.block if (await newest(provider)).number > case.finding.block_number else None

    async def _at_later(self, provider: Provider, case: Case) -> BlockRef | None:
        """Its newest block, once that is a later one than those on which it has refused the proof; None, too,
        where it has done so often enough."""
        refused = case.refused.get(provider.name, ())
        if len(refused) >= MOST_ATTEMPTS:
            return None
        at = await newest(provider)
        return at if at.number > max((case.finding.block_number, *refused)) else None


async def _first(
    pool: Pool, ask: Callable[[Provider], Awaitable[T]], is_less: Callable[[T], bool] = lambda _: False
) -> T:
    """As `Pool.first`. Raises Unserved where somebody answered, RpcError where nobody did."""
    answered: list[Exception] = []

    async def asked(provider: Provider) -> T:
        try:
            return await ask(provider)
        except (RpcError, NotProved) as error:
            if not isinstance(error, Unreachable) or isinstance(error, Oversized):
                answered.append(error)
            raise

    try:
        return await pool.first(asked, is_less)
    except (RpcError, NotProved) as error:
        if answered:
            raise Unserved(answered) from error
        raise


def _sought(condition: Condition, finding: Finding) -> Sought:
    """What is to be shown of a finding. Raises Unshowable."""
    try:
        return condition.claims(finding)
    except NotCanonical as error:
        raise Unshowable(f"another version found it; raise the Network's generation: {error}") from error

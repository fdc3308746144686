"""Several providers of one chain, of which the best is asked, and the next where it brings nothing.

Who is best is `ranks.py`'s to say, from what came of each question, and from a small question now and then
that measures how quick each is whatever it has to do (`watch`). One whose newest block stays behind that of
most others counts as one that fails: it answers, and what it says is old.

Nothing here decides what is canonical.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from opentelemetry import metrics

from nektar.chain.ranks import DOUBT_SECONDS, Ranks
from nektar.chain.rpc import Provider, RpcError, Unreachable

logger = logging.getLogger(__name__)

PROBE_SECONDS = 15.0
# Blocks that a provider may be behind others in two probes running: what the way to it and a slot explain.
BEHIND = 3

_contradictions = metrics.get_meter("nektar").create_counter(
    "nektar.provider.contradictions", "{contradiction}", "What a provider served that contradicts a header"
)

T = TypeVar("T")


class Absent(RpcError):
    """A provider has no such thing, and said so several times."""


class Pool:
    """The providers of one chain, in the order in which they are preferred until more is known."""

    def __init__(
        self,
        providers: Sequence[Provider],
        lies: type[Exception],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`lies`: what is raised where a provider contradicts a header or itself."""
        self.providers = tuple(providers)
        self._by_name = {provider.name: provider for provider in providers}
        self._lies = lies
        self._clock = clock
        self._ranks = Ranks(list(self._by_name), clock)
        self._behind: set[str] = set()  # in the last probe

    def __len__(self) -> int:
        return len(self.providers)

    @property
    def best(self) -> Provider:
        """The provider that is asked next."""
        return self._by_name[self._ranks.order()[0]]

    def order(self) -> list[Provider]:
        """All, best first."""
        return [self._by_name[name] for name in self._ranks.order()]

    def well(self) -> list[Provider]:
        """Those that are neither doubted nor at rest, best first; all, where none is well."""
        order = self.order()
        return [each for each in order if self._ranks.is_well(each.name)] or order

    async def first(
        self,
        ask: Callable[[Provider], Awaitable[T]],
        is_less: Callable[[T], bool] = lambda _: False,
        before: Provider | None = None,
    ) -> T:
        """The answer of the best provider that gives one. Raises what the first did that gave none; Absent
        only where all of them said so. `is_less` tells answers that count only where nobody has more;
        `before` all others this provider is asked, so that work is spread over several."""
        failed: Exception | None = None
        less: list[T] = []
        for provider in sorted(self.order(), key=lambda each: each is not before):
            asked_at = self._clock()
            try:
                answer = await ask(provider)
            except (RpcError, self._lies) as error:
                if isinstance(error, self._lies):
                    self.contradicted(provider.name)
                else:
                    rest = error.rest if isinstance(error, Unreachable) else 0.0
                    self._ranks.failed(provider.name, asked_at, rest)
                if len(self) > 1:
                    logger.warning("%s; asking another provider", error)
                if failed is None or isinstance(failed, Absent):
                    failed = error
            else:
                self._ranks.served(provider.name)
                if not is_less(answer):
                    return answer
                less.append(answer)
        if less:
            return less[0]
        if failed is None:
            raise ValueError("expected a provider")
        raise failed

    def contradicted(self, name: str) -> None:
        """What this provider served contradicts a header: count it, and ask it last from now on."""
        _contradictions.add(1, {"provider": name})
        if len(self) > 1 and not self._ranks.doubted(name):
            logger.warning("provider %s is asked last for the next %.0f minutes", name, DOUBT_SECONDS / 60)
        self._ranks.doubt(name)

    def turn_from(self, name: str) -> None:
        """Ask the others first from now on: what this provider says is to be seen by another too."""
        self._ranks.doubt(name)

    async def watch(self) -> None:
        """Probe all from time to time, until cancelled; one alone is nothing to choose from."""
        while len(self) > 1:
            await self.probe()
            await asyncio.sleep(PROBE_SECONDS)

    async def probe(self) -> None:
        """Measure how quick each provider is, and see who is behind."""
        heads = dict(zip(self._by_name, await asyncio.gather(*map(self._ping, self.providers)), strict=True))
        behind = set()
        for name, head in heads.items():
            others = [said for other, said in heads.items() if other != name and said is not None]
            ahead = [said for said in others if head is not None and said > head + BEHIND]
            if 2 * len(ahead) > len(others):
                behind.add(name)
        for name in behind & self._behind:
            logger.warning("provider %s: its newest block is %s; others have %s", name, heads[name], heads)
            self._ranks.failed(name, self._clock())
        self._behind = behind

    async def _ping(self, provider: Provider) -> int | None:
        """The number of its newest block, if it says one."""
        asked_at = self._clock()
        try:
            seconds, head = await provider.ping()
        except RpcError:
            self._ranks.failed(provider.name, asked_at)
            return None
        self._ranks.measured(provider.name, seconds)
        return head

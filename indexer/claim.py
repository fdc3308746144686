"""One run at a time reads under a name: it claims the name, and gives it back at its end.

    the claim of another run                        who comes next
    was renewed in the last LEASE seconds           is refused
    was not                                         takes the name
    is of another process, in an embedded store     takes the name: that process is dead, or this one could
                                                    not have opened the store

A claim is written before others are looked for, so that of two runs that begin at once one is refused, or
both are. It is renewed every BEAT seconds, and looked at before each write. Who finds then that another has
taken the name writes no more; one that was taken away can't be renewed, since no version is higher than its
last.
"""

from __future__ import annotations

import os

from indexer.plan import Plan
from nektar.errors import NektarError
from nektar.store.port import Store, chdb_path
from nektar.store.schema import literal

# By the store's clock, longer than any write takes: clickhouse-connect waits 300 seconds for one.
LEASE, BEAT = 600, 60

_PROCESS = os.urandom(16).hex()
_LAST = (1 << 64) - 1  # version


class Claimed(NektarError):
    """Another run reads under the name."""


class Claim:
    """A run's claim of its plan's name. One thread at a time calls it."""

    def __init__(self, store: Store, plan: Plan) -> None:
        """Raises Claimed where another run has the name, StoreError."""
        self._store = store
        self._name = plan.name
        run = os.urandom(16).hex()
        self._mine = f"network = {literal(plan.name)} AND run = {literal(run)}"
        first, last = plan.blocks
        store.command(
            "INSERT INTO claims (network, run, process, first, last, until, version, is_deleted)"
            f" SELECT {literal(plan.name)}, {literal(run)}, {literal(_PROCESS)}, {first}, {last},"
            f" now() + {LEASE}, 0, 0"
        )
        others = f"network = {literal(plan.name)} AND run != {literal(run)}"
        found = store.rows(
            "SELECT process, first, last, toString(until), until > now()"  # noqa: S608
            f" FROM claims FINAL WHERE {others}"
        )
        is_shared = chdb_path(store.url) is None
        for process, first, last, until, lasts in found:
            if lasts and (is_shared or process == _PROCESS):
                self.release()
                raise Claimed(
                    f"--name: another run reads blocks {first:,} to {last:,} under {plan.name}: expected one "
                    f"at a time; give another name, or wait for its end, or, where it was killed, until "
                    f"{until} UTC"
                )
        if found:
            self._take_away(others)

    def hold(self) -> None:
        """See that it lasts for about a LEASE. Raises Claimed where another run has the name, StoreError."""
        if self._lasts(LEASE - BEAT):
            return
        self._change(self._mine, f"now() + {LEASE} AS until, version + 1 AS version")
        if not self._lasts(0):
            raise Claimed(
                f"--name: another run has taken {self._name}, since this one stood still for more than "
                f"{LEASE // 60} minutes: what it has covered stands; start it again after the other's end"
            )

    def release(self) -> None:
        """Give the name back. Raises StoreError."""
        self._take_away(self._mine)

    def _lasts(self, seconds: int) -> bool:
        mine = f"{self._mine} AND until > now() + {seconds}"
        return bool(self._store.rows(f"SELECT 1 FROM claims FINAL WHERE {mine}"))  # noqa: S608

    def _take_away(self, which: str) -> None:
        self._change(which, f"1 AS is_deleted, {_LAST} AS version")

    def _change(self, which: str, change: str) -> None:
        self._store.command(
            f"INSERT INTO claims SELECT * REPLACE ({change}) FROM claims FINAL WHERE {which}"  # noqa: S608
        )

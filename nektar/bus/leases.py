"""Groups: who is a member, who is alive, and which partitions each member holds.

All of it is in one small file, `groups.db`, that members write when something changes and every quarter of
a lease. There is no coordinator: every member computes the same fair shares (`shares`) from the same table.

A partition is handed over, never torn away: its holder finds in its next `sync` that it has more than its
share, finishes what it is at, gives the surplus up, and rings; whoever is short of its share takes what is
free. Only from a member that is dead (its bell is gone) or that has not called for a whole lease are
partitions taken, and each taking raises the partition's **epoch**, with which the new holder fences the old
one in the partition's own file (`partition.py`) before it reads the first message.

Times are of the monotonic clock, which processes of one machine share; after a reboot every bell is dead.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from nektar.bus.bell import Bell, Ringer, alive
from nektar.bus.database import Database, told

# Renewed this often within a lease, so that one slow disk write does not cost it.
RENEWALS = 4

SCHEMA = """
CREATE TABLE bus (id TEXT NOT NULL, partitions INTEGER NOT NULL);
CREATE TABLE members (
  "group" TEXT NOT NULL, id TEXT NOT NULL, expires REAL NOT NULL, PRIMARY KEY ("group", id)
) WITHOUT ROWID;
CREATE TABLE leases (
  "group" TEXT NOT NULL, partition INTEGER NOT NULL, member TEXT, epoch INTEGER NOT NULL,
  PRIMARY KEY ("group", partition)
) WITHOUT ROWID
"""


def shares(holders: Mapping[int, str | None], members: Iterable[str]) -> dict[int, str]:
    """partition → member: as even as can be, moving as little as can be.

    `holders` says who holds each partition now (None: nobody). Members get ⌊n/m⌋ or ⌈n/m⌉ partitions, the
    larger shares going to those who hold most. Each keeps its lowest numbers up to its share.
    """
    held: dict[str, list[int]] = {member: [] for member in members}
    if not held:
        return {}
    for partition in sorted(holders):
        holder = holders[partition]
        if holder in held:
            held[holder].append(partition)
    least, larger = divmod(len(holders), len(held))
    ranked = sorted(held, key=lambda member: (-len(held[member]), member))
    given: dict[int, str] = {}
    room: list[str] = []
    for rank, member in enumerate(ranked):
        quota = least + (rank < larger)
        kept = held[member][:quota]
        given.update(dict.fromkeys(kept, member))
        room += [member] * (quota - len(kept))
    free = (partition for partition in sorted(holders) if partition not in given)
    given.update(zip(free, room, strict=True))
    return given


class Member:
    """A membership in `group`, held open until `leave` or the death of the process.

    `held` maps the partitions that were this member's at the last `sync` to the epochs of their leases.
    """

    def __init__(
        self, groups: Path, bells: Path, ringer: Ringer, group: str, lease: float, partitions: int
    ) -> None:
        """Prepare to join; the first `sync` does. `lease` in seconds. Raises BusError, BusFull."""
        self.id = secrets.token_hex(8)
        self.held: dict[int, int] = {}
        self.sync_at = 0.0  # monotonic clock; when `sync` is due even if nothing changes
        self._bells = bells
        self._ringer = ringer
        self._group = group
        self._lease = lease
        self._partitions = partitions
        self._expires = 0.0
        self._version = -1
        self._joined = False
        with told(bells):
            self.bell = Bell(bells / self.id)
        try:
            self._groups = Database(groups, SCHEMA)
        except BaseException:
            self.bell.close()
            raise

    def due(self) -> bool:
        """Whether `sync` has something to do. Only reads: others' renewals are found to change nothing."""
        if time.monotonic() >= self.sync_at:
            return True
        version = self._groups.version()
        if version == self._version:
            return False
        self._version = version
        members, leases = self._table()
        target = shares({p: holder for p, (holder, _) in leases.items()}, members)
        mine = {p: epoch for p, (holder, epoch) in leases.items() if holder == self.id}
        wanted = {p for p, member in target.items() if member == self.id}
        free = {p for p, (holder, _) in leases.items() if holder is None}
        return self.id not in members or mine != self.held or bool(mine.keys() - wanted or wanted & free)

    def sync(
        self, fence_epoch: Callable[[int], int], give_up: frozenset[int] = frozenset()
    ) -> frozenset[int]:
        """Renew the lease, bury the dead, give up `give_up`, take what is free and ours; set `held`.

        Returns what we hold beyond our share: finish with it, then `sync` again with it as `give_up`.
        `fence_epoch(partition)` is what the partition's own file knows: a new epoch is above that too, so
        that a lost `groups.db` (power loss) fences nobody who is alive.
        """
        now = time.monotonic()
        with self._groups.writing() as connection:
            buried = [
                (self._group, id_)
                for id_, expires in connection.execute(
                    'SELECT id, expires FROM members WHERE "group" = ? AND id <> ?', (self._group, self.id)
                ).fetchall()
                if expires < now or not alive(self._bells / id_)
            ]
            connection.executemany('DELETE FROM members WHERE "group" = ? AND id = ?', buried)
            connection.execute(
                "INSERT OR REPLACE INTO members VALUES (?, ?, ?)", (self._group, self.id, now + self._lease)
            )
            members, leases = self._table()
            for partition, (holder, epoch) in leases.items():
                if holder not in members or (holder == self.id and partition in give_up):
                    leases[partition] = (None, epoch)
            target = shares({p: holder for p, (holder, _) in leases.items()}, members)
            for partition, (holder, epoch) in leases.items():
                if holder is None and target[partition] == self.id:
                    leases[partition] = (self.id, 1 + max(epoch, fence_epoch(partition)))
            connection.executemany(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)",
                [(self._group, p, holder, epoch) for p, (holder, epoch) in leases.items()],
            )
        self.held = {p: epoch for p, (holder, epoch) in leases.items() if holder == self.id}
        self._expires = now + self._lease
        self.sync_at = now + self._lease / RENEWALS
        if buried or give_up or not self._joined:
            self._joined = True
            self._ringer.ring()
        return frozenset(p for p in self.held if target[p] != self.id)

    def renew(self) -> None:
        """Say that we live, where that is due; takes and gives nothing."""
        now = time.monotonic()
        if now >= self._expires - self._lease / 2:
            self._expires = now + self._lease
            with self._groups.writing() as connection:
                connection.execute(
                    'UPDATE members SET expires = ? WHERE "group" = ? AND id = ?',
                    (self._expires, self._group, self.id),
                )

    def leave(self) -> None:
        """Give everything up at once, and tell the others."""
        try:
            with self._groups.writing() as connection:
                connection.execute('DELETE FROM members WHERE "group" = ? AND id = ?', (self._group, self.id))
                connection.execute(
                    'UPDATE leases SET member = NULL WHERE "group" = ? AND member = ?', (self._group, self.id)
                )
        finally:
            self.held = {}
            self.bell.close()
            self._groups.close()
            self._ringer.ring()

    def _table(self) -> tuple[set[str], dict[int, tuple[str | None, int]]]:
        """(ids of all members, partition → (holder, epoch)) as it stands."""
        with self._groups.reading() as connection:
            members = {
                id_
                for (id_,) in connection.execute(
                    'SELECT id FROM members WHERE "group" = ?', (self._group,)
                ).fetchall()
            }
            leases: dict[int, tuple[str | None, int]] = dict.fromkeys(range(self._partitions), (None, 0))
            for partition, holder, epoch in connection.execute(
                'SELECT partition, member, epoch FROM leases WHERE "group" = ?', (self._group,)
            ).fetchall():
                leases[partition] = (holder, epoch)
        return members, leases

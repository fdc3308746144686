"""One SQLite file that several processes share: made whole or not at all, its errors told in one line.

WAL mode with `synchronous=NORMAL`: a commit is handed to the operating system and survives the death of
any process (kill -9), at no fsync a commit. **Power loss** may take back the newest commits of a file,
never one out of the middle, and never a part of one: the file is then as it was some moments before
(SQLite, "Write-Ahead Logging", and `PRAGMA synchronous`). That is enough here because what a transaction
moves together (outputs, consumed offsets, checkpoint) lies in one file and goes back together, and the
chain, from which all of it came, is still there to be read again.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from nektar.bus.port import BusError, BusFull

# Writers of one file wait for each other. The longest honest transaction (MAX_TRANSACTION_BYTES at the
# 50 MB/s of a slow disk) fits in; whoever holds the lock longer hangs.
BUSY_SECONDS = 30.0
# Messages are up to 1 MB: large pages make their chains short, and small commits still write few bytes.
PAGE_BYTES = 8192
# Pages in the log before a writer moves them into the file, with the only fsyncs there are: 32 MB.
CHECKPOINT_PAGES = 4096
# A log grown by one large transaction is cut back to this.
JOURNAL_BYTES = 64 * 1024 * 1024
# SQLite can also fail to open or grow its shared memory on a full disk, and says "I/O error" then.
FULL_BELOW_BYTES = 1024 * 1024

APPLICATION_ID = 0x4E6B7477  # "Nktw": a file of ours, and no other program's database
FORMAT = 1


class Database:
    """A connection to the file at `path`. One thread at a time uses it."""

    def __init__(self, path: Path, schema: str) -> None:
        """Open `path`, made with `schema` where it does not exist yet. Raises BusError, BusFull."""
        self.path = path
        if not path.exists():
            _create(path, schema)
        with told(path):
            self._connection = sqlite3.connect(
                f"file:{quote(str(path))}?mode=rw",
                uri=True,
                timeout=BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
        try:
            with told(path):
                self._check_format()
                for setting in (
                    "synchronous = NORMAL",
                    f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
                    f"journal_size_limit = {JOURNAL_BYTES}",
                    "secure_delete = OFF",
                ):
                    self._connection.execute(f"PRAGMA {setting}")
        except BaseException:
            self._connection.close()
            raise

    def _check_format(self) -> None:
        ((application,),) = self._connection.execute("PRAGMA application_id")
        ((version,),) = self._connection.execute("PRAGMA user_version")
        if (application, version) != (APPLICATION_ID, FORMAT):
            raise BusError(
                f"{self.path}: expected a bus file of format {FORMAT}; got application {application:#x}, "
                f"format {version}. Name another directory, or run the version that wrote it"
            )

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, with its errors told as BusError or BusFull."""
        with told(self.path):
            yield self._connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The connection inside a transaction that no other writer shares: all of it is written, or,
        where the block raises, nothing. Raises BusError, BusFull."""
        with told(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite rolls back some errors by itself
                    self._connection.execute("ROLLBACK")
                raise

    def version(self) -> int:
        """A number that changes when another connection, of any process, has committed."""
        with told(self.path):
            ((version,),) = self._connection.execute("PRAGMA data_version")
        return int(version)

    def close(self) -> None:
        self._connection.close()


def _create(path: Path, schema: str) -> None:
    """Make the file under another name and link it into place, so that nobody sees half a schema, and of
    two processes that do this at once the first wins."""
    making = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    with told(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(making, isolation_level=None)) as connection:
                connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(
                    f"BEGIN; {schema}; PRAGMA application_id = {APPLICATION_ID}; "
                    f"PRAGMA user_version = {FORMAT}; COMMIT"
                )
            with suppress(FileExistsError):  # another process was first: its file has the same schema
                os.link(making, path)
        finally:
            for leftover in (making, Path(f"{making}-wal"), Path(f"{making}-shm")):
                leftover.unlink(missing_ok=True)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Errors of SQLite and of the file system as a BusError that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL or (
            code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and _free(path) < FULL_BELOW_BYTES
        ):
            raise _full(path) from error
        if code == sqlite3.SQLITE_BUSY:
            raise BusError(
                f"{path}: another process has held this file's lock for {BUSY_SECONDS:.0f} s; "
                "see which one hangs, end it and start again"
            ) from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise BusError(
                f"{path}: damaged ({error}); put a copy of the bus's directory back, or remove it and raise "
                "the generation of each Network in nektar.yaml, which indexes them anew"
            ) from error
        raise BusError(f"{path}: {error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(path) from error
        raise BusError(f"{path}: {error.strerror or error}; name a directory that can be written") from error


def _full(path: Path) -> BusFull:
    return BusFull(f"{path}: the disk is full; what was committed is kept: free space and start again")


def _free(path: Path) -> int:
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:
        return FULL_BELOW_BYTES

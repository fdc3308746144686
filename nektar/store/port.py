"""What a store is, whichever of the two stands behind it: the interface, what goes wrong, and its names.

`embedded.py` is chDB in this process, `server.py` a ClickHouse server; `client.py` opens one, or asks one
that another process has open.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from nektar.errors import NektarError
from nektar.store import readonly

# The header in which the SQL endpoint says which store it serves, so that nobody reads another one's.
STORE_HEADER = "X-Nektar-Store"


class StoreError(NektarError):
    """The store could not do what was asked; the message says what to do.

    `text` is all that ClickHouse said and `code` its error code, where it said anything.
    """

    def __init__(self, message: str, text: str = "", code: int = 0) -> None:
        super().__init__(message)
        self.text = text or message
        self.code = code


class StoreMistake(StoreError):
    """The URL is wrong, or the store is another version's: starting again can't help."""

    exit_code = 2


class StoreMissing(StoreError):
    """There is no store at this path yet."""


class StoreDown(StoreError):
    """The store can't be reached, is held by another process, or has no room: nothing that was stored is
    lost, and the same request may succeed later."""


class StoreHeld(StoreDown):
    """Another process has the store open: a store role, or for a query whoever found none."""


class SqlError(StoreError):
    """ClickHouse refused a statement."""

    exit_code = 2


class Store(Protocol):
    """An open store. `insert`, `read` and `end` may be called from any thread; everything else from one at a
    time."""

    url: str

    def command(self, sql: str) -> None:
        """Run a statement that answers nothing. Raises StoreDown, SqlError."""

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query of our own."""

    def arrow(self, sql: str, schema: Any) -> Any:
        """The rows of a query of our own as a pyarrow Table of `schema`, that of columns of a table."""

    def insert(self, table: str, rows: Any, token: str) -> None:
        """Insert a pyarrow Table, once for each `token` (ClickHouse's `insert_deduplication_token`).

        Raises SqlError where these rows can never be stored, StoreDown where it says nothing about them.
        """

    def read(
        self,
        sql: str,
        fmt: str = "TabSeparated",
        params: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
        database: str | None = None,
        query_id: str = "",
    ) -> bytes:
        """What a stranger's query answers, as `fmt` unless it names another: see `readonly`.

        `params` fill `{name:Type}`, as escaped text. `end` finds the query by `query_id`. Raises SqlError
        (code 164 where it does more than read, 394 where it was ended), StoreDown.
        """

    def end(self, query_id: str) -> None:
        """End what runs of the query of this id, from any thread. Raises StoreError."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...


# --- which store ------------------------------------------------------------------------------------


def chdb_path(url: str) -> Path | None:
    """The directory of a `chdb://` store; None for any other."""
    scheme, _, rest = url.partition("://")
    return Path(rest).absolute() if scheme == "chdb" and rest else None


def shown(url: str) -> str:
    """The URL without its password, which may hold an unescaped @ and may stand behind the `?`."""
    url = re.sub(r"(://[^:/@]*):.*@", r"\1:…@", url)
    return re.sub(r"([?&]password=)[^&]*", r"\1…", url)


def identity(url: str) -> str:
    """What an endpoint that serves this store calls it: no part of it tells of a password."""
    path = chdb_path(url)
    return hashlib.sha256(str(path.resolve() if path else shown(url)).encode()).hexdigest()[:16]


def holder(path: Path) -> str | None:
    """Who holds the chDB store at `path` open, or None. ClickHouse locks PATH/status while it is open."""
    try:
        with (path / "status").open("r+") as status:
            try:
                fcntl.flock(status, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                match = re.search(r"PID: (\d+)", status.read())
                return f"process {match[1]}" if match else "another process"
    except OSError:
        pass  # not there, or not ours to open: opening the store will say which
    return None


# --- what went wrong --------------------------------------------------------------------------------


# ClickHouse's code for merges that are behind; also for one insert into more than a hundred partitions.
TOO_MANY_PARTS = 252
# ClickHouse's code for an engine that breaks off its work: chDB's answer to everything once it has failed.
ABORTED = 236
# ClickHouse error codes that say nothing about the rows: the same insert may succeed when the cause is gone.
_DOWN = {
    74: "reading the disk failed",
    75: "writing the disk failed",
    76: "opening a file failed",
    159: "it took too long",
    202: "too many queries",
    209: "the network is too slow",
    210: "the network failed",
    ABORTED: "the engine has failed",
    241: "out of memory",
    242: "a table is read-only now",
    243: "the disk is full",
    TOO_MANY_PARTS: "too many parts: merges are behind",
    285: "too few replicas are alive",
    319: "the state of the insert is unknown",
    425: "a system call failed",
    497: "access denied",
    516: "wrong user or password",
    999: "its Keeper does not answer",
}
# What a single query may take is used up: no fault of the store's.
_GREEDY = "Query memory limit exceeded"
# Error codes that say that the rows themselves can't be stored: whatever is not among them says nothing about
# the rows, and the same insert may succeed later.
_OF_ROWS = frozenset(
    {
        6,  # CANNOT_PARSE_TEXT
        16,  # NO_SUCH_COLUMN_IN_TABLE
        20,  # NUMBER_OF_COLUMNS_DOESNT_MATCH
        33,  # CANNOT_READ_ALL_DATA
        38,  # CANNOT_PARSE_DATE
        41,  # CANNOT_PARSE_DATETIME
        53,  # TYPE_MISMATCH
        69,  # ARGUMENT_OUT_OF_BOUND
        70,  # CANNOT_CONVERT_TYPE
        117,  # INCORRECT_DATA
        131,  # TOO_LARGE_STRING_SIZE
        321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        407,  # DECIMAL_OVERFLOW
        636,  # CANNOT_EXTRACT_TABLE_STRUCTURE
    }
)
_CODE = re.compile(r"Code: (\d+)\.\s*(?:DB::\w+: )?")
# An error may hold a whole query: each pattern passes over a text once, whatever the text repeats.
_ORNAMENT = re.compile(r"(?<!\s)\s*(\(version [^)]{0,80}\)\.?|\([A-Z_]+\)(?=\s*\([A-Z_]+\)$))")
_NAME = re.compile(r"\([A-Z_]+\)$")
# Where the gate's own question shows through (readonly.rewriting).
_REWRITING = ": In scope SELECT formatQuerySingleLine("


def failure(error: BaseException, url: str) -> StoreError:
    """What an exception of chDB or clickhouse-connect means."""
    text = str(error).strip()
    before, asked, _ = text.partition(_REWRITING)
    if asked and (name := _NAME.search(text)):
        text = f"{before} {name[0]}"
    match = _CODE.search(text)
    if match is None or "No space left" in text:
        why = "the disk is full" if "No space left" in text else _one_line(text)
        return StoreDown(f"store {shown(url)}: {why}; see that it runs and has room, then start again", text)
    text, code = text[match.start() :], int(match[1])
    if _GREEDY in text:
        return SqlError(f"{_one_line(text)}; ask for fewer rows or columns at once", text, code)
    if code in _DOWN:
        return StoreDown(f"store {shown(url)}: {_DOWN[code]} ({_one_line(text)})", text, code)
    return SqlError(_one_line(text), text, code)


def insert_failure(error: BaseException, url: str) -> StoreError:
    """What an exception of an insert means: SqlError where its rows can never be stored, else StoreDown."""
    why = failure(error, url)
    if isinstance(why, SqlError) and why.code not in _OF_ROWS:
        return StoreDown(f"store {shown(url)}: an insert failed: {why}", why.text, why.code)
    return why


def refusal(refused: readonly.Refused) -> SqlError:
    """What the gate refused, said as ClickHouse says it."""
    return SqlError(str(refused), f"Code: {refused.code:d}. DB::Exception: {refused}", refused.code)


def _one_line(text: str) -> str:
    """The first line of what ClickHouse said, without its own ornaments."""
    line = _CODE.sub("", text.partition("\n")[0])
    return _ORNAMENT.sub("", line).strip()[:500]


# --- query parameters -------------------------------------------------------------------------------


def escaped(value: object) -> str:
    """A query parameter's value as ClickHouse reads it: the TabSeparated escapes."""
    return re.sub(r"[\\\t\n]", lambda found: _ESCAPES[found[0]], str(value))


def unescaped(text: str) -> str:
    """The value that `escaped` wrote."""
    plain = {escape: char for char, escape in _ESCAPES.items()}
    return re.sub(r"\\.", lambda found: plain.get(found[0], found[0][1]), text)


_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n"}

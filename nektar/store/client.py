"""One client for two stores: `chdb:///PATH`, embedded, and `clickhouse://USER:PASSWORD@HOST:PORT/DATABASE`.

The role that writes opens the store (`open_store`); one process owns a chDB path at a time. Everyone else
asks (`ask`, `records`): the running store role over HTTP if it answers, else the store itself. chDB takes
270 MB and most of a second to import, so it is imported here and only where a store is opened.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from nektar.config import Config
from nektar.errors import NektarError
from nektar.store import readonly

# The header in which the SQL endpoint says which store it serves, so that nobody reads another one's.
STORE_HEADER = "X-Nektar-Store"
# An endpoint that listens everywhere is reached here.
_REACHED_AT = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104  # not bound here
CONNECT_TIMEOUT = 2.0  # seconds for the endpoint to say that it is there
ANSWER_TIMEOUT = readonly.LIMITS["max_execution_time"] + 5.0

# ClickHouse error codes that say nothing about the rows: the same insert may succeed when the cause is gone.
_DOWN = {
    74: "reading the disk failed",
    75: "writing the disk failed",
    76: "opening a file failed",
    159: "it took too long",
    202: "too many queries",
    209: "the network is too slow",
    210: "the network failed",
    241: "out of memory",
    242: "a table is read-only now",
    243: "the disk is full",
    252: "too many parts: merges are behind",
    285: "too few replicas are alive",
    319: "the state of the insert is unknown",
    425: "a system call failed",
    497: "access denied",
    516: "wrong user or password",
    999: "its Keeper does not answer",
}
_CODE = re.compile(r"Code: (\d+)\.\s*(?:DB::\w+: )?")
_ORNAMENT = re.compile(r"\s*(\(version [^)]*\)\.?|\([A-Z_]+\)(?=\s*\([A-Z_]+\)$))")
# Where the gate's own question shows through (readonly.rewriting).
_REWRITING = re.compile(r": In scope SELECT formatQuerySingleLine\(.*(\([A-Z_]+\))$", re.DOTALL)


class StoreError(NektarError):
    """The store could not do what was asked; the message says what to do.

    `text` is all that ClickHouse said and `code` its error code, where it said anything.
    """

    def __init__(self, message: str, text: str = "", code: int = 0) -> None:
        super().__init__(message)
        self.text = text or message
        self.code = code


class StoreMissing(StoreError):
    """There is no store at this path yet."""


class StoreDown(StoreError):
    """The store can't be reached, is held by another process, or has no room: nothing that was stored is
    lost, and the same request may succeed later."""


class SqlError(StoreError):
    """ClickHouse refused a statement."""


class Store(Protocol):
    """An open store. `read` may be called from any thread; everything else from one at a time."""

    url: str

    def command(self, sql: str) -> None:
        """Run a statement that answers nothing. Raises StoreDown, SqlError."""

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query of our own."""

    def insert(self, table: str, rows: Any, token: str) -> None:
        """Insert a pyarrow Table, once for each `token` (ClickHouse's `insert_deduplication_token`)."""

    def read(
        self,
        sql: str,
        fmt: str = "TabSeparated",
        params: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
        database: str | None = None,
    ) -> bytes:
        """What a stranger's query answers, as `fmt` unless it names another: see `readonly`.

        `params` fill `{name:Type}`, as escaped text. Raises SqlError (code 164 where it does more than
        read), StoreDown.
        """

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...


def open_store(url: str) -> Store:
    """Open the store at `url` for writing; a chDB one is made where there is none.

    Raises StoreDown where another process holds it or it can't be reached, StoreError for a bad URL.
    """
    # It logs what it raises; people get the one line of ours.
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)
    if path := chdb_path(url):
        from nektar.store.embedded import EmbeddedStore

        return EmbeddedStore(url, path)
    if urlsplit(url).scheme in ("clickhouse", "clickhouses"):
        from nektar.store.server import ServerStore

        return ServerStore(url)
    raise StoreError(f"store: expected chdb:///PATH or clickhouse://HOST:PORT/DATABASE; got {shown(url)!r}")


def chdb_path(url: str) -> Path | None:
    """The directory of a `chdb://` store; None for any other."""
    scheme, _, rest = url.partition("://")
    return Path(rest).absolute() if scheme == "chdb" and rest else None


def shown(url: str) -> str:
    """The URL without its password."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:…@", url)


def identity(url: str) -> str:
    """What an endpoint that serves this store answers in STORE_HEADER."""
    path = chdb_path(url)
    return hashlib.sha256(str(path.resolve() if path else url).encode()).hexdigest()[:16]


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


def failure(error: BaseException, url: str) -> StoreError:
    """What an exception of chDB or clickhouse-connect means."""
    text = _REWRITING.sub(r" \1", str(error).strip())
    match = _CODE.search(text)
    if match is None or "No space left" in text:
        why = "the disk is full" if "No space left" in text else _one_line(text)
        return StoreDown(f"store {shown(url)}: {why}; see that it runs and has room, then start again", text)
    text, code = text[match.start() :], int(match[1])
    if code in _DOWN:
        return StoreDown(f"store {shown(url)}: {_DOWN[code]} ({_one_line(text)})", text, code)
    return SqlError(_one_line(text), text, code)


def refusal(refused: readonly.Refused) -> SqlError:
    """What the gate refused, said as ClickHouse says it."""
    code = readonly.READONLY
    return SqlError(str(refused), f"Code: {code}. DB::Exception: {refused}", code)


def _one_line(text: str) -> str:
    """The first line of what ClickHouse said, without its own ornaments."""
    line = _CODE.sub("", text.partition("\n")[0])
    return _ORNAMENT.sub("", line).strip()[:500]


# --- asking, from any process -----------------------------------------------------------------------


def ask(
    config: Config, sql: str, fmt: str = "TabSeparated", params: Mapping[str, object] | None = None
) -> bytes:
    """The answer to a read-only query in ClickHouse's format `fmt`, from the running store role if it
    answers at `listen.sql`, else from the store itself.

    `params` fill `{name:Type}` in the query. Raises SqlError, StoreDown, StoreMissing.
    """
    texts = {name: escaped(value) for name, value in (params or {}).items()}
    answer = _ask_endpoint(config, sql, fmt, texts)
    if answer is not None:
        return answer
    path = chdb_path(config.store_url)
    if path is not None:
        if not (path / "store").is_dir():
            raise StoreMissing(f"store {path}: there is none yet; start it with `nektar up`")
        if held := holder(path):
            raise StoreDown(
                f"store {path}: held by {held}, whose SQL endpoint does not answer at {config.listen.sql}; "
                "it may be starting: try again, or stop it"
            )
    with open_store(config.store_url) as store:
        return store.read(sql, fmt, texts)


def records(config: Config, sql: str, **params: object) -> list[dict[str, Any]]:
    """The answer's rows, each a dict. See `ask`."""
    answer = ask(config, sql, "JSONEachRow", params)
    return [json.loads(line) for line in answer.splitlines()]


def escaped(value: object) -> str:
    """A query parameter's value as ClickHouse reads it: the TabSeparated escapes."""
    return re.sub(r"[\\\t\n]", lambda found: _ESCAPES[found[0]], str(value))


def unescaped(text: str) -> str:
    """The value that `escaped` wrote."""
    plain = {escape: char for char, escape in _ESCAPES.items()}
    return re.sub(r"\\.", lambda found: plain.get(found[0], found[0][1]), text)


_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n"}


def _ask_endpoint(config: Config, sql: str, fmt: str, params: Mapping[str, str]) -> bytes | None:
    """The running store role's answer; None where nobody answers, or another store does."""
    host, _, port = config.listen.sql.rpartition(":")
    address = f"http://{_REACHED_AT.get(host, host)}:{port}/"
    opener = build_opener(ProxyHandler({}))  # this machine's own endpoint, whatever proxy is set
    try:
        with opener.open(f"{address}ping", timeout=CONNECT_TIMEOUT) as answer:
            if answer.headers.get(STORE_HEADER) != identity(config.store_url):
                return None
        query = urlencode({"default_format": fmt, **{f"param_{k}": v for k, v in params.items()}})
        request = Request(f"{address}?{query}", sql.encode(), method="POST")  # noqa: S310  # it is http
        with opener.open(request, timeout=ANSWER_TIMEOUT) as answer:
            return bytes(answer.read())
    except HTTPError as error:
        if error.headers.get(STORE_HEADER) != identity(config.store_url):
            return None
        raise failure(RuntimeError(error.read().decode("utf-8", "replace")), config.store_url) from None
    except (URLError, OSError):
        return None

"""One client for two stores: `chdb:///PATH`, embedded, and `clickhouse://USER:PASSWORD@HOST:PORT/DATABASE`.

The role that writes opens the store (`open_store`); one process owns a chDB path at a time. Everyone else
asks (`ask`, `records`): the running store role over HTTP if it answers, else the store itself. chDB takes
270 MB and most of a second to import, so it is imported here and only where a store is opened.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

from nektar.config import Config, reached_at
from nektar.store import readonly
from nektar.store.port import (
    STORE_HEADER,
    Store,
    StoreDown,
    StoreMissing,
    StoreMistake,
    chdb_path,
    escaped,
    failure,
    holder,
    identity,
    shown,
)

Answer = Callable[[str, str, Mapping[str, object]], bytes]
"""(query, format, parameters) → its answer."""

CONNECT_TIMEOUT = 2.0  # seconds for the endpoint to say that it is there
ANSWER_TIMEOUT = readonly.LIMITS["max_execution_time"] + 5.0


def open_store(url: str) -> Store:
    """Open the store at `url` for writing; a chDB one is made where there is none.

    Raises StoreDown where another process holds it or it can't be reached, StoreMistake for a bad URL.
    """
    # It logs what it raises; people get the one line of ours.
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)
    if path := chdb_path(url):
        from nektar.store.embedded import EmbeddedStore

        return EmbeddedStore(url, path)
    if urlsplit(url).scheme in ("clickhouse", "clickhouses"):
        from nektar.store.server import ServerStore

        return ServerStore(url)
    raise StoreMistake(f"store: expected chdb:///PATH or clickhouse://HOST:PORT/DATABASE; got {shown(url)!r}")


def is_new(url: str) -> bool:
    """Whether nothing was ever stored at `url`; of another store than a chDB one only opening it tells."""
    path = chdb_path(url)
    return path is not None and not (path.is_dir() and any(path.iterdir()))


# --- asking, from any process -----------------------------------------------------------------------


def ask(
    config: Config, sql: str, fmt: str = "TabSeparated", params: Mapping[str, object] | None = None
) -> bytes:
    """The answer to a read-only query in ClickHouse's format `fmt`, from the running store role if it
    answers at `listen.sql`, else from the store itself.

    `params` fill `{name:Type}` in the query. Raises SqlError, StoreDown, StoreMissing.
    """
    with asking(config) as answer:
        return answer(sql, fmt, params or {})


def records(config: Config, sql: str, **params: object) -> list[dict[str, Any]]:
    """The answer's rows, each a dict. See `ask`."""
    return parsed(ask(config, sql, "JSONEachRow", params))


def parsed(answer: bytes) -> list[dict[str, Any]]:
    """The rows of an answer in the format JSONEachRow."""
    return [json.loads(line) for line in answer.splitlines()]


@contextmanager
def asking(config: Config) -> Iterator[Answer]:
    """`ask` for several questions, with which a store that nobody serves is opened once."""
    with ExitStack() as opened:
        store: Store | None = None

        def answer(sql: str, fmt: str, params: Mapping[str, object]) -> bytes:
            nonlocal store
            texts = {name: escaped(value) for name, value in params.items()}
            if store is None and (said := _ask_endpoint(config, sql, fmt, texts)) is not None:
                return said
            store = store or opened.enter_context(_unserved(config))
            return store.read(sql, fmt, texts)

        yield answer


def _unserved(config: Config) -> Store:
    """The store, opened because no store role answers for it. Raises StoreDown, StoreMissing."""
    path = chdb_path(config.store_url)
    if path is not None:
        if is_new(config.store_url):
            raise StoreMissing(f"store {path}: there is none yet; start it with `nektar up`")
        if held := holder(path):
            raise StoreDown(
                f"store {path}: held by {held}, whose SQL endpoint does not answer at {config.listen.sql}; "
                "it may be starting: try again, or stop it"
            )
    return open_store(config.store_url)


def endpoint(config: Config) -> str | None:
    """Where the store role of this store answers SQL now: a URL. None where nobody does, or another's."""
    address = f"http://{reached_at(config.listen.sql)}/"
    try:
        with _opener().open(f"{address}ping", timeout=CONNECT_TIMEOUT) as answer:
            return address if answer.headers.get(STORE_HEADER) == identity(config.store_url) else None
    except (OSError, HTTPException, ValueError, OverflowError):
        return None


def _opener() -> OpenerDirector:
    return build_opener(ProxyHandler({}))  # this machine's own endpoint, whatever proxy is set


def _ask_endpoint(config: Config, sql: str, fmt: str, params: Mapping[str, str]) -> bytes | None:
    """The running store role's answer; None where nobody answers, or another store does."""
    address = endpoint(config)
    if address is None:
        return None
    try:
        query = urlencode({"default_format": fmt, **{f"param_{k}": v for k, v in params.items()}})
        request = Request(f"{address}?{query}", sql.encode(), method="POST")  # noqa: S310  # it is http
        with _opener().open(request, timeout=ANSWER_TIMEOUT) as answer:
            return bytes(answer.read())
    except HTTPError as error:
        if error.headers.get(STORE_HEADER) != identity(config.store_url):
            return None
        raise failure(RuntimeError(error.read().decode("utf-8", "replace")), config.store_url) from None
    except TimeoutError:
        raise StoreDown(
            f"store {shown(config.store_url)}: no answer from {address} within {ANSWER_TIMEOUT:.0f} s: "
            "others' queries run there; try again"
        ) from None
    except (OSError, HTTPException):
        return None

"""What a stranger may ask the store: one statement that reads the store and nothing else, within limits.

ClickHouse's own `readonly = 1` refuses writes and most table functions, but not all that reaches out of the
store: `SELECT … INTO OUTFILE` writes a file, and so does the setting `output_format_schema`; the function
`file()` reads one, `DESCRIBE url(…)` connects, `KILL QUERY` kills, `SETTINGS` in a subquery lift limits (all
seen in chDB 26.9). So a query is first written anew by ClickHouse's own parser (`formatQuerySingleLine`,
which takes one statement and drops comments), what came out is checked word by word, and that text is what
runs, under `readonly = 1`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import IntEnum

from nektar.store.schema import literal

# An answer is held whole until it is sent. What its columns take says little of it: of a constant ClickHouse
# keeps one, and a row of JSON repeats every name.
MAX_ANSWER_BYTES = 32 * 1024 * 1024
# Limits of one query. The store's process is to stay under 800 MB: at rest it takes 420, and for each of the
# two queries that `serve` runs at once up to twice `max_memory_usage` is resident for a moment (measured).
LIMITS: Mapping[str, int] = {
    "max_execution_time": 30,  # seconds
    "max_result_rows": 1_000_000,
    "max_result_bytes": MAX_ANSWER_BYTES,
    "max_memory_usage": 80 * 1024 * 1024,
    "max_query_size": 1024 * 1024,
    # A query of 6,000 tables that joins them ends the engine for everybody; one of 1,600, as many as this
    # takes, is answered. No panel of ours has 300, and a view counts as one name.
    "max_ast_elements": 10_000,
    # Neither a deadline nor a KILL ends the parser: of some hundred bytes it made a million of these in 15 s.
    # A query of as many elements as may be, 9,500 columns, takes less than half of this.
    "max_parser_backtracks": 100_000,
    "max_threads": 2,  # the sink needs the machine too
    "max_final_threads": 1,  # a view over 800,000 rows takes 40 MB with one, and 80 with two
    "output_format_parallel_formatting": 0,  # it holds several pieces of the answer at once
}
MAX_QUERY_BYTES = 256 * 1024
# What a query may grow to as ClickHouse writes it anew. That writes what stands left of a BETWEEN twice, so
# 22 within each other, of 400 bytes, took it half a minute, in which nothing ends it.
MAX_WRITTEN_BYTES = 4 * 1024 * 1024
# The time zone of answers, so that they are the same on every machine; an asker may choose another.
UTC = "UTC"

# Settings of the asker's own: how results look. Anything else could lift a limit or reach out. Formats are
# named one by one, since `output_format_schema` is a path that is written to.
_ALLOWED_SETTING = re.compile(
    r"output_format_(arrow|binary|csv|decimal|float|json|markdown|msgpack|native|parquet|pretty|tsv|values|write"
    r"|xml)_\w+|(date_time_output|bool)_\w+|session_timezone|join_use_nulls|use_nulls|final|extremes"
    r"|max_block_size|group_by_use_nulls|union_default_mode|limit|offset|log_comment"
    r"|date_time_input_format|cast_string_to_dynamic_use_inference|allow_experimental_\w+_type"
)

_STATEMENTS = frozenset({"SELECT", "WITH", "SHOW", "DESCRIBE", "EXPLAIN"})
# Table functions that read the store or make rows up; and `format`, `input`, `null`, whose names
# functions of rows have too, and which read nothing outside.
_HARMLESS = (
    "numbers numbers_mt zeros zeros_mt primes generateSeries generate_series generateRandom view values null "
    "merge format mergeTreeIndex"
)
_REACHES_OUT = frozenset({"executable", "input", "hascolumnintable"})
# Functions of rows that reach out. They need no bracket after them: `arrayMap(file, paths)`, `* APPLY(file)`.
_REACHES_OUT_BY_NAME = re.compile(
    r"file|catboostevaluate|ai(classify|embed|extract|filter|generate|redact|similarity|translate)"
)

# Formats of answers that need a schema's or a template's file, or a registry's address.
_REACHES_OUT_BY_FORMAT = re.compile(r"protobuf\w*|capnproto|avroconfluent|template\w*|customseparated\w*")

_TOKEN = re.compile(r"'(?:[^'\\]|\\.)*'|`((?:[^`\\]|\\.)*)`\s*(\(?)|([A-Za-z_]\w*)\s*(\(?)", re.DOTALL)

# The end of a query as ClickHouse writes it; what stands in quotes never ends one.
_FORMAT = re.compile(r" FORMAT (\w+)$")

TABLE_FUNCTIONS = "SELECT lower(name) FROM system.table_functions WHERE name NOT IN splitByChar(' ', '%s')"
TABLE_FUNCTIONS %= _HARMLESS


class Code(IntEnum):
    """ClickHouse's own error codes for what is refused here."""

    SYNTAX_ERROR = 62
    UNKNOWN_FORMAT = 73
    READONLY = 164
    TOO_BIG_AST = 168
    TOO_MANY_ROWS_OR_BYTES = 396


class Refused(Exception):
    """The query does more than read the store, or more than it may."""

    def __init__(self, why: str, code: Code = Code.READONLY) -> None:
        super().__init__(f"{why} ({code.name})")
        self.code = code


def rewriting(sql: str) -> str:
    """The query that has ClickHouse write `sql` anew. It fails where `sql` is not one statement.

    Raises Refused where that could take long.
    """
    if len(sql) << sql.upper().count("BETWEEN") > MAX_WRITTEN_BYTES:
        raise Refused(
            "Too many BETWEEN in a query of this length; write x >= a AND x <= b instead.", Code.TOO_BIG_AST
        )
    return f"SELECT formatQuerySingleLine({literal(sql)})"


def rewritten(answer: bytes) -> str:
    """What `rewriting` was answered. Raises Refused where it is no text: `'\\xff'` becomes that byte."""
    try:
        return answer.decode().rstrip("\n")
    except UnicodeDecodeError:
        raise Refused(
            "A string or name in the query is not UTF-8; write bytes as unhex('…').", Code.SYNTAX_ERROR
        ) from None


def check(written: str, table_functions: frozenset[str], fmt: str = "TabSeparated") -> None:
    """Raise Refused unless `written`, which ClickHouse wrote, only reads the store.

    `table_functions` are the lower-case names of those that may not be used (`TABLE_FUNCTIONS` lists them);
    `fmt` is the format of the answer where the query names none.
    """
    if _REACHES_OUT_BY_FORMAT.fullmatch(format_of(written, fmt).lower()):
        raise Refused(f"The format {format_of(written, fmt)[:40]} reaches out of the store for its schema.")
    previous = ""
    for i, match in enumerate(_TOKEN.finditer(written)):
        name, call = (match[1], match[2]) if match[1] is not None else (match[3], match[4])
        if name is None:
            previous = ""
            continue
        bare = match[3] is not None
        if i == 0 and not (bare and name in _STATEMENTS):
            raise Refused(f"Expected SELECT, WITH, SHOW, DESCRIBE or EXPLAIN; got {name[:40]}.")
        low = name.lower()
        called = call and (low in table_functions or low in _REACHES_OUT or low.startswith("ai"))
        if called or _REACHES_OUT_BY_NAME.fullmatch(low):
            raise Refused(f"{name[:80]}() reaches out of the store, which is read-only.")
        if bare and low == "identifier" and written[match.start() - 1] == ":":
            raise Refused("A parameter can't be an Identifier, which might name anything; expected a value.")
        if bare and previous == "INTO" and name == "OUTFILE":
            raise Refused("INTO OUTFILE writes a file; the store is read-only.")
        if bare and name == "SETTINGS":  # ClickHouse writes keywords in capitals
            raise Refused("SETTINGS can't be changed in a query; how results look can be in the request.")
        previous = name if bare else ""


def format_of(written: str, default: str) -> str:
    """The format in which `written` answers. Raises Refused for a `default` that is more than a name."""
    if not re.fullmatch(r"[A-Za-z0-9_]+", default):
        raise Refused(f"Unknown format {default[:80]!r}; expected a name.", Code.UNKNOWN_FORMAT)
    match = _FORMAT.search(written)
    return match[1] if match else default


def without_format(written: str) -> str:
    """`written` without its FORMAT, so that it may stand inside another query, or get another format."""
    return _FORMAT.sub("", written)


def too_long() -> Refused:
    """What is said of an answer of more than MAX_ANSWER_BYTES."""
    return Refused(
        f"Limit for result exceeded, max bytes: {MAX_ANSWER_BYTES >> 20} MiB; ask for fewer rows or "
        "columns at once.",
        Code.TOO_MANY_ROWS_OR_BYTES,
    )


def settings(wanted: Mapping[str, str]) -> dict[str, str]:
    """The settings to run with: the asker's own where they are harmless, limits that only they may lower.

    `readonly` comes last: what is set after it counts as a modification. Raises Refused.
    """
    chosen = {"session_timezone": UTC}
    for name, value in wanted.items():
        if name in LIMITS:
            continue
        if name == "readonly" and value in ("1", "2"):
            continue
        if not _ALLOWED_SETTING.fullmatch(name):
            raise Refused(f"Cannot modify '{name[:80]}' setting in readonly mode.")
        chosen[name] = value
    for name, limit in LIMITS.items():
        asked = wanted.get(name, "")
        chosen[name] = asked if re.fullmatch("[0-9]{1,18}", asked) and 0 < int(asked) < limit else str(limit)
    return {**chosen, "readonly": "1"}

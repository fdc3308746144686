from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nektar.chain.abi import load
from nektar.rows import ROWS, OperatorRow, Row
from nektar.store import schema
from nektar.store.port import Store
from nektar.store.schema import abi_table, columns, create_table, row_schema, rows_to_arrow, rows_to_ipc
from nektar.store.views import create_views
from tests.nektar.store.things import CALL, EVENT, PLAIN_EVENT

# Times and texts are compared as what they are made of.
AS_PLAIN = {"block_time": "toUInt32(`block_time`) AS `block_time`"}
PLAIN_SCHEMA = pa.schema(
    pa.field(f.name, {"block_time": pa.uint32(), "text": pa.binary()}.get(f.name, f.type))
    for f in EVENT.schema
)
# chDB's Arrow output otherwise makes FixedString a string.
AS_BYTES = {
    "output_format_arrow_fixed_string_as_fixed_byte_array": "1",
    "output_format_arrow_string_as_string": "0",
}


def values(type_: Any) -> st.SearchStrategy[Any]:
    """Values of an Arrow type of the log, the extremes among them."""
    if pa.types.is_fixed_size_binary(type_):
        n = type_.byte_width
        return st.sampled_from([bytes(n), b"\xff" * n, bytes(n - 1) + b"\x01"]) | st.binary(
            min_size=n, max_size=n
        )
    if pa.types.is_binary(type_):
        return st.binary(max_size=40)
    if pa.types.is_list(type_):
        return st.lists(values(type_.value_type), max_size=3)
    if pa.types.is_struct(type_):
        fields = [type_.field(i) for i in range(type_.num_fields)]
        return st.fixed_dictionaries({field.name: values(field.type) for field in fields})
    if pa.types.is_integer(type_):
        top = 2 ** (type_.bit_width - (0 if str(type_).startswith("u") else 1))
        low = 0 if str(type_).startswith("u") else -top
        return st.sampled_from([low, top - 1]) | st.integers(low, top - 1)
    if pa.types.is_timestamp(type_):
        return st.integers(0, 2**32 - 1)
    return {"bool": st.booleans(), "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=20)}[
        str(type_)
    ]


ROW = st.fixed_dictionaries({field.name: values(field.type) for field in EVENT.schema})


def shown(value: Any, field: Any) -> Any:
    """What a view shows of a value: the rule, said again in Python."""
    type_, abi = field.type, (field.metadata or {}).get(b"abi", b"").decode()
    if pa.types.is_fixed_size_binary(type_) and type_.byte_width == 32 and "int" in abi:
        return int.from_bytes(value, "little", signed=abi.startswith("int"))
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    if pa.types.is_list(type_):
        return [shown(item, type_.value_field) for item in value]
    if pa.types.is_struct(type_):
        return {f.name: shown(value[f.name], f) for f in (type_.field(i) for i in range(type_.num_fields))}
    return value


numbers = iter(range(1, 1 << 40))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(ROW, min_size=1, max_size=5))
def test_what_the_log_holds_comes_out_of_the_store_byte_for_byte_and_views_show_it_for_people(
    store: Store, drawn: list[dict[str, Any]]
) -> None:
    run = next(numbers)
    rows = [{**row, "log_index": i, "block_number": run} for i, row in enumerate(drawn)]
    arrow = pa.Table.from_pylist(rows, schema=EVENT.schema)
    store.insert(EVENT.table, schema.stored(arrow, str(run), run, False, "proved"), str(run))

    where = f"network = '{run}' ORDER BY log_index"
    chosen = ", ".join(AS_PLAIN.get(name, f"`{name}`") for name in EVENT.schema.names)
    stored = store.read(f"SELECT {chosen} FROM {EVENT.table} WHERE {where}", "ArrowStream", settings=AS_BYTES)
    plain = pa.Table.from_pylist(rows, schema=PLAIN_SCHEMA)
    assert pa.ipc.open_stream(stored).read_all().to_pylist() == plain.to_pylist()

    answer = store.read(f"SELECT * FROM event_everything WHERE {where}", "JSONEachRow")
    for line, row in zip(answer.splitlines(), rows, strict=True):
        seen = json.loads(line)
        assert (seen.pop("network"), seen.pop("level")) == (str(run), "proved")
        del seen["block_time"]
        assert seen == {f.name: shown(row[f.name], f) for f in EVENT.schema if f.name != "block_time"}


def _event(name: str, *inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "event", "name": name, "inputs": list(inputs), **more}


DEEP = [
    {"type": "string[2][]", "name": "select"},
    {
        "type": "tuple",
        "name": "order",
        "components": [{"type": "function"}, {"type": "int256[]", "name": "x"}],
    },
]


def _row(row_type: type[Row]) -> Row:
    made = {"FixedString(20)": b"\xaa" * 20, "FixedString(32)": b"\xbb" * 32, "FixedString(64)": b"\xcc" * 64}
    cells: dict[str, Any] = {}
    for name, column in columns(row_type).items():
        kind = column.type
        cells[name] = made.get(kind, "text" if "String" in kind else kind == "Bool" or 2**32 - 1)
    return row_type(**cells)


def test_every_row_type_of_the_model_has_an_arrow_schema_and_equal_rows_are_equal_bytes() -> None:
    for row_type in ROWS:
        row = _row(row_type)
        twice = [rows_to_ipc(row_type, [(row, False), (row, True)]) for _ in range(2)]
        assert twice[0] == twice[1]
        read = pa.ipc.open_stream(twice[0]).read_all()
        assert read.schema.equals(row_schema(row_type))
        assert read.column("is_deleted").to_pylist() == [False, True]


def test_the_largest_stake_fits() -> None:
    row = OperatorRow(b"a" * 20, b"k" * 64, "eu", 1, 2**256 - 1, True, 1, 0)
    assert rows_to_arrow(OperatorRow, [(row, False)]).column("stake").to_pylist() == [b"\xff" * 32]


def test_rows_of_every_row_type_are_shown_in_its_view(store: Store) -> None:
    for row_type in ROWS:
        arrow = pa.Table.from_batches([rows_to_arrow(row_type, [(_row(row_type), False)])])
        deleted = arrow.column("is_deleted").cast(pa.uint8())
        arrow = arrow.set_column(arrow.num_columns - 1, "is_deleted", deleted)
        arrow = arrow.append_column("version", pa.array([1], pa.uint64())).append_column(
            "network", pa.array(["n"])
        )
        store.insert(f"{row_type.table}_rows", arrow, row_type.table)
        (line,) = store.read(f"SELECT * FROM {row_type.table}", "JSONEachRow").splitlines()
        seen = json.loads(line)
        assert list(seen) == ["network", *columns(row_type)]
        for name, column in columns(row_type).items():
            if column.type.startswith("FixedString"):
                assert seen[name] == f"0x{getattr(_row(row_type), name).hex()}"


def test_the_newest_version_stands_and_a_tombstone_takes_it_away(store: Store) -> None:
    def progress(version: int, block: int, deleted: int) -> None:
        store.command(
            "INSERT INTO progress_rows (network, processor, block_number, version, is_deleted) "
            f"VALUES ('newest', 'p', {block}, {version}, {deleted})"
        )

    def now() -> bytes:
        return store.read("SELECT block_number FROM progress WHERE network = 'newest'")

    progress(2, 20, 0)
    progress(1, 10, 0)
    assert now() == b"20\n"
    progress(3, 20, 1)
    assert now() == b""
    progress(4, 30, 0)
    assert now() == b"30\n"


def test_what_a_call_may_not_know_is_null_and_hashes_have_a_hex_alias() -> None:
    types = {column.name: column.type for column in abi_table(CALL).columns}
    assert types["status"] == "Nullable(Bool)"
    assert types["revert"] == "Nullable(String)"
    assert types["value"] == types["input"] == "UInt256"
    assert types["id"] == "FixedString(32)"


AWKWARD = [
    _event("select", {"type": "uint8", "name": "from"}, {"type": "uint8", "name": "a b"}, {"type": "uint8"}),
    _event("select", {"type": "uint16", "name": "`t`.\\'\n"}, {"type": "bytes", "name": "from"}),
    _event("Clash", *({"type": "bytes32", "name": name} for name in ("h", "h_hex", "h", "version", "t"))),
    _event(
        "Deep", {"type": "tuple[2][]", "name": "d", "components": DEEP}, {"type": "function", "name": "f"}
    ),
    _event("Deep", {"type": "function[]", "name": "d", "indexed": True}, anonymous=True),
    _event("deep"),
    _event(  # names that ClickHouse keeps for itself
        "AuctionStarted",
        *({"type": "uint256", "name": f"_{name}"} for name in ("block_number", "block_offset", "row_exists")),
        {"type": "tuple[]", "name": "null", "components": [{"type": "uint8", "name": "null"}]},
    ),
    {"type": "fallback"},
    {"type": "receive"},
]


def test_whatever_an_abi_calls_things_its_tables_and_views_answer(store: Store) -> None:
    abi = load(AWKWARD)
    made = [abi_table(each) for each in (*abi.events, *abi.functions)]
    assert len({each.name for each in made}) == len(AWKWARD)
    views = create_views(made)
    views = {name: sql for name, sql in views.items() if name not in ("events", "calls")}
    for statement in (*map(create_table, made), *views.values()):
        store.command(statement)
    for name in (*(each.name for each in made), *views):
        assert store.read(f"SELECT * FROM {name}") == b""


def test_a_range_of_blocks_reaches_the_order_of_the_table_behind_the_view(store: Store) -> None:
    store.command(f"INSERT INTO {PLAIN_EVENT.table} (network, block_number, version) VALUES ('n', 1, 1)")
    asked = "SELECT * FROM event_plain WHERE network = 'n' AND block_number > 7"
    assert b"block_number in [8, +Inf)" in store.read(f"EXPLAIN indexes = 1 {asked}", "TSVRaw")

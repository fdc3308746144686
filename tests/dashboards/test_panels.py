"""Every panel of the board answers what is true, on a real store filled from a truth of the test's own."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytest

from dashboards.boards.network import NETWORK as BOARD
from dashboards.macros import TimeRange, expand
from nektar.rows import (
    Cause,
    DiagnosisRow,
    DutyRow,
    DutyState,
    Finding,
    FindingStatus,
    OperatorRow,
    ProgressRow,
    Row,
    ServiceRow,
    TaskEventRow,
    TaskRow,
    TaskState,
)
from nektar.store.client import open_store
from nektar.store.migrate import migrate
from nektar.store.port import Store
from nektar.store.readonly import LIMITS
from nektar.store.schema import blocks_table, rows_to_arrow

RNG = random.Random("a board's truth")
START, BLOCK_SECONDS, HEAD = 1_767_225_600, 12, 60
RANGE = TimeRange(START, START + HEAD * BLOCK_SECONDS)
OPERATORS = [bytes([n]) * 20 for n in range(1, 6)]
STAKES = [n * 10**18 for n in (1000, 700, 400, 300, 1)]
LINKED = {7, 8, 9}  # blocks whose receipts nobody served
UNDONE = {20, 21}  # blocks of which a reorg took another one back

Answer = Callable[[str], list[dict[str, Any]]]


def block_hash(number: int, fork: int = 0) -> bytes:
    return number.to_bytes(31, "big") + bytes([fork])


def task_hash(number: int) -> bytes:
    return number.to_bytes(32, "big")


# --- the truth --------------------------------------------------------------------------------------

TASKS = {n: RNG.choice(list(TaskState)) for n in range(24)}
DUTIES = {(n, o): RNG.choice(list(DutyState)) for n in TASKS for o in OPERATORS}
CAUSES = {
    duty: RNG.choice(list(Cause)) for duty, state in DUTIES.items() if state in ("late", "missed", "unknown")
}
FINDINGS = [RNG.choice(list(FindingStatus)) for _ in range(9)]
RESPONDED = [RNG.randrange(HEAD) for _ in range(11)]  # blocks with an aggregated response
ATTESTED = [RNG.randrange(HEAD) for _ in range(17)]
SPANS = {"operator-1": 5, "aggregator": 3}


def tasks(submitted: int = 0) -> list[Row]:
    return [
        TaskRow(
            task_hash=task_hash(n),
            number=n,
            type=bytes(32),
            input="6",
            set_hash=bytes(32),
            submitter=bytes(20),
            submitted_block=submitted + n,
            deadline_unit="block",
            deadline=submitted + n + 5,
            grace=2,
            state=state,
            response_digest=bytes(32),
            response_block=0,
            challenge_deadline=0,
        )
        for n, state in TASKS.items()
    ]


def duties() -> list[Row]:
    return [DutyRow(task_hash(n), o, n, "6", state, n + 5, 2, n + 8) for (n, o), state in DUTIES.items()]


def diagnoses() -> list[Row]:
    return [
        DiagnosisRow(task_hash(n), o, n, "6", DUTIES[n, o], cause, "send", "nobody", "", "")
        for (n, o), cause in CAUSES.items()
    ]


def findings() -> list[Row]:
    at = (30, block_hash(30), START + 30 * BLOCK_SECONDS)
    return [
        Finding(
            task_hash(i), "equivocation", OPERATORS[0], bytes(32), i, "6", *at, "proved", "x", "{}", status
        )
        for i, status in enumerate(FINDINGS)
    ]


def operators() -> list[Row]:
    return [OperatorRow(o, bytes(64), "eu", 1, s, True, 1, 0) for o, s in zip(OPERATORS, STAKES, strict=True)]


def levels() -> list[Row]:
    """Each Operator owes its stake in every window; of the n-th one so many hundredths failed in the last."""
    return [
        ServiceRow(o, *[s] * 6, *[0] * 5, n * s // 100, 0, n, START, 0)  # type: ignore[call-arg]
        for n, (o, s) in enumerate(zip(OPERATORS, STAKES, strict=True))
    ]


def events() -> list[Row]:
    moments = [("responded", n) for n in RESPONDED] + [("attested", n) for n in ATTESTED]
    return [
        TaskEventRow(task_hash(0), block_hash(n), i, n, START + n * BLOCK_SECONDS, kind, bytes(20), "{}")
        for i, (kind, n) in enumerate(moments)
    ]


def blocks() -> Iterator[tuple[dict[str, Any], bool]]:
    """(block, whether it was taken back)."""
    for number, fork in [*((n, 0) for n in range(HEAD)), *((n, 1) for n in sorted(UNDONE))]:
        yield (
            {
                "number": number,
                "hash": block_hash(number, fork),
                "parent": bytes(32),
                "time": START + number * BLOCK_SECONDS,
                "level": "linked" if number in LINKED else "proved",
                "provider": "p",
                "anchor": "single:p",
                "generation": 1,
            },
            fork == 1,
        )


# --- in a store -------------------------------------------------------------------------------------


def insert(store: Store, network: str, name: str, rows: pa.RecordBatch, version: int = 1 << 48) -> None:
    """As the sink does: `network` first, `version` last."""
    table = pa.Table.from_batches([rows])
    table = table.add_column(0, "network", pa.array([network] * len(table)))
    table = table.append_column("version", pa.array([version] * len(table), pa.uint64()))
    position = table.column_names.index("is_deleted")
    deleted = table.column(position).cast(pa.uint8())
    store.insert(name, table.set_column(position, "is_deleted", deleted), f"{network} {name} {version}")


def fill(store: Store, network: str, rows: Sequence[list[Row]]) -> None:
    came = [block for block, _ in blocks()]
    went = [block for block, gone in blocks() if gone]
    for version, (some, deleted) in enumerate(((came, False), (went, True)), 1 << 48):
        batch = pa.RecordBatch.from_pylist(some, schema=blocks_table().arrow)
        insert(
            store,
            network,
            "blocks_rows",
            batch.append_column("is_deleted", pa.array([deleted] * len(some))),
            version,
        )
    for each in rows:
        of = type(each[0])
        insert(store, network, f"{of.table}_rows", rows_to_arrow(of, [(row, False) for row in each]))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The truth as the Network `mine`; and `other`, whose every row would make a wrong sum."""
    progress: list[Row] = [ProgressRow("tasks", HEAD - 4, block_hash(HEAD - 4))]
    with open_store(f"chdb://{tmp_path_factory.mktemp('store')}") as opened:
        migrate(opened, [])
        for network in ("mine", "other"):
            told = [tasks(), duties(), diagnoses(), findings(), operators(), levels(), events(), progress]
            fill(opened, network, told)
        for service, count in SPANS.items():
            opened.command(
                "INSERT INTO otel_traces (Timestamp, ServiceName, SpanName) "
                f"SELECT fromUnixTimestamp64Nano({START + 1}000000000 + number), '{service}', 'work' "
                f"FROM numbers({count})"
            )
        yield opened


def asked(store: Store, range: TimeRange = RANGE, *networks: str) -> Answer:
    def answer(id: str) -> list[dict[str, Any]]:
        sql = expand(BOARD.panel(id).sql, range, {"network": networks or ["mine"]})
        return [json.loads(line) for line in store.read(sql, "JSONEachRow").splitlines()]

    return answer


@pytest.fixture(scope="module")
def answer(store: Store) -> Answer:
    return asked(store)


def by(rows: list[dict[str, Any]], name: str, number: str) -> dict[str, int]:
    return {row[name]: int(row[number]) for row in rows}


def hexed(address: bytes) -> str:
    return "0x" + address.hex()


MISSED = Counter(hexed(o) for (_, o), state in DUTIES.items() if state == "missed")


def share() -> float:
    stake = dict(zip(OPERATORS, STAKES, strict=True))
    decided = {(n, o): s for (n, o), s in DUTIES.items() if s in ("signed", "late", "missed")}
    on_time = sum(stake[o] for (_, o), s in decided.items() if s == "signed")
    return on_time / sum(stake[o] for _, o in decided)


def kept() -> float:
    """The share of all Operators' stake that was on time."""
    return 1 - sum(n * stake / 100 for n, stake in enumerate(STAKES)) / sum(STAKES)


# --- the panels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", [panel.id for panel in BOARD.panels])
def test_every_panel_answers_something(answer: Answer, id: str) -> None:
    assert answer(id)


def test_every_panel_is_far_below_the_largest_query(store: Store) -> None:
    small = {"max_ast_elements": str(LIMITS["max_ast_elements"] // 10)}
    for panel in BOARD.panels:
        sql = expand(panel.sql, RANGE, {"network": ["mine"]})
        assert store.read(sql, "JSONEachRow", settings=small)


TRUE: dict[str, Callable[[Answer], bool]] = {
    "newest_block": lambda ask: ask("newest_block") == [{"block": HEAD - 1}],
    "block_age": lambda ask: ask("block_age")[0]["age"] > 86_400,
    "on_time_by_stake": lambda ask: ask("on_time_by_stake")[0]["share"] == pytest.approx(share()),
    "reorged_blocks": lambda ask: ask("reorged_blocks") == [{"blocks": len(UNDONE)}],
    "coverage": lambda ask: (
        by(ask("coverage"), "level", "count")
        == {"proved": HEAD - len(LINKED), "linked": len(LINKED), "reported": 0}
    ),
    "tasks_by_state": lambda ask: (
        by(ask("tasks_by_state"), "state", "count")
        == {str(s): list(TASKS.values()).count(s) for s in TaskState}
    ),
    "duties_by_state": lambda ask: (
        by(ask("duties_by_state"), "state", "count")
        == {str(s): list(DUTIES.values()).count(s) for s in DutyState}
    ),
    "missed_by_operator": lambda ask: (
        by(ask("missed_by_operator"), "operator", "missed")
        == {**{hexed(o): MISSED[hexed(o)] for o in OPERATORS}, "all": MISSED.total()}
    ),
    "causes": lambda ask: (
        by(ask("causes"), "cause", "count") == {str(c): list(CAUSES.values()).count(c) for c in Cause}
    ),
    "responses_over_time": lambda ask: (
        [sum(row[of] for row in ask("responses_over_time")) for of in ("responses", "attestations")]
        == [len(RESPONDED), len(ATTESTED)]
    ),
    "findings": lambda ask: (
        ask("findings")
        == [
            {"condition": name, **{str(s): FINDINGS.count(s) for s in FindingStatus}}
            for name in ("equivocation", "all")
        ]
    ),
    "operators": lambda ask: (
        [(row["operator"], row["stake"], row["missed"]) for row in ask("operators")]
        == [(hexed(o), s / 10**18, MISSED[hexed(o)]) for o, s in zip(OPERATORS, STAKES, strict=True)]
    ),
    "processors_behind": lambda ask: ask("processors_behind") == [{"processor": "tasks", "behind": 3}],
    "service_levels": lambda ask: (
        [
            (row["operator"], row["on_time"], row["budget_left"], row["misses_left"])
            for row in ask("service_levels")
        ]
        == [
            *(
                (hexed(o), pytest.approx(1 - n / 100), pytest.approx(1 - n), n)
                for n, o in reversed([*enumerate(OPERATORS)])
            ),
            ("all", pytest.approx(kept()), pytest.approx(1 - (1 - kept()) / 0.01), 0),
        ]
    ),
    "spans_by_service": lambda ask: (
        by(ask("spans_by_service"), "service", "spans") == {**SPANS, "all": sum(SPANS.values())}
    ),
}


def test_every_panel_has_a_truth() -> None:
    assert TRUE.keys() == {panel.id for panel in BOARD.panels}


@pytest.mark.parametrize("id", list(TRUE))
def test_every_panel_answers_what_is_true(answer: Answer, id: str) -> None:
    assert TRUE[id](answer), answer(id)


def test_several_networks_add_up(store: Store) -> None:
    one, both = asked(store), asked(store, RANGE, "mine", "other")
    for id in ("tasks_by_state", "duties_by_state", "causes", "coverage", "reorged_blocks"):
        assert [2 * row.popitem()[1] for row in one(id)] == [row.popitem()[1] for row in both(id)]


def test_a_point_in_time_without_a_response_is_0_and_the_rest_stand_where_they_happened(
    answer: Answer,
) -> None:
    points = answer("responses_over_time")
    assert len(points) == HEAD * BLOCK_SECONDS + 1
    assert sum(row["responses"] > 0 for row in points) == len(set(RESPONDED))


def test_where_there_is_nothing_a_row_says_so(store: Store) -> None:
    nobody = asked(store, TimeRange(1, 100), "nobody")
    lists = {"operators", "processors_behind", "service_levels"}
    for panel in BOARD.panels:
        rows = nobody(panel.id)
        assert bool(rows) == (panel.id not in lists), panel.id
        numbers = [
            v for row in rows for k, v in row.items() if k not in ("time", "age") and type(v) is not str
        ]
        assert not any(numbers), panel.id


def test_what_was_submitted_at_another_time_is_not_counted(store: Store) -> None:
    until = TimeRange(START, START + 9 * BLOCK_SECONDS)  # tasks 0 to 9
    counted = by(asked(store, until)("duties_by_state"), "state", "count")
    assert sum(counted.values()) == 10 * len(OPERATORS)

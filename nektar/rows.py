"""What processors put out: rows of the store's tables, findings among them, and how each column stands there.

Units are the model's (`model.py`).
"""

from __future__ import annotations

import enum
from typing import Annotated, ClassVar

import msgspec

from nektar.model import BlockRef, Hash32


class Column(msgspec.Struct, frozen=True):
    """How a row's field stands in the store: its ClickHouse type and the COMMENT that documents it."""

    type: str
    comment: str


HashColumn = "FixedString(32)"
AddressColumn = "FixedString(20)"


class DutyState(enum.StrEnum):
    EXCUSED = "excused"
    SIGNED = "signed"
    LATE = "late"
    PENDING = "pending"
    UNKNOWN = "unknown"
    MISSED = "missed"


class TaskState(enum.StrEnum):
    OPEN = "open"
    RESPONDED = "responded"
    CHALLENGED = "challenged"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class SlashingState(enum.StrEnum):
    REQUESTED = "requested"
    VETOED = "vetoed"
    EXECUTED = "executed"
    EXPIRED = "expired"
    VOID = "void"
    UNKNOWN = "unknown"


class TaskRow(msgspec.Struct, frozen=True):
    """One Task and how it stands."""

    table: ClassVar[str] = "tasks"
    key: ClassVar[tuple[str, ...]] = ("task_hash",)

    task_hash: Annotated[bytes, Column(HashColumn, "Identity of the task; no fork can reuse it")]
    number: Annotated[int, Column("UInt64", "Task number of the contract; a label, reused after a reorg")]
    type: Annotated[bytes, Column(HashColumn, "Task type, as whitelisted in the registry")]
    input: Annotated[str, Column("String", "The task's input: a decimal for a number, 0x… for bytes")]
    set_hash: Annotated[bytes, Column(HashColumn, "OperatorSet that the task committed to")]
    submitter: Annotated[bytes, Column(AddressColumn, "Who submitted it")]
    submitted_block: Annotated[int, Column("UInt64", "Block of the submission")]
    deadline_unit: Annotated[str, Column("LowCardinality(String)", "block, timestamp or epoch")]
    deadline: Annotated[int, Column("UInt64", "Last block (or time, or epoch) at which a response counts")]
    grace: Annotated[int, Column("UInt64", "How long after the deadline an attestation still counts as late")]
    state: Annotated[
        str, Column("LowCardinality(String)", "open, responded, challenged, expired or cancelled")
    ]
    response_digest: Annotated[
        bytes,
        Column(HashColumn, "Digest of the response that was accepted, challenged since or not; zero: none"),
    ]
    response_block: Annotated[int, Column("UInt64", "Block in which it was accepted; 0: none")]
    challenge_deadline: Annotated[
        int, Column("UInt64", "Last block (or time, or epoch) at which it can be challenged; 0: no response")
    ]


class DutyRow(msgspec.Struct, frozen=True):
    """One Duty = (task, operator), decided from the chain alone."""

    table: ClassVar[str] = "duties"
    key: ClassVar[tuple[str, ...]] = ("task_hash", "operator")

    task_hash: Annotated[bytes, Column(HashColumn, "Identity of the task")]
    operator: Annotated[bytes, Column(AddressColumn, "The Operator that owes the response")]
    task_number: Annotated[int, Column("UInt64", "Task number of the contract")]
    task_input: Annotated[str, Column("String", "The task's input: a decimal for a number, 0x… for bytes")]
    state: Annotated[
        str, Column("LowCardinality(String)", "excused, signed, late, pending, unknown or missed")
    ]
    deadline: Annotated[int, Column("UInt64", "Last block at which a response counts")]
    grace: Annotated[int, Column("UInt64", "Blocks after the deadline in which an attestation is late")]
    decided_block: Annotated[int, Column("UInt64", "Block whose content put the duty in this state")]


class Cause(enum.StrEnum):
    OFFLINE = "offline"
    NONE_REPORTED = "none_reported"
    CLOCK = "clock"
    WRONG_RESULT = "wrong_result"
    SLOW_EXECUTION = "slow_execution"
    NETWORK = "network"
    AGGREGATOR_DROPPED = "aggregator_dropped"
    UNEXPLAINED = "unexplained"


class DiagnosisRow(msgspec.Struct, frozen=True):
    """Why a Duty was not done in time, as telemetry tells it: an explanation, and no fact."""

    table: ClassVar[str] = "diagnoses"
    key: ClassVar[tuple[str, ...]] = ("task_hash", "operator")

    task_hash: Annotated[bytes, Column(HashColumn, "Identity of the task")]
    operator: Annotated[bytes, Column(AddressColumn, "The Operator that owed the response")]
    task_number: Annotated[int, Column("UInt64", "Task number of the contract")]
    task_input: Annotated[str, Column("String", "The task's input: a decimal for a number, 0x… for bytes")]
    state: Annotated[str, Column("LowCardinality(String)", "The duty's: late, unknown or missed")]
    cause: Annotated[
        str,
        Column(
            "LowCardinality(String)",
            "offline, none_reported, clock, wrong_result, slow_execution, network, aggregator_dropped or "
            "unexplained",
        ),
    ]
    stage: Annotated[str, Column("LowCardinality(String)", "The step of the work at which it went wrong")]
    blame: Annotated[str, Column("LowCardinality(String)", "Whose it is: operator, aggregator or nobody")]
    told_by: Annotated[str, Column("String", "Senders whose word it rests on, separated by commas")]
    spans: Annotated[str, Column("String", "Ids of the spans that it rests on, in hex, separated by spaces")]


class ForgeryRow(msgspec.Struct, frozen=True):
    """How often a sender of telemetry brought signatures that were not those of whom it said."""

    table: ClassVar[str] = "forgeries"
    key: ClassVar[tuple[str, ...]] = ("brought_by",)

    brought_by: Annotated[str, Column("String", "The sender")]
    duties: Annotated[
        int, Column("UInt64", "Duties to which it brought a wrong response, signed with another key or none")
    ]


class OperatorRow(msgspec.Struct, frozen=True):
    """One Operator as the registry knows it."""

    table: ClassVar[str] = "operators"
    key: ClassVar[tuple[str, ...]] = ("operator",)

    operator: Annotated[bytes, Column(AddressColumn, "The Operator's address")]
    bls_key: Annotated[bytes, Column("FixedString(64)", "Registered BLS key: BN254 G1, x then y")]
    region: Annotated[str, Column("LowCardinality(String)", "Declared region")]
    validators: Annotated[int, Column("UInt32", "Declared validator count")]
    stake: Annotated[int, Column("UInt256", "Stake in the newest OperatorSet, all positions, in wei")]
    in_set: Annotated[bool, Column("Bool", "Whether the newest OperatorSet holds it")]
    registered_block: Annotated[int, Column("UInt64", "Block of the (last) registration")]
    deregistered_block: Annotated[int, Column("UInt64", "First block without duties for new tasks; 0: none")]


class SlashingRow(msgspec.Struct, frozen=True):
    """One request to slash, and what became of it."""

    table: ClassVar[str] = "slashings"
    key: ClassVar[tuple[str, ...]] = ("slasher", "request")

    slasher: Annotated[bytes, Column(AddressColumn, "The contract that was asked")]
    request: Annotated[bytes, Column(HashColumn, "Name of the request, that contract's own")]
    operator: Annotated[bytes, Column(AddressColumn, "Who is to be slashed")]
    condition: Annotated[str, Column("LowCardinality(String)", "What it is said to be for: 0x… for a hash")]
    task_hash: Annotated[bytes, Column(HashColumn, "The task it is said to be about; zero: none")]
    proved: Annotated[bool, Column("Bool", "Whether the contract checked a proof; else a word was enough")]
    authority: Annotated[bytes, Column(AddressColumn, "Whose word it rests on; zero: not said")]
    unit: Annotated[str, Column("LowCardinality(String)", "Of the amounts: wei, or wad for parts in 10^18")]
    asked: Annotated[int, Column("UInt256", "Amount asked for, of all kinds of collateral together")]
    taken: Annotated[int, Column("UInt256", "Amount taken, of all kinds of collateral together")]
    receiver: Annotated[bytes, Column(AddressColumn, "Who got it, or is to; zero: not said")]
    state: Annotated[
        str, Column("LowCardinality(String)", "requested, vetoed, executed, expired, void or unknown")
    ]
    votes: Annotated[int, Column("UInt64", "Votes of the committee to overrule it")]
    votes_needed: Annotated[int, Column("UInt64", "So many overrule it; 0: not known")]
    deadline_unit: Annotated[str, Column("LowCardinality(String)", "block, timestamp or epoch")]
    veto_deadline: Annotated[int, Column("UInt64", "Last block (or time, or epoch) at which a veto counts")]
    veto_time: Annotated[int, Column("DateTime('UTC')", "About when that is; 1970: not known")]
    execution_deadline: Annotated[
        int,
        Column("UInt64", "Last block (or time, or epoch) at which it can be executed; 0: none"),
    ]
    execution_time: Annotated[int, Column("DateTime('UTC')", "About when that is; 1970: not known")]
    captured: Annotated[
        int,
        Column("UInt64", "When the stake is of; executing one of later stake voids this; 0: not said"),
    ]
    requested_block: Annotated[int, Column("UInt64", "Block of the request")]
    decided_block: Annotated[int, Column("UInt64", "Block whose content put it in this state")]


def _in_the_last(time: str, failed: bool = False) -> Column:
    """A window of ServiceRow: stake of eligible Duties, or of those of them that failed."""
    which = "late or missed" if failed else "signed, late or missed"
    return Column("UInt256", f"Stake of its duties of the last {time} that were {which}, in wei")


class ServiceRow(msgspec.Struct, frozen=True):
    """How the Duties of one Operator went, in windows of the chain's own time.

    A Duty is in a window with the block that decided it, by the stake that the Task's set gives the Operator.
    """

    table: ClassVar[str] = "service_windows"
    key: ClassVar[tuple[str, ...]] = ("operator",)

    operator: Annotated[bytes, Column(AddressColumn, "The Operator's address")]
    eligible_5m: Annotated[int, _in_the_last("5 minutes")]
    eligible_30m: Annotated[int, _in_the_last("30 minutes")]
    eligible_1h: Annotated[int, _in_the_last("hour")]
    eligible_6h: Annotated[int, _in_the_last("6 hours")]
    eligible_3d: Annotated[int, _in_the_last("3 days")]
    eligible_30d: Annotated[int, _in_the_last("30 days")]
    failed_5m: Annotated[int, _in_the_last("5 minutes", failed=True)]
    failed_30m: Annotated[int, _in_the_last("30 minutes", failed=True)]
    failed_1h: Annotated[int, _in_the_last("hour", failed=True)]
    failed_6h: Annotated[int, _in_the_last("6 hours", failed=True)]
    failed_3d: Annotated[int, _in_the_last("3 days", failed=True)]
    failed_30d: Annotated[int, _in_the_last("30 days", failed=True)]
    missed_6h: Annotated[int, Column("UInt64", "Duties missed in the last 6 hours")]
    misses_left: Annotated[
        int,
        Column("Int64", "So many more it can miss before one more meets missed_duty; -1: terms are not told"),
    ]
    time: Annotated[int, Column("DateTime('UTC')", "Time of the block with which any of this changed last")]
    meets_time: Annotated[
        int,
        Column(
            "DateTime('UTC')",
            "About when missed_duty is met if it goes on as in the last 6 hours; 1970: not in that way",
        ),
    ]


class ProgressRow(msgspec.Struct, frozen=True):
    """How far a processor has folded the log: the newest block whose consequences are all put out."""

    table: ClassVar[str] = "progress"
    key: ClassVar[tuple[str, ...]] = ("processor",)

    processor: Annotated[str, Column("LowCardinality(String)", "Name of the fold")]
    block_number: Annotated[int, Column("UInt64", "Newest block folded")]
    block_hash: Annotated[bytes, Column(HashColumn, "Its hash")]
    stands: Annotated[bool, Column("Bool", "False: its generation of the log was still catching up")] = True


class FindingStatus(enum.StrEnum):
    SEEN = "seen"
    SAFE = "safe"
    FINAL = "final"
    RETRACTED = "retracted"


class Finding(msgspec.Struct, frozen=True):
    """A condition that holds for a subject.

    `id` is a hash of (condition, network, subject, key facts) and not of any block, so that the same fact
    keeps its id across reorgs and replays. `block` is the newest block that its claims rest on.
    """

    table: ClassVar[str] = "findings"
    key: ClassVar[tuple[str, ...]] = ("id",)

    id: Annotated[bytes, Column(HashColumn, "Hash of condition, network, subject and key facts")]
    condition: Annotated[str, Column("LowCardinality(String)", "Name of the condition")]
    operator: Annotated[bytes, Column(AddressColumn, "The Operator it is about")]
    task_hash: Annotated[bytes, Column(HashColumn, "The task it is about; zero where there is none")]
    task_number: Annotated[int, Column("UInt64", "Task number of the contract")]
    task_input: Annotated[str, Column("String", "The task's input: a decimal for a number, 0x… for bytes")]
    block_number: Annotated[int, Column("UInt64", "Newest block that its claims rest on")]
    block_hash: Annotated[bytes, Column(HashColumn, "Hash of that block")]
    block_time: Annotated[int, Column("DateTime('UTC')", "Time of that block")]
    level: Annotated[str, Column("LowCardinality(String)", "Lowest check level of the blocks under it")]
    anchor: Annotated[str, Column("LowCardinality(String)", "What makes those blocks canonical")]
    facts: Annotated[str, Column("String", "Key facts as canonical JSON: what the claims are gathered from")]
    status: Annotated[str, Column("LowCardinality(String)", "seen, safe, final or retracted")] = "seen"

    @property
    def block(self) -> BlockRef:
        return BlockRef(self.block_number, Hash32(self.block_hash))


class EvidenceRow(msgspec.Struct, frozen=True):
    """The evidence for a finding, whole: whoever has it needs nobody's word (docs/EVIDENCE.md)."""

    table: ClassVar[str] = "evidence"
    key: ClassVar[tuple[str, ...]] = ("id",)

    id: Annotated[bytes, Column(HashColumn, "The finding that it is for")]
    condition: Annotated[str, Column("LowCardinality(String)", "Name of the condition that it proves")]
    operator: Annotated[bytes, Column(AddressColumn, "The Operator that it is about")]
    block_number: Annotated[int, Column("UInt64", "Newest block that the finding rests on")]
    block_hash: Annotated[bytes, Column(HashColumn, "Hash of that block")]
    sha256: Annotated[bytes, Column(HashColumn, "Digest of the bundle")]
    size: Annotated[int, Column("UInt64", "Its length in bytes")]
    bundle: Annotated[str, Column("String", "The bundle, canonical JSON, as `nektar verify` takes it")]
    missing: Annotated[str, Column("String", "Why there is none; empty: there is")] = ""


class DryRunRow(msgspec.Struct, frozen=True):
    """What the slashing contract said to a finding's proof, asked without sending anything."""

    table: ClassVar[str] = "dry_runs"
    key: ClassVar[tuple[str, ...]] = ("id", "block_hash")

    id: Annotated[bytes, Column(HashColumn, "The finding")]
    block_number: Annotated[int, Column("UInt64", "Block on whose state it was run")]
    block_hash: Annotated[bytes, Column(HashColumn, "Hash of that block")]
    provider: Annotated[
        str, Column("LowCardinality(String)", "Provider that ran it; of a refusal, all that did")
    ]
    accepted: Annotated[bool, Column("Bool", "Whether the contract accepted the proof")]
    gas: Annotated[int, Column("UInt64", "What it would have cost; 0: not accepted, or not said")]
    revert: Annotated[str, Column("String", "Why the contract refused it, as the provider said")]


class TaskEventRow(msgspec.Struct, frozen=True):
    """Something that befell a Task on the chain."""

    table: ClassVar[str] = "task_events"
    key: ClassVar[tuple[str, ...]] = ("task_hash", "block_hash", "log_index")

    task_hash: Annotated[bytes, Column(HashColumn, "The task")]
    block_hash: Annotated[bytes, Column(HashColumn, "Hash of the block that holds it")]
    log_index: Annotated[int, Column("UInt32", "Place of its log in the block")]
    block_number: Annotated[int, Column("UInt64", "Number of that block")]
    block_time: Annotated[int, Column("DateTime('UTC')", "Time of that block")]
    kind: Annotated[
        str, Column("LowCardinality(String)", "submitted, responded, attested, challenged or cancelled")
    ]
    operator: Annotated[bytes, Column(AddressColumn, "The Operator that did it; zero: none by itself")]
    detail: Annotated[str, Column("String", "What else the event says, as canonical JSON")]


class ChainSpan(msgspec.Struct, frozen=True):
    """What the chain tells of a Task, as a span of the Task's trace (nektar/telemetry.py)."""

    table: ClassVar[str] = "chain_spans"
    key: ClassVar[tuple[str, ...]] = ("trace_id", "span_id")

    trace_id: Annotated[bytes, Column("FixedString(16)", "The task's trace")]
    span_id: Annotated[bytes, Column("FixedString(8)", "The span")]
    parent_id: Annotated[bytes, Column("FixedString(8)", "The span that it stands under; zero: none")]
    name: Annotated[str, Column("LowCardinality(String)", "task, or chain.KIND of a task event")]
    started: Annotated[int, Column("DateTime('UTC')", "Time of its (first) block")]
    ended: Annotated[int, Column("DateTime('UTC')", "Time of its last block")]
    attributes: Annotated[str, Column("String", "Its attributes, as canonical JSON of strings")]


Row = (
    TaskRow
    | DutyRow
    | DiagnosisRow
    | ForgeryRow
    | OperatorRow
    | SlashingRow
    | ServiceRow
    | ProgressRow
    | TaskEventRow
    | ChainSpan
    | EvidenceRow
    | DryRunRow
    | Finding
)
ROWS: tuple[type[Row], ...] = (
    *(TaskRow, DutyRow, DiagnosisRow, OperatorRow, SlashingRow, ServiceRow, ProgressRow, TaskEventRow),
    *(ForgeryRow, EvidenceRow, DryRunRow, Finding),
)
"""Those that are true now, and have a table of their own."""
ONCE_FINAL: tuple[type[Row], ...] = (ChainSpan,)
"""Those that are said once what they speak of is final, and then for good: for whoever can't take back."""


class Change(msgspec.Struct, frozen=True):
    """One row moving from `before` to `after`; None means that it is not there.

    A fold says both sides, so that an undo is the same change turned round and needs no lookup.
    Both sides, where both are there, are of one type and one key.
    """

    before: Row | None
    after: Row | None

    @property
    def reversed(self) -> Change:
        return Change(self.after, self.before)

"""What has become of each finding's evidence: a pure part of the prosecutor.

A case is opened by the first version of a finding, and again when a reorg has moved what it rests on. It is
open until its bundle is made and the slashing contract has accepted the proof, or has refused it often
enough whichever provider is asked, or until it is sure that there can be no bundle; and it is remembered
until its finding is final or retracted, after which no version of it comes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

import msgspec

from nektar.evidence import canonical
from nektar.rows import Change, DryRunRow, EvidenceRow, Finding, FindingStatus

# Some proofs hold from a later block on, most at once. After so many refusals of a provider, in ever later
# blocks, nothing is expected of another.
MOST_ATTEMPTS = 8

Key = tuple[str, int, bytes]  # by which a case is told: Network, generation, finding


class Case(msgspec.Struct, frozen=True):
    """A finding whose evidence is gathered and tried."""

    finding: Finding  # its newest version
    bundle: str = ""  # once it is made
    missing: str = ""  # why it is not, if that was said
    refused: dict[str, tuple[int, ...]] = {}  # provider → rising blocks on whose state it refused the proof
    closed: bool = False  # nothing more is to be done

    @property
    def settled(self) -> bool:
        """Whether nothing more can become of it."""
        return self.closed and self.finding.status == FindingStatus.FINAL


def heard(case: Case | None, finding: Finding) -> tuple[Case | None, list[Change]]:
    """The case after a version of its finding; None where there is none any more."""
    if finding.status == FindingStatus.RETRACTED:
        gone = Change(evidence(finding, ""), None)
        return None, [gone] if case is None or case.bundle or case.missing or case.closed else []
    if case is None or moved(case.finding, finding):
        return Case(finding), []
    return msgspec.structs.replace(case, finding=finding), []


def moved(before: Finding, after: Finding) -> bool:
    """Whether what a finding rests on is another: all of it but how sure it is."""
    replace = msgspec.structs.replace
    return replace(before, status="", anchor="") != replace(after, status="", anchor="")


def made(case: Case, bundle: bytes) -> tuple[Case, list[Change]]:
    """The case with its bundle."""
    text = bundle.decode()
    after = msgspec.structs.replace(case, bundle=text, missing="")
    return after, [Change(None, evidence(case.finding, text))]


def tried(case: Case, runs: Sequence[DryRunRow], providers: Collection[str]) -> tuple[Case, list[Change]]:
    """The case after dry runs of its proof, by some of these providers. A refusal is one provider's word: it
    counts where no other accepts, and ends the case where none of all is left to be asked."""
    if accepted := [run for run in runs if run.accepted]:
        return msgspec.structs.replace(case, closed=True), [Change(None, run) for run in accepted]
    refused, rows = dict(case.refused), dict[bytes, DryRunRow]()
    for run in runs:
        refused[run.provider] = (*refused.get(run.provider, ()), run.block_number)
        same = rows.get(run.block_hash)
        names = f"{same.provider}, {run.provider}" if same else run.provider
        rows[run.block_hash] = msgspec.structs.replace(same or run, provider=names)
    closed = all(len(refused.get(name, ())) >= MOST_ATTEMPTS for name in providers)
    after = msgspec.structs.replace(case, refused=refused, closed=closed)
    return after, [Change(None, row) for row in rows.values()]


def unserved(case: Case, why: str) -> tuple[Case, list[Change]]:
    """The case of whose evidence nobody serves a part, which may change."""
    return msgspec.structs.replace(case, missing=why), [Change(None, evidence(case.finding, "", why))]


def unshowable(case: Case, why: str) -> tuple[Case, list[Change]]:
    """The case of which nobody can be shown evidence, whoever is asked for it."""
    after, changes = unserved(case, why)
    return msgspec.structs.replace(after, closed=True), changes


def without_dispute(case: Case) -> Case:
    """The case where the contracts have no proof of its condition."""
    return msgspec.structs.replace(case, closed=True)


def evidence(finding: Finding, bundle: str, missing: str = "") -> EvidenceRow:
    """The row that shows a bundle, or says why there is none."""
    octets = bundle.encode()
    return EvidenceRow(
        id=finding.id,
        condition=finding.condition,
        operator=finding.operator,
        block_number=finding.block_number,
        block_hash=finding.block_hash,
        sha256=hashlib.sha256(octets).digest(),
        size=len(octets),
        bundle=bundle,
        missing=missing,
    )


def write(case: Case) -> bytes:
    """The case as it is kept; of one that is closed the bundle is not needed again."""
    kept = msgspec.structs.replace(case, bundle="") if case.closed else case
    return canonical.encode(msgspec.to_builtins(kept))


def read(value: bytes) -> Case:
    """What `write` wrote. Raises msgspec.ValidationError, msgspec.DecodeError."""
    return msgspec.convert(msgspec.json.decode(value), Case)

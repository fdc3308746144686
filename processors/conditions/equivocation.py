"""Equivocation: one Operator signed two responses to one Task.

A taskHash is no fork's but its own, so nobody honest can be made to sign two responses to it. There is one
finding per (task, operator). Its evidence is the first two digests in the order of the log, however many more
are signed; an undo of one takes the finding back, or leaves it to the next two.

Signatures are verified when they first matter, which is when another one stands beside the one that is held;
at most one that is not verified is held for each Operator, so no number of false ones hides a true one.

Who is in the quorum of an accepted response has signed that too: the sum of signatures shows it of each. The
sum is verified when first a member is found to have signed another one; what agrees with it costs nothing.
The quorum of a call that reverted counts for nothing: its sum would show it as well, but the contracts prove
a member's own signature, or its place in the record of the accepted response, and of that call have neither.
How Tasks are watched, and for how long, is said in `watch.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from immutables import Map

from nektar.chain.keccak import keccak
from nektar.evidence import bls, sought
from nektar.evidence.bundle import AggregateClaim, Bundle, SignatureClaim
from nektar.evidence.sought import Sought
from nektar.evidence.verify import Accused, NotProved
from nektar.facts import Accepted, Fact, Submitted
from nektar.facts import Signed as SignedFact
from nektar.model import Block, Event, Hash32, Level, Network
from nektar.networks.encoding import (
    PROVE_EQUIVOCATION,
    PROVE_EQUIVOCATION_IN_QUORUM,
    call,
    is_answer,
    members,
    numbers,
    word,
)
from nektar.rows import Change, Finding
from processors.conditions import watch
from processors.conditions.condition import Dispute
from processors.conditions.signatures import SIGNATURE_BYTES, Signatures
from processors.conditions.watch import Held, Quorum

# About what a response is with all that is kept of it, beside its signatures.
RESPONSE_BYTES = 700


class Said(msgspec.Struct, frozen=True, array_like=True):
    """What many sign alike: a Task's signatures are mostly over one response, and brought by telemetry."""

    response: bytes
    block: Block | None  # that holds it; None for what telemetry brought
    verified: bool


class Kept(msgspec.Struct, frozen=True):
    """What is kept of a Task. Operators are their places in its set."""

    # First signatures that count, one of each; of those in the quorum, what came before it.
    held: Map[Said, Signatures] = Map()
    quorum: Quorum | None = None


Watch = watch.Watch[Kept]
Watched = watch.Watched[Kept]


class Detect:
    """The fold `equivocation`: puts out findings."""

    name = "equivocation"
    state_type = Watch

    def initial(self, network: Network) -> Watch:
        """Nothing watched. Raises UnknownContract where the configuration has no task manager."""
        return watch.begin(network)

    def step(self, state: Watch, event: Event) -> tuple[Watch, list[Change]]:
        """What telemetry brings is heard at once, what a block holds when the block is closed."""
        return watch.step(state, event, self)

    def first(self) -> Kept:
        """Nothing is signed."""
        return Kept()

    def heard(self, state: Watch, watched: Watched, place: int, held: Held) -> tuple[Watched, list[Finding]]:
        """Hold a signature that may come to matter, or find two."""
        try:
            signature = bls.compressed(held.signature)
        except bls.InvalidPoint:
            return watched, []
        quorum, said = watched.kept.quorum, _said_by(watched, place)
        if said and said.response == held.response and watched.kept.held[said].is_held(place, signature):
            return watched, []
        if said and (first := _verified(state, watched, place, _held(watched, said, place))):
            if first.digest == held.digest or not (second := _verified(state, watched, place, held)):
                return _keep(watched, place, first), []
            return _found(state, watched, place, first, second)
        if quorum is None or not quorum.signers >> place & 1:
            return _keep(watched, place, _verified(state, watched, place, held) if said else held), []
        if quorum.digest == held.digest:
            return _keep(watched, place, None if _is_sure(quorum) else held), []
        second = _verified(state, watched, place, held)
        watched = _keep(watched, place, second)
        return _found_in_quorum(state, watched, place, second) if second else (watched, [])

    def accepted(self, state: Watch, watched: Watched, quorum: Quorum) -> tuple[Watched, list[Finding]]:
        """Of its signers, who signed another one before is found. What the others are held for it shows too,
        so that of a Task that is responded to little is kept."""
        if watched.kept.quorum:
            return watched, []
        watched, findings = _with_quorum(watched, quorum), list[Finding]()
        signed = sorted(
            (place, said)
            for said, signatures in watched.kept.held.items()
            for place in signatures
            if quorum.signers >> place & ~(watched.found >> place) & 1
        )
        for place, said in signed:
            if said.response == quorum.response:
                watched = _keep(watched, place, None) if _is_sure(quorum) else watched
                continue
            first = _verified(state, watched, place, _held(watched, said, place))
            watched = _keep(watched, place, first)
            if first:
                watched, found = _found_in_quorum(state, watched, place, first, is_first=True)
                findings += found
        return watched, findings


class Equivocation:
    """The condition `equivocation`."""

    name = "equivocation"
    detect = Detect()

    def claims(self, finding: Finding) -> Sought:
        """The two signatures, with all that makes them this Operator's over this Task."""
        return sought.read(finding.facts)

    def holds(self, accused: Accused, facts: Sequence[Fact], terms: Mapping[str, int]) -> None:
        """A Task that was submitted, and two digests that this Operator signed to it."""
        _holds(accused, facts, terms)

    def dispute(self, bundle: Bundle) -> Dispute | None:
        """Calldata of SlashingManager.proveEquivocation, or of proveEquivocationInQuorum where one of the two
        is a quorum's. None where both are, or where a response is no Answer of the reference contracts."""
        alone = [claim for claim in bundle.claims if isinstance(claim, SignatureClaim)]
        quorum = next((claim for claim in bundle.claims if isinstance(claim, AggregateClaim)), None)
        responses = [each.response for each in alone] + ([quorum.response] if quorum else [])
        if not alone or not all(map(is_answer, responses)):
            return None
        one = alone[0]
        about = (one.task, members(bundle.sets[0]), word(one.index))
        if quorum is None:
            signed = [part for claim in alone for part in (claim.response, claim.signature)]
            return Dispute("slashing_manager", call(PROVE_EQUIVOCATION, *about, *signed))
        accepted = quorum.response, numbers(quorum.non_signers)
        return Dispute(
            "slashing_manager",
            call(PROVE_EQUIVOCATION_IN_QUORUM, *about, *accepted, one.response, one.signature),
        )


def _holds(accused: Accused, facts: Sequence[Fact], terms: Mapping[str, int]) -> None:
    task, operator = accused.subject, accused.operator
    if not any(isinstance(fact, Submitted) and keccak(fact.task) == task for fact in facts):
        raise NotProved("equivocation: expected the submission of the Task; it is not shown")
    signed = {
        fact.digest
        for fact in facts
        if isinstance(fact, SignedFact) and (fact.task_hash, fact.operator) == (task, operator)
    }
    accepted = {fact.digest for fact in facts if isinstance(fact, Accepted) and fact.task_hash == task}
    if any(isinstance(fact, SignedFact) and not fact.alone and fact.digest not in accepted for fact in facts):
        raise NotProved("equivocation: expected the quorum's response to be accepted; that is not shown")
    if len(signed) != 2:
        raise NotProved(f"equivocation: expected two digests that it signed; {len(signed)} are shown")


# SlashingManager's proofs.


# --- signatures -------------------------------------------------------------------------------------


def _verified(state: Watch, watched: Watched, place: int, held: Held) -> Held | None:
    """The signature as verified; None where it is not the member's."""
    if held.verified:
        return held
    if not watch.is_signed(state, watched, place, held):
        return None
    return msgspec.structs.replace(held, verified=True)


def _said_by(watched: Watched, place: int) -> Said | None:
    """What the member's signature that is held is over."""
    return next((said for said, signatures in watched.kept.held.items() if place in signatures), None)


def _held(watched: Watched, said: Said, place: int) -> Held:
    signature = watched.kept.held[said].get(place)
    return Held(Hash32(keccak(said.response)), said.response, signature, said.block, said.verified)


def _keep(watched: Watched, place: int, held: Held | None) -> Watched:
    """Hold this of the member, and nothing else."""
    all_, size, before = watched.kept.held, watched.size, _said_by(watched, place)
    if before is None and held is None:
        return watched
    if before:
        rest = all_[before].drop(place)
        all_ = all_.set(before, rest) if rest.strings else all_.delete(before)
        size -= SIGNATURE_BYTES if rest.strings else SIGNATURE_BYTES + RESPONSE_BYTES
    if held:
        said = Said(held.response, held.block, held.verified)
        size += SIGNATURE_BYTES if said in all_ else SIGNATURE_BYTES + RESPONSE_BYTES
        all_ = all_.set(said, all_.get(said, Signatures()).put(place, bls.compressed(held.signature)))
    kept = msgspec.structs.replace(watched.kept, held=all_)
    return msgspec.structs.replace(watched, kept=kept, size=size)


def _is_sure(quorum: Quorum) -> bool:
    """Whether the contract is known to have checked it: else its events are a provider's word."""
    return quorum.block.level is Level.PROVED


def _with_quorum(watched: Watched, quorum: Quorum) -> Watched:
    return msgspec.structs.replace(watched, kept=msgspec.structs.replace(watched.kept, quorum=quorum))


def _found_in_quorum(
    state: Watch, watched: Watched, place: int, held: Held, is_first: bool = False
) -> tuple[Watched, list[Finding]]:
    """What the member has signed against the quorum that it is said to be in, if that is the sum of its
    signers: which is looked at once a Task, since it takes a twentieth of a second for a thousand of them."""
    quorum = watched.kept.quorum
    assert quorum is not None  # noqa: S101  the caller looked
    if not quorum.verified:
        signers = quorum.signers if watch.is_quorums(state, watched, quorum) else 0
        quorum = msgspec.structs.replace(quorum, signers=signers, verified=True)
        watched = _with_quorum(watched, quorum)
    if not quorum.signers >> place & 1:
        return watched, []
    return _found(state, watched, place, *((held, quorum) if is_first else (quorum, held)))


def _found(
    state: Watch, watched: Watched, place: int, first: Held | Quorum, second: Held | Quorum
) -> tuple[Watched, list[Finding]]:
    """Of a member that is found nothing more is needed."""
    finding = watch.finding(state, watched, place, [first, second], Detect.name, _holds)
    watched = _keep(watched, place, None)
    return msgspec.structs.replace(watched, found=watched.found | 1 << place), [finding]

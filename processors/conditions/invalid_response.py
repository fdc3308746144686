"""Invalid response: an Operator signed a response that the task's own on-chain check rejects, p·q ≠ n or a
smaller divisor than p shown, alone or in the quorum of an accepted one.

There is one finding per (task, operator). Its evidence is the first wrong response in the order of the log
that it signed; an undo of that takes the finding back, or leaves it to the next. Whether the accepted one was
challenged since is no matter: who signed has signed.

A signature that stands alone is verified as it comes, where its response is wrong, and is kept only as a
finding: so no number of false ones hides a true one, or makes the state grow; each costs one verification,
and none costs any once its Operator is found. A Task's number is factored once, when first a response to it
is heard that multiplies to it. Who is in the quorum of an accepted response has signed that: the sum of
signatures shows it of each, and is verified once where the response is wrong. One that reverted counts for
nothing, as in `equivocation.py`.

How long Tasks are watched is said in `watch.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from nektar.chain.keccak import keccak
from nektar.evidence import sought
from nektar.evidence.bundle import AggregateClaim, Bundle, RefutationClaim, SignatureClaim
from nektar.evidence.canonical import Octets
from nektar.evidence.sought import Sought
from nektar.evidence.verify import TASK_MANAGER, Accused, NotProved
from nektar.facts import Accepted, Fact, Refuted, Submitted
from nektar.facts import Signed as SignedFact
from nektar.model import Address, Event, Network
from nektar.networks.answers import LIMIT, least_divisor, wrong_by_itself
from nektar.networks.encoding import (
    PAIR,
    PROVE_INVALID_RESPONSE,
    PROVE_INVALID_RESPONSE_IN_QUORUM,
    TASK,
    BadEncoding,
    answer_of,
    call,
    input_of,
    is_answer,
    members,
    numbers,
    operator_set,
    word,
)
from nektar.rows import Change, Finding
from processors.conditions import watch
from processors.conditions.condition import Dispute
from processors.conditions.watch import Held, Quorum

# Of a Task is kept its number's least divisor; 0 until it is needed.
Watch = watch.Watch[int]
Watched = watch.Watched[int]


class Detect:
    """The fold `invalid_response`: puts out findings."""

    name = "invalid_response"
    state_type = Watch

    def initial(self, network: Network) -> Watch:
        """Nothing watched. Raises UnknownContract where the configuration has no task manager."""
        return watch.begin(network)

    def step(self, state: Watch, event: Event) -> tuple[Watch, list[Change]]:
        """What telemetry brings is heard at once, what a block holds when the block is closed."""
        return watch.step(state, event, self)

    def first(self) -> int:
        """No divisor is known."""
        return 0

    def heard(self, state: Watch, watched: Watched, place: int, held: Held) -> tuple[Watched, list[Finding]]:
        """A wrong response, if the signature is the member's, is a finding."""
        watched, divisor = _refuted(watched, held.response)
        if divisor is None or not watch.is_signed(state, watched, place, held):
            return watched, []
        return _found(state, watched, [place], held, divisor)

    def accepted(self, state: Watch, watched: Watched, quorum: Quorum) -> tuple[Watched, list[Finding]]:
        """Of a wrong response, all who signed it are found who were not before."""
        watched, divisor = _refuted(watched, quorum.response)
        if divisor is None or not watch.is_quorums(state, watched, quorum):
            return watched, []
        new = quorum.signers & ~watched.found
        places = [place for place in range(new.bit_length()) if new >> place & 1]
        return _found(state, watched, places, quorum, divisor)


class InvalidResponse:
    """The condition `invalid_response`."""

    name = "invalid_response"
    detect = Detect()

    def claims(self, finding: Finding) -> Sought:
        """The signature, with all that makes it this Operator's over this Task, and what refutes it."""
        return sought.read(finding.facts)

    def holds(self, accused: Accused, facts: Sequence[Fact], terms: Mapping[str, int]) -> None:
        """A Task that was submitted, and one digest of a wrong response that this Operator signed to it."""
        _holds(accused, facts, terms)

    def dispute(self, bundle: Bundle) -> Dispute | None:
        """Calldata of SlashingManager.proveInvalidResponse, or of proveInvalidResponseInQuorum. None where
        the response is no Answer of the reference contracts."""
        shown = _shown(bundle)
        if shown is None:
            return None
        signed, divisor = shown
        if isinstance(signed, SignatureClaim):
            about = (signed.task, members(bundle.sets[0]), word(signed.index))
            return Dispute(
                "slashing_manager",
                call(PROVE_INVALID_RESPONSE, *about, signed.response, signed.signature, divisor),
            )
        places = [member.operator for member in operator_set(bundle.sets[0]).members]
        about = (signed.task, members(bundle.sets[0]), word(places.index(Address(bundle.operator))))
        return Dispute(
            "slashing_manager",
            call(
                PROVE_INVALID_RESPONSE_IN_QUORUM,
                *about,
                signed.response,
                numbers(signed.non_signers),
                divisor,
            ),
        )

    def challenge(self, bundle: Bundle) -> Dispute | None:
        """Calldata of TaskManager.challenge, which overturns this response. The contract takes it where that
        is the accepted one, from the same Operator or others, until its challenge deadline."""
        shown = _shown(bundle)
        if shown is None:
            return None
        signed, divisor = shown
        return Dispute(TASK_MANAGER, call(_CHALLENGE, signed.task, signed.response, divisor))


_CHALLENGE = f"challenge({TASK},{PAIR},uint256)"


def _holds(accused: Accused, facts: Sequence[Fact], terms: Mapping[str, int]) -> None:
    task, operator = accused.subject, accused.operator
    if not any(isinstance(fact, Submitted) and keccak(fact.task) == task for fact in facts):
        raise NotProved("invalid_response: expected the submission of the Task; it is not shown")
    mine = [
        fact
        for fact in facts
        if isinstance(fact, SignedFact) and (fact.task_hash, fact.operator) == (task, operator)
    ]
    if len(mine) != 1:
        raise NotProved(f"invalid_response: expected one signature of the Operator; {len(mine)} are shown")
    digest = mine[0].digest
    if Refuted(task, digest) not in facts:
        raise NotProved("invalid_response: expected what refutes the response; it is not shown")
    if not mine[0].alone and not any(
        isinstance(fact, Accepted) and (fact.task_hash, fact.digest) == (task, digest) for fact in facts
    ):
        raise NotProved("invalid_response: expected the quorum's response to be accepted; that is not shown")


def _refuted(watched: Watched, response: bytes) -> tuple[Watched, int | None]:
    """The divisor that refutes a response, as `answers.refutation` says; None where it is right, or the Task
    none of the reference contracts."""
    try:
        n, (p, q) = input_of(watched.task.preimage), answer_of(response)
    except BadEncoding:
        return watched, None
    if not 2 <= n < LIMIT:
        return watched, None
    if wrong_by_itself(n, p, q):
        return watched, 0
    if not watched.kept:
        watched = msgspec.structs.replace(watched, kept=least_divisor(n, known=p))
    return watched, watched.kept if watched.kept < p else None


def _found(
    state: Watch, watched: Watched, places: Sequence[int], signed: Held | Quorum, divisor: int
) -> tuple[Watched, list[Finding]]:
    claim = RefutationClaim(Octets(watched.task.preimage), Octets(signed.response), Octets(word(divisor)))
    refuted = (Refuted(watched.task.hash, signed.digest), claim)
    findings = [
        watch.finding(state, watched, place, [signed], Detect.name, _holds, [refuted]) for place in places
    ]
    new = sum(1 << place for place in places)
    return msgspec.structs.replace(watched, found=watched.found | new), findings


def _shown(bundle: Bundle) -> tuple[SignatureClaim | AggregateClaim, bytes] | None:
    """What was signed, and the divisor that refutes it."""
    signed = next(each for each in bundle.claims if isinstance(each, SignatureClaim | AggregateClaim))
    refutation = next(each for each in bundle.claims if isinstance(each, RefutationClaim))
    return (signed, refutation.divisor) if is_answer(signed.response) else None

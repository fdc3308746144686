"""Why a slashing is wrong, and what must be shown for each reason.

| reason | what the chain says |
|---|---|
| signed         | a missed duty is claimed, and the Operator signed or attested that Task |
| no_duty        | the Operator is not in the set of its Task; or a missed duty is claimed, and the Task was |
|                | cancelled, its grace was not over, or the Network was paused by its deadline |
| unknown_task   | no Task of this chain has the hash that the request names |
| window_passed  | the request came after the slashing window of its Task and, of misses, of those before it |
| twice          | the same was requested before: same condition, Task or, of a bond, set, and Operator; or |
|                | a missed duty is claimed, and the miss of that Task counts for another request |
| not_proved     | what is shown for it is no proof |
| after_veto     | it was executed though it was overruled |
| early          | it was executed while it could still be overruled |
| after_expiry   | it was executed after its last block (or second) of execution |
| wrong_receiver | what is taken goes elsewhere than to the Network's Burner, or is to |

The first five are of conditions that are about a Task, `twice` of a breach of a bond as well: of one that a
Network has of its own nobody knows what stands in the place of the Task's hash.

What is shown, always the request first:

| reason | beside the request |
|---|---|
| signed         | that the TaskManager holds the Operator's attestation after some block; |
|                | or the Task, the response to it, and the Operator's place among the signers |
| no_duty        | that it is in no place of the set; or the Task and, where its grace was over, its end or |
|                | a pause's beginning or end |
| unknown_task   | that the TaskManager held no such Task after the request's block |
| window_passed  | the Task; of one that is long over, the block of its submission in the TaskManager |
| twice          | the other request, which a proof stands behind or which came first; or that the miss |
|                | counted for it |
| not_proved     | what the authority showed and, where it needs that, what contradicts it: that a signature |
|                | is not the Operator's, the response that was accepted, that there was none, that the |
|                | TaskManager holds the Operator's attestation, or that a miss had counted; of a bond, that |
|                | another set was the newest, that the Operator had left, or that it was in no breach |
| after_veto     | the veto, and the execution after it |
| early, after_expiry | the execution |
| wrong_receiver | the Network's listing, and who is to get it or did |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from nektar.chain.keccak import keccak
from nektar.evidence.verify import TASK_MANAGER, Accused, NotProved
from nektar.facts import (
    Absent,
    Accepted,
    Cancelled,
    Counted,
    Executed,
    Fact,
    Forged,
    Listed,
    Member,
    NotMember,
    Paused,
    Requested,
    Stored,
    Submitted,
    Trusted,
    Vetoed,
)
from nektar.model import Address, Hash32, Moment
from nektar.networks.encoding import deadline_of, padded, word
from processors.conditions.bond_breach import DELEGATION, REGISTRY
from processors.conditions.flaws import BOND_BREACH, MISSED_DUTY, OF_TASKS, Chain, Signature, flaw

NAME = "wrongful_slashing"
# Terms of the contracts, by their names in the configuration.
WINDOW, DURATION, NETWORK = "slashing_window", "max_duration", "network"

F = TypeVar("F")


def subject_of(slasher: Address, request: Hash32, reason: str) -> Hash32:
    """What a finding is about. A request's name is its slasher's own."""
    return Hash32(keccak(request + slasher + reason.encode()))


class _Given:
    """Facts that are taken one by one: none may be left."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self._left = list(facts)

    def take(self, kind: type[F], what: str, is_it: Callable[[F], bool]) -> F:
        """The first such fact. Raises NotProved."""
        found = self.take_if(kind, is_it)
        if found is None:
            raise NotProved(f"{NAME}: expected {what}; it is not shown")
        return found

    def take_if(self, kind: type[F], is_it: Callable[[F], bool]) -> F | None:
        for i, fact in enumerate(self._left):
            if isinstance(fact, kind) and is_it(fact):
                del self._left[i]
                return fact
        return None

    def first(self, kind: type[F], is_it: Callable[[F], bool]) -> F | None:
        """The first such fact, which stays."""
        return next((fact for fact in self._left if isinstance(fact, kind) and is_it(fact)), None)

    def take_both(self, one: Fact | None, other: Fact | None) -> bool:
        """Both, where both are there."""
        if one is None or other is None:
            return False
        self._left.remove(one)
        self._left.remove(other)
        return True

    def require_all_taken(self) -> None:
        if self._left:
            what = type(self._left[0]).__name__
            raise NotProved(f"{NAME}: expected what its reason needs, and no more; {what} is beyond")


def holds(accused: Accused, facts: Sequence[Fact], terms: Mapping[str, int]) -> None:
    """What is shown contradicts one request for one reason, and nothing else is shown. Raises NotProved."""
    said, reason = _said(accused.subject, facts)
    given = _Given(facts)
    request = given.take(Requested, "the request that it is about", lambda fact: fact is said)
    if request.operator != accused.operator:
        raise NotProved(f"{NAME}: the request is to slash 0x{request.operator.hex()}, not who is named")
    REASONS[reason](request, given, terms)
    given.require_all_taken()


def _said(subject: Hash32, facts: Sequence[Fact]) -> tuple[Requested, str]:
    """The request that a finding of this subject is about, and its reason. Raises NotProved."""
    for fact in facts:
        if isinstance(fact, Requested):
            for reason in REASONS:
                if subject_of(fact.slasher, fact.request, reason) == subject:
                    return fact, reason
    raise NotProved(f"{NAME}: expected the request that it is about; it is not shown")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise NotProved(f"{NAME}: {otherwise}")


def task_of(request: Requested) -> Hash32 | None:
    """The Task that a request is about; None where its condition is about none, or nobody knows."""
    return request.task_hash if request.condition in OF_TASKS else None


def fact_of(request: Requested) -> tuple[str, Hash32, Address] | None:
    """What a request is for, so that another is for the same; None: that can be several things."""
    about = request.set_hash if request.condition == BOND_BREACH else task_of(request)
    return None if about is None else (request.condition, about, request.operator)


def _task_of(request: Requested) -> Hash32:
    task_hash = task_of(request)
    if task_hash is None:
        raise NotProved(f"{NAME}: the request is about no Task")
    return task_hash


def _term(terms: Mapping[str, int], name: str) -> int:
    if name not in terms:
        raise NotProved(f"{NAME}: expected to know the contracts' {name}; it is not told")
    return terms[name]


def _signed(request: Requested, given: _Given, terms: Mapping[str, int]) -> None:
    _require(request.condition == MISSED_DUTY, "the request is not for a missed duty")
    task_hash, operator = _task_of(request), request.operator
    which = (TASK_MANAGER, "attestedDigest", (task_hash, padded(operator)))
    stored = given.take_if(Stored, lambda fact: (fact.contract, fact.name, fact.keys) == which)
    if stored is not None:
        # The TaskManager takes none in after the grace.
        _require(stored.value != 0, "the Operator had attested nothing")
        return
    given.take(*(Submitted, "its attestation, or its Task"), lambda fact: keccak(fact.task) == task_hash)
    accepted = given.take(Accepted, "a response", lambda fact: fact.task_hash == task_hash)
    member = given.take(
        *(Member, "the Operator's place"),
        lambda fact: (fact.task_hash, fact.operator) == (task_hash, operator),
    )
    _require(member.index not in accepted.non_signers, "the Operator did not sign the accepted response")


def _no_duty(request: Requested, given: _Given, terms: Mapping[str, int]) -> None:
    _require_trusted(request)
    task_hash, operator = _task_of(request), request.operator
    about = (task_hash, operator)
    if given.take_if(NotMember, lambda fact: (fact.task_hash, fact.operator) == about) is not None:
        return
    _require(request.condition == MISSED_DUTY, "the Operator may have signed what it did not owe")
    task = given.take(Submitted, "its Task", lambda fact: keccak(fact.task) == task_hash)
    first, (deadline, grace) = task.at.number, deadline_of(task.task)
    if request.at.number <= deadline + grace:
        return
    if given.take_if(Cancelled, lambda fact: fact.task_hash == task_hash) is not None:
        return
    given.take(Paused, "why nobody owed anything", lambda fact: first <= fact.at.number <= deadline)


def _unknown_task(request: Requested, given: _Given, terms: Mapping[str, int]) -> None:
    _require_trusted(request)
    stored = _take_status(given, "state", _task_of(request))
    _require(stored.value == 0, "the TaskManager knows the Task")
    _require(stored.at.number >= request.at.number, "what was before the request shows nothing of it")


def _window_passed(request: Requested, given: _Given, terms: Mapping[str, int]) -> None:
    _require_trusted(request)
    window, task_hash = _term(terms, WINDOW), _task_of(request)
    task = given.take_if(Submitted, lambda fact: keccak(fact.task) == task_hash)
    if task is not None and request.condition == MISSED_DUTY:
        # Of several Tasks the request names the last: the others were submitted before it.
        end = task.at.number + _term(terms, DURATION)
    elif task is not None:
        end = sum(deadline_of(task.task))
    else:
        stored = _take_status(given, "submittedBlock", task_hash)
        _require(stored.value != 0, "the TaskManager does not know the Task")
        end = stored.value + _term(terms, DURATION)
    _require(request.at.number > end + window, f"the request came by block {end + window}")


def _twice(request: Requested, given: _Given, terms: Mapping[str, int]) -> None:
    _require_trusted(request)
    about = fact_of(request)
    _require(about is not None, "the request is about no Task, and no set")
    if given.take_if(Counted, lambda fact: (MISSED_DUTY, fact.task_hash, fact.operator) == about) is not None:
        return
    other = given.take(Requested, "another request for the same", lambda fact: fact_of(fact) == about)
    _require((other.slasher, other.request) != (request.slasher, request.request), "it is one request")
    _require(other.proved or _order(other) < _order(request), "the other request came later")


def _not_proved(request: Requested, given: _Given, terms: Mapping[str, int]) -> None:
    trusted = given.take(Trusted, "what was shown for it", lambda fact: _is_of(fact, request))
    why = flaw(trusted, request, _Shown(given, trusted.at.number), terms)
    _require(bool(why), "what was shown for it may prove it")


class _Shown(Chain):
    """What facts say of the chain that contradicts a proof."""

    def __init__(self, given: _Given, shown: int) -> None:
        self._given = given
        self._shown = shown  # block in which the proof was

    def is_forged(self, made: Signature) -> bool:
        signed = Hash32(keccak(made.task)), Hash32(keccak(made.response)), made.signature
        forged = self._given.take_if(
            Forged,
            lambda fact: (
                fact.operator == made.members.members[made.place].operator
                and (fact.task_hash, fact.digest, fact.signature) == signed
            ),
        )
        return forged is not None

    def accepted(self, task_hash: Hash32, is_it: Callable[[Accepted], bool]) -> bool:
        return (
            self._given.take_if(Accepted, lambda fact: fact.task_hash == task_hash and is_it(fact))
            is not None
        )

    def is_unanswered(self, task_hash: Hash32) -> bool:
        which = (TASK_MANAGER, "_status.recordHash", (task_hash,), 0)
        return self._stored(lambda fact: _which(fact, fact.value) == which and fact.at.number >= self._shown)

    def attested(self, task_hash: Hash32, operator: Address) -> bool:
        which = (TASK_MANAGER, "attestedDigest", (task_hash, padded(operator)), True)
        return self._stored(lambda fact: _which(fact, fact.value != 0) == which)

    def counted(self, task_hash: Hash32, request: Requested) -> bool:
        which = task_hash, request.operator
        counted = self._given.take_if(
            Counted,
            lambda fact: (fact.task_hash, fact.operator) == which and _order(fact) < _order(request),
        )
        return counted is not None

    def is_of_before(self, set_hash: Hash32) -> bool:
        newest, hash_ = (REGISTRY, "setHash", ()), int.from_bytes(set_hash)
        return self._given.take_both(
            self._held(lambda fact: _name(fact) == newest and fact.value != hash_),
            self._silent("OperatorSetCommitted", None),
        )

    def had_left(self, operator: Address, key_hash: Hash32) -> bool:
        which = REGISTRY, "_keys.registration", (key_hash,)
        brought = self._given.first(Stored, lambda fact: _name(fact) == which and fact.value != 0)
        ends = REGISTRY, "_ends", (word(brought.value) if brought else b"",)
        # It is the block after that in which the Operator left.
        ended = self._given.first(Stored, lambda fact: _name(fact) == ends and 0 < fact.value <= self._shown)
        return self._given.take_both(brought, ended)

    def kept_its_bond(self, operator: Address) -> bool:
        # What a withdrawal begins in a block a delegation alone can end in it.
        which = DELEGATION, "isUnderbonded", (padded(operator),), 0
        return self._given.take_both(
            self._held(lambda fact: _which(fact, fact.value) == which), self._silent("Delegated", operator)
        )

    def _held(self, is_it: Callable[[Stored], bool]) -> Stored | None:
        """What was stored after the block in which the proof was."""
        return self._given.first(Stored, lambda fact: is_it(fact) and fact.at.number == self._shown)

    def _silent(self, event: str, operator: Address | None) -> Absent | None:
        """That there was no such event in that block."""
        here = Absent(event, self._shown, self._shown, None, operator)
        return self._given.first(Absent, lambda fact: fact == here)

    def _stored(self, is_it: Callable[[Stored], bool]) -> bool:
        return self._given.take_if(Stored, is_it) is not None


def _name(stored: Stored) -> tuple[object, ...]:
    return stored.contract, stored.name, stored.keys


def _which(stored: Stored, more: object) -> tuple[object, ...]:
    return *_name(stored), more


def _after_veto(request: Requested, given: _Given, terms: Mapping[str, int]) -> None:
    vetoed = given.take(Vetoed, "its veto", lambda fact: _is_of(fact, request))
    executed = _take_execution(given, request)
    _require(_order(vetoed) < _order(executed), "it was executed before it was overruled")


def _early(request: Requested, given: _Given, terms: Mapping[str, int]) -> None:
    late = _lateness(_take_execution(given, request), request.veto_deadline)
    _require(late is not None and late <= 0, "it was executed when it could not be overruled any more")


def _after_expiry(request: Requested, given: _Given, terms: Mapping[str, int]) -> None:
    executed, until = _take_execution(given, request), request.execution_deadline
    late = _lateness(executed, until) if until else None
    _require(late is not None and late > 0, "it was executed when it could be")


def _wrong_receiver(request: Requested, given: _Given, terms: Mapping[str, int]) -> None:
    network = _term(terms, NETWORK)
    listed = given.take(Listed, "the Network's listing", lambda fact: int.from_bytes(fact.network) == network)
    named = given.take_if(Trusted, lambda fact: _is_of(fact, request)) or _take_execution(given, request)
    _require(named.receiver not in (None, listed.burner), "it goes to the Network's Burner")


REASONS: Mapping[str, Callable[[Requested, _Given, Mapping[str, int]], None]] = {
    "signed": _signed,
    "no_duty": _no_duty,
    "unknown_task": _unknown_task,
    "window_passed": _window_passed,
    "twice": _twice,
    "not_proved": _not_proved,
    "after_veto": _after_veto,
    "early": _early,
    "after_expiry": _after_expiry,
    "wrong_receiver": _wrong_receiver,
}


def _require_trusted(request: Requested) -> None:
    _require(not request.proved, "the request's contract has checked that itself")


def _take_status(given: _Given, field: str, task_hash: Hash32) -> Stored:
    """What the TaskManager holds of a Task."""
    which = (TASK_MANAGER, f"_status.{field}", (task_hash,))
    return given.take(
        *(Stored, f"the {field} of its Task"), lambda fact: (fact.contract, fact.name, fact.keys) == which
    )


def _take_execution(given: _Given, request: Requested) -> Executed:
    return given.take(Executed, "its execution", lambda fact: _is_of(fact, request))


def _is_of(fact: Trusted | Vetoed | Executed, request: Requested) -> bool:
    return (fact.slasher, fact.request) == (request.slasher, request.request)


def _order(fact: Requested | Counted | Vetoed | Executed) -> tuple[int, tuple[int, int]]:
    return fact.at.number, fact.place


def _lateness(executed: Executed, deadline: Moment) -> int | None:
    """How long after the deadline that was, in its own unit; None: epochs are not counted."""
    reached = {"block": executed.at.number, "timestamp": executed.time}.get(deadline.unit)
    return None if reached is None else reached - deadline.value

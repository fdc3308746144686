"""Wrongful slashing: somebody is to be slashed, or was, and the chain itself says that they should not, for
one of several reasons (`reasons.py`).

There is one finding for each request and reason, and not one for each request: reasons come at different
times and with other evidence, what was found can't be altered, and a veto that was passed over is news to
whoever knew that the request was wrong. `operator` is the one slashed, whom nothing is held against. What a
finding is about (`subject_of`) is the hash of the request, its slasher and the reason: so a verdict is of one
reason, and of what is shown for another it is refused.

Whoever made the request is accused by this, so where the log may lack something, nothing is said:

* What a contract has checked before it took the request (`proved`) is not checked again: such a request is
  wrong where the Operator signed, and by what comes later. Of two for one thing, one of which is proved, it
  is the other that is one too many. A miss that counts for a proved one (`MissCounted`) counts for no other,
  whatever becomes of that: neither for one about its Task, nor among those that are shown for one.
* Who answered a Task is kept as bitmaps over its set, so that an attestation is shown by what the TaskManager
  holds. Of a Task whose set was committed before the log begins nobody is known to have answered.
* `no_duty` is said of Tasks whose set is known, and of the newest PAUSES beginnings and ends of pauses.
* `unknown_task` is said at the end of the request's block, and only where every Task's number was seen, from
  1 on, and every block since the newest of them is proved. Of contracts that number their Tasks otherwise
  nothing is said.
* `window_passed` needs `terms.slashing_window`. The window of a missed duty is that of the Task that ends
  last, and the request names the one that was submitted last: so it has passed where that of the longest Task
  had (`terms.max_duration`). `wrong_receiver` needs the Network's listing (`selector.network`).
* That a bond was kept, or an Operator had left, is said where every block is proved since that was known, and
  where the configuration names the contracts and `terms.minimum`.
* That no second or wrong response is known contradicts nothing. That none was accepted does, where every
  block since the Task's submission is proved.
* Of slashers that the configuration does not name nothing is said, nor of Tasks whose hash is of nothing that
  could be shown. Of a condition that a Network has of its own it is not known what is in the place of a Task.

A request leaves the state `KEPT` blocks after its last block of execution. One on somebody's word does so
when it is executed, and so long after that, and stays until then: its contract may have no deadline, and
whoever asked chooses when it is executed, against whatever veto. Each costs its author a transaction.

A Task leaves it, with those misses of it that have counted, `LATE` blocks after its slashing window (of
`KEPT` blocks, where that is not known), or later, when no Task of its block could be slashed for any more
(`terms.max_duration`). Its name and the block of its submission are remembered then (`processors/past.py`),
which is what is shown: where `max_duration` is not told, no `window_passed`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from immutables import Map

from nektar import bonds, operators
from nektar import facts as of_claims
from nektar.bonds import Bonds
from nektar.chain.keccak import keccak
from nektar.evidence import bls, sought
from nektar.evidence.bundle import ForgeryClaim, MemberClaim, NonMemberClaim, finding_id
from nektar.evidence.canonical import Octets
from nektar.evidence.reader import terms_of
from nektar.evidence.sought import Sought
from nektar.evidence.verify import TASK_MANAGER, Accused, NotProved
from nektar.facts import (
    Accepted,
    Cancelled,
    Counted,
    Executed,
    Fact,
    Forged,
    Listed,
    Member,
    NotMember,
    Requested,
    Submitted,
    Trusted,
    Vetoed,
)
from nektar.model import (
    Address,
    At,
    Attested,
    Block,
    BlockClosed,
    ChainEvent,
    Delegated,
    Event,
    GapPassed,
    Hash32,
    Heartbeat,
    Level,
    MissCounted,
    Network,
    NetworkListed,
    Paused,
    Report,
    Responded,
    Signed,
    SlashingExecuted,
    SlashingRequested,
    SlashingTrusted,
    SlashingVetoed,
    TaskCancelled,
    TaskSubmitted,
    Unpaused,
    VetoVoted,
)
from nektar.networks.encoding import (
    BadEncoding,
    deadline_of,
    input_of,
    number_of,
    padded,
    set_hash_of,
)
from nektar.operators import UNKNOWN_TWIN, Members, Registry
from nektar.rows import Change, Finding
from processors import past
from processors.conditions import reasons
from processors.conditions.answered import Answered, pack, unpack
from processors.conditions.bond_breach import DELEGATION, REGISTRY
from processors.conditions.exhibits import Exhibits, Place
from processors.conditions.flaws import MISSED_DUTY, Chain, Signature, flaw
from processors.conditions.reasons import DURATION, NAME, WINDOW, fact_of, task_of
from processors.pace import Pace, about, after

_NETWORKS = "network_registry"
KEPT = 100_000
MINIMUM = "minimum"  # a term: the least stake of a member
LATE = 7_200  # a day of 12-second blocks
PAUSES = 1_000
_NO_TASK = Hash32(bytes(32))
_SOME = 1  # stands for any number above 0


class Asked(msgspec.Struct, frozen=True):
    """A request to slash."""

    of: Requested
    at: Place
    leaves: int  # block
    until: tuple[int, int] = (0, 0)  # about when a veto and an execution count the last time; 0: not known
    executed: bool = False
    vetoed: Place | None = None
    said: tuple[str, ...] = ()  # reasons that were found

    @property
    def key(self) -> bytes:
        return self.of.slasher + self.of.request

    @property
    def fact(self) -> bytes | None:
        """What it is for; None: that can be several things."""
        if (about := fact_of(self.of)) is None:
            return None
        condition, what, operator = about
        return keccak(condition.encode() + what + operator)


class Count(msgspec.Struct, frozen=True, array_like=True):
    """The request that a miss counts for, and where the chain says so."""

    slasher: Address
    request: Hash32
    at: Place


class Watch(msgspec.Struct, frozen=True):
    """The fold's state."""

    chain_id: int
    contract: Address  # the TaskManager, which signatures name
    slashers: Map[Address, str]  # by their names in the configuration
    terms: dict[str, int]  # what predicates are told
    bonds: Bonds | None  # None: the configuration does not name what they rest on
    registry: Registry = Registry()
    tasks: Map[Hash32, bytes] = Map()  # packed
    past: Map[int, bytes] = Map()
    numbers: int = 0  # Tasks 1 to this one were all seen; -1: some were not
    newest: int = -1  # block of the newest Task
    doubtful: int = -1  # newest block that is not proved
    requests: Map[bytes, Asked] = Map()
    standing: Map[bytes, bytes] = Map()  # fact → key of the one request for it that is not too many
    missed: Map[Hash32, Map[bytes, None]] = Map()  # Task → keys of requests that claim a missed duty
    counted: Map[Hash32, Map[Address, Count]] = Map()  # Task → Operators whose misses of it have counted
    listed: tuple[Listed, Place] | None = None
    pauses: tuple[Place, ...] = ()  # where one began or ended, of the newest
    due: Map[int, tuple[bytes, ...]] = Map()  # block → Tasks and requests that leave with it
    open: tuple[ChainEvent, ...] = ()  # in the block that is not closed yet
    pace: Pace = ()


class Detect:
    """The fold `wrongful_slashing`: puts out findings."""

    name = NAME
    state_type = Watch

    def initial(self, network: Network) -> Watch:
        """Nothing watched. Raises UnknownContract where the configuration has no task manager."""
        slashers = Map((address, name) for name, address in network.contracts.items())
        told = {REGISTRY, DELEGATION} <= {*network.contracts} and MINIMUM in network.terms
        known = Bonds(network.terms[MINIMUM]) if told else None
        return Watch(network.chain_id, network.contract(TASK_MANAGER), slashers, terms_of(network), known)

    def step(self, state: Watch, event: Event) -> tuple[Watch, list[Change]]:
        """All of a block is looked at when it is closed, since that names it."""
        match event:
            case BlockClosed(block=block):
                return _closed(state, block)
            case GapPassed(last=last):
                due = sorted(each for each in state.due if each <= last)
                state = msgspec.structs.replace(state, doubtful=last, bonds=_bonds(state, event))
                return _pass(state, due), []
            case Signed() | Report() | Heartbeat() | VetoVoted():
                return state, []
        return msgspec.structs.replace(state, open=(*state.open, event)), []


class WrongfulSlashing:
    """The condition `wrongful_slashing`. No contract has a proof of it: it is for the VetoCommittee."""

    name = NAME
    detect = Detect()
    dispute = None

    def claims(self, finding: Finding) -> Sought:
        """The request, and what contradicts it."""
        return sought.read(finding.facts)

    def holds(self, accused: Accused, facts: Sequence[Fact], terms: Mapping[str, int]) -> None:
        """What is shown contradicts one request for one reason, and nothing else is shown."""
        reasons.holds(accused, facts, terms)


# --- a block ----------------------------------------------------------------------------------------


def _closed(state: Watch, block: Block) -> tuple[Watch, list[Change]]:
    events, changes, asked, shown = state.open, list[Change](), list[bytes](), list[SlashingTrusted]()
    doubtful = state.doubtful if block.level is Level.PROVED else block.number
    state = msgspec.structs.replace(state, open=(), doubtful=doubtful, pace=after(state.pace, block))
    for event in events:
        known = state.requests
        state, found = _happened(state, event, block)
        changes += found
        if isinstance(event, SlashingRequested) and state.requests is not known:
            asked.append(event.slasher + event.request)
        if isinstance(event, SlashingTrusted) and event.slasher + event.request in state.requests:
            shown.append(event)
    state = msgspec.structs.replace(state, bonds=_bonds(state, BlockClosed(block)))
    for event in shown:
        state, found = _check_proof(state, event, block, events)
        changes += found
    for key in asked:
        request = state.requests[key]
        task_hash = task_of(request.of)
        if not request.of.proved and task_hash and _is_unknown(state, task_hash):
            state, found = _find_stored(state, block, request, "unknown_task", "_status.state", 0)
            changes += found
    return _pass(state, [block.number] if block.number in state.due else []), changes


def _happened(state: Watch, event: ChainEvent, block: Block) -> tuple[Watch, list[Change]]:
    at = _place(event, block)
    match event:
        case TaskSubmitted():
            return _submitted(state, event, at), []
        case Responded():
            return _responded(state, event, at, block)
        case Attested():
            return _attested(state, event, at, block)
        case TaskCancelled():
            return _cancelled(state, event, at), []
        case Paused() | Unpaused():
            return msgspec.structs.replace(state, pauses=(*state.pauses, at)[-PAUSES:]), []
        case NetworkListed():
            listed = Listed(event.network, event.burner, at.ref)
            return msgspec.structs.replace(state, listed=(listed, at)), []
        case SlashingRequested() if event.slasher in state.slashers:
            return _requested(state, event, at, block)
        case MissCounted() if event.slasher in state.slashers and event.task_hash in state.tasks:
            return _counted(state, event, at, block)
        case SlashingTrusted():
            return _trusted(state, event, at, block)
        case SlashingVetoed():
            request = state.requests.get(event.slasher + event.request)
            if request is None or request.vetoed:
                return state, []
            return _kept(state, msgspec.structs.replace(request, vetoed=at)), []
        case SlashingExecuted() if event.request:
            return _executed(state, event, at, block)
    registry = operators.step(state.registry, event)
    return msgspec.structs.replace(state, registry=registry, bonds=_bonds(state, event)), []


def _bonds(state: Watch, event: Event) -> Bonds | None:
    return None if state.bonds is None else bonds.step(state.bonds, event)


def _place(event: ChainEvent, block: Block) -> Place:
    made = event.at or At(block.number, 0, -1)
    return Place(block.number, block.hash, made.tx, made.log, block.level)


# --- tasks ------------------------------------------------------------------------------------------


def _known(state: Watch, task_hash: Hash32 | None) -> Answered | None:
    packed = None if task_hash is None else state.tasks.get(task_hash)
    return None if packed is None else unpack(packed)


def _submitted(state: Watch, event: TaskSubmitted, at: Place) -> Watch:
    task = event.task
    if task.hash in state.tasks or past.find(state.past, task.hash) is not None:
        return state
    state = msgspec.structs.replace(
        state,
        numbers=task.number if state.numbers >= 0 and task.number == state.numbers + 1 else -1,
        newest=at.block,
    )
    try:
        set_hash, end = set_hash_of(task.preimage), sum(deadline_of(task.preimage))
    except BadEncoding:
        return msgspec.structs.replace(state, past=past.add(state.past, task.hash, at.block))
    held = set_hash in state.registry.sets
    late = max(max(end, at.block) + LATE, at.block + state.terms.get(DURATION, 0))
    leaves = late + state.terms.get(WINDOW, KEPT)
    return msgspec.structs.replace(
        state,
        registry=operators.hold(state.registry, set_hash) if held else state.registry,
        tasks=state.tasks.set(task.hash, pack(Answered(at, task.preimage, held))),
        due=_file(state.due, leaves, task.hash),
    )


def _cancelled(state: Watch, event: TaskCancelled, at: Place) -> Watch:
    known = _known(state, event.task_hash)
    if known is None or known.cancelled:
        return state
    known = msgspec.structs.replace(known, cancelled=at)
    return msgspec.structs.replace(state, tasks=state.tasks.set(event.task_hash, pack(known)))


def _is_unknown(state: Watch, task_hash: Hash32) -> bool:
    """Whether it is sure that no Task has this hash."""
    if state.numbers < 1 or state.doubtful >= state.newest:
        return False
    return task_hash not in state.tasks and past.find(state.past, task_hash) is None


def _responded(state: Watch, event: Responded, at: Place, block: Block) -> tuple[Watch, list[Change]]:
    known = _known(state, event.task_hash)
    if known is None or known.responded:
        return state, []
    out, named = None, event.non_signers
    if known.held and named is not None:
        members = state.registry.held(known.set_hash)
        out = members.everyone & ~members.all_but(named)
    known = msgspec.structs.replace(known, responded=at, digest=event.digest, out=out)
    return _answered(state, event.task_hash, known, block)


def _attested(state: Watch, event: Attested, at: Place, block: Block) -> tuple[Watch, list[Change]]:
    known = _known(state, event.task_hash)
    if known is None or not known.held or at.block > known.end:
        return state, []
    place = state.registry.held(known.set_hash).place(event.operator)
    if place is None or known.attested >> place & 1:
        return state, []
    linked = 0 if at.level is Level.PROVED else 1 << place
    attested = known.attested | 1 << place
    known = msgspec.structs.replace(known, attested=attested, linked=known.linked | linked)
    return _answered(state, event.task_hash, known, block)


def _answered(state: Watch, task_hash: Hash32, known: Answered, block: Block) -> tuple[Watch, list[Change]]:
    """Somebody answered a Task: not missed, though that may have been claimed before."""
    state, changes = (
        msgspec.structs.replace(state, tasks=state.tasks.set(task_hash, pack(known))),
        list[Change](),
    )
    for key in sorted(state.missed.get(task_hash, ())):
        state, found = _check_signed(state, state.requests[key], block)
        changes += found
    return state, changes


def _check_signed(state: Watch, request: Asked, block: Block) -> tuple[Watch, list[Change]]:
    task_hash, operator = request.of.task_hash, request.of.operator
    known = _known(state, task_hash)
    if task_hash is None or known is None or not known.held:
        return state, []
    if _attests(state, task_hash, operator, block, case := Exhibits()):
        return _find(state, block, request, "signed", case)
    members, accepted = state.registry.held(known.set_hash), _accepted(task_hash, known)
    place = members.place(operator)
    if known.responded and accepted and place is not None and place not in accepted.non_signers:
        case = Exhibits().event(TASK_MANAGER, known.at, Submitted(known.task, known.at.ref))
        case.event(TASK_MANAGER, known.responded, accepted)
        key_hash = bls.key_hash(members[place].key)
        claim = MemberClaim(Octets(known.task), place)
        case.whole(claim, Member(task_hash, operator, place, key_hash), members)
        return _find(state, block, request, "signed", case)
    return state, []


def _accepted(task_hash: Hash32, known: Answered) -> Accepted | None:
    """The response that was accepted to a Task, if it is told who signed it."""
    if known.responded is None or known.digest is None or known.out is None:
        return None
    out = tuple(place for place in range(known.out.bit_length()) if known.out >> place & 1)
    return Accepted(task_hash, known.digest, out, known.responded.ref)


# --- requests ---------------------------------------------------------------------------------------


def _requested(state: Watch, event: SlashingRequested, at: Place, block: Block) -> tuple[Watch, list[Change]]:
    asked = Requested(
        slasher=event.slasher,
        request=event.request,
        operator=event.operator,
        condition=event.condition,
        task_hash=event.task_hash,
        proved=event.proved,
        veto_deadline=event.veto_deadline,
        execution_deadline=event.execution_deadline,
        at=at.ref,
        place=at.order,
        set_hash=event.set_hash,
    )
    until = event.execution_deadline
    times = about(state.pace, event.veto_deadline), about(state.pace, until)
    last = until.value if until and until.unit == "block" else at.block
    request = Asked(asked, at, max(last, at.block) + KEPT, times)
    if request.key in state.requests:
        return state, []
    state = msgspec.structs.replace(_kept(state, request), due=_file(state.due, request.leaves, request.key))
    changes: list[Change] = []
    if asked.condition == MISSED_DUTY and asked.task_hash:
        keys = state.missed.get(asked.task_hash, Map()).set(request.key, None)
        state = msgspec.structs.replace(state, missed=state.missed.set(asked.task_hash, keys))
        state, found = _check_signed(state, request, block)
        changes += found
    if not asked.proved:
        for check in (_check_duty, _check_window):
            state, found = check(state, request, block)
            changes += found
    for check in (_check_twice, _check_counted):
        state, found = check(state, request, block)
        changes += found
    return state, changes


def _check_duty(state: Watch, request: Asked, block: Block) -> tuple[Watch, list[Change]]:
    """Whether the Operator owed its Task nothing: whatever excuses it happened before the request."""
    task_hash, operator = task_of(request.of), request.of.operator
    known = _known(state, task_hash)
    if task_hash is None or known is None:
        return state, []
    members = state.registry.held(known.set_hash) if known.held else None
    if members is not None and members.place(operator) is None:
        claim = NonMemberClaim(Octets(known.task), Octets(operator))
        case = Exhibits().whole(claim, NotMember(task_hash, operator), members)
        return _find(state, block, request, "no_duty", case)
    case = Exhibits().event(TASK_MANAGER, known.at, Submitted(known.task, known.at.ref))
    deadline, grace = deadline_of(known.task)
    if request.at.block <= deadline + grace:
        return _find(state, block, request, "no_duty", case)
    paused = next((at for at in state.pauses if known.at.block <= at.block <= deadline), None)
    if known.cancelled:
        case.event(TASK_MANAGER, known.cancelled, Cancelled(task_hash, known.cancelled.ref))
    elif paused:
        case.event(TASK_MANAGER, paused, of_claims.Paused(paused.ref))
    return _find(state, block, request, "no_duty", case)


def _check_window(state: Watch, request: Asked, block: Block) -> tuple[Watch, list[Change]]:
    if (task_hash := task_of(request.of)) is None:
        return state, []
    if (known := _known(state, task_hash)) is None:
        if (submitted := past.find(state.past, task_hash)) is None:
            return state, []
        return _find_stored(state, block, request, "window_passed", "_status.submittedBlock", submitted)
    case = Exhibits().event(TASK_MANAGER, known.at, Submitted(known.task, known.at.ref))
    return _find(state, block, request, "window_passed", case)


def _check_twice(state: Watch, request: Asked, block: Block) -> tuple[Watch, list[Change]]:
    """Of several requests for one fact, the one that stands is the proved one, else the first."""
    if (fact := request.fact) is None:
        return state, []
    key = state.standing.get(fact)
    other = state.requests[key] if key is not None else None
    if other is None or (request.of.proved and not other.of.proved):
        state = msgspec.structs.replace(state, standing=state.standing.set(fact, request.key))
        if other is None:
            return state, []
        request, other = other, request
    elif request.of.proved:
        return state, []  # two contracts that check proofs
    case = Exhibits().event(state.slashers[other.of.slasher], other.at, other.of)
    return _find(state, block, state.requests[request.key], "twice", case, **_other(other.of))


def _counted(state: Watch, event: MissCounted, at: Place, block: Block) -> tuple[Watch, list[Change]]:
    """A miss counts for a proved request: others that claim it were all right, and are one too many now."""
    counts = state.counted.get(event.task_hash, Map())
    if event.operator in counts:
        return state, []
    counts = counts.set(event.operator, Count(event.slasher, event.request, at))
    state, changes = (
        msgspec.structs.replace(state, counted=state.counted.set(event.task_hash, counts)),
        list[Change](),
    )
    for key in sorted(state.missed.get(event.task_hash, ())):
        state, found = _check_counted(state, state.requests[key], block)
        changes += found
    return state, changes


def _check_counted(state: Watch, request: Asked, block: Block) -> tuple[Watch, list[Change]]:
    task_hash = request.of.task_hash
    if request.of.proved or request.of.condition != MISSED_DUTY or task_hash is None:
        return state, []
    counted = _counted_miss(state, task_hash, request.of.operator)
    if counted is None:
        return state, []
    count, fact = counted
    case = Exhibits().event(state.slashers[count.slasher], count.at, fact)
    return _find(state, block, state.requests[request.key], "twice", case, **_other(fact))


def _counted_miss(state: Watch, task_hash: Hash32, operator: Address) -> tuple[Count, Counted] | None:
    """What says that an Operator's miss of a Task has counted."""
    count = state.counted.get(task_hash, Map()).get(operator)
    if count is None:
        return None
    fact = Counted(count.slasher, count.request, task_hash, operator, count.at.ref, count.at.order)
    return count, fact


def _other(of: Requested | Counted) -> dict[str, str]:
    """The request beside which another is one too many, for people."""
    return {"other_request": _hex(of.request), "other_slasher": _hex(of.slasher)}


def _trusted(state: Watch, event: SlashingTrusted, at: Place, block: Block) -> tuple[Watch, list[Change]]:
    """What more is said of a request that rests on somebody's word."""
    request = state.requests.get(event.slasher + event.request)
    if request is None:
        return state, []
    return _check_receiver(state, block, request, _said(event, at), at)


def _said(event: SlashingTrusted, at: Place) -> Trusted:
    return Trusted(event.slasher, event.request, event.receiver, event.evidence, at.ref)


def _check_proof(
    state: Watch, event: SlashingTrusted, block: Block, events: Sequence[ChainEvent]
) -> tuple[Watch, list[Change]]:
    """What is shown, at the end of its block: it is contradicted by what the contracts hold then, and held
    before it."""
    request, at = state.requests[event.slasher + event.request], _place(event, block)
    said = _said(event, at)
    case = Exhibits().event(state.slashers[said.slasher], at, said)
    if not (why := flaw(said, request.of, _Log(state, block, events, case), state.terms)):
        return state, []
    return _find(state, block, request, "not_proved", case, why=why)


class _Log(Chain):
    """What the log says that contradicts a proof; what does is put into the case."""

    def __init__(self, state: Watch, block: Block, events: Sequence[ChainEvent], case: Exhibits) -> None:
        self._state, self._block, self._events, self._case = state, block, events, case

    def is_forged(self, made: Signature) -> bool:
        registry = self._state.registry
        if made.members.hash not in registry.sets:
            return False
        members = registry.held(made.members.hash)
        if (twin := members[made.place].twin) == UNKNOWN_TWIN:
            return False
        task_hash, digest = Hash32(keccak(made.task)), Hash32(keccak(made.response))
        signed = bls.signing_digest(self._state.chain_id, self._state.contract, task_hash, digest)
        if bls.verify(twin, signed, made.signature):
            return False
        named = (Octets(made.task), made.place, Octets(twin), Octets(made.response), Octets(made.signature))
        operator = made.members.members[made.place].operator
        fact = Forged(task_hash, operator, digest, made.signature)
        self._case.whole(ForgeryClaim(*named), fact, members)
        return True

    def accepted(self, task_hash: Hash32, is_it: Callable[[Accepted], bool]) -> bool:
        known = _known(self._state, task_hash)
        accepted = _accepted(task_hash, known) if known else None
        if known is None or known.responded is None or accepted is None or not is_it(accepted):
            return False
        self._case.event(TASK_MANAGER, known.responded, accepted)
        return True

    def is_unanswered(self, task_hash: Hash32) -> bool:
        """Only where every block since its submission is proved."""
        known = _known(self._state, task_hash)
        if known is None or known.responded or self._state.doubtful >= known.at.block:
            return False
        self._case.stored("_status.recordHash", (task_hash,), 0, self._block.ref)
        return True

    def attested(self, task_hash: Hash32, operator: Address) -> bool:
        return _attests(self._state, task_hash, operator, self._block, self._case)

    def counted(self, task_hash: Hash32, request: Requested) -> bool:
        if (counted := _counted_miss(self._state, task_hash, request.operator)) is None:
            return False
        count, fact = counted
        if (fact.at.number, fact.place) >= (request.at.number, request.place):
            return False
        self._case.event(self._state.slashers[count.slasher], count.at, fact)
        return True

    def is_of_before(self, set_hash: Hash32) -> bool:
        newest = self._newest()
        if newest is None or newest.hash == set_hash or newest.renewed == self._block.number:
            return False
        held = int.from_bytes(newest.hash)
        self._case.stored("setHash", (), held, self._block.ref, contract=REGISTRY)
        self._case.absent(REGISTRY, "OperatorSetCommitted", self._block.ref)
        return True

    def had_left(self, operator: Address, key_hash: Hash32) -> bool:
        newest = self._newest()
        place = newest.place(operator) if newest else None
        if newest is None or place is None or bls.key_hash(newest[place].key) != key_hash:
            return False
        if (ended := newest.left.get(place)) is None or ended > self._block.number:
            return False
        self._case.ended(key_hash, ended, self._block.ref)
        return True

    def kept_its_bond(self, operator: Address) -> bool:
        bond = self._state.bonds.of(operator) if self._state.bonds else None
        mended = any(isinstance(each, Delegated) and each.operator == operator for each in self._events)
        if bond is None or bond.underbonded or mended:
            return False
        self._case.stored("isUnderbonded", (padded(operator),), 0, self._block.ref, contract=DELEGATION)
        self._case.absent(DELEGATION, "Delegated", self._block.ref, operator)
        return True

    def _newest(self) -> Members | None:
        """The newest set, where the log can lack neither a later one nor who has left it."""
        newest = self._state.registry.newest_set
        if self._state.bonds is None or newest is None or self._state.doubtful >= newest.renewed:
            return None
        return newest


def _attests(state: Watch, task_hash: Hash32, operator: Address, block: Block, case: Exhibits) -> bool:
    """Whether an Operator attested a Task: if so, the case shows it."""
    known = _known(state, task_hash)
    place = state.registry.held(known.set_hash).place(operator) if known and known.held else None
    if known is None or place is None or not known.attested >> place & 1:
        return False
    level = Level.LINKED if known.linked >> place & 1 else Level.PROVED
    case.stored("attestedDigest", (task_hash, padded(operator)), _SOME, block.ref, level)
    return True


def _executed(state: Watch, event: SlashingExecuted, at: Place, block: Block) -> tuple[Watch, list[Change]]:
    if event.request is None or (request := state.requests.get(event.slasher + event.request)) is None:
        return state, []
    if not request.executed:
        leaves = max(request.leaves, at.block + KEPT)
        state = _kept(state, msgspec.structs.replace(request, executed=True, leaves=leaves))
        if leaves > request.leaves:
            state = msgspec.structs.replace(state, due=_file(state.due, leaves, request.key))
    done = Executed(event.slasher, event.request, event.receiver, at.ref, at.order, block.time)
    contract, changes = state.slashers[done.slasher], list[Change]()
    if vetoed := request.vetoed:
        veto = Vetoed(done.slasher, done.request, vetoed.ref, vetoed.order)
        case = Exhibits().event(contract, vetoed, veto).event(contract, at, done)
        state, changes = _find(state, block, request, "after_veto", case)
    for reason in ("early", "after_expiry"):
        state, found = _find(state, block, request, reason, Exhibits().event(contract, at, done))
        changes += found
    state, found = _check_receiver(state, block, request, done, at)
    return state, [*changes, *found]


def _check_receiver(
    state: Watch, block: Block, request: Asked, said: Trusted | Executed, at: Place
) -> tuple[Watch, list[Change]]:
    if said.receiver is None or state.listed is None:
        return state, []
    listed, place = state.listed
    case = Exhibits().event(_NETWORKS, place, listed).event(state.slashers[said.slasher], at, said)
    notes = {"receiver": _hex(said.receiver), "burner": _hex(listed.burner)}
    return _find(state, block, request, "wrong_receiver", case, **notes)


# --- findings ---------------------------------------------------------------------------------------


def _find(
    state: Watch, block: Block, request: Asked, reason: str, case: Exhibits, **notes: str
) -> tuple[Watch, list[Change]]:
    """The finding, if it was not said before and what is shown for it holds."""
    request = state.requests[request.key]
    of = request.of
    subject = reasons.subject_of(of.slasher, of.request, reason)
    if reason in request.said:
        return state, []
    try:
        reasons.holds(Accused(of.operator, subject), [of, *case.facts], state.terms)
    except NotProved:
        return state, []
    state = _kept(state, msgspec.structs.replace(request, said=(*request.said, reason)))
    known = _known(state, of.task_hash)
    asked = sought.event(
        state.slashers[of.slasher], of.at, At(request.at.block, request.at.tx, request.at.log)
    )
    named = {"request": _hex(of.request), "slasher": _hex(of.slasher), "condition": of.condition}
    finding = Finding(
        id=finding_id(NAME, state.chain_id, state.contract, subject, of.operator),
        condition=NAME,
        operator=of.operator,
        task_hash=of.task_hash or _NO_TASK,
        task_number=number_of(known.task) if known else 0,
        task_input=str(input_of(known.task)) if known else "",
        block_number=block.number,
        block_hash=block.hash,
        block_time=block.time,
        level=Level.PROVED if {request.at.level, *case.levels} == {Level.PROVED} else Level.LINKED,
        anchor=block.anchor,
        facts=sought.write(
            Sought(
                *(Octets(subject), (asked, *case.fetch), tuple(case.claims), tuple(sorted({*case.sets}))),
                *(reason, named | _until(request) | notes),
            )
        ),
    )
    return state, [Change(None, finding)]


def _until(request: Asked) -> dict[str, str]:
    """Until when people can act: the last moment of a veto and of an execution, and about when that is."""
    deadlines = (request.of.veto_deadline, request.of.execution_deadline)
    said = {}
    for name, deadline, time in zip(("veto", "execution"), deadlines, request.until, strict=True):
        if deadline is not None:
            said[f"{name}_deadline"] = f"{deadline.unit} {deadline.value}"
            if time:
                said[f"{name}_time"] = datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return said


def _find_stored(
    state: Watch, block: Block, request: Asked, reason: str, name: str, value: int
) -> tuple[Watch, list[Change]]:
    """The finding that what the TaskManager holds of the request's Task shows."""
    if request.of.task_hash is None:
        return state, []
    return _find(
        state, block, request, reason, Exhibits().stored(name, (request.of.task_hash,), value, block.ref)
    )


# --- what is kept -----------------------------------------------------------------------------------


def _kept(state: Watch, request: Asked) -> Watch:
    return msgspec.structs.replace(state, requests=state.requests.set(request.key, request))


def _pass(state: Watch, due: Iterable[int]) -> Watch:
    """These blocks have passed: forget what leaves with them."""
    for block in due:
        for key in sorted(state.due[block]):
            if (request := state.requests.get(key)) is None:
                state = _forget_task(state, Hash32(key))
            elif request.leaves <= block and (request.of.proved or request.executed):
                state = _forget_request(state, key)
        state = msgspec.structs.replace(state, due=state.due.delete(block))
    return state


def _forget_task(state: Watch, task_hash: Hash32) -> Watch:
    known, registry = unpack(state.tasks[task_hash]), state.registry
    return msgspec.structs.replace(
        state,
        registry=operators.release(registry, known.set_hash) if known.held else registry,
        tasks=state.tasks.delete(task_hash),
        counted=state.counted.delete(task_hash) if task_hash in state.counted else state.counted,
        past=past.add(state.past, task_hash, known.at.block),
    )


def _forget_request(state: Watch, key: bytes) -> Watch:
    request, standing, missed = state.requests[key], state.standing, state.missed
    if (fact := request.fact) is not None and standing.get(fact) == key:
        standing = standing.delete(fact)
    task_hash = request.of.task_hash
    if task_hash and key in missed.get(task_hash, ()):
        keys = missed[task_hash].delete(key)
        missed = missed.set(task_hash, keys) if keys else missed.delete(task_hash)
    requests = state.requests.delete(key)
    return msgspec.structs.replace(state, requests=requests, standing=standing, missed=missed)


def _file(due: Map[int, tuple[bytes, ...]], block: int, key: bytes) -> Map[int, tuple[bytes, ...]]:
    return due.set(block, (*due.get(block, ()), key))


def _hex(octets: bytes) -> str:
    return "0x" + octets.hex()

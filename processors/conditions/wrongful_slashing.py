"""Wrongful slashing: somebody is to be slashed, or was, and the chain itself says that they should not.

| reason | what the chain says |
|---|---|
| signed         | a missed duty is claimed, and the Operator signed or attested that Task |
| unknown_task   | no Task of this chain has the hash that the request names |
| window_passed  | the request came after the slashing window of its Task |
| twice          | the same was requested before: same condition, Task and Operator |
| not_proved     | what is shown for it is no proof |
| after_veto     | it was executed though it was overruled |
| early          | it was executed while it could still be overruled |
| after_expiry   | it was executed after its last block (or second) of execution |
| wrong_receiver | what is taken goes elsewhere than to the Network's Burner, or is to |

There is one finding for each request and reason, and not one for each request: reasons come at different
times and with other evidence, what was found can't be altered, and a veto that was passed over is news to
whoever knew that the request was wrong. `operator` is the one slashed, whom nothing is held against; the
slasher stands in the facts, and the places of the events that a finding rests on.

Whoever made the request is accused by this, so where the log may lack something, nothing is said:

* What a contract has checked before it took the request (`proved`) is not checked again: such a request is
  wrong where the Operator signed, and by what comes later. Of two for one thing, one of which is proved, it
  is the other that is one too many.
* `unknown_task` is said at the end of the request's block, and only where every Task's number was seen, from
  1 on, and every block since the newest of them is proved. Of contracts that number their Tasks otherwise
  nothing is said.
* `window_passed` needs `terms.slashing_window`, and is not said of a missed duty: its window is that of the
  last of several Tasks, and the request names one. `wrong_receiver` needs the Network's listing
  (`selector.network`).
* That no second or wrong response is known contradicts nothing, nor does what is shown and can't be read.

A request leaves the state `KEPT` blocks after its last block of execution, a Task `LATE` ones after its
slashing window (of `KEPT` blocks, where that is not known). Of a Task only that there was one is remembered
then (`processors/past.py`), so that `window_passed` names no event of it any more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec
from immutables import Map

from nektar import operators
from nektar.chain.keccak import keccak
from nektar.model import (
    Address,
    Attested,
    Block,
    BlockClosed,
    ChainEvent,
    Event,
    GapPassed,
    Hash32,
    Level,
    Moment,
    Network,
    NetworkListed,
    Responded,
    Signed,
    SlashingExecuted,
    SlashingRequested,
    SlashingTrusted,
    SlashingVetoed,
    TaskSubmitted,
    VetoVoted,
)
from nektar.operators import Registry
from nektar.rows import Change, Finding
from processors import past, shown
from processors.shown import MISSED_DUTY

NAME = "wrongful_slashing"
KEPT = 100_000
LATE = 7_200  # a day of 12-second blocks
_NO_TASK = Hash32(bytes(32))


class Place(msgspec.Struct, frozen=True, array_like=True):
    """An event of the chain, which can be shown."""

    block: int
    hash: Hash32
    log: int
    level: Level


class Known(msgspec.Struct, frozen=True, array_like=True):
    """A Task of this chain, and who is known to have answered it."""

    at: Place
    number: int
    input: str
    set_hash: Hash32
    end: int | None  # last block of its grace; None: it is not counted in blocks
    held: bool  # the registry holds its set
    responded: Place | None = None
    signers: int = 0  # bitmap, of the response
    attested: Map[Address, Place] | None = None  # each one's first; None: nobody's, as of nearly all


class Asked(msgspec.Struct, frozen=True):
    """A request to slash."""

    at: Place
    slasher: Address
    request: Hash32
    operator: Address
    condition: str
    task_hash: Hash32 | None
    proved: bool
    veto_deadline: Moment
    until: Moment | None  # last moment of execution
    vetoed: Place | None = None
    said: tuple[str, ...] = ()  # reasons that were found

    @property
    def key(self) -> bytes:
        return self.slasher + self.request

    @property
    def fact(self) -> bytes | None:
        """What it is for; None: that can be several things."""
        if self.task_hash is None:
            return None
        return keccak(self.condition.encode() + self.task_hash + self.operator)


class Watch(msgspec.Struct, frozen=True):
    """The fold's state."""

    chain_id: int
    contract: Address | None  # the TaskManager, which signatures name
    window: int | None  # the slashing window, where it is known
    registry: Registry = Registry()
    tasks: Map[Hash32, Known] = Map()
    past: Map[int, bytes] = Map()
    numbers: int = 0  # Tasks 1 to this one were all seen; -1: some were not
    newest: int = -1  # block of the newest Task
    doubtful: int = -1  # newest block that is not proved
    requests: Map[bytes, Asked] = Map()
    standing: Map[bytes, bytes] = Map()  # fact → key of the one request for it that is not too many
    missed: Map[Hash32, Map[bytes, None]] = Map()  # Task → keys of requests that claim a missed duty
    burner: tuple[Address, Place] | None = None
    due: Map[int, Map[bytes, None]] = Map()  # block → Tasks and requests that leave with it
    open: tuple[ChainEvent, ...] = ()  # in the block that is not closed yet


class Detect:
    """The fold `wrongful_slashing`: puts out findings."""

    name = NAME
    state_type = Watch

    def initial(self, network: Network) -> Watch:
        """Nothing watched."""
        contract, window = network.contracts.get("task_manager"), network.terms.get("slashing_window")
        return Watch(network.chain_id, contract, window)

    def step(self, state: Watch, event: Event) -> tuple[Watch, list[Change]]:
        """All of a block is looked at when it is closed, since that names it."""
        match event:
            case BlockClosed(block=block):
                return _closed(state, block)
            case GapPassed(last=last):
                return _pass(msgspec.structs.replace(state, doubtful=last), last), []
            case Signed() | VetoVoted():
                return state, []
        return msgspec.structs.replace(state, open=(*state.open, event)), []


class WrongfulSlashing:
    """The condition `wrongful_slashing`. No contract has a proof of it: it is for the VetoCommittee."""

    name = NAME
    detect = Detect()


def finding_id(chain_id: int, slasher: Address, request: Hash32, reason: str) -> bytes:
    """The finding's name: of the fact alone, wherever and whenever it is found."""
    return keccak(_canonical([NAME, chain_id, slasher.hex(), request.hex(), reason]).encode())


# --- a block ----------------------------------------------------------------------------------------


def _closed(state: Watch, block: Block) -> tuple[Watch, list[Change]]:
    events, changes, asked = state.open, list[Change](), list[bytes]()
    doubtful = state.doubtful if block.level is Level.PROVED else block.number
    state = msgspec.structs.replace(state, open=(), doubtful=doubtful)
    for event in events:
        known = state.requests
        state, found = _happened(state, event, block)
        changes += found
        if isinstance(event, SlashingRequested) and state.requests is not known:
            asked.append(event.slasher + event.request)
    for key in asked:
        request = state.requests[key]
        if not request.proved and request.task_hash and _is_unknown(state, request.task_hash):
            state, found = _find(state, block, request, "unknown_task", {})
            changes += found
    return (_pass(state, block.number) if block.number in state.due else state), changes


def _happened(state: Watch, event: ChainEvent, block: Block) -> tuple[Watch, list[Change]]:
    at = Place(block.number, block.hash, event.at.log if event.at else -1, block.level)
    match event:
        case TaskSubmitted():
            return _submitted(state, event, at), []
        case Responded():
            return _responded(state, event, at, block)
        case Attested():
            return _attested(state, event, at, block)
        case NetworkListed():
            return msgspec.structs.replace(state, burner=(event.burner, at)), []
        case SlashingRequested():
            return _requested(state, event, at, block)
        case SlashingTrusted():
            return _trusted(state, event, at, block)
        case SlashingVetoed():
            request = state.requests.get(event.slasher + event.request)
            if request is None or request.vetoed:
                return state, []
            return _kept(state, msgspec.structs.replace(request, vetoed=at)), []
        case SlashingExecuted() if event.request:
            return _executed(state, event, at, block)
    return msgspec.structs.replace(state, registry=operators.step(state.registry, event)), []


# --- tasks ------------------------------------------------------------------------------------------


def _submitted(state: Watch, event: TaskSubmitted, at: Place) -> Watch:
    task = event.task
    if task.hash in state.tasks:
        return state
    end = task.deadline.value + task.grace if task.deadline.unit == "block" else None
    held = task.set_hash in state.registry.sets
    leaves = max(end or 0, at.block) + (KEPT if state.window is None else state.window) + LATE
    return msgspec.structs.replace(
        state,
        registry=operators.hold(state.registry, task.set_hash) if held else state.registry,
        tasks=state.tasks.set(task.hash, Known(at, task.number, task.input, task.set_hash, end, held)),
        numbers=task.number if state.numbers >= 0 and task.number == state.numbers + 1 else -1,
        newest=at.block,
        due=_file(state.due, leaves, task.hash),
    )


def _is_unknown(state: Watch, task_hash: Hash32) -> bool:
    """Whether it is sure that no Task has this hash."""
    if state.numbers < 1 or state.doubtful >= state.newest:
        return False
    return task_hash not in state.tasks and not past.holds(state.past, task_hash)


def _responded(state: Watch, event: Responded, at: Place, block: Block) -> tuple[Watch, list[Change]]:
    known = state.tasks.get(event.task_hash)
    if known is None or not known.held or known.responded or event.non_signers is None:
        return state, []
    signers = state.registry.sets[known.set_hash].all_but(event.non_signers)
    return _answered(
        state, event.task_hash, msgspec.structs.replace(known, responded=at, signers=signers), block
    )


def _attested(state: Watch, event: Attested, at: Place, block: Block) -> tuple[Watch, list[Change]]:
    known = state.tasks.get(event.task_hash)
    if known is None or (known.end is not None and at.block > known.end):
        return state, []
    attested = known.attested or Map()
    if event.operator in attested:
        return state, []
    known = msgspec.structs.replace(known, attested=attested.set(event.operator, at))
    return _answered(state, event.task_hash, known, block)


def _answered(state: Watch, task_hash: Hash32, known: Known, block: Block) -> tuple[Watch, list[Change]]:
    """Somebody answered a Task: not missed, though that may have been claimed before."""
    state, changes = msgspec.structs.replace(state, tasks=state.tasks.set(task_hash, known)), list[Change]()
    for key in sorted(state.missed.get(task_hash, ())):
        state, found = _check_signed(state, state.requests[key], block)
        changes += found
    return state, changes


def _check_signed(state: Watch, request: Asked, block: Block) -> tuple[Watch, list[Change]]:
    known = state.tasks.get(request.task_hash) if request.task_hash else None
    if known is None:
        return state, []
    if known.attested and (attested := known.attested.get(request.operator)) is not None:
        return _find(state, block, request, "signed", {"task": known.at, "attested": attested})
    if known.responded and known.held:
        place = state.registry.sets[known.set_hash].places.get(request.operator)
        if place is not None and known.signers >> place & 1:
            return _find(state, block, request, "signed", {"task": known.at, "responded": known.responded})
    return state, []


# --- requests ---------------------------------------------------------------------------------------


def _requested(state: Watch, event: SlashingRequested, at: Place, block: Block) -> tuple[Watch, list[Change]]:
    request = Asked(
        at=at,
        slasher=event.slasher,
        request=event.request,
        operator=event.operator,
        condition=event.condition,
        task_hash=event.task_hash,
        proved=event.proved,
        veto_deadline=event.veto_deadline,
        until=event.execution_deadline,
    )
    if request.key in state.requests:
        return state, []
    last = request.until.value if request.until and request.until.unit == "block" else at.block
    state = msgspec.structs.replace(
        state,
        requests=state.requests.set(request.key, request),
        due=_file(state.due, max(last, at.block) + KEPT, request.key),
    )
    changes: list[Change] = []
    if request.condition == MISSED_DUTY and request.task_hash:
        keys = state.missed.get(request.task_hash, Map()).set(request.key, None)
        state = msgspec.structs.replace(state, missed=state.missed.set(request.task_hash, keys))
        state, found = _check_signed(state, request, block)
        changes += found
    elif not request.proved:
        state, found = _check_window(state, request, block)
        changes += found
    state, found = _check_twice(state, request, block)
    return state, [*changes, *found]


def _check_window(state: Watch, request: Asked, block: Block) -> tuple[Watch, list[Change]]:
    if request.task_hash is None or state.window is None:
        return state, []
    if (known := state.tasks.get(request.task_hash)) is None:
        over = past.holds(state.past, request.task_hash)
        return _find(state, block, request, "window_passed", {}) if over else (state, [])
    if known.end is None or block.number <= (last := known.end + state.window):
        return state, []
    return _find(state, block, request, "window_passed", {"task": known.at}, last=last)


def _check_twice(state: Watch, request: Asked, block: Block) -> tuple[Watch, list[Change]]:
    """Of several requests for one fact, the one that stands is the proved one, else the first."""
    if (fact := request.fact) is None:
        return state, []
    key = state.standing.get(fact)
    other = state.requests[key] if key is not None else None
    if other is None or (request.proved and not other.proved):
        state = msgspec.structs.replace(state, standing=state.standing.set(fact, request.key))
        if other is None:
            return state, []
        request, other = other, request
    elif request.proved:
        return state, []  # two contracts that check proofs
    return _find(
        *(state, block, state.requests[request.key], "twice", {"other": other.at}),
        other={"slasher": _hex(other.slasher), "request": _hex(other.request)},
    )


def _trusted(state: Watch, event: SlashingTrusted, at: Place, block: Block) -> tuple[Watch, list[Change]]:
    """What more is said of a request that rests on somebody's word."""
    request = state.requests.get(event.slasher + event.request)
    if request is None:
        return state, []
    changes: list[Change] = []
    if state.contract is not None:
        about = (request.condition, request.task_hash, request.operator)
        why = shown.flaw(event.evidence, *about, state.registry, state.chain_id, state.contract)
        if why:
            state, changes = _find(state, block, request, "not_proved", {"trusted": at}, why=why)
    state, found = _check_receiver(state, block, event, {"trusted": at})
    return state, [*changes, *found]


def _executed(state: Watch, event: SlashingExecuted, at: Place, block: Block) -> tuple[Watch, list[Change]]:
    if event.request is None or (request := state.requests.get(event.slasher + event.request)) is None:
        return state, []
    changes: list[Change] = []
    if request.vetoed:
        events = {"vetoed": request.vetoed, "executed": at}
        state, changes = _find(state, block, request, "after_veto", events)
    reached = _reached(request.veto_deadline, block)
    if reached is not None and reached <= request.veto_deadline.value:
        deadline = request.veto_deadline.value
        state, found = _find(
            state, block, state.requests[request.key], "early", {"executed": at}, veto_deadline=deadline
        )
        changes += found
    reached = _reached(request.until, block) if request.until else None
    if request.until and reached is not None and reached > request.until.value:
        deadline = request.until.value
        state, found = _find(
            *(state, block, state.requests[request.key], "after_expiry", {"executed": at}),
            execution_deadline=deadline,
        )
        changes += found
    state, found = _check_receiver(state, block, event, {"executed": at})
    return state, [*changes, *found]


def _reached(deadline: Moment, block: Block) -> int | None:
    """How far this block is in the deadline's unit; None: epochs are not counted."""
    return {"block": block.number, "timestamp": block.time}.get(deadline.unit)


def _check_receiver(
    state: Watch,
    block: Block,
    event: SlashingTrusted | SlashingExecuted,
    events: Mapping[str, Place],
) -> tuple[Watch, list[Change]]:
    if event.request is None or event.receiver is None or state.burner is None:
        return state, []
    burner, listed = state.burner
    if event.receiver == burner:
        return state, []
    return _find(
        *(state, block, state.requests[event.slasher + event.request], "wrong_receiver"),
        {**events, "listed": listed},
        receiver=_hex(event.receiver),
        burner=_hex(burner),
    )


# --- findings ---------------------------------------------------------------------------------------


def _find(
    state: Watch, block: Block, request: Asked, reason: str, events: Mapping[str, Place], **more: object
) -> tuple[Watch, list[Change]]:
    """The finding, if it was not said before. `events` are those that it rests on, beside the request's."""
    if reason in request.said:
        return state, []
    state = _kept(state, msgspec.structs.replace(request, said=(*request.said, reason)))
    places = {"requested": request.at, **events}
    known = state.tasks.get(request.task_hash) if request.task_hash else None
    facts = {
        "chain_id": state.chain_id,
        "condition": request.condition,
        "events": {
            name: {"block": each.block, "hash": _hex(each.hash), "log": each.log}
            for name, each in places.items()
        },
        "reason": reason,
        "request": _hex(request.request),
        "slasher": _hex(request.slasher),
        **more,
    }
    finding = Finding(
        id=finding_id(state.chain_id, request.slasher, request.request, reason),
        condition=NAME,
        operator=request.operator,
        task_hash=request.task_hash or _NO_TASK,
        task_number=known.number if known else 0,
        task_input=known.input if known else "",
        block_number=block.number,
        block_hash=block.hash,
        block_time=block.time,
        level=Level.PROVED if all(e.level is Level.PROVED for e in places.values()) else Level.LINKED,
        anchor=block.anchor,
        facts=_canonical(facts),
    )
    return state, [Change(None, finding)]


# --- what is kept -----------------------------------------------------------------------------------


def _kept(state: Watch, request: Asked) -> Watch:
    return msgspec.structs.replace(state, requests=state.requests.set(request.key, request))


def _pass(state: Watch, last: int) -> Watch:
    """Blocks up to `last` have passed: forget what leaves with them."""
    for block in sorted(each for each in state.due if each <= last):
        for key in sorted(state.due[block]):
            state = _forget_request(state, key) if key in state.requests else _forget_task(state, Hash32(key))
        state = msgspec.structs.replace(state, due=state.due.delete(block))
    return state


def _forget_task(state: Watch, task_hash: Hash32) -> Watch:
    known, registry = state.tasks[task_hash], state.registry
    return msgspec.structs.replace(
        state,
        registry=operators.release(registry, known.set_hash) if known.held else registry,
        tasks=state.tasks.delete(task_hash),
        past=past.add(state.past, task_hash),
    )


def _forget_request(state: Watch, key: bytes) -> Watch:
    request, standing, missed = state.requests[key], state.standing, state.missed
    if (fact := request.fact) is not None and standing.get(fact) == key:
        standing = standing.delete(fact)
    if request.task_hash and key in missed.get(request.task_hash, ()):
        keys = missed[request.task_hash].delete(key)
        missed = missed.set(request.task_hash, keys) if keys else missed.delete(request.task_hash)
    requests = state.requests.delete(key)
    return msgspec.structs.replace(state, requests=requests, standing=standing, missed=missed)


def _file(due: Map[int, Map[bytes, None]], block: int, key: bytes) -> Map[int, Map[bytes, None]]:
    return due.set(block, due.get(block, Map()).set(key, None))


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _hex(octets: bytes) -> str:
    return "0x" + octets.hex()

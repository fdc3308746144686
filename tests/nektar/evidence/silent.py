"""A condition as others may bring one, of contracts that keep nothing of what happened: an Operator did not
attest a Task. It is shown by what is absent from all blocks in which it could have. None of ours is: its
contracts hold what happened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from immutables import Map

from nektar.chain.keccak import keccak
from nektar.evidence import sought
from nektar.evidence.bundle import Bundle, MemberClaim, finding_id
from nektar.evidence.canonical import Octets
from nektar.evidence.sought import AbsenceSought, SetSought, Sought
from nektar.evidence.verify import Accused, NotProved
from nektar.facts import Absent, Fact, Member, Submitted
from nektar.model import (
    Address,
    Attested,
    Block,
    BlockClosed,
    BlockRef,
    Event,
    Hash32,
    Network,
    OperatorSetCommitted,
    Task,
    TaskSubmitted,
)
from nektar.networks.encoding import deadline_of
from nektar.rows import Change, Finding
from processors.conditions.condition import Dispute
from tests.nektar.evidence import second

NAME, MANAGER = "silent", "task_manager"


class Watch(msgspec.Struct, frozen=True):
    chain_id: int
    contract: Address
    sets: Map[Hash32, tuple[int, tuple[Address, ...]]] = Map()  # set → block of its commitment, members
    tasks: Map[Hash32, tuple[Task, BlockRef | None]] = Map()  # open, with the blocks of their submissions
    attested: Map[tuple[Hash32, Address], None] = Map()


class Detect:
    name = NAME
    state_type = Watch

    def initial(self, network: Network) -> Watch:
        return Watch(network.chain_id, network.contract(MANAGER))

    def step(self, state: Watch, event: Event) -> tuple[Watch, Sequence[Change]]:
        replace = msgspec.structs.replace
        match event:
            case OperatorSetCommitted(at, committed):
                held = at.block, tuple(member.operator for member in committed.members)
                return replace(state, sets=state.sets.set(committed.hash, held)), []
            case TaskSubmitted(task=task):
                return replace(state, tasks=state.tasks.set(task.hash, (task, None))), []
            case Attested():
                about = event.task_hash, event.operator
                return replace(state, attested=state.attested.set(about, None)), []
            case BlockClosed(block):
                return _closed(state, block)
        return state, []


def _closed(state: Watch, block: Block) -> tuple[Watch, list[Change]]:
    tasks, changes = state.tasks, list[Change]()
    for task_hash, (task, at) in sorted(state.tasks.items()):
        tasks = tasks.set(task_hash, (task, at or block.ref))
        if task.deadline.value + task.grace == block.number:
            _, members = state.sets[task.set_hash]
            silent = [each for each in members if (task_hash, each) not in state.attested]
            changes += [
                Change(None, _finding(state, task, at or block.ref, members.index(each), block))
                for each in silent
            ]
            tasks = tasks.delete(task_hash)
    return msgspec.structs.replace(state, tasks=tasks), changes


def _finding(state: Watch, task: Task, at: BlockRef, place: int, block: Block) -> Finding:
    since, members = state.sets[task.set_hash]
    operator, about = members[place], (Octets(task.hash), Octets(members[place]))
    absence = AbsenceSought(MANAGER, "Attested", at.number, block.number, Octets(block.hash), *about)
    shown = Sought(
        Octets(task.hash),
        (sought.event(MANAGER, at, task.submitted), absence),
        (MemberClaim(Octets(task.preimage), place),),
        (SetSought(Octets(task.set_hash), since),),
    )
    return Finding(
        id=finding_id(NAME, state.chain_id, state.contract, task.hash, operator),
        condition=NAME,
        operator=operator,
        task_hash=task.hash,
        task_number=task.number,
        task_input=task.input,
        block_number=block.number,
        block_hash=block.hash,
        block_time=block.time,
        level=block.level,
        anchor=block.anchor,
        facts=sought.write(shown),
    )


class Silent:
    name = NAME
    detect = Detect()

    def claims(self, finding: Finding) -> Sought:
        return sought.read(finding.facts)

    def holds(self, accused: Accused, facts: Sequence[Fact], terms: Mapping[str, int]) -> None:
        task = next((each for each in facts if isinstance(each, Submitted)), None)
        if task is None or keccak(task.task) != accused.subject:
            raise NotProved(f"{NAME}: expected its Task")
        about, end = (accused.subject, accused.operator), sum(deadline_of(task.task))
        if not any(isinstance(each, Member) and (each.task_hash, each.operator) == about for each in facts):
            raise NotProved(f"{NAME}: expected a member of its set")
        if not any(
            isinstance(each, Absent)
            and (each.event, each.task_hash, each.operator) == ("Attested", *about)
            and each.first <= task.at.number
            and end <= each.last
            for each in facts
        ):
            raise NotProved(f"{NAME}: expected that it attested nothing")

    def dispute(self, bundle: Bundle) -> Dispute | None:
        return None


def holds_second(operator: bytes, subject: bytes, facts: second.Facts, terms: second.Terms) -> bool:
    """The rule once more, for the second verifier."""
    tasks = second.of(facts, "submitted")
    if not tasks or second.keccak(tasks[0][0]) != subject:
        return False
    member = any(each[:2] == (subject, operator) for each in second.of(facts, "member"))
    silent = any(
        each[0] == "Attested"
        and each[3:] == (subject, operator)
        and each[1] <= tasks[0][1]
        and second.end_of(tasks[0][0]) <= each[2]
        for each in second.of(facts, "absent")
    )
    return member and silent

"""A condition of these tests alone, which rests on every kind of claim that equivocation has no need of: an
Operator that was registered, owes a response to a Task, and put none on chain before its grace was over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eth_hash.auto import keccak

from nektar.evidence import bls, sought
from nektar.evidence.bundle import MemberClaim, finding_id
from nektar.evidence.canonical import Octets
from nektar.evidence.sought import AbsenceSought, Sought, StateSought, VariableSought
from nektar.evidence.verify import Accused, NotProved
from nektar.facts import Absent, Fact, Member, Stored, Submitted
from nektar.model import Attested, OperatorSetCommitted, Responded, TaskSubmitted
from nektar.rows import Finding
from tests.devnet.contracts.conftest import Site
from tests.processors.real_chain import ADAPTER, log, network

NAME = "silence"


class Silence:
    """The condition, as far as evidence needs one."""

    name = NAME
    detect: Any = None
    dispute = None

    def find(self, site: Site) -> Iterator[Finding]:
        return find(site)

    def claims(self, finding: Finding) -> Sought:
        return sought.read(finding.facts)

    def holds(self, accused: Accused, facts: Sequence[Fact], terms: Mapping[str, int]) -> None:
        holds(accused, facts)


def find(site: Site) -> Iterator[Finding]:
    """All that there is on the chain, by brute force."""
    net, record = network(site), log(site)
    events = list(ADAPTER.events(net, record.tables))
    blocks = {block.number: block for block in record.blocks}
    sets = {e.set.hash: e.set for e in events if isinstance(e, OperatorSetCommitted)}
    answered = {(e.task_hash, e.operator) for e in events if isinstance(e, Attested)}
    responded = {e.task_hash for e in events if isinstance(e, Responded)}
    for event in events:
        if not isinstance(event, TaskSubmitted) or event.task.hash in responded:
            continue
        task, first = event.task, event.at.block + 1
        last = task.deadline.value + task.grace
        if last not in blocks:
            continue
        for place, member in enumerate(sets[task.set_hash].members):
            if (task.hash, member.operator) in answered:
                continue
            named = {"task": Octets(task.hash), "operator": Octets(member.operator)}
            seek = Sought(
                Octets(task.hash),
                (
                    sought.event("task_manager", blocks[event.at.block].ref, event.at),
                    AbsenceSought("task_manager", "Attested", first, last, **named),
                    AbsenceSought("task_manager", "Responded", first, last, task=Octets(task.hash)),
                    AbsenceSought("task_manager", "Paused", first, last),
                    StateSought(
                        "operator_registry",
                        (
                            VariableSought("setHash", ()),
                            VariableSought("_keys.registration", (Octets(bls.key_hash(member.key)),)),
                            VariableSought("_ends", (Octets(b""),)),
                        ),
                    ),
                ),
                (MemberClaim(Octets(task.preimage), place),),
                (Octets(sets[task.set_hash].preimage),),
            )
            yield Finding(
                id=finding_id(NAME, net.chain_id, net.contract("task_manager"), task.hash, member.operator),
                condition=NAME,
                operator=member.operator,
                task_hash=task.hash,
                task_number=task.number,
                task_input=task.input,
                block_number=last,
                block_hash=blocks[last].hash,
                block_time=blocks[last].time,
                level="proved",
                anchor="single:anvil",
                facts=sought.write(seek),
            )


def holds(accused: Accused, facts: Sequence[Fact]) -> None:
    """Raises NotProved."""
    task, operator = accused.subject, accused.operator
    tasks = [f for f in facts if isinstance(f, Submitted) and keccak(f.task) == task]
    if not tasks:
        raise NotProved("silence: expected the submission of the Task")
    words = [int.from_bytes(tasks[0].task[i : i + 32]) for i in range(0, 288, 32)]
    first, last = tasks[0].at.number + 1, words[4] + words[5]
    keys = [
        f.key_hash for f in facts if isinstance(f, Member) and (f.task_hash, f.operator) == (task, operator)
    ]
    if not keys:
        raise NotProved("silence: expected a member of the Task's set")
    for event, named in (
        ("Attested", (task, operator)),
        ("Responded", (task, None)),
        ("Paused", (None, None)),
    ):
        if Absent(event, first, last, *named) not in facts:
            raise NotProved(f"silence: expected that there is no {event} from {first} to {last}")
    stored = {(f.name, f.keys): f for f in facts if isinstance(f, Stored) and f.at.number == last}
    registration = stored.get(("_keys.registration", (keys[0],)))
    if registration is None or not registration.value:
        raise NotProved("silence: expected the Operator to be registered")
    ends = stored.get(("_ends", (registration.value.to_bytes(32),)))
    if ends is None or ends.value:
        raise NotProved("silence: expected its registration not to end")

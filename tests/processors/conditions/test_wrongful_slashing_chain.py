"""Wrongful slashings of a real chain: found, proved to both verifiers, and refused when they are altered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import pytest
from eth_hash.auto import keccak

from devnet.deploy import BOND_BREACH, NETWORK
from nektar.evidence import bls, sought
from nektar.evidence.bundle import (
    Bundle,
    EventClaim,
    ForgeryClaim,
    StateClaim,
    read,
    write,
)
from nektar.evidence.canonical import Octets
from nektar.evidence.sought import Sought, StateSought, ToFetch, VariableSought
from nektar.evidence.verify import NotProved, Verdict, verify
from nektar.model import (
    Address,
    Hash32,
    SlashingRequested,
)
from nektar.networks.encoding import encode_answer, word
from nektar.rows import Finding
from processors.conditions import wrongful_slashing
from processors.conditions.reasons import subject_of
from tests.devnet.contracts.conftest import TERMS, Site, Task, add, in_one_block, on_anvil
from tests.devnet.contracts.test_slashing import proof, prove
from tests.devnet.contracts.test_trusted import BURNER as BURN
from tests.devnet.contracts.test_trusted import THIEF as STOLEN
from tests.devnet.contracts.test_trusted import ask, vetoed
from tests.nektar.evidence import second
from tests.processors.conditions.test_wrongful_slashing import CONDITION, REASONS, reason_of
from tests.processors.real_chain import ADAPTER, found, gathered, log, network, reader
from tests.processors.world import (
    STRANGER,
)

site = pytest.fixture(scope="module", name="site")(on_anvil)
OWN = keccak(b"impolite")
EQUIVOCATED_HASH, MISSED_HASH = keccak(b"equivocation"), keccak(b"missed_duty")


class Wrong(NamedTuple):
    """What an authority that minds no rule does, and what is wrong with it."""

    expected: set[tuple[bytes, str]]  # request, reason
    right: set[bytes]  # requests with which nothing is wrong
    old: Task
    own: list[bytes]  # for a condition of the Network's own


@pytest.fixture(scope="module")
def wrong(site: Site) -> Wrong:
    def request(of: Any, condition: bytes, operator: int = 0, to: str = BURN, shown: bytes = b"") -> Any:
        name = of if isinstance(of, bytes) else of.hash
        asked = ask(site, name, condition, operator, to, shown)["SlashingRequested"]
        if condition == missed and isinstance(of, Task) and site.head <= of.end:
            expect(asked, "no_duty")  # it can still attest
        return asked

    def execute(asked: Any) -> None:
        site.do(site.authority, "trusted_slasher", "executeRegardless", asked["requestId"])

    def expect(asked: Any, *of: str) -> None:
        expected.update((asked["requestId"], reason) for reason in of)

    expected = set[tuple[bytes, str]]()
    equivocated, missed = EQUIVOCATED_HASH, MISSED_HASH
    old, task = site.submit(n=10, window=2, grace=0), site.submit(n=10, window=20)
    site.attest(0, task, (2, 5))
    expect(request(task, missed), "signed")
    expect(request(keccak(b"another fork's"), missed), "unknown_task")
    quorum = site.submit(n=91)
    site.do(site.stranger, "task_manager", "respond", *site.response(quorum, (7, 13), [0, 2, 3]))
    expect(request(quorum, missed, 2), "signed")

    # What a condition of the Network's own has in the place of a Task is its own, too.
    site.do(site.admin, "network_registry", "allowCondition", NETWORK, OWN, True)
    own = [request(bytes(32), OWN), request(bytes(32), OWN)]

    # For a breach of a bond it is the hash of a set.
    set_hash = site.ask("operator_registry", "setHash")
    breach = request(set_hash, BOND_BREACH)
    expect(request(set_hash, BOND_BREACH), "twice")

    # Two in one block.
    about = (keccak(b"invalid_response"), quorum.hash, site.operators[3].account.address, 1, BURN, b"")
    calls = [(site.authority, "trusted_slasher", "request", *about)] * 2
    asked = [told for name, told in in_one_block(site, *calls) if name == "SlashingRequested"]
    expect(asked[1], "twice")

    # Of a quorum that there was none of, of one that was another, and of duties one of which was done.
    abi = site.abis["slashing_manager"]
    for about, operator, answer in ((task, 0, (5, 2)), (quorum, 0, (7, 13))):
        of = (about.fields, about.members, operator, answer, [], (13, 7), site.sign(operator, about, (13, 7)))
        in_quorum = abi.encode("proveEquivocationInQuorum", *of)
        expect(request(about, equivocated, operator, shown=in_quorum), "not_proved")
    site.attest(1, task, (2, 5))
    third = site.submit(n=10, window=2, grace=0)

    # Operator 1 signed two responses: shown, proved beside it, and asked for once more.
    true = abi.encode("proveEquivocation", *proof(site, task, 1))
    right = request(task, equivocated, 1, shown=true)
    again = request(task, equivocated, 1, shown=true)
    expect(again, "twice")
    proved = site.do(*prove(site, *proof(site, task, 1)))["SlashingRequested"]
    expect(right, "twice")  # since that: it was all right, and is one too many now
    false = abi.encode("proveEquivocation", *proof(site, task, 2)[:-1], site.sign(3, task, (13, 7)))
    expect(request(task, equivocated, 2, shown=false), "not_proved")
    expect(request(quorum, equivocated, 2, shown=true), "not_proved")

    # All by the rules; but for the receiver; and against them.
    silent = request(quorum, missed, 1)
    shown = request(quorum, equivocated, 3, shown=abi.encode("proveEquivocation", *proof(site, quorum, 3)))
    stolen = request(task, missed, 3, to=STOLEN)
    expect(stolen, "wrong_receiver")
    site.mine_to(stolen["vetoDeadline"])
    site.do(site.stranger, "slashing_manager", "execute", proved["requestId"])
    for each in (silent, shown, stolen):
        site.do(site.stranger, "trusted_slasher", "execute", each["requestId"])
    against = request(task, missed, 2)
    vetoed(site, against["requestId"])
    site.mine_to(against["vetoDeadline"])
    execute(against)
    expect(against, "after_veto")
    early = request(old, missed, 3)
    execute(early)
    expect(early, "early")
    site.mine_to(old.end + TERMS.slashing_window)
    misses = [(each.fields, 0, 1, out) for each, out in ((old, []), (task, []), (third, []))]
    duties = abi.encode("proveMissedDuty", [task.members], misses)
    expect(request(third, missed, 1, shown=duties), "not_proved")
    late = request(old, equivocated, 3)
    expect(late, "window_passed", "after_expiry")
    site.mine_to(late["executionDeadline"])
    execute(late)
    # Nobody missed what was called off, or open in a pause; and who is no member owes nothing at all.
    stopped = site.submit(n=10, window=4, grace=0)
    site.do(site.admin, "task_manager", "pause")
    site.do(site.admin, "task_manager", "unpause")
    cancelled = site.submit(n=10, window=4, grace=0)
    site.do(site.submitter, "task_manager", "cancelTask", cancelled.fields)
    site.mine_to(cancelled.end)
    for each in (stopped, cancelled):
        expect(request(each, missed, 3), "no_duty")
    about = (equivocated, stopped.hash, site.stranger.address, 1, BURN, b"")
    outside = site.do(site.authority, "trusted_slasher", "request", *about)["SlashingRequested"]
    expect(outside, "no_duty")

    # A breach that there is not: of who has its stake, in a set that another one followed, of who has left.
    def of_bond(operator: int, set_: bytes, members: Any) -> Any:
        shown = site.abis["slashing_manager"].encode("proveBondBreach", members, operator)
        return request(set_, BOND_BREACH, operator, shown=shown)

    site.do(site.stranger, "operator_registry", "commitSet")
    set_hash, members = site.ask("operator_registry", "setHash"), site.ask("operator_registry", "eligible")
    expect(of_bond(3, set_hash, members), "not_proved")
    add(site, site.operators[2].account, 1, operator=2)
    site.do(site.stranger, "operator_registry", "commitSet")
    expect(of_bond(2, set_hash, members), "not_proved")
    set_hash, members = site.ask("operator_registry", "setHash"), site.ask("operator_registry", "eligible")
    site.do(site.operators[1].account, "operator_registry", "deregister")
    expect(of_bond(1, set_hash, members), "not_proved")
    under = site.operators[0].account
    asked_back = site.ask("delegation", "stakeOf", under.address) - TERMS.minimum + 1
    site.do(under, "delegation", "requestWithdrawal", under.address, asked_back)
    lasting = of_bond(0, set_hash, members)

    # Misses that were slashed for: one of them, and in other company, which the contract refuses.
    duties = [site.submit(n=10, window=2, grace=0) for _ in range(TERMS.miss_allowance + 2)]
    site.mine_to(duties[-1].end)

    def misses(of: list[Task]) -> tuple[Any, ...]:
        return [members], [(each.fields, 0, index, []) for each in of]

    index = [member[0] for member in members].index(site.operators[3].account.address)
    slashed = site.do(site.stranger, "slashing_manager", "proveMissedDuty", *misses(duties[:-1]))[
        "SlashingRequested"
    ]
    anew = abi.encode("proveMissedDuty", *misses(duties[1:]))
    refused = site.refusal(site.stranger, "slashing_manager", "proveMissedDuty", *misses(duties[1:]))
    assert refused == f"MissAlreadyCounted(0x{duties[1].hash.hex()})"
    expect(request(duties[0], missed, 3), "twice")
    expect(request(duties[-1], missed, 3, shown=anew), "not_proved")
    right = {each["requestId"] for each in (lasting, slashed, proved, shown, silent, breach, asked[0], *own)}
    return Wrong(expected, right, old, [each["requestId"] for each in own])


@pytest.fixture(scope="module")
def findings(site: Site, wrong: Wrong) -> list[Finding]:
    return found(site, CONDITION)


@pytest.fixture(scope="module")
def bundles(site: Site, findings: list[Finding]) -> list[Bundle]:
    return [gathered(site, CONDITION, finding) for finding in findings]


def of_request(finding: Finding) -> bytes:
    return bytes.fromhex(CONDITION.claims(finding).notes["request"][2:])


def verdict_on(site: Site, bundle: Bundle) -> Verdict:
    """Of both verifiers, which come to the same."""
    told = reader(site)
    another = second.Reader(told.chain_id, dict(told.contracts), terms=dict(told.terms))
    try:
        verdict = verify(bundle, told, lambda name: CONDITION.holds)
    except NotProved:
        with pytest.raises(second.Refused):
            second.verify(write(bundle), another)
        raise
    assert second.verify(write(bundle), another).id == verdict.id
    return verdict


@pytest.mark.real
def test_what_a_malicious_authority_does_on_a_real_chain_is_found_and_what_is_right_is_not(
    wrong: Wrong, findings: list[Finding]
) -> None:
    told = [(of_request(each), reason_of(each)) for each in findings]
    assert {*told} == wrong.expected
    assert len(told) == len(wrong.expected)
    assert {reason for _, reason in told} == REASONS
    assert not {request for request, _ in told} & wrong.right


@pytest.mark.real
def test_all_of_it_is_proved_to_whoever_knows_the_contracts(
    site: Site, findings: list[Finding], bundles: list[Bundle]
) -> None:
    for finding, bundle in zip(findings, bundles, strict=True):
        assert read(write(bundle)) == bundle
        verdict = verdict_on(site, bundle)
        assert (verdict.id, verdict.accused.operator) == (finding.id, finding.operator)
        assert max(block.number for block in verdict.canonical) == finding.block_number


@pytest.mark.real
def test_altered_evidence_is_refused(site: Site, findings: list[Finding], bundles: list[Bundle]) -> None:
    replace = msgspec.structs.replace

    def altered(finding: Finding, bundle: Bundle) -> Iterator[Bundle]:
        slasher, request = Address(bytes(bundle.contracts["trusted_slasher"])), Hash32(of_request(finding))
        claims = bundle.claims
        for reason in REASONS - {reason_of(finding)}:
            yield replace(bundle, subject=Octets(subject_of(slasher, request, reason)))
        yield replace(bundle, operator=Octets(STRANGER))
        for i, claim in enumerate(claims):
            yield replace(bundle, claims=claims[:i] + claims[i + 1 :])
            yield replace(bundle, claims=(*claims, claim))
            if isinstance(claim, EventClaim):
                for contract in ("task_manager", "slashing_manager", "network_registry"):
                    if contract != claim.contract:
                        named = {**bundle.contracts, contract: Octets(network(site).contract(contract))}
                        other = (*claims[:i], replace(claim, contract=contract), *claims[i + 1 :])
                        yield replace(bundle, contracts=named, claims=other)
            if isinstance(claim, StateClaim):
                for name in ("_status.state", "_status.submittedBlock"):
                    *before, variable = claim.variables
                    if name != variable.name:
                        other = replace(claim, variables=(*before, replace(variable, name=name)))
                        yield replace(bundle, claims=(*claims[:i], other, *claims[i + 1 :]))
            if isinstance(claim, ForgeryClaim):
                for changes in (
                    {"index": 3},
                    {"response": Octets(encode_answer(7, 13))},
                    {"signature": Octets()},
                ):
                    other = replace(claim, **changes)
                    yield replace(bundle, claims=(*claims[:i], other, *claims[i + 1 :]))
        for another in bundles:
            if another is not bundle:
                yield replace(bundle, subject=another.subject, operator=another.operator)

    count = 0
    for finding, bundle in zip(findings, bundles, strict=True):
        for each in altered(finding, bundle):
            count += 1
            with pytest.raises(NotProved):
                verdict_on(site, each)
    assert count > 300


@pytest.mark.real
def test_a_true_signature_is_no_forgery(site: Site, findings: list[Finding], bundles: list[Bundle]) -> None:
    """Else whoever shows a proof could be said to have shown none."""
    (claim,) = (c for b in bundles for c in b.claims if isinstance(c, ForgeryClaim))
    (bundle,) = (b for b in bundles if claim in b.claims)
    x, y = site.sign(claim.index, Task(keccak(claim.task), (), []), (13, 7))
    true = msgspec.structs.replace(claim, signature=Octets(word(x) + word(y)))
    others = [each for each in bundle.claims if each is not claim]
    for secret, says in (
        (site.operators[claim.index].secret, "expected 64 bytes that are not the member's signature"),
        (site.operators[3].secret, "the key in G2 is not the member's"),
    ):
        forgery = msgspec.structs.replace(true, key_g2=Octets(bls.public_keys(secret)[1]))
        with pytest.raises(NotProved, match=says):
            verdict_on(site, msgspec.structs.replace(bundle, claims=(*others, forgery)))


def said(
    site: Site, reason: str, asked: bytes, *others: bytes, state: tuple[str, bytes] | None = None
) -> Bundle:
    """What somebody could show to say that these requests are wrong: true claims, of what they don't mean."""
    record, net = log(site), network(site)
    blocks = {block.number: block for block in record.blocks}
    made = {e.request: e for e in ADAPTER.events(net, record.tables) if isinstance(e, SlashingRequested)}
    fetch: list[ToFetch] = [
        sought.event("trusted_slasher", blocks[e.at.block].ref, e.at)
        for e in (made[each] for each in (asked, *others))
    ]
    if state is not None:
        name, key = state
        fetch.append(StateSought("task_manager", (VariableSought(name, (Octets(key),)),)))
    about = made[Hash32(asked)]
    subject = subject_of(about.slasher, about.request, reason)
    head = record.blocks[-1]
    finding = Finding(
        *(b"", "wrongful_slashing", about.operator, bytes(32), 0, "", head.number, head.hash, head.time),
        *(head.level, head.anchor),
        facts=sought.write(Sought(Octets(subject), tuple(fetch))),
    )
    return gathered(site, CONDITION, finding)


@pytest.mark.real
def test_nobody_can_say_of_a_condition_of_the_networks_own_that_it_lacks_a_task(
    site: Site, wrong: Wrong, findings: list[Finding]
) -> None:
    first, second_ = wrong.own
    for bundle in (
        said(site, "twice", second_, first),
        said(site, "unknown_task", first, state=("_status.state", bytes(32))),
    ):
        with pytest.raises(NotProved, match="the request is about no Task"):
            verdict_on(site, bundle)


@pytest.mark.real
def test_a_burner_of_another_network_is_nobodys_business(
    site: Site, findings: list[Finding], bundles: list[Bundle]
) -> None:
    (bundle,) = (b for f, b in zip(findings, bundles, strict=True) if reason_of(f) == "wrong_receiver")
    told = reader(site)
    for terms in ({}, {**told.terms, "network": told.terms["network"] + 1}):
        with pytest.raises(NotProved):
            verify(bundle, msgspec.structs.replace(told, terms=terms), lambda name: CONDITION.holds)


@pytest.mark.real
def test_of_a_task_that_is_long_over_the_contracts_storage_shows_it(
    site: Site, wrong: Wrong, findings: list[Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run last: the chain goes on."""
    monkeypatch.setattr(wrongful_slashing, "LATE", 0)
    site.mine_to(max(site.head, wrong.old.end + TERMS.max_duration + TERMS.slashing_window))
    asked = ask(site, wrong.old.hash, EQUIVOCATED_HASH, 2)["SlashingRequested"]
    (finding,) = (each for each in found(site, CONDITION) if of_request(each) == asked["requestId"])
    assert (reason_of(finding), finding.task_number) == ("window_passed", 0)
    bundle = gathered(site, CONDITION, finding)
    assert [type(claim) for claim in bundle.claims] == [EventClaim, StateClaim]
    assert verdict_on(site, bundle).id == finding.id

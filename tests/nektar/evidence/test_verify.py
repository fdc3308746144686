"""Every kind of claim establishes what it says, and nothing else is taken for one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from eth_hash.auto import keccak

from devnet.chain import Account
from nektar.chain import rlp
from nektar.evidence import bls
from nektar.evidence.bundle import (
    AbsenceClaim,
    Bundle,
    ForgeryClaim,
    NonMemberClaim,
    Part,
    RefutationClaim,
    SetMemberClaim,
    SignatureClaim,
    finding_id,
    read,
    write,
)
from nektar.evidence.canonical import NotCanonical, Octets
from nektar.evidence.verify import NotProved, Reader
from nektar.facts import (
    Absent,
    Accepted,
    Called,
    Forged,
    Member,
    NotMember,
    Refuted,
    Signed,
    Stored,
    Submitted,
)
from nektar.model import G1, Address, Hash32
from nektar.networks.encoding import encode_answer, encode_members, word
from nektar.networks.shown import stands
from tests.nektar.evidence.points import (
    IDENTITY_1,
    IDENTITY_2,
    SMALL_ORDERS,
    of_small_order,
    off_the_subgroup,
)
from tests.nektar.evidence.small_chain import (
    CHAIN_ID,
    CODE,
    CONTRACTS,
    NOISE,
    OPERATORS,
    READER,
    RIGHT,
    SECRETS,
    SET,
    STRANGER,
    TASK,
    WRONG,
    SmallChain,
    aggregate,
    attested,
    facts_of,
    header,
    judged,
    log,
    member,
    receipts_root,
    responded,
    set_of,
    sign,
    signature,
    submitted,
    task_of,
)

replace = msgspec.structs.replace
TASK_HASH, DIGEST = Hash32(keccak(TASK)), Hash32(keccak(encode_answer(*RIGHT)))
OTHER = task_of(number=2)
WHO = bytes(12) + OPERATORS[0]
ENDS = stands("operator_registry", "_ends", (WHO,)).slot
STORAGE = {
    CONTRACTS["operator_registry"]: {stands("operator_registry", "setHash", ()).slot: 7, ENDS: 5 << 64 | 99},
    CONTRACTS["delegation"]: {stands("delegation", "isUnderbonded", (WHO,)).slot: 1},
}


@pytest.fixture(scope="module")
def chain() -> SmallChain:
    """100 the Task's submission and others, 101 empty, 102 a response, 103 to 106 noise and attestations."""
    chain = SmallChain()
    chain.block([NOISE], [NOISE, submitted()], [submitted(OTHER)], storage=STORAGE)
    chain.block()
    chain.block([responded(RIGHT, [2])], [NOISE])
    chain.block([NOISE])
    chain.block([attested(1)], [NOISE, attested(0, OTHER)])
    chain.block([NOISE])
    chain.block([attested(0)])
    return chain


def refusal(bundle: Bundle, reader: Reader = READER) -> str:
    with pytest.raises(NotProved) as refused:
        facts_of(bundle, reader)
    return str(refused.value)


# --- what a bundle is about ---------------------------------------------------------------------------


def test_a_verdict_names_the_finding_and_the_newest_block_of_each_stretch(chain: SmallChain) -> None:
    shown = chain.bundle(chain.event(100, 1, 1), chain.event(102), absent(103, 103))
    verdict = judged(shown)
    assert verdict.id == finding_id(
        "any", CHAIN_ID, CONTRACTS["task_manager"], verdict.accused.subject, verdict.accused.operator
    )
    assert (verdict.accused.operator, verdict.accused.subject) == (OPERATORS[0], TASK_HASH)
    assert verdict.canonical == (chain.ref(100), chain.ref(103))


def test_another_chain_contract_operator_or_subject_is_refused(chain: SmallChain) -> None:
    shown = chain.bundle(chain.event(100, 1, 1))
    assert refusal(replace(shown, chain_id=1)).startswith("chain: expected id 31337")
    for contracts, why in (
        ({"task_manager": Octets(STRANGER)}, "task_manager: expected 0x7a7a"),
        ({**shown.contracts, "other": Octets(STRANGER)}, "other: expected no such contract"),
        ({}, "contracts: expected task_manager"),
        (
            {**shown.contracts, "delegation": Octets(CONTRACTS["delegation"])},
            "contract 'delegation' is beyond",
        ),
    ):
        assert why in refusal(replace(shown, contracts=contracts))
    assert "subject of 32" in refusal(replace(shown, operator=Octets(b"\1" * 19)))
    assert "subject of 32" in refusal(replace(shown, subject=Octets(b"\1" * 31)))


def test_what_no_claim_needs_is_refused(chain: SmallChain) -> None:
    shown = chain.bundle(chain.event(100, 1, 1))
    assert "block 101 is beyond" in refusal(replace(shown, blocks=(*shown.blocks, chain.part(101))))
    assert "('receipts'" not in refusal(replace(shown, blocks=(chain.part(100, receipts=True),)))
    assert "receipts 100 is beyond" in refusal(replace(shown, blocks=(chain.part(100, receipts=True),)))
    assert "beyond" in refusal(replace(shown, sets=(Octets(SET),)))


def test_a_bundle_of_state_alone_is_about_its_task_manager_too(chain: SmallChain) -> None:
    judged(chain.bundle(chain.state(100, "delegation", ("isUnderbonded", (WHO,)))))


def test_blocks_are_linked_rising_and_each_once(chain: SmallChain) -> None:
    fork = SmallChain(salt=1)
    for _ in range(7):
        fork.block()
    claims = (absent(103, 104, operator=OPERATORS[2]),)
    shown = chain.bundle(*claims)
    one, two = shown.blocks
    assert "out of turn" in refusal(replace(shown, blocks=(two, one)))
    assert "out of turn" in refusal(replace(shown, blocks=(one, one, two)))
    assert "no child of the 103" in refusal(replace(shown, blocks=(one, fork.part(104))))
    assert "no child of the 103" in refusal(replace(shown, blocks=(fork.part(103), two)))


# --- events -------------------------------------------------------------------------------------------


def test_events_say_which_task_and_which_response(chain: SmallChain) -> None:
    shown = chain.bundle(chain.event(100, 1, 1), chain.event(100, 2, 0), chain.event(102))
    assert facts_of(shown) == [
        Submitted(TASK, chain.ref(100)),
        Submitted(OTHER, chain.ref(100)),
        Accepted(TASK_HASH, DIGEST, (2,), chain.ref(102)),
    ]


def test_an_event_is_the_one_in_its_place(chain: SmallChain) -> None:
    event = chain.event(100, 1, 1)
    other = chain.event(100, 2, 0)
    for changed, why in (
        (replace(event, log=0), "which is not task_manager"),
        (replace(event, log=2), "has 2 logs"),
        (replace(event, transaction=2), "the node"),
        (replace(event, transaction=3), "beyond it"),
        (replace(event, receipt=other.receipt), "another one in place 1"),
        (replace(event, proof=other.proof), "the node"),
        (replace(event, proof=event.proof[:-1]), "got none"),
        (replace(event, proof=(*event.proof, event.proof[-1])), "beyond it"),
        (replace(event, proof=event.proof[::-1]), "got another"),
        (replace(event, contract="delegation"), "which is not delegation"),
        (replace(event, contract="burner"), "expected burner"),
    ):
        shown = chain.bundle(event)
        if changed.contract == "delegation":
            shown = replace(
                shown, contracts={**shown.contracts, "delegation": Octets(CONTRACTS["delegation"])}
            )
        assert why in refusal(replace(shown, claims=(changed,)))
    assert "expected it among the bundle's" in refusal(replace(chain.bundle(event), blocks=()))
    moved = replace(chain.bundle(event), claims=(replace(event, block=102),), blocks=(chain.part(102),))
    assert "the node" in refusal(moved)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (attested(0), "expected its arguments"),
        (log("Paused", STRANGER), "expected its arguments"),
        (replace(submitted(), topics=()), "an event of task_manager"),
        (replace(submitted(), topics=submitted().topics[:3]), "expected its arguments"),
        (replace(submitted(), data=OTHER), "the hash of its Task"),
        (replace(submitted(), data=TASK[:-1]), "expected its arguments"),
        (replace(submitted(), address=STRANGER), "which is not task_manager"),
        (replace(responded(RIGHT, []), topics=responded(RIGHT, []).topics[:2]), "expected its arguments"),
        (replace(responded(RIGHT, [1]), data=responded(RIGHT, [1]).data[:-32]), "non-signers at the end"),
        (
            replace(responded(RIGHT, [1]), data=responded(RIGHT, [1]).data + bytes(32)),
            "non-signers at the end",
        ),
        (replace(responded(RIGHT, [1]), data=b"\1"), "non-signers at the end"),
        (replace(responded(RIGHT, [1]), data=bytes(12 * 32)), "non-signers at the end"),
    ],
)
def test_a_log_of_another_shape_is_no_evidence(entry: Any, why: str) -> None:
    chain = SmallChain()
    chain.block([entry])
    assert why in refusal(chain.bundle(chain.event(100)))


@pytest.mark.parametrize("receipt", [b"", b"\2", b"\x05\xc0", b"\2" + rlp.encode([b"\1", b"\7", bytes(256)])])
def test_a_receipt_that_is_none_is_refused_though_its_root_covers_it(receipt: bytes) -> None:
    chain = SmallChain()
    chain.block()
    chain.receipts[0] = [receipt, b"\2"]
    chain.headers[0] = header(100, bytes(32), receiptsRoot=receipts_root(chain.receipts[0]))
    assert "event: " in (said := refusal(chain.bundle(chain.event(100)))) or "receipt: " in said


# --- calls ----------------------------------------------------------------------------------------------

CALLER = Account(keccak(b"caller"))


def sent(to: bytes | None, nonce: int = 0, data: bytes = b"\1\2") -> bytes:
    """A transaction of the caller's."""
    return CALLER.sign(CHAIN_ID, nonce, None if to is None else "0x" + to.hex(), data, 0)


def called(to: bytes | None = CONTRACTS["task_manager"], failed: bool = True) -> SmallChain:
    chain = SmallChain()
    chain.block([], [NOISE], sent=[sent(STRANGER), sent(to, 1)], failed=failed)
    return chain


@pytest.mark.parametrize("failed", [False, True])
def test_a_call_is_its_senders_and_says_what_became_of_it(failed: bool) -> None:
    chain = called(failed=failed)
    raw = chain.sent[0][1]
    assert facts_of(chain.bundle(chain.call(100, 1))) == [
        Called(
            "task_manager",
            Hash32(keccak(raw)),
            Address(bytes.fromhex(CALLER.address[2:])),
            b"\1\2",
            not failed,
            chain.ref(100),
        )
    ]


def test_a_call_is_the_one_in_its_place_with_its_own_receipt() -> None:
    chain = called()
    call, other = chain.call(100, 1), chain.call(100, 0)
    for changed, why in (
        (replace(call, index=0), "the node"),
        (replace(call, transaction=other.transaction), "another one in place 1"),
        (replace(call, transaction_proof=other.transaction_proof), "the node"),
        (replace(call, receipt=other.receipt), "another one in place 1"),
        (replace(call, receipt=other.receipt, receipt_proof=other.receipt_proof), "the node"),
        (replace(call, receipt_proof=call.receipt_proof[:-1]), "got none"),
        (other, "which is not task_manager"),
    ):
        assert why in refusal(chain.bundle(changed))
    for to in (None, STRANGER):
        chain = called(to)
        assert "which is not task_manager" in refusal(chain.bundle(chain.call(100, 1)))


def test_a_call_that_nobody_signed_is_refused() -> None:
    fields = rlp.decode(sent(CONTRACTS["task_manager"]))
    assert not isinstance(fields, bytes)
    unsigned = [rlp.encode([*fields[:-2], *last]) for last in ((b"", b""), (b"\xff" * 40, b"\1"))]
    for junk in (*unsigned, rlp.encode([*fields[:-3], b"\5", *fields[-2:]]), b"\x7f", b"\xc0"):
        chain = SmallChain()
        chain.block([], [], sent=[junk, b"other"])
        assert "call: " in refusal(chain.bundle(chain.call(100)))


# --- membership and signatures --------------------------------------------------------------------------


def test_membership_is_of_the_set_that_the_task_committed_to(chain: SmallChain) -> None:
    key = bls.public_keys(SECRETS[3])[0]
    assert facts_of(chain.bundle(member(3), sets=[SET])) == [
        Member(TASK_HASH, OPERATORS[3], 3, bls.key_hash(key))
    ]
    assert "has 5 members; got index 5" in refusal(chain.bundle(member(5), sets=[SET]))
    assert "expected the set" in refusal(chain.bundle(member(3)))
    assert "expected the set" in refusal(chain.bundle(member(3), sets=[set_of(SECRETS[:4], OPERATORS[:4])]))
    assert "task: Task: expected 288 bytes" in refusal(chain.bundle(member(3, TASK[:-1]), sets=[SET]))


@pytest.mark.parametrize(
    "preimage",
    [
        b"",
        SET[:-1],
        SET + bytes(32),
        word(64) + SET[32:],
        word(32) + word(2**200),
        SET[:64] + b"\1" + SET[65:],
    ],
)
def test_a_set_that_is_encoded_in_another_way_is_none(chain: SmallChain, preimage: bytes) -> None:
    shown = chain.bundle(member(0, task_of(preimage)), sets=[preimage])
    assert "Member[]" in refusal(shown)


def test_sets_are_each_shown_once_and_sorted(chain: SmallChain) -> None:
    other = set_of(SECRETS[:4], OPERATORS[:4])
    shown = chain.bundle(member(0), member(0, task_of(other)), sets=[SET, other])
    assert len(facts_of(shown)) == 2
    assert "each once, sorted" in refusal(replace(shown, sets=shown.sets[::-1]))
    assert "each once, sorted" in refusal(replace(shown, sets=(shown.sets[0], *shown.sets)))


def forgery(place: int, claim: SignatureClaim | None = None) -> ForgeryClaim:
    """The member's name under another's signature, unless it is said under what."""
    told = claim or replace(signature(place), signature=signature(2).signature)
    return ForgeryClaim(told.task, told.index, told.key_g2, told.response, told.signature)


def test_what_is_no_signature_is_a_forgery_and_what_is_one_is_none(chain: SmallChain) -> None:
    for octets in (signature(2).signature, Octets(IDENTITY_1), Octets(b"\1" * 64)):
        shown = forgery(1, replace(signature(1), signature=octets))
        expected = Forged(TASK_HASH, OPERATORS[1], DIGEST, bytes(octets))
        assert facts_of(chain.bundle(shown, sets=[SET])) == [expected]
    for claim, says in (
        (signature(1), "not the member's signature"),
        (replace(signature(1), signature=Octets(b"")), "expected 64 bytes"),
        (replace(signature(1), key_g2=signature(2).key_g2), "the key in G2 is not the member's"),
        (replace(signature(1), index=2), "the key in G2 is not the member's"),
        (replace(signature(1), index=9), "got index 9"),
    ):
        with pytest.raises(NotProved, match=says):
            judged(chain.bundle(forgery(1, claim), sets=[SET]))


def test_a_signature_is_a_members_over_a_response_to_a_task(chain: SmallChain) -> None:
    fact = Signed(TASK_HASH, OPERATORS[1], DIGEST, alone=True)
    assert facts_of(chain.bundle(signature(1), sets=[SET])) == [fact]


def by(secret: int, **to: Any) -> Octets:
    return Octets(sign(secret, RIGHT, **to))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"index": 2}, "not the member's"),
        ({"index": 5}, "has 5 members"),
        ({"key_g2": Octets(bls.public_keys(9)[1])}, "not the member's"),
        ({"key_g2": Octets(IDENTITY_2)}, "not the member's"),
        ({"key_g2": Octets(b"")}, "not the member's"),
        ({"key_g2": Octets(off_the_subgroup(1))}, "not the member's"),
        ({"response": Octets(encode_answer(*WRONG))}, "over this response"),
        ({"response": Octets(b"")}, "over this response"),
        ({"task": Octets(OTHER)}, "over this response"),
        ({"signature": by(SECRETS[2])}, "over this response"),
        ({"signature": by(SECRETS[1], task=OTHER)}, "over this response"),
        ({"signature": by(SECRETS[1], chain_id=1)}, "over this response"),
        ({"signature": by(SECRETS[1], manager=STRANGER)}, "over this response"),
        ({"signature": Octets(IDENTITY_1)}, "over this response"),
        ({"signature": Octets(b"")}, "expected 64 bytes"),
        ({"signature": Octets(bytes(65))}, "expected 64 bytes"),
    ],
)
def test_another_key_message_domain_or_point_is_no_signature(
    chain: SmallChain, change: dict[str, Any], why: str
) -> None:
    shown = chain.bundle(replace(signature(1), **change), sets=[SET])
    assert why in refusal(shown)


def with_keys(*keys: bytes) -> bytes:
    return encode_members([(OPERATORS[i], key, 1) for i, key in enumerate(keys)])


@pytest.mark.parametrize("twin", [IDENTITY_2, *map(of_small_order, SMALL_ORDERS[:1]), off_the_subgroup(2)])
def test_a_set_of_keys_that_are_none_lets_nobody_sign(chain: SmallChain, twin: bytes) -> None:
    """The identity verifies anything where nobody looks; a set of an attacker's own may hold it."""
    for key in (IDENTITY_1, bytes(63) + b"\1", b"\xff" * 64):
        preimage = with_keys(key)
        claim = replace(signature(0), task=Octets(task_of(preimage)), key_g2=Octets(twin))
        for sigma in (IDENTITY_1, claim.signature):
            shown = replace(claim, signature=Octets(sigma))
            assert "not the member's" in refusal(chain.bundle(shown, sets=[preimage]))


# --- aggregates ---------------------------------------------------------------------------------------


def test_an_aggregate_is_signed_by_all_but_its_non_signers(chain: SmallChain) -> None:
    assert facts_of(chain.bundle(aggregate([0, 1, 3]), sets=[SET])) == [
        Signed(TASK_HASH, OPERATORS[i], DIGEST, alone=False) for i in (0, 1, 3)
    ]
    assert len(facts_of(chain.bundle(aggregate(range(5)), sets=[SET]))) == 5


@pytest.mark.parametrize(
    "out",
    [
        (),
        (2,),
        (4,),
        (1, 2, 4),
        (3, 4),
        (4, 2),
        (2, 2, 4),
        (2, 4, 4),
        (2, 4, 5),
        (2, 4, 2**53 - 1),
        (0, 1, 2, 3, 4),
    ],
)
def test_wrong_non_signers_make_it_no_aggregate(chain: SmallChain, out: tuple[int, ...]) -> None:
    said = refusal(chain.bundle(replace(aggregate([0, 1, 3]), non_signers=out), sets=[SET]))
    assert said.startswith("aggregate: ")


def test_an_aggregate_of_others_signatures_or_keys_is_none(chain: SmallChain) -> None:
    claim = aggregate([0, 1, 3])
    for other, why in (
        (replace(claim, signature=aggregate([0, 1]).signature), "signature: "),
        (replace(claim, signature=aggregate([0, 1, 3], WRONG).signature), "signature: "),
        (replace(claim, apk_g2=aggregate([0, 1]).apk_g2), "not the sum"),
        (replace(claim, apk_g2=Octets(IDENTITY_2)), "not the sum"),
        (replace(claim, response=Octets(encode_answer(*WRONG))), "signature: "),
        (replace(claim, task=Octets(OTHER)), "signature: "),
    ):
        assert why in refusal(chain.bundle(other, sets=[SET]))


def test_keys_that_cancel_each_other_out_sign_nothing(chain: SmallChain) -> None:
    keys = [bls.public_keys(secret)[0] for secret in (5, bls.R - 5)]
    preimage = with_keys(*keys)
    claim = replace(aggregate(range(5)), task=Octets(task_of(preimage)), apk_g2=Octets(IDENTITY_2))
    claim = replace(claim, signature=Octets(IDENTITY_1))
    assert "cancel each other out" in refusal(chain.bundle(claim, sets=[preimage]))


def test_a_key_made_of_anothers_signs_for_it_in_no_set_that_asks_for_possession(chain: SmallChain) -> None:
    """The rogue key x·G1 − K makes the sum one whose secret is the attacker's. Within a set of its own making
    that works, as must be known: what keeps it out is the registry's proof of possession, so that facts count
    only for a Task whose submission on the Network's own contract is shown."""
    victim = bls.public_keys(SECRETS[0])[0]
    minus = G1(victim[:32] + word(bls.P - int.from_bytes(victim[32:])))
    rogue = bls.aggregate([bls.public_keys(77)[0], minus])
    preimage = with_keys(victim, rogue)
    task = task_of(preimage)
    claim = replace(
        aggregate(range(5)),
        task=Octets(task),
        apk_g2=Octets(bls.public_keys(77)[1]),
        signature=Octets(sign(77, RIGHT, task)),
    )
    facts = facts_of(chain.bundle(claim, sets=[preimage]))
    assert {fact.task_hash for fact in facts if isinstance(fact, Signed)} == {keccak(task)} != {TASK_HASH}
    proof = bls.sign(77, bls.proof_digest(CHAIN_ID, CONTRACTS["operator_registry"], OPERATORS[1], rogue))
    for twin in (bls.public_keys(77)[1], bls.public_keys(5)[1]):
        assert not bls.verify_possession(
            CHAIN_ID, CONTRACTS["operator_registry"], OPERATORS[1], rogue, twin, proof
        )


# --- absences -----------------------------------------------------------------------------------------


def absent(first: int, last: int, event: str = "Attested", **of: bytes) -> AbsenceClaim:
    return AbsenceClaim(
        "task_manager", event, first, last, **{name: Octets(each) for name, each in of.items()}
    )


def test_blooms_that_exclude_a_log_show_its_absence(chain: SmallChain) -> None:
    claim = absent(101, 105, task=TASK_HASH, operator=OPERATORS[2])
    assert facts_of(chain.bundle(claim)) == [Absent("Attested", 101, 105, TASK_HASH, OPERATORS[2])]
    assert facts_of(chain.bundle(absent(101, 103))) == [Absent("Attested", 101, 103, None, None)]


def test_where_a_bloom_does_not_exclude_it_all_receipts_do(chain: SmallChain) -> None:
    claim = absent(103, 105, task=TASK_HASH, operator=OPERATORS[0])
    assert "expected block 104's receipts" in refusal(chain.bundle(claim))
    assert facts_of(chain.bundle(claim, receipts=[104])) == [
        Absent("Attested", 103, 105, TASK_HASH, OPERATORS[0])
    ]


def test_a_log_that_was_made_is_not_absent(chain: SmallChain) -> None:
    for claim in (
        absent(103, 106, task=TASK_HASH, operator=OPERATORS[0]),
        absent(106, 106, task=TASK_HASH),
        absent(104, 104, operator=OPERATORS[1]),
        absent(104, 104),
    ):
        assert "has such a Attested" in refusal(chain.bundle(claim, receipts=[104, 106][claim.first > 104 :]))
    assert "has such a TaskSubmitted" in refusal(
        chain.bundle(absent(100, 100, "TaskSubmitted", task=TASK_HASH), receipts=[100])
    )


def test_receipts_missing_reordered_or_of_another_block_show_nothing(chain: SmallChain) -> None:
    claim = absent(103, 105, task=TASK_HASH, operator=OPERATORS[0])
    shown = chain.bundle(claim, receipts=[104])
    before, block, after = shown.blocks
    assert block.receipts is not None
    one, two = block.receipts
    for receipts in ((), (one,), (two, one), (one, two, two), chain.part(103, receipts=True).receipts):
        other = replace(shown, blocks=(before, Part(block.header, receipts), after))
        assert "not those of block 104" in refusal(other)
    junk = replace(shown, blocks=(before, Part(block.header, (one, Octets(b"\xc0"))), after))
    assert "receipt: " in refusal(junk)


def test_an_absence_has_every_block_of_its_range(chain: SmallChain) -> None:
    claim = absent(101, 105, task=TASK_HASH, operator=OPERATORS[2])
    shown = chain.bundle(claim)
    for i in range(5):
        gap = replace(shown, blocks=shown.blocks[:i] + shown.blocks[i + 1 :])
        assert "blocks 101 to 105 in the bundle" in refusal(gap)
        # One block more elsewhere makes the count right.
        elsewhere = replace(gap, blocks=(*gap.blocks, chain.part(106)))
        assert f"block {101 + i}: expected it among the bundle's" in refusal(elsewhere)
    for first, last in ((105, 101), (101, 2**53 - 1), (0, 2**53 - 1)):
        assert "expected blocks" in refusal(replace(shown, claims=(replace(claim, first=first, last=last),)))


def test_an_absence_names_only_what_its_event_does(chain: SmallChain) -> None:
    for claim, why in (
        (absent(101, 101, "Paused", task=TASK_HASH), "does not name"),
        (absent(101, 101, "TaskCancelled", operator=OPERATORS[0]), "does not name"),
        (absent(101, 101, task=TASK_HASH[1:]), "does not name"),
        (absent(101, 101, operator=WHO), "does not name"),
        (absent(101, 101, "Slashed"), "no event Slashed"),
        (replace(absent(101, 101), contract="delegation"), "no event Attested"),
    ):
        shown = chain.bundle(claim)
        assert why in refusal(shown)


def test_a_log_of_another_contract_with_the_same_topics_is_no_such_log() -> None:
    chain = SmallChain()
    chain.block([replace(attested(0), address=STRANGER), NOISE, log("Paused", STRANGER)])
    claim = absent(100, 100, task=TASK_HASH, operator=OPERATORS[0])
    assert len(facts_of(chain.bundle(claim, receipts=[100]))) == 1


# --- state --------------------------------------------------------------------------------------------


def test_state_is_what_variables_held_after_a_block(chain: SmallChain) -> None:
    shown = chain.bundle(
        chain.state(103, "operator_registry", ("setHash", ()), ("_ends", (WHO,)), ("_ends", (word(5),))),
        chain.state(103, "delegation", ("isUnderbonded", (WHO,))),
    )
    assert facts_of(shown) == [
        Stored("operator_registry", "setHash", (), 7, chain.ref(103)),
        Stored("operator_registry", "_ends", (WHO,), 99, chain.ref(103)),  # the lower 8 bytes alone
        Stored("operator_registry", "_ends", (word(5),), 0, chain.ref(103)),
        Stored("delegation", "isUnderbonded", (WHO,), 1, chain.ref(103)),
    ]


def test_state_of_another_account_contract_slot_or_block_is_refused(chain: SmallChain) -> None:
    claim = chain.state(103, "operator_registry", ("_ends", (WHO,)))
    other = chain.state(103, "delegation", ("isUnderbonded", (WHO,)))
    variable = claim.variables[0]
    for changed, why in (
        (replace(claim, account=other.account), "account 0x7b"),
        (replace(claim, account=claim.account[:-1]), "account 0x7b"),
        (replace(claim, account=()), "account 0x7b"),
        (replace(claim, variables=other.variables), "a variable of operator_registry"),
        (replace(claim, variables=(replace(variable, name="setHash"),)), "expected 0 keys"),
        (replace(claim, variables=(replace(variable, name="setHash", keys=()),)), "'s setHash: "),
        (replace(claim, variables=(replace(variable, name="nothing"),)), "a variable of operator_registry"),
        (replace(claim, variables=(replace(variable, keys=()),)), "expected 1 keys"),
        (replace(claim, variables=(replace(variable, keys=(Octets(OPERATORS[0]),)),)), "expected 1 keys"),
        (replace(claim, variables=(replace(variable, proof=()),)), "'s _ends: "),
        (replace(claim, variables=(replace(variable, proof=other.variables[0].proof),)), "'s _ends: "),
    ):
        shown = replace(chain.bundle(claim), claims=(changed,))
        assert why in refusal(shown)
    later = SmallChain(103, salt=5)
    later.block(storage={CONTRACTS["operator_registry"]: {ENDS: 98}})
    assert "account 0x7b" in refusal(replace(chain.bundle(claim), blocks=(later.part(103),)))


def test_a_contract_that_is_not_there_or_has_other_code_has_no_state(chain: SmallChain) -> None:
    claim = chain.state(103, "operator_registry", ("_ends", (WHO,)))
    coded = replace(READER, code={"operator_registry": Hash32(CODE)})
    assert len(facts_of(chain.bundle(claim), coded)) == 1
    other = replace(READER, code={"operator_registry": Hash32(keccak(b"other"))})
    assert "to have code" in refusal(chain.bundle(claim), other)
    empty = SmallChain()
    empty.block()
    nothing = empty.state(100, "operator_registry", ("_ends", (WHO,)))
    assert "there is none" in refusal(empty.bundle(nothing))


# --- refutations --------------------------------------------------------------------------------------


def refutation(p: int, q: int, divisor: int, n: int = 91) -> RefutationClaim:
    response = Octets(encode_answer(p, q))
    return RefutationClaim(Octets(task_of(n=n)), response, Octets(word(divisor)))


@pytest.mark.parametrize(
    ("p", "q", "divisor"), [(13, 7, 7), (91, 1, 7), (91, 1, 13), (7, 7, 0), (1, 91, 0), (0, 5, 0)]
)
def test_a_wrong_response_is_refuted(chain: SmallChain, p: int, q: int, divisor: int) -> None:
    assert facts_of(chain.bundle(refutation(p, q, divisor))) == [
        Refuted(Hash32(keccak(task_of(n=91))), Hash32(keccak(encode_answer(p, q))))
    ]


@pytest.mark.parametrize(
    ("p", "q", "divisor"),
    [(7, 13, 0), (7, 13, 7), (7, 13, 1), (13, 7, 0), (13, 7, 13), (13, 7, 5), (7, 7, 3), (7, 7, 7)],
)
def test_a_divisor_that_shows_nothing_refutes_nothing(
    chain: SmallChain, p: int, q: int, divisor: int
) -> None:
    assert "refutation: " in refusal(chain.bundle(refutation(p, q, divisor)))


def test_a_refutation_of_another_shape_is_refused(chain: SmallChain) -> None:
    claim = refutation(13, 7, 7)
    for change in (
        {"divisor": Octets(b"\7")},
        {"divisor": Octets(b"")},
        {"response": Octets(encode_answer(13, 7)[:-1])},
        {"response": Octets(b"")},
        {"task": Octets(b"")},
    ):
        facts = replace(claim, **change)
        assert refusal(chain.bundle(facts))


# --- the text -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(chain: SmallChain) -> Bundle:
    """One of every kind of claim."""
    return chain.bundle(
        chain.event(100, 1, 1),
        chain.event(102),
        absent(103, 105, task=TASK_HASH, operator=OPERATORS[0]),
        chain.state(105, "operator_registry", ("_ends", (WHO,))),
        member(4),
        SetMemberClaim(Octets(keccak(SET)), 2),
        NonMemberClaim(Octets(TASK), Octets(STRANGER)),
        signature(1),
        forgery(1),
        aggregate([0, 1, 3]),
        refutation(13, 7, 7),
        receipts=[104],
        sets=[SET],
    )


def test_a_bundle_is_written_and_read_in_one_way(whole: Bundle) -> None:
    text = write(whole)
    assert read(text) == whole
    assert write(read(text)) == text
    assert len(facts_of(read(text))) == 13


def test_who_is_no_member_is_in_no_place_of_the_set(chain: SmallChain) -> None:
    bundle = chain.bundle(NonMemberClaim(Octets(TASK), Octets(STRANGER)), sets=[SET])
    assert facts_of(bundle) == [NotMember(TASK_HASH, STRANGER)]
    for operator in (*OPERATORS, STRANGER[1:], STRANGER + b"\0", b""):
        bundle = chain.bundle(NonMemberClaim(Octets(TASK), Octets(operator)), sets=[SET])
        assert "that is not in the set" in refusal(bundle)


def verdict_of(text: bytes, expected: Sequence[Any]) -> Any:
    """The verdict, where the facts are these; None where it is refused."""
    try:
        facts: list[Any] = []
        verdict = judged(read(text), facts)
    except (NotCanonical, NotProved):
        return None
    return verdict if facts == expected else None


def test_no_byte_can_be_altered(whole: Bundle) -> None:
    """What is left is a header that no other is linked to, of another hash, which the verdict names."""
    rng, text = random.Random(3), write(whole)
    expected = facts_of(whole)
    genuine = verdict_of(text, expected)
    invented = 0
    for at in rng.sample(range(len(text)), 2500):
        digits = b"0123456789abcdef" if text[at] in b"0123456789abcdef" else bytes(range(32, 127))
        other = text[:at] + bytes((rng.choice([d for d in digits if d != text[at]]),)) + text[at + 1 :]
        verdict = verdict_of(other, expected)
        if verdict is None:
            continue
        same = (verdict.condition, verdict.accused) == (genuine.condition, genuine.accused)
        assert not same or verdict.canonical != genuine.canonical, at
        invented += same
    assert invented < 50


def test_no_byte_can_be_left_out_or_put_in(whole: Bundle) -> None:
    rng, text = random.Random(4), write(whole)
    expected = facts_of(whole)
    for at in rng.sample(range(len(text)), 1500):
        for other in (text[:at] + text[at + 1 :], text[:at] + text[at : at + 1] + text[at:]):
            if other != text:
                verdict = verdict_of(other, expected)
                assert verdict is None or verdict.condition != "any"


JSON = (
    b'{"blocks":[],"chain_id":1,"claims":[],"condition":"a","contracts":{},'
    b'"format":"nektar-evidence/1","operator":"0x","sets":[],"subject":"0x"}'
)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"{", b" {"),
        (b"}", b"}\n"),
        (b'"chain_id":1', b'"chain_id": 1'),
        (b'"chain_id":1', b'"chain_id":1.0'),
        (b'"chain_id":1', b'"chain_id":1e0'),
        (b'"chain_id":1', b'"chain_id":01'),
        (b'"chain_id":1', b'"chain_id":-0'),
        (b'"chain_id":1', b'"chain_id":-1'),
        (b'"chain_id":1', b'"chain_id":9007199254740992'),
        (b'"chain_id":1', b'"chain_id":true'),
        (b'"chain_id":1', b'"chain_id":"1"'),
        (b'"chain_id":1', b'"chain_id":null'),
        (b'"chain_id":1', b'"chain_id":1,"chain_id":1'),
        (b'"chain_id":1,', b""),
        (b'"sets":[]', b'"sets":[],"more":1'),
        (b'"sets":[]', b'"sets":null'),
        (b'"a"', b'"\\u0061"'),
        (b'"a"', b'"\\ud800"'),
        (b'"a"', b'"\xff"'),
        (b'"a"', b'"\xc3\xa9"'),
        (b'"a"', b'"\x1b[2J"'),
        (b'"a"', b'"\\u001b[2J"'),
        (b'"a"', b'""'),
        (b'"a"', b'"' + b"a" * 101 + b'"'),
        (b"{}", b'{"b":"0x","a":"0x"}'),
        (b"{}", b'{"a":"0x","a":"0x"}'),
        (b'"operator":"0x"', b'"operator":"0X"'),
        (b'"operator":"0x"', b'"operator":""'),
        (b'"operator":"0x"', b'"operator":"0x1"'),
        (b'"operator":"0x"', b'"operator":"0xAB"'),
        (b'"operator":"0x"', b'"operator":"0x\n"'),
        (b'"operator":"0x"', b'"operator":[]'),
        (b"nektar-evidence/1", b"nektar-evidence/2"),
        (b'"claims":[]', b'"claims":[{}]'),
        (b'"claims":[]', b'"claims":[{"claim":"other"}]'),
        (b'"claims":[]', b'"claims":[{"claim":"member","index":0,"task":"0x","more":"0x"}]'),
        (b'"blocks":[]', b'"blocks":[{"header":"0x","receipts":null}]'),
        (JSON, b""),
        (JSON, b"[]"),
        (JSON, b"\xef\xbb\xbf" + JSON),
        (b'"claims":[]', b'"claims":' + b"[" * 100_000 + b"]" * 100_000),
        (b'"claims":[]', b'"claims":[' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"]"),
    ],
)
def test_what_reads_the_same_but_is_written_otherwise_is_refused(old: bytes, new: bytes) -> None:
    read(JSON)
    assert JSON.replace(old, new, 1) != JSON
    with pytest.raises(NotCanonical):
        read(JSON.replace(old, new, 1))

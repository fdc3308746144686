"""SlashingManager's proofs of what was signed: what is proved, and who can't be accused."""

from __future__ import annotations

import pytest

from devnet.deploy import (
    CONDITIONS,
    EQUIVOCATION,
    INVALID_RESPONSE,
    TOKEN,
)
from nektar.evidence import bls
from tests.devnet.contracts.conftest import LIAR, TERMS, accuse, refused, request

pytestmark = pytest.mark.real

RIGHT, WRONG = (7, 13), (13, 7)  # to n = 91
HONEST = 0
NOTHING = "0x" + bytes(32).hex()


def respond(site, task, answer=WRONG, signers=(1, 2, 3)):
    """Have a response accepted; the members that did not sign it."""
    response = site.response(task, answer, list(signers))
    site.do(site.stranger, "task_manager", "respond", *response)
    return response[3]


def alone(site, task, index=LIAR):
    return (task.fields, task.members, index, WRONG, site.sign(index, task, WRONG), 7)


def twice(site, task, index=LIAR):
    signature = site.sign(index, task, RIGHT)
    return (task.fields, task.members, index, WRONG, respond(site, task), RIGHT, signature)


def in_quorum(site, task, index=LIAR):
    return (task.fields, task.members, index, WRONG, respond(site, task), 7)


# --- every proof that is about one Task ---------------------------------------------------------------

PROOFS = {
    "proveEquivocationInQuorum": twice,
    "proveInvalidResponse": alone,
    "proveInvalidResponseInQuorum": in_quorum,
}
each_proof = pytest.mark.parametrize("function", PROOFS)


@each_proof
def test_an_offence_is_about_a_known_task_its_set_and_a_member(site, function):
    task = site.submit()
    fields, members, index, *rest = PROOFS[function](site, task)
    unknown = (*fields[:8], 99)
    assert refused(site, function, unknown, members, index, *rest).startswith("TaskUnknown")
    assert refused(site, function, fields, members[:2], index, *rest).startswith("WrongOperatorSet")
    assert refused(site, function, fields, members, 4, *rest) == "MemberUnknown(4, 4)"


@each_proof
def test_an_offence_is_proved_within_the_slashing_window_and_once(site, function):
    task = site.submit(window=3, grace=1)
    proof, last = PROOFS[function](site, task), task.end + TERMS.slashing_window
    site.mine_to(last)
    before = site.chain.rpc("evm_snapshot")
    assert refused(site, function, *proof) == f"SlashingWindowPassed({last})"
    assert site.chain.rpc("evm_revert", before)
    assert site.head == last
    other = site.submit(window=3, grace=1)
    proof = PROOFS[function](site, other)
    site.mine_to(other.end + TERMS.slashing_window - 2)
    accuse(site, function, *proof)
    assert refused(site, function, *proof).startswith("AlreadyRequested")


@each_proof
def test_what_the_network_does_not_slash_for_is_refused(site, function):
    proof, network = PROOFS[function](site, site.submit()), site.ask("task_manager", "network")
    for condition in CONDITIONS:
        site.do(site.admin, "network_registry", "allowCondition", network, condition, False)
    assert refused(site, function, *proof).startswith("ConditionNotAllowed")


# --- equivocation in a quorum -------------------------------------------------------------------------


@pytest.mark.parametrize("challenged", [False, True])
def test_who_signs_in_a_quorum_and_something_else_is_accused(site, challenged):
    task = site.submit()
    proof = twice(site, task)
    if challenged:
        site.do(site.stranger, "task_manager", "challenge", task.fields, WRONG, 7)
    made = accuse(site, "proveEquivocationInQuorum", *proof)
    assert made == request(site, EQUIVOCATION, task.hash)


def test_the_right_response_may_be_the_quorum_s_and_the_other_one_wrong(site):
    task = site.submit()
    non_signers = respond(site, task, RIGHT)
    other = (WRONG, site.sign(LIAR, task, WRONG))
    proof = (task.fields, task.members, LIAR, RIGHT, non_signers, *other)
    assert accuse(site, "proveEquivocationInQuorum", *proof) == request(site, EQUIVOCATION, task.hash)


def test_an_equivocation_is_one_offence_whichever_way_it_is_shown(site):
    task = site.submit()
    accuse(site, "proveEquivocationInQuorum", *twice(site, task))
    both = [part for answer in (WRONG, RIGHT) for part in (answer, site.sign(LIAR, task, answer))]
    again = refused(site, "proveEquivocation", task.fields, task.members, LIAR, *both)
    assert again.startswith("AlreadyRequested")


def test_who_signed_one_response_alone_or_in_the_quorum_can_t_be_accused_of_two(site):
    task, other = site.submit(), site.submit()
    non_signers = respond(site, task)
    fields, members = task.fields, task.members
    # A non-signer of the quorum's, who signed another response; as if it had signed both.
    hers = (RIGHT, site.sign(HONEST, task, RIGHT))
    proof = (fields, members, HONEST, WRONG, non_signers, *hers)
    assert refused(site, "proveEquivocationInQuorum", *proof) == f"NotSigner({HONEST})"
    proof = (fields, members, HONEST, WRONG, [], *hers)
    assert refused(site, "proveEquivocationInQuorum", *proof).startswith("WrongRecord")
    # A signer's, who signed nothing else.
    same = (fields, members, 2, WRONG, non_signers, WRONG, site.sign(2, task, WRONG))
    assert refused(site, "proveEquivocationInQuorum", *same).startswith("SameResponse")
    forgeries = (site.sign(2, task, WRONG), site.sign(2, other, RIGHT), site.sign(3, task, RIGHT))
    for forged in forgeries:
        proof = (fields, members, 2, WRONG, non_signers, RIGHT, forged)
        assert refused(site, "proveEquivocationInQuorum", *proof).startswith("SignatureInvalid(")
    # Nobody's response was accepted.
    proof = (other.fields, members, 2, WRONG, non_signers, RIGHT, site.sign(2, other, RIGHT))
    assert refused(site, "proveEquivocationInQuorum", *proof).startswith(f"WrongRecord({NOTHING}, ")


# --- invalid_response ---------------------------------------------------------------------------------

REFUTED = [
    (91, (13, 7), 7),  # 13 is a divisor, and not the least
    (91, (91, 1), 7),  # 91 is no prime
    (91, (5, 18), 0),  # 5 · 18 is not 91
    (91, (0, 0), 0),
    (91, (2**255, 2), 0),  # its product is 0 modulo 2^256
]


@pytest.mark.parametrize(("n", "answer", "divisor"), REFUTED)
def test_who_signs_a_wrong_response_alone_is_accused(site, n, answer, divisor):
    task = site.submit(n)
    signature = site.sign(LIAR, task, answer)
    proof = (task.fields, task.members, LIAR, answer, signature, divisor)
    assert accuse(site, "proveInvalidResponse", *proof) == request(site, INVALID_RESPONSE, task.hash)


@pytest.mark.parametrize(("n", "answer", "divisor"), REFUTED)
def test_who_signs_a_wrong_response_in_a_quorum_is_accused(site, n, answer, divisor):
    task = site.submit(n)
    proof = (task.fields, task.members, LIAR, answer, respond(site, task, answer), divisor)
    assert accuse(site, "proveInvalidResponseInQuorum", *proof) == request(site, INVALID_RESPONSE, task.hash)


def test_each_of_a_quorum_is_accused_whether_it_was_challenged_in_time_or_not(site):
    challenged, forgotten = site.submit(), site.submit()
    missing = [respond(site, task) for task in (challenged, forgotten)]
    site.do(site.stranger, "task_manager", "challenge", challenged.fields, WRONG, 7)
    site.mine_to(site.ask("task_manager", "statusOf", forgotten.hash)[1] + 1)
    late = site.refusal(site.stranger, "task_manager", "challenge", forgotten.fields, WRONG, 7)
    assert late.startswith("ChallengeWindowPassed")
    for task, non_signers in zip((challenged, forgotten), missing, strict=True):
        for signer, amount in ((1, 100 * TOKEN), (2, 100 * TOKEN), (3, 300 * TOKEN)):
            proof = (task.fields, task.members, signer, WRONG, non_signers, 7)
            made = accuse(site, "proveInvalidResponseInQuorum", *proof)
            assert made == request(site, INVALID_RESPONSE, task.hash, signer, amount)


def test_a_wrong_response_is_one_offence_whether_signed_alone_or_in_a_quorum(site):
    task = site.submit()
    accuse(site, "proveInvalidResponseInQuorum", *in_quorum(site, task))
    assert refused(site, "proveInvalidResponse", *alone(site, task)).startswith("AlreadyRequested")


@pytest.mark.parametrize(
    ("n", "answer"), [(91, RIGHT), (2, (2, 1)), (97, (97, 1)), (2**64 - 1, (3, (2**64 - 1) // 3))]
)
def test_who_signs_the_right_response_can_t_be_accused(site, n, answer):
    task = site.submit(n)
    signature, non_signers = site.sign(HONEST, task, answer), respond(site, task, answer, [0, 1, 2, 3])
    for divisor in (0, 1, 2, 7, 13, n, 2**255):
        assert divisor < 2 or divisor >= answer[0] or n % divisor
        for function, shown in (
            ("proveInvalidResponse", signature),
            ("proveInvalidResponseInQuorum", non_signers),
        ):
            proof = (task.fields, task.members, HONEST, answer, shown, divisor)
            assert refused(site, function, *proof) == f"AnswerNotRefuted({divisor})"


def test_who_did_not_sign_the_wrong_response_can_t_be_accused_of_it(site):
    task, other = site.submit(), site.submit()
    digest = bls.response_digest(*WRONG)
    forgeries = (
        site.sign(HONEST, task, RIGHT),
        site.sign(HONEST, other, WRONG),
        site.sign(LIAR, task, WRONG),
        (1, 2),
    )
    for forged in forgeries:
        proof = (task.fields, task.members, HONEST, WRONG, forged, 7)
        assert refused(site, "proveInvalidResponse", *proof) == f"SignatureInvalid(0x{digest.hex()})"
    identity = (task.fields, task.members, HONEST, WRONG, (0, 0), 7)
    assert refused(site, "proveInvalidResponse", *identity) == "IdentityPoint()"


def test_only_who_the_record_shows_signed_in_the_quorum(site):
    task, other, open_one = site.submit(), site.submit(), site.submit()
    assert respond(site, task) == [HONEST]
    respond(site, other, signers=[0, 1, 2, 3])
    about = (task.fields, task.members, HONEST, WRONG)
    assert refused(site, "proveInvalidResponseInQuorum", *about, [HONEST], 7) == f"NotSigner({HONEST})"
    # As another quorum's, shortened, or with more in it.
    record = site.ask("task_manager", "statusOf", task.hash)[6].hex()
    for non_signers in ([], [1], [0, 1], [0, 0], [2**256 - 1]):
        refusal = refused(site, "proveInvalidResponseInQuorum", *about, non_signers, 7)
        assert refusal.startswith(f"WrongRecord(0x{record}, ")
    # Another response than that which was accepted, and a Task to which none was.
    another = (task.fields, task.members, LIAR, (91, 1), [HONEST], 7)
    assert refused(site, "proveInvalidResponseInQuorum", *another).startswith(f"WrongRecord(0x{record}, ")
    none = (open_one.fields, open_one.members, LIAR, WRONG, [], 7)
    assert refused(site, "proveInvalidResponseInQuorum", *none).startswith(f"WrongRecord({NOTHING}, ")

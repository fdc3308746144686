"""TaskManager: what is accepted, and what is refused and why."""

from __future__ import annotations

import pytest

from devnet.deploy import TASK_TYPE, g1_argument, g2_argument, keccak
from nektar.evidence import bls
from tests.devnet.contracts.conftest import TERMS

pytestmark = pytest.mark.real

RIGHT, WRONG = (7, 13), (13, 7)  # to n = 91
IDENTITY = (0, 0)
EVERYONE = [0, 1, 2, 3]
LARGEST = 2**64 - 1


# --- submitting ---------------------------------------------------------------------------------------


def test_a_task_commits_to_its_parent_block_and_the_newest_set(site):
    parent = site.chain.head()[1]
    set_hash = site.ask("operator_registry", "setHash")
    task = site.submit(91, window=6, grace=3)
    assert task.fields[2].hex() == parent[2:]
    assert task.fields[3] == set_hash
    assert (task.deadline, task.end) == (site.head + 6, site.head + 9)
    from eth_abi.abi import encode

    packed = encode(["(bytes32,uint256,bytes32,bytes32,uint64,uint64,uint16,uint16,uint64)"], [task.fields])
    assert keccak(packed) == task.hash
    assert keccak(encode(["(address,(uint256,uint256),uint256)[]"], [task.members])) == set_hash


def test_two_tasks_of_one_block_with_one_input_are_two(site):
    data = site.abis["task_manager"].encode("submitTask", TASK_TYPE, 91, 6, 3, 5000, 5000)
    sent = [site.chain.send(site.submitter, site.contracts["task_manager"], data) for _ in range(2)]
    site.chain.mine()
    first, second = (site.chain.receipt(each)["logs"][0] for each in sent)
    assert first["blockHash"] == second["blockHash"]
    assert first["topics"][1] != second["topics"][1]


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"task_type": keccak(b"another")}, "TaskTypeUnknown"),
        ({"n": 0}, "InputOutOfRange(0)"),
        ({"n": 1}, "InputOutOfRange(1)"),
        ({"n": 1 << 64}, f"InputOutOfRange({1 << 64})"),
        ({"window": 0}, "WindowOutOfRange(0, 3)"),
        ({"window": 58}, "WindowOutOfRange(58, 3)"),
        ({"grace": 55}, "WindowOutOfRange(6, 55)"),
        ({"window": 61, "grace": 0}, "WindowOutOfRange(61, 0)"),
        ({"window": LARGEST, "grace": LARGEST}, f"WindowOutOfRange({LARGEST}, {LARGEST})"),
        ({"responses": 0}, "ThresholdOutOfRange(0, 5000)"),
        ({"stake": 10_001}, "ThresholdOutOfRange(5000, 10001)"),
    ],
)
def test_a_task_out_of_bounds_is_refused(site, changed, error):
    whole = {"task_type": TASK_TYPE, "n": 91, "window": 6, "grace": 3, "responses": 5000, "stake": 5000}
    arguments = (whole | changed).values()
    assert site.refusal(site.submitter, "task_manager", "submitTask", *arguments).startswith(error)


@pytest.mark.parametrize(("window", "grace"), [(57, 3), (60, 0), (1, 59)])
def test_the_longest_task_is_accepted(site, window, grace):
    assert site.submit(window=window, grace=grace).end == site.head + TERMS.max_duration


def test_a_set_takes_no_tasks_once_it_is_too_old_and_all_of_them_when_it_is_shown_again(site):
    site.do(site.submitter, "operator_registry", "commitSet")
    set_hash = site.ask("operator_registry", "setHash")
    last = site.head + TERMS.max_set_age
    site.mine_to(last - 1)
    assert site.submit().fields[3] == set_hash
    assert site.head == last
    submit = ("task_manager", "submitTask", TASK_TYPE, 91, 6, 3, 5000, 5000)
    assert site.refusal(site.submitter, *submit) == f"OperatorSetStale({last})"
    # Nothing has changed, so nothing is told; and the set is as good as new.
    assert site.do(site.stranger, "operator_registry", "commitSet") == {}
    assert site.submit().fields[3] == set_hash


@pytest.mark.parametrize("n", [2, (1 << 64) - 1])
def test_the_bounds_of_the_input_are_inside(site, n):
    assert site.submit(n).fields[1] == n


def test_only_submitters_of_the_network_submit(site):
    arguments = ("task_manager", "submitTask", TASK_TYPE, 91, 6, 3, 5000, 5000)
    assert site.refusal(site.stranger, *arguments) == f"NotSubmitter({site.stranger.address})"
    network = site.ask("task_manager", "network")
    allow = ("network_registry", "allowSubmitter", network, site.stranger.address)
    assert site.refusal(site.stranger, *allow, True).startswith("NotBuilder")
    site.do(site.admin, *allow, True)
    assert site.do(site.stranger, *arguments)["TaskSubmitted"]["submitter"] == site.stranger.address


# --- the quorum's response ----------------------------------------------------------------------------


# Two of four are just enough responses, and members 0 to 2 just enough stake.
@pytest.mark.parametrize("signers", [EVERYONE, [1, 2, 3], [0, 3], [2, 3], [0, 1, 2]])
def test_a_quorum_is_accepted_and_told_in_full(site, signers):
    task = site.submit()
    arguments = site.response(task, RIGHT, signers)
    event = site.do(site.stranger, "task_manager", "respond", *arguments)["Responded"]
    digest = bls.response_digest(*RIGHT)
    assert event["taskHash"] == task.hash
    assert event["responseDigest"] == digest
    assert event["answer"] == RIGHT
    assert list(event["nonSigners"]) == arguments[3]
    assert (event["signature"], event["apkG2"]) == arguments[4:]
    assert event["challengeDeadline"] == site.head + TERMS.challenge_window
    from eth_abi.abi import encode

    record = encode(["bytes32", "bytes32", "uint256[]"], [task.hash, digest, arguments[3]])
    assert event["recordHash"] == keccak(record)


def test_one_flipped_byte_of_the_signature_reverts(site):
    task = site.submit()
    *rest, (x, y), apk = site.response(task, RIGHT, EVERYONE)
    refused = site.refusal(site.stranger, "task_manager", "respond", *rest, (x ^ 1, y), apk)
    assert refused == "InvalidPoint()"  # off the curve
    refused = site.refusal(site.stranger, "task_manager", "respond", *rest, (x, bls.P - y), apk)
    assert refused == "SignatureInvalid()"  # on it: the negated signature
    site.do(site.stranger, "task_manager", "respond", *rest, (x, y), apk)


def test_a_coordinate_with_the_modulus_added_reverts(site):
    task = site.submit()
    *rest, (x, y), apk = site.response(task, RIGHT, EVERYONE)
    if x + bls.P < 1 << 256:
        assert (
            site.refusal(site.stranger, "task_manager", "respond", *rest, (x + bls.P, y), apk)
            == "InvalidPoint()"
        )


def test_the_identity_is_no_signature_and_no_key(site):
    task = site.submit()
    *rest, signature, apk = site.response(task, RIGHT, EVERYONE)
    nobody = ((0, 0), (0, 0))
    assert site.refusal(site.stranger, "task_manager", "respond", *rest, IDENTITY, apk) == "IdentityPoint()"
    assert (
        site.refusal(site.stranger, "task_manager", "respond", *rest, signature, nobody) == "IdentityPoint()"
    )
    assert (
        site.refusal(site.stranger, "task_manager", "respond", *rest, IDENTITY, nobody) == "IdentityPoint()"
    )


def test_a_foreign_key_in_the_aggregate_reverts(site):
    task = site.submit()
    fields, answer, members, missing, _, _ = site.response(task, RIGHT, EVERYONE)
    secrets = [each.secret for each in site.operators[:3]] + [4242]
    signature = bls.aggregate(bls.sign(s, site.digest(task, RIGHT)) for s in secrets)
    apk = bls.aggregate_g2(bls.public_keys(s)[1] for s in secrets)
    assert (
        site.refusal(
            site.stranger,
            *("task_manager", "respond", fields, answer, members, missing),
            *(g1_argument(signature), g2_argument(apk)),
        )
        == "SignatureInvalid()"
    )


def test_signers_and_non_signers_must_be_who_signed(site):
    task = site.submit()
    fields, answer, members, _, signature, apk = site.response(task, RIGHT, [1, 2, 3])
    for claimed in ([], [1], [0, 1]):
        arguments = (fields, answer, members, claimed, signature, apk)
        assert site.refusal(site.stranger, "task_manager", "respond", *arguments) == "SignatureInvalid()"


@pytest.mark.parametrize("claimed", [[1, 0], [0, 0], [4], [0, 1, 2, 3, 3], [2**255]])
def test_non_signers_are_rising_indices_of_members(site, claimed):
    task = site.submit()
    fields, answer, members, _, signature, apk = site.response(task, RIGHT, EVERYONE)
    arguments = (fields, answer, members, claimed, signature, apk)
    assert site.refusal(site.stranger, "task_manager", "respond", *arguments).startswith("NonSignersUnsorted")


def test_both_thresholds_hold(site):
    task = site.submit(responses=7500, stake=6000)
    respond = ("task_manager", "respond")
    # Members 0 to 2 are three quarters of the responses and half of the stake.
    assert site.refusal(site.stranger, *respond, *site.response(task, RIGHT, [0, 1, 2])).startswith(
        "StakeThresholdMissed"
    )
    # Members 0 and 3 are two thirds of the stake and half of the responses.
    assert (
        site.refusal(site.stranger, *respond, *site.response(task, RIGHT, [0, 3]))
        == "ResponseThresholdMissed(2, 4)"
    )
    site.do(site.stranger, *respond, *site.response(task, RIGHT, [0, 1, 3]))


def test_a_signature_of_another_domain_reverts(site):
    task = site.submit()
    manager = bytes.fromhex(site.contracts["task_manager"][2:])
    registry = bytes.fromhex(site.contracts["operator_registry"][2:])
    digest = bls.response_digest(*RIGHT)
    elsewhere = [
        bls.signing_digest(1, manager, task.hash, digest),
        bls.signing_digest(site.chain.chain_id, registry, task.hash, digest),
        bls.signing_digest(site.chain.chain_id, manager, digest, task.hash),
        task.hash,
        digest,
    ]
    key, _ = bls.public_keys(site.operators[0].secret)
    elsewhere.append(bls.proof_digest(site.chain.chain_id, manager, bytes(20), key))
    fields, answer, members, missing, _, apk = site.response(task, RIGHT, EVERYONE)
    for signed in elsewhere:
        signature = bls.aggregate(bls.sign(each.secret, signed) for each in site.operators)
        arguments = (fields, answer, members, missing, g1_argument(signature), apk)
        assert site.refusal(site.stranger, "task_manager", "respond", *arguments) == "SignatureInvalid()"


def test_signatures_over_one_answer_don_t_carry_another(site):
    task = site.submit()
    fields, _, *rest = site.response(task, RIGHT, EVERYONE)
    assert (
        site.refusal(site.stranger, "task_manager", "respond", fields, WRONG, *rest) == "SignatureInvalid()"
    )


def test_a_task_or_set_that_was_changed_is_unknown(site):
    task = site.submit()
    fields, answer, members, *rest = site.response(task, RIGHT, EVERYONE)
    eased = (*fields[:6], 1, 1, fields[8])
    assert site.refusal(site.stranger, "task_manager", "respond", eased, answer, members, *rest).startswith(
        "TaskUnknown"
    )
    assert site.refusal(
        site.stranger, "task_manager", "respond", fields, answer, members[::-1], *rest
    ).startswith("WrongOperatorSet")


def test_a_response_counts_until_the_deadline_and_once(site):
    task, other = site.submit(window=6), site.submit(window=6)
    site.mine_to(task.deadline - 1)
    site.do(site.stranger, "task_manager", "respond", *site.response(task, RIGHT, EVERYONE))
    assert site.head == task.deadline
    again = site.refusal(site.stranger, "task_manager", "respond", *site.response(task, RIGHT, EVERYONE))
    assert again.startswith("WrongState")
    assert site.head == other.deadline
    late = site.refusal(site.stranger, "task_manager", "respond", *site.response(other, RIGHT, EVERYONE))
    assert late == f"DeadlinePassed({other.deadline})"


# --- attestations -------------------------------------------------------------------------------------


def test_an_operator_attests_until_the_deadline_and_late_through_the_grace(site):
    task = site.submit(window=4, grace=3)
    assert site.attest(0, task, RIGHT)["Attested"]["late"] is False
    site.mine_to(task.deadline - 1)
    assert site.attest(1, task, RIGHT)["Attested"]["late"] is False
    assert site.attest(2, task, RIGHT)["Attested"]["late"] is True
    site.mine_to(task.end - 1)
    event = site.attest(3, task, RIGHT)["Attested"]
    assert event["late"] is True
    assert event["operator"] == site.operators[3].account.address
    assert event["responseDigest"] == bls.response_digest(*RIGHT)
    assert event["signature"] == site.sign(3, task, RIGHT)
    with pytest.raises(Exception, match=rf"GracePassed\({task.end}\)"):
        site.attest(0, task, WRONG)


def test_a_second_attestation_is_told_and_changes_nothing(site):
    task = site.submit()
    operator = site.operators[1].account.address
    assert site.attest(1, task, WRONG)["Attested"]["kept"] is True
    assert site.attest(1, task, RIGHT)["Attested"]["kept"] is False
    assert site.ask("task_manager", "attestedDigest", task.hash, operator) == bls.response_digest(*WRONG)


def test_a_non_signer_attests_after_the_response(site):
    task = site.submit()
    site.do(site.stranger, "task_manager", "respond", *site.response(task, RIGHT, [1, 2, 3]))
    assert site.attest(0, task, RIGHT)["Attested"]["kept"] is True


def test_nobody_attests_for_another(site):
    task = site.submit()
    signature = site.sign(0, task, RIGHT)
    attest = ("task_manager", "attest", task.fields, RIGHT, task.members)
    other = site.operators[1].account
    assert site.refusal(other, *attest, 0, signature) == f"NotMember({other.address}, 0)"
    assert site.refusal(other, *attest, 1, signature) == "SignatureInvalid()"
    assert site.refusal(other, *attest, 4, signature) == f"NotMember({other.address}, 4)"
    assert site.refusal(site.stranger, *attest, 0, signature).startswith("NotMember")


def test_a_bad_signature_is_no_attestation(site):
    task = site.submit()
    x, y = site.sign(0, task, RIGHT)
    attest = ("task_manager", "attest", task.fields, RIGHT, task.members, 0)
    operator = site.operators[0].account
    assert site.refusal(operator, *attest, (x, y ^ 1)) == "InvalidPoint()"
    assert site.refusal(operator, *attest, IDENTITY) == "IdentityPoint()"
    assert site.refusal(operator, *attest, (1, 2)) == "SignatureInvalid()"


# --- cancel, pause, challenge -------------------------------------------------------------------------


def test_its_submitter_or_the_owner_cancels_an_open_task(site):
    first, second, third = (site.submit(window=20) for _ in range(3))
    cancel = ("task_manager", "cancelTask")
    assert site.refusal(site.stranger, *cancel, first.fields) == f"NotCanceller({site.stranger.address})"
    assert site.do(site.submitter, *cancel, first.fields)["TaskCancelled"]["taskHash"] == first.hash
    site.do(site.admin, *cancel, second.fields)
    assert site.refusal(site.admin, *cancel, second.fields).startswith("WrongState")
    refused = site.refusal(site.stranger, "task_manager", "respond", *site.response(first, RIGHT, EVERYONE))
    assert refused.startswith("WrongState")
    with pytest.raises(Exception, match="WrongState"):
        site.attest(0, first, RIGHT)
    site.do(site.stranger, "task_manager", "respond", *site.response(third, RIGHT, EVERYONE))
    assert site.refusal(site.admin, *cancel, third.fields).startswith("WrongState")


def test_what_was_due_can_t_be_cancelled_after_the_deadline(site):
    task = site.submit(window=3)
    site.mine_to(task.deadline)
    refused = site.refusal(site.submitter, "task_manager", "cancelTask", task.fields)
    assert refused == f"DeadlinePassed({task.deadline})"


def test_while_paused_nothing_is_submitted_responded_or_attested(site):
    task = site.submit(window=30)
    assert site.refusal(site.stranger, "task_manager", "pause").startswith("OwnableUnauthorizedAccount")
    assert site.do(site.admin, "task_manager", "pause")["Paused"]["account"] == site.admin.address
    assert site.refusal(site.admin, "task_manager", "pause") == "EnforcedPause()"
    submit = ("task_manager", "submitTask", TASK_TYPE, 91, 6, 3, 5000, 5000)
    assert site.refusal(site.submitter, *submit) == "EnforcedPause()"
    respond = ("task_manager", "respond", *site.response(task, RIGHT, EVERYONE))
    assert site.refusal(site.stranger, *respond) == "EnforcedPause()"
    with pytest.raises(Exception, match="EnforcedPause"):
        site.attest(0, task, RIGHT)
    assert site.refusal(site.stranger, "task_manager", "unpause").startswith("OwnableUnauthorizedAccount")
    assert site.do(site.admin, "task_manager", "unpause")["Unpaused"]["account"] == site.admin.address
    site.do(site.stranger, *respond)


@pytest.mark.parametrize(
    ("n", "answer", "divisor"),
    [
        (91, (13, 7), 7),  # 13 is a divisor, and not the least
        (91, (91, 1), 7),  # 91 is no prime
        (12, (6, 2), 3),
        (91, (5, 18), 0),  # 5 · 18 is not 91
        (91, (1, 91), 0),
        (91, (0, 0), 0),
        (91, (2**255, 2), 0),  # its product is 0 modulo 2^256
        (91, (7, 12), 99),
    ],
)
def test_a_wrong_response_is_refuted_and_accepted_no_more(site, n, answer, divisor):
    task = site.submit(n)
    site.do(site.stranger, "task_manager", "respond", *site.response(task, answer, EVERYONE))
    challenge = ("task_manager", "challenge", task.fields, answer, divisor)
    event = site.do(site.stranger, *challenge)["ResponseChallenged"]
    assert event == {"taskHash": task.hash, "divisor": divisor, "challenger": site.stranger.address}
    assert site.ask("task_manager", "statusOf", task.hash)[0] == 3
    assert site.refusal(site.stranger, *challenge).startswith("WrongState")
    # An operator that was right can still say so.
    assert site.attest(0, task, RIGHT)["Attested"]["kept"] is True


def test_who_signed_which_response_stays_known_when_it_is_refuted(site):
    task = site.submit()
    submitted, digest = site.head, bls.response_digest(*WRONG)
    status = ("task_manager", "statusOf", task.hash)
    submitter, nothing = site.submitter.address, bytes(32)
    assert site.ask(*status) == (1, 0, submitter, submitted, 0, nothing, nothing)
    responded = site.do(site.stranger, "task_manager", "respond", *site.response(task, WRONG, [1, 2, 3]))
    event = responded["Responded"]
    last, record = event["challengeDeadline"], event["recordHash"]
    assert site.ask(*status) == (2, last, submitter, submitted, 0, digest, record)
    site.do(site.stranger, "task_manager", "challenge", task.fields, WRONG, 7)
    assert site.ask(*status) == (3, last, submitter, submitted, 0, digest, record)


@pytest.mark.parametrize(
    ("n", "answer"), [(91, (7, 13)), (2, (2, 1)), (97, (97, 1)), (2**64 - 1, (3, (2**64 - 1) // 3))]
)
def test_a_right_response_can_t_be_refuted(site, n, answer):
    task = site.submit(n)
    site.do(site.stranger, "task_manager", "respond", *site.response(task, answer, EVERYONE))
    for divisor in (0, 1, 2, 3, 7, 13, 97, n, 2**255):
        refutes = site.ask("task_manager", "refutes", n, answer, divisor)
        assert not refutes, divisor
    refused = site.refusal(site.stranger, "task_manager", "challenge", task.fields, answer, 2)
    assert refused == "ChallengeInvalid(2)"


def test_a_challenge_is_about_the_accepted_answer_and_in_its_window(site):
    task = site.submit()
    responded = site.do(site.stranger, "task_manager", "respond", *site.response(task, WRONG, EVERYONE))
    last = responded["Responded"]["challengeDeadline"]
    assert site.refusal(site.stranger, "task_manager", "challenge", task.fields, (91, 1), 7).startswith(
        "WrongAnswer"
    )
    challenge = (site.stranger, "task_manager", "challenge", task.fields, WRONG, 7)
    before = site.chain.rpc("evm_snapshot")
    site.mine_to(last)
    assert site.refusal(*challenge) == f"ChallengeWindowPassed({last})"
    assert site.chain.rpc("evm_revert", before)
    site.mine_to(last - 1)
    assert "ResponseChallenged" in site.do(*challenge)


# --- forks --------------------------------------------------------------------------------------------


def test_a_number_that_returns_on_another_fork_is_another_task(site):
    manager = site.contracts["task_manager"]
    before = site.submit(91)
    old_response, old_attestation = site.response(before, RIGHT, EVERYONE), site.sign(0, before, RIGHT)
    nonce = int(site.chain.rpc("eth_getTransactionCount", site.submitter.address, "latest"), 16) - 1
    data = site.abis["task_manager"].encode("submitTask", TASK_TYPE, 77, 6, 3, 5000, 5000)
    raw = site.submitter.sign(site.chain.chain_id, nonce, manager, data)
    height, old_hash = site.chain.head()
    site.chain.reorg(1, [(raw, 0)])
    assert site.chain.head()[0] == height
    assert site.chain.head()[1] != old_hash
    (log,) = site.chain.rpc("eth_getLogs", {"address": manager, "fromBlock": hex(height)})
    after = site.read(log)[1]
    assert after["number"] == before.fields[8]
    assert after["taskHash"] != before.hash
    assert after["task"][1] == 77

    # The old Task is unknown here, and what was signed for it does not fit the new one.
    respond, attest = ("task_manager", "respond"), ("task_manager", "attest")
    operator = site.operators[0].account
    assert site.refusal(site.stranger, *respond, *old_response).startswith("TaskUnknown")
    assert site.refusal(site.stranger, *respond, after["task"], *old_response[1:]) == "SignatureInvalid()"
    attestation = (RIGHT, before.members, 0, old_attestation)
    assert site.refusal(operator, *attest, before.fields, *attestation).startswith("TaskUnknown")
    assert site.refusal(operator, *attest, after["task"], *attestation) == "SignatureInvalid()"

"""SlashingManager's proofs, one condition after the other: what is proved, and who can't be accused."""

from __future__ import annotations

import pytest

from devnet.deploy import (
    BOND_BREACH,
    CONDITIONS,
    EQUIVOCATION,
    INVALID_RESPONSE,
    MISSED_DUTY,
    TASK_TYPE,
    TOKEN,
    g1_argument,
    key_arguments,
)
from nektar.evidence import bls
from tests.devnet.contracts.conftest import TERMS, Task, slash

pytestmark = pytest.mark.real

RIGHT, WRONG = (7, 13), (13, 7)  # to n = 91
HONEST, LIAR = 0, 1
NOTHING = "0x" + bytes(32).hex()


def accuse(site, function, *arguments):
    """The request that this proof makes."""
    return site.do(site.stranger, "slashing_manager", function, *arguments)["SlashingRequested"]


def refused(site, function, *arguments):
    """Why this proof is none."""
    return site.refusal(site.stranger, "slashing_manager", function, *arguments)


def request(site, condition, subject, operator=LIAR, amount=100 * TOKEN):
    """The request that an offence makes in the block that is the head."""
    offender = site.operators[operator].account.address
    return {
        "requestId": site.ask("slashing_manager", "requestIdOf", condition, subject, offender),
        "condition": condition,
        "operator": offender,
        "taskHash": subject,
        "amount": amount,
        "vetoDeadline": site.head + TERMS.veto_window,
    }


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


# --- missed_duty --------------------------------------------------------------------------------------

IDLE = 2
ENOUGH = TERMS.miss_allowance + 1


def submit(site, count=ENOUGH, **chosen):
    return [site.submit(**({"window": 4, "grace": 1} | chosen)) for _ in range(count)]


def miss(task, index=IDLE, non_signers=()):
    return (task.fields, task.members, index, list(non_signers))


def missed(misses):
    """The arguments of `proveMissedDuty`: each set once."""
    sets = []
    for _, members, _, _ in misses:
        if members not in sets:
            sets.append(members)
    return sets, [(task, sets.index(members), *rest) for task, members, *rest in misses]


def over(site, *tasks):
    """Pass all blocks in which somebody can attest for any of these, as the next one sees it."""
    site.mine_to(max(task.end for task in tasks))


def excuse(site, tasks):
    over(site, *tasks)
    return refused(site, "proveMissedDuty", *missed([miss(task) for task in tasks]))


def test_who_misses_more_than_is_allowed_is_accused(site):
    tasks = submit(site)
    over(site, *tasks)
    offender = site.operators[IDLE].account.address
    event = accuse(site, "proveMissedDuty", *missed([miss(task) for task in tasks]))
    assert event == request(site, MISSED_DUTY, tasks[-1].hash, IDLE)
    for task in tasks:
        assert site.ask("slashing_manager", "missCounted", task.hash, offender)
    logs = site.chain.rpc(
        "eth_getLogs", {"address": site.contracts["slashing_manager"], "fromBlock": hex(site.head)}
    )
    counted = [values for name, values in map(site.read, logs) if name == "MissCounted"]
    expected = [
        {"requestId": event["requestId"], "taskHash": task.hash, "operator": offender} for task in tasks
    ]
    assert counted == expected


def test_a_response_without_the_operator_does_not_excuse_it_refuted_or_not(site):
    tasks = submit(site, window=8)
    accepted = [[], respond(site, tasks[1], RIGHT, [1, 3]), respond(site, tasks[2], WRONG, [1, 3])]
    site.do(site.stranger, "task_manager", "challenge", tasks[2].fields, WRONG, 7)
    over(site, *tasks)
    misses = [miss(task, IDLE, missing) for task, missing in zip(tasks, accepted, strict=True)]
    event = accuse(site, "proveMissedDuty", *missed(misses))
    assert event == request(site, MISSED_DUTY, tasks[-1].hash, IDLE)


def test_so_many_misses_are_an_offence_no_fewer_and_no_more(site):
    tasks = submit(site, ENOUGH + 1)
    over(site, *tasks)
    misses = [miss(task) for task in tasks]
    for wrong in ([], misses[: ENOUGH - 1], misses):
        assert (
            refused(site, "proveMissedDuty", *missed(wrong)) == f"WrongNumberOfMisses({ENOUGH}, {len(wrong)})"
        )


def test_no_miss_counts_twice(site):
    tasks = submit(site, 2 * ENOUGH - 1)
    over(site, *tasks)
    misses = [miss(task) for task in tasks]
    for again in ([misses[0]] * 3, [misses[0], misses[1], misses[1]], [misses[1], misses[0], misses[2]]):
        assert refused(site, "proveMissedDuty", *missed(again)).startswith("MissesUnsorted(")
    accuse(site, "proveMissedDuty", *missed(misses[:ENOUGH]))
    rest = [misses[0], *misses[ENOUGH:]]
    counted = refused(site, "proveMissedDuty", *missed(rest))
    assert counted == f"MissAlreadyCounted(0x{tasks[0].hash.hex()})"
    assert refused(site, "proveMissedDuty", *missed(misses[:ENOUGH])) == counted
    # Another's misses of the same Tasks are its own.
    others = [miss(task, LIAR) for task in tasks[:ENOUGH]]
    event = accuse(site, "proveMissedDuty", *missed(others))
    assert event == request(site, MISSED_DUTY, tasks[ENOUGH - 1].hash, LIAR)


def test_misses_lie_in_a_window(site):
    first = site.submit(window=4, grace=1)
    start = site.head
    second = site.submit(window=4, grace=1)
    site.mine_to(start + TERMS.miss_window - 2)
    third = site.submit(window=4, grace=1)
    fourth = site.submit(window=4, grace=1)
    over(site, fourth)
    apart = refused(site, "proveMissedDuty", *missed([miss(task) for task in (first, second, fourth)]))
    assert apart == f"MissesTooFarApart({start}, {start + TERMS.miss_window})"
    accuse(site, "proveMissedDuty", *missed([miss(task) for task in (first, second, third)]))


def test_misses_are_of_one_operator(site):
    tasks = submit(site)
    over(site, *tasks)
    misses = [miss(tasks[0]), miss(tasks[1], LIAR), miss(tasks[2])]
    of, not_of = (site.operators[i].account.address for i in (IDLE, LIAR))
    assert refused(site, "proveMissedDuty", *missed(misses)) == f"WrongOperator({of}, {not_of})"


@pytest.mark.parametrize("place", range(ENOUGH))
def test_each_miss_is_about_a_known_task_its_set_and_a_member(site, place):
    tasks = submit(site)
    over(site, *tasks)
    fields, members, index, missing = miss(tasks[place])
    for wrong, error in (
        (((*fields[:1], 77, *fields[2:]), members, index, missing), "TaskUnknown"),
        ((fields, members[:2], 0, missing), "WrongOperatorSet"),
        ((fields, members, 4, missing), "MemberUnknown(4, 4)"),
    ):
        misses = [wrong if i == place else miss(task) for i, task in enumerate(tasks)]
        assert refused(site, "proveMissedDuty", *missed(misses)).startswith(error)


def test_misses_of_several_sets_count_together_and_cost_what_the_last_set_counts(site):
    tasks = submit(site, 1, window=20)
    add(site, site.operators[IDLE].account, 500 * TOKEN, IDLE)
    site.do(site.stranger, "operator_registry", "commitSet")
    tasks += submit(site, ENOUGH - 1, window=10)
    assert tasks[0].members != tasks[1].members
    over(site, *tasks)
    (old, new), misses = missed([miss(task) for task in tasks])
    for sets in ([new, old], [old, old], [new, new]):
        assert refused(site, "proveMissedDuty", sets, misses).startswith("WrongOperatorSet")
    for sets in ([], [old]):
        lacking = refused(site, "proveMissedDuty", sets, misses)
        assert lacking == f"OperatorSetMissing(1, {len(sets)})"
    made = accuse(site, "proveMissedDuty", [old, new], misses)
    assert made == request(site, MISSED_DUTY, tasks[-1].hash, IDLE, 150 * TOKEN)


def test_nothing_is_missed_while_one_can_still_attest(site):
    tasks = submit(site, window=6, grace=3)
    site.mine_to(tasks[-1].end - 1)
    misses = [miss(task) for task in tasks]
    assert refused(site, "proveMissedDuty", *missed(misses)) == f"GraceNotPassed({tasks[-1].end})"
    accuse(site, "proveMissedDuty", *missed(misses))


def test_the_slashing_window_is_that_of_the_task_that_ends_last(site):
    long, *short = submit(site, 1, window=20, grace=5) + submit(site, ENOUGH - 1)
    misses, last = [miss(task) for task in (long, *short)], long.end + TERMS.slashing_window
    site.mine_to(last - 1)
    before = site.chain.rpc("evm_snapshot")
    accuse(site, "proveMissedDuty", *missed(misses))
    assert site.chain.rpc("evm_revert", before)
    site.mine_to(last)
    assert refused(site, "proveMissedDuty", *missed(misses)) == f"SlashingWindowPassed({last})"


@pytest.mark.parametrize("late", [False, True])
def test_who_attests_until_the_end_of_the_grace_has_missed_nothing(site, late):
    tasks = submit(site)
    if late:
        site.mine_to(tasks[1].end - 1)
    # Any response will do: a wrong one is another offence.
    assert site.attest(IDLE, tasks[1], WRONG)["Attested"]["late"] is late
    assert excuse(site, tasks) == f"DutyDone(0x{tasks[1].hash.hex()})"


@pytest.mark.parametrize("challenged", [False, True])
def test_who_signed_in_the_quorum_has_missed_nothing(site, challenged):
    tasks = submit(site, window=6)
    missing = respond(site, tasks[1], WRONG, [IDLE, 3])
    if challenged:
        site.do(site.stranger, "task_manager", "challenge", tasks[1].fields, WRONG, 7)
    over(site, *tasks)
    done = f"DutyDone(0x{tasks[1].hash.hex()})"
    misses = [miss(tasks[0]), miss(tasks[1], IDLE, missing), miss(tasks[2])]
    assert refused(site, "proveMissedDuty", *missed(misses)) == done
    for forged in ([], [0, 1, IDLE], [IDLE]):
        misses[1] = miss(tasks[1], IDLE, forged)
        assert refused(site, "proveMissedDuty", *missed(misses)).startswith("WrongRecord(")


def test_a_cancelled_task_is_owed_by_nobody(site):
    tasks = submit(site)
    site.do(site.submitter, "task_manager", "cancelTask", tasks[1].fields)
    assert excuse(site, tasks) == f"DutyExcused(0x{tasks[1].hash.hex()})"


def in_one_block(site, *calls):
    """What calls (sender, contract, function, arguments…) emitted, mined in this order into one block."""
    for sender, contract, function, *arguments in calls:
        data = site.abis[contract].encode(function, *arguments)
        site.chain.send(sender, site.contracts[contract], data)
    number, _ = site.chain.mine()
    receipts = site.chain.rpc("eth_getBlockReceipts", hex(number))
    assert [receipt["status"] for receipt in receipts] == ["0x1"] * len(calls)
    return [site.read(log) for receipt in receipts for log in receipt["logs"]]


def test_a_task_during_which_the_network_was_paused_for_a_moment_is_owed_by_nobody(site):
    pause, unpause = ((site.admin, "task_manager", name) for name in ("pause", "unpause"))
    tasks = submit(site, window=8)
    site.mine_to(tasks[0].deadline - 1)
    in_one_block(site, pause, unpause)
    assert site.head == tasks[0].deadline
    assert excuse(site, tasks) == f"DutyExcused(0x{tasks[0].hash.hex()})"
    for task in tasks:
        assert site.ask("task_manager", "isExcused", task.fields)


def test_a_pause_before_a_task_or_after_its_deadline_excuses_nobody(site):
    pause, unpause = ((site.admin, "task_manager", name) for name in ("pause", "unpause"))
    in_one_block(site, pause)
    in_one_block(site, unpause, pause, unpause)
    tasks = submit(site, window=4, grace=3)
    assert [site.ask("task_manager", "statusOf", task.hash)[4] for task in tasks] == [2] * ENOUGH
    site.mine_to(tasks[-1].deadline)
    in_one_block(site, pause, unpause)
    over(site, *tasks)
    accuse(site, "proveMissedDuty", *missed([miss(task) for task in tasks]))


@pytest.mark.parametrize("earlier", [0, 2])
def test_a_task_that_is_submitted_in_the_block_in_which_a_pause_ends_is_owed_by_nobody(site, earlier):
    """As the duty ledger has it: the Network was paused at that block."""
    pause, unpause = ((site.admin, "task_manager", name) for name in ("pause", "unpause"))
    for _ in range(earlier):
        in_one_block(site, pause, unpause)
    site.do(*pause)
    members = list(site.ask("operator_registry", "eligible"))
    submitting = (site.submitter, "task_manager", "submitTask", TASK_TYPE, 91, 4, 1, 5000, 5000)
    events = in_one_block(site, unpause, submitting)
    task = next(
        Task(each["taskHash"], each["task"], members) for name, each in events if name == "TaskSubmitted"
    )
    tasks = [task, *submit(site, ENOUGH - 1)]
    assert excuse(site, tasks) == f"DutyExcused(0x{task.hash.hex()})"
    assert [site.ask("task_manager", "isExcused", each.fields) for each in tasks] == [True, False, False]


def test_who_has_left_by_a_submission_owes_nothing_also_as_who_has_come_back(site):
    operator = site.operators[IDLE].account
    key = bls.public_keys(site.operators[IDLE].secret)[0]
    left = ("operator_registry", "effectiveBlockOf", g1_argument(key))
    assert site.ask(*left) == 0
    (before,) = submit(site, 1, window=30)
    site.do(operator, "operator_registry", "deregister")
    effective = site.head + 1
    assert site.ask(*left) == effective
    after = [task._replace(members=before.members) for task in submit(site, ENOUGH - 1, window=30)]
    registry, chain_id = site.contracts["operator_registry"], site.chain.chain_id
    new = key_arguments(77, chain_id, registry, operator.address)
    site.do(operator, "operator_registry", "register", *new, "eu", 1)
    assert site.ask(*left) == effective
    # Nor does leaving once more bring its old duties back.
    site.do(operator, "operator_registry", "deregister")
    assert site.ask(*left) == effective
    assert site.ask("operator_registry", "effectiveBlockOf", new[0]) == site.head + 1
    assert excuse(site, [before, *after]) == f"DutyExcused(0x{after[0].hash.hex()})"


def test_who_leaves_or_changes_its_key_after_a_submission_owes_what_it_owed(site):
    operator = site.operators[IDLE].account
    registry, chain_id = site.contracts["operator_registry"], site.chain.chain_id
    tasks = submit(site, ENOUGH - 1, window=30)
    site.do(
        operator, "operator_registry", "rotateKey", *key_arguments(77, chain_id, registry, operator.address)
    )
    # The last one in the block of the deregistration, which takes effect with the next.
    submitting = (site.submitter, "task_manager", "submitTask", TASK_TYPE, 91, 30, 1, 5000, 5000)
    events = in_one_block(site, (operator, "operator_registry", "deregister"), submitting)
    members = tasks[0].members
    tasks += [
        Task(each["taskHash"], each["task"], members) for name, each in events if name == "TaskSubmitted"
    ]
    over(site, *tasks)
    event = accuse(site, "proveMissedDuty", *missed([miss(task) for task in tasks]))
    assert event == request(site, MISSED_DUTY, tasks[-1].hash, IDLE)


def test_what_the_network_does_not_slash_for_counts_no_miss(site):
    tasks, network = submit(site), site.ask("task_manager", "network")
    site.do(site.admin, "network_registry", "allowCondition", network, MISSED_DUTY, False)
    assert excuse(site, tasks).startswith("ConditionNotAllowed")
    offender = site.operators[IDLE].account.address
    assert not site.ask("slashing_manager", "missCounted", tasks[0].hash, offender)


def test_a_veto_is_for_the_misses_that_were_counted(site):
    tasks = submit(site, ENOUGH + 1)
    over(site, *tasks)
    misses = [miss(task) for task in tasks]
    made = accuse(site, "proveMissedDuty", *missed(misses[:ENOUGH]))["requestId"]
    for voter in site.voters[:2]:
        site.do(voter, "veto_committee", "vote", site.contracts["slashing_manager"], made)
    again = refused(site, "proveMissedDuty", *missed(misses[1:]))
    assert again == f"MissAlreadyCounted(0x{tasks[1].hash.hex()})"


# --- bond_breach --------------------------------------------------------------------------------------

MINIMUM = 100 * TOKEN
STAKE = 1000 * TOKEN
BREACH = STAKE - MINIMUM + 1  # so much leaves one wei less than the minimum


def newest(site, index=LIAR):
    return (list(site.ask("operator_registry", "eligible")), index)


def ask_back(site, amount=BREACH, operator=LIAR, delegator=None):
    account = site.operators[operator].account
    return (delegator or account, "delegation", "requestWithdrawal", account.address, amount)


def add(site, delegator, amount, operator=LIAR):
    site.do(site.admin, "collateral_token", "mint", delegator.address, amount)
    site.do(delegator, "collateral_token", "approve", site.contracts["delegation"], amount)
    site.do(delegator, "delegation", "delegate", site.operators[operator].account.address, amount)


def kept(site, stake):
    return f"BondKept({site.operators[LIAR].account.address}, {stake}, {MINIMUM})"


def test_who_falls_below_the_minimum_while_the_newest_set_holds_it_is_accused(site):
    members, set_hash = newest(site), site.ask("operator_registry", "setHash")
    site.do(*ask_back(site))
    made = accuse(site, "proveBondBreach", *members)
    # Of all that is here, what is leaving too.
    assert made == request(site, BOND_BREACH, set_hash)
    assert made["amount"] == site.ask("delegation", "slashableOf", made["operator"]) // 10
    assert refused(site, "proveBondBreach", *members).startswith("AlreadyRequested")
    site.mine_to(made["vetoDeadline"])
    executed = site.do(site.stranger, "slashing_manager", "execute", made["requestId"])
    assert executed["SlashingExecuted"]["amount"] == STAKE // 10


def test_the_minimum_is_enough(site):
    members = newest(site)
    assert refused(site, "proveBondBreach", *members) == kept(site, STAKE)
    site.do(*ask_back(site, BREACH - 1))
    assert refused(site, "proveBondBreach", *members) == kept(site, MINIMUM)
    site.do(*ask_back(site, 1))
    accuse(site, "proveBondBreach", *members)


def test_who_deregisters_first_is_in_no_breach(site):
    operator, members = site.operators[LIAR].account, newest(site)
    in_one_block(site, (operator, "operator_registry", "deregister"), ask_back(site, STAKE))
    gone = f"HasLeft({operator.address})"
    assert refused(site, "proveBondBreach", *members) == gone
    # Nor is who has come back, whom no set holds yet.
    add(site, operator, MINIMUM)
    registry = site.contracts["operator_registry"]
    new = key_arguments(77, site.chain.chain_id, registry, operator.address)
    site.do(operator, "operator_registry", "register", *new, "eu", 1)
    site.do(*ask_back(site, 1))
    assert site.ask("delegation", "isUnderbonded", operator.address)
    assert refused(site, "proveBondBreach", *members) == gone


def test_another_key_is_no_way_out_of_a_breach(site):
    operator, members = site.operators[LIAR].account, newest(site)
    new = key_arguments(77, site.chain.chain_id, site.contracts["operator_registry"], operator.address)
    site.do(operator, "operator_registry", "rotateKey", *new)
    site.do(*ask_back(site))
    accuse(site, "proveBondBreach", *members)


def test_a_breach_is_mended_by_new_stake_or_a_new_set(site):
    operator, members = site.operators[LIAR].account, newest(site)
    site.do(*ask_back(site, BREACH + 1))
    add(site, operator, 1)
    assert site.ask("delegation", "isUnderbonded", operator.address)
    add(site, operator, 1)
    assert refused(site, "proveBondBreach", *members) == kept(site, MINIMUM)
    site.do(*ask_back(site, 1))
    site.do(site.stranger, "operator_registry", "commitSet")
    assert refused(site, "proveBondBreach", *members).startswith("WrongOperatorSet")
    assert len(newest(site)[0]) == 3
    assert refused(site, "proveBondBreach", newest(site)[0], 3) == "MemberUnknown(3, 3)"


def test_nobody_is_slashed_for_having_been_slashed(site):
    members = newest(site)
    slash(site, LIAR, STAKE - MINIMUM + 1)
    assert refused(site, "proveBondBreach", *members) == kept(site, MINIMUM - 1)
    site.do(*ask_back(site, 1))  # it was below already
    assert refused(site, "proveBondBreach", *members) == kept(site, MINIMUM - 2)


def test_a_breach_stays_one_when_it_is_slashed_further(site):
    members = newest(site)
    site.do(*ask_back(site))
    slash(site, LIAR, TOKEN)
    assert accuse(site, "proveBondBreach", *members)["amount"] == (STAKE - TOKEN) // 10


def test_delegators_who_leave_bring_nobody_below_a_minimum_of_its_own(site):
    operator, members = site.operators[LIAR].account, newest(site)
    site.do(*ask_back(site, BREACH - 1))
    add(site, site.stranger, 5 * TOKEN)
    for amount in (1, 3 * TOKEN):
        site.do(*ask_back(site, amount, delegator=site.stranger))
    rest = site.ask("delegation", "delegatedBy", operator.address, site.stranger.address)
    site.do(*ask_back(site, rest, delegator=site.stranger))
    assert refused(site, "proveBondBreach", *members) == kept(site, MINIMUM)
    # It answers for what it left to them.
    add(site, site.stranger, 5 * TOKEN)
    site.do(*ask_back(site, TOKEN))
    assert refused(site, "proveBondBreach", *members) == kept(site, MINIMUM + 4 * TOKEN)
    site.do(*ask_back(site, 5 * TOKEN, delegator=site.stranger))
    accuse(site, "proveBondBreach", *members)


def test_a_breach_is_about_the_newest_set_and_the_conditions_of_the_network(site):
    members, index = newest(site)
    site.do(*ask_back(site))
    assert refused(site, "proveBondBreach", members[:3], index).startswith("WrongOperatorSet")
    assert refused(site, "proveBondBreach", members, 4) == "MemberUnknown(4, 4)"
    network = site.ask("task_manager", "network")
    site.do(site.admin, "network_registry", "allowCondition", network, BOND_BREACH, False)
    assert refused(site, "proveBondBreach", members, index).startswith("ConditionNotAllowed")

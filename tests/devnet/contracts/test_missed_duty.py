"""SlashingManager.proveMissedDuty: which misses add up to an offence, and who has missed nothing."""

from __future__ import annotations

import pytest

from devnet.deploy import (
    MISSED_DUTY,
    TASK_TYPE,
    TOKEN,
    g1_argument,
    key_arguments,
)
from nektar.evidence import bls
from tests.devnet.contracts.conftest import (
    LIAR,
    TERMS,
    Task,
    accuse,
    add,
    in_one_block,
    refused,
    request,
)
from tests.devnet.contracts.test_proofs import RIGHT, WRONG, respond

pytestmark = pytest.mark.real

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

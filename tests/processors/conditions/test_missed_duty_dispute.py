"""Missed duties of a real chain, and what the real slashing contract says to their proofs."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from devnet.chain import Reverted
from devnet.deploy import MISSED_DUTY, key_arguments
from nektar.evidence.bundle import Bundle, EventClaim, StateClaim, read, write
from nektar.evidence.verify import NotProved, verify
from nektar.model import (
    MissCounted,
)
from nektar.rows import Finding
from processors.conditions.condition import Condition
from processors.conditions.missed_duty import MissedDuty
from tests.devnet.contracts.conftest import TERMS, Site, on_anvil
from tests.nektar.evidence.silent import Silent
from tests.processors.real_chain import ADAPTER, found, gathered, log, network, reader

pytestmark = pytest.mark.real
CONDITION = MissedDuty()
RIGHT, WRONG = (7, 13), (13, 7)
IDLE, LATE, CENSORED, HONEST = range(4)
ENOUGH = TERMS.miss_allowance + 1

LONG = msgspec.structs.replace(TERMS, slashing_window=2000, max_set_age=2000, bonding_period=4061)


def accused(site: Site, i: int) -> bytes:
    return bytes.fromhex(site.operators[i].account.address[2:])


def said(site: Site, calldata: bytes, block: int | None = None) -> str:
    """Why the contract refuses this proof at the end of a block; empty where it accepts it."""
    call_ = {"to": site.contracts["slashing_manager"], "data": "0x" + calldata.hex(), "gas": hex(10**9)}
    try:
        site.chain.rpc("eth_call", call_, "latest" if block is None else hex(block))
    except Reverted as error:
        return site.error(error.data)
    return ""


def disputed(site: Site, bundle: Bundle) -> bytes:
    dispute = CONDITION.dispute(bundle)
    assert dispute is not None
    assert dispute.contract == "slashing_manager"
    return dispute.calldata


# --- one finding, all through -----------------------------------------------------------------------

site = pytest.fixture(scope="module", name="site")(on_anvil)


@pytest.fixture(scope="module")
def finding(site: Site) -> Finding:
    """Operator 0 misses three Tasks: one without a response, one with a response, and one with a response
    that is refuted, of a newer set in which its key is another. Operator 1 attests in the last block of each
    grace; 2 is left out of a quorum and attests; 3 is in the quorums and attests once."""
    tasks = [site.submit(window=14, grace=2), site.submit(window=14, grace=2)]
    site.do(site.stranger, "task_manager", "respond", *site.response(tasks[1], RIGHT, [LATE, HONEST]))
    operator, registry = site.operators[IDLE].account, site.contracts["operator_registry"]
    key = key_arguments(77, site.chain.chain_id, registry, operator.address)
    site.do(operator, "operator_registry", "rotateKey", *key)
    site.do(site.stranger, "operator_registry", "commitSet")
    tasks.append(site.submit(window=14, grace=2))
    site.do(site.stranger, "task_manager", "respond", *site.response(tasks[2], WRONG, [LATE, HONEST]))
    site.do(site.stranger, "task_manager", "challenge", tasks[2].fields, WRONG, 7)
    for task in tasks:
        site.attest(CENSORED, task, RIGHT)
    site.attest(HONEST, tasks[0], RIGHT)
    for task in tasks:
        if task is not tasks[1]:
            site.mine_to(task.end - 1)
            assert site.attest(LATE, task, RIGHT)["Attested"]["late"]
    (only,) = found(site, CONDITION)
    assert (only.block_number, only.task_hash) == (tasks[-1].end, tasks[-1].hash)
    return only


@pytest.fixture(scope="module")
def bundle(site: Site, finding: Finding) -> Bundle:
    site.chain.mine(3)  # the state is that of the finding's block
    return gathered(site, CONDITION, finding)


def test_who_gave_nothing_is_found_and_who_was_framed_or_late_is_not(site: Site, finding: Finding) -> None:
    assert finding.operator == accused(site, IDLE)
    assert finding.level == "proved"


def test_its_bundle_is_verified(site: Site, finding: Finding, bundle: Bundle) -> None:
    assert read(write(bundle)) == bundle
    verdict = verify(bundle, reader(site), lambda name: CONDITION.holds)
    assert (verdict.id, verdict.accused.operator) == (finding.id, finding.operator)
    assert finding.block_number == verdict.canonical[-1].number
    assert len(bundle.sets) == 2


def test_the_contract_accepts_the_dispute_from_the_block_after_on(
    site: Site, finding: Finding, bundle: Bundle
) -> None:
    calldata, first = disputed(site, bundle), finding.block_number + 1
    assert said(site, calldata, first) == ""
    assert said(site, calldata, first - 1) == f"GraceNotPassed({first - 1})"
    named = ("requestIdOf", MISSED_DUTY, finding.task_hash, "0x" + finding.operator.hex())
    got = site.chain.call(site.contracts["slashing_manager"], calldata)
    assert got == site.ask("slashing_manager", *named)


def test_the_contract_refuses_an_altered_dispute(site: Site, bundle: Bundle) -> None:
    replace = msgspec.structs.replace
    events = [claim for claim in bundle.claims if isinstance(claim, EventClaim)]
    for claims, operator, error in (
        (events[:-2], bundle.operator, "WrongNumberOfMisses"),
        ([*events[1:], events[0]], bundle.operator, "MissesUnsorted"),
        ([events[0], events[1], events[3]], bundle.operator, "WrongRecord"),  # without a response
        (events, accused(site, LATE), "DutyDone"),
        (events, accused(site, HONEST), "DutyDone"),
    ):
        altered = replace(bundle, claims=tuple(claims), operator=type(bundle.operator)(operator))
        assert said(site, disputed(site, altered)).startswith(error)


def test_no_claim_and_no_variable_can_be_left_out(site: Site, bundle: Bundle) -> None:
    replace = msgspec.structs.replace
    claims = bundle.claims
    fewer = [
        (
            *claims[:i],
            replace(claim, variables=(*claim.variables[:j], *claim.variables[j + 1 :])),
            *claims[i + 1 :],
        )
        for i, claim in enumerate(claims)
        if isinstance(claim, StateClaim)
        for j, variable in enumerate(claim.variables)
        if claim.variables.count(variable) == 1  # no pause follows any Task, so that is shown for all
    ]
    assert len(fewer) >= 12
    for altered in ([(*claims[:i], *claims[i + 1 :]) for i in range(len(claims))]) + fewer:
        with pytest.raises(NotProved):
            verify(replace(bundle, claims=altered), reader(site), lambda name: CONDITION.holds)
    for terms in ({"miss_allowance": 3}, {"miss_window": 5}):
        other = replace(reader(site), terms={**reader(site).terms, **terms})
        with pytest.raises(NotProved):
            verify(bundle, other, lambda name: CONDITION.holds)
    assert sum(isinstance(claim, StateClaim) for claim in claims) == 2


def test_a_dispute_that_is_sent_counts_the_misses(site: Site, bundle: Bundle, finding: Finding) -> None:
    sent = site.chain.send(site.stranger, site.contracts["slashing_manager"], disputed(site, bundle))
    site.chain.mine()
    names = [site.read(each)[0] for each in site.chain.receipt(sent)["logs"]]
    assert names == ["MissCounted"] * ENOUGH + ["WithdrawalsFrozen", "SlashingRequested"]
    record = log(site)
    told = [e for e in ADAPTER.events(network(site), record.tables) if isinstance(e, MissCounted)]
    assert {each.operator for each in told} == {finding.operator}
    assert len(told) == ENOUGH
    assert found(site, CONDITION) == [finding]
    assert said(site, disputed(site, bundle)).startswith("MissAlreadyCounted")


# --- its size ---------------------------------------------------------------------------------------


def test_over_a_hundred_blocks_of_attestations_it_stays_small_and_quick() -> None:
    """In most blocks somebody attests for a Task that the accused misses, and the accused for another: their
    blooms hold all that its attestation would leave there, and an absence needs their receipts."""
    terms = msgspec.structs.replace(LONG, max_duration=200, bonding_period=4201, miss_window=60)
    with site_of(terms, operators=7) as site:
        tasks = [site.submit(window=92, grace=8)]
        busy = [site.submit(window=120, grace=0) for _ in range(10)]
        tasks += [site.submit(window=80, grace=8), site.submit(window=60, grace=6)]
        rng = random.Random("size")
        while site.head < tasks[0].end - 1:
            missed = [task for task in tasks if task.end > site.head]
            who = rng.sample(range(1, 7), 3)
            if rng.random() < 0.8:
                send(site, 0, rng.choice(busy))
                send(site, who[0], rng.choice(missed))
            for operator in who[1:]:
                send(site, operator, rng.choice([*busy, *missed]))
            site.chain.mine()
        site.mine_to(tasks[0].end + 1)
        (finding,) = found(site, CONDITION)
        assert finding.operator == accused(site, 0)
        bundle = gathered(site, CONDITION, finding)
        assert len(bundle.blocks) <= 4
        assert len(judged(site, CONDITION, bundle)) < 60_000
        assert said(site, disputed(site, bundle)) == ""
        (silence,) = (
            each
            for each in found(site, Silent())
            if (each.operator, each.task_hash) == (accused(site, 0), tasks[0].hash)
        )
        bundle = gathered(site, Silent(), silence)
        assert len(bundle.blocks) >= 100
        assert sum(part.receipts is not None for part in bundle.blocks) > 20
        assert len(judged(site, Silent(), bundle)) < 1_000_000


def test_over_many_blocks_it_is_as_small_as_over_few() -> None:
    terms = msgspec.structs.replace(LONG, max_duration=1_000, max_set_age=1_000, bonding_period=4_001)
    with site_of(terms) as site:
        for window in (2, 600):
            before = {each.id for each in found(site, CONDITION)}
            tasks = [site.submit(window=window, grace=2) for _ in range(ENOUGH)]
            site.mine_to(tasks[-1].end + 1)
            finding = next(each for each in found(site, CONDITION) if each.id not in before)
            bundle = gathered(site, CONDITION, finding)
            assert len(bundle.blocks) == ENOUGH + 1
            assert len(judged(site, CONDITION, bundle)) < 60_000
            assert said(site, disputed(site, bundle)) == ""


def judged(site: Site, condition: Condition, bundle: Bundle) -> bytes:
    """The bundle's text, which is verified in less than a second."""
    text = write(bundle)
    began = time.perf_counter()
    verify(read(text), reader(site), lambda name: condition.holds)
    assert time.perf_counter() - began < 1
    return text


def send(site: Site, operator: int, task: Any) -> None:
    signature = site.sign(operator, task, RIGHT)
    data = site.abis["task_manager"].encode("attest", task.fields, RIGHT, task.members, operator, signature)
    site.chain.send(site.operators[operator].account, site.contracts["task_manager"], data)


@contextmanager
def site_of(terms: Any, operators: int = 4) -> Iterator[Site]:
    yield from on_anvil(terms, operators)

"""Wrong responses on a real chain, and what the real contracts say to their proofs and challenges."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import pytest
from eth_hash.auto import keccak

from devnet.chain import Reverted
from nektar.evidence.bundle import AggregateClaim, Bundle, SignatureClaim, read, write
from nektar.evidence.canonical import Octets
from nektar.evidence.verify import NotProved, verify
from nektar.networks.encoding import encode_answer, word
from nektar.rows import Finding
from processors.conditions.condition import Dispute
from processors.conditions.invalid_response import InvalidResponse
from tests.devnet.contracts.conftest import Refused, Site, Task, on_anvil
from tests.processors.real_chain import found, gathered, reader

pytestmark = pytest.mark.real
CONDITION = InvalidResponse()
RIGHT, SWAPPED, WHOLE, ABSURD = (7, 13), (13, 7), (91, 1), (2, 3)


site = pytest.fixture(scope="module", name="site")(on_anvil)


class Seen(NamedTuple):
    """What Operators did, and what was found of it."""

    alone: Task
    together: Task
    findings: list[Finding]

    def of(self, task: Task) -> dict[bytes, Finding]:
        return {each.operator: each for each in self.findings if each.task_hash == task.hash}


@pytest.fixture(scope="module")
def seen(site: Site) -> Seen:
    """To one Task, Operators 0 and 1 signed wrong responses alone, 1 too late; 2 and 3 the right one. To
    another, a quorum of 1 and 3 signed a wrong one, 0 and 2 the right one. The latter is the chain's end."""
    alone = site.submit(n=91)
    for operator, answer in ((0, ABSURD), (0, SWAPPED), (2, RIGHT), (3, RIGHT)):
        site.attest(operator, alone, answer)
    site.mine_to(alone.end)
    with pytest.raises(Refused, match="GracePassed"):
        site.attest(1, alone, WHOLE)
    together = site.submit(n=91)
    site.attest(0, together, RIGHT)
    site.attest(2, together, RIGHT)
    site.do(site.stranger, "task_manager", "respond", *site.response(together, SWAPPED, [1, 3]))
    return Seen(alone, together, found(site, CONDITION))


def address(site: Site, operator: int) -> bytes:
    return bytes.fromhex(site.operators[operator].account.address[2:])


def called(site: Site, call: Dispute | None, block: int | None = None) -> bytes:
    """What the contract returns as of this block. Raises Refused."""
    assert call is not None
    asked = {"to": site.contracts[call.contract], "data": "0x" + call.calldata.hex()}
    try:
        said: str = site.chain.rpc("eth_call", asked, hex(block) if block else "latest")
    except Reverted as error:
        raise Refused(site.error(error.data)) from error
    return bytes.fromhex(said[2:])


def refused(site: Site, call: Dispute | None, block: int | None = None) -> str:
    with pytest.raises(Refused) as error:
        called(site, call, block)
    return str(error.value)


def request(site: Site, finding: Finding) -> Any:
    named = (keccak(b"invalid_response"), finding.task_hash, "0x" + finding.operator.hex())
    return site.ask("slashing_manager", "requestIdOf", *named)


def test_who_signed_a_wrong_response_is_found_and_nobody_else(site: Site, seen: Seen) -> None:
    assert set(seen.of(seen.alone)) == {address(site, 0), address(site, 1)}
    assert set(seen.of(seen.together)) == {address(site, 1), address(site, 3)}
    claim = CONDITION.claims(seen.of(seen.alone)[address(site, 0)]).whole[0]
    assert claim.response == encode_answer(*ABSURD)  # type: ignore[union-attr]


def test_each_bundle_is_verified_and_the_contract_accepts_its_dispute(site: Site, seen: Seen) -> None:
    assert len(seen.findings) == 4
    for finding in seen.findings:
        bundle = gathered(site, CONDITION, finding)
        assert read(write(bundle)) == bundle
        verdict = verify(bundle, reader(site), lambda name: CONDITION.holds)
        assert (verdict.id, verdict.accused.operator) == (finding.id, finding.operator)
        assert max(each.number for each in verdict.canonical) <= finding.block_number
        assert called(site, CONDITION.dispute(bundle), site.head) == request(site, finding)


def test_an_altered_bundle_is_refused_and_so_is_its_dispute(site: Site, seen: Seen) -> None:
    replace = msgspec.structs.replace

    def altered(bundle: Bundle, **by_kind: dict[str, Any]) -> Bundle:
        claims = tuple(replace(claim, **by_kind.get(type(claim).__name__, {})) for claim in bundle.claims)
        return replace(bundle, claims=claims)

    right = Octets(encode_answer(*RIGHT))
    alone = gathered(site, CONDITION, seen.of(seen.alone)[address(site, 1)])
    together = gathered(site, CONDITION, seen.of(seen.together)[address(site, 3)])
    for bundle, error in (
        (altered(alone, RefutationClaim={"divisor": Octets(word(13))}), ""),  # refutes as well as 7
        (altered(alone, RefutationClaim={"divisor": Octets(word(5))}), "AnswerNotRefuted(5)"),
        (altered(alone, RefutationClaim={"divisor": Octets(word(0))}), "AnswerNotRefuted(0)"),
        (altered(alone, SignatureClaim={"response": right}), "AnswerNotRefuted"),
        (altered(alone, SignatureClaim={"index": 2}), "SignatureInvalid"),
        (altered(alone, SignatureClaim={"index": 9}), "MemberUnknown"),
        (altered(together, RefutationClaim={"divisor": Octets(word(0))}), "AnswerNotRefuted(0)"),
        (altered(together, AggregateClaim={"response": right}), "AnswerNotRefuted"),
        (altered(together, AggregateClaim={"non_signers": (0,)}), "WrongRecord"),
        (replace(together, operator=Octets(address(site, 2))), "NotSigner(2)"),
    ):
        if not error:
            verify(bundle, reader(site), lambda name: CONDITION.holds)
            called(site, CONDITION.dispute(bundle), site.head)
            continue
        assert error in refused(site, CONDITION.dispute(bundle), site.head)
        with pytest.raises(NotProved):
            verify(bundle, reader(site), lambda name: CONDITION.holds)
    assert {type(claim) for claim in (*alone.claims, *together.claims)} >= {SignatureClaim, AggregateClaim}


def test_a_challenge_overturns_the_accepted_response_and_its_signers_can_still_be_disputed(
    site: Site, seen: Seen
) -> None:
    bundles = {each.operator: gathered(site, CONDITION, each) for each in seen.of(seen.together).values()}
    other = gathered(site, CONDITION, seen.of(seen.alone)[address(site, 0)])
    assert "WrongState" in refused(site, CONDITION.challenge(other))  # nothing was accepted
    challenge = CONDITION.challenge(bundles[address(site, 1)])
    assert challenge is not None
    assert challenge.contract == "task_manager"
    assert called(site, challenge) == b""
    site.chain.send(site.stranger, site.contracts["task_manager"], challenge.calldata)
    site.chain.mine()
    assert "WrongState" in refused(site, CONDITION.challenge(bundles[address(site, 3)]))  # it is overturned
    assert found(site, CONDITION) == seen.findings
    for finding in seen.of(seen.together).values():
        assert called(site, CONDITION.dispute(bundles[finding.operator])) == request(site, finding)
    accepted = CONDITION.dispute(bundles[address(site, 3)])
    assert accepted is not None
    site.chain.send(site.stranger, site.contracts[accepted.contract], accepted.calldata)
    site.chain.mine()
    assert "AlreadyRequested" in refused(site, accepted)


def test_a_challenge_comes_too_late_once_its_window_is_over(site: Site, seen: Seen) -> None:
    task = site.submit(n=15)
    site.do(site.stranger, "task_manager", "respond", *site.response(task, (5, 3), [1, 3]))
    at = site.head
    finding = next(each for each in found(site, CONDITION) if each.task_hash == task.hash)
    challenge = CONDITION.challenge(gathered(site, CONDITION, finding))
    site.mine_to(at + 10)
    assert "ChallengeWindowPassed" in refused(site, challenge)

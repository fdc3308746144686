"""What happens on other Networks' chains, at random; and what who makes it knows of it."""

from __future__ import annotations

import random
from typing import Any

from eth_abi.abi import encode
from eth_hash.auto import keccak

from nektar.model import Address, Hash32, Network
from tests.nektar.foreign.chain import Chain
from tests.nektar.foreign.eigenlayer import CERTIFICATE, numbered_task
from tests.nektar.foreign.verdicts import WAD

OURS, OTHERS = (Address(bytes([c]) * 20) for c in (0x0A, 0x0B))  # two AVSs, or networks
CORE, KEYS, MAILBOX, APKS, STAKES, MANAGER, SECOND, SLASHER = (Address(bytes([c]) * 20) for c in range(1, 9))
OPERATORS = [Address(bytes([c]) * 20) for c in range(0xE0, 0xE6)]
STRATEGY = Address(b"\x57" * 20)
WINDOW, VETO_PERIOD = 4, 36
# What a response comes with, where it does not matter.
NOTHING: dict[str, Any] = {
    **{"nonSignerPubkeys": [], "apkG2": {"X": [1, 2], "Y": [3, 4]}, "sigma": {"X": 5, "Y": 6}},
    **{"nonSignerQuorumBitmapIndices": [], "quorumApks": [], "quorumApkIndices": []},
    **{"totalStakeIndices": [], "nonSignerStakeIndices": []},
}

AVS = Network(
    "avs",
    31337,
    {
        **{"allocation_manager": CORE, "key_registrar": KEYS, "task_mailbox": MAILBOX},
        **{"apk_registry": APKS, "stake_registry": STAKES, "slasher": SLASHER},
        **{"task_manager/squares": MANAGER, "task_manager/cubes": SECOND},
    },
    selector={"avs": "0x" + OURS.hex()},
    terms={"response_window": WINDOW, "veto_period": VETO_PERIOD},
)


def eigenlayer() -> Chain:
    return Chain("eigenlayer", {address: name.partition("/")[0] for name, address in AVS.contracts.items()})


# --- duties -----------------------------------------------------------------------------------------


class Truth:
    """What who makes the chain knows of its duties."""

    def __init__(self) -> None:
        self.duties: dict[tuple[Hash32, Address], str] = {}
        self.reached: dict[Hash32, bool] = {}
        self.challenged: set[Hash32] = set()


def squares(rng: random.Random, chain: Chain, truth: Truth) -> None:
    """Two quorums whose members come and go; tasks of two contracts, some answered through a third."""
    points = {op: {"X": 1000 + i, "Y": 2000 + i} for i, op in enumerate(OPERATORS)}
    ids = {op: keccak(encode(["uint256", "uint256"], [*p.values()])) for op, p in points.items()}
    for operator in OPERATORS:
        twin = {"X": [1, 2], "Y": [3, 4]}
        chain.emit(APKS, "NewPubkeyRegistration", operator=operator, pubkeyG1=points[operator], pubkeyG2=twin)
    chain.mine()
    members: dict[int, dict[Address, int]] = {0: {}, 1: {}}
    open_: list[tuple[int, Address, int, bytes, dict[int, dict[Address, int]], int]] = []
    counts = {MANAGER: 0, SECOND: 0}
    for _ in range(40):
        created = []
        for _ in range(rng.randrange(3)):
            quorum, operator = rng.randrange(2), rng.choice(OPERATORS)
            about = {"operator": operator, "operatorId": ids[operator], "quorumNumbers": bytes([quorum])}
            if operator in members[quorum] and rng.random() < 0.4:
                chain.emit(APKS, "OperatorRemovedFromQuorums", **about)
                stake = 0
                del members[quorum][operator]
            else:
                if operator not in members[quorum]:
                    chain.emit(APKS, "OperatorAddedToQuorums", **about)
                stake = members[quorum][operator] = rng.randrange(1, 100)
            chain.emit(
                *(STAKES, "OperatorStakeUpdate"),
                **{"operatorId": ids[operator], "quorumNumber": quorum, "stake": stake},
            )
        if rng.random() < 0.5:
            quorums = rng.choice([b"\0", b"\1", b"\0\1"])
            manager, percent = rng.choice([MANAGER, SECOND]), rng.choice([30, 60])
            task = {"numberToBeSquared": 7, "taskCreatedBlock": chain.number, "quorumNumbers": quorums}
            task["quorumThresholdPercentage"] = percent
            chain.emit(manager, "NewTaskCreated", taskIndex=counts[manager], task=task)
            created.append((manager, counts[manager], task))
            counts[manager] += 1
        if open_ and rng.random() < 0.6:
            _answer(rng, chain, truth, points, open_.pop(rng.randrange(len(open_))))
        for manager, number, task in created:
            # Members are those at the end of the block, whatever came after the task in it.
            held = {q: dict(members[q]) for q in task["quorumNumbers"]}
            task_hash = numbered_task(AVS, manager, number)
            truth.duties |= {(task_hash, operator): "missed" for of in held.values() for operator in of}
            open_.append((chain.number, manager, number, task, held, task["quorumThresholdPercentage"]))
        chain.mine()


def _answer(
    rng: random.Random, chain: Chain, truth: Truth, points: dict[Address, Any], about: tuple[Any, ...]
) -> None:
    block, manager, number, task, held, percent = about
    everyone = {operator for of in held.values() for operator in of}
    signers = {operator for operator in everyone if rng.random() < 0.6}
    response = {"referenceTaskIndex": number, "numberSquared": 49}
    missing = [points[operator] for operator in sorted(everyone - signers)]
    certificate = {
        "nonSignerPubkeys": missing,
        "apkG2": {"X": [1, 2], "Y": [3, 4]},
        "sigma": {"X": 5, "Y": 6},
    }
    lists = ("nonSignerQuorumBitmapIndices", "quorumApks", "quorumApkIndices", "totalStakeIndices")
    certificate |= {name: [] for name in (*lists, "nonSignerStakeIndices")}
    direct = rng.random() < 0.8
    if direct:
        told = {"task": task, "taskResponse": response, "nonSignerStakesAndSignature": certificate}
        chain.call(manager, "respondToTask", **told)
    else:
        chain.elsewhere()
    metadata = {"taskRespondedBlock": chain.number, "hashOfNonSigners": bytes(32)}
    chain.emit(manager, "TaskResponded", taskResponse=response, taskResponseMetadata=metadata)
    if chain.number > block + WINDOW:
        return
    task_hash = numbered_task(AVS, manager, number)
    for operator in everyone:
        state = "unknown" if not direct else "signed" if operator in signers else "missed"
        truth.duties[task_hash, operator] = state
    if direct:
        stakes = [(sum(of.values()), sum(n for op, n in of.items() if op in signers)) for of in held.values()]
        truth.reached[task_hash] = all(signed * 100 >= total * percent for total, signed in stakes)
    if rng.random() < 0.3:
        chain.emit(manager, "TaskChallengedSuccessfully", taskIndex=number, challenger=OPERATORS[0])
        truth.challenged.add(task_hash)


def mailbox(rng: random.Random, chain: Chain, truth: Truth) -> None:
    """A set whose members come and go, with tasks that take it as it stood at a time; others' beside it."""
    table: list[Address] = []  # as the contracts keep it: the last takes the place of one that leaves
    tables: list[tuple[int, list[Address]]] = []
    open_: list[tuple[bytes, list[Address], int]] = []
    for operator in OPERATORS[:5]:  # the last never brings a key
        registered = {"operatorSet": {"avs": OURS, "id": 3}, "operator": operator, "curveType": 2}
        chain.emit(KEYS, "KeyRegistered", **registered, pubkey=bytes([operator[0]]) * 192)
    chain.mine()
    for number in range(40):
        operator = rng.choice(OPERATORS)
        change = "Removed" if operator in table and rng.random() < 0.5 else "Added"
        if (change == "Removed") is (operator in table):
            event = "OperatorRemovedFromOperatorSet" if operator in table else "OperatorAddedToOperatorSet"
            chain.emit(CORE, event, operator=operator, operatorSet={"avs": OURS, "id": 3})
            if operator in table:
                table[table.index(operator)] = table[-1]
                table.pop()
            else:
                table.append(operator)
        # Another AVS's set of the same number, and another of ours.
        for avs, set_id in ((OTHERS, 3), (OURS, 4)):
            chain.emit(
                *(CORE, "OperatorAddedToOperatorSet"),
                **{
                    "operator": Address(number.to_bytes(20, "big")),
                    "operatorSet": {"avs": avs, "id": set_id},
                },
            )
        tables.append((chain.time, list(table)))
        if rng.random() < 0.5:
            when, members = rng.choice(tables)
            members = [each for each in members if each in OPERATORS[:5]]
            deadline, task_hash = chain.time + rng.randrange(200), keccak(b"task" + bytes([number]))
            for avs, hash_ in ((OURS, task_hash), (OTHERS, keccak(task_hash))):
                chain.emit(
                    *(MAILBOX, "TaskCreated"),
                    **{"creator": OURS, "taskHash": hash_, "avs": avs, "executorOperatorSetId": 3},
                    **{"operatorTableReferenceTimestamp": when + rng.randrange(12), "avsFee": 0},
                    **{"refundCollector": OURS, "taskDeadline": deadline, "payload": b"?"},
                )
            truth.duties |= {(Hash32(task_hash), each): "missed" for each in members}
            open_.append((task_hash, members, deadline))
        elif open_ and rng.random() < 0.7:
            task_hash, members, deadline = open_.pop(rng.randrange(len(open_)))
            missing = [place for place in range(len(members)) if rng.random() < 0.4]
            witnesses = [(place, b"", ((0, 0), [])) for place in missing]
            certificate = (0, bytes(32), (1, 2), ((1, 2), (3, 4)), witnesses)
            chain.emit(
                *(MAILBOX, "TaskVerified"),
                **{"aggregator": OURS, "taskHash": task_hash, "avs": OURS, "executorOperatorSetId": 3},
                **{"executorCert": encode([CERTIFICATE], [certificate]), "result": b"!"},
            )
            if chain.time <= deadline:
                signers = {m for place, m in enumerate(members) if place not in missing}
                truth.duties |= {(Hash32(task_hash), each): "signed" for each in signers}
        chain.mine()


# --- slashings --------------------------------------------------------------------------------------


def avs_slashings(rng: random.Random, chain: Chain) -> list[tuple[int, frozenset[str]]]:
    """Requests, vetoes and executions, by contracts that mind no rule; and another AVS's slashings."""
    truth: list[tuple[int, frozenset[str]]] = []
    ours, others = {"avs": OURS, "id": 1}, {"avs": OTHERS, "id": 1}
    magnitudes = dict.fromkeys(OPERATORS[:3], WAD)
    requests: dict[Address, tuple[int, int, int]] = {}  # (number, wad, end of the veto period)
    vetoed: set[int] = set()

    def allocated(operator: Address) -> None:
        told = {"operator": operator, "operatorSet": ours, "strategy": STRATEGY}
        chain.emit(
            CORE, "AllocationUpdated", **told, magnitude=magnitudes[operator], effectBlock=chain.number
        )

    for operator in magnitudes:
        allocated(operator)
    chain.mine()
    count = 0
    for _ in range(60):
        operator = rng.choice([*magnitudes])
        chain.elsewhere()
        request = requests.get(operator)
        match rng.randrange(4):
            case 0 if request is None or request[0] in vetoed:
                wad = rng.randrange(1, WAD)
                told = {"operator": operator, "operatorSetId": 1, "wadsToSlash": [wad], "description": "why"}
                chain.emit(SLASHER, "SlashingRequested", rng.randrange(2), requestId=count, **told)
                requests[operator] = (count, wad, chain.time + VETO_PERIOD)
                count += 1
            case 1 if request is not None and rng.random() < 0.5:
                chain.emit(SLASHER, "SlashingRequestCancelled", requestId=request[0])
                vetoed.add(request[0])
            case 2:
                wrongs = {"unrequested"} if request is None else set()
                wad = request[1] if request else WAD // 2
                before = magnitudes[operator]
                taken = -(-before * wad // WAD)
                if request is not None and rng.random() < 0.3 and taken + 1 <= before:
                    taken += 1
                    wrongs.add("more")
                magnitudes[operator] = before - taken
                allocated(operator)
                told = {"strategies": [STRATEGY], "wadSlashed": [taken], "description": "why"}
                chain.emit(CORE, "OperatorSlashed", operator=operator, operatorSet=ours, **told)
                if request is not None:
                    wrongs |= {"vetoed"} if request[0] in vetoed else set()
                    wrongs |= {"early"} if chain.time < request[2] else set()
                    del requests[operator]
                truth.append((chain.number, frozenset(wrongs)))
            case 3:
                told = {"strategies": [STRATEGY], "wadSlashed": [WAD], "description": ""}
                chain.emit(CORE, "OperatorSlashed", operator=operator, operatorSet=others, **told)
        chain.mine()
    return truth


VAULTS = {"veto_slasher/a": CORE, "veto_slasher/b": KEYS, "slasher": SLASHER}
SUBNETWORKS = [avs + number.to_bytes(12, "big") for avs, number in ((OURS, 0), (OURS, 1), (OTHERS, 0))]
NETWORK = Network("network", 31337, VAULTS, selector={"subnetwork": "0x" + SUBNETWORKS[0].hex()})


def vaults() -> Chain:
    return Chain("symbiotic", {address: name.partition("/")[0] for name, address in VAULTS.items()})


def vault_slashings(rng: random.Random, chain: Chain) -> list[tuple[int, frozenset[str]]]:
    """Two vaults' requests, counted by each for all subnetworks together, and slashings without a request."""
    truth: list[tuple[int, frozenset[str]]] = []
    requests: list[tuple[Address, int, bytes, Address, int, int, int]] = []
    counts = {CORE: 0, KEYS: 0}
    vetoed, executed = set(), dict[tuple[Address, Address], int]()
    for _ in range(80):
        slasher, subnetwork = rng.choice([CORE, KEYS]), rng.choice(SUBNETWORKS)
        operator = rng.choice(OPERATORS[:2])
        match rng.randrange(5):
            case 0 | 1:
                amount, captured = rng.randrange(1, 10**20), chain.time - rng.randrange(1, 100)
                told = {"subnetwork": subnetwork, "operator": operator, "captureTimestamp": captured}
                ends = chain.time + VETO_PERIOD
                told |= {"slashAmount": amount, "vetoDeadline": ends}
                chain.emit(slasher, "RequestSlash", slashIndex=counts[slasher], **told)
                number = counts[slasher]
                requests.append((slasher, number, subnetwork, operator, amount, captured, ends))
                counts[slasher] += 1
            case 2 if requests:
                slasher, number, *_ = rng.choice(requests)
                chain.emit(slasher, "VetoSlash", slashIndex=number, resolver=OTHERS)
                vetoed.add((slasher, number))
            case 3 if requests:
                request = requests.pop(rng.randrange(len(requests)))
                slasher, number, subnetwork, operator, amount, captured, ends = request
                taken = amount + rng.choice([0, 0, -1, 1])
                chain.emit(slasher, "ExecuteSlash", slashIndex=number, slashedAmount=taken)
                if subnetwork == SUBNETWORKS[0]:
                    wrongs = {"vetoed"} if (slasher, number) in vetoed else set()
                    wrongs |= {"early"} if chain.time < ends else set()
                    wrongs |= {"more"} if taken > amount else set()
                    wrongs |= {"void"} if captured < executed.get((slasher, operator), 0) else set()
                    executed[slasher, operator] = max(captured, executed.get((slasher, operator), 0))
                    truth.append((chain.number, frozenset(wrongs)))
            case 4:
                told = {"subnetwork": subnetwork, "operator": operator, "captureTimestamp": chain.time - 5}
                chain.emit(SLASHER, "Slash", **told, slashedAmount=7)
                if subnetwork == SUBNETWORKS[0]:
                    truth.append((chain.number, frozenset({"unrequested"})))
        chain.mine()
    return truth

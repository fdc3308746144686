"""The model is wide enough for EigenLayer and Symbiotic: docs/MODEL.md says where each thing would stand,
and toy adapters show that verdicts from the model's events alone are those of who made the chain."""

from __future__ import annotations

import random
import re
import typing
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from nektar import model
from nektar.model import ChainEvent, Moment, Network, OperatorAdded, SlashingRequested
from nektar.networks.adapter import Adapter
from tests.nektar.foreign.chain import ABIS, Chain
from tests.nektar.foreign.eigenlayer import EigenLayer, set_key
from tests.nektar.foreign.scenes import (
    AVS,
    CORE,
    MANAGER,
    NETWORK,
    NOTHING,
    OPERATORS,
    OTHERS,
    OURS,
    SLASHER,
    STRATEGY,
    Truth,
    avs_slashings,
    eigenlayer,
    mailbox,
    squares,
    vault_slashings,
    vaults,
)
from tests.nektar.foreign.symbiotic import Symbiotic
from tests.nektar.foreign.verdicts import Judge


def judged(chain: Chain, network: Network, adapter: Adapter) -> Judge:
    record = chain.record()
    events = [event for _, tables in record for event in adapter.events(network, tables)]
    return Judge([block for block, _ in record], events)


# --- the page ---------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "MODEL.md").read_text("utf-8")
ROW = re.compile(r"^\| (?:`(\w+)` → `(\w+)`)? *\| `([\w.]+)` \| (?:`([\w.]+)`|—) \| (.*)\|$", re.MULTILINE)
STRUCTS: dict[str, Any] = {each.__name__: each for each in get_args(ChainEvent)} | {"Task": model.Task}


def rows() -> list[tuple[str, str, str, str, str]]:
    """(event, struct, argument, field or nothing, how) of every row of the page's tables."""
    found, event, struct = [], "", ""
    for row in ROW.finditer(PAGE):
        event, struct = row[1] or event, row[2] or struct
        found.append((event, struct, row[3], row[4] or "", row[5].strip()))
    return found


def fields(struct: Any) -> set[str]:
    """The fields of a struct, and of the structs that these hold after a dot."""
    found = set()
    for name, hint in typing.get_type_hints(struct).items():
        found.add(name)
        for each in (hint, *get_args(hint)):
            if isinstance(each, type) and issubclass(each, msgspec.Struct):
                found |= {f"{name}.{below}" for below in fields(each)}
    return found


def arguments(parameters: list[dict[str, Any]], within: str = "") -> set[str]:
    """The arguments of an event by name, those of structs after a dot."""
    found = set()
    for each in parameters:
        components = each.get("components")
        name = within + each["name"]
        # Points and operator sets are one thing each; all else that holds several is told part by part.
        if components and not {"X", "avs"} & {part["name"] for part in components}:
            found |= arguments(components, name + ".")
        else:
            found.add(name)
    return found


def test_the_page_says_of_every_argument_where_it_stands() -> None:
    told: dict[str, set[str]] = {}
    for event, _, argument, _, _ in rows():
        told.setdefault(event, set()).add(argument)
    for contracts in ABIS.values():
        for abi in contracts.values():
            for entry in abi:
                if entry["type"] == "event":
                    assert told.get(entry["name"]) == arguments(entry["inputs"]), entry["name"]


def test_the_page_names_what_the_model_has() -> None:
    known = {name: fields(struct) for name, struct in STRUCTS.items()}
    for event, struct, argument, field, how in rows():
        assert struct in known, f"{event} → {struct}"
        assert field in known[struct] if field else how, f"{event}.{argument} → {struct}.{field}"


# --- duties -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_duties_of_tasks_with_several_quorums_are_told_from_the_model_alone(seed: int) -> None:
    chain, truth = eigenlayer(), Truth()
    squares(random.Random(seed), chain, truth)
    judge = judged(chain, AVS, EigenLayer())
    assert judge.duties() == truth.duties
    assert judge.reached() == truth.reached
    assert judge.challenged() == truth.challenged


def test_the_chains_with_quorums_hold_every_case() -> None:
    states, reached, duties, challenged = set(), set(), 0, 0
    for seed in range(12):
        truth = Truth()
        squares(random.Random(seed), eigenlayer(), truth)
        states |= {*truth.duties.values()}
        reached |= {*truth.reached.values()}
        duties += len(truth.duties)
        challenged += len(truth.challenged)
    assert (states, reached) == ({"signed", "missed", "unknown"}, {True, False})
    assert duties > 300
    assert challenged > 10


@pytest.mark.parametrize("seed", range(12))
def test_duties_of_a_set_as_it_stood_at_a_time_are_told_from_the_model_alone(seed: int) -> None:
    chain, truth = eigenlayer(), Truth()
    mailbox(random.Random(seed), chain, truth)
    assert {*truth.duties.values()} == {"signed", "missed"}
    assert judged(chain, AVS, EigenLayer()).duties() == truth.duties


# --- slashings --------------------------------------------------------------------------------------

WRONGS = {"vetoed", "early", "more", "unrequested"}


@pytest.mark.parametrize("seed", range(12))
def test_wrong_slashings_of_an_avs_are_told_from_the_model_alone(seed: int) -> None:
    chain = eigenlayer()
    truth = avs_slashings(random.Random(seed), chain)
    assert judged(chain, AVS, EigenLayer()).slashings() == truth


def test_the_chains_with_slashings_hold_every_wrong_and_right_ones() -> None:
    met = {wrongs for seed in range(12) for _, wrongs in avs_slashings(random.Random(seed), eigenlayer())} | {
        wrongs for seed in range(12) for _, wrongs in vault_slashings(random.Random(seed), vaults())
    }
    assert frozenset() in met
    assert frozenset().union(*met) == WRONGS | {"void"}


@pytest.mark.parametrize("seed", range(12))
def test_wrong_slashings_of_vaults_that_many_networks_share_are_told_from_the_model_alone(seed: int) -> None:
    chain = vaults()
    truth = vault_slashings(random.Random(seed), chain)
    assert judged(chain, NETWORK, Symbiotic()).slashings() == truth


# --- what is easily lost ----------------------------------------------------------------------------


def test_both_layouts_of_a_request_mean_the_same() -> None:
    found = []
    for layout in (0, 1):
        chain = eigenlayer()
        told = {"operatorSetId": 2, "wadsToSlash": [5, 6], "description": "équivoque"}
        chain.emit(SLASHER, "SlashingRequested", layout, requestId=9, operator=OURS, **told)
        chain.mine()
        ((_, tables),) = chain.record()
        found += EigenLayer().events(AVS, tables)
    assert found[0] == found[1]
    assert isinstance(found[0], SlashingRequested)
    assert found[0].set == set_key(OURS, 2)
    assert [position.amount for position in found[0].penalty] == [5, 6]


def test_a_failed_response_is_none_and_tells_of_no_signer() -> None:
    """The call's own sender alone is accused by it; the event that is not there says the rest."""
    chain = eigenlayer()
    task = {"numberToBeSquared": 7, "taskCreatedBlock": 1, "quorumNumbers": b"\0"}
    task["quorumThresholdPercentage"] = 60
    response = {"referenceTaskIndex": 0, "numberSquared": 49}
    told = {"task": task, "taskResponse": response, "nonSignerStakesAndSignature": NOTHING}
    chain.call(MANAGER, "respondToTask", False, **told)
    chain.mine()
    ((_, tables),) = chain.record()
    assert len(tables) == 1
    assert EigenLayer().events(AVS, tables) == []


def test_a_network_is_its_own_part_of_shared_contracts() -> None:
    chain = eigenlayer()
    for avs in (OURS, OTHERS):
        told = {"operator": OPERATORS[0], "operatorSet": {"avs": avs, "id": 1}}
        chain.emit(CORE, "OperatorAddedToOperatorSet", **told)
    chain.mine()
    ((_, tables),) = chain.record()
    for place, avs in enumerate((OURS, OTHERS)):
        network = msgspec.structs.replace(AVS, selector={"avs": "0x" + avs.hex()})
        (added,) = EigenLayer().events(network, tables)
        assert isinstance(added, OperatorAdded)
        assert (added.set, added.at.log) == (set_key(avs, 1), place)


def test_stake_counts_from_the_block_on_in_which_it_takes_effect() -> None:
    chain = eigenlayer()
    told = {"operator": OPERATORS[0], "operatorSet": {"avs": OURS, "id": 1}, "strategy": STRATEGY}
    chain.emit(CORE, "AllocationUpdated", **told, magnitude=7, effectBlock=3)
    times = []
    for _ in range(4):
        times.append(chain.time)
        chain.mine()
    judge = judged(chain, AVS, EigenLayer())
    set_ = set_key(OURS, 1)
    assert [judge.stake(set_, OPERATORS[0], Moment("block", n)) for n in range(1, 5)] == [0, 0, 7, 7]
    assert [judge.stake(set_, OPERATORS[0], Moment("timestamp", t)) for t in times] == [0, 0, 7, 7]
    assert judge.stake(set_, OPERATORS[0], Moment("timestamp", times[2] - 1)) == 0

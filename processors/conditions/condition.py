"""What a slashing condition is: one file with these parts, and nothing else to add."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from nektar.evidence.bundle import Bundle
from nektar.evidence.sought import Sought
from nektar.evidence.verify import Accused
from nektar.facts import Fact
from nektar.fold import Fold
from nektar.rows import Finding


class Dispute(NamedTuple):
    """The call that proves a condition on chain."""

    contract: str  # its name, as in nektar.yaml
    calldata: bytes


class Condition(Protocol):
    """A rule that anyone can see was broken. Found by the entry points `nektar.conditions`."""

    name: str

    @property
    def detect(self) -> Fold[Any]:
        """The fold that notices, and puts out findings."""

    def claims(self, finding: Finding) -> Sought:
        """What a stranger must be shown."""

    def holds(self, accused: Accused, facts: Sequence[Fact], terms: Mapping[str, int]) -> None:
        """Whether facts that were each verified add up to the condition. Detector and verifier share it.
        Raises NotProved, naming what is missing."""

    @property
    def dispute(self) -> Callable[[Bundle], Dispute | None] | None:
        """Of a bundle the call that proves it to the slashing contract, which answers with the request that
        it makes (`encoding.request_id`); None where this bundle's can't be. None instead where the contracts
        have no such proof."""


@runtime_checkable
class Challenges(Protocol):
    """A condition whose evidence can overturn a response that was accepted, until the contract's deadline."""

    def challenge(self, bundle: Bundle) -> Dispute | None:
        """Of a bundle the call that overturns the response, None where this bundle's can't."""

"""What a slashing condition is: one file with these five parts, and nothing else to add."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from nektar.evidence.bundle import Claim, Verified
from nektar.fold import Fold
from nektar.rows import Finding


class Condition(Protocol):
    """A rule that anyone can prove was broken. Found by the entry points `nektar.conditions`."""

    name: str

    @property
    def detect(self) -> Fold[Any]:
        """The fold that notices, and puts out findings."""

    def claims(self, finding: Finding) -> Sequence[Claim]:
        """What a stranger must be shown."""

    def holds(self, verified: Sequence[Verified]) -> bool:
        """Whether claims that were each verified add up to the condition. Detector and verifier share it."""

    def dispute(self, claims: Sequence[Claim]) -> bytes | None:
        """The calldata that proves it to the slashing contract; None where there is no such proof."""

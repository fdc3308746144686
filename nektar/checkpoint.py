"""Checkpoints: one step of a fold as bytes, so that a restart need not read the log from its beginning.

Canonical JSON: equal steps give equal bytes, whatever order a map was filled in and whatever the process's
hash seed. An `immutables.Map` is a list of [key, value] sorted by the key's own JSON, since JSON's objects
know only strings for keys. Integers may have any size (msgpack's stop at 64 bits); bytes are base64.
"""

from __future__ import annotations

from types import GenericAlias
from typing import Any, TypeVar, get_args, get_origin

import msgspec
from immutables import Map

from nektar.errors import NektarError
from nektar.fold import Fold, Span, Step
from nektar.model import BlockRef
from nektar.rows import Finding

State = TypeVar("State")


class BadCheckpoint(NektarError):
    """What is stored is not a checkpoint of this version of the processor."""


class _Stored(msgspec.Struct, frozen=True):
    """A `Step` without what only an undo needs: nothing at or below it is ever undone."""

    offset: int
    span: Span | None
    open: tuple[Finding, ...]
    safe: int
    finalized: BlockRef | None
    state: msgspec.Raw


def to_json(value: Any) -> bytes:
    """Canonical JSON of anything that a state may hold."""
    return _encoder.encode(value)


def encode(step: Step[Any]) -> bytes:
    """The step as bytes."""
    findings = tuple(finding for _, finding in sorted(step.open.items()))
    state = msgspec.Raw(to_json(step.state))
    return to_json(_Stored(step.offset, step.span, findings, step.safe, step.finalized, state))


def decode(value: bytes, fold: Fold[State]) -> Step[State]:
    """The step that `encode` wrote for this fold. Raises BadCheckpoint."""
    try:
        stored = msgspec.json.decode(value, type=_Stored)
        state = msgspec.json.decode(stored.state, type=fold.state_type, dec_hook=_map)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise BadCheckpoint(f"expected a checkpoint of this version of {fold.name!r}; {error}") from error
    if to_json(state) != bytes(stored.state):  # a field that this version does not know, or knows anew
        raise BadCheckpoint(f"expected a checkpoint of this version of {fold.name!r}; got another's state")
    findings = Map((finding.id, finding) for finding in stored.open)
    return Step(stored.offset, stored.span, state, findings, stored.safe, stored.finalized)


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Map):
        return sorted(value.items(), key=lambda pair: to_json(pair[0]))
    raise NotImplementedError(f"{type(value).__name__} in a fold's state: use frozen structs and Map")


def _map(type_: Any, value: Any) -> Any:
    if get_origin(type_) is Map:
        pairs = GenericAlias(list, GenericAlias(tuple, get_args(type_)))
        return Map(msgspec.convert(value, pairs, dec_hook=_map))
    raise NotImplementedError(f"{type_} in a fold's state: use frozen structs and Map")


_encoder = msgspec.json.Encoder(enc_hook=_pairs, order="deterministic")

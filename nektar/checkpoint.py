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
    state: Any


class _Read(_Stored, frozen=True):
    """It as bytes, which of a large state are tens of MB, and are not copied on the way."""

    state: msgspec.Raw


def to_json(value: Any) -> bytes:
    """Canonical JSON of anything that a state may hold."""
    return _encoder.encode(value)


def encode(step: Step[Any]) -> bytes:
    """The step as bytes."""
    findings = tuple(finding for _, finding in sorted(step.open.items()))
    return to_json(_Stored(step.offset, step.span, findings, step.safe, step.finalized, step.state))


def decode(value: bytes, fold: Fold[State]) -> Step[State]:
    """The step that `encode` wrote for this fold. Raises BadCheckpoint."""
    try:
        stored = msgspec.json.decode(value, type=_Read)
        state = msgspec.json.decode(stored.state, type=fold.state_type, dec_hook=_map)
        is_same = _is_text_of(state, stored.state)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise BadCheckpoint(f"expected a checkpoint of this version of {fold.name!r}; {error}") from error
    if not is_same:  # a field that this version does not know, or knows anew
        raise BadCheckpoint(f"expected a checkpoint of this version of {fold.name!r}; got another's state")
    findings = Map((finding.id, finding) for finding in stored.open)
    return Step(stored.offset, stored.span, state, findings, stored.safe, stored.finalized)


def _is_text_of(value: Any, text: msgspec.Raw) -> bool:
    """Whether this is how the value is written. A large map is written entry by entry, and not a second time
    as a whole."""
    if isinstance(value, Map):
        said = msgspec.json.decode(text, type=list[tuple[msgspec.Raw, msgspec.Raw]])
        parts = [part for pair in said for part in pair]
        here = [part for pair in _pairs(value) for part in pair]
    elif isinstance(value, msgspec.Struct) and _is_plain(value):
        fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        if tuple(fields) != value.__struct_fields__:
            return False
        return all(_is_text_of(getattr(value, name), part) for name, part in fields.items())
    else:
        parts, here = [text], [value]
    return len(parts) == len(here) and all(
        to_json(v) == memoryview(p) for v, p in zip(here, parts, strict=True)
    )


def _is_plain(value: msgspec.Struct) -> bool:
    """Whether it is written as an object of its fields and nothing else."""
    return not value.__struct_config__.array_like and value.__struct_config__.tag is None


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Map):
        return sorted(value.items(), key=lambda pair: to_json(pair[0]))
    raise NotImplementedError(f"{type(value).__name__} in a fold's state: use frozen structs and Map")


def _map(type_: Any, value: Any) -> Any:
    if get_origin(type_) is Map:
        if not isinstance(value, list):
            raise msgspec.ValidationError(f"expected a list of pairs; got {type(value).__name__}")
        pair, found = GenericAlias(tuple, get_args(type_)), Map[Any, Any]().mutate()
        while value:  # each is given up as it is converted: a large state is not held twice
            key, of = msgspec.convert(value.pop(), pair, dec_hook=_map)
            found[key] = of
        return found.finish()
    raise NotImplementedError(f"{type_} in a fold's state: use frozen structs and Map")


_encoder = msgspec.json.Encoder(enc_hook=_pairs, order="deterministic")

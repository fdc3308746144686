"""What spans and log records say that belongs onto a Network's log: signed responses, reports of work, and
heartbeats (docs/TELEMETRY.md). Pure.

A signature proves itself, so it counts whoever reports it: a peer, an Aggregator, the Operator itself. It is
not verified here, which would take the Network's state, but when it first matters. A report proves nothing,
so it counts as its sender's word: an Operator's of itself alone, and nobody's whom the collector does not
know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from nektar import telemetry
from nektar.chain.keccak import keccak
from nektar.model import G1, Address, Brought, Hash32, Heartbeat, Report, Signed
from nektar.otlp import METRICS, SPANS, Signal, groups
from nektar.senders import Sender
from nektar.telemetry import Step
from nektar.tokens import Role

# The longest preimage of a digest. The reference contracts' is 64 bytes.
MAX_RESPONSE_BYTES = 1_024
SCHEME = "bls-bn254"
# The longest error.type that is kept: OpenTelemetry wants them few, and so short.
MAX_ERROR = 64
# Block numbers beyond this are nobody's; a log that is folded again in years reads them still.
MAX_BLOCK = 2**48

# One of these is in every body that has anything to say.
_MARKS = tuple(each.encode() for each in (telemetry.SIGNATURE, telemetry.STEP, telemetry.HEARTBEAT))
_ABOUT = (telemetry.CHAIN_ID, telemetry.CONTRACT, telemetry.TASK_HASH, telemetry.OPERATOR)
_SIGNED = (*_ABOUT, telemetry.RESPONSE, telemetry.RESPONSE_DIGEST, telemetry.SIGNATURE)
_STEPS = {str(step): step for step in Step}


class Place(NamedTuple):
    """Whose log it belongs onto."""

    chain_id: int
    contract: Address  # the TaskManager


def brought(signal: Signal, request: Any, body: bytes, sender: Sender) -> Iterator[tuple[Place, Brought]]:
    """What `request`, whose protobuf is `body`, brings; of metrics, which are of many Tasks, nothing. What is
    not as the conventions say is passed over."""
    if signal is METRICS or not any(mark in body for mark in _MARKS):
        return
    resource: Any = None
    of_resource: dict[str, Any] = {}
    for group in groups(signal, request):
        if group.resource is not resource:
            resource = group.resource
            of_resource = _ours(resource.resource.attributes)
        for item in group.items:
            said = of_resource | _ours(item.attributes)
            if telemetry.SIGNATURE in said and (signed := _signed(said, sender.brought_by)):
                yield signed
            told: tuple[Place, Brought] | None
            if signal is SPANS:
                told = _report(said, item, sender) if telemetry.STEP in said else None
            else:
                told = _heartbeat(said, sender) if item.event_name == telemetry.HEARTBEAT else None
            if told:
                yield told


def _ours(attributes: Any) -> dict[str, Any]:
    return {
        key: each.value
        for each in attributes
        if (key := each.key).startswith("nektar.") or key == telemetry.ERROR_TYPE
    }


def _signed(said: Mapping[str, Any], brought_by: str) -> tuple[Place, Signed] | None:
    scheme = said.get(telemetry.SIGNATURE_SCHEME)
    if any(name not in said for name in _SIGNED) or (scheme is not None and scheme.string_value != SCHEME):
        return None
    try:
        place, task_hash, operator = _about(said)
        digest = Hash32(_octets(said[telemetry.RESPONSE_DIGEST], 32))
        signature = G1(_octets(said[telemetry.SIGNATURE], 64))
        response = _response(said)
    except ValueError:
        return None
    if keccak(response) != digest:
        return None
    return place, Signed(None, task_hash, operator, digest, signature, response, brought_by=brought_by)


def _report(said: Mapping[str, Any], span: Any, sender: Sender) -> tuple[Place, Report] | None:
    step = _STEPS.get(said[telemetry.STEP].string_value)
    if not sender.role or step is None or any(name not in said for name in _ABOUT):
        return None
    try:
        place, task_hash, operator = _about(said)
        response = _response(said) if telemetry.RESPONSE in said else b""
    except ValueError:
        return None
    if not _may_speak_of(sender, operator):
        return None
    error = ""
    if span.status.code == span.status.STATUS_CODE_ERROR:
        named = said.get(telemetry.ERROR_TYPE)
        error = (named.string_value if named is not None else "")[:MAX_ERROR] or "_OTHER"
    report = Report(
        brought_by=sender.brought_by,
        role=sender.role,
        operator=operator,
        task_hash=task_hash,
        step=step,
        span=span.span_id,
        begun=_head(said, telemetry.HEAD_BEGUN),
        ended=_head(said, telemetry.HEAD_ENDED),
        error=error,
        response=response,
    )
    return place, report


def _heartbeat(said: Mapping[str, Any], sender: Sender) -> tuple[Place, Heartbeat] | None:
    names = (telemetry.CHAIN_ID, telemetry.CONTRACT, telemetry.OPERATOR)
    if sender.role != Role.OPERATOR or any(name not in said for name in names):
        return None
    try:
        place, operator = _place(said), Address(_octets(said[telemetry.OPERATOR], 20))
    except ValueError:
        return None
    first, last = _head(said, telemetry.HEAD_BEGUN), _head(said, telemetry.HEAD_ENDED)
    if not _may_speak_of(sender, operator) or not 0 <= first <= last:
        return None
    return place, Heartbeat(operator, first, last)


def _may_speak_of(sender: Sender, operator: Address) -> bool:
    return sender.role != Role.OPERATOR or sender.name == f"0x{operator.hex()}"


def _about(said: Mapping[str, Any]) -> tuple[Place, Hash32, Address]:
    """Raises ValueError."""
    task_hash = Hash32(_octets(said[telemetry.TASK_HASH], 32))
    return _place(said), task_hash, Address(_octets(said[telemetry.OPERATOR], 20))


def _place(said: Mapping[str, Any]) -> Place:
    """Raises ValueError."""
    return Place(said[telemetry.CHAIN_ID].int_value, Address(_octets(said[telemetry.CONTRACT], 20)))


def _response(said: Mapping[str, Any]) -> bytes:
    """Raises ValueError."""
    response = _octets(said[telemetry.RESPONSE])
    if len(response) > MAX_RESPONSE_BYTES:
        raise ValueError("too long")
    return response


def _head(said: Mapping[str, Any], name: str) -> int:
    """A block number; -1 where none is said."""
    value = said.get(name)
    if value is None or value.WhichOneof("value") != "int_value" or not 0 <= value.int_value < MAX_BLOCK:
        return -1
    return int(value.int_value)


def _octets(value: Any, length: int | None = None) -> bytes:
    """The bytes in a string 0x…. Raises ValueError."""
    text = value.string_value
    octets = bytes.fromhex(text[2:])
    if text != "0x" + octets.hex() or length not in (None, len(octets)):
        raise ValueError(text)
    return octets

"""What is told of the work on one Duty, packed: where an Aggregator is down, that of a thousand Operators is
kept of Task after Task, and as structs it takes five times as much."""

from __future__ import annotations

import msgspec

from nektar.model import Address, Hash32, Report
from nektar.telemetry import Step

# Steps of one Operator and Task that are kept: each of its own once, and of three Aggregators theirs.
MOST_STEPS = 24

Steps = tuple[Report, ...]
"""Of one Operator and Task."""

_STEPS = tuple(Step)
_Packed = tuple[list[tuple[str, str]], list[bytes], list[tuple[int, int, bytes, int, int, str, int]]]


def is_own(report: Report) -> bool:
    """Whether the Operator tells it of itself."""
    return report.role == "operator"


def added(steps: Steps, report: Report) -> Steps:
    """Of one sender and step the one that went best is kept: the first that succeeded, since who is left out
    does it all again for its attestation, or else the newest that failed."""
    place = (report.brought_by, report.step)
    rival = next((each for each in steps if (each.brought_by, each.step) == place), None)
    if rival is None:
        return tuple(sorted((*steps, report), key=_sorting))[:MOST_STEPS]
    if _better(report) <= _better(rival):
        return steps
    return tuple(report if each is rival else each for each in steps)


def packed(steps: Steps) -> bytes:
    """All that they say beside Task and Operator; whoever tells them is named once, and a response once."""
    tellers = list(dict.fromkeys((each.brought_by, each.role) for each in steps))
    responses = list(dict.fromkeys(each.response for each in steps))
    told = [
        (
            tellers.index((each.brought_by, each.role)),
            _STEPS.index(each.step),
            each.span,
            each.begun,
            each.ended,
            each.error,
            responses.index(each.response),
        )
        for each in steps
    ]
    return msgspec.msgpack.encode((tellers, responses, told))


def unpacked(kept: bytes, task_hash: Hash32, operator: Address) -> Steps:
    """The same of this Task and Operator; of no bytes none."""
    if not kept:
        return ()
    tellers, responses, told = _decoder.decode(kept)
    return tuple(
        Report(by, role, operator, task_hash, _STEPS[step], span, begun, ended, error, responses[response])
        for teller, step, span, begun, ended, error, response in told
        for by, role in [tellers[teller]]
    )


def _sorting(report: Report) -> tuple[bool, str, int]:
    return not is_own(report), report.brought_by, _STEPS.index(report.step)


def _better(report: Report) -> tuple[bool, bool, int, bytes]:
    said = report.ended >= 0
    return not report.error, said, report.ended if report.error else -report.ended, report.span


_decoder = msgspec.msgpack.Decoder(_Packed)

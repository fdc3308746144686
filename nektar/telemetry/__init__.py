"""How telemetry speaks of Tasks: trace ids that chain and Operators agree on, and the names of attributes
(docs/TELEMETRY.md). Python programs need none of it: `tasks.py` says it for them.

A Task is one trace. Its id, and the id of its root span, follow from what everybody knows of the Task, so
that no context has to be carried from the chain to an Operator or from one Operator to the next:

    h        = keccak256(abi.encode(uint256 chainId, address taskManager, bytes32 taskHash))
    trace id = h[0:16]
    root     = h[16:24]        the span `task`, which the chain's own events stand under, too

An Operator that starts its spans as children of that root has joined.
"""

from __future__ import annotations

from enum import StrEnum

from nektar.chain.keccak import keccak

# Attributes of a span or a log record, and of what they are made: hex is 0x… in lower case.
CHAIN_ID = "nektar.chain_id"  # int
CONTRACT = "nektar.contract"  # the TaskManager, hex
TASK_HASH = "nektar.task.hash"  # hex
TASK_NUMBER = "nektar.task.number"  # int; a label
OPERATOR = "nektar.operator"  # whom the span is about, hex
# A signed response: these together with the three above prove themselves, whoever reports them. The first two
# alone say what was computed.
RESPONSE = "nektar.response.preimage"  # of the digest, as the contract encodes it, hex
RESPONSE_DIGEST = "nektar.response.digest"  # hex
SIGNATURE = "nektar.response.signature"  # hex, in the scheme's own encoding
SIGNATURE_SCHEME = "nektar.response.signature_scheme"  # bls-bn254
# Which part of the work a span is, one of `Step`.
STEP = "nektar.step"
# The newest block that the sender knew when the span began, and when it ended; of a heartbeat the blocks that
# it has followed without a break. Time by which clocks that are wrong can be told from work that is slow.
HEAD_BEGUN = "nektar.head.begun"  # int
HEAD_ENDED = "nektar.head.ended"  # int
# OpenTelemetry's own, of a span whose status is an error; and its value where the sender let a Task go
# because, by its own clock, the time for it was over.
ERROR_TYPE = "error.type"
TOO_LATE = "too_late"
# The name of the event that a heartbeat is: a log record of no span.
HEARTBEAT = "nektar.heartbeat"

# On every span in the store: whose token brought it, what that sender is to which Network (`senders.py`).
SENDER = "nektar.sender"
SENDER_ROLE = "nektar.sender_role"
SENDER_NETWORK = "nektar.sender_network"
# The service, and the sender, of what the pipeline itself says of the chain once it is final.
CHAIN = "chain"


class Step(StrEnum):
    """The parts of the work on a Task, in their order. The last one is instead of the three before it: an
    Operator that an Aggregator leaves out puts its response on the chain itself."""

    RECEIVE = "receive"  # Operator: has seen the Task
    EXECUTE = "execute"  # Operator: computes the response
    SIGN = "sign"  # Operator
    SEND = "send"  # Operator: to the Aggregator
    COLLECT = "collect"  # Aggregator: has a response of an Operator, and its signature verifies
    AGGREGATE = "aggregate"  # Aggregator: adds signatures up
    SUBMIT = "submit"  # Aggregator: sends the aggregate to the chain
    ATTEST = "attest"  # Operator: sends its own to the chain


def task_ids(chain_id: int, contract: bytes, task_hash: bytes) -> tuple[bytes, bytes]:
    """(trace id of 16 bytes, id of the root span of 8 bytes) of a Task. `contract` has 20 bytes."""
    if len(contract) != 20 or len(task_hash) != 32:
        raise ValueError(
            f"expected a contract of 20 bytes and a taskHash of 32; got {len(contract)} and {len(task_hash)}"
        )
    digest = keccak(chain_id.to_bytes(32, "big") + bytes(12) + contract + task_hash)
    return digest[:16], digest[16:24]


def chain_span_id(trace_id: bytes, block_hash: bytes, log_index: int) -> bytes:
    """The id of the span that stands for a log of this block in a Task's trace."""
    return keccak(trace_id + block_hash + log_index.to_bytes(8, "big"))[:8]

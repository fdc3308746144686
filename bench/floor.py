"""The floor: what the plainest client could do at best, on this machine and in this run.

`urllib` and `json.loads` over `eth_getLogs`, one thread, the best of four sizes of range. It decodes nothing
and keeps nothing. Whatever is measured beside it is said in multiples of it.
"""

from __future__ import annotations

import json
import time
import urllib.request

from bench.load import Load

# Logs in an answer.
SIZES = (500, 1_000, 2_000, 5_000)


def floor(of: Load) -> float:
    """Logs a second."""
    return max(_rate(of, max(1, size * (of.last - of.first + 1) // of.logs)) for size in SIZES)


def _rate(of: Load, blocks: int) -> float:
    began, found = time.perf_counter(), 0
    for first in range(of.first, of.last + 1, blocks):
        filter_ = {
            "address": of.address,
            "fromBlock": hex(first),
            "toBlock": hex(min(first + blocks - 1, of.last)),
            "topics": [of.topic],
        }
        asked = {"jsonrpc": "2.0", "id": 1, "method": "eth_getLogs", "params": [filter_]}
        request = urllib.request.Request(
            of.url, json.dumps(asked).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request) as response:
            found += len(json.loads(response.read())["result"])
    assert found == of.logs
    return found / (time.perf_counter() - began)

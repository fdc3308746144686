"""What a provider can say that is not so: the lies by which the indexer is tried (docs/LIES.md).

A lie is named, and told from a seed: the same requests get the same answers. There are four kinds of it:

* an honest answer, changed: `CHANGES`;
* a chain that is not the canonical one, or not as long, or not as final: `Stale`, `Fork`, `FalseFinality`;
* an answer that is none, or comes late: `WIRES`;
* an honest answer but for one block, of which every method tells the same lie: `ABOUT_ONE_BLOCK`.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from nektar.chain.bloom import bloom
from nektar.chain.header import header_hash
from nektar.chain.receipt import read_entry
from nektar.chain.trie import EMPTY_ROOT

Object = dict[str, Any]
# The upstream's honest result of one call.
Ask = Callable[..., Awaitable[Any]]

BY_NUMBER, BY_HASH = "eth_getBlockByNumber", "eth_getBlockByHash"
RECEIPTS, LOGS = "eth_getBlockReceipts", "eth_getLogs"
BLOCKS = (BY_NUMBER, BY_HASH)
NO_LOGS = "0x" + 512 * "0"
# Blocks that a stale provider lags behind, and that a forked one has of its own: above what is final.
STALE, FORKED = 3, 2
SLOW_SECONDS = 0.1
HUNG_SECONDS = 3600.0


class Refusal(Exception):
    """The provider answers with this error of JSON-RPC's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message}


class Sent(NamedTuple):
    """What goes over the wire."""

    body: bytes
    status: int = 200
    after: float = 0.0  # seconds


# --- an honest answer, changed ---

Change = Callable[[str, Any, random.Random], Any]


def _some_logs(method: str, result: Any, rng: random.Random) -> list[Object]:
    """The logs of one receipt that has any, or those that were asked for; empty where there are none."""
    if method == LOGS:
        return result or []
    holders = [receipt["logs"] for receipt in result or () if receipt["logs"]]
    return rng.choice(holders) if holders else []


def _omitted_log(method: str, result: Any, rng: random.Random) -> Any:
    """With the receipt's bloom made to fit, so that the root alone can tell."""
    if logs := _some_logs(method, result, rng):
        del logs[rng.randrange(len(logs))]
        for receipt in result if method == RECEIPTS else ():
            receipt["logsBloom"] = "0x" + bloom(map(read_entry, receipt["logs"])).hex()
    return result


def _altered_data(method: str, result: Any, rng: random.Random) -> Any:
    if logs := _some_logs(method, result, rng):
        log = rng.choice(logs)
        log["data"] = _flipped(log["data"], rng)
    return result


def _invented_log(method: str, result: Any, rng: random.Random) -> Any:
    """One like the last, behind it."""
    if logs := _some_logs(method, result, rng):
        logs.append(logs[-1] | {"logIndex": hex(int(logs[-1]["logIndex"], 16) + 1)})
    return result


def _foreign_log(method: str, result: Any, rng: random.Random) -> Any:
    """Another contract's, of which nobody asked."""
    if logs := _some_logs(method, result, rng):
        log = rng.choice(logs)
        log["address"] = _flipped(log["address"], rng)
    return result


def _altered_status(method: str, result: Any, rng: random.Random) -> Any:
    if result:
        receipt = rng.choice(result)
        receipt["status"] = "0x0" if receipt["status"] == "0x1" else "0x1"
    return result


def _dropped_receipt(method: str, result: Any, rng: random.Random) -> Any:
    if result:
        del result[rng.randrange(len(result))]
    return result


def _wrong_bloom(method: str, result: Any, rng: random.Random) -> Any:
    if result:
        result["logsBloom"] = NO_LOGS if result["logsBloom"] != NO_LOGS else "0x" + 512 * "f"
    return result


def _wrong_receipt_bloom(method: str, result: Any, rng: random.Random) -> Any:
    for receipt in result or ():
        receipt["logsBloom"] = NO_LOGS if receipt["logsBloom"] != NO_LOGS else "0x" + 512 * "f"
    return result


def _wrong_hash(method: str, result: Any, rng: random.Random) -> Any:
    """Of a block; or of one whose logs were asked for, in all of these."""
    if method == LOGS and result:
        told = rng.choice(result)["blockHash"]
        wrong = _flipped(told, rng)
        return [log | {"blockHash": wrong} if log["blockHash"] == told else log for log in result]
    if result:
        result["hash"] = _flipped(result["hash"], rng)
    return result


def _flipped(data: str, rng: random.Random) -> str:
    if len(data) < 4:
        return "0x00"
    at = 2 * rng.randrange(1, len(data) // 2)
    return f"{data[:at]}{int(data[at : at + 2], 16) ^ rng.randint(1, 255):02x}{data[at + 2 :]}"


def _refused(code: int, message: str) -> Change:
    def refuse(method: str, result: Any, rng: random.Random) -> Any:
        raise Refusal(code, message)

    return refuse


def _empty(method: str, result: Any, rng: random.Random) -> Any:
    if method == RECEIPTS:
        raise Refusal(-32000, "missing receipts: pruned")
    return []


def _altered_body(method: str, result: Any, rng: random.Random) -> Any:
    """Of a block whose header is true."""
    if method == RECEIPTS:
        raise Refusal(-32000, "missing receipts: pruned")
    for transaction in (result or {}).get("transactions", ()):
        if isinstance(transaction, dict):
            transaction["value"] = "0x7" if transaction["value"] != "0x7" else "0x8"
    return result


# The methods whose answers each changes, and how.
CHANGES: Mapping[str, tuple[tuple[str, ...], Change]] = {
    "omitted log": ((RECEIPTS, LOGS), _omitted_log),
    "altered data": ((RECEIPTS, LOGS), _altered_data),
    "invented log": ((RECEIPTS, LOGS), _invented_log),
    "another contract's log": ((RECEIPTS, LOGS), _foreign_log),
    "altered status": ((RECEIPTS,), _altered_status),
    "dropped receipt": ((RECEIPTS,), _dropped_receipt),
    "no receipts": ((RECEIPTS,), lambda method, result, rng: []),
    "wrong bloom": (BLOCKS, _wrong_bloom),
    "wrong receipt bloom": ((RECEIPTS,), _wrong_receipt_bloom),
    "wrong hash": ((*BLOCKS, LOGS), _wrong_hash),
    "null blocks": (BLOCKS, lambda method, result, rng: None),
    "wrong shape": ((*BLOCKS, RECEIPTS, LOGS), lambda method, result, rng: 7),
    "receipts withheld": ((RECEIPTS,), _refused(-32000, "missing receipts: pruned")),
    "receipts withheld, empty ranges": ((RECEIPTS, LOGS), _empty),
    "receipts withheld, altered body": ((*BLOCKS, RECEIPTS), _altered_body),
    "empty ranges": ((LOGS,), lambda method, result, rng: []),
    "range errors": ((RECEIPTS, LOGS), _refused(-32602, "block range is too large; at most 1000")),
}

# --- a chain of its own ---


class View(Protocol):
    """What a provider answers that shows another chain."""

    async def result(self, method: str, params: list[Any]) -> Any: ...


class Stale:
    """The chain as it was some blocks ago, for good."""

    def __init__(self, ask: Ask, seed: int) -> None:
        self._ask = ask
        self._head: int | None = None

    async def result(self, method: str, params: list[Any]) -> Any:
        if self._head is None:
            self._head = int(await self._ask("eth_blockNumber"), 16) - STALE
        if method == "eth_blockNumber":
            return hex(self._head)
        result = await self._ask(method, *params)
        if method != BY_NUMBER or result is None or int(result["number"], 16) <= self._head:
            return result
        is_tag = not params[0].startswith("0x")
        return await self._ask(method, hex(self._head), *params[1:]) if is_tag else None


class Fork:
    """A consistent chain in which nothing happens any more: empty blocks, from some block on.

    The forked one is of the newest blocks and finalizes none of them, as an honest node on the losing side of
    a reorg; the invented one begins a little above the genesis block, and calls its own blocks final. So does
    the invented past, which ends below the newest blocks: those are honest, and the first is no child of it.
    """

    def __init__(self, ask: Ask, seed: int, *, invented: bool, past: bool = False) -> None:
        self._ask = ask
        self._extra = f"0x{seed:08x}"
        self._invented = invented
        self._past = past
        self._own: range | None = None  # the blocks that are not the chain's
        self._told: dict[str, str] = {}  # hash told by the hash of the honest block at that number
        self._honest: dict[str, str] = {}

    async def result(self, method: str, params: list[Any]) -> Any:
        if self._own is None:
            newest = int(await self._ask("eth_blockNumber"), 16) - FORKED
            self._own = range(2 if self._invented else newest + 1, newest if self._past else 1 << 63)
        match method, params:
            case ("eth_getBlockByNumber", [tag, full]):
                block = await self._ask(method, tag, full)
                ends = tag in ("safe", "finalized") and not self._invented
                if ends and block is not None and int(block["number"], 16) in self._own:
                    block = await self._ask(method, hex(self._own.start - 1), full)
                return await self._as_told(block)
            case ("eth_getBlockByHash", [block_hash, full]):
                return await self._as_told(
                    await self._ask(method, self._honest.get(block_hash, block_hash), full)
                )
            case ("eth_getBlockReceipts", [which]):
                is_own = which in self._honest or (len(which) < 66 and int(which, 16) in self._own)
                return [] if is_own else await self._ask(method, which)
            case ("eth_getLogs", [{"blockHash": str(block_hash)}]) if block_hash in self._honest:
                return []
            case ("eth_getLogs", [_]):
                logs = await self._ask(method, *params)
                return [log for log in logs if int(log["blockNumber"], 16) not in self._own]
        return await self._ask(method, *params)

    async def _as_told(self, block: Object | None) -> Object | None:
        if block is None or self._own is None or int(block["number"], 16) not in self._own:
            return block
        return emptied(block, await self._told_hash(block["parentHash"]), self._extra)

    async def _told_hash(self, honest: str) -> str:
        missing: list[Object] = []
        while honest not in self._told:
            header = await self._ask(BY_HASH, honest, False)
            if self._own is None or int(header["number"], 16) not in self._own:
                self._told[honest] = honest
            else:
                missing.append(header)
                honest = header["parentHash"]
        for header in reversed(missing):
            told = emptied(header, self._told[header["parentHash"]], self._extra)["hash"]
            self._told[header["hash"]], self._honest[told] = told, header["hash"]
            honest = header["hash"]
        return self._told[honest]


class FalseFinality:
    """Calls the newest block final; or one that is on no chain."""

    def __init__(self, ask: Ask, seed: int, *, foreign: bool) -> None:
        self._ask = ask
        self._extra = f"0x{seed:08x}"
        self._foreign = foreign

    async def result(self, method: str, params: list[Any]) -> Any:
        if method != BY_NUMBER or params[0] not in ("safe", "finalized"):
            return await self._ask(method, *params)
        if not self._foreign:
            return await self._ask(method, "latest", *params[1:])
        block = await self._ask(method, *params)
        return emptied(block, block["parentHash"], self._extra)


def emptied(block: Object, parent: str, extra: str) -> Object:
    """The block as it would be on `parent` if nothing had happened in it: its hash and roots are right."""
    told = block | {
        "parentHash": parent,
        "extraData": extra,
        "transactions": [],
        "transactionsRoot": "0x" + EMPTY_ROOT.hex(),
        "receiptsRoot": "0x" + EMPTY_ROOT.hex(),
        "logsBloom": NO_LOGS,
        "gasUsed": "0x0",
    }
    return told | {"hash": "0x" + header_hash(told).hex()}


VIEWS: Mapping[str, Callable[[Ask, int], View]] = {
    "stale head": Stale,
    "forked head": lambda ask, seed: Fork(ask, seed, invented=False),
    "finalized block of no chain": lambda ask, seed: FalseFinality(ask, seed, foreign=True),
    "false finalized": lambda ask, seed: FalseFinality(ask, seed, foreign=False),
    "invented fork": lambda ask, seed: Fork(ask, seed, invented=True),
    "invented past": lambda ask, seed: Fork(ask, seed, invented=True, past=True),
}

# --- about one block ---


def _is_first(log: Object) -> bool:
    return int(log["logIndex"], 16) == 0


# What is told in place of a log; None: it is left out.
ABOUT_ONE_BLOCK: Mapping[str, Callable[[Object, random.Random], Object | None]] = {
    "omitted log": lambda log, rng: None if _is_first(log) else log,
    "altered data": lambda log, rng: log | {"data": _flipped(log["data"], rng)} if _is_first(log) else log,
    "wrong hash": lambda log, rng: log | {"blockHash": _flipped(log["blockHash"], rng)},
    "empty ranges": lambda log, rng: None,
}


class OneBlock:
    """Lies about the logs of one block, alike in whatever tells of them; a receipt's bloom is made to fit.

    Its header is honest. A range of logs that holds it is empty where such is the lie.
    """

    def __init__(self, ask: Ask, seed: int, lie: str, number: int) -> None:
        self._ask, self._seed, self._lie, self._number = ask, seed, lie, number

    async def result(self, method: str, params: list[Any]) -> Any:
        result = await self._ask(method, *params)
        match method:
            case "eth_getLogs" if any(map(self._is_there, result)):
                return [] if self._lie == "empty ranges" else self._told(result)
            case "eth_getBlockReceipts" if result and self._is_there(result[0]):
                return [] if self._lie == "empty ranges" else [self._receipt(each) for each in result]
            case "eth_getTransactionReceipt" if result is not None and self._is_there(result):
                return self._receipt(result)
        return result

    def _is_there(self, what: Object) -> bool:
        return int(what["blockNumber"], 16) == self._number

    def _receipt(self, receipt: Object) -> Object:
        logs = self._told(receipt["logs"])
        return receipt | {"logs": logs, "logsBloom": "0x" + bloom(map(read_entry, logs)).hex()}

    def _told(self, logs: list[Object]) -> list[Object]:
        change = ABOUT_ONE_BLOCK[self._lie]
        told = (
            change(log, random.Random(self._seed)) if self._is_there(log) else log  # noqa: S311
            for log in logs
        )
        return [log for log in told if log is not None]


# --- over the wire ---

WIRES: Mapping[str, Callable[[bytes], Sent]] = {
    "truncated JSON": lambda body: Sent(body[: len(body) * 2 // 3]),
    "malformed JSON": lambda body: Sent(body.replace(b":", b";")),
    "a page instead of JSON": lambda body: Sent(b"<html><body>welcome</body></html>"),
    "HTTP 429": lambda body: Sent(b"slow down", 429),
    "HTTP 503": lambda body: Sent(b"", 503),
    "slow": lambda body: Sent(body, after=SLOW_SECONDS),
    "hung": lambda body: Sent(body, after=HUNG_SECONDS),
}

LIES = (*CHANGES, *VIEWS, *WIRES)
# Those of which a seed makes any mixture: they pass, and what they leave can be told.
MIXED = tuple(lie for lie in (*CHANGES, *WIRES) if lie != "hung")


class Liar:
    """Answers as the upstream would, but for one lie at a time."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._lie = ""
        self._rng = random.Random()  # noqa: S311  a lie is no secret
        self._chance = 1.0
        self._view: View | None = None

    def tell(self, lie: str, seed: int = 0, chance: float = 1.0, block: int | None = None) -> None:
        """Tell this lie from now on, with this chance in each request; "any": one of many; "": the truth.

        With a block's number it is about that block alone. Raises ValueError for a lie that it does not know.
        """
        known = (*LIES, "any", "") if block is None else (*ABOUT_ONE_BLOCK,)
        if lie not in known:
            raise ValueError(f"expected a lie of {', '.join(known)}; got {lie!r}")
        self._lie, self._chance = lie, chance
        self._rng = random.Random(seed)  # noqa: S311
        if block is not None:
            self._view = OneBlock(self._ask, seed, lie, block)
        else:
            self._view = VIEWS[lie](self._ask, seed) if lie in VIEWS else None

    @property
    def is_honest(self) -> bool:
        return not self._lie

    async def answer(self, calls: list[Object], batch: bool) -> Sent:
        """What is answered to these calls."""
        lie = self._rng.choice(MIXED) if self._lie == "any" else self._lie
        if self._rng.random() >= self._chance:
            lie = ""
        answers = [await self._answer(call, lie) for call in calls]
        body = msgspec.json.encode(answers if batch else answers[0])
        return WIRES[lie](body) if lie in WIRES else Sent(body)

    async def _answer(self, call: Object, lie: str) -> Object:
        method, params = call["method"], call.get("params") or []
        answer = {"jsonrpc": "2.0", "id": call["id"]}
        try:
            if self._view is not None and lie:
                return answer | {"result": await self._view.result(method, params)}
            result = await self._ask(method, *params)
            methods, change = CHANGES.get(lie, ((), None))
            if change is not None and method in methods:
                result = change(method, result, self._rng)
            return answer | {"result": result}
        except Refusal as refusal:
            return answer | {"error": refusal.error}

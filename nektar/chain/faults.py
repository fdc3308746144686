"""Why a provider gave no result: five kinds, told apart by HTTP status, JSON-RPC code and wording.

| kind | what it means | what to do |
|---|---|---|
| rate | asked too often, or more than was paid for | ask less, later |
| range | one call asks for more blocks, logs or bytes than are served at once | ask for less in one call |
| batch | one request holds more calls than are taken | send fewer calls in a request |
| transient | no fault of the question: overload, a hiccup, a timeout | ask again |
| refused | an answer, and it is no | nothing: the same question gets the same answer |

Codes alone say little: -32005 is "limit exceeded" by EIP-1474, and means a rate limit with one provider, too
many results with another and too large a batch with a third; -32000 and -32602 mean anything. So the words
decide first. They are those of geth, Erigon, Nethermind, Besu, reth, jsonrpsee, proxyd and of the providers
that `tests/nektar/chain/test_faults.py` names, each with its real text.

Where the words say how many blocks would be served, that is kept. Whether a limit of 1,000 means `toBlock -
fromBlock` or the number of blocks differs between providers; taken as the number of blocks it is right with
both.
"""

from __future__ import annotations

import enum
import re
from email.utils import parsedate_to_datetime
from typing import NamedTuple

# How long a provider may ask to be left alone, in seconds; what it says beyond that is taken as this.
LONGEST_RETRY_AFTER = 60.0
# So much of a text is read: the words that count stand at its beginning, and strangers decide how long it is.
READ = 600


class Kind(enum.StrEnum):
    RATE = "rate"
    RANGE = "range"
    BATCH = "batch"
    TRANSIENT = "transient"
    REFUSED = "refused"


class Fault(NamedTuple):
    """`retry_after`: seconds that the provider asks for, 0 where it says nothing. `blocks`: of a range limit,
    how many blocks it would serve at once, where it says so; `suggested`: of those that were asked for, which
    says nothing of others."""

    kind: Kind
    retry_after: float = 0.0
    blocks: int | None = None
    suggested: bool = False


def _any_of(*words: str) -> re.Pattern[str]:
    return re.compile("|".join(words), re.IGNORECASE)


# What the words below would take for a limit, and is none.
_NO_LIMIT = _any_of(
    r"range extends beyond", r"beyond (the )?current head", r"invalid block range", r"out of range"
)
_BATCH = _any_of(
    r"batch (size |request )?(is |was )?(too (large|big|many)|limit|exceed)",
    r"max(imum)? batch",
    r"batch(es)? of more than",
    r"too many (requests|calls) in (a |the )?batch",
    r"batch(es|ed)? (requests? )?(are |is )?(not|un) ?(supported|allowed)",
)
_RANGE = _any_of(
    r"range (is |are )?too (large|wide|big)",
    r"(block|blocks|server)[ _]?range",
    r"range (limit|threshold|allowed)",
    r"max(imum)?( allowed)?( block)? range",
    r"exceed\w*( the)? max(imum)?( allowed)? range",
    r"range of blocks",
    r"range [\d,]+ (exceeds|is (bigger|greater|larger) than)",
    r"ranges over",
    r"retry with the range",
    r"exceeds the range",
    r"limited to (a |an )?(0 ?(-|to) ?)?[\d,.]+k?( blocks?)? range",
    r"limited to [\d,.]+k? block",
    r"too many (blocks|logs|results|events)",
    r"number of requested blocks",
    r"blocks distance",
    r"(at most|up to|more than|over|exceeds?|maximum( of)?|limit of) [\d,.]+k? (blocks|results|logs|events)",
    r"narrow your filter",
    r"smaller than size",
    r"max(imum)? (results|logs)",
    r"too much data",
    r"response (size )?(is )?(too (large|big)|exceed|should not|larger|limit)",
    r"result (set )?(is )?too large",
    r"query timeout",
    r"logs matched by query exceeds",
)
_RATE = _any_of(
    r"rate.?limit",
    r"too many requests",
    r"compute units",
    r"capacity",
    r"throttl",
    r"quota",
    r"per second",
    r"request limit",
    r"requests? (count|rate) exceeded",
    r"over rate",
    r"usage limit",
    r"limit exceeded",
    r"exceeded (its|your|the) .{0,30}(limit|requests)",
    r"requests? (are )?limited",
    r"credits",
    r"call rate",
)
_TRANSIENT = _any_of(
    r"timed? ?out",
    r"try again",
    r"temporar",
    r"overload",
    r"deadline exceeded",
    r"busy",
    r"no (available )?(backend|upstream|nodes?)",
    r"bad gateway",
    r"service unavailable",
    r"connection (reset|refused|closed)",
    r"unexpected eof",
    r"not (currently )?healthy",
    r"request (was )?(cancel|abort)",
    r"internal server error",
    r"^internal (json-rpc )?error\.?$",
)
_REVERTED = 3  # execution-apis: a call that the EVM reverted
_LIMIT_CODES = {-32005, 429}  # EIP-1474's "limit exceeded", and HTTP's number in JSON-RPC's place

_SUGGESTED = (  # a range that would be served, as two numbers
    re.compile(r"\[\s*(0x[0-9a-f]{1,16})\s*,\s*(0x[0-9a-f]{1,16})\s*\]", re.I),
    re.compile(r"with the range (\d{1,16})\s*-\s*(\d{1,16})", re.I),
)
_BLOCKS = tuple(  # the largest number of blocks, in the order in which it is looked for
    re.compile(words.replace("N", r"(\d[\d,.]{0,12})\s*(k?)\b"), re.I)
    for words in (
        r"maximum is set to N",
        r"\(\d+ > N",
        r"range \d+ (?:exceeds limit of|is bigger than range limit) N",
        r"limited to (?:an? )?(?:0 ?(?:-|to) ?)?N ?(?:blocks?|range)",
        r"up to an? N block range",
        r"at most N blocks",
        r"requested blocks is N",
        r"blocks distance:? N",
        r"ranges over N blocks",
        r"smaller than size N",
        r"range (?:exceeds|greater than|limit:?|is limited to|should be less than) N",
        r"narrow your filter: N",
        r"max(?:imum)?(?: allowed| is)?(?: block)?(?: range)?(?: is| of| allowed is)?:? N(?: blocks)?",
    )
)
# Of numbers behind these words, those of results and of bytes are no numbers of blocks.
_NO_BLOCKS = re.compile(r"(results|logs per response|max logs|too many logs|bytes|\d ?[mk]b)\b", re.I)
_RETRY_IN = re.compile(r"(?:retry|again|back ?off)\D{0,12}(\d{1,6}(?:\.\d{1,6})?)\s*(ms|s)", re.I)


def of_error(code: int, message: str, data: str = "") -> Fault:
    """The fault that a JSON-RPC error tells of. `data` is its own as text: some put the reason there."""
    text = f"{message[:READ]} {data[:READ]}".strip()
    if code == _REVERTED or text.lower().startswith("execution reverted"):
        return Fault(Kind.REFUSED)  # and a contract chose the words
    if not _NO_LIMIT.search(text):
        if _BATCH.search(text):
            return Fault(Kind.BATCH)
        if _RANGE.search(text):
            suggested = _suggested(text)
            return Fault(Kind.RANGE, blocks=suggested or _blocks(text), suggested=suggested is not None)
    if code in _LIMIT_CODES or _RATE.search(text):
        return Fault(Kind.RATE, _retry_in(text))
    if _TRANSIENT.search(message[:READ]) or _TRANSIENT.search(data[:READ]):
        return Fault(Kind.TRANSIENT, _retry_in(text))
    return Fault(Kind.REFUSED)


def of_status(status: int, retry_after: str = "", now: float = 0.0) -> Fault | None:
    """The fault that an HTTP status tells of by itself; None: its body has to tell.

    `retry_after` is the header of that name, `now` in seconds since 1970.
    """
    pause = seconds_after(retry_after, now)
    if status == 429:
        return Fault(Kind.RATE, pause)
    if status == 413:  # of the request: it holds too many calls
        return Fault(Kind.BATCH)
    if status in (408, 425) or status >= 500:
        return Fault(Kind.TRANSIENT, pause)
    return None


def seconds_after(retry_after: str, now: float) -> float:
    """What a Retry-After header asks for, in seconds from `now` (RFC 9110 §10.2.3), within bounds."""
    try:
        pause = float(retry_after)
    except ValueError:
        try:
            pause = parsedate_to_datetime(retry_after).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return _bounded(pause)


def _retry_in(text: str) -> float:
    if match := _RETRY_IN.search(text):
        return _bounded(float(match[1]) / (1000 if match[2].lower() == "ms" else 1))
    return 0.0


def _bounded(pause: float) -> float:
    return min(pause, LONGEST_RETRY_AFTER) if pause > 0 else 0.0  # neither NaN nor what has passed


def _suggested(text: str) -> int | None:
    for pattern in _SUGGESTED:
        if match := pattern.search(text):
            first, last = (int(number, 0) for number in match.groups())
            return last - first + 1 if last >= first else None
    return None


def _blocks(text: str) -> int | None:
    if _NO_BLOCKS.search(text) and "block range" not in text.lower():
        return None
    for pattern in _BLOCKS:
        if match := pattern.search(text):
            number = int(re.sub(r"[,.]", "", match[1])) * (1000 if match[2] else 1)
            return number or None
    return None

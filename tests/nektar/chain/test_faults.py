"""Real wordings of providers and nodes, each with the kind of fault that it is."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nektar.chain.faults import LONGEST_RETRY_AFTER, Fault, Kind, of_error, of_status, seconds_after

NOW = 1_700_000_000.0

# (who, code, message, data, how many blocks it says that it would serve)
RANGE = [
    (
        "Alchemy",
        -32602,
        "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range and no "
        "limit on the response size, or you can request any block range with a cap of 10K logs in the "
        "response. Based on your parameters and the response size limit, this block range "
        "should work: [0x0, 0x79bcb3]",
        "",
        0x79BCB4,
    ),
    (
        "Alchemy, free",
        -32600,
        "Under the Free tier plan, you can make eth_getLogs requests with up to a 10 block range. Based on "
        "your parameters, this block range should work: [0x1180fca, 0x1180fd3]. Upgrade to PAYG for expanded "
        "block range.",
        "",
        10,
    ),
    ("Alchemy, long ago", -32602, "Log response size exceeded. Please reduce query block range.", "", None),
    ("Infura, results", -32005, "query returned more than 10000 results", "", None),
    (
        "Infura, a range",
        -32005,
        "query returned more than 10000 results. Try with this block range [0x11AD0B2, 0x11AD0B6].",
        "",
        5,
    ),
    ("Infura, blocks", -32602, "range 1000000 exceeds limit of 10000", "", 10_000),
    ("Infura, time", -32005, "query timeout exceeded", "", None),
    ("QuickNode", -32614, "eth_getLogs is limited to a 10,000 range", "", 10_000),
    ("QuickNode, free", -32615, "eth_getLogs is limited to a 5 range", "", 5),
    (
        "QuickNode, filters",
        -32614,
        "eth_getLogs and eth_newFilter are limited to a 10,000 blocks range",
        "",
        10_000,
    ),
    ("1RPC", -32001, "eth_getLogs is limited to 0 - 10000 blocks range", "", 10_000),
    ("1RPC, bytes", -32000, "response size should not greater than 10000000 bytes", "", None),
    ("BlockPI", -32000, "eth_getLogs is limited to 1024 block", "", 1024),
    ("Ankr", -32600, "block range is too wide", "", None),
    ("Ankr, TAC", -32000, "maximum [from, to] blocks distance: 10000", "", 10_000),
    ("Blast", -32600, "query exceeds the range allowed for your plan (5000 > 500)", "", 500),
    (
        "Blast, results",
        -32602,
        "query exceeds max results 20000, retry with the range 22382105-22382515",
        "",
        411,
    ),
    (
        "Chainstack",
        -32002,
        "Block range limit exceeded. See more details at https://docs.chainstack.com",
        "",
        None,
    ),
    (
        "Cloudflare",
        -32047,
        "Invalid eth_getLogs request. 'fromBlock'-'toBlock' range too large. Max range: 800",
        "",
        800,
    ),
    ("Coinbase", -32602, "please limit the query to at most 1,000 blocks", "", 1000),
    ("PublicNode", -32701, "exceed maximum block range: 50000", "", 50_000),
    ("dRPC", 35, "ranges over 10000 blocks are not supported on freetier", "", 10_000),
    ("Merkle", -32000, "eth_getLogs range is too large, max is 1k blocks", "", 1000),
    ("thirdweb", -32602, "Maximum allowed number of requested blocks is 1000", "", 1000),
    (
        "Tenderly",
        -32602,
        "invalid params",
        '{"payload":"range 9009594 is bigger than range limit 2000"}',
        2000,
    ),
    ("LlamaRPC", -32000, "query exceeds max results 20000", "", None),
    ("eRPC", -32012, "getLogs request exceeded max allowed range", "", None),
    ("Valtitude", -32000, "allowed block range threshold exceeded", "", None),
    ("Avalanche", -32000, "requested too many blocks from 1 to 5000, maximum is set to 2048", "", 2048),
    ("Moonriver", -32603, "block range is too wide (maximum 1024)", "", 1024),
    ("Aurora", -32602, "you can make requests with up to a 2,000 block range", "", 2000),
    ("Harmony", -32000, "query must be smaller than size 1024", "", 1024),
    ("Hyperliquid", -32602, "query exceeds max block range 1000", "", 1000),
    ("Somnia", -32000, "block range exceeds 1000", "", 1000),
    ("Swell", -32000, "block range greater than 10000 max", "", 10_000),
    ("Tron", -32000, "exceed max block range: 5000", "", 5000),
    ("Arbitrum", -32000, "logs matched by query exceeds limit of 10000", "", None),
    ("Base, Optimism", -32020, "backend response too large", "", None),
    ("Optimism", -32000, "Block range is too large", "", None),
    ("Soneium", -32000, "response is too big", "", None),
    ("Monad", -32614, "block range too large", "", None),
    ("geth, a batch's answer", -32003, "response too large", "", None),
    ("BSC's geth", -32000, "exceed maximum block range: 5000", "", 5000),
    ("Erigon", -32000, "query block range exceeds server limit, narrow your filter: 1000", "", 1000),
    ("Erigon, logs", -32000, "query returns too many logs, narrow your filter: 20000", "", None),
    ("Nethermind", -32005, "Too many logs requested. Max logs per response is 20000.", "", None),
    ("Besu", -32005, "Requested range exceeds maximum RPC range limit", "", None),
    ("reth", -32602, "query exceeds max block range 100000", "", 100_000),
    ("Arc", -32012, "requested range too large", "", None),
    ("Telos", -32000, "query exceeds max results 10000", "", None),
]
RATE = [
    (
        "Alchemy",
        429,
        "Your app has exceeded its compute units per second capacity. If you have retries enabled…",
        0,
    ),
    ("Alchemy, the month", 429, "Monthly capacity limit exceeded. Visit https://dashboard.alchemy.com", 0),
    ("Infura", -32005, "daily request count exceeded, request rate limited", 0),
    ("Infura, a second", -32005, "project ID request rate exceeded", 0),
    (
        "QuickNode",
        -32007,
        "50/second request limit reached - reduce calls per second or upgrade your account",
        0,
    ),
    ("Ankr", -32029, "Too many requests, please apply an API key", 0),
    ("Base's and Optimism's proxyd", -32016, "over rate limit", 0),
    ("proxyd, a sender", -32017, "sender is over rate limit", 0),
    ("LlamaRPC", -32005, "Rate limit exceeded", 0),
    ("1RPC", -32001, "You have exceeded your usage limit, upgrade your plan", 0),
    ("PublicNode", -32000, "call rate limit exhausted, retry in 10s", 10),
    ("Chainstack", -32005, "You've exceeded the RPS limit available on the current plan.", 0),
    ("Blast", -32005, "limit exceeded", 0),
    ("Cloudflare", 429, "You are being rate limited. Try again in 250ms", 0.25),
    ("EIP-1474, and no words", -32005, "", 0),
]
TRANSIENT = [
    ("geth", -32002, "request timed out", 0),
    ("Erigon", -32000, "context deadline exceeded", 0),
    ("Nethermind", -32603, "Internal error", 0),
    ("proxyd", -32011, "no backend is currently healthy to serve traffic", 0),
    ("proxyd, busy", -32000, "server is busy", 0),
    ("dRPC", 19, "Temporary internal error. Please retry, trace-id: 0123", 0),
    ("dRPC, time", 30, "Request timeout on the free tier, please upgrade your tier to the paid one", 0),
    ("Infura", -32603, "service temporarily unavailable; retry after 3s", 3),
    ("Cloudflare", -32000, "Bad Gateway", 0),
]
BATCH = [
    ("geth", -32600, "batch too large"),
    ("Besu", -32005, "Number of requests exceeds max batch size"),
    ("dRPC", 31, "Batch of more than 3 requests are not allowed on free tier"),
    ("Nethermind", -32005, "Batch size limit exceeded"),
    ("PublicNode", -32600, "maximum batch size is 10"),
    ("a proxy", -32600, "batch requests are not supported"),
    ("jsonrpsee", -32005, "Batched requests are not supported by this server"),
    ("jsonrpsee, a size", -32010, "The batch request was too large"),
]
REFUSED = [
    ("geth", -32601, "the method eth_getBlockReceipts does not exist/is not available"),
    ("geth, pruned", 4444, "pruned history unavailable"),
    ("geth, a range", -32000, "invalid block range params"),
    ("geth, the head", -32000, "block range extends beyond current head block"),
    ("geth, state", -32000, "missing trie node 0xabc (path ) state 0xabc is not available"),
    ("a receipt", -32000, "missing receipts: pruned"),
    ("a header", -32000, "header not found"),
    ("proxyd", -32019, "block is out of range"),
    ("a revert", 3, "execution reverted: rate limit exceeded"),
    ("a revert, by an old node", -32000, "execution reverted: too many requests"),
    ("params", -32602, "invalid argument 0: hex string without 0x prefix"),
    ("money", -32000, "insufficient funds for gas * price + value"),
    ("archive", -32000, "Archive requests require a personal token"),
]


@pytest.mark.parametrize(
    ("code", "message", "data", "blocks"), [each[1:] for each in RANGE], ids=[e[0] for e in RANGE]
)
def test_a_range_limit_is_told_with_the_blocks_that_would_be_served(
    code: int, message: str, data: str, blocks: int | None
) -> None:
    suggested = re.search(r"\[0x|retry with the range", message) is not None
    assert of_error(code, message, data) == Fault(Kind.RANGE, blocks=blocks, suggested=suggested)


@pytest.mark.parametrize(("code", "message", "pause"), [each[1:] for each in RATE], ids=[e[0] for e in RATE])
def test_a_rate_limit_is_told(code: int, message: str, pause: float) -> None:
    assert of_error(code, message) == Fault(Kind.RATE, pause)


@pytest.mark.parametrize(
    ("code", "message", "pause"), [e[1:] for e in TRANSIENT], ids=[e[0] for e in TRANSIENT]
)
def test_a_transient_fault_is_told(code: int, message: str, pause: float) -> None:
    assert of_error(code, message) == Fault(Kind.TRANSIENT, pause)


@pytest.mark.parametrize(("code", "message"), [each[1:] for each in BATCH], ids=[e[0] for e in BATCH])
def test_a_batch_that_is_too_large_is_told(code: int, message: str) -> None:
    assert of_error(code, message) == Fault(Kind.BATCH)


@pytest.mark.parametrize(("code", "message"), [each[1:] for each in REFUSED], ids=[e[0] for e in REFUSED])
def test_a_refusal_is_told(code: int, message: str) -> None:
    assert of_error(code, message) == Fault(Kind.REFUSED)


@pytest.mark.parametrize(
    ("status", "retry_after", "fault"),
    [
        (200, "", None),
        (400, "", None),
        (401, "", None),
        (408, "", Fault(Kind.TRANSIENT)),
        (413, "", Fault(Kind.BATCH)),
        (429, "", Fault(Kind.RATE)),
        (429, "7", Fault(Kind.RATE, 7)),
        (429, "0.5", Fault(Kind.RATE, 0.5)),
        (500, "", Fault(Kind.TRANSIENT)),
        (502, "", Fault(Kind.TRANSIENT)),
        (503, "2", Fault(Kind.TRANSIENT, 2)),
        (524, "", Fault(Kind.TRANSIENT)),
    ],
)
def test_a_status_tells_by_itself_what_it_can(status: int, retry_after: str, fault: Fault | None) -> None:
    assert of_status(status, retry_after, NOW) == fault


@pytest.mark.parametrize(
    ("header", "pause"),
    [
        ("30", 30.0),
        ("86400", LONGEST_RETRY_AFTER),
        ("-1", 0.0),
        ("nan", 0.0),
        ("inf", LONGEST_RETRY_AFTER),
        ("soon", 0.0),
        ("Tue, 14 Nov 2023 22:13:40 GMT", 20.0),  # 20 seconds after NOW
        ("Tue, 14 Nov 2023 22:13:10 GMT", 0.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", LONGEST_RETRY_AFTER),
    ],
)
def test_retry_after_is_heeded_within_bounds(header: str, pause: float) -> None:
    assert seconds_after(header, NOW) == pause


@given(code=st.integers(), message=st.text(), data=st.text(), header=st.text())
def test_whatever_a_stranger_says_is_some_fault(code: int, message: str, data: str, header: str) -> None:
    fault = of_error(code, message, data)
    assert fault.blocks is None or fault.blocks > 0
    pause = seconds_after(header, NOW)
    assert math.isfinite(pause)
    assert 0 <= pause <= LONGEST_RETRY_AFTER

"""Commands about evidence: `evidence`, `verify`, `dispute`. `verify` needs neither store, bus nor network."""

from __future__ import annotations

import json
import sys
from collections.abc import Container, Sequence
from pathlib import Path

from cli.settings import read_config
from nektar import config as configuration
from nektar import plugins
from nektar.config import ConfigError
from nektar.errors import NektarError
from nektar.evidence import bundle as bundles
from nektar.evidence.bundle import Bundle
from nektar.evidence.canonical import NotCanonical
from nektar.evidence.reader import reader_of
from nektar.evidence.verify import NotProved, Predicate, Reader, Verdict
from nektar.evidence.verify import verify as verdict_on
from nektar.model import Address, Hash32
from processors.conditions.condition import Challenges, Condition

_CONDITIONS = "nektar.conditions"


class Refused(NektarError):
    """The evidence proves nothing to this reader."""


class OtherChain(NektarError):
    """The evidence proves what it says, on blocks that are not the chain's."""

    exit_code = 3


class Unchecked(NektarError):
    """The evidence was not checked, or not its blocks: nothing is said about it."""

    exit_code = 4


class NoEvidence(NektarError):
    """The store has no bundle for this finding."""


def evidence(finding: str, out: Path | None, config_path: Path | None, directory: Path | None) -> None:
    """Write a finding's bundle to a file or, without one, to stdout."""
    text = _bundle_of(finding, config_path, directory)
    if out is None:
        sys.stdout.buffer.write(text)
        return
    out.write_bytes(text)
    print(f"{out}: {len(text)} bytes; `nektar verify {out}` checks it, without this machine")


def verify(
    file: Path,
    config_path: Path | None,
    directory: Path | None,
    network: str | None,
    chain_id: int | None,
    contracts: Sequence[str],
    code: Sequence[str],
    terms: Sequence[str],
    rpc: str | None,
    block_hashes: Sequence[str],
    as_json: bool,
) -> None:
    """Check a bundle offline, and its blocks against hashes or a provider where these are given.

    Raises Refused; OtherChain, where a block is not the chain's; Unchecked, ConfigError.
    """
    known = {_hex("--block-hash", each, 32) for each in block_hashes}
    url = None if rpc is None else _url(configuration.resolve(rpc, "--rpc"))
    try:
        bundle = bundles.read(_read(file))
    except NotCanonical as error:
        raise Refused(f"{file}: refused: {error}") from error
    reader = (
        _told(chain_id, contracts, code, terms)
        if chain_id is not None or contracts
        else _configured(bundle, config_path, directory, network)
    )
    try:
        verdict = verdict_on(bundle, reader, _predicate)
    except (NotProved, NektarError) as error:
        raise Refused(f"{file}: refused: {error}") from error
    checked = ""
    if known:
        _check_hashes(verdict, known)
        checked = "as given"
    if url is not None:
        _check_rpc(verdict, url, reader.chain_id)
        checked = "as the provider says"
    _show(verdict, checked, as_json)


def _read(file: Path) -> bytes:
    """What is in the file, or as much of it as shows that it is too large. Raises Unchecked."""
    most = bundles.MAX_BYTES + 1
    if str(file) == "-":
        return sys.stdin.buffer.read(most)
    try:
        with file.open("rb") as opened:
            return opened.read(most)
    except OSError as error:
        raise Unchecked(f"{file}: can't be read: {error.strerror}; name the bundle's file") from error


def dispute(finding: str, challenge: bool, config_path: Path | None, directory: Path | None) -> None:
    """Print the unsigned transaction that proves a finding to the slashing contract, or that overturns the
    response that it is about."""
    bundle = bundles.read(_bundle_of(finding, config_path, directory))
    reader = _configured(bundle, config_path, directory, None)
    verdict_on(bundle, reader, _predicate)
    condition: Condition = plugins.load(_CONDITIONS, bundle.condition)()
    if challenge:
        call = condition.challenge(bundle) if isinstance(condition, Challenges) else None
    else:
        call = condition.dispute(bundle) if condition.dispute else None
    if call is None:
        what = "there is no response to overturn" if challenge else "the contracts have no proof of it"
        raise NoEvidence(f"{bundle.condition}: {what}; nothing can be sent")
    if call.contract not in reader.contracts:
        raise ConfigError(f"contracts: expected {call.contract}, to which the proof goes; it is missing")
    transaction = {
        "chainId": hex(reader.chain_id),
        "data": "0x" + call.calldata.hex(),
        "to": "0x" + reader.contracts[call.contract].hex(),
        "value": "0x0",
    }
    print(json.dumps(transaction))


def _bundle_of(finding: str, config_path: Path | None, directory: Path | None) -> bytes:
    from nektar.store.client import records

    config, _ = read_config(config_path, directory)
    head, _, tail = finding.lower().partition("…")  # as tables show it
    found = records(
        config,
        """
        SELECT id, bundle, missing FROM evidence
        WHERE startsWith(id, {head:String}) AND endsWith(id, {tail:String}) LIMIT 2
        """,
        head=head if head.startswith("0x") else f"0x{head}",
        tail=tail,
    )
    if len({row["id"] for row in found}) != 1:
        what = "several findings begin so" if found else "the store has no evidence for it (yet)"
        raise NoEvidence(f"finding {finding}: expected the id of one whose evidence is made; {what}")
    if missing := found[0]["missing"]:
        raise NoEvidence(f"finding {finding}: there is no evidence for it: {missing}")
    return str(found[0]["bundle"]).encode()


def _predicate(condition: str) -> Predicate:
    """Raises UnknownPlugin."""
    holds: Predicate = plugins.load(_CONDITIONS, condition)().holds
    return holds


def _configured(bundle: Bundle, config_path: Path | None, directory: Path | None, name: str | None) -> Reader:
    """What nektar.yaml says of the Network that is named, or of the one that the bundle is about."""
    config, _ = read_config(config_path, directory)
    readers = {each.name: reader_of(each) for each in config.networks}
    if name is not None:
        return readers[config.network(name).name]
    about = [
        reader
        for reader in readers.values()
        if reader.chain_id == bundle.chain_id
        and all(reader.contracts.get(each) == bytes(at) for each, at in bundle.contracts.items())
    ]
    if about:
        return about[0]
    if len(readers) == 1:
        return next(iter(readers.values()))
    raise Refused(
        f"the bundle is about none of the configured Networks ({', '.join(readers)}): its chain id is "
        f"{bundle.chain_id}, its contracts are "
        + ", ".join(f"{each} 0x{at.hex()}" for each, at in bundle.contracts.items())
    )


def _told(
    chain_id: int | None, contracts: Sequence[str], code: Sequence[str], terms: Sequence[str]
) -> Reader:
    """A reader of what the command line says."""
    if chain_id is None or not contracts:
        raise ConfigError("expected --chain-id and --contract together, or a nektar.yaml")
    addresses = {name: Address(octets) for name, octets in _octets("--contract", contracts, 20).items()}
    hashes = {name: Hash32(octets) for name, octets in _octets("--code", code, 32).items()}
    numbers = {}
    for each in terms:
        name, _, number = each.partition("=")
        if not (number.isascii() and number.isdecimal()):
            raise ConfigError(f"--term: expected NAME=NUMBER; got {each!r}")
        numbers[name] = int(number)
    return Reader(chain_id, addresses, hashes, numbers)


def _octets(option: str, given: Sequence[str], size: int) -> dict[str, bytes]:
    """What NAME=0x… says. Raises ConfigError."""
    named = (each.partition("=") for each in given)
    return {name: _hex(f"{option} {name}", value, size) for name, _, value in named}


def _hex(option: str, given: str, size: int) -> bytes:
    """Raises ConfigError."""
    try:
        found = bytes.fromhex(given.removeprefix("0x"))
    except ValueError:
        found = b""
    if len(found) != size:
        raise ConfigError(f"{option}: expected 0x… with {size} bytes; got {given!r}")
    return found


def _url(given: str) -> str:
    """Raises ConfigError, without what was given: it may hold a key."""
    if not given.startswith(("http://", "https://")):
        raise ConfigError("--rpc: expected a URL that begins with http:// or https://")
    return given


def _check_hashes(verdict: Verdict, known: Container[bytes]) -> None:
    for block in verdict.canonical:
        if block.hash not in known:
            raise OtherChain(
                f"block {block.number}: the evidence rests on 0x{block.hash.hex()}, which is none of the "
                "--block-hash that were given"
            )


def _check_rpc(verdict: Verdict, url: str, chain_id: int) -> None:
    import asyncio

    from nektar.chain.jsonrpc import Malformed, octets, parse_object
    from nektar.chain.rpc import Call, Provider, RpcError, check_chain_id

    async def ask() -> list[bytes | None]:
        async with Provider("--rpc", url) as provider:
            await check_chain_id(provider, chain_id)
            answers = await provider.batch(
                [Call("eth_getBlockByNumber", (hex(block.number), False)) for block in verdict.canonical]
            )
        return [None if each is None else octets(parse_object(each, "block"), "hash", 32) for each in answers]

    try:
        answers = asyncio.run(ask())
    except (RpcError, Malformed) as error:
        raise Unchecked(
            f"the evidence proves what it says; whether on the chain's blocks is open: {error}"
        ) from error
    for block, said in zip(verdict.canonical, answers, strict=True):
        about = f"block {block.number}: the evidence rests on 0x{block.hash.hex()}; the provider"
        if said is None:
            raise Unchecked(f"{about} has none of that number, or not yet")
        if said != block.hash:
            raise OtherChain(f"{about} has 0x{said.hex()}")


def _show(verdict: Verdict, checked: str, as_json: bool) -> None:
    blocks = [{"number": block.number, "hash": f"0x{block.hash.hex()}"} for block in verdict.canonical]
    said = {
        "proved": True,
        "condition": verdict.condition,
        "operator": f"0x{verdict.accused.operator.hex()}",
        "subject": f"0x{verdict.accused.subject.hex()}",
        "finding": f"0x{verdict.id.hex()}",
        "blocks": blocks,
        "blocks_checked": bool(checked),
    }
    if as_json:
        print(json.dumps(said))
        return
    print(f"proved: {verdict.condition} by {said['operator']}")
    print(f"  about   {said['subject']}\n  finding {said['finding']}")
    how = f"on blocks of the chain, {checked}" if checked else "if these blocks are the chain's (see --rpc)"
    print(f"  {how}:")
    for block in blocks:
        print(f"    {block['number']:>10}  {block['hash']}")

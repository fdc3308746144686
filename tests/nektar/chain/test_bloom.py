from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from nektar.chain.bloom import bloom, may_contain, union
from nektar.chain.receipt import read_entry
from nektar.model import Address, Hash32
from tests.nektar.chain.blocks import corpora


class Seen(msgspec.Struct, frozen=True):
    address: Address
    topics: tuple[Hash32, ...] = ()


LOGS = st.lists(
    st.builds(
        Seen,
        st.binary(min_size=20, max_size=20),
        st.lists(st.binary(min_size=32, max_size=32), max_size=4).map(tuple),
    ),
    max_size=8,
)


@given(LOGS)
def test_what_was_logged_is_never_excluded(logs: list[Seen]) -> None:
    whole = bloom(logs)
    for log in logs:
        assert all(may_contain(whole, item) for item in (log.address, *log.topics))


@given(LOGS, LOGS)
def test_the_bloom_of_all_is_the_union_of_the_blooms(some: list[Seen], others: list[Seen]) -> None:
    assert union([bloom(some), bloom(others)]) == bloom(some + others)


def test_an_empty_bloom_excludes_everything() -> None:
    assert bloom([]) == bytes(256)
    assert not may_contain(bytes(256), b"anything")


def test_real_blooms_follow_from_their_logs() -> None:
    for given_ in corpora():
        logs = [read_entry(log) for receipt in given_.receipts for log in receipt["logs"]]
        assert "0x" + bloom(logs).hex() == given_.block["logsBloom"], given_.name

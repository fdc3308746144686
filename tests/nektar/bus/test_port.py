"""Where a Network lies: Kafka's own partitioner, on Kafka's own vectors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nektar.bus.port import murmur2, partition_of


@pytest.mark.parametrize(
    ("data", "signed"),
    [  # org.apache.kafka.common.utils.UtilsTest.testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(data: bytes, signed: int) -> None:
    assert murmur2(data) == signed & 0xFFFFFFFF


@given(st.text(), st.integers(1, 64))
def test_a_network_lies_in_a_partition_that_exists(network: str, partitions: int) -> None:
    assert 0 <= partition_of(network, partitions) < partitions

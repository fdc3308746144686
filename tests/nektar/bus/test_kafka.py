"""The contract on Apache Kafka, and what only Kafka has to show."""

from __future__ import annotations

import itertools

import pytest

from tests.nektar.bus.contract import BusContract

pytestmark = pytest.mark.real

_n = itertools.count()


@pytest.fixture
def bus_url(kafka_url: str) -> str:
    return f"{kafka_url}?prefix=t{next(_n)}.&lease=0.5&partitions=3"


class TestKafkaBus(BusContract):
    """The contract, held by Kafka."""

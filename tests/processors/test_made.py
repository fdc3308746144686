"""What stands on the bus for each finding, of each generation, is what was put out last."""

from __future__ import annotations

import random
from pathlib import Path

from nektar import bus as buses
from nektar.log import PART_BYTES
from nektar.model import Network
from nektar.rows import Change
from processors import docket, outputs
from processors.made import Made
from processors.prosecutor import NAME
from tests.processors.told import finding
from tests.seeds import seeds

SIZES = (10, PART_BYTES * 2)  # the second of which travels in parts


def test_the_bundle_of_a_generation_and_the_newest_are_found_however_they_came_and_went(
    tmp_path: Path,
) -> None:
    for seed in range(seeds(3, 20)):
        rng = random.Random(f"made {seed}")
        bus = buses.open(f"sqlite://{tmp_path / str(seed)}?partitions=1")
        made, stands = Made(bus, "home"), dict[tuple[bytes, int], str]()
        with bus.writer("test", 0) as writer:
            for _ in range(20):
                of, generation, name = (
                    finding(rng.randrange(3)),
                    rng.randint(1, 3),
                    rng.choice(["home", "away"]),
                )
                what = rng.choice(["made", "made", "missing", "gone"])
                bundle = rng.randbytes(4).hex() * rng.choice(SIZES) if what == "made" else ""
                row = docket.evidence(of, bundle, "it is" if what == "missing" else "")
                change = Change(row, None) if what == "gone" else Change(None, row)
                writer.transaction(outputs.messages(Network(name, 1, {}, generation), NAME, 0, [change]))
                if name == "home":
                    stands[of.id, generation] = bundle
                if rng.random() < 0.3:
                    made.read_on()
        while made.read_on():
            pass
        for id_ in (finding(n).id for n in range(3)):
            of_it = {g: bundle for (each, g), bundle in stands.items() if each == id_ and bundle}
            assert {g: made.of(id_, g) for g in range(1, 4)} == {g: of_it.get(g, "") for g in range(1, 4)}
            assert made.newest(id_) == (of_it[max(of_it)] if of_it else "")
        bus.close()

"""The role prosecutor in a process of its own, which ends when its proofs are accepted, or by SIGKILL right
after so many transactions. `python -m tests.processors.dying_prosecutor BUS CONFIG DIES_AFTER`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from nektar import bus as buses
from nektar.config import Config
from processors import prosecutor
from processors.conditions.equivocation import Equivocation
from processors.followed import network_of
from processors.prosecutor import Prosecutor
from processors.proving import Work
from tests.processors.real_chain import ADAPTER

PROVED = 2


def main() -> None:
    url, file, dies_after = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    config = msgspec.json.decode(file.read_bytes(), type=Config)
    written = 0

    class Dying(prosecutor._Share):
        def commit(self) -> None:
            nonlocal written
            anything = bool(self._touched)
            super().commit()
            written += anything
            if written == dies_after and dies_after:
                os.kill(os.getpid(), signal.SIGKILL)

    prosecutor._Share = Dying  # type: ignore[misc]
    bus: Any = buses.open(url)
    work = Work(config, {"home": ADAPTER}, {"equivocation": Equivocation()}, bus)
    with work, Prosecutor(bus, work) as role:
        work.look([network_of(config.networks[0])])
        while not (role._shares and _all_closed(role)):
            role.turn(0.02)
    bus.close()


def _all_closed(role: Prosecutor) -> bool:
    cases = [case for share in role._shares.values() for case in share._cases.values()]
    return len(cases) == PROVED and all(case.closed for case in cases)


if __name__ == "__main__":
    main()

"""How a role's process is told to stop."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# The signal comes at the worst moment: the main thread is within the event, whose lock it holds.
CODE = """
import signal, sys
from nektar.role import stop_on_signals
stop = stop_on_signals()
with stop._cond:
    signal.raise_signal(int(sys.argv[1]))
    signal.raise_signal(int(sys.argv[1]))
sys.exit(0 if stop.wait(30) else 1)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_process_whatever_it_is_at(number: signal.Signals) -> None:
    done = subprocess.run([sys.executable, "-c", CODE, str(int(number))], timeout=60, check=False)
    assert done.returncode == 0

"""`python -m tests.cluster.brittle ROLE ...`: a role that certain requests hurt, else as any other.

A request with seed SLOW makes one step last as long as the environment says; one with seed DEADLY
kills every worker that runs a step with it.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from epd.cli.main import main
from epd.engine import Engine, EngineRequest, StepResult

SLOW, DEADLY = 777, 666
SECONDS = "EPD_TEST_STEP_S"

_start, _step = Engine.start, Engine.step
_seeds: set[int | None] = set()


def start(self: Engine, request: EngineRequest) -> None:
    """As the engine does."""
    _start(self, request)
    _seeds.add(request.sampling.seed)


def step(self: Engine, *, hold: bool = False) -> StepResult:
    """The next step after such a request has come has it in it."""
    if DEADLY in _seeds:
        os.kill(os.getpid(), signal.SIGKILL)
    if SLOW in _seeds:
        _seeds.discard(SLOW)
        time.sleep(float(os.environ[SECONDS]))
    return _step(self, hold=hold)


if __name__ == "__main__":
    Engine.start, Engine.step = start, step  # type: ignore[method-assign]
    sys.exit(main(sys.argv[1:]))

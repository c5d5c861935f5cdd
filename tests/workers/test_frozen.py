"""Objects that live as long as a process are not looked at by collections."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc, sys, weakref
from epd.workers.heap import freeze_objects

class Loop:
    def __init__(self):
        self.me = self

before, later = Loop(), None
freeze_objects()
assert gc.get_freeze_count() > 1000
later, ends = Loop(), []
weakref.finalize(later, ends.append, 1)
later = None
assert not ends
gc.collect()
assert ends, "what came later is still collected"
"""


def test_what_is_there_when_a_process_is_ready_is_frozen_and_the_rest_is_not() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=60)

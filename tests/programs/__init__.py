"""Programs of epd as tests run them: `python -m epd ...`, but torch is imported once for all.

A process that has imported what workers import, and does nothing else, makes each of them as a copy
of itself. What a program does from its first line on is the same. The files that are about starting
(tests/cluster/test_start_and_stop.py, tests/llm, tests/launch) run the command itself.
"""

from __future__ import annotations

from tests.programs.program import Done, Program, said

__all__ = ["Done", "Program", "said"]

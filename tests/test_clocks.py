"""No decision reads the wall clock, which jumps: leases, deadlines and timers are monotonic."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "epd"

WALL_CLOCK = {
    "time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime", "time.strftime",
    "datetime.now", "datetime.utcnow", "datetime.today", "date.today",
}  # fmt: skip

SHOWN_ONLY = {
    "bench/load.py": "when a load test began",
    "cli/runtime.py": "compared with the files' own times",
    "gateway/responses/shape.py": "`created_at` and `completed_at` of a response",
    "gateway/shapes/openai.py": "`created` of an answer",
    "observe/": "what is written down",
    "workers/gateway.py": "`created` of the model",
}
"""Files and rooms that may read it, and what for."""


def readers(package: Path) -> set[str]:
    """Files that name a function of the wall clock."""
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if wall_clock(node):
                found.add(path.relative_to(package).as_posix())
    return found


def wall_clock(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return ".".join(ast.unparse(node).split(".")[-2:]) in WALL_CLOCK
    if isinstance(node, ast.ImportFrom):
        return any(f"{node.module}.{name.name}" in WALL_CLOCK for name in node.names)
    return False


def test_only_what_is_shown_to_people_reads_the_wall_clock() -> None:
    assert [found for found in readers(PACKAGE) if not found.startswith(tuple(SHOWN_ONLY))] == []


def test_every_way_to_read_it_is_found(tmp_path: Path) -> None:
    """The control: each of these would be seen."""
    ways = ("import time\ntime.time()", "from time import time", "datetime.datetime.now()")
    for number, way in enumerate(ways):
        (tmp_path / f"{number}.py").write_text(way)
    (tmp_path / "fine.py").write_text("import time\ntime.monotonic()\ntime.sleep(1)")
    assert readers(tmp_path) == {"0.py", "1.py", "2.py"}

"""The command of this package."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import bench.micro
from bench.micro import pictures, programs, pure, steps
from bench.micro.figures import Figure, table
from bench.serving import hardware
from bench.serving.cluster import NotMeasured

RESULTS = Path(__file__).parent.parent / "results"
PARTS: dict[str, Callable[[], list[Figure]]] = {
    "steps": steps.figures,
    "pure": pure.figures,
    "pictures": pictures.figures,
    "programs": programs.figures,
}


def main() -> int:
    """Measure, compare, report; 2 where a part could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.micro",
        description=bench.micro.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: list[Figure] = []
    try:
        for part in args.only:
            print(f"measuring {part}", file=sys.stderr)
            found += PARTS[part]()
    except NotMeasured as error:
        print(f"bench.micro: {error}", file=sys.stderr)
        return 2
    facts = hardware.facts()
    print(table(found, committed(RESULTS, facts["hardware"])), file=sys.stderr)
    head = {"question": "micro", "command": sys.argv[1:], **facts, "workload": vars(args)}
    print(json.dumps({**head, "figures": [asdict(one) for one in found]}))
    return 0


def committed(folder: Path, machine: Mapping[str, Any]) -> dict[str, float]:
    """Microseconds by name, of the newest result of the same processor and number of cores."""
    for file in sorted(folder.glob("micro_*.json"), key=lambda one: one.stem[-10:], reverse=True):
        said = json.loads(file.read_text())
        if all(said["hardware"][key] == machine[key] for key in ("cpu", "cores")):
            return {one["name"]: one["us"] for one in said["figures"]}
    return {}


if __name__ == "__main__":
    sys.exit(main())

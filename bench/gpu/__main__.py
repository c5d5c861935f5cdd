"""The command of this package: plan the jobs, run them, report. `--help` lists what can be set."""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bench.gpu
from bench.gpu.driver import card_facts
from bench.gpu.jobs import Found, run_jobs
from bench.gpu.plan import LIMIT_S, SECTIONS, TOPOLOGIES, Choice, plan_jobs
from bench.gpu.rows import table
from bench.gpu.shape import REAL, TINY
from bench.serving import hardware

BEGAN = datetime.now(UTC)
RESULTS = Path(__file__).resolve().parent.parent / "results"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 1 when a test or a part failed or tests did not come to their end.

    A target that is missed, and what there was no time to measure, are only reported.
    """
    args = _parser().parse_args(argv)
    began = time.monotonic()
    folder = args.out or (None if args.dry_run else RESULTS)
    machine = {"card": card_facts(), **hardware.facts()}

    def keep(found: Found) -> None:
        if folder is not None:
            _write(folder, _result(args, machine, found, time.monotonic() - began))

    with tempfile.TemporaryDirectory(prefix="epd-gpu-", dir=args.work) as work:
        choice = Choice(
            work=Path(work),
            dry=args.dry_run,
            device=args.device or ("cpu" if args.dry_run else "cuda"),
            sections=args.sections,
            models=args.models,
            topologies=args.topologies,
        )
        found = run_jobs(plan_jobs(choice), limit_s=args.limit_s, log=_say, keep=keep)
    result = _result(args, machine, found, time.monotonic() - began)
    if folder is not None:
        _say(f"written: {_write(folder, result)}")
    failed = [fault for fault in found.faults if not fault.late]
    for fault in failed:
        _say(f"{fault.section} {fault.model} failed: {fault.reason}")
    if args.dry_run:
        _say("a dry run: what follows says that everything runs, and nothing else")
    print(table(found.rows, found.faults))
    return int(bool(failed))


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description=bench.gpu.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = found.add_argument
    add("--dry-run", action="store_true", help="tiny shapes; numbers mean nothing")
    add("--device", help="as torch names it; cuda unless set, in a dry run cpu")
    add("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    add("--models", nargs="+", choices=[*REAL, *TINY], default=[], help="all real ones unless set")
    add("--topologies", nargs="+", choices=TOPOLOGIES, default=list(TOPOLOGIES))
    add("--limit-s", type=float, default=LIMIT_S, help="of everything together")
    add(
        "--work", type=Path, help="folder for checkpoints, without weights; the system's unless set"
    )
    add(
        "--out",
        type=Path,
        help="folder for the JSON file; bench/results unless set, none in a dry run",
    )
    return found


def _result(
    args: argparse.Namespace, machine: dict[str, Any], found: Found, seconds: float
) -> dict[str, Any]:
    return {
        "question": "gpu",
        "command": sys.argv[1:],
        "when": BEGAN.isoformat(timespec="seconds"),
        "dry_run": args.dry_run,
        **machine,
        "workload": {key: str(value) for key, value in vars(args).items()},
        "seconds": round(seconds, 1),
        "seconds_by_job": found.seconds,
        "facts": found.facts,
        "rows": [row.shown() for row in found.rows],
        "faults": [
            {"section": f.section, "model": f.model, "reason": f.reason, "late": f.late}
            for f in found.faults
        ],
    }


def _write(folder: Path, result: dict[str, Any]) -> Path:
    name = result["card"].get("name") or result["hardware"]["cpu"]
    slug = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
    file = folder / f"gpu_{slug}_{result['when'][:10]}.json"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result) + "\n")
    return file


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

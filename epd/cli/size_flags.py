"""The flags of `epd size`: a workload, and the hardware of one worker."""

from __future__ import annotations

import argparse


def add_size(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command with its flags."""
    size = commands.add_parser(
        "size",
        help="work, bytes and workers per stage that a workload takes, by arithmetic",
        description="Compute from config.json alone what a workload takes of each stage, and the "
        "ratio of workers that follows.",
    )
    size.add_argument("model", metavar="MODEL", help="folder with a config.json; no weights needed")
    what = size.add_argument_group("workload")
    what.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="SIZE",
        help="of each request: 480p, 720p, 1080p, 4k or WIDTHxHEIGHT; 1080p*4 for four",
    )
    what.add_argument(
        "--video",
        action="append",
        default=[],
        metavar="SIZE:FRAMES",
        help="and a video of which so many frames are taken, such as 720p:16",
    )
    what.add_argument(
        "--audio", action="append", default=[], type=float, metavar="SECONDS", help="and a sound"
    )
    _number(what, "--text", 64, "tokens of text in a prompt", whole=True)
    _number(what, "--output", 150, "tokens of an answer", whole=True)
    _number(what, "--rate", 1.0, "requests per second")
    _number(what, "--batch", 32, "answers that a decode worker computes together", whole=True)
    on = size.add_argument_group("one worker's hardware, of all its ranks (one H100 unless said)")
    _number(on, "--tp", 1, "ranks that one has of the language model", whole=True)
    _number(on, "--tflops", 990.0, "dense peak in the model's dtype")
    _number(on, "--memory-tbytes", 3.35, "TB/s of memory")
    _number(on, "--link-gbits", 25.0, "network between workers")
    _number(on, "--encode-share", 0.45, "of the peak that towers reach")
    _number(on, "--prefill-share", 0.55, "of the peak that prefill reaches")
    _number(on, "--busy", 0.7, "of the time that workers may be busy")
    size.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    size.set_defaults(handler=_size)


def _number(
    group: argparse._ArgumentGroup, flag: str, default: float, text: str, *, whole: bool = False
) -> None:
    kind = int if whole else float
    group.add_argument(
        flag, type=kind, default=default, metavar="N", help=f"{text} (default {default:g})"
    )


def _size(args: argparse.Namespace) -> int:
    from epd.cli.size import size

    return size(args)

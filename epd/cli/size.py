"""`epd size`: what a workload takes of each stage, as a table or as JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence

from epd.errors import ConfigError
from epd.sizing import (
    Estimate,
    Item,
    Machine,
    Sound,
    Workload,
    estimate,
    parse_picture,
    parse_video,
    read_shapes,
)
from epd.sizing.estimate import described

HEAD = ("STAGE", "TFLOP", "MS", "SENDS", "MS AT LINK", "GBIT/S", "TO HIDE", "LOAD", "WORKERS")
NOTE = """\
per request, but GBIT/S, LOAD (workers that are always busy) and WORKERS, which are at the rate.
TO HIDE: Gbit/s at which sending takes no longer than the stage's work. Times are arithmetic, not
measurements: no queues, decoding of files, preprocessing, sums over ranks or cache hits; items of a
request one after the other."""


def size(args: argparse.Namespace) -> int:
    """Print it. ConfigError for a number that makes no sense."""
    for flag in ("rate", "batch", "output", "tp", "tflops", "memory_tbytes", "link_gbits"):
        if getattr(args, flag) <= 0:
            raise ConfigError(f"--{flag.replace('_', '-')} is {getattr(args, flag)}, not above 0")
    for flag in ("encode_share", "prefill_share", "busy"):
        if not 0 < getattr(args, flag) <= 1:
            raise ConfigError(f"--{flag.replace('_', '-')} is {getattr(args, flag)}, not in (0, 1]")
    if args.text < 0:
        raise ConfigError(f"--text is {args.text}, less than 0")
    workload = Workload(
        items=_items(args),
        text_tokens=args.text,
        output_tokens=args.output,
        rate=args.rate,
        batch=args.batch,
    )
    machine = Machine(
        flops=args.tflops * 1e12,
        memory_rate=args.memory_tbytes * 1e12,
        link_rate=args.link_gbits * 1e9,
        encode_share=args.encode_share,
        prefill_share=args.prefill_share,
        busy=args.busy,
    )
    found = estimate(read_shapes(args.model, args.tp), workload, machine)
    if args.json:
        said = {"workload": dataclasses.asdict(workload), "machine": dataclasses.asdict(machine)}
        print(json.dumps({**said, **dataclasses.asdict(found)}))
    else:
        print("\n".join(table(found, workload, machine)))
    return 0


def _items(args: argparse.Namespace) -> tuple[Item, ...]:
    if wrong := [seconds for seconds in args.audio if seconds <= 0]:
        raise ConfigError(f"--audio is {wrong[0]}, not above 0")
    pictures = [picture for text in args.image for picture in parse_picture(text)]
    return (*pictures, *map(parse_video, args.video), *map(Sound, args.audio))


def table(found: Estimate, workload: Workload, machine: Machine) -> Iterator[str]:
    """The whole answer on a terminal."""
    yield (
        f"{found.model}: {described(workload.items)} and {workload.text_tokens} tokens of text = "
        f"{found.prompt_tokens} tokens, {workload.output_tokens} answered, {workload.rate:g}/s"
    )
    rows = [
        (
            stage.name,
            f"{stage.flops / 1e12:.2f}",
            f"{stage.seconds * 1e3:.1f}",
            f"{stage.sent_bytes / 1e6:.1f} MB" if stage.sent_bytes else "-",
            f"{stage.sent_seconds * 1e3:.1f}" if stage.sent_bytes else "-",
            f"{stage.link_gbits:.2f}" if stage.sent_bytes else "-",
            f"{stage.hide_gbits:.1f}" if stage.sent_bytes else "-",
            f"{stage.load:.3f}",
            str(stage.workers),
        )
        for stage in found.stages
    ]
    yield from _columns([HEAD, *rows])
    ratio = " : ".join(
        f"{part:.1f}{stage.name[0].upper()}"
        for part, stage in zip(found.ratio, found.stages, strict=True)
    )
    yield f"workers: {found.topology} at most {machine.busy:.0%} busy; ratio of work {ratio}"
    yield (
        f"decode: {found.step_seconds * 1e3:.1f} ms per step of {workload.batch}, "
        f"{found.answers_at_once:.1f} answers at once, "
        f"{found.resident_kv / 1e9:.2f} GB of KV in all"
    )
    yield NOTE
    yield (
        f"assumed: {machine.flops / 1e12:g} TFLOP/s, of which encode reaches "
        f"{machine.encode_share:.0%} and prefill {machine.prefill_share:.0%}; memory "
        f"{machine.memory_rate / 1e12:g} TB/s; network {machine.link_rate / 1e9:g} Gbit/s"
    )
    yield from (f"assumed: {each}" for each in found.assumed)


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = row[0].ljust(widths[0])
        yield "  ".join(cells)

"""The flags of `epd status`, `epd drain` and `epd trace`, which ask a running gateway."""

from __future__ import annotations

import argparse


def add_operator(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """All three of them."""
    for add in (_add_status, _add_drain, _add_trace):
        parser = add(commands)
        parser.add_argument("--url", help="of the gateway (default http://127.0.0.1:8000)")
        parser.add_argument(
            "--key", metavar="KEY", help="gateway.admin_key, or one of gateway.api_keys"
        )


def _add_status(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    status = commands.add_parser("status", help="show the workers of a running cluster")
    status.add_argument(
        "request", nargs="?", metavar="REQUEST", help="show what this request waits for instead"
    )
    status.set_defaults(handler=_status)
    return status


def _add_drain(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    drain = commands.add_parser(
        "drain", help="have a worker take nothing new, finish what it has, and leave"
    )
    drain.add_argument("worker", metavar="NAME", help="its name, as `epd status` shows it")
    drain.add_argument(
        "--seconds",
        type=float,
        metavar="N",
        help="what still runs then goes elsewhere (default gateway.drain_s)",
    )
    drain.set_defaults(handler=_drain)
    return drain


def _add_trace(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    trace = commands.add_parser(
        "trace",
        help="draw where the time of requests went, for Perfetto",
        description="Write a trace with the tracks of each worker, in Chrome's JSON format: of the "
        "last requests of a running gateway, of one question (--ask), or of a load test (FILE).",
    )
    trace.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="what `epd bench --output-details --output-file FILE` wrote",
    )
    trace.add_argument("--ask", metavar="TEXT", help="ask this, and trace it")
    trace.add_argument(
        "--item",
        action="append",
        default=[],
        metavar="FILE",
        help="a picture, video or sound of that question; may be given more than once",
    )
    trace.add_argument(
        "--output", default="trace.json", metavar="FILE", help="what is written (trace.json)"
    )
    trace.set_defaults(handler=_trace)
    return trace


def _status(args: argparse.Namespace) -> int:
    from epd.cli.operator import URL, status

    return status(args.url or URL, args.request, args.key)


def _drain(args: argparse.Namespace) -> int:
    from epd.cli.operator import URL, drain

    return drain(args.url or URL, args.worker, args.seconds, args.key)


def _trace(args: argparse.Namespace) -> int:
    from epd.cli.trace import run

    return run(args)

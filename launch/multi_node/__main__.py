"""`python -m launch.multi_node COMMAND HOSTS.yaml`: a cluster on several machines, over plain ssh.

Nothing is installed on the hosts but epd itself, and nothing of this runs there afterwards.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from epd.errors import EpdError
from launch.cluster import read_cluster
from launch.multi_node.actions import Nodes

EXAMPLES = """\
examples:
  python -m launch.multi_node start cluster.yaml --dry-run    what it would do, and where
  python -m launch.multi_node start cluster.yaml              all of it, until it serves
  python -m launch.multi_node restart cluster.yaml            one after another, losing no request
  python -m launch.multi_node logs cluster.yaml decode-1 --follow
"""


def main(argv: Sequence[str] | None = None) -> int:
    """0: done; 1: a host or a process failed; 2: the files cannot work."""
    args = _parser().parse_args(argv)
    try:
        nodes = Nodes(read_cluster(Path(args.file), args.overrides), dry_run=args.dry_run)
        match args.command:
            case "start":
                return nodes.start(args.names)
            case "stop":
                return nodes.stop(args.names, now=args.now)
            case "restart":
                return nodes.restart(args.names, anyway=args.anyway)
            case "logs":
                return nodes.logs(args.names, lines=args.lines, follow=args.follow)
            case _:
                return nodes.status()
    except EpdError as error:
        print(f"{args.command}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m launch.multi_node",
        description="Start, watch and stop the roles of a cluster on several machines.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _command(commands, "start", "start what does not run, and wait until it serves")
    stop = _command(commands, "stop", "have all drain and end, gateways first")
    stop.add_argument("--now", action="store_true", help="end at once instead")
    restart = _command(commands, "restart", "restart one process after another, with new files")
    restart.add_argument(
        "--anyway", action="store_true", help="even those whose role nobody else has meanwhile"
    )
    logs = _command(commands, "logs", "show the ends of the logs")
    logs.add_argument("--lines", type=int, default=20, metavar="N", help="of each (default 20)")
    logs.add_argument("--follow", action="store_true", help="go on until Ctrl-C")
    _command(commands, "status", "show what runs where", names=False)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    *,
    names: bool = True,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("file", metavar="FILE", help="YAML file with the hosts")
    if names:
        parser.add_argument(
            "names", nargs="*", metavar="NAME", help="processes, such as decode-1 (default all)"
        )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be done where, and do nothing"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="set any key of the configuration, for all roles",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

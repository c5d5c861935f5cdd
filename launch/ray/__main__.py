"""`python -m launch.ray COMMAND FILE`: the roles of a cluster as detached actors of a Ray cluster.

Ray places them by their cores, GPUs and resources, and starts again what dies, elsewhere if need
be. It needs the extra `ray`, here and on the nodes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from epd.errors import EpdError
from launch.ray.cluster import read_ray_cluster


def main(argv: Sequence[str] | None = None) -> int:
    """0: done; 1: an actor does not serve; 2: the file cannot work, or there is no Ray."""
    parser = argparse.ArgumentParser(prog="python -m launch.ray", description=__doc__)
    parser.add_argument(
        "command",
        choices=["start", "stop", "status"],
        help="start also changes what runs to what the file says: new ones start, others drain",
    )
    parser.add_argument("file", metavar="FILE", help="YAML file with the roles")
    parser.add_argument("--address", default="auto", help="of Ray's head (default: found by Ray)")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the actors and their settings, ask no Ray"
    )
    args = parser.parse_args(argv)
    try:
        cluster = read_ray_cluster(Path(args.file))
        cluster.checked()
        if args.dry_run:
            from launch.ray.plan import described

            print("\n".join(described(cluster)))
            return 0
        from launch.ray.actions import connected

        actors = connected(cluster, args.address)
        match args.command:
            case "start":
                return actors.start()
            case "stop":
                return actors.stop()
            case _:
                return actors.status()
    except EpdError as error:
        print(f"{args.command}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

"""Does ZeroMQ alone keep up with a plain connection, on this machine, over the loopback?

    python -m bench.transfer.alone

Two processes and nothing of epd between them: for each size a plain connection and ZeroMQ's
messages take turns.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

import torch

from bench.transfer import plain
from epd.config import WireConfig
from epd.config.section import MIB
from epd.workers.heap import keep_freed_memory

ADDRESS = "127.0.0.1"
SIZES = (4, 19, 64, 192)
ROUNDS = 15
SERVER = "serve"


def main() -> int:
    """The asking end, which starts the other."""
    _settle()
    most = max(SIZES) * MIB
    argv = [sys.executable, "-m", "bench.transfer.alone", SERVER]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdout is not None
        ports = [int(port) for port in server.stdout.readline().split()]
        try:
            ways = plain.tcp(ADDRESS, ports[0], most), plain.over_zmq(ADDRESS, ports[1])
            head = ("MiB", "plain, GB/s", "ZeroMQ, GB/s", "share")
            print("".join(f"{name:>14}" for name in head))
            for mib in SIZES:
                times = [[way(mib * MIB) for way in ways] for _ in range(1 + ROUNDS)][1:]
                rates = [
                    mib * MIB / statistics.median(way) / 1e9 for way in zip(*times, strict=True)
                ]
                share = statistics.median(bare / zmq for bare, zmq in times)
                print(f"{mib:>14}{rates[0]:>14.2f}{rates[1]:>14.2f}{100 * share:>12.0f} %")
        finally:
            server.terminate()
    return 0


def serve() -> int:
    """The other end, until it is ended."""
    _settle()
    most = max(SIZES) * MIB
    bare = plain.PlainServer(ADDRESS, most)
    zmq = plain.ZmqServer(ADDRESS, most, WireConfig().chunk_bytes)
    print(bare.port, zmq.port, flush=True)
    sys.stdin.read()
    return 0


def _settle() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()


if __name__ == "__main__":
    sys.exit(serve() if sys.argv[1:] == [SERVER] else main())

"""The processes: each assembles the rooms of its role, and nothing else does.

`run_role` is what a process of epd does from its first line to its last.
"""

from __future__ import annotations

from epd.config import Config


def run_role(role: str, config: Config, *, ready_fd: int | None = None) -> int:
    """Run one role until SIGTERM or SIGINT; the exit status. Says "ready" on `ready_fd`."""
    if role == "gateway":
        from epd.workers.front import run_gateway

        return run_gateway(config, ready_fd=ready_fd)
    from epd.workers.process import run_worker

    return run_worker(role, config, ready_fd=ready_fd)

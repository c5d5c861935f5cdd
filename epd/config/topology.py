"""The topology of a local cluster: which roles run, and how many processes of each.

NENPND   encode, prefill and decode workers apart, for example 2E1P1D
NENPD    encode workers, and workers that prefill and decode ("fused")
EPD      one engine process with all three stages: the monolith
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from epd.errors import ConfigError

ROLES = ("gateway", "encode", "prefill", "decode", "fused", "engine")

_GRAMMAR = re.compile(
    r"(?P<encode>[1-9]\d{0,2})E(?P<first>[1-9]\d{0,2})P(?P<decode>[1-9]\d{0,2})?D"
)


@dataclass(frozen=True, slots=True)
class Topology:
    """How many processes of each role stand behind the one gateway, in the order they stop."""

    workers: tuple[tuple[str, int], ...]

    @classmethod
    def parse(cls, text: str) -> Topology:
        """Read "2E1P1D", "2E1PD" or "EPD"."""
        if text == "EPD":
            return cls((("engine", 1),))
        found = _GRAMMAR.fullmatch(text)
        if found is None:
            raise ConfigError(
                f"topology {text!r} is not NENPND (2E1P1D), NENPD (2E1PD, prefill and decode in "
                "one worker) or EPD (one engine process)",
                param="topology",
            )
        encode, first = int(found["encode"]), int(found["first"])
        if found["decode"] is None:
            return cls((("encode", encode), ("fused", first)))
        return cls((("encode", encode), ("prefill", first), ("decode", int(found["decode"]))))

    @property
    def num_workers(self) -> int:
        """Processes that run torch; they share the machine's cores."""
        return sum(count for _, count in self.workers)

    def names(self) -> list[tuple[str, str]]:
        """(role, process name) of the gateway and of every worker, in the order they stop."""
        found = [("gateway", "gateway-0")]
        for role, count in self.workers:
            found += [(role, f"{role}-{number}") for number in range(count)]
        return found

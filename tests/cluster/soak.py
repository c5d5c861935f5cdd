"""A cluster whose workers are killed, restarted, frozen and joined by others for minutes on end.

    python -m tests.cluster.soak --minutes 10 --seed 1

At any time one worker of each stage is well, so no request may be lost and no word be wrong; in the
end nobody holds anything, and the gateway, which alone lives all the time, has not grown. The last
line on stdout is the result as JSON; the exit code is 0 if all of this held.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import psutil

from tests.checkpoints import build
from tests.cluster.clients import Load, Outcome, Question, ask
from tests.cluster.crew import Crew, ports
from tests.cluster.front import Front, eventually

DEAD_AFTER_S = 4.0
STAGES = ("encode", "prefill", "decode")
CLIENTS = 4
BACK_S = 240.0
REST_ANSWERS = 4  # that come between two faults
GROWTH = 1.1
MIB = 1 << 20

QUESTIONS = (
    Question((1,), "Hello there"),
    Question((2, 3, 4), "Go on."),
    Question((), "Hello there"),
    Question((5, 6), "Describe", options='{"temperature": 1.1, "seed": 5}'),
    Question((7,), "What is it?", max_tokens=60, options='{"n": 2, "temperature": 1, "seed": 7}'),
)


def go_on(load: Load, answers: int) -> None:
    """Until so many more requests have been asked."""
    enough = len(load.outcomes) + answers
    eventually(lambda: len(load.outcomes) > enough, "requests go on", BACK_S)


@dataclass
class Soak:
    """What is done, what comes of it, and how large the gateway is after each fault."""

    crew: Crew
    front: Front
    rng: random.Random
    right: dict[Question, str]
    here: set[str]
    faults: Counter[str] = field(default_factory=Counter)
    sizes: list[int] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        """Faults until the time is over, then rest."""
        until = time.monotonic() + seconds
        gateway = psutil.Process(self.crew.hands["gateway-0"].process.pid)
        with Load(self.front, QUESTIONS, CLIENTS) as load:
            eventually(lambda: load.streaming, "a stream has begun", BACK_S)
            while time.monotonic() < until:
                self._hurt()
                go_on(load, REST_ANSWERS)
                self.sizes.append(gateway.memory_info().rss)
                if any(outcome.error or outcome.cut for outcome in load.outcomes):
                    break
        self.outcomes = load.outcomes
        eventually(lambda: self.front.workers() == self.here, "everybody is back", BACK_S)
        self.front.wait_until_idle(BACK_S)

    def _hurt(self) -> None:
        """One fault, over when the gateway has seen it; who was started comes in its own time."""
        name = self.rng.choice(eventually(self._spare, "two of one stage are well", BACK_S))
        extra = f"{name.partition('-')[0]}-2"
        kind = self.rng.choice(["kill", "restart", "freeze", "join or leave"])
        if kind == "join or leave":
            kind, name = "leave" if extra in self.here else "join", extra
        self.faults[f"{kind} {name.partition('-')[0]}"] += 1
        seen = self._losses(name)
        if kind == "join":
            self._join(name)
            return
        if kind == "leave":
            self.here.discard(name)
            present = name in self.front.workers()
            self.crew.hands[name].end(SIGTERM)
            if not present:
                return
        elif kind == "freeze":
            psutil.Process(self.crew.hands[name].process.pid).suspend()
        else:
            self.crew.again(name, SIGKILL if kind == "kill" else SIGTERM)
        eventually(lambda: self._losses(name) > seen, f"{kind} {name} is seen", BACK_S)
        if kind == "freeze":
            psutil.Process(self.crew.hands[name].process.pid).resume()

    def _spare(self) -> list[str]:
        """Workers of stages that have another one."""
        workers = sorted(self.front.workers())
        stages = Counter(name.partition("-")[0] for name in workers)
        return [name for name in workers if stages[name.partition("-")[0]] > 1]

    def _losses(self, name: str) -> int:
        """How often the gateway has lost this worker."""
        return self.crew.hands["gateway-0"].log.read_text().count(f"lost worker={name} ")

    def _join(self, name: str) -> None:
        self.here.add(name)
        if name in self.crew.hands:
            self.crew.hands[name].start()
        else:
            self.crew.start(name)

    def result(self) -> dict[str, Any]:
        """In numbers."""
        complete = [o for o in self.outcomes if o.complete]
        third = self.sizes[len(self.sizes) // 3 :]
        return {
            "requests": len(self.outcomes),
            "lost": len(self.outcomes) - len(complete),
            "wrong": sum(o.text != self.right[o.question] for o in complete),
            "first_lost": next((str(o) for o in self.outcomes if not o.complete), ""),
            "faults": dict(sorted(self.faults.items())),
            "longest_pause_s": round(max((o.longest_pause_s for o in complete), default=0.0), 2),
            "gateway_mib": [size // MIB for size in self.sizes],
            "flat": not third or third[-1] <= third[0] * GROWTH + 4 * MIB,
            "tracebacks": self.crew.tracebacks(),
        }


def soak(model: Path, folder: Path, *, seconds: float, seed: int) -> dict[str, Any]:
    """Two workers of each stage behind one gateway, sometimes three."""
    settings = (f"wire.dead_after_s={DEAD_AFTER_S}", "wire.heartbeat_s=0.2", "threads=1")
    crew = Crew(model, folder, *settings, port=ports())
    here = [f"{stage}-{number}" for stage in STAGES for number in range(2)]
    try:
        crew.start("gateway-0")
        front = crew.front("gateway-0")
        for name in here:
            crew.start(name)
        for name in here:
            crew.hands[name].ready()
        right = {question: ask(front, question, stream=True).text for question in QUESTIONS}
        found = Soak(crew, front, random.Random(seed), right, set(here))
        found.run(seconds)
    finally:
        crew.close()
    return found.result()


def holds(result: dict[str, Any]) -> bool:
    """What was promised."""
    bad = result["lost"], result["wrong"], result["tracebacks"]
    return result["requests"] > 0 and not any(bad) and bool(result["flat"])


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="epd-soak-") as folder:
        model = build("qwen2_5_vl", Path(folder) / "tiny")
        result = soak(model, Path(folder), seconds=60 * asked.minutes, seed=asked.seed)
    told = {"seed": asked.seed, "minutes": asked.minutes, **result}
    sys.stdout.write(json.dumps(told) + "\n")
    return 0 if holds(result) else 1


if __name__ == "__main__":
    sys.exit(main())

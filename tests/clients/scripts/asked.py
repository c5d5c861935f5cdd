"""What a client's script is given and what it hands back: JSON on stdin, JSON on stdout.

The script only drives its client; what is right is said once, for all of them, by the test that
runs it. Node has the same in asked.mjs.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

IDLE_S = 20.0


@dataclass(frozen=True)
class Asked:
    """One server and what to ask it."""

    url: str
    model: str
    question: str
    picture: str
    max_tokens: int

    @property
    def base_url(self) -> str:
        """As clients of OpenAI's API want it."""
        return f"{self.url}/v1"

    @property
    def with_picture(self) -> list[dict[str, Any]]:
        """The content of a message that shows the picture."""
        shown = {"type": "image_url", "image_url": {"url": self.picture}}
        return [shown, {"type": "text", "text": self.question}]

    def becomes_idle(self) -> bool:
        """Whether the server soon holds no request, though this process lives on."""
        deadline = time.monotonic() + IDLE_S
        while time.monotonic() < deadline:
            with urllib.request.urlopen(f"{self.url}/metrics", timeout=IDLE_S) as answer:
                if b"\nepd_live_requests 0.0\n" in answer.read():
                    return True
        return False


Check = Callable[[Asked], dict[str, Any]]


def report(*checks: Check) -> None:
    """Run them one after the other; a fault ends a check, not the script."""
    asked = Asked(**json.load(sys.stdin))
    print(json.dumps({check.__name__: _ran(check, asked) for check in checks}))  # noqa: T201


def _ran(check: Check, asked: Asked) -> dict[str, Any]:
    try:
        return check(asked)
    except Exception:  # noqa: BLE001  the test shows it
        return {"fault": traceback.format_exc()}

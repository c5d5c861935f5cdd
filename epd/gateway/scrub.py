"""What a fault of the server must not tell its clients: where on which machine things lie."""

from __future__ import annotations

import re
from typing import Final

MOST_CHARACTERS: Final = 500

_PLACES: Final = re.compile(
    r"""
      \b(?:tcp|ipc|inproc|file|https?)://[^\s'")>,;]+           # an endpoint
    | (?<![\w/.])~?/[\w.@+-]+(?:/[\w.@+-]*)+                   # a path of two steps or more
    | \b0x[0-9a-fA-F]{4,}\b                                    # an address in memory
    | (?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?(?![\w.])      # of IPv4
    | (?<![\w:])\[?[0-9a-fA-F]{0,4}(?:::|(?::[0-9a-fA-F]{1,4}){3})[0-9a-fA-F:]*\]?(?::\d+)?
    """,
    re.VERBOSE,
)


def without_places(message: str) -> str:
    """The first line of it, with "..." for every path and address."""
    first, _, _ = message.strip().partition("\n")
    return _PLACES.sub("...", first.partition("Traceback (")[0])[:MOST_CHARACTERS].strip()

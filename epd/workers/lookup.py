"""Where the gateways are: addresses as given, and names that are resolved again and again.

A name may have many addresses, as a headless service has; each is a gateway of its own. Looking up
may take seconds, so it has a thread of its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from epd.wire.addresses import is_name, resolve

log = logging.getLogger(__name__)

Resolve = Callable[[str], tuple[str, ...]]
"""The addresses behind one; OSError where there is no answer now."""


class Lookup:
    """`current` is what is known now; a name that cannot be resolved keeps its last addresses."""

    def __init__(self, given: Sequence[str], every_s: float, *, resolve: Resolve = resolve) -> None:
        self._found: dict[str, tuple[str, ...]] = {
            address: () if is_name(address) else (address,) for address in given
        }
        self._names = [address for address in given if is_name(address)]
        self._every_s = every_s
        self._resolve = resolve
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lookup", daemon=True)
        self.current = self._all()

    def start(self) -> None:
        """Only where there are names to look up."""
        if self._names:
            self._thread.start()

    def close(self) -> None:
        """Not waited for: a lookup under way cannot be ended, and does no harm."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            self.refresh()
            self._ended.wait(self._every_s)

    def refresh(self) -> None:
        """Look up every name once."""
        for name in self._names:
            try:
                found = self._resolve(name)
            except OSError as error:
                log.warning("cannot look up gateway=%s reason=%s", name, error)
                continue
            if found != self._found[name]:
                log.info("looked up gateway=%s addresses=%s", name, ",".join(found))
                self._found[name] = found
        self.current = self._all()

    def _all(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one for found in self._found.values() for one in found))

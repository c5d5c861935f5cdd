"""Names looked up on threads that can be left behind: the system's resolver knows no timeout."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Sequence

import httpcore

from epd.errors import BadMedia
from epd.media.deadline import Deadline

Resolver = Callable[[str, int], Sequence[str]]

_MOST = 256  # threads that hanging name servers can cost


def resolve(host: str, port: int) -> list[str]:
    """Numeric addresses of a host name, best first."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class Lookups:
    """Runs one resolver for all fetches."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._room = threading.BoundedSemaphore(_MOST)

    def addresses(self, host: str, port: int, deadline: Deadline) -> Sequence[str]:
        """Never empty. ConnectError where asking again may help, BadMedia where it does not."""
        late = httpcore.ConnectTimeout
        deadline.until(lambda seconds: self._room.acquire(timeout=seconds), late)
        answers: queue.SimpleQueue[Sequence[str] | None] = queue.SimpleQueue()
        threading.Thread(
            target=self._ask, args=(host, port, answers), name="resolve", daemon=True
        ).start()
        found: list[Sequence[str] | None] = []

        def wait(seconds: float) -> bool:
            try:
                found.append(answers.get(timeout=seconds))
            except queue.Empty:
                return False
            return True

        deadline.until(wait, late)
        if found[0] is None:
            raise httpcore.ConnectError("name service")
        if not found[0]:
            raise BadMedia("host not found")
        return found[0]

    def _ask(self, host: str, port: int, answers: queue.SimpleQueue[Sequence[str] | None]) -> None:
        """None: the name service itself has failed for now."""
        try:
            answers.put(self._resolver(host, port))
        except socket.gaierror as error:
            answers.put(None if error.errno == socket.EAI_AGAIN else ())
        except (OSError, UnicodeError):
            answers.put(())
        finally:
            self._room.release()

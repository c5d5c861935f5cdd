"""Requests that were with a worker when it died, until they have shown that they kill nobody. Pure.

Of those that were there one may be the cause, and nobody can tell which. So each is run again where
no other suspect is. When the next worker dies with exactly one of them, that one is the cause, and
nobody else is blamed. Tokens prove a suspect innocent: prefill's first, and one of decode's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from epd.cluster.requests import Phase, Request

PROOF = 2
"""Tokens of the attempt after the death that prove a request innocent."""


class Suspects:
    """Whose innocence is to be proven."""

    def __init__(self) -> None:
        self._requests: dict[str, Request] = {}

    def __contains__(self, request: Request) -> bool:
        return request.request_id in self._requests

    def add(self, request: Request) -> None:
        """It is one from now on."""
        self._requests[request.request_id] = request

    def discard(self, request: Request) -> None:
        """It has ended, or is proven innocent."""
        self._requests.pop(request.request_id, None)

    def workers(self, but: Request) -> set[str]:
        """Where suspects are just now, not counting choices of the same answer."""
        others = (r for r in self._requests.values() if r.answer is not but.answer)
        return {name for request in others for name in request.workers}

    def proven(self, request: Request) -> bool:
        """True once, when a suspect has come far enough."""
        if request not in self or request.num_new < PROOF:
            return False
        self.discard(request)
        return True

    def mourn(self, request: Request, partner: str | None) -> None:
        """One of its workers says that the other died, which is still to be seen."""
        request.ran_there = partner is not None and _was_on(request, partner)
        request.mourned = partner
        request.mourned_again = request in self
        if request.ran_there:
            self.add(request)

    def died(self, name: str, requests: Sequence[Request]) -> Request | None:
        """A worker died: who was the cause, if that is clear. The others there are suspects."""
        there = [request for request in requests if _ran_on(request, name)]
        again = [r for r in there if (r.mourned_again if r.mourned == name else r in self)]
        if len({request.answer.request_id for request in again}) == 1:
            return again[0]
        for request in there:
            self.add(request)
        return None


def _ran_on(request: Request, name: str) -> bool:
    """It may have been in the worker's running step."""
    return request.ran_there if request.mourned == name else _was_on(request, name)


def _was_on(request: Request, name: str) -> bool:
    if request.placed is None or name not in request.workers:
        return False
    begun = request.placed.prefill == name or request.num_new > 0  # decode has nothing before that
    # Who dies of a request at once may never have said that it took it.
    return begun and request.phase in (Phase.ADMITTING, Phase.RUNNING)

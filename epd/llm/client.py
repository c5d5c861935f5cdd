"""Sends many requests to one server at once, and brings their answers back in order.

An event loop on a thread of its own, so that callers need none and may have one themselves.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

import httpx

from epd.errors import BadRequest, EpdError, Overloaded, Unavailable, from_status

IN_FLIGHT = 128
"""Requests that the server has at once: enough to keep it busy, and few enough to hold."""

MOST_TRIES = 10
CONNECT_S = 30.0

T = TypeVar("T")
Body = Callable[[], dict[str, Any]]
"""Makes a request's body, on another thread, when its turn has come."""


class Bar(Protocol):
    """What shows progress, such as tqdm's."""

    def update(self, n: int = 1) -> Any:
        """So many more have ended."""


class Client:
    """Posts to `url`, showing `api_key`. Thread-safe; all calls together share IN_FLIGHT."""

    def __init__(self, url: str, api_key: str = "") -> None:
        self._url = url
        self._headers = {"content-type": "application/json"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._loop = asyncio.new_event_loop()
        self._room = asyncio.Semaphore(IN_FLIGHT)
        self._thread = threading.Thread(target=self._loop.run_forever, name="llm", daemon=True)
        self._thread.start()

    def post_all(
        self,
        path: str,
        bodies: Sequence[Body],
        bar: AbstractContextManager[Bar | None] | None = None,
    ) -> list[dict[str, Any]]:
        """All answers, in the order of `bodies`.

        The first error, which names the prompt where there are several, cancels the rest; so does
        whatever interrupts the caller.
        """
        with bar or nullcontext() as shown:
            return self._wait(self._post_all(path, bodies, shown))

    def close(self) -> None:
        """Ends the thread; no call may run. Again: nothing."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _post_all(
        self, path: str, bodies: Sequence[Body], bar: Bar | None
    ) -> list[dict[str, Any]]:
        limits = httpx.Limits(max_connections=None)
        timeout = httpx.Timeout(None, connect=CONNECT_S)
        async with httpx.AsyncClient(
            base_url=self._url, limits=limits, timeout=timeout, trust_env=False
        ) as http:
            tasks = [asyncio.create_task(self._post(http, path, body, bar)) for body in bodies]
            try:
                return await _all(tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _post(
        self, http: httpx.AsyncClient, path: str, body: Body, bar: Bar | None
    ) -> dict[str, Any]:
        async with self._room:
            content = await asyncio.to_thread(lambda: _encoded(body()))
            answer = await self._answered(http, path, content)
        if bar is not None:
            bar.update(1)
        return answer

    async def _answered(self, http: httpx.AsyncClient, path: str, content: bytes) -> dict[str, Any]:
        """Tried again while the server has no room for it."""
        for left in reversed(range(MOST_TRIES)):
            try:
                response = await http.post(path, content=content, headers=self._headers)
            except httpx.TransportError as error:
                raise Unavailable(f"the cluster does not answer: {error}") from error
            if response.status_code != Overloaded.status or not left:
                return _read(response)
            wait_s = response.headers.get("retry-after", "")
            await asyncio.sleep(float(wait_s) if wait_s.isdigit() else 1.0)
        raise AssertionError("the last try returns or raises")


async def _all(tasks: Sequence[asyncio.Task[T]]) -> list[T]:
    """Their results; or the first error as soon as it is there."""
    if tasks:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for number, task in enumerate(tasks):
        error = task.exception() if task.done() else None
        if isinstance(error, EpdError) and len(tasks) > 1:
            where = f"prompt {number}: {error.message}"
            raise from_status(error.status, where, code=error.code, param=error.param) from error
        if error is not None:
            raise error
    return [task.result() for task in tasks]


def _encoded(body: dict[str, Any]) -> bytes:
    """BadRequest for what JSON has no word for."""
    try:
        return json.dumps(body, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (TypeError, ValueError) as error:
        raise BadRequest(f"a request cannot say this: {error}") from error


def _read(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
        if response.status_code == httpx.codes.OK:
            return dict(body)
        error = body["error"]
        code, param = str(error.get("code") or ""), error.get("param")
        message = str(error["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Unavailable(f"the cluster answered {response.status_code} and no JSON") from None
    raise from_status(response.status_code, message, code=code, param=param)

"""A gateway as its clients and its operator see it: over HTTP alone."""

from __future__ import annotations

import re
import weakref
from typing import Any

import httpx
from openai import DefaultHttpxClient, OpenAI

from tests.eventually import eventually

__all__ = ["Front", "eventually"]


class Front:
    """What answers at `url` with `model`."""

    def __init__(self, url: str, model: str) -> None:
        self.url = url
        self.model = model

    def client(self, **options: Any) -> OpenAI:
        """The stock client. No retries: a test wants to see the first answer.

        Its connections are closed with it, or when nobody holds it any more.
        """
        http = DefaultHttpxClient(verify=False)  # it would load certificates first
        client = OpenAI(
            base_url=f"{self.url}/v1", api_key="none", max_retries=0, http_client=http, **options
        )
        weakref.finalize(client, http.close)
        return client

    def post(self, body: Any, **options: Any) -> httpx.Response:
        """A raw chat request."""
        url = f"{self.url}/v1/chat/completions"
        return httpx.post(url, json=body, timeout=60, verify=False, **options)

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by its name and labels."""
        samples = {}
        page = httpx.get(f"{self.url}/metrics", timeout=30, verify=False)
        for line in page.text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                samples[name] = float(value)
        return samples

    def in_use(self) -> dict[str, float]:
        """The gauges of what is held for requests that are not zero."""
        return _held(self.metrics())

    def wait_until_idle(self, timeout_s: float = 30.0) -> None:
        """Every worker has said, well after this call, that it holds nothing."""
        heard: dict[str, float] = {}

        def idle() -> bool:
            samples = self.metrics()
            later = []
            for worker, count in _messages_received(samples).items():
                heard[worker] = min(count, heard.get(worker, count))  # lower: it was restarted
                later.append(count >= heard[worker] + 3)
            return bool(later) and all(later) and not _held(samples)

        try:
            eventually(idle, "nothing is in use", timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}, but: {self.in_use()}") from None

    def workers(self) -> set[str]:
        """Names of the workers that take part now."""
        return set(_messages_received(self.metrics()))


def _held(samples: dict[str, float]) -> dict[str, float]:
    words = ("blocks_used", "requests", "items", "row", "prepared", "shm_bytes", "sends", "jobs")
    totals = re.compile(r"_(sent|ms)(\{|$)")
    gateway = ("epd_live_requests", "epd_waiting_requests", "epd_media_bytes")
    return {
        name: value
        for name, value in samples.items()
        if value
        and not totals.search(name)
        and (
            name in gateway
            or (name.startswith("epd_worker_") and any(word in name for word in words))
        )
    }


def _messages_received(samples: dict[str, float]) -> dict[str, float]:
    """By worker; grows with every heartbeat."""
    found = {}
    for name, value in samples.items():
        if match := re.fullmatch(r'epd_worker_links_received\{.*worker="([^"]+)"\}', name):
            found[match[1]] = value
    return found

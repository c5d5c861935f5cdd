"""`epd status` and `epd drain`: what a running gateway says of its cluster, and one order to it;
and how any command asks a gateway.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from epd.errors import Unavailable, from_status

URL = "http://127.0.0.1:8000"
TIMEOUT_S = 10.0
HEAD = ("NAME", "STAGES", "STATE", "ITEMS", "POOL", "RUNS", "KV", "CACHE", "AGE")


def status(url: str, request_id: str | None, key: str | None) -> int:
    """A table of the workers, or where one request stands."""
    if request_id is None:
        print(overview(ask(url, "/cluster", key)))
    else:
        where = ask(url, f"/cluster/requests/{urllib.parse.quote(request_id, safe='')}", key)
        print(json.dumps(where, indent=2))
    return 0


def drain(url: str, worker: str, seconds: float | None, key: str | None) -> int:
    """Have a worker finish and leave."""
    order = {"worker": worker, "seconds": seconds}
    ask(url, "/cluster/drain", key, order)
    print(f"{worker} drains: it takes nothing new, and leaves when nothing needs it")
    return 0


def overview(cluster: Mapping[str, Any]) -> str:
    """The whole cluster on a terminal."""
    ready = "ready" if cluster["ready"] else "not ready"
    about = (
        f"{cluster['model']} at {cluster['gateway']}: {ready}, {cluster['requests']} requests, "
        f"{cluster['waiting']} of them waiting"
    )
    return "\n".join([about, *_columns([HEAD, *map(_row, cluster["workers"])])])


def _row(worker: Mapping[str, Any]) -> tuple[str, ...]:
    encodes = "rows_bytes" in worker
    return (
        worker["name"],
        "+".join(worker["stages"]),
        worker["state"],
        ",".join(worker["modalities"]) or "-",
        worker["pool"],
        str(worker["items" if encodes else "requests"]),
        "-" if encodes else f"{worker['kv_used']:.0%}",
        f"{worker['cache_bytes'] >> 20} MiB" if encodes else f"{worker['kv_cached']:.0%}",
        _age(worker["age_s"]),
    )


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def ask(
    url: str,
    path: str,
    key: str | None,
    body: object | None = None,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    """The gateway's answer; an error of it is raised as it was there."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise Unavailable(f"{url} is no http address")
    data = None if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"}
    if key:
        sent["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url.rstrip("/") + path, data, sent)
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            return dict(json.load(response))
    except urllib.error.HTTPError as error:
        raise from_status(error.code, _reason(error), code="refused") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Unavailable(f"no gateway answers at {url}: {error}") from None


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}"

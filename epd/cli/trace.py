"""`epd trace`: where the time of requests went, as a file that Perfetto opens."""

from __future__ import annotations

import argparse
import base64
import json
import mimetypes
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from epd.cli.operator import URL, ask
from epd.errors import ConfigError
from epd.observe.chrome import Traced, trace

ANSWER_S = 600.0
FORMS = "`epd bench --output-details --output-file FILE` writes such a file"


def run(args: argparse.Namespace) -> int:
    """Write the trace; ConfigError or what the server says where there is nothing to write."""
    if args.ask is not None:
        requests = [_asked(args.url or URL, args.key, args.ask, args.item)]
    elif args.item:
        raise ConfigError("--item is of a question: give --ask too", param="item")
    elif args.file is not None:
        requests = list(from_file(Path(args.file)))
    else:
        requests = _recent(args.url or URL, args.key)
    if not requests:
        raise ConfigError("no request has ended there yet, so there is nothing to draw")
    made = trace(requests)
    Path(args.output).write_text(json.dumps(made), encoding="utf-8")
    print(f"{args.output}: {len(requests)} requests; open it at ui.perfetto.dev")
    return 0


# ---- a question


def _asked(url: str, key: str | None, text: str, files: list[str]) -> Traced:
    content = [*map(_part, files), {"type": "text", "text": text}]
    body = {
        "model": "auto",
        "messages": [{"role": "user", "content": content}],
        "return_path": True,
    }
    sent = time.perf_counter()
    answer = ask(url, "/v1/chat/completions", key, body, ANSWER_S)
    ended_ms = 1000 * (time.perf_counter() - sent)
    print(answer["choices"][0]["message"]["content"])
    path = _path_of(answer)
    # Half of what the way took is taken to lie before.
    at_ms = max(0.0, ended_ms - path["ms"].get("total", ended_ms)) / 2
    return Traced(at_ms=at_ms, path=path, sent_ms=0.0, ended_ms=ended_ms)


def _path_of(answer: Mapping[str, Any]) -> dict[str, Any]:
    path = answer.get("usage", {}).get("epd")
    if path is None:
        raise ConfigError("the server does not tell the path of a request, so it is none of epd's")
    return dict(path)


def _part(name: str) -> dict[str, Any]:
    """The part of a message that carries a file."""
    kind = mimetypes.guess_type(name)[0] or ""
    modality = kind.partition("/")[0]
    if Path(name).suffix in (".npy", ".csv"):
        modality = "time_series"
    elif modality not in ("image", "video", "audio"):
        raise ConfigError(f"--item {name}: its name is that of no picture, video or sound")
    try:
        data = base64.b64encode(Path(name).read_bytes()).decode()
    except OSError as error:
        raise ConfigError(f"--item {name}: {error.strerror}") from error
    return {"type": f"{modality}_url", f"{modality}_url": {"url": f"data:{kind};base64,{data}"}}


# ---- what ran before


def _recent(url: str, key: str | None) -> list[Traced]:
    """The last requests of a gateway, placed by how long ago they came."""
    found = ask(url, "/cluster/requests", key)["requests"]
    return [Traced(at_ms=-float(path["age_ms"]), path=path) for path in found]


def from_file(file: Path) -> Iterator[Traced]:
    """The requests of a load test, all its rates one after the other. ConfigError."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        runs = [json.loads(line) for line in lines if line.strip()]
        for number, one in enumerate(runs):
            began_ms = 1000 * (float(one["started_at"]) - float(runs[0]["started_at"]))
            for place, record in enumerate(one["requests"]):
                if record["path"] is not None:
                    yield _recorded(record, began_ms, f"{number}.{place}")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} has no requests with their paths; {FORMS}") from error


def _recorded(record: Mapping[str, Any], began_ms: float, name: str) -> Traced:
    sent, ended = (began_ms + 1000 * record[moment] for moment in ("sent", "ended"))
    path = {"request_id": name, **record["path"]}
    at_ms = sent + max(0.0, ended - sent - path["ms"].get("total", ended - sent)) / 2
    return Traced(at_ms=at_ms, path=path, sent_ms=sent, ended_ms=ended)

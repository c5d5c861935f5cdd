"""The page's files, read once, each under the path that its links name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER: Final = Path(__file__).parent / "static"
BELOW: Final = "/page"
"""Where all files but the first are."""

TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".mp4": "video/mp4",
    ".wav": "audio/wav",
}

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        # What a visitor drops is shown from memory.
        "img-src 'self' blob:",
        "media-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # Text of a model becomes HTML in one place only, and goes through DOMPurify there.
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)

HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}
"""Of every file. A browser may keep files, and asks each time whether they have changed."""


def _path_of(file: Path) -> str:
    name = file.relative_to(FOLDER).as_posix()
    return "/" if name == "index.html" else f"{BELOW}/{name}"


def _found() -> dict[str, Path]:
    return {_path_of(file): file for file in sorted(FOLDER.rglob("*")) if file.suffix in TYPES}


PATHS: Final = frozenset(_found())
"""What a browser may have before it has shown a key: the same for everybody."""


@dataclass(frozen=True, slots=True)
class _File:
    data: bytes
    kind: str
    tag: str

    @classmethod
    def read(cls, path: Path) -> _File:
        data = path.read_bytes()
        digest = hashlib.blake2b(data, digest_size=12).hexdigest()
        return cls(data, TYPES[path.suffix], f'"{digest}"')

    async def __call__(self, request: Request) -> Response:
        headers = {**HEADERS, "etag": self.tag}
        if request.headers.get("if-none-match") == self.tag:
            return Response(status_code=304, headers=headers)
        return Response(self.data, headers={**headers, "content-type": self.kind})


def page_routes() -> list[Route]:
    """One for each file, which no other path can name."""
    return [
        Route(path, _File.read(file).__call__, methods=["GET"]) for path, file in _found().items()
    ]

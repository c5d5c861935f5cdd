"""The document as one page that needs nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "summary{cursor:pointer}code,pre{font:13px/1.4 ui-monospace,monospace}"
    "pre{overflow-x:auto;background:#8881;padding:.5rem}b{display:inline-block;min-width:4rem}"
)


def show(document: dict[str, Any]) -> str:
    """Every operation, then every schema."""
    return "\n".join(_lines(document))


def _lines(document: dict[str, Any]) -> Iterator[str]:
    info = document["info"]
    title = escape(f"{info['title']} {info['version']}")
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
    yield f'<style>{_STYLE}</style><h1>{title}</h1><p><a href="openapi.json">openapi.json</a></p>'
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            head = f"<b>{escape(method.upper())}</b> <code>{escape(path)}</code>"
            yield _folded(f"{head} {escape(operation['summary'])}", operation)
    yield "<h2>Schemas</h2>"
    for name, schema in document["components"]["schemas"].items():
        yield _folded(f"<code>{escape(name)}</code>", schema)
    yield "</html>"


def _folded(head: str, content: Any) -> str:
    text = escape(json.dumps(content, indent=2))
    return f"<details><summary>{head}</summary><pre>{text}</pre></details>"

"""The OpenAPI document, made of the routes, the request models and the forms of answers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute, Route

from epd import __version__
from epd.gateway.completions.schemas import NO_CHAT, CompletionRequest
from epd.gateway.openapi.answers import Error
from epd.gateway.openapi.operations import EVENTS, FORM, JSON, OPERATIONS, TEXT, Operation
from epd.gateway.responses.schemas import PASSED, ResponseRequest
from epd.gateway.schemas import ChatRequest

_REF = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")

Schemas = dict[str, Any]


def describe(routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """All of these routes; one that nobody described has no schemas."""
    refs, schemas = _schemas()
    paths: dict[str, Any] = {}
    for route in routes:
        if isinstance(route, Route):
            path = _PARAMETER.sub(r"{\1}", route.path)
            for method in sorted(route.methods or ()):
                operation = OPERATIONS.get((method, path), Operation())
                shown = _operation(route, method, operation, refs)
                paths.setdefault(path, {})[method.lower()] = shown
    return {
        "openapi": "3.1.0",
        "info": {"title": "epd", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _schemas() -> tuple[Schemas, Schemas]:
    """What stands for each model, and all definitions by name."""
    wanted: set[type[BaseModel]] = {Error}
    for operation in OPERATIONS.values():
        models = (operation.answer, operation.takes, *operation.others.values())
        wanted.update(model for model in models if model is not None)
    ordered = sorted(wanted, key=lambda model: model.__name__)
    refs, found = models_json_schema(
        [(model, "validation") for model in ordered], ref_template=_REF
    )
    schemas: Schemas = found["$defs"]
    chat = set(schemas[ChatRequest.__name__]["properties"])
    _pass_on(schemas, CompletionRequest, ChatRequest, chat - NO_CHAT)
    _pass_on(schemas, ResponseRequest, ChatRequest, chat & PASSED)
    return {model.__name__: ref for (model, _), ref in refs.items()}, schemas


def _pass_on(schemas: Schemas, to: type[BaseModel], of: type[BaseModel], names: set[str]) -> None:
    """What one body may say in the words of another."""
    own, others = schemas[to.__name__]["properties"], schemas[of.__name__]["properties"]
    for name in sorted(names - set(own)):
        own[name] = others[name]


def _operation(route: Route, method: str, operation: Operation, refs: Schemas) -> dict[str, Any]:
    summary, _, more = (route.endpoint.__doc__ or "").partition("\n")
    shown: dict[str, Any] = {
        "operationId": f"{route.endpoint.__name__}_{method.lower()}",
        "summary": summary.strip(),
        "description": more.strip() or summary.strip(),
        "responses": _responses(operation, refs),
    }
    if parameters := _parameters(_PARAMETER.findall(route.path), operation.query):
        shown["parameters"] = parameters
    if operation.takes is not None:
        schema = refs[operation.takes.__name__]
        kind = FORM if operation.form else JSON
        shown["requestBody"] = {"required": True, "content": {kind: {"schema": schema}}}
    return shown


def _parameters(path: Iterable[str], query: Iterable[str]) -> list[dict[str, Any]]:
    text = {"type": "string"}
    return [
        *({"name": name, "in": "path", "required": True, "schema": text} for name in path),
        *({"name": name, "in": "query", "schema": text} for name in query),
    ]


def _responses(operation: Operation, refs: Schemas) -> dict[str, Any]:
    schema = {"type": "string"} if operation.answer is None else refs[operation.answer.__name__]
    content: dict[str, Any] = {operation.kind: {"schema": schema}}
    if operation.streams:
        content[EVENTS] = {"schema": {"type": "string"}}
    if operation.texts:
        content[TEXT] = {"schema": {"type": "string"}}
    return {
        "200": {"description": "what was asked for", "content": content},
        **{str(status): _as_json(refs[m.__name__]) for status, m in operation.others.items()},
        "default": _as_json(refs[Error.__name__]),
    }


def _as_json(schema: Any) -> dict[str, Any]:
    return {"description": "why not", "content": {JSON: {"schema": schema}}}

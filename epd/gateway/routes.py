"""The routes: parse, call, shape, and nothing else."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from epd.errors import NotFound
from epd.gateway.answer import answer
from epd.gateway.front import Front
from epd.gateway.operator import read_order
from epd.gateway.service import Service


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _front(request: Request) -> Front:
    front: Front = request.app.state.front
    return front


ServiceDep = Annotated[Service, Depends(_service)]
FrontDep = Annotated[Front, Depends(_front)]


def build_router() -> APIRouter:
    """A router of its own for every app."""
    router = APIRouter(redirect_slashes=False)
    router.add_api_route("/v1/chat/completions", chat_completions, methods=["POST"])
    router.add_api_route("/v1/models", models, methods=["GET"])
    router.add_api_route("/v1/models/{name:path}", model, methods=["GET"])
    router.add_api_route("/health", health, methods=["GET"])
    router.add_api_route("/ready", ready, methods=["GET"])
    router.add_api_route("/metrics", metrics, methods=["GET"])
    router.add_api_route("/cluster", cluster, methods=["GET"])
    router.add_api_route("/cluster/requests/{request_id}", where, methods=["GET"])
    router.add_api_route("/cluster/drain", drain, methods=["POST"])
    return router


async def chat_completions(request: Request, service: ServiceDep, front: FrontDep) -> Response:
    """OpenAI chat completions. Leaving early cancels the request on every stage."""
    prepared = await front.prepare(request, partial(front.chat, model_name=service.model_name))
    return answer(service, front, prepared)


async def models(service: ServiceDep) -> dict[str, Any]:
    """The one model that is served."""
    return {"object": "list", "data": [_card(service)]}


async def model(name: str, service: ServiceDep) -> dict[str, Any]:
    """The same, by name."""
    if name != service.model_name:
        raise NotFound(
            f"there is no model {name[:200]!r} here", param="model", code="model_not_found"
        )
    return _card(service)


async def health() -> dict[str, str]:
    """Liveness: the loop turns."""
    return {"status": "ok"}


async def ready(service: ServiceDep) -> Response:
    """Readiness: work can be taken."""
    if service.ready():
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "not ready"}, status_code=503)


async def metrics(service: ServiceDep) -> Response:
    """Prometheus."""
    return Response(service.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def cluster(service: ServiceDep) -> dict[str, Any]:
    """Workers, roles, state, load."""
    return service.cluster()


async def where(request_id: str, service: ServiceDep) -> dict[str, Any]:
    """What a request waits for."""
    return service.where(request_id.removeprefix("chatcmpl-"))


async def drain(request: Request, service: ServiceDep, front: FrontDep) -> dict[str, Any]:
    """An operator's order: a worker finishes and leaves."""
    order = await read_order(request, front.admin_key)
    service.drain(order.worker, order.seconds)
    return {"worker": order.worker, "state": "draining"}


def _card(service: Service) -> dict[str, Any]:
    return {
        "id": service.model_name,
        "object": "model",
        "created": service.created,
        "owned_by": "epd",
    }

"""The routes: parse, call, shape, and nothing else."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.routing import Route

from epd import __version__
from epd.errors import NotFound
from epd.gateway.answer import answer
from epd.gateway.completions import completions
from epd.gateway.front import Front
from epd.gateway.guard import tenant_of
from epd.gateway.openapi import show
from epd.gateway.operator import check_operator, read_order
from epd.gateway.responses import Responses
from epd.gateway.service import Service
from epd.gateway.tokenizing import detokenize, tokenize
from epd.gateway.transcriptions import TranscribedAnswer, transcription


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _front(request: Request) -> Front:
    front: Front = request.app.state.front
    return front


async def _responses(request: Request) -> Responses:
    responses: Responses = request.app.state.responses
    return responses


ServiceDep = Annotated[Service, Depends(_service)]
FrontDep = Annotated[Front, Depends(_front)]
ResponsesDep = Annotated[Responses, Depends(_responses)]


def install_routes(app: FastAPI) -> None:
    """Those that run the model are plain: they resolve and convert nothing, and for a short answer
    FastAPI's own would take as long as all else that is done here.
    """
    for path, endpoint in (
        ("/v1/chat/completions", chat_completions),
        ("/v1/completions", text_completions),
        ("/v1/responses", create_response),
        ("/v1/audio/transcriptions", transcriptions),
    ):
        app.router.routes.append(Route(path, endpoint, methods=["POST"]))
    app.add_api_route("/v1/responses/{response_id}", response, methods=["GET"])
    app.add_api_route("/v1/responses/{response_id}", forget_response, methods=["DELETE"])
    app.add_api_route("/tokenize", tokenize_text, methods=["POST"])
    app.add_api_route("/detokenize", detokenize_ids, methods=["POST"])
    app.add_api_route("/v1/models", models, methods=["GET"])
    app.add_api_route("/v1/models/{name:path}", model, methods=["GET"])
    app.add_api_route("/health", health, methods=["GET"])
    app.add_api_route("/ready", ready, methods=["GET"])
    app.add_api_route("/version", version, methods=["GET"])
    app.add_api_route("/metrics", metrics, methods=["GET"])
    app.add_api_route("/openapi.json", openapi, methods=["GET"])
    app.add_api_route("/docs", docs, methods=["GET"])
    app.add_api_route("/cluster", cluster, methods=["GET"])
    app.add_api_route("/cluster/requests", recent, methods=["GET"])
    app.add_api_route("/cluster/requests/{request_id}", where, methods=["GET"])
    app.add_api_route("/cluster/drain", drain, methods=["POST"])


async def chat_completions(request: Request) -> Response:
    """OpenAI chat completions. Leaving early cancels the request on every stage."""
    service, front = await _service(request), await _front(request)
    prepared = await front.prepare(request, partial(front.chat, model_name=service.model_name))
    return answer(service, front, prepared)


async def text_completions(request: Request) -> Response:
    """OpenAI text completions: prompts as they are written, special tokens included."""
    service, front = await _service(request), await _front(request)
    parse = partial(completions, front=front, model_name=service.model_name)
    return answer(service, front, await front.prepare(request, parse))


async def create_response(request: Request) -> Response:
    """A response, as Open Responses has it. It may go on with one that any gateway keeps."""
    service, front = await _service(request), await _front(request)
    responses = await _responses(request)
    parse = partial(responses.parse, model_name=service.model_name)
    return answer(service, front, await front.prepare(request, parse, responses.before))


async def response(
    request: Request, response_id: str, responses: ResponsesDep, cache_salt: str = ""
) -> dict[str, Any]:
    """A response that is kept, whichever gateway made it."""
    return await responses.find(response_id, tenant_of(request.scope), cache_salt)


async def forget_response(
    request: Request, response_id: str, responses: ResponsesDep, cache_salt: str = ""
) -> dict[str, Any]:
    """A response is kept no longer, whichever gateway made it."""
    await responses.forget(response_id, tenant_of(request.scope), cache_salt)
    return {"id": response_id, "object": "response", "deleted": True}


async def transcriptions(request: Request) -> Response:
    """What is said in an audio file, as far as the model understands it."""
    service, front = await _service(request), await _front(request)
    parse = partial(
        transcription,
        content_type=request.headers.get("content-type", ""),
        front=front,
        model_name=service.model_name,
    )
    return TranscribedAnswer(service, front, await front.prepare(request, parse))


async def tokenize_text(request: Request, service: ServiceDep, front: FrontDep) -> dict[str, Any]:
    """The token ids of a text, or of a chat."""
    return await front.read(request, partial(tokenize, front=front, model_name=service.model_name))


async def detokenize_ids(request: Request, service: ServiceDep, front: FrontDep) -> dict[str, Any]:
    """The text of token ids."""
    parse = partial(detokenize, front=front, model_name=service.model_name)
    return await front.read(request, parse)


async def models(service: ServiceDep, front: FrontDep) -> dict[str, Any]:
    """The one model that is served, under all of its names."""
    return {
        "object": "list",
        "data": [_card(name, service, front) for name in _names(service, front)],
    }


async def model(name: str, service: ServiceDep, front: FrontDep) -> dict[str, Any]:
    """The same, by name."""
    if name not in _names(service, front):
        raise NotFound(
            f"there is no model {name[:200]!r} here", param="model", code="model_not_found"
        )
    return _card(name, service, front)


async def health() -> dict[str, str]:
    """Liveness: the loop turns."""
    return {"status": "ok"}


async def ready(service: ServiceDep) -> Response:
    """Readiness: work can be taken."""
    if service.ready():
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "not ready"}, status_code=503)


async def version() -> dict[str, str]:
    """Of this server."""
    return {"version": __version__}


async def metrics(service: ServiceDep) -> Response:
    """Prometheus."""
    return Response(service.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def openapi(request: Request) -> Response:
    """This surface as an OpenAPI document."""
    return JSONResponse(request.app.state.document)


async def docs(request: Request) -> Response:
    """The same as a page for people."""
    return Response(show(request.app.state.document), media_type="text/html; charset=utf-8")


async def cluster(service: ServiceDep) -> dict[str, Any]:
    """Workers, roles, state, load."""
    return service.cluster()


async def recent(request: Request, service: ServiceDep, front: FrontDep) -> dict[str, Any]:
    """The paths of the last requests, of all tenants: for an operator."""
    check_operator(request, front.config.admin_key)
    return {"requests": service.recent()}


async def where(request_id: str, service: ServiceDep) -> dict[str, Any]:
    """What a request waits for."""
    return service.where(request_of(request_id))


async def drain(request: Request, service: ServiceDep, front: FrontDep) -> dict[str, Any]:
    """An operator's order: a worker finishes and leaves."""
    order = await read_order(request, front.config.admin_key, front.config.body_timeout_s)
    service.drain(order.worker, order.seconds)
    return {"worker": order.worker, "state": "draining"}


def request_of(answer_id: str) -> str:
    """The cluster's own id of what any API calls its answer."""
    if answer_id.startswith("resp_"):
        return answer_id.removeprefix("resp_").partition("_")[0]
    return answer_id.rpartition("-")[2]


def _names(service: Service, front: Front) -> list[str]:
    return list(dict.fromkeys((service.model_name, *front.other_names)))


def _card(name: str, service: Service, front: Front) -> dict[str, Any]:
    """OpenAI's, and what load tools ask of it, which vLLM's servers have: `root`, by which they
    find a tokenizer, and the length of a context, by which they size their prompts. `items` says
    how many of each kind a request may have.
    """
    return {
        "id": name,
        "root": service.model_name,
        "object": "model",
        "created": service.created,
        "owned_by": "epd",
        "max_model_len": front.max_context,
        "items": front.takes,
    }

"""The routes: parse, call, shape, and nothing else."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from epd import __version__
from epd.errors import NotFound
from epd.gateway.answer import answer
from epd.gateway.completions import completions
from epd.gateway.front import Front
from epd.gateway.guard import tenant_of
from epd.gateway.openapi import show
from epd.gateway.operator import read_order
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


def build_router() -> APIRouter:
    """A router of its own for every app."""
    router = APIRouter(redirect_slashes=False)
    router.add_api_route("/v1/chat/completions", chat_completions, methods=["POST"])
    router.add_api_route("/v1/completions", text_completions, methods=["POST"])
    router.add_api_route("/v1/responses", create_response, methods=["POST"])
    router.add_api_route("/v1/responses/{response_id}", response, methods=["GET"])
    router.add_api_route("/v1/responses/{response_id}", forget_response, methods=["DELETE"])
    router.add_api_route("/v1/audio/transcriptions", transcriptions, methods=["POST"])
    router.add_api_route("/tokenize", tokenize_text, methods=["POST"])
    router.add_api_route("/detokenize", detokenize_ids, methods=["POST"])
    router.add_api_route("/v1/models", models, methods=["GET"])
    router.add_api_route("/v1/models/{name:path}", model, methods=["GET"])
    router.add_api_route("/health", health, methods=["GET"])
    router.add_api_route("/ready", ready, methods=["GET"])
    router.add_api_route("/version", version, methods=["GET"])
    router.add_api_route("/metrics", metrics, methods=["GET"])
    router.add_api_route("/openapi.json", openapi, methods=["GET"])
    router.add_api_route("/docs", docs, methods=["GET"])
    router.add_api_route("/cluster", cluster, methods=["GET"])
    router.add_api_route("/cluster/requests/{request_id}", where, methods=["GET"])
    router.add_api_route("/cluster/drain", drain, methods=["POST"])
    return router


async def chat_completions(request: Request, service: ServiceDep, front: FrontDep) -> Response:
    """OpenAI chat completions. Leaving early cancels the request on every stage."""
    prepared = await front.prepare(request, partial(front.chat, model_name=service.model_name))
    return answer(service, front, prepared)


async def text_completions(request: Request, service: ServiceDep, front: FrontDep) -> Response:
    """OpenAI text completions: prompts as they are written, special tokens included."""
    parse = partial(completions, front=front, model_name=service.model_name)
    return answer(service, front, await front.prepare(request, parse))


async def create_response(
    request: Request, service: ServiceDep, front: FrontDep, responses: ResponsesDep
) -> Response:
    """A response, as Open Responses has it. It may go on with one that any gateway keeps."""
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


async def transcriptions(request: Request, service: ServiceDep, front: FrontDep) -> Response:
    """What is said in an audio file, as far as the model understands it."""
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
    find a tokenizer, and the length of a context, by which they size their prompts.
    """
    return {
        "id": name,
        "root": service.model_name,
        "object": "model",
        "created": service.created,
        "owned_by": "epd",
        "max_model_len": front.max_context,
    }

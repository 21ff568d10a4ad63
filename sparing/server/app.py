"""The routes."""

import logging
from typing import Annotated, Any

from anyio import to_thread
from fastapi import FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from sparing import __version__
from sparing.errors import SparingError
from sparing.options import Depth, Latent, Memory, Sampling
from sparing.server.errors import AsciiJSON, ErrorBody, Refused
from sparing.server.examples import examples, has_more
from sparing.server.middleware import Gate
from sparing.server.records import Records
from sparing.server.refusals import of_status, of_validation
from sparing.server.requests import ChatRequest, CommonRequest, CompletionRequest, nullable
from sparing.server.responses import ChatCompletion, Completion
from sparing.server.runs import LiveRun
from sparing.server.schemas import (
    ExampleQuery,
    Examples,
    Health,
    Model,
    Models,
    RunState,
    run_state,
    spares,
)
from sparing.server.service import Service, refusal
from sparing.server.sse import EventStream, completion, disconnected, events
from sparing.server.static import show_page
from sparing.server.writers import ChatWriter, TextWriter

log = logging.getLogger("sparing")
STREAM = {  # the schema of one event
    "text/event-stream": {
        "schema": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in ("data", "event", "id")},
            "required": ["data"],
        }
    }
}


class Cancelled(BaseModel):
    id: str
    cancelled: bool


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route, for its description."""
    return {status: {"model": ErrorBody} for status in (401, *statuses)}


ANSWERS = refusals(400, 404, 408, 409, 413, 429, 500, 503, 504)


def build_app(service: Service) -> FastAPI:
    """Build the app with all routes of a service."""
    app = FastAPI(
        title="Sparing",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,
    )
    app.state.service = service
    add_middleware(app, service)
    answer_errors(app, service)
    add_completion_routes(app, service)
    add_run_routes(app, service)
    tell_models(app, service)
    tell_state(app, service)
    show_page(app)
    complete_description(app, service.model)
    return app


def add_middleware(app: FastAPI, service: Service) -> None:
    """Add what stands around all routes; the last is the outermost."""
    serving = service.serving
    app.add_middleware(
        Gate,
        body_bytes=serving.body_bytes,
        body_s=serving.body_s,
        api_key=serving.api_key,
        refused=service.metrics.refused,
    )
    if serving.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=serving.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=("x-request-id", "retry-after"),
        )
    app.add_middleware(Records)


def complete_description(app: FastAPI, model: str) -> None:
    """Add to the API's description the served model, and that Python's options may be null."""
    schemas = app.openapi()["components"]["schemas"]
    for body in (ChatRequest, CompletionRequest):
        schemas[body.__name__]["properties"]["model"]["enum"] = [model]
    for options in (Memory, Depth, Latent, Sampling):
        nullable(schemas[options.__name__])


def answer_errors(app: FastAPI, service: Service) -> None:
    """Answer every error in OpenAI's format, and count it."""

    def respond(request: Request, error: Refused) -> Response:
        service.metrics.refused(error.status)
        request.state.reason = error
        return error.response()

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return respond(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return respond(request, of_validation(error, request.headers.get("content-type")))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return respond(request, of_status(error))

    @app.exception_handler(Exception)
    async def ours(request: Request, error: Exception) -> Response:
        return respond(request, refusal(error))


def add_completion_routes(app: FastAPI, service: Service) -> None:
    """Add OpenAI's routes for completions."""
    described: dict[int | str, dict[str, Any]] = {**ANSWERS}

    @app.post(
        "/v1/chat/completions",
        responses={200: {"model": ChatCompletion, "content": STREAM}, **described},
    )
    async def chat(body: ChatRequest, request: Request) -> Response:
        run = await service.open(body, body.prompts(), "chatcmpl")
        return await answer(service, request, body, run, ChatWriter)

    @app.post(
        "/v1/completions",
        responses={200: {"model": Completion, "content": STREAM}, **described},
    )
    async def complete(body: CompletionRequest, request: Request) -> Response:
        run = await service.open(body, body.prompts(), "cmpl")
        return await answer(service, request, body, run, TextWriter)


async def answer(
    service: Service,
    request: Request,
    body: CommonRequest,
    run: LiveRun,
    kind: type[ChatWriter] | type[TextWriter],
) -> Any:
    """Answer with a run, whole or streamed; it is cancelled if the client disconnects."""
    teller = kind(run, body, service.tokens, service.model)
    request.state.run, request.state.usage = run, teller.usage
    headers = {"x-request-id": run.id}
    if body.stream:
        parts = completion(service, run, teller)
        left = lambda: service.cancel(run)  # noqa: E731
        return EventStream(parts, service.serving.request_s, headers, left)
    await service.finish(run, disconnected(request.receive))
    return AsciiJSON(teller.whole(), headers=headers)


def add_run_routes(app: FastAPI, service: Service) -> None:
    """Add the routes of a run: its state, its events, its cancellation."""

    def found(id_: str) -> LiveRun:
        run = service.runs.find(id_)
        if run is None:
            raise Refused(
                404,
                f"a run must be live or among the last {service.serving.keep_runs} to end, "
                f"got {id_!r}; pass the id of an answer",
                param="id",
                code="run_not_found",
            )
        return run

    @app.get("/v1/runs/{id}", responses={200: {"model": RunState}, **refusals(404)})
    async def state(id: str) -> Response:
        told = run_state(found(id), service.engine.chat, service.model)
        return AsciiJSON(told.model_dump())

    @app.get(
        "/v1/runs/{id}/events",
        responses={200: {"content": STREAM}, **refusals(400, 404)},
        response_class=Response,
    )
    async def follow(id: str, last_event_id: Annotated[int, Header(ge=-1)] = -1) -> Any:
        run = found(id)
        return EventStream(events(service, run, last_event_id), service.serving.request_s, {})

    @app.post("/v1/runs/{id}/cancel", responses=refusals(404, 408, 413))
    async def cancel(id: str) -> Cancelled:
        run = found(id)
        service.cancel(run)
        return Cancelled(id=run.id, cancelled=not run.done)


def tell_models(app: FastAPI, service: Service) -> None:
    """Add the routes of models and example questions."""
    engine = service.engine
    model = Model(
        id=service.model,
        created=service.created,
        context=engine.decoder.shape.context,
        sparing=spares(
            engine,
            service.resolver.defaults,
            service.room.slot_bytes,
            service.resolver.new_tokens,
        ),
    )

    @app.get("/v1/models", responses=refusals())
    async def models() -> Models:
        return Models(data=[model])

    @app.get("/v1/models/{id:path}", responses=refusals(404))
    async def one_model(id: str) -> Model:
        if id not in service.models:
            raise Refused(404, f"the model must be {service.model}, got {id!r}", param="model",
                          code="model_not_found")  # fmt: skip
        return model

    @app.get("/v1/examples", responses=refusals(400))
    async def some_examples(draw: Annotated[ExampleQuery, Query()]) -> Examples:
        try:
            found = await to_thread.run_sync(examples, engine.chat.scope, draw.seed)
        except SparingError as error:
            raise Refused(400, str(error), param="seed") from None
        return Examples(seed=draw.seed, questions=list(found), more=has_more(engine.chat.scope))


def tell_state(app: FastAPI, service: Service) -> None:
    """Add the routes of the server's health and metrics."""

    @app.get("/health", responses={503: {"model": Health}})
    async def health(response: Response) -> Health:
        scheduler = service.scheduler
        status = "stopping" if service.stopping else "ok" if scheduler.alive else "failed"
        response.status_code = 200 if status == "ok" else 503
        return Health(
            status=status,
            live=scheduler.live,
            waiting=scheduler.waiting,
            kv_bytes=scheduler.kv_bytes,
            kv_bytes_limit=scheduler.room.kv_bytes,
        )

    @app.get("/metrics", responses={200: {"content": {"text/plain": {}}}, **refusals()},
             response_class=Response)  # fmt: skip
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

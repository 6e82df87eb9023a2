"""The HTTP routes: a request's pictures -> answers, and what is known of the models and of the server."""

import asyncio
import logging
import time
from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from serve.intake import Limits, Upload, upload
from serve.jobs import Render, Seen
from serve.logs import request_id
from serve.problems import Problem
from serve.schema import Answer, Batch, DriftReport, Error, Health, InputDrift, LoadRequest, Models, Swapped
from serve.service import Question, Service
from stages.release import Release

logger = logging.getLogger(__name__)


def error(status: int, words: str) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Error, "description": words}}


COMMON: Final = {
    **error(401, "no key, or one that is not known"),
    **error(403, "the key's role does not allow it"),
    **error(429, "too many requests; Retry-After says when"),
}
OF_PICTURES: Final = {
    **COMMON,
    **error(400, "no picture, a wrong field, bad JSON or base64"),
    **error(408, "the body came too slowly"),
    **error(409, "the version asked for is not loaded"),
    **error(413, "too many bytes, pixels or pictures"),
    **error(415, "a content type that is not taken"),
    **error(422, "not a readable picture, or a parameter out of range"),
    **error(500, "a fault in the server; the picture is not shown"),
    **error(503, "no model yet, too many pictures under way, or a worker died; Retry-After says when"),
    **error(504, "no answer in time"),
}
ONE_PIXEL: Final = (  # a whole PNG
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVQIHWNoaGgAAAMEAYHZ9rm7AAAAAElFTkSuQmCC"
)
BINARY: Final = {"schema": {"type": "string", "format": "binary"}}


def body(**bounds: int) -> dict[str, Any]:
    """bounds: of the number of files in a form, in the words of JSON Schema."""
    files = {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}, **bounds}
    image = {"type": "string", "format": "byte", "minLength": 1}
    forms = {
        "multipart/form-data": {"schema": of_only("file", files)},
        "application/json": {"schema": of_only("image", image), "example": {"image": ONE_PIXEL}},
    }
    raw = dict.fromkeys(("image/jpeg", "image/png", "image/webp"), BINARY)
    return {"requestBody": {"required": True, "content": raw | forms}}


def of_only(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": [name], "additionalProperties": False, "properties": {name: schema}}


JPEG: Final = {"image/jpeg": BINARY}
Fraction = Annotated[float | None, Query(ge=0, le=1)]


def the_service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def sent(request: Request, service: Annotated[Service, Depends(the_service)]) -> Upload:
    settings = service.settings
    uploaded = await upload(request, Limits(settings.max_pixels, settings.max_batch))
    service.metrics.batch.observe(len(uploaded.pictures))
    return uploaded


def question(
    confidence: Annotated[Fraction, Query(description="of a hand, at least; the model's own if left out")] = None,
    iou: Annotated[Fraction, Query(description="overlap above which two boxes are one hand")] = None,
    render: Annotated[
        Render,
        Query(
            description="image: the blurred picture with boxes, as JPEG; blurred: JSON with the blurred picture in it"
        ),
    ] = "none",
) -> Question:
    return Question(confidence, iou, render)


Served = Annotated[Service, Depends(the_service)]
router = APIRouter()


@router.post(
    "/predict",
    response_model=Answer | Batch,
    responses={200: {"content": JPEG}, **OF_PICTURES},
    openapi_extra=body(),
    summary="Count raised fingers; faces are hidden first",
)
async def predict(
    service: Served,
    asked: Annotated[Question, Depends(question)],
    uploaded: Annotated[Upload, Depends(sent)],
    model: Annotated[str | None, Query(description="a loaded version", min_length=1, max_length=100)] = None,
) -> Response:
    served, since = service.loaded.take(model), time.perf_counter()
    if not uploaded.batch:
        answer, seen = await service.count(uploaded.pictures[0], served, asked, since)
        if asked.render == "image":
            return picture(seen, {"X-Finger-Count": str(answer.finger_count)})
        return as_json(answer)

    async def one(content: bytes | Problem) -> Answer | Error:
        try:
            answer, _ = await service.count(content, served, asked, since)
        except Problem as problem:
            service.metrics.errors.labels("/predict", problem.status).inc()
            return Error.model_validate(problem.body(request_id()))
        return answer

    return as_json(Batch(results=await asyncio.gather(*map(one, uploaded.pictures))))


@router.post(
    "/blur",
    response_class=Response,
    responses={200: {"content": JPEG}, **OF_PICTURES},
    openapi_extra=body(maxItems=1),
    summary="The picture with faces hidden, and nothing else",
)
async def blur(service: Served, uploaded: Annotated[Upload, Depends(sent)]) -> Response:
    return picture(await service.blur(only(uploaded)))


@router.get("/models", response_model=Models, responses=COMMON, summary="Versions, and which are loaded")
async def models(service: Served) -> Models:
    return await service.loaded.listed()


@router.post(
    "/models/load",
    response_model=Swapped,
    responses={
        **COMMON,
        **error(400, "no JSON"),
        **error(404, "no such version"),
        **error(409, "the version could not be loaded; the one before goes on answering"),
        **error(422, "no version named"),
        **error(503, "the registry is away"),
    },
    summary="Put another version in place, without a restart; needs the admin key",
)
async def load(service: Served, wanted: LoadRequest, request: Request) -> Swapped:
    before, since, who = service.loaded.current, time.perf_counter(), request.state.caller.name
    try:
        current = await service.loaded.load(wanted.version)
    except Problem as problem:
        service.metrics.swaps.labels("failed").inc()
        logger.warning("%s asked for version %a: %s", who, wanted.version, problem.message)
        raise
    logger.info("%s asked for version %a: %s answers now", who, wanted.version, current.version)
    service.metrics.swaps.labels("done").inc()
    seconds = round(time.perf_counter() - since, 3)
    return Swapped(current=current.ref, before=before.ref if before else None, seconds=seconds)


@router.get(
    "/models/{version}",
    response_model=Release,
    responses={**COMMON, **error(404, "no such path"), **error(409, "the version is not loaded")},
    summary="A loaded version's release: classes and their numbers, thresholds, scores, lineage",
)
async def release(service: Served, version: Annotated[str, Path(min_length=1, max_length=100)]) -> Release:
    return service.loaded.take(version).release


@router.get("/health", response_model=Health, summary="How it is; answers 200 also when not ready")
async def health(service: Served) -> Health:
    return service.health()


@router.get("/ready", response_model=Health, responses={503: {"model": Health}}, summary="200 when a model answers")
async def ready(service: Served, response: Response) -> Health:
    state = service.health()
    response.status_code = 503 if state.status == "not ready" else 200
    return state


@router.get("/livez", response_class=Response, status_code=204, summary="204 while the process answers at all")
async def livez() -> Response:
    return Response(status_code=204)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}, "application/json": {}}}, **COMMON},
    summary="For Prometheus; JSON if asked for",
)
async def metrics(service: Served, request: Request) -> Response:
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse(service.metrics.document())
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


@router.get("/drift", response_model=DriftReport, responses=COMMON, summary="Are pictures as those in training were?")
async def drift(service: Served) -> DriftReport:
    current = service.loaded.current
    found = service.metrics.drifts(current.release) if current else []
    inputs = [InputDrift(**asdict(each), drifted=each.drifted) for each in found]
    return DriftReport(version=current.version if current else None, inputs=inputs)


def only(uploaded: Upload) -> bytes | Problem:
    """Raises Problem unless there is one picture."""
    if uploaded.batch:
        raise Problem(400, "bad_request", f"{len(uploaded.pictures)} pictures; this takes one")
    return uploaded.pictures[0]


def as_json(answer: Answer | Batch) -> Response:
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")


def picture(seen: Seen, headers: dict[str, str] | None = None) -> Response:
    told = {"X-Faces-Blurred": str(seen.faces), "X-Preprocessing-Applied": str(seen.blurred).lower()}
    return Response(seen.jpeg, media_type="image/jpeg", headers=told | (headers or {}))

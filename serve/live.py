"""WebSocket: JPEG frames in, counts out. One frame of a client is under way at a time; of those waiting, the newest."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serve.access import Access, address_of
from serve.logs import request_id
from serve.problems import Problem
from serve.service import Question, Service

HELLO_WITHIN = 10.0  # s for a client to say who it is
POLICY_VIOLATION, TRY_AGAIN_LATER = 1008, 1013  # close codes, RFC 6455 and its registry
MOST_CLIENTS = 64


class Hello(BaseModel):
    """A text message: the first, where a key is needed; later ones change the threshold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str | None = None
    confidence: float | None = Field(default=None, ge=0, le=1)
    iou: float | None = Field(default=None, ge=0, le=1)
    model: str | None = Field(default=None, min_length=1, max_length=100)


@dataclass
class Newest:
    """The one frame that waits."""

    hello: Hello
    frame: bytes | None = None
    arrived: float = 0.0
    dropped: int = 0  # replaced by a newer one before they were looked at

    def put(self, frame: bytes) -> None:
        self.dropped += self.frame is not None
        self.frame, self.arrived = frame, time.perf_counter()


def live_routes(service: Service, access: Access) -> APIRouter:
    router = APIRouter()

    @router.websocket("/ws/predict")
    async def predict(socket: WebSocket) -> None:
        if service.metrics.clients >= MOST_CLIENTS:
            await socket.close(TRY_AGAIN_LATER, f"{MOST_CLIENTS} clients are connected")
            return
        await socket.accept()
        with service.metrics.client():
            try:
                newest = Newest(hello=await greeted(socket, access))
                await conversation(socket, service, newest)
            except Problem as problem:
                with suppress(WebSocketDisconnect, RuntimeError):
                    await socket.send_json(problem.body(request_id()))
                    await socket.close(POLICY_VIOLATION, problem.code)
            except WebSocketDisconnect:
                return

    return router


async def greeted(socket: WebSocket, access: Access) -> Hello:
    """Raises Problem unless the client is known, by a header or by its first message."""
    if socket.scope["state"]["caller"] is not None:
        return Hello()
    try:
        hello = parsed(await asyncio.wait_for(socket.receive_text(), HELLO_WITHIN))
    except TimeoutError:
        raise Problem(401, "unauthorized", f'no key within {HELLO_WITHIN:g} s; send {{"key": "..."}} first') from None
    except KeyError:  # a frame of bytes
        raise Problem(401, "unauthorized", 'send {"key": "..."} before the first frame') from None
    if hello.key is None:
        raise Problem(401, "unauthorized", 'the first message is {"key": "..."}')
    access.admit(hello.key, address_of(socket.scope))
    await socket.send_json({"ready": True})
    return hello


async def conversation(socket: WebSocket, service: Service, newest: Newest) -> None:
    """Until the client leaves."""
    there = asyncio.Event()
    reading = asyncio.create_task(keep_reading(socket, newest, there))
    try:
        number = 0
        while True:
            waiting = asyncio.create_task(there.wait())
            await asyncio.wait([waiting, reading], return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                waiting.cancel()
                reading.result()
                return
            there.clear()
            frame, newest.frame = newest.frame, None
            if frame is None:
                continue
            number += 1
            service.metrics.frames_dropped.inc(newest.dropped)
            told = {"frame": number, "dropped": newest.dropped}
            newest.dropped = 0
            await socket.send_json(told | await one(service, frame, newest))
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError, WebSocketDisconnect, Problem, RuntimeError):
            await reading


async def keep_reading(socket: WebSocket, newest: Newest, there: asyncio.Event) -> None:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        if (frame := message.get("bytes")) is not None:
            newest.put(frame)
            there.set()
        else:
            newest.hello = parsed(message.get("text") or "")


async def one(service: Service, frame: bytes, newest: Newest) -> dict[str, Any]:
    """An answer as /predict gives it, or an error; a bad frame does not end the conversation."""
    hello = newest.hello
    try:
        served = service.loaded.take(hello.model)
        answer, _ = await service.count(frame, served, Question(hello.confidence, hello.iou), newest.arrived)
    except Problem as problem:
        service.metrics.errors.labels("/ws/predict", problem.status).inc()
        return problem.body(request_id())
    return answer.model_dump(exclude_none=True)


def parsed(text: str) -> Hello:
    try:
        return Hello.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the message"
        raise Problem(400, "bad_request", f"{field}: {first['msg'].lower()}") from None

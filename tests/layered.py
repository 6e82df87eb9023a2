"""A small app inside the server's layers, whose routes say what reached them, and ways to ask it."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import APIRouter, FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse

from serve.access import address_of
from serve.layers import install
from serve.logs import request_id
from serve.problems import Problem
from serve.settings import Settings

USER, SECOND, ADMIN = "user-key-0123456789", "second-key-0123456", "admin-key-01234567"
KEYS = {"API_KEYS": f"{USER},{SECOND}", "ADMIN_KEYS": ADMIN}
QUOTE = "what was sent: a face"
MODEL = {"X-Model-Version": "7", "X-Model-Sha256": "ab12", "X-Git-Revision": "cd34"}


def site(settings: Settings) -> FastAPI:
    app = FastAPI()
    app.include_router(routes)
    access = install(app, settings, lambda: MODEL)

    @app.websocket("/ws/predict")
    async def live(ws: WebSocket) -> None:
        await ws.accept()
        try:
            caller = ws.scope["state"]["caller"] or access.admit(await ws.receive_text(), address_of(ws.scope))
            await ws.send_text(f"{caller.name} {caller.role}")
        except Problem as refused:
            await ws.send_json(refused.body(request_id()))
        await ws.close()

    return app


routes = APIRouter()


@routes.get("/health")
async def health() -> str:
    return "up"


@routes.post("/predict")
async def predict(request: Request) -> JSONResponse:
    body = await request.body()
    return JSONResponse({"bytes": len(body), "caller": request.state.caller.name, "id": request_id()})


@routes.post("/parsed")
async def parsed(document: dict[str, Any]) -> int:
    return len(document)


@routes.post("/models/load")
async def load() -> str:
    return "loaded"


@routes.get("/bug")
async def bug() -> None:
    try:
        raise ValueError(QUOTE)  # noqa: TRY301 -- a cause with words of its own
    except ValueError as error:
        raise RuntimeError(QUOTE) from error


@routes.websocket("/ws/bug")
async def live_bug(ws: WebSocket) -> None:
    await ws.accept()
    raise RuntimeError(QUOTE)


@routes.get("/problem")
async def problem() -> None:
    raise Problem(409, "model_not_loaded", "version 3 is not loaded", {"X-Model-Version": "3"})


@routes.get("/cut")
async def cut() -> StreamingResponse:
    async def half() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError("broken")

    return StreamingResponse(half())


def ask(
    app: FastAPI,
    path: str,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
    content: bytes = b"",
    client: str = "127.0.0.1",
    host: str = "127.0.0.1:8000",
) -> httpx.Response:
    async def one() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(client, 5000))
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as session:
            return await session.request(method, path, headers=headers, content=content)

    return asyncio.run(one())


def code_of(answer: httpx.Response) -> tuple[int, str]:
    """(status, code) of a refusal, whose shape and headers are looked at on the way."""
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "request_id"}
    assert error["request_id"] == answer.headers["X-Request-Id"]
    assert answer.headers["Content-Type"] == "application/json"
    return answer.status_code, error["code"]


@contextmanager
def running(app: FastAPI) -> Iterator[int]:
    """A real server on a free port of loopback."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, access_log=False, proxy_headers=False, ws="websockets-sansio")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()

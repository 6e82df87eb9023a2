"""The app -> the app inside its layers: ids, headers, CORS, limits of the body, access; one JSON shape for refusals."""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from serve.access import PROBES, RATE_HEADERS, Access, Guarded, route_path, stamped
from serve.logs import current_request, request_id
from serve.problems import Problem
from serve.settings import Settings

logger = logging.getLogger(__name__)

ModelHeaders = Callable[[], Mapping[str, str]]  # MODEL_HEADERS as they are now

MODEL_HEADERS = ("X-Model-Version", "X-Model-Sha256", "X-Git-Revision")
SANE_ID = re.compile(r"[A-Za-z0-9][\w.:-]{0,63}", re.ASCII)
LINGER = 2.0  # s for a refused client to stop sending; closed at once, TCP would reset away the answer it has not read


def install(app: FastAPI, settings: Settings, model_headers: ModelHeaders) -> Access:
    """Before app starts. What is added last stands outermost. The Access is for WebSockets, whose key comes later."""
    access = Access(settings)
    app.add_middleware(Guarded, access=access, settings=settings)
    app.add_middleware(Bounded, max_body=settings.max_body, timeout=settings.request_timeout)
    if settings.cors_origins:  # outside what refuses, so that a page can read why; without credentials: no cookies here
        app.add_middleware(
            Cors,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["X-API-Key", "Authorization", "X-Request-Id"],
            expose_headers=["X-Request-Id", *MODEL_HEADERS, *RATE_HEADERS],
        )
    app.add_middleware(Identified, model_headers=model_headers)
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies))
    return access


class Identified:
    """Gives each request its id and each answer its headers; one line of log for both, without the query."""

    def __init__(self, app: ASGIApp, model_headers: ModelHeaders) -> None:
        self._app = app
        self._model_headers = model_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        current_request.set(given if SANE_ID.fullmatch(given) else uuid.uuid4().hex)
        started = time.perf_counter()
        status: int | None = None

        def headers() -> Mapping[str, str]:
            always = {"X-Request-Id": request_id(), "X-Content-Type-Options": "nosniff"}
            return {**always, "Cache-Control": "no-store", **self._model_headers()}

        async def noted(message: Message) -> None:
            nonlocal status
            if status is None:  # a WebSocket's answers have no number of their own
                status = {"websocket.accept": 101, "websocket.close": 403}.get(message["type"], message.get("status"))
            await send(message)

        try:
            await self._app(scope, receive, stamped(noted, headers))
        finally:
            entry: dict[str, Any] = {
                "method": scope.get("method", "WS"),
                "path": quote(scope["path"])[:200],
                "status": status or 499,  # as nginx writes it: the client left before an answer
                "ms": round((time.perf_counter() - started) * 1000, 1),
            }
            level = logging.DEBUG if route_path(scope) in PROBES else logging.INFO
            logger.log(level, "%(method)s %(path)s %(status)s %(ms)s ms", entry, extra=entry)


class Cors(CORSMiddleware):
    """Starlette's, with refusals in our shape."""

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code == 200:
            return answer
        problem = Problem(400, "bad_request", f"{bytes(answer.body).decode()}; CORS_ORIGINS lists who may")
        return JSONResponse(problem.body(request_id()), problem.status, {"Vary": answer.headers["Vary"]})


class Bounded:
    """Stops a body that is too large or too slow, and answers for whatever an inner layer or the app raises."""

    def __init__(self, app: ASGIApp, max_body: int, timeout: float) -> None:
        self._app = app
        self._max_body = max_body
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        body = Body(Headers(scope=scope), receive, self._max_body, self._timeout)
        begun = False

        async def first(message: Message) -> None:
            nonlocal begun
            if begun or body.refused is None:  # else it answers about the half of a body that it was given
                begun = True
                await send(message)

        problem: Problem | None
        try:
            await self._app(scope, body.receive, first)
            problem = body.refused
        except Problem as raised:
            problem = raised
        except ClientDisconnect:
            return
        except Exception:  # whatever it is: nothing further out answers with an id and in our shape
            logger.exception("no answer but a 500")
            problem = Problem(500, "internal", "the server failed; its log says more under this request_id")
        if problem and not begun:  # half an answer stays half: uvicorn cuts the connection, so that it shows
            await self._refuse(problem, body, scope, send)

    async def _refuse(self, problem: Problem, body: "Body", scope: Scope, send: Send) -> None:
        answer = JSONResponse(problem.body(request_id()), problem.status, dict(problem.headers))
        if not body.unread:
            await answer(scope, body.receive, send)
            return
        answer.headers["Connection"] = "close"

        async def lingering(message: Message) -> None:
            if message["type"] == "http.response.body":
                await send({**message, "more_body": True})
                await body.drain()
                await send({"type": "http.response.body", "body": b""})
            else:
                await send(message)

        await answer(scope, body.receive, lingering)


class Body:
    """What a client sends, up to max_size bytes in up to timeout seconds; messages of a WebSocket pass."""

    def __init__(self, headers: Headers, receive: Receive, max_size: int, timeout: float) -> None:
        announced = headers.get("content-length", "")
        self._receive = receive
        self._max_size = max_size
        self._timeout = timeout
        self._deadline = asyncio.get_running_loop().time() + timeout
        self._size = 0
        self._announced = int(announced) if announced.isdecimal() else 0
        self.unread = self._announced > 0 or "transfer-encoding" in headers
        self.refused: Problem | None = None

    async def receive(self) -> Message:
        """Raises Problem, and again at each further call."""
        if not self.unread and not self.refused:
            return await self._receive()  # also where the app waits for the client to leave, however long
        if self.refused:
            raise self.refused
        if self._announced > self._max_size:
            raise self._too_large()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._next()
        except TimeoutError:
            self.refused = Problem(408, "timeout", f"the body was not there after {self._timeout:g} s")
            raise self.refused from None
        if self._size > self._max_size:
            raise self._too_large()
        return message

    async def drain(self) -> None:
        """Reads on without keeping anything, for as long as a client may take to notice that it was refused."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while self.unread:
                    await self._next()

    async def _next(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        self.unread = message.get("more_body", False)
        return message

    def _too_large(self) -> Problem:
        self.refused = Problem(413, "too_large", f"the body has more than {self._max_size:,} bytes (MAX_BODY_MB)")
        return self.refused

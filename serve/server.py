"""Settings -> a running server: LitServe's processes, with our routes in place of its own."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.managers import SyncManager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import psutil
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from litserve import LitServer
from litserve.transport.factory import create_transport_from_config
from starlette.exceptions import HTTPException

from serve.api import router
from serve.board import Board
from serve.dispatch import Dispatch
from serve.layers import install
from serve.live import live_routes
from serve.logs import configure_logging, request_id
from serve.metrics import Measured, Metrics, Now
from serve.models import Loaded, Shelf
from serve.problems import Problem
from serve.runs import runs_routes
from serve.service import Service
from serve.settings import Settings
from serve.static import mount
from serve.worker import Worker, end_with_parent
from stages.lineage import local_folder
from stages.params import StageError

logger = logging.getLogger(__name__)

GRACE = 20  # s for requests under way when the server is told to stop
RESTART_CHECK = 0.25  # s between LitServe's looks at its workers


def serve(settings: Settings) -> int:
    """Until a signal ends it. The exit code: 0, or 1 when one of its processes died that nothing brings back."""
    configure_logging(settings.log_format)
    if not hasattr(os, "fork"):
        raise StageError("fingers serve: needs fork, which Windows lacks; run it in WSL or Docker: docs/windows.md")
    if not settings.enable_preprocessing:
        logger.warning("faces are NOT hidden: ENABLE_PREPROCESSING=false and ALLOW_UNBLURRED=true")
    with TemporaryDirectory(prefix="fingers-board-") as folder:
        server = build(settings, Board(Path(folder)))
        stop_on_sigterm()
        threading.Thread(target=server.service.loaded.begin, daemon=True, name="first model").start()
        server.run(
            host=settings.host,
            port=settings.port,
            num_api_servers=1,
            log_level="warning",
            generate_client_file=False,
            access_log=False,
            log_config=None,  # uvicorn's own would quote exceptions
            proxy_headers=False,  # uvicorn would believe whoever is on this machine; TRUSTED_PROXIES says whom
            server_header=False,
            ws_max_size=settings.max_body + 1,
            ws_max_queue=4,
        )
    return server.exit_code


class Server(LitServer):
    """LitServe's processes, without its routes, and with an end when one dies that LitServe does not watch."""

    service: Service
    exit_code = 0

    def register_endpoints(self) -> None:
        """None of LitServe's: `application` has all routes."""

    def _init_manager(self, num_api_servers: int) -> SyncManager:
        """As LitServe's; but a queue process of its own making would keep the port open, and outlive a kill -9 of ours.

        And the event that ends this process lies in it, where it stays when the queue process dies.
        """
        manager = SyncManager(ctx=get_context("fork"))
        manager.start(keep_only_queues)
        self._queues = manager._process  # type: ignore[attr-defined]
        self._shutdown_event = threading.Event()
        self.workers_setup_status = manager.dict()
        self.litapi_request_queues = {api.api_path: manager.Queue() for api in self.litapi_connector}
        self.transport_config.manager, self.transport_config.num_consumers = manager, num_api_servers
        self._transport = create_transport_from_config(self.transport_config)
        return manager

    def _start_server(self, *args: Any, **kwargs: Any) -> dict[int, Any]:
        configure_logging(self.service.settings.log_format)  # LitServe's `run` has put its own in place since
        processes: dict[int, Any] = super()._start_server(*args, **kwargs)
        close_listening()  # the API process has the port; when it leaves, nobody shall wait at ours
        watched = {process.sentinel: "API" for process in processes.values()} | {self._queues.sentinel: "queue"}
        threading.Thread(target=self._end_without, args=[watched], daemon=True, name="ends").start()
        return processes

    def _end_without(self, watched: Mapping[Any, str]) -> None:
        (first, *_) = wait(list(watched))
        if not self._shutdown_event.is_set():
            self.exit_code = 1
            logger.error("the %s process ended; stopping", watched[first])
            self._shutdown_event.set()

    def _perform_graceful_shutdown(self, *args: Any, **kwargs: Any) -> None:
        self._shutdown_event.set()  # or LitServe would start the workers again that it ends now
        super()._perform_graceful_shutdown(*args, **kwargs)


def build(settings: Settings, board: Board) -> Server:
    worker = Worker(settings, board)
    server = Server(
        worker,
        accelerator="cpu",  # where the network runs is chosen by stages.vision.engines, in each worker
        workers_per_device=settings.serve_workers,
        timeout=settings.request_timeout,
        restart_workers=True,
    )
    server.monitor_internal = RESTART_CHECK
    server.uvicorn_graceful_timeout = GRACE
    dispatch = Dispatch(server, worker, board, settings.max_queue, settings.request_timeout)
    shelf = Shelf(settings, local_folder() / "serve")
    loaded = Loaded(settings, shelf, board, dispatch.versions)
    server.service = Service(settings, loaded, dispatch, Metrics())
    server.app = application(server, server.service)
    return server


def application(server: Server, service: Service) -> FastAPI:
    """In place of LitServe's app: its /, /health, /info and /predict are not there, nor its error pages."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        end_with_parent()
        tasks = [asyncio.create_task(service.dispatch.watch()), asyncio.create_task(service.loaded.keep_trying())]
        async with server.lifespan(app):
            yield
        for task in tasks:
            task.cancel()

    app = FastAPI(
        title="finger-counter",
        summary="Counts raised fingers, and shows nobody's face.",
        version=version("finger-counter"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        root_path=service.settings.root_path,
    )
    app.state.service = service
    app.include_router(router)
    app.include_router(runs_routes(service.settings))
    docs(app)
    app.add_exception_handler(Problem, as_answer)
    app.add_exception_handler(HTTPException, as_answer)
    app.add_exception_handler(RequestValidationError, as_answer)
    service.metrics.watch(lambda: now(service))
    access = install(app, service.settings, lambda: model_headers(service))
    app.add_middleware(Measured, metrics=service.metrics)
    app.include_router(live_routes(service, access))
    mount(app)
    return app


def as_answer(request: Request, error: Exception) -> Response:
    problem = as_problem(error)
    return JSONResponse(problem.body(request_id()), problem.status, problem.headers)


def as_problem(error: Exception) -> Problem:
    match error:
        case Problem():
            return error
        case RequestValidationError():
            first = error.errors()[0]
            where, *names = first["loc"]
            field = ".".join(map(str, names)) or where
            return Problem(422, "invalid_parameter", f"{field}: {first['msg'].lower()}")
        case HTTPException():
            code = CODES.get(error.status_code, "bad_request")
            return Problem(error.status_code, code, str(error.detail), error.headers or {})
    raise error


CODES = {404: "not_found", 405: "method_not_allowed"}


def docs(app: FastAPI) -> None:
    """Swagger UI from files of a package: the page asks no other host for anything."""
    spec = find_spec("fastapi_offline")
    assert spec is not None and spec.origin is not None, "a dependency of the extra serve"
    static = StaticFiles(directory=Path(spec.origin).with_name("static"))

    @app.get("/docs/files/{name}", include_in_schema=False)  # a mount would answer 404 behind a prefix
    async def file(name: str, request: Request) -> Response:
        return await static.get_response(name, request.scope)

    @app.get("/docs", include_in_schema=False)
    async def page(request: Request) -> Response:
        root = request.scope.get("root_path", "")
        files = f"{root}/docs/files"
        return get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=app.title,
            swagger_js_url=f"{files}/swagger-ui-bundle.js",
            swagger_css_url=f"{files}/swagger-ui.css",
            swagger_favicon_url="data:,",
        )


def model_headers(service: Service) -> Mapping[str, str]:
    """Of the model that answers by default; of none before there is one. And a warning, where faces are shown."""
    current = service.loaded.current
    headers = {} if service.settings.enable_preprocessing else {"X-Preprocessing-Applied": "false"}
    if current is not None:
        headers |= {"X-Model-Version": current.version, "X-Model-Sha256": current.release.sha256}
        headers |= {"X-Git-Revision": git} if (git := current.release.lineage.git) else {}
    return headers


def now(service: Service) -> Now:
    current, dispatch = service.loaded.current, service.dispatch
    return Now(
        version=current.version if current else None,
        release=current.release if current else None,
        drifts=service.metrics.drifts(current.release) if current else [],
        under_way=dispatch.versions.total(),
        most=service.settings.max_queue,
        clients=service.metrics.clients,
        processes={"api": os.getpid()} | {f"worker-{n}": pid for n, pid in dispatch.pids().items()},
        blurring=service.settings.enable_preprocessing,
        ready=service.health().status != "not ready",
    )


def keep_only_queues() -> None:
    """In the queue process, which is a fork of the main one."""
    close_listening()
    end_with_parent()


def close_listening() -> None:
    for connection in psutil.Process().net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.fd >= 0:
            os.close(connection.fd)


def stop_on_sigterm() -> None:
    """LitServe ends its other processes on KeyboardInterrupt alone; the forked API process inherits this handler."""
    main = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == main:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: a second must not cut the ending short
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)

"""serve/dashboard -> the page at / and its files, under a policy that lets them fetch and run nothing else."""

from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles

FOLDER: Final = Path(__file__).with_name("dashboard")
FILES: Final = "/dashboard/"  # open to everybody, as / is: a person must see the page to be asked for a key
HEADERS: Final = {
    "Content-Security-Policy": "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "img-src 'self' blob: data:",  # the blurred picture comes inside JSON
            "media-src 'self' blob:",  # a video file of the person's own
            "form-action 'none'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ]
    ),
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept, and asked about: an ETag answers with 304
}


def mount(app: FastAPI) -> None:
    """Not as a mounted app, which would answer 404 behind a proxy that takes the prefix ROOT_PATH off."""
    files = StaticFiles(directory=FOLDER)

    @app.get("/", include_in_schema=False)
    @app.head("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return await file("index.html", request)

    @app.get(f"{FILES}{{name}}", include_in_schema=False)
    @app.head(f"{FILES}{{name}}", include_in_schema=False)
    async def file(name: str, request: Request) -> Response:
        response = await files.get_response(name, request.scope)
        response.headers.update(HEADERS)
        return response

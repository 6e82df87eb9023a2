"""A picture -> what a server saw in it, over HTTP, with types: for other programs, and for `fingers predict --url`."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, TypedDict, TypeVar, Unpack

import httpx
from pydantic import BaseModel, ValidationError

from serve.schema import Answer, Batch, Error, Health, Models, Swapped

Picture = bytes | Path  # a JPEG, PNG or WebP file; it is sent as it is
Shape = TypeVar("Shape", bound=BaseModel)

KINDS = {b"\xff\xd8": "image/jpeg", b"\x89P": "image/png", b"RI": "image/webp"}  # by their first two bytes
BUSY = (429, 502, 503)  # 502: nginx finds no server, which may be starting
PATIENCE = 30.0  # s: a server that asks for a longer pause is not asked again


class Asked(TypedDict, total=False):
    """None, or left out: as the model was released."""

    confidence: float | None  # of a hand, at least
    iou: float | None  # overlap above which two boxes are one hand
    model: str | None  # a loaded version


class ServerError(Exception):
    """What the server answered in place of what it was asked for, or why nothing came back."""

    def __init__(self, status: int, code: str, message: str, request_id: str = "") -> None:
        super().__init__(f"{message} ({code})")
        self.status = status  # of HTTP; 200: one picture of a batch; 0: nothing came back
        self.code = code  # docs/api.md lists them; besides: unreachable, unexpected
        self.message = message
        self.request_id = request_id  # by which the server's log knows it


class FingerClient:
    """Of one server; threads may share it. Every method that asks the server raises ServerError."""

    def __init__(self, url: str, key: str | None = None, timeout: float = 10.0, retries: int = 3) -> None:
        """key: an API key or a token. timeout: s for each try. A busy server is asked again when it says."""
        self._http = httpx.Client(base_url=url, headers={"X-API-Key": key} if key else {}, timeout=timeout)
        self._retries = retries

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def count(self, picture: Picture, **asked: Unpack[Asked]) -> Answer:
        return parsed(Answer, self._post("/predict", picture, **asked))

    def count_batch(self, pictures: Sequence[Picture], **asked: Unpack[Asked]) -> list[Answer | ServerError]:
        """In one request: an answer or an error for each, in their order; at most the server's MAX_BATCH."""
        if len(pictures) < 2:  # a form with one file is no batch to the server
            return [self._one(picture, **asked) for picture in pictures]
        files = [("file", (str(number), content_of(picture))) for number, picture in enumerate(pictures)]
        response = self._send("POST", "/predict", files=files, params=given(asked))
        results = parsed(Batch, response).results
        return [as_raised(one, response.status_code) if isinstance(one, Error) else one for one in results]

    def render(self, picture: Picture, **asked: Unpack[Asked]) -> bytes:
        """A JPEG: the picture, faces hidden, with a box around each hand."""
        return self._post("/predict", picture, render="image", **asked).content

    def blur(self, picture: Picture) -> bytes:
        """A JPEG: the picture, faces hidden, and nothing else."""
        return self._post("/blur", picture).content

    def models(self) -> Models:
        return parsed(Models, self._send("GET", "/models"))

    def load(self, version: str, timeout: float = 90.0) -> Swapped:
        """Lets version answer from now on; it is fetched, loaded and tried before. Needs an admin's key."""
        return parsed(Swapped, self._send("POST", "/models/load", json={"version": version}, timeout=timeout))

    def health(self) -> Health:
        return parsed(Health, self._send("GET", "/health"))

    def _one(self, picture: Picture, **asked: Unpack[Asked]) -> Answer | ServerError:
        try:
            return self.count(picture, **asked)
        except ServerError as error:
            return error

    def _post(self, path: str, picture: Picture, **query: Any) -> httpx.Response:
        content = content_of(picture)
        kind = KINDS.get(content[:2], "image/jpeg")  # whatever else it is, the server says so
        return self._send("POST", path, content=content, headers={"Content-Type": kind}, params=given(query))

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """The answer if it is a good one. Each request may be sent twice: none changes what the next one answers."""
        for left in reversed(range(self._retries + 1)):
            try:
                response = self._http.request(method, path, **request)
            except httpx.TransportError as error:
                why = str(error) or type(error).__name__
                raise ServerError(0, "unreachable", f"{self._http.base_url}: {why}") from None
            pause = seconds(response.headers.get("Retry-After"))
            if response.status_code not in BUSY or not left or pause > PATIENCE:
                break
            time.sleep(pause)
        if not response.is_success:
            raise as_raised(parsed(Error, response), response.status_code)
        return response


def content_of(picture: Picture) -> bytes:
    return picture.read_bytes() if isinstance(picture, Path) else picture


def given(query: Any) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def seconds(retry_after: str | None) -> float:
    """1 where none is stated, or a date in place of a number, as proxies may."""
    return float(retry_after) if retry_after and retry_after.isdecimal() else 1.0


def parsed(shape: type[Shape], response: httpx.Response) -> Shape:
    """What a newer server says besides is left out. Raises ServerError for what is no answer of ours, but a proxy's."""
    try:
        return shape.model_validate_json(response.content, extra="ignore")
    except ValidationError:
        what = f"{response.status_code} {response.reason_phrase}, {response.headers.get('Content-Type', 'no type')}"
        message = f"{response.url.copy_with(query=None)}: not an answer of a finger-counter server: {what}"
        raise ServerError(response.status_code, "unexpected", message) from None


def as_raised(answer: Error, status: int) -> ServerError:
    return ServerError(status, answer.error.code, answer.error.message, answer.error.request_id)

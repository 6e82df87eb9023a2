"""Which requests bring a picture, and what each other is answered."""

import asyncio
import base64
import json
import tempfile
import zlib
from typing import Any

import httpx
import pytest
from PIL import Image as PillowImage
from starlette.applications import Starlette
from starlette.formparsers import MultiPartParser
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serve.intake import Limits, upload
from serve.problems import Problem
from tests.native import noise, png
from tests.pictures import gigapixel_png, saved

PNG = png(noise(0))
JPEG = saved("JPEG")
WEBP = saved("WEBP")
LIMITS = Limits(pixels=1_000_000, batch=3)


async def read(request: Request) -> Response:
    try:
        sent = await upload(request, request.app.state.limits)
    except Problem as problem:
        return JSONResponse(problem.body("1"), problem.status)
    pictures = [told(p.status, p.code, p.message) if isinstance(p, Problem) else len(p) for p in sent.pictures]
    return JSONResponse({"pictures": pictures, "batch": sent.batch})


def told(status: int, code: str, message: str) -> dict[str, Any]:
    return {"status": status, "code": code, "message": message}


def post(limits: Limits = LIMITS, **request: Any) -> httpx.Response:
    app = Starlette(routes=[Route("/", read, methods=["POST"])])
    app.state.limits = limits

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.post("/", **request)

    return asyncio.run(send())


def raw(content: bytes, media_type: str | bytes | None = "image/jpeg", **headers: str) -> dict[str, Any]:
    return {"content": content, "headers": headers | ({"Content-Type": media_type} if media_type else {})}


def form(*contents: bytes, field: str = "file") -> dict[str, Any]:
    return {"files": [(field, (f"{number}.jpg", content)) for number, content in enumerate(contents)]}


def parts(*parts: str, media_type: str = "multipart/form-data; boundary=b") -> dict[str, Any]:
    """Multipart written by hand, as a client that is wrong may."""
    return raw("".join(f"--b\r\n{part}\r\n" for part in parts).encode() + b"--b--\r\n", media_type)


def in_json(image: object) -> dict[str, Any]:
    return {"json": {"image": image}}


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize(
    ("request_", "content"),
    [
        (raw(JPEG), JPEG),
        (raw(PNG, "IMAGE/PNG; charset=binary"), PNG),
        (raw(WEBP, "image/webp"), WEBP),
        (raw(JPEG, "image/jpg"), JPEG),
        (raw(PNG, "image/jpeg"), PNG),  # the bytes say what it is
        (form(JPEG), JPEG),
        ({"files": {"file": JPEG}}, JPEG),
        ({"files": {"file": ("a.bin", JPEG, "application/octet-stream")}}, JPEG),
        (in_json(base64_of(PNG)), PNG),
        (in_json(base64.urlsafe_b64encode(PNG).decode()), PNG),
        (in_json(base64.encodebytes(PNG).decode()), PNG),
        (in_json("data:image/png;base64," + base64_of(PNG)), PNG),
        (raw(json.dumps({"image": base64_of(PNG)}).encode("utf-16"), "application/json"), PNG),
        (raw(PNG, "image/png", **{"Content-Encoding": "identity"}), PNG),
    ],
)
def test_a_picture_comes_raw_in_a_form_or_in_json(request_: dict[str, Any], content: bytes) -> None:
    assert post(**request_).json() == {"pictures": [len(content)], "batch": False}


def test_several_files_are_a_batch_in_their_order_each_with_its_own_error() -> None:
    answer = post(**form(JPEG, b"hello", PNG)).json()
    assert answer["batch"]
    first, second, third = answer["pictures"]
    assert (first, third) == (len(JPEG), len(PNG))
    assert (second["status"], second["code"]) == (422, "unreadable_image")


@pytest.mark.parametrize("content", [JPEG, PNG, WEBP, saved("JPEG", "CMYK"), saved("PNG", "1"), saved("PNG", "LA")])
def test_pictures_of_any_colours_are_let_through(content: bytes) -> None:
    assert post(**form(content)).json()["pictures"] == [len(content)]


UNREADABLE = "unreadable_image"


@pytest.mark.parametrize(
    ("content", "status", "code", "words"),
    [
        (b"", 422, UNREADABLE, "zero bytes; send a whole JPEG, PNG or WebP picture"),
        (b"hello", 422, UNREADABLE, "not a JPEG, PNG, WEBP or BMP picture;"),
        (b"%PDF-1.7 ...", 422, UNREADABLE, "but a PDF"),
        (saved("GIF"), 422, UNREADABLE, "but a GIF"),
        (saved("TIFF"), 422, UNREADABLE, "but a TIFF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", 422, UNREADABLE, "but a HEIC"),
        (b"<!DOCTYPE html><html>", 422, UNREADABLE, "but HTML or XML"),
        (saved("BMP"), 422, UNREADABLE, "a BMP; send a whole JPEG, PNG or WebP picture"),
        (JPEG[:20], 422, UNREADABLE, "not a whole header"),
        (saved("PNG", save_all=True, append_images=[PillowImage.new("RGB", (64, 48))]), 422, UNREADABLE, "animated"),
        (saved("WEBP", save_all=True, append_images=[PillowImage.new("RGB", (64, 48))]), 422, UNREADABLE, "animated"),
        (gigapixel_png(20_000), 413, "too_large", "20000x20000 is more than 1,000,000 pixels"),
        (gigapixel_png(0), 422, UNREADABLE, "header says 0x0"),
    ],
)
def test_what_is_no_picture_is_told_so_alone_or_among_others(
    content: bytes, status: int, code: str, words: str
) -> None:
    for request_ in (raw(content), form(content), in_json(base64_of(content)), form(PNG, content)):
        problem = post(**request_).json()["pictures"][-1]
        assert (problem["status"], problem["code"]) == (status, code)
        assert words in problem["message"]


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (raw(b"", None), 415, "no Content-Type; send image/jpeg, image/png, image/webp, multipart/form-data with a"),
        (raw(b"%PDF", "application/pdf"), 415, "the body is application/pdf; send image/jpeg"),
        (raw(PNG, "image/gif"), 415, 'or JSON {"image": base64}'),
        (raw(PNG, "application/x-www-form-urlencoded"), 415, "the body is application/x-www-form-urlencoded"),
        (raw(PNG, "application/octet-stream"), 415, "the body is application/octet-stream"),
        (raw(PNG, b"\xe9\n"), 415, r"the body is \xe9; send"),
        (raw(zlib.compress(PNG), **{"Content-Encoding": "deflate"}), 415, "Content-Encoding is 'deflate'"),
        (form(PNG, PNG, PNG, PNG), 413, "more than 3 files in one request"),
        (form(PNG, field="image"), 400, "fields `image`; only `file` is expected, and parameters belong in the query"),
        (form(PNG, field="é"), 400, r"fields `\xe9`"),
        (form(PNG) | {"data": {"confidence": "0.5"}}, 400, "fields `confidence`;"),
        ({"files": {f"f{n}": PNG for n in range(3)}, "data": {f"t{n}": "" for n in range(4)}}, 400, "and 2 more;"),
        ({"files": {"a": b""}, "data": {f"t{n}": "" for n in range(17)}}, 400, "Too many fields"),
        (parts(), 400, "an empty form; send a picture in the field `file`"),
        (parts('Content-Disposition: form-data; name="file"\r\n\r\nhello'), 400, "`file` is text; send it as a file"),
        (parts("Content-Disposition: form-data\r\n\r\nhello"), 400, 'header field "name" must be provided'),
        (parts("hello"), 400, "the multipart body cannot be read"),
        (parts(media_type="multipart/form-data"), 400, "Missing boundary"),
        (
            parts(
                'Content-Disposition: form-data; name="é"\r\n\r\n',
                media_type="multipart/form-data; boundary=b; charset=undefined",
            ),
            400,
            "the multipart body cannot be read",
        ),
        (raw(b"hello", "multipart/form-data; boundary=b"), 400, "the multipart body cannot be read"),
        (raw(b"", "application/json"), 400, "the body is no JSON"),
        (raw(b"{", "application/json"), 400, "the body is no JSON: Expecting property name"),
        (raw(b"\xff\x00\xff", "application/json; charset=utf-8"), 400, "the body is no JSON: 'utf-8' codec"),
        (raw(b"[" * 100_000, "application/json"), 400, "nested too deep"),
        (raw(b'{"image": NaN}', "application/json"), 400, "NaN is no JSON value"),
        (raw(b'{"image": "", "image": ""}', "application/json"), 400, "a key stands in it twice"),
        (raw(b'{"image": ' + b"9" * 5000 + b"}", "application/json"), 400, "the body is no JSON: Exceeds the limit"),
        (raw(rb'{"\ud800": ""}', "application/json"), 400, r"fields `\ud800`; only `image` is expected"),
        (raw(b"{}", "application/json"), 400, "fields none; only `image` is expected"),
        ({"json": [base64_of(PNG)]}, 400, 'the body is an array; send {"image": base64}'),
        (raw(b"null", "application/json"), 400, "the body is null"),
        ({"json": {"file": ""}}, 400, "fields `file`; only `image` is expected"),
        ({"json": {"image": "", "confidence": 0.5}}, 400, "fields `image`, `confidence`; only `image` is expected"),
        (in_json(None), 400, "`image` is null; send the picture's bytes as a base64 string"),
        (in_json(7), 400, "`image` is a number"),
        (in_json({"url": "x"}), 400, "`image` is an object"),
        (in_json("hello!"), 400, "`image` is no base64"),
        (in_json("aGVsbG8"), 400, "`image` is no base64: Incorrect padding"),
        (in_json("é"), 400, "`image` is no base64"),
        (raw(rb'{"image": "\ud800"}', "application/json"), 400, "`image` is no base64"),
        (in_json("data:image/png," + base64_of(PNG)), 400, "a data: URL that is not in base64"),
        (in_json("https://example.org/hand.jpg"), 400, "`image` is no base64"),
    ],
)
def test_a_request_that_brings_no_picture_is_told_what_to_send(
    request_: dict[str, Any], status: int, words: str
) -> None:
    answer = post(**request_)
    codes = {400: "bad_request", 413: "too_large", 415: "unsupported_media_type"}
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == codes[status]
    assert words in answer.json()["error"]["message"]


def test_an_upload_is_never_written_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MultiPartParser, "spool_max_size", 1)
    monkeypatch.setattr(tempfile, "tempdir", "/absent")  # whoever makes a temporary file fails
    content = saved("PNG", size=(2000, 1500))
    assert len(content) > 1_000_000
    answer = post(Limits(pixels=3_000_000, batch=1), **form(content))
    assert answer.json() == {"pictures": [len(content)], "batch": False}

"""An HTTP request -> the pictures in it: each the bytes of a JPEG, PNG or WebP within the limits, or why it is not."""

import binascii
import json
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from serve.problems import Problem
from stages.vision.images import TooLarge, Unreadable, read_header

FIELD = "file"
KEY = "image"
RAW = ("image/jpeg", "image/png", "image/webp", "image/jpg")  # the last is no registered type, and often sent
WAYS = f'{", ".join(RAW[:3])}, multipart/form-data with a field `{FIELD}`, or JSON {{"{KEY}": base64}}'
EXTENSIONS = (".jpg", ".png", ".webp")
MOST_TEXT_FIELDS = 16  # none is wanted; these are read to be named
URL_SAFE = bytes.maketrans(b"-_", b"+/")  # RFC 4648, 5
JSON_TYPES = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}


@dataclass(frozen=True)
class Limits:
    """The body's own was kept before it came here."""

    pixels: int  # of one picture
    batch: int  # pictures in one request


@dataclass(frozen=True, repr=False)
class Upload:
    """Pictures in the order sent, a Problem being that picture's alone. A batch is a form of several files."""

    pictures: Sequence[bytes | Problem]
    batch: bool


class InMemory(MultiPartParser):
    """Starlette would write a file above 1 MB to disk; no picture is ever stored, and the body has its limit."""

    spool_max_size = sys.maxsize


async def upload(request: Request, limits: Limits) -> Upload:
    """Headers of pictures are read here, their pixels are not. Raises Problem for what concerns the whole request."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if (encoding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise unsupported(f"Content-Encoding is {encoding[:40]!a}; send the body as it is")
    if media_type == "multipart/form-data":
        files = await form_files(request, limits.batch)
    elif media_type == "application/json":
        files = [in_json(await request.body())]
    elif media_type in RAW:
        files = [await request.body()]
    else:
        what = f"the body is {ascii(media_type[:80])[1:-1]}" if media_type else "no Content-Type"
        raise unsupported(f"{what}; send {WAYS}")
    return Upload([checked(content, limits.pixels) for content in files], batch=len(files) > 1)


def checked(content: bytes, max_pixels: int) -> bytes | Problem:
    try:
        header = read_header(content, max_pixels)
    except Unreadable as error:
        return refused(error)
    return content if header.extension in EXTENSIONS else refused(Unreadable(f"a {header.extension[1:].upper()}"))


def refused(error: Unreadable) -> Problem:
    """What an unreadable picture is called over HTTP, found here or by a worker."""
    if isinstance(error, TooLarge):
        return Problem(413, "too_large", str(error))
    return Problem(422, "unreadable_image", f"{error}; send a whole JPEG, PNG or WebP picture")


def unsupported(message: str) -> Problem:
    return Problem(415, "unsupported_media_type", message)


def bad(message: str) -> Problem:
    return Problem(400, "bad_request", message)


async def form_files(request: Request, most: int) -> list[bytes]:
    parser = InMemory(request.headers, request.stream(), max_files=most, max_fields=MOST_TEXT_FIELDS)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise Problem(413, "too_large", f"more than {most} files in one request") from None
        raise bad(f"the multipart body cannot be read: {error.message}") from None
    except UnicodeError:  # the Content-Type may name any charset that Python knows
        raise bad("the multipart body cannot be read: its charset has no such text") from None
    try:
        return in_form(form.multi_items())
    finally:
        await form.close()


def in_form(parts: Sequence[tuple[str, UploadFile | str]]) -> list[bytes]:
    if strangers := [name for name, _ in parts if name != FIELD]:
        raise bad(f"fields {named(strangers)}; only `{FIELD}` is expected, and parameters belong in the query")
    if not parts:
        raise bad(f"an empty form; send a picture in the field `{FIELD}`")
    files = [part.file.read() for _, part in parts if isinstance(part, UploadFile)]
    if len(files) < len(parts):
        raise bad(f"`{FIELD}` is text; send it as a file, with a file name: curl -F {FIELD}=@picture.jpg")
    return files


def in_json(content: bytes) -> bytes:
    try:
        document = json.loads(content, object_pairs_hook=without_repeats, parse_constant=no_number)
    except RecursionError:
        raise bad("the body is JSON nested too deep") from None
    except ValueError as error:  # also of bytes that are no text
        raise bad(f"the body is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise bad(f'the body is {json_type(document)}; send {{"{KEY}": base64}}')
    if list(document) != [KEY]:
        raise bad(f"fields {named(document) or 'none'}; only `{KEY}` is expected, and parameters belong in the query")
    if not isinstance(document[KEY], str):
        raise bad(f"`{KEY}` is {json_type(document[KEY])}; send the picture's bytes as a base64 string")
    return from_base64(document[KEY])


def from_base64(text: str) -> bytes:
    """Standard or URL-safe, in one line or several, and as a browser's data: URL."""
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise bad(f"`{KEY}` is a data: URL that is not in base64: {head[:40]!a}")
    try:
        return binascii.a2b_base64(text.encode("ascii").translate(URL_SAFE, b" \t\r\n"), strict_mode=True)
    except ValueError as error:
        raise bad(f"`{KEY}` is no base64: {error}") from None


def json_type(value: object) -> str:
    return JSON_TYPES.get(type(value), "a number")


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a key stands in it twice")
    return document


def no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON value")


def named(fields: Collection[str]) -> str:
    """The first five, in ASCII: what a caller sent may be nothing that an answer can be encoded with."""
    shown = [ascii(name[:40])[1:-1] for name in dict.fromkeys(fields)]
    return ", ".join(f"`{name}`" for name in shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")

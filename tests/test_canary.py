"""Pixels that nothing else looks like are planted in a face; nothing that the server emits or writes may hold them."""

import base64
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from stages.vision.images import Image, decode, encode_jpeg, read_image
from tests.server import Server, start_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("FACES_DATA" not in os.environ, reason="FACES_DATA names no folder with boxed faces"),
]
MAGENTA, GREEN = (255, 0, 255), (0, 255, 0)
SQUARE = 6  # px of the board that is planted: a mosaic's patch averages several to grey
FRAGMENT = 48  # bytes in a row of an upload that no answer has by chance


def planted() -> tuple[Image, tuple[int, int, int, int]]:
    """A real picture with a board of magenta and green over a part of its face, and where that is."""
    folder = Path(os.environ["FACES_DATA"])
    name, entry = next(iter(sorted(json.loads((folder / "faces.json").read_text()).items())))
    image = read_image(folder / "images" / name).copy()
    height, width = image.shape[:2]
    x, y, w, h = np.array(entry["faces"][0]) * [width, height, width, height]
    left, top, right, bottom = (int(v) for v in (x - w / 6, y - h / 2.6, x + w / 6, y - h / 5))  # the forehead
    rows, columns = np.mgrid[top:bottom, left:right] // SQUARE
    image[top:bottom, left:right] = np.where(((rows + columns) % 2)[..., None], MAGENTA, GREEN)
    return image, (left, top, right, bottom)


def canaries(image: Image) -> int:
    """How many pixels are as magenta or as green as no photograph is."""
    red, green, blue = cv2.split(image.astype(np.int16))
    magenta = (red > 170) & (blue > 170) & (green < 90)
    return int((magenta | ((green > 170) & (red < 90) & (blue < 90))).sum())


def pictures_in(content: bytes) -> Iterator[Image]:
    """Every JPEG or PNG in the bytes, and in what of them is base64."""
    texts = [base64.b64decode(run + b"=" * (-len(run) % 4)) for run in re.findall(rb"[A-Za-z0-9+/]{400,}", content)]
    for part in (content, *texts):
        for start in re.finditer(rb"\xff\xd8\xff|\x89PNG", part):
            decoded = cv2.imdecode(np.frombuffer(part[start.start() :], np.uint8), cv2.IMREAD_COLOR_RGB)
            if decoded is not None:
                yield decoded.astype(np.uint8)


def fragments(upload: bytes) -> list[bytes]:
    """Of its compressed pixels, and as base64 has them in each of its three alignments."""
    cut = [upload[at : at + FRAGMENT] for at in range(len(upload) // 3, len(upload) - FRAGMENT, 997)]
    return [*cut, *(base64.b64encode(part[shift:])[4:-4] for part in cut for shift in range(3))]


def leaks(content: bytes, upload: bytes) -> str:
    if any(fragment in content for fragment in fragments(upload)):
        return "a fragment of the upload"
    return next((f"{n} pixels of the canary" for one in pictures_in(content) if (n := canaries(one)) > 20), "")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Whatever it writes lies in its folder."""
    folder = tmp_path_factory.mktemp("canary")
    (folder / "tmp").mkdir()
    running = start_server(folder, TMPDIR=str(folder / "tmp"), HOME=str(folder))
    yield running
    running.stop()


def test_the_search_finds_a_canary_where_there_is_one() -> None:
    image, _ = planted()
    upload = encode_jpeg(image)
    assert "fragment" in leaks(b"log: " + upload, upload)
    assert "fragment" in leaks(b'{"image": "' + base64.b64encode(b"x" + upload) + b'"}', upload)
    assert "pixels" in leaks(encode_jpeg(image, 80), upload)
    assert "pixels" in leaks(base64.b64encode(encode_jpeg(image, 80)), upload)


def test_nothing_that_the_server_emits_or_writes_holds_the_canary(watched: Server) -> None:
    image, (left, top, right, bottom) = planted()
    upload = encode_jpeg(image)
    jpeg = {"Content-Type": "image/jpeg"}
    url, emitted = watched.url, []

    def ask(path: str, **request: object) -> httpx.Response:
        response = httpx.post(f"{url}{path}", timeout=30, **request)  # type: ignore[arg-type]
        emitted.append(b"\n".join([response.content, *(f"{k}: {v}".encode() for k, v in response.headers.items())]))
        return response

    answers = [
        ask("/predict", content=upload, headers=jpeg),
        ask("/predict?render=blurred", files={"file": upload}),
        ask("/predict?render=image", json={"image": base64.b64encode(upload).decode()}),
        ask("/blur", content=upload, headers=jpeg),
        ask("/predict", files=[("file", upload), ("file", upload[: len(upload) // 2]), ("file", upload)]),
    ]
    assert [answer.status_code for answer in answers] == [200] * 5
    assert answers[0].json()["faces_blurred"] >= 1
    refused = [
        ask("/predict", content=upload[: len(upload) * 2 // 3], headers=jpeg),
        ask("/predict", content=upload, headers={"Content-Type": "text/plain"}),
        ask("/predict", files={"picture": upload}),
        ask("/predict", json={"image": base64.b64encode(upload).decode()[:-5] + "!"}),
        ask("/predict?confidence=9", content=upload, headers=jpeg),
        ask("/predict?model=none", content=upload, headers=jpeg),
        ask("/models/load", content=upload, headers=jpeg),
    ]
    assert all(400 <= answer.status_code < 500 for answer in refused)
    with connect(f"{url.replace('http', 'ws')}/ws/predict") as socket:
        for frame in (upload, upload[:-500], base64.b64encode(upload).decode()[:2000]):
            socket.send(frame)
            emitted.append(str(socket.recv(10)).encode())
    emitted += [httpx.get(f"{url}{path}").content for path in ("/metrics", "/health", "/models")]

    assert [leak for content in emitted if (leak := leaks(content, upload))] == []
    blurred = decode(answers[3].content)
    assert canaries(blurred[top:bottom, left:right]) == 0
    assert canaries(image[top:bottom, left:right]) > 300
    written = [path for path in watched.folder.rglob("*") if path.is_file() and path.suffix != ".onnx"]
    assert written
    assert {str(path): leak for path in written if (leak := leaks(path.read_bytes(), upload))} == {}


def test_where_blurring_is_off_every_answer_says_so(tmp_path: Path) -> None:
    running = start_server(tmp_path, ENABLE_PREPROCESSING="false", ALLOW_UNBLURRED="true")
    image, _ = planted()
    try:
        answers = [httpx.get(f"{running.url}{path}") for path in ("/health", "/models", "/nowhere")]
        jpeg = {"Content-Type": "image/jpeg"}
        answers += [
            httpx.post(f"{running.url}{path}", content=encode_jpeg(image), headers=jpeg)
            for path in ("/predict", "/blur")
        ]
    finally:
        running.stop()
    assert [answer.headers["X-Preprocessing-Applied"] for answer in answers] == ["false"] * 5
    assert answers[0].json()["preprocessing"] is False
    assert "NOT hidden" in answers[0].json()["reasons"][0]
    assert answers[3].json()["preprocessing_applied"] is False
    assert canaries(decode(answers[4].content)) > 300
    assert "faces are NOT hidden" in running.log

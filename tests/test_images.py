"""Which bytes are a picture, and which are not and why."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from stages.vision.images import Unreadable, decode, encode_jpeg, probe
from tests.native import noise, png


def saved(kind: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    PillowImage.fromarray(noise(3)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode", "extension"),
    [
        ("JPEG", "RGB", ".jpg"),
        ("JPEG", "L", ".jpg"),
        ("JPEG", "CMYK", ".jpg"),
        ("PNG", "RGB", ".png"),
        ("PNG", "RGBA", ".png"),
        ("PNG", "P", ".png"),
        ("PNG", "1", ".png"),
        ("PNG", "I;16", ".png"),
        ("WEBP", "RGB", ".webp"),
        ("BMP", "RGB", ".bmp"),
    ],
)
def test_every_allowed_kind_becomes_rgb_of_its_size(kind: str, mode: str, extension: str) -> None:
    content = saved(kind, "L" if mode == "I;16" else mode)
    if mode == "I;16":
        buffer = io.BytesIO()
        PillowImage.fromarray(np.full((48, 64), 40_000, np.uint16)).save(buffer, "PNG")
        content = buffer.getvalue()
    assert probe(content) == (extension, 64, 48, True)
    image = decode(content)
    assert image.shape == (48, 64, 3)
    assert image.dtype == np.uint8


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "zero bytes"),
        (b"hello", "not a JPEG, PNG, WEBP or BMP picture"),
        (b"\xff\xd8\xff\xe0 and then nothing", "not a whole header"),
        (saved("GIF"), "not a JPEG, PNG, WEBP or BMP picture"),
        (saved("JPEG")[:-300], "truncated"),
        (saved("JPEG", progressive=True)[:-200], "truncated"),
        (saved("PNG")[:-40], "truncated"),
        (saved("WEBP")[:-40], "truncated|not a whole header"),
        (saved("BMP")[:-40], "truncated"),
    ],
)
def test_what_is_no_whole_picture_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        decode(content)


def test_a_thumbnail_does_not_hide_that_the_picture_is_cut_off() -> None:
    exif = PillowImage.Exif()
    whole = saved("JPEG")
    exif[0x9286] = whole  # a whole JPEG, with its own end mark, inside the metadata
    content = saved("JPEG", exif=exif)
    assert decode(content).shape == (48, 64, 3)
    with pytest.raises(Unreadable, match="truncated"):
        decode(content[:-300])


def test_more_pixels_than_allowed_are_refused_from_the_header() -> None:
    with pytest.raises(Unreadable, match="64x48 is more than 3,000 pixels"):
        decode(png(noise(0)), max_pixels=3_000)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_decoded_as_they_are_displayed(orientation: int) -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    content = saved("JPEG", exif=exif, quality=95)
    _, width, height, upright = probe(content)
    image = decode(content)
    assert (width, height) == ((48, 64) if orientation >= 5 else (64, 48))
    assert image.shape == (height, width, 3)
    assert upright == (orientation == 1)
    turn = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}[orientation]
    expected = np.rot90(noise(3), turn)
    if orientation in (2, 4, 5, 7):
        expected = expected[:, ::-1]
    assert np.abs(image.astype(int) - expected).mean() < 6 or orientation in (5, 7)


def test_a_jpeg_carries_pixels_and_nothing_else(tmp_path: Path) -> None:
    content = encode_jpeg(noise(3))
    with PillowImage.open(io.BytesIO(content)) as picture:
        assert not picture.getexif()
    assert np.abs(decode(content).astype(int) - noise(3)).mean() < 3

"""Which bytes are a picture, and which are not and why."""

import io
import random
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL import ImageOps

from stages.vision.images import TooLarge, Unreadable, decode, encode_jpeg, encode_png, probe, read_header
from tests.native import ROOT, noise, png
from tests.pictures import chunk, exif_of, gigapixel_png, interlaced_png, png_of, progressive_jpeg, saved

PHOTO = saved("JPEG")
TWO_FRAMES: dict[str, Any] = {"save_all": True, "append_images": [PillowImage.fromarray(noise(4))]}


def by_pillow(content: bytes) -> np.ndarray:
    with PillowImage.open(io.BytesIO(content)) as picture:
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("kind", "mode", "extension"),
    [
        ("JPEG", "RGB", ".jpg"),
        ("JPEG", "L", ".jpg"),
        ("JPEG", "CMYK", ".jpg"),
        ("PNG", "RGB", ".png"),
        ("PNG", "P", ".png"),
        ("PNG", "L", ".png"),
        ("PNG", "1", ".png"),
        ("WEBP", "RGB", ".webp"),
        ("BMP", "RGB", ".bmp"),
        ("BMP", "L", ".bmp"),
    ],
)
@pytest.mark.parametrize("size", [(64, 48), (17, 31), (1, 1)])
def test_every_allowed_kind_becomes_the_rgb_that_it_shows(
    kind: str, mode: str, extension: str, size: tuple[int, int]
) -> None:
    content = saved(kind, mode, size)
    assert probe(content) == (extension, *size, True)
    image = decode(content)
    assert image.dtype == np.uint8
    assert image.shape == (size[1], size[0], 3)
    assert np.abs(image - by_pillow(content)).max() <= (3 if kind in ("JPEG", "WEBP") else 0)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_is_ignored_and_what_lies_under_it_is_seen(kind: str) -> None:
    """What is hidden by it may be a face, which then is blurred like any other."""
    picture = PillowImage.fromarray(noise(3))
    picture.putalpha(PillowImage.linear_gradient("L").resize(picture.size))
    buffer = io.BytesIO()
    picture.save(buffer, kind, lossless=True, exact=True)
    assert np.array_equal(decode(buffer.getvalue()), noise(3))


def test_of_16_bits_the_upper_8_are_kept() -> None:
    values = np.random.default_rng(0).integers(0, 65_536, (48, 64), np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    image = decode(png_of(64, 48, zlib.compress(rows), bits=16))
    assert np.array_equal(image, np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2))


def test_interlaced_and_progressive_pictures_are_whole() -> None:
    grey = np.ascontiguousarray(noise(3, 61, 47)[..., 0])
    assert np.array_equal(decode(interlaced_png(grey)), np.repeat(grey[..., None], 3, axis=2))
    assert np.array_equal(decode(saved("JPEG", progressive=True)), decode(saved("JPEG")))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_decoded_as_they_are_displayed(kind: str, orientation: int) -> None:
    content = saved(kind, exif=exif_of(orientation))
    _, width, height, upright = probe(content)
    assert (width, height) == ((48, 64) if orientation >= 5 else (64, 48))
    assert upright == (orientation == 1)
    image = decode(content)
    assert image.flags.c_contiguous
    assert np.abs(image - by_pillow(content)).max() <= (0 if kind == "PNG" else 3)


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"II",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff",
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0",  # orientation 9
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x01\0\0\0\x06\0\0\0",  # orientation as text
    ],
)
def test_an_orientation_that_makes_no_sense_leaves_the_picture_as_it_is(exif: bytes) -> None:
    content = png_of(1, 2, zlib.compress(bytes(4)), chunk(b"eXIf", exif))
    assert probe(content) == (".png", 1, 2, True)
    assert decode(content).shape == (2, 1, 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "zero bytes"),
        (b"hello", "^not a JPEG, PNG, WEBP or BMP picture$"),
        (saved("GIF"), "not a JPEG, PNG, WEBP or BMP picture but a GIF"),
        (b"RIFF\x04\0\0\0WAVE", "^not a JPEG, PNG, WEBP or BMP picture$"),
        (b"\0\0\0\x18ftypheic", "but a HEIC"),
        (b"\0\0\0\x18ftypavif", "but an AVIF"),
        (b"\0\0\0\x18ftypisom", "but a video"),
        (b"\xff\xd8\xff\xe0 and then nothing", "not a whole header"),
        (b"RIFF\x04\0\0\0WEBP", "not a whole header"),
        (PHOTO[:-300], "truncated"),
        (saved("PNG")[:-40], "truncated"),
        (saved("BMP")[:-40], "truncated"),
        (saved("PNG", **TWO_FRAMES), "animated"),
        (saved("WEBP", **TWO_FRAMES), "animated"),
        (png_of(0, 48, zlib.compress(b"")), "header says 0x48"),
        (PHOTO.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), "a JPEG of 12 bits; 8 can be read"),
        (progressive_jpeg(64, 48, scans=33), "33 scans, more than 32"),
        (PHOTO[:2] + b"\xff\xfe\0\x02" * 10_000 + PHOTO[2:], "made of more than 10,000 parts"),
        (png_of(1, 1, b"no zlib"), "damaged"),
        (png(noise(0)).replace(b"IDAT", b"IDAT\1", 1), "damaged|truncated"),
    ],
)
def test_what_is_no_whole_picture_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        decode(content)


@pytest.mark.parametrize(
    "content",
    [PHOTO, saved("JPEG", progressive=True), saved("PNG"), saved("WEBP"), saved("WEBP", lossless=True), saved("BMP")],
    ids=["jpeg", "progressive", "png", "webp", "lossless", "bmp"],
)
def test_a_picture_cut_off_anywhere_is_refused(content: bytes) -> None:
    assert decode(content).shape == (48, 64, 3)
    for end in range(len(content)):
        with pytest.raises(Unreadable, match=r"zero bytes|not a whole header|not a JPEG|truncated"):
            decode(content[:end])


def test_what_a_phone_hangs_on_behind_the_picture_does_not_matter() -> None:
    """A motion photo has a video there, in which every mark of a JPEG occurs by chance."""
    film = random.Random(0).randbytes(300_000)
    assert film.rfind(b"\xff\xda") > film.rfind(b"\xff\xd9")
    assert np.array_equal(decode(PHOTO + film), decode(PHOTO))


def test_a_thumbnail_does_not_hide_that_the_picture_is_cut_off() -> None:
    exif = PillowImage.Exif()
    exif[0x9286] = PHOTO  # a whole JPEG, with its own end mark, inside the metadata
    content = saved("JPEG", exif=exif)
    assert decode(content).shape == (48, 64, 3)
    with pytest.raises(Unreadable, match="truncated"):
        decode(content[:-300])


def canvas(width: int, height: int) -> bytes:
    """Of a WebP that states such a canvas round a picture of 64x48."""
    simple = saved("WEBP")
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<II", 10, 0) + sides + simple[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def sized(width: int, height: int) -> bytes:
    """A JPEG of 64x48 whose header states another size."""
    at = PHOTO.index(b"\xff\xc0") + 5
    return PHOTO[:at] + struct.pack(">HH", height, width) + PHOTO[at + 4 :]


@pytest.mark.parametrize("lie", [canvas(65, 48), canvas(1, 1), canvas(16_384, 3_000), sized(0, 48), sized(64, 0)])
def test_a_header_that_lies_is_found_out(lie: bytes) -> None:
    with pytest.raises(Unreadable, match=r"damaged|header says"):
        decode(lie)


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (png(noise(0)), "64x48"),
        (canvas(16_384, 16_384), "16384x16384"),
        (sized(65_535, 65_535), "65535x65535"),
        (png_of(2**31 - 1, 2**31 - 1, b""), "2147483647x2147483647"),
    ],
)
def test_more_pixels_than_allowed_are_refused_from_the_header(content: bytes, size: str) -> None:
    for read in (read_header, decode):
        with pytest.raises(TooLarge, match=f"^{size} is more than 3,000 pixels$"):
            read(content, max_pixels=3_000)


PEAK = """
import resource, sys
from stages.vision.images import Unreadable, decode
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(decode(sys.stdin.buffer.read()).shape)
except Unreadable as reason:
    print(reason)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere ru_maxrss has another unit")
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gigapixel_png(20_000), "20000x20000 is more than 50,000,000 pixels"),
        (canvas(16_384, 16_384), "16384x16384 is more than 50,000,000 pixels"),
        (png_of(1, 1, zlib.compress(bytes(500_000_000))), "(1, 1, 3)"),
        (
            png_of(1, 1, zlib.compress(bytes(2)), *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))] * 9),
            "(1, 1, 3)",
        ),
    ],
    ids=["a gigapixel", "a canvas", "too many rows", "text"],
)
def test_a_small_file_that_unpacks_to_a_lot_takes_little_memory(content: bytes, said: str) -> None:
    child = subprocess.run([sys.executable, "-c", PEAK], input=content, capture_output=True, cwd=ROOT, check=True)
    answer, grown = child.stdout.decode().splitlines()
    assert answer == said
    assert int(grown) < 40_000  # kB


def test_faults_beside_the_pixels_are_no_noise_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    odd = [chunk(b"gAMA", b""), chunk(b"tEXt", b"x" * 90), chunk(b"iCCP", b"y"), chunk(b"abcd", b"")] * 200
    content, bmp = png_of(1, 1, zlib.compress(bytes(2)), *odd), saved("BMP")
    assert decode(content).shape == (1, 1, 3)
    with pytest.raises(Unreadable):
        decode(bmp[:30] + b"\x63" + bmp[31:])  # a compression that there is not: OpenCV would log its assertion
    assert capfd.readouterr().err == ""


def test_what_is_encoded_carries_pixels_and_nothing_else() -> None:
    with PillowImage.open(io.BytesIO(encode_jpeg(noise(3)))) as picture:
        assert not picture.getexif()
    assert np.abs(decode(encode_jpeg(noise(3))).astype(int) - noise(3)).mean() < 3
    assert np.array_equal(decode(encode_png(noise(3))), noise(3))

"""Bytes of a picture file <-> Image, RGB uint8 (H, W, 3), upright; each way to be unreadable has its words."""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from cv2.utils.logging import LOG_LEVEL_SILENT, setLogLevel

Part = TypeVar("Part")
Image = npt.NDArray[np.uint8]  # (H, W, 3) RGB

MAX_PIXELS = 50_000_000  # 50 megapixels: above every phone's default, 150 MB when decoded
MOST_PARTS = 10_000  # segments or chunks of one file: 80 MB at the 8 kB that libpng writes
MOST_SCANS = 32  # of a progressive JPEG, each a pass over all pixels; encoders write about 10
ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 lie on their side
UPRIGHT: dict[int, Callable[[Image], Image]] = {
    1: lambda image: image,
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, 3),
    7: lambda image: np.rot90(image, 2).transpose(1, 0, 2),
    8: lambda image: np.rot90(image, 1),
}
# The next mark of a JPEG, in its headers and in its compressed pixels alike: there every 0xFF is followed by 0x00 or a
# restart mark (ITU-T T.81, B.1.1.5).
MARK = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")
START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
END_OF_IMAGE, START_OF_SCAN, APP1 = 0xD9, 0xDA, 0xE1
# What people send in good faith, so that the answer can name it.
STRANGERS = {
    "a GIF": rb"GIF8",
    "a PDF": rb"%PDF",
    "a TIFF": rb"II\*\0|MM\0\*",
    "an AVIF": rb".{4}ftypavi[fs]",
    "a HEIC": rb".{4}ftyp(?:hei|hev|mif1|msf1)",
    "a video": rb".{4}ftyp|\x1a\x45\xdf\xa3|RIFF.{4}AVI ",
    "HTML or XML": rb"\s*<",
}


class Unreadable(ValueError):
    """Why a file is no picture for us, in words for the ledger and for an answer."""


class TooLarge(Unreadable):
    """More pixels than allowed; none of them was decoded."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself before its pixels. Sizes in px."""

    extension: str
    width: int
    height: int
    orientation: int = 1  # EXIF's, 1 to 8
    animated: bool = False


def decode(content: bytes, max_pixels: int = MAX_PIXELS) -> Image:
    """The picture as displayed: turned as EXIF says, 16 bits cut to 8, CMYK converted, transparency ignored.

    Raises Unreadable, and TooLarge before any pixel is decoded.
    """
    header = read_header(content, max_pixels)
    # One reader of EXIF, ours: where OpenCV's saw another orientation, a picture would be turned behind our back.
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    setLogLevel(LOG_LEVEL_SILENT)  # what is damaged is said once, by whoever is told Unreadable
    try:
        image = cv2.imdecode(np.frombuffer(whole(content, header.extension), np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise Unreadable("damaged")
    upright: Image = np.ascontiguousarray(UPRIGHT[header.orientation](image))  # type: ignore[arg-type]
    height, width = upright.shape[:2]
    if (width, height) != (header.width, header.height):
        raise Unreadable(f"header says {header.width}x{header.height}, the pixels are {width}x{height}")
    return upright


def probe(content: bytes) -> tuple[str, int, int, bool]:
    """(extension, width, height, upright) from the header alone; sizes in px as displayed. Raises Unreadable."""
    header = _header(content)
    return header.extension, header.width, header.height, header.orientation == 1


def read_header(content: bytes, max_pixels: int = MAX_PIXELS) -> Header:
    """Raises Unreadable, in microseconds, for all that decode refuses by the header alone."""
    header = _header(content)
    if header.width * header.height > max_pixels:
        raise TooLarge(f"{header.width}x{header.height} is more than {max_pixels:,} pixels")
    if header.animated:
        raise Unreadable("animated: it is not known which of its pictures is meant")
    return header


def whole(content: bytes, extension: str) -> bytes:
    """What the decoder needs of a file that reaches its end: decoders fill up what is missing with grey in silence.

    Of a PNG that is its pixels alone: text beside them can unpack to gigabytes, and fill stderr with warnings.
    Raises Unreadable for a file cut short, and for a JPEG of so many scans that it would take minutes.
    """
    match extension:
        case ".jpg":
            marks = [mark for mark, _ in _segments(content)]
            if marks.count(START_OF_SCAN) > MOST_SCANS:
                raise Unreadable(f"{marks.count(START_OF_SCAN)} scans, more than {MOST_SCANS}")
            complete = marks[-1] == END_OF_IMAGE and START_OF_SCAN in marks
        case ".png":
            needed = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
            chunks = [(name, start, end) for name, start, end in _png_chunks(content) if name in needed]
            complete = chunks[-1][0] == b"IEND" and chunks[-1][2] + 4 <= len(content)
            content = content[:8] + b"".join(content[start - 8 : end + 4] for _, start, end in chunks)
        case ".webp" | ".bmp":  # both state the file's length: RIFF without its own 8 bytes
            offset, extra = (4, 8) if extension == ".webp" else (2, 0)
            complete = len(content) >= struct.unpack_from("<I", content, offset)[0] + extra
        case _:
            raise ValueError(extension)
    if not complete:
        raise Unreadable("truncated")
    return content


def encode_jpeg(image: Image, quality: int = 95) -> bytes:
    """image RGB -> JPEG bytes without any metadata."""
    return _encoded(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def encode_png(image: Image) -> bytes:
    """image RGB -> PNG bytes, every pixel as it is, without any metadata."""
    return _encoded(".png", image, [])


def _encoded(extension: str, image: Image, settings: list[int]) -> bytes:
    done, buffer = cv2.imencode(extension, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
    if not done:
        raise ValueError(f"cannot encode a picture of shape {image.shape}")
    return buffer.tobytes()


def read_image(path: Path) -> Image:
    """Raises Unreadable."""
    return decode(path.read_bytes())


def _header(content: bytes) -> Header:
    """Sizes as displayed. Read here and not by Pillow, whose WebP reader sets the whole canvas aside for it."""
    if not content:
        raise Unreadable("zero bytes")
    read = next((read for mark, read in READERS.items() if re.match(mark, content, re.DOTALL)), None)
    if read is None:
        kind = next((name for name, mark in STRANGERS.items() if re.match(mark, content[:64], re.DOTALL)), None)
        raise Unreadable("not a JPEG, PNG, WEBP or BMP picture" + (f" but {kind}" if kind else ""))
    try:
        header = read(content)
    except (struct.error, IndexError):
        raise Unreadable("not a whole header") from None
    if header.width < 1 or header.height < 1:
        raise Unreadable(f"header says {header.width}x{header.height}")
    return replace(header, width=header.height, height=header.width) if header.orientation >= 5 else header


def _jpeg(content: bytes) -> Header:
    header, orientation = None, 1
    for mark, start in _segments(content):
        if mark in START_OF_FRAME:
            bits, height, width = struct.unpack_from(">BHH", content, start)
            if bits != 8:
                raise Unreadable(f"a JPEG of {bits} bits; 8 can be read")
            header = Header(".jpg", width, height)
        elif mark == APP1 and content.startswith(b"Exif\0\0", start):
            orientation = _orientation(content[start + 6 : start + 65_536])
        elif mark == START_OF_SCAN and header:
            return replace(header, orientation=orientation)
    raise IndexError


def _png(content: bytes) -> Header:
    orientation, animated = 1, False
    for name, start, end in _png_chunks(content):
        match name:
            case b"acTL":
                animated = True
            case b"eXIf":
                orientation = _orientation(content[start:end])
            case b"IDAT":
                width, height = struct.unpack_from(">II", content, 16)  # of IHDR, always first
                return Header(".png", width, height, orientation, animated)
    raise IndexError


def _webp(content: bytes) -> Header:
    """RFC 9649, 2.5 to 2.7: VP8 is lossy, VP8L lossless, VP8X states the canvas of what follows."""
    chunks = list(_webp_chunks(content))
    name, start, _ = chunks[0]
    match name:
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", content, start + 6)
            return Header(".webp", width & 0x3FFF, height & 0x3FFF)
        case b"VP8L":
            (sides,) = struct.unpack_from("<I", content, start + 1)
            return Header(".webp", (sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1)
        case b"VP8X":
            flags, width, width_high, height, height_high = struct.unpack_from("<B3xHBHB", content, start)
            exif = next((content[first:end] for name, first, end in chunks if name == b"EXIF"), b"")
            return Header(
                ".webp",
                width=(width_high << 16 | width) + 1,
                height=(height_high << 16 | height) + 1,
                orientation=_orientation(exif.removeprefix(b"Exif\0\0")),
                animated=bool(flags & 2),
            )
    raise IndexError


def _bmp(content: bytes) -> Header:
    """A height below zero means rows from top to bottom."""
    old = struct.unpack_from("<I", content, 14) == (12,)
    width, height = struct.unpack_from("<HH" if old else "<ii", content, 18)
    return Header(".bmp", width, abs(height))


READERS = {
    rb"\xff\xd8\xff": _jpeg,
    rb"\x89PNG\r\n\x1a\n": _png,
    rb"RIFF.{4}WEBP": _webp,
    rb"BM": _bmp,
}


def _orientation(exif: bytes) -> int:
    """Of a TIFF's first directory; 1 where it says nothing that makes sense, as viewers do."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, directory)
        for at in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, at)
            if (tag, kind) == (ORIENTATION, 3):  # 3: two bytes
                return value if value in UPRIGHT else 1
    except struct.error:
        pass
    return 1


def _few(parts: Callable[[bytes], Iterator[Part]]) -> Callable[[bytes], Iterator[Part]]:
    """Millions of empty parts would take Python seconds. Raises Unreadable."""

    @wraps(parts)
    def few(content: bytes) -> Iterator[Part]:
        for number, part in enumerate(parts(content)):
            if number == MOST_PARTS:
                raise Unreadable(f"made of more than {MOST_PARTS:,} parts")
            yield part

    return few


@_few
def _segments(content: bytes) -> Iterator[tuple[int, int]]:
    """(mark, where what it states begins) of each segment of a JPEG, up to its end or the content's."""
    at = 2
    while found := MARK.search(content, at):
        mark, at = found[1][0], found.end()
        yield mark, at + 2
        if mark == END_OF_IMAGE:
            return
        at += int.from_bytes(content[at : at + 2])


@_few
def _png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, end) of what each chunk carries; the last may end past the content."""
    at = 8
    while at + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        yield name, at + 8, at + 8 + length
        at += 12 + length


@_few
def _webp_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = 12
    while at + 8 <= len(content):
        name, length = struct.unpack_from("<4sI", content, at)
        yield name, at + 8, at + 8 + length
        at += 8 + length + length % 2

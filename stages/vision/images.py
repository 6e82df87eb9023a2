"""Bytes of a picture file <-> Image, RGB uint8 (H, W, 3), upright; each way to be unreadable has its words."""

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

Image = npt.NDArray[np.uint8]  # (H, W, 3) RGB

MAX_PIXELS = 50_000_000  # 50 megapixels: above every phone's default, 150 MB when decoded
# By first bytes, each with its own reader: Pillow's general one knows formats that nobody asked for, and Ultralytics
# replaces it by one that wants to install packages.
KINDS: dict[bytes, tuple[str, type[ImageFile]]] = {
    b"\xff\xd8\xff": (".jpg", JpegImageFile),
    b"\x89PNG\r\n\x1a\n": (".png", PngImageFile),
    b"RIFF": (".webp", WebPImageFile),
    b"BM": (".bmp", BmpImageFile),
}
ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 lie on their side


class Unreadable(ValueError):
    """Why a file is no picture for us, in words for the ledger and for an answer."""


def probe(content: bytes) -> tuple[str, int, int, bool]:
    """(extension, width, height, upright) from the header alone; sizes in px as displayed. Raises Unreadable."""
    if not content:
        raise Unreadable("zero bytes")
    kind = next((kind for mark, kind in KINDS.items() if content.startswith(mark)), None)
    if kind is None:
        raise Unreadable("not a JPEG, PNG, WEBP or BMP picture")
    extension, opened = kind
    try:
        with opened(io.BytesIO(content)) as picture:
            width, height = picture.size
            # a PNG would be decoded to its end for it; OpenCV turns those, if ever one carries it
            orientation = picture.getexif().get(ORIENTATION, 1) if extension != ".png" else 1
    except (OSError, ValueError, SyntaxError, struct.error):
        raise Unreadable("not a whole header") from None
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    return extension, width, height, orientation in (0, 1)


def decode(content: bytes, max_pixels: int = MAX_PIXELS) -> Image:
    """The picture as displayed, EXIF orientation applied. Raises Unreadable; too many pixels, before any is decoded."""
    extension, width, height, _ = probe(content)
    if width * height > max_pixels:
        raise Unreadable(f"{width}x{height} is more than {max_pixels:,} pixels")
    if not is_complete(content, extension):
        raise Unreadable("truncated")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        image = None
    if image is None:
        raise Unreadable("damaged")
    if image.shape[:2] != (height, width):
        raise Unreadable(f"header says {width}x{height}, the pixels are {image.shape[1]}x{image.shape[0]}")
    return image  # type: ignore[return-value]


def is_complete(content: bytes, extension: str) -> bool:
    """Whether the file reaches its end mark: decoders fill up what is missing with grey and say nothing.

    JPEG: inside the compressed pixels every 0xFF is followed by 0x00 or a restart mark (ITU-T T.81, B.1.1.5), so an
    end of image (FFD9) after the last start of scan (FFDA) is the picture's own, not its thumbnail's.
    """
    match extension:
        case ".jpg":
            return content.rfind(b"\xff\xd9") > content.rfind(b"\xff\xda") >= 0
        case ".png":
            return content.rfind(b"IEND") > content.rfind(b"IDAT") >= 0
        case ".webp" | ".bmp":  # both state the file's length: RIFF without its own 8 bytes
            offset, extra = (4, 8) if extension == ".webp" else (2, 0)
            (stated,) = struct.unpack_from("<I", content, offset)
            return len(content) >= int(stated) + extra
    raise ValueError(extension)


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

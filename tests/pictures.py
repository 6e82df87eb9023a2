"""Picture files as people and attackers send them: what no encoder at hand writes is written here byte by byte."""

import io
import struct
import zlib

from PIL import Image as PillowImage

from stages.vision.images import Image
from tests.native import noise


def saved(kind: str, mode: str = "RGB", size: tuple[int, int] = (64, 48), **options: object) -> bytes:
    """A picture of size (width, height) as Pillow writes it."""
    buffer = io.BytesIO()
    PillowImage.fromarray(noise(3, *size)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def exif_of(orientation: int) -> PillowImage.Exif:
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    return exif


def chunk(name: bytes, content: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of(
    width: int, height: int, rows: bytes, *others: bytes, bits: int = 8, colour: int = 0, lace: int = 0
) -> bytes:
    """rows: deflated. others: chunks between the header and the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, lace))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(others) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def gigapixel_png(side: int) -> bytes:
    """side x side black pixels of one bit each: 49 kB for 400 million."""
    deflate = zlib.compressobj(9)
    row = bytes(1 + -(-side // 8))
    rows = b"".join([*(deflate.compress(row * 1000) for _ in range(side // 1000)), deflate.flush()])
    return png_of(side, side, rows, bits=1)


def interlaced_png(image: Image) -> bytes:
    """Grey (H, W) in the seven passes of Adam7 (PNG 3rd edition, 8.1), each row unfiltered."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = (row for x, y, by_x, by_y in passes for row in image[y::by_y, x::by_x])
    height, width = image.shape
    return png_of(width, height, zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)), lace=1)


def progressive_jpeg(width: int, height: int, scans: int) -> bytes:
    """Pillow's, its last scan over and over, and a size in its header that is not that of its pixels."""
    content = saved("JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    frame = content.index(b"\xff\xc2")
    repeated = content[:-2] + content[last:-2] * (scans - content.count(b"\xff\xda")) + content[-2:]
    return repeated[: frame + 5] + struct.pack(">HH", height, width) + repeated[frame + 9 :]

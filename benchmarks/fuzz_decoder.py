"""Picture files with faults put into them -> what the decoder makes of each: a picture or a reason, never a crash.

./run python -m benchmarks.fuzz_decoder [--seconds 180] [--seed 0]
"""

import argparse
import base64
import json
import re
import resource
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from stages.vision.images import Unreadable, decode, read_header
from tests.native import noise
from tests.pictures import exif_of, interlaced_png, png_of, saved

EXAMPLES = 4_000  # a child; a crash loses the counts of one
MAX_PIXELS = 1_000_000  # headers that lie cost that much memory, and no more
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x3FFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
TWO: dict[str, Any] = {"save_all": True, "append_images": [PillowImage.fromarray(noise(4))]}
CORPUS = {
    "jpeg": saved("JPEG"),
    "jpeg progressive": saved("JPEG", progressive=True, exif=exif_of(6)),
    "jpeg grey": saved("JPEG", "L", optimize=True),
    "jpeg cmyk": saved("JPEG", "CMYK"),
    "png": saved("PNG", exif=exif_of(3)),
    "png alpha": saved("PNG", "LA"),
    "png palette": saved("PNG", "P", transparency=0),
    "png 16 bits": png_of(8, 8, zlib.compress(bytes(8 * 17)), bits=16),
    "png interlaced": interlaced_png(np.ascontiguousarray(noise(3)[..., 0])),
    "png animated": saved("PNG", **TWO),
    "webp": saved("WEBP"),
    "webp lossless": saved("WEBP", "RGBA", lossless=True),
    "webp with exif": saved("WEBP", exif=exif_of(8)),
    "webp animated": saved("WEBP", **TWO),
    "bmp": saved("BMP"),
    "bmp palette": saved("BMP", "P"),
}


@dataclass
class Tally:
    """What came of the cases, by the words of the reason without its numbers."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)  # an exception that is no Unreadable, and the case in base64
    slowest: float = 0.0  # s
    peak: int = 0  # MB

    def add(self, other: "Tally") -> None:
        self.outcomes += other.outcomes
        self.faults += other.faults
        self.slowest, self.peak = max(self.slowest, other.slowest), max(self.peak, other.peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)  # where the case at hand is noted
    options = parser.parse_args()
    if options.child:
        sys.stdout.write(json.dumps(vars(fuzz(EXAMPLES, options.seed, options.child.write_bytes))))
        return
    total, lines, started = Tally(), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < started + options.seconds:
            tally, said = in_child(options.seed, Path(folder) / "case")
            total.add(tally)
            lines += said
            options.seed += 1
    report(total, lines, time.monotonic() - started)


def in_child(number: int, case: Path) -> tuple[Tally, int]:
    """What a child process found, and how many lines the decoders' libraries wrote to stderr meanwhile."""
    command = [sys.executable, "-m", "benchmarks.fuzz_decoder", "--seed", str(number), "--child", str(case)]
    child = subprocess.run(command, capture_output=True, check=False)
    lines = child.stderr.count(b"\n")
    if child.returncode:
        return Tally(faults=[f"exit {child.returncode}: {base64.b64encode(case.read_bytes()).decode()}"]), lines
    found = json.loads(child.stdout)
    return Tally(**found | {"outcomes": Counter(found["outcomes"])}), lines


def fuzz(examples: int, number: int, note: Callable[[bytes], object] = len) -> Tally:
    """number seeds the mutations; note is given each case before the decoder is."""
    tally = Tally()

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(damaged())
    def one(content: bytes) -> None:
        note(content)
        started = time.perf_counter()
        try:
            tally.outcomes[outcome(content)] += 1
        except Exception as error:  # noqa: BLE001 -- finding out which is what this is for
            tally.faults.append(f"{error!r}: {base64.b64encode(content).decode()}")
        tally.slowest = max(tally.slowest, time.perf_counter() - started)

    one()
    tally.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return tally


def outcome(content: bytes) -> str:
    try:
        header = read_header(content, MAX_PIXELS)
        image = decode(content, MAX_PIXELS)
    except Unreadable as reason:
        return re.sub(r"[\d,]*\d", "N", str(reason))
    assert image.dtype == np.uint8
    assert image.shape == (header.height, header.width, 3)
    return "a picture"


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    content = draw(st.sampled_from(sorted(CORPUS.items())))[1]
    for _ in range(draw(st.integers(1, 4))):
        content = draw(with_a_fault(content))
    return mended(content) if draw(st.booleans()) else content


@st.composite
def with_a_fault(draw: st.DrawFn, content: bytes) -> bytes:
    end = min(len(content), draw(st.sampled_from((64, 1024, len(content)))))  # most of what can lie is in front
    at = draw(st.integers(min(4, end), end))  # past the mark by which it is told what it is
    match draw(st.sampled_from(("flip", "lie", "cut", "repeat", "splice"))):
        case "flip":
            changed = bytes(byte ^ 1 << draw(st.integers(0, 7)) for byte in content[at : at + 1])
            return content[:at] + changed + content[at + 1 :]
        case "lie":
            layout = draw(st.sampled_from(("<H", ">H", "<I", ">I")))
            value = struct.pack(layout, draw(st.sampled_from(EXTREMES)) & 256 ** struct.calcsize(layout) - 1)
            return content[:at] + value + content[at + len(value) :]
        case "cut":
            return content[:at]
        case "repeat":
            until = at + draw(st.integers(1, 256))
            return content[:at] + content[at:until] * draw(st.sampled_from((2, 9, 300))) + content[until:]
        case _:
            other = draw(st.sampled_from(sorted(CORPUS.items())))[1]
            return content[:at] + other[draw(st.integers(0, len(other))) :]


def mended(content: bytes) -> bytes:
    """With the checksums and the length of what it has become, so that the fault is found further in."""
    if content.startswith(b"RIFF"):
        return content[:4] + struct.pack("<I", max(len(content) - 8, 0)) + content[8:]
    if not content.startswith(b"\x89PNG"):
        return content
    whole, at = bytearray(content), 8
    while at + 12 <= len(whole):
        end = at + 8 + int.from_bytes(whole[at : at + 4])
        whole[end : end + 4] = struct.pack(">I", zlib.crc32(whole[at + 4 : end])) if end + 4 <= len(whole) else b""
        at = end + 4
    return bytes(whole)


def report(total: Tally, lines: int, seconds: float) -> None:
    cases = total.outcomes.total()
    sys.stdout.write(
        f"{cases:,} cases in {seconds:.0f} s; {len(total.faults)} faults; slowest {total.slowest * 1000:.0f} ms; "
        f"peak {total.peak} MB; {lines:,} lines on stderr\n\n| outcome | cases |\n|---|---:|\n"
        + "".join(f"| {words} | {number:,} |\n" for words, number in total.outcomes.most_common())
        + "".join(f"\n{fault}\n" for fault in total.faults)
    )
    sys.exit(bool(total.faults))


if __name__ == "__main__":
    main()

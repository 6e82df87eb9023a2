"""Picture files -> 64-bit perceptual hashes -> who is a near-duplicate of whom, without comparing all with all.

How many bits to allow was measured on 1,213 webcam frames of 12 recording sessions. Of neighbouring frames of a session
17 % differ in at most 2 bits, 32 % in 4, 45 % in 6, 58 % in 8. Of the 555,000 pairs across sessions 6 differ in at most
8 bits, all between two sessions that truly are one scene recorded in two goes (the nearest: 2 bits); different scenes
begin with one pair at 10 bits, 19 at 12 and 93 at 14, and those of the drawn demo at 10 bits as well. Of copies
compressed again (JPEG quality 20 to 95), scaled or blurred 99 % differ in at most 2 bits and all in 4; made 30 levels
brighter 98 % in 4; cropped by 2 % a side 63 % in 4. A mirrored copy is a stranger (30 bits): its file name has to tell
(Roboflow's stems).
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from stages.params import StageError
from stages.vision.images import Unreadable, probe

Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.intp]

BITS = 64
GRID = 32  # px: the side of the square whose frequencies are taken
BATCH = 64  # pictures a task: a future for each of 100,000 would weigh 200 MB

# The median size of the 63 frequencies, in grey levels x 16. A gradient has 0, a blank wall under strong sensor noise
# 0.9, the dullest of the webcam frames 26. Below, the signs are noise, or alike for all blank pictures.
MIN_TEXTURE = 2.0


def hash_pictures(paths: Sequence[Path]) -> list[int | None]:
    """The hash of each; None for one without texture, whose hash would say nothing. Raises StageError, naming a file
    that is absent or unreadable.
    """
    batches = (paths[start : start + BATCH] for start in range(0, len(paths), BATCH))
    hashes: list[int | None] = []
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(paths), desc="hash", unit="picture", disable=None, delay=2) as progress,
    ):
        for batch in pool.map(lambda batch: [_hash_file(path) for path in batch], batches):
            hashes += batch
            progress.update(len(batch))
    return hashes


def clusters(hashes: Sequence[int | None], max_bits: int) -> list[int | None]:
    """The number of each picture's cluster: chains of hashes of which neighbours differ in at most max_bits."""
    positions, distinct, which = _distinct(hashes)
    root = np.arange(len(distinct))
    for a, b in near_duplicates(distinct, max_bits):
        while (apart := root[a] != root[b]).any():
            low, high = np.minimum(root[a], root[b])[apart], np.maximum(root[a], root[b])[apart]
            root[high] = low  # where several claim one, the next round sees to the others
            while (root != root[root]).any():
                root = root[root]
    found: list[int | None] = [None] * len(hashes)
    for position, number in zip(positions.tolist(), root[which].tolist(), strict=True):
        found[position] = number
    return found


def torn_apart(hashes: Sequence[int | None], sides: Sequence[int], max_bits: int) -> int:
    """How many pictures have a near-duplicate on another side; sides: the number, below 8, of each picture's."""
    positions, distinct, which = _distinct(hashes)
    own = np.left_shift(1, np.asarray(sides, np.uint8)[positions])
    here = np.zeros(len(distinct), np.uint8)  # a bit for each side on which the hash occurs
    np.bitwise_or.at(here, which, own)
    around = here.copy()
    for a, b in near_duplicates(distinct, max_bits):
        np.bitwise_or.at(around, a, here[b])
        np.bitwise_or.at(around, b, here[a])
    return int(np.count_nonzero(around[which] != own))


def near_duplicates(hashes: Hashes, max_bits: int) -> Iterator[tuple[Indices, Indices]]:
    """hashes (D,), each once -> every pair of positions whose hashes differ in at most max_bits, once, in portions.

    Two hashes that differ in max_bits agree in at least one of max_bits + 1 bands. Only those that share a band are
    compared: sorted by it, each with its next neighbour, then the one after that, until the band's value ends. So one
    portion is never longer than D, whatever the hashes; time is that of the pairs that share a band.
    """
    bands = [np.uint64(sum(1 << bit for bit in range(b, BITS, max_bits + 1))) for b in range(max_bits + 1)]
    for number, band in enumerate(bands):
        values = hashes & band
        order = np.argsort(values, kind="stable")
        ends = np.searchsorted(values[order], values[order], side="right")
        at, step = np.arange(len(hashes)), 1
        while (at := at[at + step < ends[at]]).size:
            a, b = order[at], order[at + step]
            differing = hashes[a] ^ hashes[b]
            close = np.bitwise_count(differing) <= max_bits
            for earlier in bands[:number]:  # already found there
                close &= (differing & earlier) != 0
            yield a[close], b[close]
            step += 1


def perceptual_hash(content: bytes) -> int | None:
    """Which of the 64 lowest frequencies are stronger than their median, as bits (pHash: Zauner 2010, 3.2.1).

    None for a picture without texture. Raises Unreadable.
    """
    grey = cv2.imdecode(np.frombuffer(content, np.uint8), _reduction(content))
    if grey is None:
        raise Unreadable("damaged")
    square = cv2.resize(grey, (GRID, GRID), interpolation=cv2.INTER_AREA).astype(np.float32)
    frequencies = cv2.dct(square)[:8, :8].ravel()
    waves = frequencies[1:]  # the first is the brightness
    if np.median(np.abs(waves)) < MIN_TEXTURE:
        return None
    return int.from_bytes(np.packbits(frequencies > np.median(waves)).tobytes(), "big")


def _reduction(content: bytes) -> int:
    """How small the decoder may make it: JPEG is decoded at an eighth of its size in a fraction of the time."""
    _, width, height, _ = probe(content)
    for factor, flag in (
        (8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
        (4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
        (2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
    ):
        if min(width, height) >= 2 * GRID * factor:
            return flag
    return cv2.IMREAD_GRAYSCALE


def _hash_file(path: Path) -> int | None:
    try:
        return perceptual_hash(path.read_bytes())
    except FileNotFoundError:
        raise StageError(
            f"{path}: not found, though the ledger names it; write it again: dvc repro -sf convert"
        ) from None
    except Unreadable as why:
        raise StageError(f"{path}: {why}; write it again: dvc repro -sf convert") from None


def _distinct(hashes: Sequence[int | None]) -> tuple[Indices, Hashes, Indices]:
    """Positions (T,) of the pictures that have a hash, the distinct hashes (D,), and which of these each has (T,)."""
    positions = np.array([p for p, value in enumerate(hashes) if value is not None], np.intp)
    distinct, which = np.unique(np.array([v for v in hashes if v is not None], np.uint64), return_inverse=True)
    return positions, distinct, which

"""Which pictures count as near-duplicates, and that all of them are found."""

import os
import re
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.params import StageError
from stages.vision.images import Image, encode_jpeg
from stages.vision.likeness import clusters, hash_pictures, near_duplicates, perceptual_hash, torn_apart
from tests.native import noise, params, png

Hashed = list[int | None]
BLANK = {
    "black": np.zeros((120, 160, 3), np.uint8),
    "white": np.full((120, 160, 3), 255, np.uint8),
    "a gradient": np.repeat(np.tile(np.linspace(40, 200, 160), (120, 1))[..., None], 3, axis=2).astype(np.uint8),
    "a wall under sensor noise": np.random.default_rng(0).normal(128, 8, (480, 640, 3)).astype(np.uint8),
}


@pytest.mark.parametrize("image", BLANK.values(), ids=BLANK.keys())
def test_a_picture_without_texture_has_no_hash(image: Image) -> None:
    assert perceptual_hash(png(image)) is None
    assert perceptual_hash(encode_jpeg(image)) is None


@pytest.mark.parametrize("seed", range(5))
def test_a_copy_stays_within_the_bits_that_params_allow(seed: int) -> None:
    image = noise(seed, 640, 480)
    original = bits(png(image))
    copies = {
        "compressed": encode_jpeg(image, quality=50),
        "halved": png(cv2.resize(image, (320, 240), interpolation=cv2.INTER_AREA).astype(np.uint8)),
        "squared": png(cv2.resize(image, (416, 416)).astype(np.uint8)),
        "blurred": png(cv2.GaussianBlur(image, (9, 9), 0).astype(np.uint8)),
    }
    allowed = params().split.near_duplicate_bits
    distances = {name: (bits(copy) ^ original).bit_count() for name, copy in copies.items()}
    assert max(distances.values()) <= allowed, distances


def test_different_pictures_differ_in_many_bits() -> None:
    hashes = [bits(png(noise(seed))) for seed in range(20)]
    assert min((a ^ b).bit_count() for a, b in combinations(hashes, 2)) > 8


@st.composite
def related_hashes(draw: st.DrawFn) -> Hashed:
    """Some pictures without texture, and families in which members differ in a few bits."""
    heads = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    flips = st.lists(st.integers(0, 63), max_size=4)
    found: Hashed = []
    for head in draw(st.lists(st.none() | st.sampled_from(heads), max_size=16)):
        if head is not None:
            for bit in draw(flips):
                head ^= 1 << bit  # noqa: PLW2901
        found.append(head)
    return found


@settings(deadline=None)
@given(related_hashes(), st.integers(0, 9))
def test_exactly_the_pairs_within_the_bits_are_found_each_once(hashes: Hashed, max_bits: int) -> None:
    distinct = np.array(sorted({value for value in hashes if value is not None}), np.uint64)
    found = [
        tuple(sorted(pair))
        for a, b in near_duplicates(distinct, max_bits)
        for pair in zip(a.tolist(), b.tolist(), strict=True)
    ]
    values = distinct.tolist()
    expected = [
        (i, j) for i, j in combinations(range(len(values)), 2) if (values[i] ^ values[j]).bit_count() <= max_bits
    ]
    assert sorted(found) == expected


@settings(deadline=None)
@given(related_hashes(), st.integers(0, 9))
def test_a_cluster_is_a_chain_of_near_duplicates(hashes: Hashed, max_bits: int) -> None:
    found = clusters(hashes, max_bits)
    assert [number is None for number in found] == [value is None for value in hashes]
    chained = chains(hashes, max_bits)
    for i, j in combinations([p for p, value in enumerate(hashes) if value is not None], 2):
        assert (found[i] == found[j]) == (chained[i] == chained[j])


@settings(deadline=None)
@given(related_hashes(), st.integers(0, 9))
def test_every_picture_torn_from_a_near_duplicate_is_counted(hashes: Hashed, max_bits: int) -> None:
    sides = [position % 3 for position in range(len(hashes))]
    torn = {
        position
        for i, j in combinations(range(len(hashes)), 2)
        if alike(hashes[i], hashes[j], max_bits) and sides[i] != sides[j]
        for position in (i, j)
    }
    assert torn_apart(hashes, sides, max_bits) == len(torn)


def test_without_pictures_there_is_nothing_to_find() -> None:
    assert hash_pictures([]) == []
    assert clusters([], 2) == []
    assert torn_apart([], [], 2) == 0


def test_a_hundred_thousand_copies_are_one_cluster_at_once() -> None:
    assert set(clusters([12345] * 100_000, 4)) == {0}


def test_hashes_that_share_a_band_are_compared_in_portions_no_longer_than_themselves() -> None:
    crowded = np.arange(3000, dtype=np.uint64) << np.uint64(20)
    portions = [len(a) for a, _ in near_duplicates(crowded, 2)]
    assert max(portions) <= 3000


def test_hashes_come_in_the_order_of_the_files(tmp_path: Path) -> None:
    contents = [png(noise(seed)) for seed in range(150)]
    contents[70] = png(BLANK["black"])
    paths = [tmp_path / f"{number}.png" for number in range(150)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    assert hash_pictures(paths) == [perceptual_hash(content) for content in contents]


@pytest.mark.parametrize("content", [None, b"", b"not a picture", png(noise(0))[:200]])
def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "gone.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StageError, match=r"gone\.png: .*dvc repro -sf convert"):
        hash_pictures([path])


def test_real_recordings_are_near_duplicates_within_but_not_across_scenes() -> None:
    if not (folder := os.environ.get("HANDS_DATA")):
        pytest.skip("HANDS_DATA is not set")
    paths = sorted(Path(folder).glob("images/*.jpg"))
    sessions = [re.sub(r"_?pic\d+\.jpg$", "", path.name) for path in paths]
    found = clusters(hash_pictures(paths), params().split.near_duplicate_bits)
    assert None not in found
    assert len(set(found)) < 0.8 * len(paths)
    joined = [{s for s, number in zip(sessions, found, strict=True) if number == one} for one in set(found)]
    assert {frozenset(names) for names in joined if len(names) > 1} == {
        frozenset({"3", "3_1528499009.07"})
    }  # one scene


def bits(content: bytes) -> int:
    value = perceptual_hash(content)
    assert value is not None
    return value


def alike(a: int | None, b: int | None, max_bits: int) -> bool:
    return a is not None and b is not None and (a ^ b).bit_count() <= max_bits


def chains(hashes: Hashed, max_bits: int) -> list[int]:
    """Chains by comparing all with all, until nothing changes."""
    chain = list(range(len(hashes)))
    changed = True
    while changed:
        changed = False
        for i, j in combinations(range(len(hashes)), 2):
            if alike(hashes[i], hashes[j], max_bits) and chain[i] != chain[j]:
                chain[i] = chain[j] = min(chain[i], chain[j])
                changed = True
    return chain

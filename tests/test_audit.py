"""What `fingers audit` writes and says: copies with faces hidden, faces a picture, and what was missed."""

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from ops.audit import Audit, Look, in_words, rows
from ops.cli import app
from stages.files import write_json
from stages.params import StageError
from stages.vision import faces
from stages.vision.boxes import Boxes, Scores
from stages.vision.faces import regions
from stages.vision.images import Image, decode, encode_jpeg, encode_png
from tests.native import ROOT, noise, params

FACE = (20, 12, 44, 36)  # x1 y1 x2 y2 in px, in each picture brighter than DARK
DARK = 20


class FaceInTheLight:
    """Stands in for a face detector: FACE where the picture is bright, none where it is dark."""

    def __init__(self, confidence: float, threads: int, precision: faces.Precision) -> None:
        pass

    def __call__(self, image: Image) -> tuple[Boxes, Scores]:
        found = np.array([FACE] if image.mean() > DARK else [], np.float32).reshape(-1, 4)
        return found, np.ones(len(found), np.float32)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone's root with pictures in camera/: two bright ones, one dark, one damaged, and a note."""
    monkeypatch.setitem(faces.FINDERS, "haar", FaceInTheLight)
    (tmp_path / "dvc.yaml").touch()
    configured = params(**{"faces.detector": "haar", "faces.method": "solid"})
    (tmp_path / "params.yaml").write_text(configured.model_dump_json(by_alias=True))
    (tmp_path / "camera/inner").mkdir(parents=True)
    (tmp_path / "camera/a.jpg").write_bytes(encode_jpeg(noise(1)))
    (tmp_path / "camera/inner/b.png").write_bytes(encode_png(noise(2)))
    (tmp_path / "camera/dark.png").write_bytes(encode_png(np.zeros((48, 64, 3), np.uint8)))
    (tmp_path / "camera/torn.png").write_bytes(encode_png(noise(3))[:-40])
    (tmp_path / "camera/note.txt").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def audited(*arguments: str, code: int = 0) -> dict[str, Any]:
    """The report that is printed, which must be the one that is written."""
    done = CliRunner().invoke(app, ["audit", *arguments, "--out", "out", "--json"], catch_exceptions=False)
    assert done.exit_code == code, done.output
    report: dict[str, Any] = json.loads(done.stdout)
    assert report == json.loads(Path("out/report.json").read_text())
    return report


def test_a_folder_is_copied_without_faces_and_what_is_unreadable_is_reported(clone: Path) -> None:
    report = audited("camera", code=1)
    assert {look["file"]: (look["faces"], look["problem"]) for look in report["looks"]} == {
        "a.jpg": (1, None),
        "dark.png": (0, None),
        "inner/b.png": (1, None),
        "torn.png": (0, "truncated"),
    }
    assert report["totals"] == {"looked_at": 3, "faces": 2, "without_a_face": 1, "unreadable": 1}
    copies = sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("*.*"))
    assert copies == ["a.jpg", "dark.png.jpg", "inner/b.png.jpg", "report.json"]
    for name in ("a.jpg", "inner/b.png.jpg"):
        assert hidden(decode(Path("out", name).read_bytes()))


def hidden(picture: Image) -> bool:
    ((left, top, right, bottom),) = regions(np.array([FACE], np.float32), 0, 64, 48)
    return bool(picture[top:bottom, left:right].max() < DARK)


def test_a_single_picture_is_enough(clone: Path) -> None:
    assert [look["file"] for look in audited("camera/a.jpg")["looks"]] == ["a.jpg"]


def test_true_boxes_give_recall_and_the_misses(clone: Path) -> None:
    (clone / "camera/torn.png").unlink()
    box = [0.5, 0.5, 24 / 64, 24 / 48]  # FACE
    write_json(clone / "boxes.json", {name: {"faces": [box]} for name in ("a.jpg", "inner/b.png", "dark.png")})
    report = audited("camera", "--boxes", "boxes.json")
    assert report["recall"] == {"boxed": 3, "hidden": 2, "recall": 2 / 3}
    assert report["misses"] == [{"file": "dark.png", "box": [20.0, 12.0, 44.0, 36.0], "hidden": 0.0}]


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ({"ghost.jpg": {"faces": []}}, r"boxes\.json: 1 of its pictures are not in camera, first ghost\.jpg"),
        ({"a.jpg": [[0.5, 0.5, 1, 1]]}, r'boxes\.json: not boxes of faces; expected \{"photo\.jpg"'),
        ({"a.jpg": {"faces": [[1, 2, 3]]}}, r"boxes\.json: not boxes of faces"),
    ],
)
def test_boxes_that_say_nothing_are_refused(clone: Path, boxes: object, message: str) -> None:
    write_json(clone / "boxes.json", boxes)
    with pytest.raises(StageError, match=message):
        audited("camera", "--boxes", "boxes.json")
    assert not Path("out").exists()


def test_nothing_is_ever_written_over(clone: Path) -> None:
    with pytest.raises(StageError, match="camera: holds something already; give a new folder"):
        CliRunner().invoke(app, ["audit", "camera", "--out", "camera"], catch_exceptions=False)


@pytest.mark.parametrize(("path", "message"), [("nowhere", "nowhere: not found"), ("empty", "no picture and no video")])
def test_a_path_without_pictures_is_an_error(clone: Path, path: str, message: str) -> None:
    (clone / "empty").mkdir()
    with pytest.raises(StageError, match=message):
        audited(path)


def test_where_no_faces_are_looked_for_there_is_nothing_to_check(clone: Path) -> None:
    (clone / "params.yaml").write_text(params(**{"faces.detector": "none"}).model_dump_json(by_alias=True))
    with pytest.raises(StageError, match=r"faces\.detector: none hides nothing"):
        audited("camera")


def test_a_video_is_hidden_frame_by_frame(clone: Path) -> None:
    write_video(clone / "clip.mp4", [noise(1), noise(2), np.zeros((48, 64, 3), np.uint8)])
    report = audited("clip.mp4")
    assert [(look["frame"], look["faces"]) for look in report["looks"]] == [(0, 1), (1, 1), (2, 0)]
    copy = cv2.VideoCapture("out/clip.mp4.mp4")
    frames = [copy.read()[1] for _ in range(3)]
    copy.release()
    assert all(frame[16:32, 24:40].mean() < DARK for frame in frames)
    assert frames[0][:8].mean() > DARK


def write_video(path: Path, frames: list[Image]) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 5.0, (64, 48))
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


def test_what_is_no_video_is_reported_too(clone: Path) -> None:
    Path("clip.mp4").write_bytes(b"hello")
    assert audited("clip.mp4", code=1)["looks"][0]["problem"] == "not a video that OpenCV reads"


def test_frames_with_as_many_faces_share_a_row() -> None:
    looks = [Look("v.mp4", number, faces) for number, faces in enumerate([1, 1, 0, 1])]
    assert [(row["frames"], row["faces"]) for row in rows(Audit(looks))] == [("0-1", 1), ("2-2", 0), ("3-3", 1)]
    assert rows(Audit([Look("a.png", faces=2), Look("b.png", faces=2)])) == [
        {"file": name, "frames": None, "faces": 2, "problem": None} for name in ("a.png", "b.png")
    ]


def test_the_summary_is_one_line() -> None:
    assert in_words(Audit()) == "0 faces hidden in 0 pictures; 0 show none"
    looks = [Look("a.png", faces=2), Look("b.png"), Look("c.png", problem="truncated")]
    assert in_words(Audit(looks, boxed=2)) == (
        "2 faces hidden in 2 pictures; 1 show none; 1 unreadable; of 2 boxed faces 2 (100.0 %) are hidden"
    )


@pytest.mark.slow
@pytest.mark.skipif("FACES_DATA" not in os.environ, reason="FACES_DATA names no folder with boxed faces")
def test_real_faces_are_audited_with_the_repository_s_own_params(clone: Path) -> None:
    (clone / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    folder = Path(os.environ["FACES_DATA"])
    report = audited(str(folder / "images"), "--boxes", str(folder / "faces.json"))
    assert report["recall"]["recall"] >= 0.99
    assert report["totals"]["without_a_face"] == 0

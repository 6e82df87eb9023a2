"""`fingers picsellia`: the pictures that the champion is least sure of, blurred, as a version of the dataset."""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage
from typer.testing import CliRunner

from ops import picsellia as pushing
from ops.cli import app
from ops.hard_pictures import distinct, doubt
from stages.params import PicselliaParams, StageError
from stages.registry import Registry
from stages.sources import picsellia as source
from stages.vision import faces
from stages.vision.boxes import Boxes, Scores
from stages.vision.images import Image, decode, encode_jpeg, read_image
from tests import native
from tests.fixed_model import row, write_model
from tests.native import accepted, noise, png, rectangle
from tests.picsellia_platform import POLICY, TOKEN, Fault, Picture, Platform, Serve, serve
from tests.released import HAND, SIZE, registered

__all__ = ["serve"]

PICTURES = [Picture(f"{number}.png", [accepted(rectangle("1"))], tags=["session:a"]) for number in range(3)]
FACE = (10, 8, 40, 40)  # x1 y1 x2 y2 in px, in each picture here


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("PICSELLIA_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(source, "BACKOFF", 0)
    monkeypatch.setattr(pushing, "POLL", 0)
    monkeypatch.setenv("PICSELLIA_SDK_CUSTOM_LOGGING", "1")  # the next line imports the SDK
    monkeypatch.setattr("picsellia.decorators.time", SimpleNamespace(sleep=lambda _: None))


@pytest.fixture
def platform(serve: Serve) -> Platform:
    return serve(PICTURES)


def section(platform: Platform, **changes: str) -> PicselliaParams:
    return PicselliaParams(
        **{"dataset": "hands", "version": "v1", "organization": "", "host": platform.host, **changes}
    )


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three pictures as write_blurred names them."""
    (tmp_path / "blurred").mkdir()
    made = []
    for number in range(3):
        made.append(tmp_path / f"blurred/hard-{number:016x}.jpg")
        made[-1].write_bytes(encode_jpeg(noise(100 + number)))
    return made


def push(platform: Platform, files: Sequence[Path], version: str = "v2") -> None:
    pushing.push(pushing.aim(section(platform), version), files)


def names(files: Sequence[Path]) -> list[str]:
    return sorted([*(picture.file_name for picture in PICTURES), *(file.name for file in files)])


def received(platform: Platform) -> dict[str, bytes]:
    """File name: its bytes, of the pictures that were added to the datalake."""
    return {one.picture.file_name: one.content for one in platform.lake.values() if one.tags}


def test_a_push_makes_a_version_of_all_that_was_there_and_the_files(platform: Platform, files: list[Path]) -> None:
    push(platform, files)
    assert [version.name for version in platform.versions] == ["v1", "v2"]
    assert platform.names("v1") == names([])
    assert platform.names("v2") == names(files)
    assert received(platform) == {file.name: file.read_bytes() for file in files}
    assert {one.tags[0] for one in platform.lake.values() if one.tags} == {platform.tags["hard"]}
    made = platform.versions[1]
    assert (made.type, list(made.labels)) == ("OBJECT_DETECTION", list(platform.labels))
    assert sum(len(stored.annotation_ids) for stored in made.stored.values()) == len(PICTURES)
    assert {tuple(stored.picture.tags) for stored in made.stored.values()} == {("session:a",), ()}


def test_a_name_that_is_taken_is_an_error_before_anything_is_sent(platform: Platform, files: list[Path]) -> None:
    with pytest.raises(StageError, match="hands/v1: its dataset has a version 'v1' already; give another --version"):
        push(platform, files, "v1")
    assert_nothing_was_sent(platform)


@pytest.mark.parametrize("name", ["", " v2", "v2 "])
def test_a_name_is_a_name(platform: Platform, files: list[Path], name: str) -> None:
    with pytest.raises(StageError, match=f"--version '{name}': must be a name"):
        push(platform, files, name)
    assert not platform.asked


def test_a_version_without_pictures_may_get_its_first(serve: Serve, files: list[Path]) -> None:
    platform = serve([])
    push(platform, files)
    assert platform.names("v2") == [file.name for file in files]


def test_pictures_of_the_same_name_are_all_in_the_new_version(serve: Serve, files: list[Path]) -> None:
    platform = serve([PICTURES[0], PICTURES[0]])
    push(platform, files)
    assert platform.names("v2") == ["0.png", "0.png", *(file.name for file in files)]


def test_a_name_that_is_taken_meanwhile_keeps_what_was_made(platform: Platform, files: list[Path]) -> None:
    target = pushing.aim(section(platform), "v2")
    platform.versions[0].name = "v2"
    with pytest.raises(StageError, match=r"hands/v2\.partial: is complete, but somebody made a version 'v2' meanwhile"):
        pushing.push(target, files)
    assert platform.names("v2.partial") == names(files)


@pytest.mark.parametrize(
    ("path", "fault"),
    [("^/uploads", 500), ("^/uploads", "dropped"), ("POST .*/datas$", 429), ("generate_presigned_url$", 500)],
)
def test_an_upload_that_fails_is_tried_again(platform: Platform, files: list[Path], path: str, fault: Fault) -> None:
    platform.fail(path, fault)
    push(platform, files)
    assert received(platform) == {file.name: file.read_bytes() for file in files}


def test_uploads_that_keep_failing_are_named_and_nothing_is_forked(
    platform: Platform, files: list[Path], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    platform.fail("^/uploads", 403, *[500] * 5)
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(StageError, match=r"3 of 3 pictures did not arrive: hard-0+\.jpg: .*; push again") as error,
    ):
        push(platform, files)
    assert [version.name for version in platform.versions] == ["v1"]
    assert_nothing_secret(f"{error.value} {caplog.text}")
    assert "500 Server Error" in str(error.value) and "POST /uploads?[...]" in caplog.text
    assert capfd.readouterr() == ("", "")  # no bar, no greeting
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    platform.heal()
    push(platform, files)
    assert platform.names("v2") == names(files)


def test_what_arrived_is_not_sent_twice(platform: Platform, files: list[Path]) -> None:
    push(platform, files[:2], "v2")
    push(platform, files, "v3")
    assert platform.asked["POST /uploads"] == 3
    assert platform.names("v3") == names(files)


def test_pictures_that_the_platform_cannot_read_are_named(serve: Serve, files: list[Path]) -> None:
    platform = serve(PICTURES, uploads_end="ERROR")
    with pytest.raises(StageError, match=r"cannot read 3 pictures that arrived: hard-0+\.jpg, "):
        push(platform, files)
    assert [version.name for version in platform.versions] == ["v1"]


def test_a_job_that_fails_is_told(serve: Serve, files: list[Path]) -> None:
    platform = serve(PICTURES, jobs_end="FAILED")
    with pytest.raises(StageError, match=r"hands/v2\.partial: job .* ended as FAILED; delete that version there"):
        push(platform, files)


def test_a_picture_that_the_new_version_lacks_is_told(serve: Serve, files: list[Path]) -> None:
    platform = serve(PICTURES, loses=files[1].name)
    with pytest.raises(StageError, match=r"hands/v2\.partial: lacks 1 of 6 pictures, as hard-0*1\.jpg; push again"):
        push(platform, files)
    platform.loses = None
    push(platform, files)
    assert platform.names("v2") == names(files)


def test_a_job_that_does_not_end_is_not_waited_for_for_ever(
    platform: Platform, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "PATIENCE", 0)
    with pytest.raises(StageError, match="the pictures are still being processed, after 0 minutes; push again later"):
        push(platform, files)


STEPS = [
    "tags/find$",
    "generate_object_name$",
    "^/uploads",
    "POST .*/datas$",
    "XGET .*/datas$",
    "/fork$",
    "/job/",
    "GET .*/assets$",
    "PATCH",
]


@pytest.mark.parametrize("fault", ["dropped", "lost"])
@pytest.mark.parametrize("step", STEPS)
def test_a_push_that_stops_anywhere_goes_on_and_doubles_nothing(
    platform: Platform, files: list[Path], step: str, fault: Fault
) -> None:
    """dropped: the platform did not hear of it; lost: it did it, once for each try of the SDK's, unheard."""
    target = pushing.aim(section(platform), "v2")
    platform.fail(step, *[fault] * 40)
    with suppress(StageError):  # an upload whose answer was lost is found at once
        pushing.push(target, files)
    platform.heal()
    if platform.names("v2") is None:  # else only the answer to the last step was lost
        push(platform, files)
    assert [version.name for version in platform.versions] == ["v1", "v2"]
    assert platform.names("v2") == names(files)


def test_a_fork_that_was_left_under_way_is_waited_for(serve: Serve, files: list[Path]) -> None:
    platform = serve(PICTURES, jobs_take=100)
    platform.fail("/job/", *("dropped",) * 5)
    with pytest.raises(StageError, match="cannot be reached"):
        push(platform, files)
    assert platform.names("v2.partial") == []
    copied: list[list[str] | None] = []
    platform.on("POST .*/assets$", lambda: copied.append(platform.names("v2.partial")))
    push(platform, files)
    assert copied == [names([])]
    assert platform.names("v2") == names(files)
    assert sum(len(stored.annotation_ids) for stored in platform.versions[1].stored.values()) == len(PICTURES)


def test_pictures_that_are_in_the_version_twice_are_told(platform: Platform, files: list[Path]) -> None:
    platform.fail("POST .*/assets$", "lost")
    with pytest.raises(StageError, match=r"hands/v2\.partial: lists picture .* 2 times; leave one of them there"):
        push(platform, files)


def test_a_push_that_was_killed_goes_on_and_doubles_nothing(platform: Platform, files: list[Path]) -> None:
    code = (
        "import sys; from pathlib import Path; from ops import picsellia; from stages.params import PicselliaParams\n"
        "params = PicselliaParams(dataset='hands', version='v1', organization='', host=sys.argv[1])\n"
        "picsellia.push(picsellia.aim(params, 'v2'), [Path(path) for path in sys.argv[2:]])\n"
    )
    platform.fail("/job/", *("slow",) * 9)
    with subprocess.Popen([sys.executable, "-c", code, platform.host, *map(str, files)], cwd=native.ROOT) as process:
        deadline = time.monotonic() + 30
        while not any("/job/" in path for path in platform.asked):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert platform.names("v2") is None
    platform.heal()
    push(platform, files)
    assert [version.name for version in platform.versions] == ["v1", "v2"]
    assert platform.names("v2") == names(files)
    assert platform.asked["POST /uploads"] == 3


def test_a_version_that_another_push_left_is_not_mixed_with(platform: Platform, files: list[Path]) -> None:
    platform.fail("PATCH", 500)
    with pytest.raises(StageError, match="500"):
        push(platform, files)
    with pytest.raises(StageError, match=r"hands/v2\.partial: holds 1 pictures of another push, as hard-0*2\.jpg"):
        push(platform, files[:2])


def test_a_dataset_that_nobody_has_named_is_an_error(platform: Platform, files: list[Path]) -> None:
    with pytest.raises(StageError, match=r"pull\.picsellia: names no dataset and version"):
        pushing.aim(section(platform, dataset="", version=""), "v2")


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([], 0),
        ([0.0], 0),
        ([1.0], 0),
        ([0.4], 1),
        ([0.2], 0.5),
        ([0.7], 0.5),
        ([0.9, 0.01], 1 / 6),
        ([0.9, 0.44, 0.01], 1 - 0.04 / 0.6),
    ],
)
def test_doubt_is_how_near_the_threshold_a_hand_is(scores: list[float], expected: float) -> None:
    assert doubt(np.array(scores, np.float32), 0.4) == pytest.approx(expected, abs=1e-6)


def test_pictures_are_found_below_a_folder_and_copies_once(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no such folder"):
        distinct(tmp_path / "absent")
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("hands")
    with pytest.raises(StageError, match="no pictures"):
        distinct(tmp_path)
    for name, seed in (("a/b/one.PNG", 1), ("a/two.png", 2), ("z-copy.png", 1)):
        (tmp_path / name).write_bytes(png(noise(seed)))
    assert distinct(tmp_path) == [tmp_path / "a/b/one.PNG", tmp_path / "a/two.png"]


class FixedFace:
    """Stands in for a face detector: in each picture it finds FACE."""

    def __init__(self, confidence: float, threads: int, precision: faces.Precision) -> None:
        pass

    def __call__(self, image: Image) -> tuple[Boxes, Scores]:
        return np.array([FACE], np.float32), np.ones(1, np.float32)


@pytest.fixture
def clone(tmp_path: Path, local_store: Path, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone's root: a champion that sees one hand in every picture, and four pictures in `camera`."""
    monkeypatch.setitem(faces.FINDERS, "haar", FixedFace)
    configure(tmp_path, platform, **{"faces.detector": "haar"})
    champion(local_store, 0.5)
    (tmp_path / "camera").mkdir()
    for number in range(4):
        (tmp_path / f"camera/{number}.png").write_bytes(png(noise(200 + number)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configure(root: Path, platform: Platform, **changes: object) -> None:
    params = native.params(**{"pull.picsellia": section(platform).model_dump(), **changes})
    (root / "dvc.yaml").write_text("")
    (root / "params.yaml").write_text(params.model_dump_json(by_alias=True))


def champion(store: Path, score: float) -> None:
    onnx = write_model(store / "detector.onnx", [row(HAND, 3, score)], size=SIZE)
    registry = Registry(native.params().register_.model_name)
    registry.set_alias("champion", registered(registry, onnx))


def fingers(*arguments: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(app, ["picsellia", *arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return list(json.loads(done.stdout))


def test_the_dry_run_lists_what_the_push_sends_and_sends_nothing(clone: Path, platform: Platform) -> None:
    (clone / "camera/broken.jpg").write_bytes(b"\xff\xd8\xff half")
    listed = fingers("push-hard", "camera", "--version", "v2", "--count", "3", "--dry-run")
    assert_nothing_was_sent(platform)
    assert [(one["path"], one["count"], one["hands"], one["faces"]) for one in listed] == [
        (f"camera/{number}.png", 3, 1, 1) for number in range(3)
    ]
    assert listed[0]["doubt"] == pytest.approx(1 - 0.1 / 0.6, abs=1e-3)
    assert fingers("push-hard", "camera", "--version", "v2", "--count", "3") == listed
    assert sorted(received(platform)) == sorted(one["name"] for one in listed)
    assert platform.names("v2") == sorted([*names([]), *received(platform)])


def test_the_next_push_offers_pictures_that_the_version_has_not(clone: Path, platform: Platform) -> None:
    first = fingers("push-hard", "camera", "--version", "v2", "--count", "3")
    configure(clone, platform, **{"faces.detector": "haar", "pull.picsellia.version": "v2"})
    (second,) = fingers("push-hard", "camera", "--version", "v3")
    assert second["path"] == "camera/3.png"
    assert platform.names("v3") == sorted([*names([]), *(one["name"] for one in first), second["name"]])


def test_no_face_and_no_metadata_leaves(clone: Path, platform: Platform) -> None:
    exif = PillowImage.Exif()
    exif[0x010E] = "somebody's kitchen"
    pixels = np.repeat(np.random.default_rng(1).integers(0, 256, (48, 64, 1), np.uint8), 3, axis=2)
    PillowImage.fromarray(pixels).save(clone / "camera/0.jpg", exif=exif, quality=95)
    PillowImage.fromarray(pixels).save(clone / "camera/0.png")
    x1, y1, x2, y2 = FACE
    for one in fingers("push-hard", "camera", "--version", "v2")[:2]:
        content = received(platform)[one["name"]]
        sent, original = decode(content), read_image(clone / one["path"])
        assert likeness(sent[y1:y2, x1:x2], original[y1:y2, x1:x2]) < 0.3
        assert likeness(sent[:, 48:], original[:, 48:]) > 0.9
        assert b"kitchen" not in content and b"Exif" not in content


def likeness(a: Image, b: Image) -> float:
    """Correlation of what is fine in two pictures."""
    fine = [cv2.Laplacian(image, cv2.CV_64F).ravel() for image in (a, b)]
    return float(np.asarray(np.corrcoef(fine))[0, 1])


@pytest.mark.skipif("FACES_DATA" not in os.environ, reason="FACES_DATA names no folder with boxed faces")
def test_no_real_face_leaves(clone: Path, platform: Platform) -> None:
    folder = Path(os.environ["FACES_DATA"])
    boxes = {name: entry["faces"] for name, entry in json.loads((folder / "faces.json").read_text()).items()}
    shutil.rmtree(clone / "camera")
    (clone / "camera").mkdir()
    for name in sorted(boxes)[:6]:
        shutil.copy(folder / "images" / name, clone / "camera")
    configure(clone, platform)
    looked_at = 0
    for one in fingers("push-hard", "camera", "--version", "v2"):
        sent, original = decode(received(platform)[one["name"]]), read_image(clone / one["path"])
        height, width = original.shape[:2]
        for x, y, w, h in boxes[Path(one["path"]).name]:  # the centre and the size, as fractions
            left, right = (x - w / 2) * width, (x + w / 2) * width
            top, bottom = (y - h / 2) * height, (y + h / 2) * height
            face = np.s_[max(round(top), 0) : round(bottom), max(round(left), 0) : round(right)]
            assert likeness(sent[face], original[face]) < 0.3
            looked_at += 1
    assert looked_at >= 6


def test_when_one_picture_cannot_be_blurred_none_is_sent(
    clone: Path, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("the network failed")

    at_look(6, fail, monkeypatch)  # 4 are looked at, then each once more to be sent
    with pytest.raises(RuntimeError, match="the network failed"):
        fingers("push-hard", "camera", "--version", "v2")
    assert_nothing_was_sent(platform)


def test_a_picture_that_changes_before_it_is_sent_stops_the_push(
    clone: Path, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_look(4, lambda: (clone / "camera/0.png").write_bytes(png(noise(999))), monkeypatch)
    with pytest.raises(StageError, match=r"camera/0\.png: has changed since it was looked at; nothing was sent"):
        fingers("push-hard", "camera", "--version", "v2")
    assert_nothing_was_sent(platform)


def at_look(number: int, event: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens while the face detector looks for that many-th time."""
    looks = count(1)

    class Interrupted(FixedFace):
        def __call__(self, image: Image) -> tuple[Boxes, Scores]:
            if next(looks) == number:
                event()
            return super().__call__(image)

    monkeypatch.setitem(faces.FINDERS, "haar", Interrupted)


def test_pictures_do_not_leave_where_no_faces_are_looked_for(clone: Path, platform: Platform) -> None:
    configure(clone, platform, **{"faces.detector": "none"})
    with pytest.raises(StageError, match=r"faces\.detector: none hides nothing"):
        fingers("push-hard", "camera", "--version", "v2")
    assert not platform.asked


def test_without_a_champion_nothing_is_offered(clone: Path, platform: Platform) -> None:
    with pytest.raises(StageError, match="other: no version 'champion'; there is none yet here: dvc repro"):
        fingers("push-hard", "camera", "--version", "v2", "--name", "other")
    assert_nothing_was_sent(platform)


def test_the_check_tells_what_the_token_opens(clone: Path, platform: Platform) -> None:
    assert fingers("check") == [
        {"user": "alice", "dataset": "hands", "version": "v1", "assets": 3, "labels": list(platform.labels)}
    ]
    shown = CliRunner().invoke(app, ["picsellia", "check"]).stdout
    assert "0, 1, 2, 3, 4, 5, unknown" in shown
    assert_nothing_secret(shown)


def assert_nothing_was_sent(platform: Platform) -> None:
    assert not platform.received
    assert {path.split()[0] for path in platform.asked} <= {"GET", "XGET"}


def assert_nothing_secret(text: str) -> None:
    assert TOKEN not in text
    assert "Signature" not in text and POLICY not in text

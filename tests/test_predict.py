"""Counting in pictures, folders, videos and before a camera, by the model here or by a server."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import pytest
from typer.testing import CliRunner

from ops import footage, predict
from ops.cli import app
from ops.counter import Counted, Counter, Here, chosen
from ops.footage import Frame, middle, smoothed
from serve.problems import Problem
from serve.schema import Answer, ModelRef, Size, Timing
from stages.files import write_json
from stages.params import StageError
from stages.registry import Registry
from stages.vision.images import Image, decode, read_header
from tests import systems
from tests.native import noise, png
from tests.released import model, registered, release
from tests.server import Server, free_port, write_repository


class Scripted:
    """Counts what it is told to, in this order; None: nothing, and why."""

    at_once = 1

    def __init__(self, *counts: int | None, version: str = "1") -> None:
        self._counts = iter(counts)
        self._ref = ModelRef(name="fingers", version=version, sha256="0" * 64)
        self.model = version, self._ref.sha256

    def picture(self, content: bytes, *, draw: bool = False) -> Counted:
        count = next(self._counts)
        if count is None:
            raise Problem(503, "unavailable", "in a moment")
        answer = Answer(
            finger_count=count,
            unknown_hands=0,
            predictions=[],
            faces_blurred=0,
            preprocessing_applied=True,
            image=Size(width=64, height=48),
            inference_time_ms=1,
            timing_ms=Timing(decode=1, faces=1, detect=1, total=3),
            model=self._ref,
        )
        return Counted(answer, b"jpeg" if draw else None)

    def frame(self, image: Image, *, draw: bool = False) -> Counted:
        return self.picture(b"", draw=draw)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def here(repository: Path) -> Iterator[Counter]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(repository))
        yield Here(chosen(None))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four pictures, one of them broken, one below."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name in ("a.png", "b.png", "more/c.png"):
        (folder / name).write_bytes(png(noise(len(name))))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    return folder


def fingers(*arguments: object, code: int = 0, **environment: str) -> str:
    done = CliRunner().invoke(app, ["predict", *map(str, arguments)], env=environment)
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    return done.stdout


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_video(path: Path, frames: int, rate: float = 10) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, (64, 48))
    for number in range(frames):
        writer.write(noise(number))
    writer.release()
    return path


def test_a_picture_is_counted_here_from_anywhere_in_the_repository(repository: Path, photos: Path) -> None:
    said = fingers(photos / "a.png", "--json", DVC_ROOT=str(repository))
    (result,) = json.loads(said)
    assert result["answer"]["finger_count"] == 3
    assert result["answer"]["preprocessing_applied"] is True
    assert result["answer"]["model"]["version"] == "release"


def test_a_version_comes_from_the_registry(local_store: Path, photos: Path, tmp_path: Path) -> None:
    registry = Registry("fingers")
    registry.set_alias("champion", registered(registry, model(tmp_path / "a.onnx", count=4)))
    arguments = photos / "a.png", "--model", "champion", "--json"
    (result,) = json.loads(fingers(*arguments, DVC_ROOT=str(local_store), DEFAULT_MODEL_NAME="fingers"))
    assert result["answer"]["finger_count"] == 4
    assert result["answer"]["model"]["version"] == "1"


def test_a_model_that_failed_its_gates_counts_and_says_so(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    onnx = model(tmp_path / "models/detector.onnx")
    failure = {"gate": "min_map50", "value": 0.1, "needed": 0.85, "text": "mAP50 0.1 is below 0.85"}
    released = release(onnx, None, gates={"passed": False, "failures": [failure]})
    write_json(onnx.with_name("release.json"), released.model_dump())
    fingers(photos / "a.png", DVC_ROOT=str(tmp_path))
    assert "mAP50 0.1 is below 0.85" in caplog.text


def test_here_and_a_server_answer_alike(here: Counter, server: Server, photos: Path) -> None:
    content = (photos / "a.png").read_bytes()
    mine = here.picture(content).answer
    (result,) = json.loads(fingers(photos / "a.png", "--url", server.url, "--json"))
    for field in ("finger_count", "predictions", "faces_blurred", "image", "model"):
        assert result["answer"][field] == mine.model_dump(mode="json")[field]


def test_a_folder_has_a_line_a_picture_and_one_that_fails_does_not_stop_the_rest(
    server: Server, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results.jsonl"
    fingers(photos, "--out", out, "--url", server.url, code=1)
    results = lines_of(out)
    assert [result["file"] for result in results] == ["a.png", "b.png", "broken.jpg", "more/c.png"]
    assert [result.get("error", {}).get("code") for result in results] == [None, None, "unreadable_image", None]


def test_with_a_version_named_a_server_s_results_are_kept_too(server: Server, photos: Path, tmp_path: Path) -> None:
    arguments = photos, "--out", tmp_path / "results.jsonl", "--url", server.url, "--model", "release"
    (photos / "broken.jpg").unlink()
    fingers(*arguments)
    first = (tmp_path / "results.jsonl").read_bytes()
    fingers(*arguments)
    assert (tmp_path / "results.jsonl").read_bytes() == first


def test_results_lie_under_the_folders_name_here(
    server: Server, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fingers("photos", "--url", server.url, code=1)
    assert len(lines_of(tmp_path / "photos.jsonl")) == 4


def test_what_is_done_is_not_done_again(photos: Path, tmp_path: Path) -> None:
    out, pictures = tmp_path / "results.jsonl", predict.pictures_in([photos])
    first = predict.count(pictures, Scripted(1, 2, 3, 4), out, None)
    assert predict.count(pictures, Scripted(), out, None) == first


def test_a_picture_that_failed_or_changed_is_done_again(photos: Path, tmp_path: Path) -> None:
    out, pictures = tmp_path / "results.jsonl", predict.pictures_in([photos])
    predict.count(pictures, Scripted(1, None, 3, 4), out, None)
    (photos / "more/c.png").write_bytes(png(noise(99)))
    predict.count(pictures, Scripted(5, 6), out, None)
    counts = {result["file"]: result["answer"]["finger_count"] for result in lines_of(out)}
    assert counts == {"a.png": 1, "b.png": 5, "broken.jpg": 3, "more/c.png": 6}
    assert len(lines_of(out)) == 4


def test_another_model_counts_all_again(photos: Path, tmp_path: Path) -> None:
    out, pictures = tmp_path / "results.jsonl", predict.pictures_in([photos])
    predict.count(pictures, Scripted(1, 1, 1, 1), out, None)
    predict.count(pictures, Scripted(2, 2, 2, 2, version="2"), out, None)
    assert [result["answer"]["finger_count"] for result in lines_of(out)] == [2, 2, 2, 2]


def test_lines_about_other_pictures_stay(photos: Path, tmp_path: Path) -> None:
    out, pictures = tmp_path / "results.jsonl", predict.pictures_in([photos])
    predict.count(pictures, Scripted(1, 1, 1, 1), out, None)
    (photos / "a.png").unlink()
    predict.count(predict.pictures_in([photos]), Scripted(), out, None)
    assert "a.png" in {result["file"] for result in lines_of(out)}


@pytest.mark.parametrize("cut", [1, 5, 40, 400])
def test_a_torn_last_line_is_repaired(photos: Path, tmp_path: Path, cut: int) -> None:
    out, pictures = tmp_path / "results.jsonl", predict.pictures_in([photos])
    predict.count(pictures, Scripted(1, 2, 3, 4), out, None)
    whole = out.read_bytes()
    *before, last = whole.splitlines(keepends=True)
    out.write_bytes(b"".join(before) + last[:cut])
    predict.count(pictures, Scripted(4), out, None)
    assert out.read_bytes() == whole


@pytest.mark.parametrize("content", ["notes", "notes\n", '{"file": 1}\n', '{"frame":1,"seconds":0}\n', '["a"]'])
def test_a_file_of_something_else_is_not_touched(photos: Path, tmp_path: Path, content: str) -> None:
    out = tmp_path / "notes.txt"
    out.write_text(content)
    with pytest.raises(StageError, match="give another --out"):
        predict.count(predict.pictures_in([photos]), Scripted(), out, None)
    assert out.read_text() == content


def test_a_server_that_leaves_ends_it_and_what_is_done_stays(photos: Path, tmp_path: Path) -> None:
    class Leaving(Scripted):
        def picture(self, content: bytes, *, draw: bool = False) -> Counted:
            try:
                return super().picture(content)
            except StopIteration:  # the script is at its end
                raise Problem(0, "unreachable", "connection refused") from None

    out, pictures = tmp_path / "results.jsonl", predict.pictures_in([photos])
    with pytest.raises(StageError, match="refused"):
        predict.count(pictures, Leaving(1, 2), out, None)
    assert len(lines_of(out)) == 2
    predict.count(pictures, Scripted(3, 4), out, None)
    assert [result["answer"]["finger_count"] for result in lines_of(out)] == [1, 2, 3, 4]


@systems.processes
def test_killed_at_any_moment_it_goes_on(repository: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "results.jsonl"
    folder.mkdir()
    for number in range(24):
        (folder / f"{number:02}.png").write_bytes(png(noise(number, 320, 240)))
    command = [str(Path(sys.executable).with_name("fingers")), "predict", str(folder), "--out", str(out)]
    process = subprocess.Popen(command, cwd=repository, stderr=subprocess.PIPE, start_new_session=True)
    while process.poll() is None and not (out.exists() and out.read_bytes().count(b"\n") > 2):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said.decode()
    had = out.read_bytes().count(b"\n")
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    assert f"has {had} of 24" in done.stderr
    assert sorted(result["file"] for result in lines_of(out)) == sorted(path.name for path in folder.iterdir())


def test_what_is_saved_has_boxes(here: Counter, photos: Path, tmp_path: Path) -> None:
    save = tmp_path / "boxed"
    predict.count(predict.pictures_in([photos], save), here, None, save)
    files = sorted(path.relative_to(save).as_posix() for path in save.rglob("*") if path.is_file())
    assert files == ["a.png.jpg", "b.png.jpg", "more/c.png.jpg"]
    content = (save / "a.png.jpg").read_bytes()
    original = decode((photos / "a.png").read_bytes())
    assert cv2.absdiff(decode(content), original).max() > 60, "no box was drawn"
    assert read_header(content).extension == ".jpg"


@pytest.mark.skipif("FACES_DATA" not in os.environ, reason="FACES_DATA names no folder with boxed faces")
def test_what_is_saved_shows_no_face(here: Counter, tmp_path: Path) -> None:
    folder = Path(os.environ["FACES_DATA"])
    truth = json.loads((folder / "faces.json").read_text())
    names = sorted(truth)[:5]
    predict.count({name: folder / "images" / name for name in names}, here, None, tmp_path)
    for name in names:
        before, after = decode((folder / "images" / name).read_bytes()), decode((tmp_path / name).read_bytes())
        height, width = before.shape[:2]
        x, y, w, h = max(truth[name]["faces"], key=lambda face: float(face[2] * face[3]))
        rows = slice(round((y - h / 2) * height), round((y + h / 2) * height))
        columns = slice(round((x - w / 2) * width), round((x + w / 2) * width))
        eyes, hidden = (cv2.GaussianBlur(image[rows, columns], (0, 0), w * width / 40) for image in (before, after))
        assert cv2.absdiff(eyes, hidden).mean() > 4, f"{name}: the face looks as it did"


def test_a_copy_that_is_missing_is_made(here: Counter, photos: Path, tmp_path: Path) -> None:
    out, save, pictures = tmp_path / "results.jsonl", tmp_path / "boxed", predict.pictures_in([photos])
    predict.count(pictures, here, out, None)
    predict.count(pictures, here, out, save)
    assert len(list(save.rglob("*.jpg"))) == 3
    assert len(lines_of(out)) == 4


def test_a_picture_is_never_written_over(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StageError, match="elsewhere"):
        predict.pictures_in([photos], photos / "boxed")
    monkeypatch.chdir(photos)
    with pytest.raises(StageError, match=r"broken\.jpg would be written over"):
        predict.pictures_in([Path("broken.jpg")], Path())
    (photos / "a.png.jpg").write_bytes(b"")
    with pytest.raises(StageError, match=r"a\.png\.jpg would be written over"):
        predict.pictures_in([Path("a.png"), Path("a.png.jpg")], Path("boxed"))


def test_a_server_that_hides_no_faces_saves_nothing(photos: Path, tmp_path: Path) -> None:
    from ops.counter import There
    from serve.client import FingerClient

    class Open(FingerClient):
        def count(self, *_: object, **__: object) -> Answer:
            return Scripted(1).picture(b"").answer.model_copy(update={"preprocessing_applied": False})

        def health(self) -> Any:
            return type("Health", (), {"model": ModelRef(name="fingers", version="1", sha256="")})

    with pytest.raises(StageError, match="does not hide faces"):
        There(Open("http://127.0.0.1:1"), None).picture(b"", draw=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.jpg"], "nothing.jpg: not found"),
        (["clip.mp4", "a.png"], "clip.mp4: a video; give it alone"),
        (["empty"], "no pictures"),
        (["a.png", "--key-file", "nothing", "--url", "http://127.0.0.1:1"], "nothing cannot be read"),
        (["a.png", "--model", "7", "--url", "SERVER"], "no version '7' loaded; loaded: release"),
        (["a.png", "--url", "http://127.0.0.1:PORT"], "unreachable"),
        (["clip.mp4", "--url", "SERVER"], "not a video"),
        (["camera:999", "--url", "SERVER"], "camera:999: cannot be opened"),
    ],
)
def test_what_a_person_can_mend_is_one_line(
    server: Server, photos: Path, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], said: str
) -> None:
    (photos / "empty").mkdir()
    (photos / "clip.mp4").write_bytes(b"")
    monkeypatch.chdir(photos)
    given = [one.replace("SERVER", server.url).replace("PORT", str(free_port())) for one in arguments]
    done = CliRunner().invoke(app, ["predict", *given])
    assert isinstance(done.exception, StageError)
    assert said in str(done.exception)


def test_a_key_comes_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ops.counter import api_key

    (tmp_path / "key").write_text("from-a-file\n")
    monkeypatch.setenv("API_KEY", "from-the-environment")
    assert api_key(tmp_path / "key") == "from-a-file"
    assert api_key(None) == "from-the-environment"


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([], []),
        ([3], [3]),
        ([3, 3, 5, 3, 3], [3, 3, 3, 3, 3]),  # a wrong frame does not show
        ([1, 1, 1, 4, 4, 4], [1, 1, 1, 4, 4, 4]),  # a change stays where it was
        ([2, None, 2, None], [2, 2, 2, 2]),  # what has no answer is told by its neighbours
        ([None, None], [None, None]),
    ],
)
def test_counts_are_smoothed_by_the_median(counts: list[int | None], expected: list[int | None]) -> None:
    """Ten frames a second: two to either side."""
    assert smoothed([number / 10 for number in range(len(counts))], counts) == expected


def test_of_two_in_the_middle_one_that_was_seen_is_taken() -> None:
    assert middle([2, 5]) == 2


def test_a_video_has_a_line_a_frame(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.mp4", frames=9)
    (row,) = json.loads(fingers("clip.mp4", "--url", server.url, "--every", 4, "--json"))[:1]
    results = lines_of(tmp_path / "clip.mp4.jsonl")
    assert [(one["frame"], one["seconds"]) for one in results] == [(0, 0.0), (4, 0.4), (8, 0.8)]
    assert [(one["finger_count"], one["smoothed_count"]) for one in results] == [(3, 3)] * 3
    assert row == results[0]


def test_a_video_in_short_is_its_stretches(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mp4", frames=8)
    results = footage.count(video, Scripted(1, 1, 1, 1, 2, 2, 2, None), tmp_path / "out.jsonl", tmp_path / "frames")
    assert footage.stretches(results) == [
        {"from s": 0.0, "to s": 0.3, "fingers": 1, "frames": 4},
        {"from s": 0.4, "to s": 0.7, "fingers": 2, "frames": 4},
    ]
    assert len(list((tmp_path / "frames").iterdir())) == 7, "of the frame without an answer there is no picture"


def test_a_camera_tells_each_new_count(capsys: pytest.CaptureFixture[str]) -> None:
    frames = (Frame(number, number / 10, noise(number)) for number in range(8))
    footage.tell(frames, Scripted(1, 1, 5, 1, 2, 2, 2, 2))
    assert [line.partition(";")[0] for line in capsys.readouterr().out.splitlines()] == [
        "0.0 s: 1 fingers",
        "0.6 s: 2 fingers",
    ]

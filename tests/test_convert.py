"""What convert keeps, drops, refuses, and writes down."""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from stages.convert import Excluded, convert, usable_boxes
from stages.files import write_json
from stages.params import Params, StageError
from stages.vision import faces
from stages.vision.annotations import Rectangle
from stages.vision.boxes import Boxes
from stages.vision.faces import regions
from stages.vision.images import Image, decode, read_image
from tests.native import ROOT, Item, accepted, noise, one_of_each_class, params, png, rectangle, write_raw

PENDING = {"status": "PENDING", "rectangles": [rectangle("1")]}
REFUSED = {"status": "REFUSED", "rectangles": [rectangle("1")]}


def drawn(**changes: object) -> Params:
    """No face is looked for in pictures that show none: compiling the network takes longer than all the rest."""
    return params(**{"faces.detector": "none", **changes})


def converted(tmp_path: Path, items: dict[str, Item], **changes: object) -> dict[str, Any]:
    """The ledger after converting one picture of each class, and items."""
    raw = write_raw(tmp_path / "raw", one_of_each_class() | items)
    convert(drawn(**{"convert.max_excluded": 0.9, **changes}), raw, tmp_path / "yolo")
    ledger: dict[str, Any] = json.loads((tmp_path / "yolo/ledger.json").read_text())
    return ledger


def labels(tmp_path: Path, asset_id: str) -> str:
    return (tmp_path / f"yolo/labels/{asset_id}.txt").read_text()


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (Item([]), "not annotated"),
        (Item([PENDING]), "annotation pending"),
        (Item([REFUSED, PENDING]), "annotation refused"),
        (Item([accepted(polygons=[{}, {}])]), "no rectangles: 2 polygons"),
        (Item([accepted(rectangle("1"))], content=b""), "unreadable: zero bytes"),
        (Item([accepted(rectangle("1"))], content=b"hello"), "unreadable: not a JPEG, PNG, WEBP or BMP picture"),
        (Item([accepted(rectangle("1"))], content=png(noise(1))[:-40]), "unreadable: truncated"),
        (Item([accepted(rectangle("1"))], size=(48, 64)), "size differs: 64x48 decoded, 48x64 annotated"),
        (Item([accepted(rectangle("1", x=63, w=20))]), "all boxes dropped"),
        (Item([accepted(rectangle("1"), rectangle("2"))]), "labels conflict: 1 and 2 on one hand"),
    ],
)
def test_an_asset_that_cannot_be_used_is_excluded_with_its_reason(tmp_path: Path, item: Item, reason: str) -> None:
    entry = converted(tmp_path, {"it": item})["assets"]["it"]
    assert (entry["outcome"], entry["reason"], entry["file"]) == ("excluded", reason, None)
    assert not (tmp_path / "yolo/labels/it.txt").exists()


def test_a_pixel_bomb_is_excluded_before_it_is_decoded(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    PillowImage.new("1", (30_000, 30_000)).save(bomb)
    reason = converted(tmp_path, {"it": Item([accepted()], content=bomb.read_bytes())})["assets"]["it"]["reason"]
    assert reason == "unreadable: 30000x30000 is more than 50,000,000 pixels"


def test_an_accepted_annotation_without_boxes_is_background(tmp_path: Path) -> None:
    ledger = converted(tmp_path, {"it": Item([accepted()])})
    assert ledger["assets"]["it"]["outcome"] == "kept"
    assert ledger["summary"]["background"] == 1
    assert labels(tmp_path, "it") == ""


def test_the_newest_accepted_annotation_counts_and_older_boxes_stay_away(tmp_path: Path) -> None:
    converted(tmp_path, {"it": Item([PENDING, accepted(rectangle("5")), accepted(rectangle("1"), rectangle("2"))])})
    assert labels(tmp_path, "it") == "5 0.281250 0.375000 0.312500 0.416667\n"


@pytest.mark.parametrize(
    ("label", "class_id"), [("3", 3), ("3-hand", 3), ("1_doigt", 1), (" Finger-1 ", 1), ({"name": "five"}, 5)]
)
def test_what_annotators_write_is_mapped_to_its_class(tmp_path: Path, label: Any, class_id: int) -> None:
    converted(tmp_path, {"it": Item([accepted(rectangle(label))])})
    assert labels(tmp_path, "it").startswith(f"{class_id} ")


def test_a_label_that_nobody_declared_names_asset_label_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"asset it: label 'sixx' \(1 boxes\) is none of 0 1 2 3 4 5 unknown; name it"):
        converted(tmp_path, {"it": Item([accepted(rectangle("sixx"))])})
    assert not (tmp_path / "yolo").exists()


def test_corners_are_clipped_so_that_the_visible_part_stays_where_it_is(tmp_path: Path) -> None:
    converted(tmp_path, {"it": Item([accepted(rectangle("2", x=-8, y=0, w=24, h=24))])})
    assert labels(tmp_path, "it") == "2 0.125000 0.250000 0.250000 0.500000\n"


def test_dropped_boxes_are_counted_by_reason(tmp_path: Path) -> None:
    boxes = [rectangle("1"), rectangle("1", w=20.5), rectangle("2", x=62, w=20), rectangle("3", x=40, w=3)]
    ledger = converted(tmp_path, {"it": Item([accepted(*boxes)])})
    reasons = [box["reason"] for box in ledger["assets"]["it"]["dropped_boxes"]]
    assert reasons == ["drawn twice", "outside the picture", "too small"]
    assert ledger["summary"]["dropped_boxes"] == {"drawn twice": 1, "outside the picture": 1, "too small": 1}


def test_a_picture_on_its_side_is_turned_upright_and_annotated_as_displayed(tmp_path: Path) -> None:
    path = tmp_path / "side.jpg"
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    PillowImage.fromarray(noise(1)).save(path, exif=exif)
    ledger = converted(tmp_path, {"it": Item([accepted(rectangle("1"))], content=path.read_bytes(), size=(48, 64))})
    entry = ledger["assets"]["it"]
    written = (tmp_path / "yolo" / entry["file"]).read_bytes()
    assert (entry["width"], entry["height"]) == (48, 64)
    pixels = cv2.imdecode(np.frombuffer(written, np.uint8), cv2.IMREAD_IGNORE_ORIENTATION)
    assert pixels is not None
    assert pixels.shape[:2] == (64, 48)


@pytest.fixture
def one_face(monkeypatch: pytest.MonkeyPatch) -> Boxes:
    """In every picture a face is found there: (1, 4) px."""
    box = np.array([[20, 10, 44, 40]], np.float32)
    monkeypatch.setitem(faces.FINDERS, "haar", lambda *settings: lambda image: (box, np.ones(1, np.float32)))
    return box


def test_faces_are_hidden_in_what_is_written_and_counted(tmp_path: Path, one_face: Boxes) -> None:
    ledger = converted(tmp_path, {"refused": Item([REFUSED])}, **{"faces.detector": "haar", "faces.method": "solid"})
    assert ledger["summary"]["faces"] == 7
    expected = dict.fromkeys(one_of_each_class(), 1) | {"refused": 0}
    assert {asset_id: entry["faces"] for asset_id, entry in ledger["assets"].items()} == expected
    ((left, top, right, bottom),) = regions(one_face, params().faces.margin, 64, 48)
    for path in (tmp_path / "yolo/images").iterdir():
        hidden = np.zeros((48, 64), bool)
        hidden[top:bottom, left:right] = True
        written, original = read_image(path), noise(int(path.stem.removeprefix("class-").replace("unknown", "6")))
        assert not written[hidden].any()
        assert (written[~hidden] == original[~hidden]).all()


def test_a_face_detector_that_fails_leaves_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(image: Image) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setitem(faces.FINDERS, "haar", lambda *settings: broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        converted(tmp_path, {}, **{"faces.detector": "haar"})
    assert os.listdir(tmp_path) == ["raw"]


@pytest.mark.parametrize(("kind", "extension"), [("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".png"), ("BMP", ".png")])
def test_nothing_but_pixels_is_written(tmp_path: Path, kind: str, extension: str) -> None:
    """Metadata, thumbnails in it, and what follows the picture's end can show the face that the pixels hide."""
    secret = b"a face in a thumbnail"
    exif = PillowImage.Exif()
    exif[0x010E] = secret.decode()
    with io.BytesIO() as file:
        PillowImage.fromarray(noise(9)).save(file, kind, exif=exif, lossless=True)
        content = file.getvalue() + secret
    assert content.count(secret) == (1 if kind == "BMP" else 2)
    entry = converted(tmp_path, {"it": Item([accepted(rectangle("1"))], content=content)})["assets"]["it"]
    written = (tmp_path / "yolo" / entry["file"]).read_bytes()
    assert secret not in written
    assert entry["file"] == f"images/it{extension}"
    assert entry["sha256"] == hashlib.sha256(written).hexdigest()
    apart = np.abs(decode(written).astype(int) - decode(content).astype(int)).mean()
    assert apart < (5 if kind == "JPEG" else 1e-9)


def test_a_class_left_without_a_box_fails_the_stage_and_names_what_was_excluded(tmp_path: Path) -> None:
    items = one_of_each_class()
    items["class-4"] = Item([REFUSED])
    raw = write_raw(tmp_path / "raw", items)
    with pytest.raises(StageError, match=r"no box left of class 4; .*class-4: annotation refused"):
        convert(drawn(**{"convert.max_excluded": 0.9}), raw, tmp_path / "yolo")
    convert(drawn(**{"convert.max_excluded": 0.9, "convert.may_be_absent": [4]}), raw, tmp_path / "yolo")


def test_too_many_exclusions_fail_the_stage_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"1 of 8 assets excluded, more than convert.max_excluded 0.1 .*it: not ann"):
        converted(tmp_path, {"it": Item([])}, **{"convert.max_excluded": 0.1})
    assert os.listdir(tmp_path) == ["raw"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("annotations.json", "{", r"annotations.json: not JSON: .*line 1"),
        ("annotations.json", "[]", r"annotations.json: the document: \[\]: input should be a valid dictionary"),
        ("annotations.json", '{"class-1": [{"rectangles": [{"x": "a"}]}]}', r"class-1.0.rectangles.0.x: 'a'"),
        (
            "annotations.json",
            '{"ghost": []}',
            r"asset ids that assets.json does not have, the first 'ghost'; pull again",
        ),
        ("assets.json", '[{"id": "../evil"}]', r"assets.json: 0.id: '../evil'"),
    ],
)
def test_files_of_another_shape_name_file_field_and_value(
    tmp_path: Path, file: str, content: str, message: str
) -> None:
    raw = write_raw(tmp_path / "raw", one_of_each_class())
    (raw / file).write_text(content)
    with pytest.raises(StageError, match=message) as error:
        convert(drawn(), raw, tmp_path / "yolo")
    assert "\n" not in str(error.value)


def test_pictures_and_assets_must_name_the_same_files(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", one_of_each_class())
    (raw / "images/class-1.png").rename(raw / "images/stray.png")
    with pytest.raises(StageError, match=r"1 pictures are not in images/, first class-1.png; pull again"):
        convert(drawn(), raw, tmp_path / "yolo")
    (raw / "images/class-1.png").write_bytes(b"")
    with pytest.raises(StageError, match=r"1 files not in assets.json, first stray.png"):
        convert(drawn(), raw, tmp_path / "yolo")


def test_two_assets_with_one_id_are_refused(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", one_of_each_class())
    assets = json.loads((raw / "assets.json").read_text())
    write_json(raw / "assets.json", [*assets, assets[0]])
    with pytest.raises(StageError, match=r"id 'class-0' stands twice"):
        convert(drawn(), raw, tmp_path / "yolo")


ANNOTATIONS = st.lists(
    st.builds(
        lambda status, boxes: {"status": status, "rectangles": boxes},
        st.sampled_from(["ACCEPTED", "PENDING", "REFUSED"]),
        st.lists(
            st.builds(
                rectangle,
                st.sampled_from(["0", "3-hand", "unknown"]),
                *[st.floats(-70, 130, width=32)] * 4,
            ),
            max_size=4,
        ),
    ),
    max_size=3,
)


@settings(max_examples=25, deadline=None)  # each writes and reads files
@given(st.lists(ANNOTATIONS, max_size=6))
def test_every_asset_ends_in_exactly_one_place(
    tmp_path_factory: pytest.TempPathFactory, annotations: list[Any]
) -> None:
    tmp_path = tmp_path_factory.mktemp("conserved")
    items = {f"it-{i}": Item(a) for i, a in enumerate(annotations)}
    ledger = converted(tmp_path, items)
    pictures = {Path(name).stem for name in os.listdir(tmp_path / "yolo/images")}
    texts = {Path(name).stem for name in os.listdir(tmp_path / "yolo/labels")}
    excluded = {i for i, entry in ledger["assets"].items() if entry["reason"]}
    assert pictures == texts
    assert pictures | excluded == ledger["assets"].keys() == one_of_each_class().keys() | items.keys()
    assert not pictures & excluded
    lines = sum(len(labels(tmp_path, i).splitlines()) for i in texts)
    assert lines == sum(ledger["summary"]["boxes"].values())
    for i in pictures & items.keys():
        newest = next(a for a in items[i].annotations if a["status"] == "ACCEPTED")
        entry = ledger["assets"][i]
        assert sum(entry["boxes"].values()) + len(entry["dropped_boxes"]) == len(newest["rectangles"])


@given(st.lists(st.tuples(*[st.floats(-200, 300, width=32)] * 4), max_size=5))
def test_kept_boxes_lie_inside_the_picture(corners: list[tuple[float, float, float, float]]) -> None:
    drawn = [Rectangle(x=x, y=y, w=w, h=h, label="1") for x, y, w, h in corners]
    try:
        names, boxes, dropped = usable_boxes(drawn, params().convert, 64, 48)
    except Excluded as reason:
        assert re.match(r"all boxes dropped|labels conflict", str(reason))
        return
    assert len(names) == len(boxes) == len(drawn) - len(dropped)
    assert (boxes >= 0).all()
    assert (boxes <= [64, 48, 64, 48]).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= params().convert.min_box_px).all()


def test_the_same_raw_gives_the_same_bytes(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", one_of_each_class())
    for name in ("a", "b"):
        convert(drawn(), raw, tmp_path / name)
    files = [sorted((p.relative_to(tmp_path / n), p.read_bytes()) for p in (tmp_path / n).rglob("*.*")) for n in "ab"]
    assert files[0] == files[1]


def test_published_pictures_decode_to_what_was_annotated(tmp_path: Path) -> None:
    converted(tmp_path, {})
    assert (decode((tmp_path / "yolo/images/class-2.png").read_bytes()) == noise(2)).all()


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root on Linux")
    try:
        big = {f"it-{n}": Item([accepted()], content=png(noise(n, 640, 480))) for n in range(3)}
        raw = write_raw(tmp_path / "raw", one_of_each_class() | big)
        command = [sys.executable, "-m", "stages.convert", str(raw), str(small / "yolo")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stderr
        said = f"convert: error: {raw} {small}/yolo: disk full; nothing was left half-written: "
        assert done.stderr.splitlines()[1:] == [said + "free some space and run it again"]
        assert os.listdir(small) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)

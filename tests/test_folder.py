"""Directories and zips of four formats -> assets."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.params import FolderParams, StageError
from stages.pull import pull
from stages.sources import SourceAsset, folder, tree
from stages.sources.layout import place_of, split_of
from tests.native import noise, params, png

Box = tuple[str, int, int, int, int]  # label, x, y, w, h
Pictures = Mapping[str, Sequence[Box] | None]  # path: boxes; None: not annotated
Writer = Callable[[Path, Pictures], None]
Pack = Callable[[zipfile.ZipFile], None]
SIZE = (64, 48)
CLASSES = ["0-hand", "5-hand", "unknown"]
PNG = png(noise(1, *SIZE))
HAND: Box = ("5-hand", 8, 4, 20, 30)
ONE: Pictures = {"a.png": [HAND]}


def write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def voc_xml(boxes: Sequence[Box], file_name: str = "?") -> str:
    objects = "".join(
        f"<object><name>{label}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
        "</bndbox></object>"
        for label, x, y, w, h in boxes
    )
    size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{file_name}</filename>{size}{objects}</annotation>"


def yolo_txt(boxes: Sequence[Box]) -> str:
    w_, h_ = SIZE
    lines = [
        f"{CLASSES.index(label)} {(x + w / 2) / w_:.6f} {(y + h / 2) / h_:.6f} {w / w_:.6f} {h / h_:.6f}"
        for label, x, y, w, h in boxes
    ]
    return "\n".join(lines)


def coco_json(pictures: Pictures) -> str:
    listed = [(path, boxes) for path, boxes in pictures.items() if boxes is not None]
    document = {
        "images": [
            {"id": number, "file_name": path, "width": SIZE[0], "height": SIZE[1]}
            for number, (path, _) in enumerate(listed)
        ],
        "annotations": [
            {"id": 0, "image_id": number, "category_id": CLASSES.index(label), "bbox": [x, y, w, h], "iscrowd": 0}
            for number, (_, boxes) in enumerate(listed)
            for label, x, y, w, h in boxes or ()
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES)],
    }
    return json.dumps(document)


def write_voc(root: Path, pictures: Pictures) -> None:
    for path, boxes in pictures.items():
        write(root / "JPEGImages" / path, PNG)
        if boxes is not None:
            write((root / "Annotations" / path).with_suffix(".xml"), voc_xml(boxes, PurePosixPath(path).name))


def write_yolo(root: Path, pictures: Pictures) -> None:
    write(root / "data.yaml", json.dumps({"names": CLASSES, "nc": len(CLASSES)}))
    for path, boxes in pictures.items():
        write(root / "images" / path, PNG)
        if boxes is not None:
            write((root / "labels" / path).with_suffix(".txt"), yolo_txt(boxes))


def write_coco(root: Path, pictures: Pictures) -> None:
    write(root / "annotations" / "instances.json", coco_json(pictures))
    for path in pictures:
        write(root / "images" / path, PNG)


WRITERS: dict[str, Writer] = {"voc": write_voc, "yolo": write_yolo, "coco": write_coco}


def read(*paths: Path) -> list[SourceAsset]:
    return list(folder.read(FolderParams(paths=[str(path) for path in paths])).assets)


def zipped(root: Path) -> Path:
    return Path(shutil.make_archive(str(root), "zip", root))


def boxes_of(asset: SourceAsset) -> list[tuple[str, float, float, float, float]] | None:
    if not asset.annotations:
        return None
    (annotation,) = asset.annotations
    assert annotation.status == "ACCEPTED"
    return [(box.label, box.x, box.y, box.w, box.h) for box in annotation.rectangles]


def box() -> st.SearchStrategy[Box]:
    corner = st.tuples(st.sampled_from(CLASSES), st.integers(0, 40), st.integers(0, 30))
    return st.builds(lambda start, w, h: (*start, w, h), corner, st.integers(1, 24), st.integers(1, 18))


some_pictures = st.dictionaries(
    st.builds(
        lambda folders, stem, ending: "/".join([*folders, stem + ending]),
        st.lists(st.sampled_from(["train", "b", "c d", "été"]), max_size=2),
        st.sampled_from(["a", "a.b", "2_pic00001", "é"]),
        st.sampled_from([".png", ".JPG"]),
    ),
    st.none() | st.lists(box(), max_size=3),
    min_size=1,
    max_size=5,
).filter(lambda pictures: len({place_of(path) for path in pictures}) == len(pictures))


@settings(deadline=None, max_examples=25)
@given(some_pictures, st.booleans())
def test_the_same_pictures_come_out_of_every_format(pictures: Pictures, as_zip: bool) -> None:
    if not any(boxes is not None for boxes in pictures.values()):
        pictures = {**pictures, "annotated.png": []}
    for name, writer in WRITERS.items():
        with TemporaryDirectory() as place:
            root = Path(place) / name
            writer(root, pictures)
            found = {
                PurePosixPath(a.key).relative_to(a.key.split("/")[0]).as_posix(): a
                for a in read(zipped(root) if as_zip else root)
            }
        assert found.keys() == pictures.keys()
        for path, asset in found.items():
            assert asset.content == PNG
            assert asset.file_name == PurePosixPath(path).name
            assert asset.tags == (("split:train",) if "train" in path.split("/")[:-1] else ())
            expected, boxes = pictures[path], boxes_of(asset)
            assert (boxes is None) == (expected is None)
            assert [one[0] for one in boxes or ()] == [one[0] for one in expected or ()]
            for one, other in zip(boxes or (), expected or (), strict=True):
                assert one[1:] == pytest.approx(other[1:], abs=1)


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_what_pull_wrote_is_read_back_as_it_is(writer: Writer, tmp_path: Path) -> None:
    def pulled(source: Path, raw: Path) -> Path:
        pull(params(**{"pull.sources": ["folder"], "pull.folder.paths": [str(source)]}), raw)
        return raw

    writer(tmp_path / "first", {**ONE, "b/a.png": [], "c.png": None})
    raw = pulled(tmp_path / "first", tmp_path / "raw")
    again = {asset.key: asset for asset in read(raw)}
    assert again.keys() == {path.stem for path in (raw / "images").iterdir()}
    annotations = json.loads((raw / "annotations.json").read_text())
    assert {
        key: [each.model_dump(exclude_unset=True) for each in a.annotations] for key, a in again.items()
    } == annotations
    assert [asset.content for asset in read(zipped(raw))] == [asset.content for asset in again.values()]


def test_a_queued_experiments_copy_finds_what_git_did_not_carry_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_voc(tmp_path / "data/sources/hands", ONE)
    copy = tmp_path / ".dvc/tmp/exps/x1"
    write(copy / "data/sources/README.md", "what git tracks")
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert [asset.origin for asset in read(Path("data/sources"))] == ["folder:hands"]


def test_a_picture_nobody_annotated_differs_from_one_that_is_empty(tmp_path: Path) -> None:
    for name, writer in WRITERS.items():
        writer(tmp_path / name, {**ONE, "empty.png": [], "forgotten.png": None})
        by_name = {asset.file_name: boxes_of(asset) for asset in read(tmp_path / name)}
        assert (by_name["empty.png"], by_name["forgotten.png"]) == ([], None)


def test_voc_and_coco_state_the_size_and_yolo_does_not(tmp_path: Path) -> None:
    for name, writer in WRITERS.items():
        writer(tmp_path / name, ONE)
    sizes = {name: [(asset.width, asset.height) for asset in read(tmp_path / name)] for name in WRITERS}
    assert sizes == {"voc": [SIZE], "coco": [SIZE], "yolo": [(None, None)]}


def test_pictures_that_differ_only_in_their_ending_are_two(tmp_path: Path) -> None:
    for ending in (".jpg", ".png"):
        write(tmp_path / "images" / f"a{ending}", PNG)
        write(tmp_path / "annotations" / f"a{ending}.xml", voc_xml([], f"a{ending}"))
    assert [asset.file_name for asset in read(tmp_path)] == ["a.jpg", "a.png"]
    (tmp_path / "annotations" / "a.png.xml").unlink()
    assert [boxes_of(asset) for asset in read(tmp_path)] == [[], None]


def test_voc_falls_back_to_the_stated_file_name(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.png", PNG)
    write(tmp_path / "annotations" / "0001.xml", voc_xml([("unknown", 1, 2, 3, 4)], "C:/somewhere/a.png"))
    assert [boxes_of(asset) for asset in read(tmp_path)] == [[("unknown", 1, 2, 3, 4)]]


def test_voc_segmentation_masks_are_no_pictures(tmp_path: Path) -> None:
    write_voc(tmp_path / "VOC2007", ONE)
    write(tmp_path / "VOC2007" / "SegmentationClass" / "a.png", PNG)
    assert [asset.key for asset in read(tmp_path)] == ["JPEGImages/a.png"]


def test_roboflow_splits_become_tags(tmp_path: Path) -> None:
    write(tmp_path / "yolo" / "data.yaml", "train: ../train/images\nnames: {0: '0', 1: '1'}\n")
    for name in ("train", "valid", "test"):
        write(tmp_path / "yolo" / name / "images" / f"{name}_jpg.rf.0f.jpg", PNG)
        write(tmp_path / "yolo" / name / "labels" / f"{name}_jpg.rf.0f.txt", "1 .5 .5 .5 .5\n")
        write(tmp_path / "coco" / name / f"{name}.png", PNG)
        write(tmp_path / "coco" / name / "_annotations.coco.json", coco_json({f"{name}.png": []}))
    write(tmp_path / "yolo" / "README.roboflow.txt", "about")
    for root in ("yolo", "coco"):
        assert sorted(asset.tags for asset in read(tmp_path / root)) == [
            ("split:test",),
            ("split:train",),
            ("split:val",),
        ]


@pytest.mark.parametrize("names", ["names: [a, b]", "names: {1: b, 0: a}", "classes.txt", "labels/classes.txt"])
def test_yolo_classes_have_names(tmp_path: Path, names: str) -> None:
    if names.startswith("names"):
        write(tmp_path / "data.yaml", names)
    else:
        write(tmp_path / names, "a\r\nb\r\n")
    write(tmp_path / "images" / "x.png", PNG)
    write(tmp_path / "labels" / "x.txt", "1 .5 .5 .5 .5\n")
    assert [boxes_of(asset) for asset in read(tmp_path)] == [[("b", 16, 12, 32, 24)]]


def test_yolo_labels_may_lie_beside_the_pictures(tmp_path: Path) -> None:
    write(tmp_path / "classes.txt", "a")
    write(tmp_path / "x.png", PNG)
    write(tmp_path / "x.txt", "0 .5 .5 .5 .5")
    assert [boxes_of(asset) for asset in read(tmp_path)] == [[("a", 16, 12, 32, 24)]]


def test_a_yolo_label_called_like_a_list_is_a_label_when_its_picture_is_there(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"test.png": [("0-hand", 1, 1, 8, 8)]})
    assert [len(boxes_of(asset) or ()) for asset in read(tmp_path)] == [1]


def test_outlines_become_boxes_and_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_yolo(tmp_path / "yolo", {"a.png": []})
    write(tmp_path / "yolo" / "labels" / "a.txt", "1 0.25 0.25 0.75 0.25 0.5 0.75")
    document = json.loads(coco_json(ONE))
    document["annotations"][0] |= {"bbox": None, "segmentation": [[16, 12, 48, 12, 32, 36]]}
    write_coco(tmp_path / "coco", ONE)
    write(tmp_path / "coco" / "annotations" / "instances.json", json.dumps(document))
    with caplog.at_level("INFO", "stages"):
        assert [boxes_of(asset) for asset in read(tmp_path)] == [[("5-hand", 16, 12, 32, 24)]] * 2
    assert [message.split(": ")[1] for message in caplog.messages] == ["1 outlines became the boxes around them"] * 2


def test_coco_crowds_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    document = json.loads(coco_json(ONE))
    document["annotations"][0]["iscrowd"] = 1
    write_coco(tmp_path, ONE)
    write(tmp_path / "annotations" / "instances.json", json.dumps(document))
    with caplog.at_level("INFO", "stages"):
        assert [boxes_of(asset) for asset in read(tmp_path)] == [[]]
    assert "1 crowds were left out" in caplog.text


def test_coco_files_of_several_splits_find_their_own_pictures(tmp_path: Path) -> None:
    for name, boxes in (("train2017", [("0-hand", 1, 2, 3, 4)]), ("val2017", [])):
        write(tmp_path / name / "a.png", PNG)
        write(tmp_path / "annotations" / f"instances_{name}.json", coco_json({"a.png": boxes}))
    assert [(asset.key, boxes_of(asset)) for asset in read(tmp_path)] == [
        ("train2017/a.png", [("0-hand", 1, 2, 3, 4)]),
        ("val2017/a.png", []),
    ]


@pytest.mark.parametrize("file_name", ["a.png", "./a.png", "images/a.png", "images\\a.png", "../images/a.png"])
def test_coco_names_a_picture_by_any_path_to_it(file_name: str, tmp_path: Path) -> None:
    write(tmp_path / "annotations" / "instances.json", coco_json({file_name: [HAND]}))
    write(tmp_path / "images" / "a.png", PNG)
    write(tmp_path / "images" / "b" / "a.png", PNG)
    assert [boxes_of(asset) for asset in read(tmp_path)] == [[HAND], None]


def test_a_list_of_classes_beside_other_annotations_makes_no_yolo_set(tmp_path: Path) -> None:
    write_voc(tmp_path, ONE)
    write(tmp_path / "classes.txt", "5-hand")
    assert [boxes_of(asset) for asset in read(tmp_path)] == [[HAND]]


def test_a_list_of_classes_makes_one_set_of_the_folders_beside_it(tmp_path: Path) -> None:
    for session in ("monday", "tuesday"):
        write(tmp_path / session / "images" / "a.png", PNG)
        write(tmp_path / session / "labels" / "a.txt", "0 .5 .5 .5 .5")
    write(tmp_path / "data.yaml", "names: [a]")
    assert [asset.key for asset in read(tmp_path)] == ["monday/images/a.png", "tuesday/images/a.png"]


def test_an_unreadable_picture_is_handed_on_for_convert_to_exclude(tmp_path: Path) -> None:
    write_yolo(tmp_path, ONE)
    write(tmp_path / "images" / "a.png", b"")
    assert [(asset.content, boxes_of(asset)) for asset in read(tmp_path)] == [(b"", None)]


def test_pictures_of_other_kinds_are_handed_on_too(tmp_path: Path) -> None:
    write_coco(tmp_path, {"a.tiff": [], "b.HEIC": []})
    assert len(read(tmp_path)) == 2


def test_a_folder_of_several_sets_gives_them_all_with_their_origins(tmp_path: Path) -> None:
    for name, writer in WRITERS.items():
        writer(tmp_path / name, ONE)
    zipped(tmp_path / "coco")
    shutil.rmtree(tmp_path / "coco")
    write(tmp_path / "README.md", "about")
    write(tmp_path / ".gitignore", "*")
    source = folder.read(FolderParams(paths=[str(tmp_path)]))
    assert [asset.origin for asset in source.assets] == ["folder:voc", "folder:yolo", "folder:coco"]
    assert source.pictures == 3
    assert "voc: 1 in Pascal VOC, yolo: 1 in YOLO, coco: 1 in COCO" in source.summary


def test_a_zip_gives_the_same_assets_as_the_folder_in_it(tmp_path: Path) -> None:
    write_voc(tmp_path / "set", ONE)
    archive = Path(shutil.make_archive(str(tmp_path / "export"), "zip", tmp_path, "set"))
    assert read(archive) == read(tmp_path / "set")


def test_hidden_files_and_those_of_macos_are_not_read(tmp_path: Path) -> None:
    write_voc(tmp_path, ONE)
    for name in ("__MACOSX/._a.png", "images/.hidden.png", ".cache/b.png"):
        write(tmp_path / name, "not a picture")
    assert len(read(tmp_path)) == 1


def test_a_linked_folder_is_read_and_a_link_upwards_refused(tmp_path: Path) -> None:
    write_voc(tmp_path / "disk", ONE)
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "linked").symlink_to(tmp_path / "disk")
    for path in (tmp_path / "sets", tmp_path / "sets" / "linked"):
        assert [asset.origin for asset in read(path)] == ["folder:linked"]
    (tmp_path / "disk" / "JPEGImages" / "up").symlink_to(tmp_path / "disk")
    with pytest.raises(StageError, match="up: links to a folder that it lies in"):
        read(tmp_path / "sets")


def test_pictures_are_read_one_by_one(tmp_path: Path) -> None:
    write_voc(tmp_path, {f"{number}.png": [] for number in range(3)})
    assets = iter(folder.read(FolderParams(paths=[str(tmp_path)])).assets)
    next(assets)
    write(tmp_path / "JPEGImages" / "1.png", b"changed meanwhile")
    assert next(assets).content == b"changed meanwhile"


def test_real_photographs_come_out_complete() -> None:
    place = os.environ.get("HANDS_DATA")
    if not place:
        pytest.skip("HANDS_DATA names no folder with the photographs of hands")
    assets = read(Path(place))
    assert len(assets) == 1213
    assert sum(len(boxes_of(asset) or ()) for asset in assets) == 1293
    assert {label for asset in assets for label, *_ in boxes_of(asset) or ()} == {f"{n}-hand" for n in range(6)}


def broken(writer: Writer, name: str, content: str | bytes | None) -> Callable[[Path], None]:
    """A good set, with one file replaced; None: removed."""

    def build(root: Path) -> None:
        writer(root, ONE)
        if content is None:
            (root / name).unlink()
        else:
            write(root / name, content)

    return build


def steps(*writers: Writer) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        for writer in writers:
            writer(root, ONE)

    return build


def voc(content: str) -> Callable[[Path], None]:
    return broken(write_voc, "Annotations/a.xml", content)


def yolo(line: str) -> Callable[[Path], None]:
    return broken(write_yolo, "labels/a.txt", f"0 .5 .5 .5 .5\n{line}\n")


def coco(**changes: object) -> Callable[[Path], None]:
    document = json.loads(coco_json(ONE))
    for key, value in changes.items():
        document[key][0] |= value
    return broken(write_coco, "annotations/instances.json", json.dumps(document))


BAD = {
    "no_such_path": (lambda root: None, "set: not found (pull.folder.paths)"),
    "no_zip": (lambda root: write(root, "text"), "set: neither a directory nor a zip"),
    "empty": (lambda root: root.mkdir(), "set: empty (pull.folder.paths)"),
    "no_pictures": (lambda root: write(root / "README.md", "about"), "set: no pictures and no annotations of a known"),
    "no_format": (lambda root: write(root / "a.png", PNG), "set: 1 pictures and no annotations of a known format"),
    "two_formats": (steps(write_voc, write_yolo), "Pascal VOC and YOLO in one set"),
    "two_of_a_name": (
        steps(lambda root, _: write_voc(root / "x" / "set", ONE), lambda root, _: write_voc(root / "y" / "set", ONE)),
        "two sets called 'set'; rename or remove one",
    ),
    "voc_not_xml": (voc("<annotation>"), "Annotations/a.xml: not XML"),
    "voc_entities": (
        voc('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>'),
        "a.xml: not XML that may be read",
    ),
    "voc_other_root": (voc("<annotations/>"), "a.xml: <annotations> is not Pascal VOC"),
    "voc_no_label": (voc("<annotation><object><name> </name></object></annotation>"), "a.xml: <object> has no <"),
    "voc_no_number": (voc(voc_xml([HAND]).replace(">8<", ">left<")), "a.xml: <bndbox/xmin> is 'left'"),
    "voc_nan": (voc(voc_xml([HAND]).replace(">8<", ">nan<")), "a.xml: <bndbox/xmin> is 'nan'"),
    "voc_inside_out": (voc(voc_xml([("0", 9, 9, -5, 5)])), "a.xml: <bndbox> 9 9 4 14 is inside out"),
    "voc_picture_missing": (broken(write_voc, "JPEGImages/a.png", None), "a.xml: its picture is missing"),
    "voc_picture_twice": (
        broken(write_voc, "Annotations/b.xml", voc_xml([], "a.png")),
        "Annotations/b.xml: annotates JPEGImages/a.png, as Annotations/a.xml does",
    ),
    "yolo_no_names": (broken(write_yolo, "data.yaml", "nc: 3"), "set: no data.yaml with names and no classes.txt"),
    "yolo_bad_names": (broken(write_yolo, "data.yaml", "names: 3"), "data.yaml: names is 3"),
    "yolo_not_yaml": (broken(write_yolo, "data.yaml", "names: ["), "data.yaml: not YAML"),
    "yolo_two_name_lists": (
        broken(write_yolo, "other.yaml", "names: [a]"),
        "data.yaml and other.yaml name the classes",
    ),
    "yolo_word": (yolo("hand .5 .5 .5 .5"), "a.txt: line 2: 'hand .5 .5 .5 .5': a label is numbers"),
    "yolo_class": (yolo("3 .5 .5 .5 .5"), "line 2: '3 .5 .5 .5 .5': class 3 has no name"),
    "yolo_pixels": (yolo("0 320 240 50 50"), "line 2: '0 320 240 50 50': coordinates are fractions"),
    "yolo_short": (yolo("0 .5 .5 .5"), "line 2: '0 .5 .5 .5': 3 numbers after the class"),
    "yolo_negative": (yolo("0 .5 .5 -.5 .5"), "line 2: '0 .5 .5 -.5 .5': width and height"),
    "yolo_nan": (yolo("0 nan .5 .5 .5"), "line 2: '0 nan .5 .5 .5': coordinates"),
    "yolo_two_labels": (
        broken(write_yolo, "images/labels/a.txt", "0 .5 .5 .5 .5"),
        "images/labels/a.txt and labels/a.txt label the same picture",
    ),
    "yolo_picture_missing": (broken(write_yolo, "images/a.png", None), "labels/a.txt: its picture is missing"),
    "coco_not_json": (broken(write_coco, "annotations/instances.json", "{"), "instances.json: not JSON"),
    "coco_shape": (coco(images={"file_name": 3}), "instances.json: images.0.file_name: 3: "),
    "coco_no_picture": (coco(annotations={"image_id": 9}), "annotations.0: image_id 9 is none of the images"),
    "coco_no_category": (
        coco(annotations={"category_id": 9}),
        "annotations.0: category_id 9 is none of the categories",
    ),
    "coco_no_box": (coco(annotations={"bbox": None}), "annotations.0: neither a bbox nor polygons"),
    "coco_mask": (coco(annotations={"bbox": None, "segmentation": {"counts": "x"}}), "neither a bbox nor polygons"),
    "coco_negative": (coco(annotations={"bbox": [1, 2, -3, 4]}), "annotations.0.bbox.2: -3: "),
    "coco_picture_missing": (broken(write_coco, "images/a.png", None), "'a.png': its picture is missing"),
    "coco_outside": (coco(images={"file_name": "../../a.png"}), "'../../a.png': its picture is missing"),
    "coco_listed_twice": (
        broken(write_coco, "annotations/b.json", coco_json(ONE)),
        "lists images/a.png, as annotations/b",
    ),
}


@pytest.mark.parametrize(("build", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_named(build: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    build(tmp_path / "set")
    with pytest.raises(StageError) as error:
        read(tmp_path / "set")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("annotations.json", "{", "annotations.json: not JSON"),
        ("annotations.json", '{"stranger": []}', "annotations.json: 1 asset ids that assets.json does not have"),
        ("assets.json", "{}", "assets.json: the document"),
        ("images/b.png", PNG, "images/b.png: assets.json does not list it"),
        ("images/a-9f.png", None, "images/a-9f.png: missing, but assets.json lists it"),
        ("images/a-9f.png", b"changed", "images/a-9f.png: its sha256 is not that of assets.json"),
    ],
)
@pytest.mark.parametrize("as_zip", [False, True])
def test_what_is_wrong_with_the_native_layout_is_named(
    name: str, content: str | bytes | None, message: str, as_zip: bool, tmp_path: Path
) -> None:
    root = tmp_path / "set"
    asset = {
        "id": "a-9f",
        "file": "a-9f.png",
        "file_name": "a.png",
        "width": 64,
        "height": 48,
        "tags": [],
        "source": "x",
    }
    write(root / "assets.json", json.dumps([{**asset, "sha256": "0" * 64}]))
    write(root / "annotations.json", "{}")
    write(root / "images" / "a-9f.png", PNG)
    if content is None:
        (root / name).unlink()
    else:
        write(root / name, content)
    with pytest.raises(StageError) as error:
        read(zipped(root) if as_zip else root)
    assert f"set{'.zip' if as_zip else ''}/{message}" in str(error.value)


def member(name: str, content: bytes = PNG, **attributes: int) -> Pack:
    def add(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo(name)
        for key, value in attributes.items():
            setattr(info, key, value)
        archive.writestr(info, content, zipfile.ZIP_DEFLATED)

    return add


@pytest.mark.parametrize(
    ("add", "message"),
    [
        (member("../out.png"), "member '../out.png' leads out of the zip"),
        (member("images/../../out.png"), "leads out of the zip"),
        (member("/etc/out.png"), "has an absolute or Windows path"),
        (member("C:/out.png"), "has an absolute or Windows path"),
        (member("images\\out.png"), "has an absolute or Windows path"),
        (member("link.png", b"/etc/passwd", external_attr=0o120777 << 16), "is a link"),
        (member("JPEGImages/bomb.png", bytes(2 << 20)), "a zip bomb"),
        (member("inner/x.zip"), "set.zip/inner: x.zip is a zip in a zip"),
    ],
    ids=["up", "up_inside", "absolute", "drive", "backslash", "link", "bomb", "zip_in_zip"],
)
def test_a_zip_that_is_not_safe_is_refused_whole(
    add: Pack, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "SMALL", 1 << 20)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        add(archive)
    with pytest.raises(StageError) as error:
        read(tmp_path / "set.zip")
    assert message in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]


def test_a_member_that_claims_to_be_huge_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MAX_FILE", 10)
    write_voc(tmp_path / "set", ONE)
    with pytest.raises(StageError, match="bytes, more than 10"):
        read(zipped(tmp_path / "set"))


def test_a_damaged_zip_is_named_with_its_member(tmp_path: Path) -> None:
    write_voc(tmp_path / "set", ONE)
    archive = zipped(tmp_path / "set")
    content = archive.read_bytes()
    place = content.index(b"IHDR") if b"IHDR" in content else content.index(b"JPEGImages/a.png") + 40
    archive.write_bytes(content[:place] + bytes(8) + content[place + 8 :])
    with pytest.raises(StageError, match=r"set\.zip: member 'JPEGImages/a\.png' cannot be unpacked"):
        read(archive)
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(StageError, match=r"set\.zip: neither a directory nor a zip"):
        read(archive)


@pytest.mark.parametrize(
    ("path", "place", "split"),
    [
        ("a.jpg", "a", None),
        ("images/a.jpg", "a", None),
        ("train/images/a.jpg", "train/a", "train"),
        ("images/train/a.jpg", "train/a", "train"),
        ("labels/train/a.txt", "train/a", "train"),
        ("JPEGImages/b/a.b.jpg", "b/a.b", None),
        ("valid/a.jpg", "valid/a", "val"),
        ("Validation/a.jpg", "Validation/a", "val"),
        ("test2017/a.jpg", "test2017/a", "test"),
        ("trainer/a.jpg", "trainer/a", None),
        ("images/test.jpg", "test", None),
    ],
)
def test_folders_say_the_split_and_the_place(path: str, place: str, split: str | None) -> None:
    assert (place_of(path), split_of(path)) == (place, split)

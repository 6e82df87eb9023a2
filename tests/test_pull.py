"""Sources -> the native layout."""

import hashlib
import logging
import re
from pathlib import Path

import pytest

from stages.files import read_json
from stages.params import Params, StageError
from stages.pull import asset_id, pull
from stages.vision.annotations import read_annotations, read_assets
from tests import native


def demo_params(**changes: object) -> Params:
    return native.params(
        **{"pull.sources": ["demo"], "pull.demo": {"pictures": 60, "image_size": 64, "seed": 7}, **changes}
    )


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pulled") / "raw"
    pull(demo_params(), folder)
    return folder


def voc_set(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(native.png(native.noise(number)))
        path.with_suffix(".xml").write_text("<annotation/>", encoding="utf-8")
    return folder


def test_every_asset_has_its_picture_and_its_annotations(raw: Path) -> None:
    assets = read_assets(raw)
    assert len(assets) == 60
    assert sorted(asset.file for asset in assets) == sorted(path.name for path in (raw / "images").iterdir())
    assert read_annotations(raw, assets).keys() == {asset.id for asset in assets}
    for asset in assets:
        assert asset.sha256 == hashlib.sha256((raw / "images" / asset.file).read_bytes()).hexdigest()
        assert asset.file.startswith(asset.id)


def test_assets_json_is_sorted_by_id_whatever_the_order_of_the_sources(tmp_path: Path) -> None:
    own = voc_set(tmp_path / "own", "z.png", "a.png")
    pull(demo_params(**{"pull.sources": ["folder", "demo"], "pull.folder.paths": [str(own)]}), tmp_path / "raw")
    ids = [asset["id"] for asset in read_json(tmp_path / "raw" / "assets.json")]
    assert ids == sorted(ids)


def test_annotations_state_what_they_hold_and_no_more(raw: Path) -> None:
    annotations = [each for several in read_json(raw / "annotations.json").values() for each in several]
    assert {key for each in annotations for key in each} == {"status", "rectangles"}
    assert {"x", "y", "w", "h", "label"} == {key for each in annotations for box in each["rectangles"] for key in box}


def test_two_assets_of_one_file_name_stay_two(raw: Path) -> None:
    names = [asset.file_name for asset in read_assets(raw)]
    assert len(names) == len(set(names)) + 1


def test_pulling_again_writes_the_same_bytes_and_leaves_nothing_behind(raw: Path, tmp_path: Path) -> None:
    again = tmp_path / "raw"
    (again / "images").mkdir(parents=True)
    (again / "images" / "old.jpg").write_bytes(b"of an earlier pull")
    pull(demo_params(), again)

    def contents(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert contents(again) == contents(raw)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_sources_are_merged_and_each_asset_names_its_own(tmp_path: Path) -> None:
    own = voc_set(tmp_path / "own", "s00_pic00000.png")
    pull(demo_params(**{"pull.sources": ["demo", "folder"], "pull.folder.paths": [str(own)]}), tmp_path / "raw")
    sources = [asset.source for asset in read_assets(tmp_path / "raw")]
    assert (sources.count("demo"), sources.count("folder:own")) == (60, 1)


def test_ids_and_outputs_do_not_depend_on_where_the_folder_lies(tmp_path: Path) -> None:
    indexes = []
    for place in ("here", "over/there"):
        own = voc_set(tmp_path / place / "own", "a.png", "b/a.png")
        raw = tmp_path / place / "raw"
        pull(demo_params(**{"pull.sources": ["folder"], "pull.folder.paths": [str(own)]}), raw)
        indexes.append([(raw / name).read_text(encoding="utf-8") for name in ("assets.json", "annotations.json")])
    assert indexes[0] == indexes[1]
    assert str(tmp_path) not in "".join(indexes[0])


def test_the_log_says_at_the_start_what_will_be_read_and_at_the_end_what_came(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = voc_set(tmp_path / "own", "a.png", "b.png")
    with caplog.at_level(logging.INFO, "stages"):
        pull(demo_params(**{"pull.sources": ["folder", "demo"], "pull.folder.paths": [str(own)]}), tmp_path / "raw")
    first, last = caplog.messages
    assert first.startswith("62 pictures from folder (own: 2 in Pascal VOC; DVC does not watch ")
    assert f"{own}, outside the repository: `dvc repro -f pull` looks again" in first
    assert last == "62 pictures, 70 annotations: demo 60, folder:own 2"


def test_a_set_is_called_by_its_folder_also_when_it_is_named_by_a_dot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(voc_set(tmp_path / "own", "a.png"))
    pull(demo_params(**{"pull.sources": ["folder"], "pull.folder.paths": ["."]}), tmp_path / "raw")
    assert [asset.source for asset in read_assets(tmp_path / "raw")] == ["folder:own"]


def test_nothing_is_left_half_written_when_a_source_fails_on_its_way(tmp_path: Path) -> None:
    own = voc_set(tmp_path / "own", "a.png", "b.png")
    (own / "b.xml").write_text("<annotation><object/></annotation>", encoding="utf-8")
    with pytest.raises(StageError, match=r"own/b\.xml: <object> has no <"):
        pull(demo_params(**{"pull.sources": ["folder"], "pull.folder.paths": [str(own)]}), tmp_path / "raw")
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.mark.parametrize(
    ("file_name", "start"),
    [
        ("", "picture-"),
        ("a.jpg", "a-"),
        ("s03_pic00012.jpg", "s03_pic00012-"),
        ("../../etc/passwd", "passwd-"),
        ("été à Paris.JPG", "ete-a-Paris-"),
        ("手.png", "picture-"),
        (".hidden", "hidden-"),
        ("x" * 300 + ".jpg", "x" * 60 + "-"),
    ],
)
def test_an_id_is_readable_and_safe_as_a_file_name(file_name: str, start: str) -> None:
    id_ = asset_id("demo", "000001", file_name)
    assert re.fullmatch(re.escape(start) + "[0-9a-f]{12}", id_)


def test_ids_tell_origins_and_places_apart_but_not_unicode_forms() -> None:
    ids = {asset_id(origin, key, "a.jpg") for origin in ("demo", "folder:x") for key in ("a.jpg", "b/a.jpg")}
    assert len(ids) == 4
    assert asset_id("demo", "\u00e9.jpg", "\u00e9.jpg") == asset_id("demo", "e\u0301.jpg", "e\u0301.jpg")

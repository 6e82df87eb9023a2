"""Relatives stay on one side, sides stay as they were, and the lists prove it."""

import json
import logging
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import defusedxml.ElementTree
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.balance import NEW, SIDES, place
from stages.files import write_json
from stages.params import GroupBy, StageError
from stages.split import as_stem, crossings, read_pictures, roboflow_stem, session_names, split
from stages.vision.images import encode_jpeg
from tests.native import ROOT, noise, params, png

CLASSES = [*"012345", "unknown"]
BY_NAME = GroupBy(file_name=r"^(.*?)_?pic\d", tag=r"^session[:=](.+)$")


@dataclass(frozen=True)
class Kept:
    """One picture of a ledger; its pixels are those of its seed."""

    file_name: str
    seed: int
    boxes: Mapping[str, int] = field(default_factory=lambda: {"1": 1})
    tags: Sequence[str] = ()
    source: str = "test"
    content: bytes | None = None
    outcome: str = "kept"


def write_yolo(yolo: Path, pictures: Mapping[str, Kept]) -> Path:
    """What convert would have written, without the labels."""
    (yolo / "images").mkdir(parents=True, exist_ok=True)
    assets = {}
    for id_, picture in pictures.items():
        content = png(noise(picture.seed)) if picture.content is None else picture.content
        kept = picture.outcome == "kept"
        if kept:
            (yolo / f"images/{id_}.png").write_bytes(content)
        assets[id_] = {
            "outcome": picture.outcome,
            "file": f"images/{id_}.png" if kept else None,
            "file_name": picture.file_name,
            "source": picture.source,
            "tags": list(picture.tags),
            "sha256": sha256(content).hexdigest() if kept else None,
            "boxes": dict(picture.boxes),
        }
    (yolo / "ledger.json").write_text(json.dumps({"classes": CLASSES, "assets": assets}))  # in the order given
    return yolo


def splitted(tmp_path: Path, pictures: Mapping[str, Kept], **changes: object) -> dict[str, str]:
    """Picture id -> side, after one more split of these pictures in tmp_path."""
    split(params(**changes), write_yolo(tmp_path / "yolo", pictures), tmp_path / "splits", tmp_path / "sides.csv")
    return side_of(tmp_path)


def side_of(tmp_path: Path) -> dict[str, str]:
    lists = {side: (tmp_path / f"splits/{side}.txt").read_text().split() for side in SIDES}
    return {Path(line).stem: side for side, lines in lists.items() for line in lines}


def report(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "splits/report.json").read_text())
    return found


def outputs(tmp_path: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in [*(tmp_path / "splits").iterdir(), tmp_path / "sides.csv"]}


def sessions(number: int, frames: int = 2, first: int = 0) -> dict[str, Kept]:
    """Sessions s0, s1…, of frames that resemble nothing; their boxes go round the classes."""
    return {
        f"s{s:03}-{f}": Kept(f"s{s}_pic{f}.jpg", 1000 * s + f, {CLASSES[(s + f) % 7]: 1})
        for s in range(first, first + number)
        for f in range(frames)
    }


# ---- which pictures belong together

ORIGINAL = noise(77, 320, 240)
DIMMER = cv2.convertScaleAbs(ORIGINAL, alpha=0.97).astype(np.uint8)
RELATIVES: dict[str, list[Kept]] = {
    "a session in the file name": [Kept("x_pic1.jpg", 1), Kept("x_pic2.jpg", 2)],
    "the session of no name": [Kept("pic1.jpg", 1), Kept("pic2.jpg", 2)],
    "a session in a tag": [Kept("a.jpg", 1, tags=["day", "session=x"]), Kept("b.jpg", 2, tags=["session:x"])],
    "one session in a tag and in a name": [Kept("x_pic1.jpg", 1), Kept("b.jpg", 2, tags=["session:x"])],
    "copies by Roboflow": [Kept("a_jpg.rf.0f1.jpg", 1), Kept("a_jpg.rf.9e8.jpg", 2)],
    "a copy by Roboflow and its original": [Kept("a.b.jpg", 1), Kept("a-b_jpg.rf.9e8.jpg", 2)],
    "the same bytes": [Kept("a.jpg", 1), Kept("b.jpg", 1)],
    "the same blank bytes": [Kept(n, 0, content=png(np.zeros((48, 64, 3), np.uint8))) for n in ("a.jpg", "b.jpg")],
    "the same bytes from two sources": [Kept("a.jpg", 1), Kept("b.jpg", 1, source="other")],
    "the same scene": [Kept("a.jpg", 0, content=png(ORIGINAL)), Kept("b.jpg", 0, content=encode_jpeg(DIMMER, 60))],
    "a third picture": [Kept("x_pic1.jpg", 1), Kept("x_pic2.jpg", 2), Kept("a.jpg", 2, tags=["session:y"])],
}
STRANGERS: dict[str, list[Kept]] = {
    "two sessions": [Kept("x_pic1.jpg", 1), Kept("y_pic1.jpg", 2)],
    "no session": [Kept("a.jpg", 1), Kept("b.jpg", 2)],
    "sessions of one name in two sources": [Kept("x_pic1.jpg", 1), Kept("x_pic2.jpg", 2, source="other")],
    "one file name twice, without copies": [Kept("a.jpg", 1), Kept("a.jpg", 2)],
    "two blank pictures": [
        Kept(f"{grey}.jpg", 0, content=png(np.full((48, 64, 3), grey, np.uint8))) for grey in (100, 101)
    ],
}


def groups_of(tmp_path: Path, pictures: Sequence[Kept]) -> int:
    others = {f"z{number}": Kept(f"z{number}.jpg", 900 + number) for number in range(3)}
    splitted(tmp_path, others | {f"p{number}": picture for number, picture in enumerate(pictures)})
    return sum(int(tally["groups"]) for tally in report(tmp_path)["sides"].values()) - len(others)


@pytest.mark.parametrize("pictures", RELATIVES.values(), ids=RELATIVES.keys())
def test_relatives_are_one_group(tmp_path: Path, pictures: list[Kept]) -> None:
    assert groups_of(tmp_path, pictures) == 1


@pytest.mark.parametrize("pictures", STRANGERS.values(), ids=STRANGERS.keys())
def test_strangers_are_groups_of_their_own(tmp_path: Path, pictures: list[Kept]) -> None:
    assert groups_of(tmp_path, pictures) == len(pictures)


@pytest.mark.parametrize(
    ("file_name", "tags", "expected"),
    [
        ("", [], []),
        ("hand.jpg", ["day"], []),
        ("pic0001.jpg", [], [""]),
        ("3_1528505750.77_pic00012.jpg", [], ["3_1528505750.77"]),
        ("2_pic1.jpg", ["session=2", "session:kitchen"], ["2", "kitchen"]),
    ],
)
def test_sessions_are_what_the_regular_expressions_capture(
    file_name: str, tags: list[str], expected: list[str]
) -> None:
    assert session_names(file_name, tags, BY_NAME) == expected


def test_without_regular_expressions_there_are_no_sessions() -> None:
    assert session_names("2_pic1.jpg", ["session:x"], GroupBy(file_name=None, tag=None)) == []


def test_a_regular_expression_that_captures_nothing_finds_no_session() -> None:
    assert session_names("pic1.jpg", [], GroupBy(file_name="(x)?pic", tag=None)) == []


@pytest.mark.parametrize(
    ("file_name", "stem"),
    [
        ("", None),
        ("hand.jpg", None),
        ("hand.rfid.jpg", None),
        ("hand_jpg.rf.0a1b2c.jpg", as_stem("hand.jpg")),
        ("train/images/hand_jpg.rf.0a1b2c.jpg", as_stem("hand.jpg")),
        ("two-hands_png.rf.x_png.rf.y.jpg", as_stem("two hands.png")),
    ],
)
def test_copies_by_roboflow_carry_the_name_of_their_original(file_name: str, stem: str | None) -> None:
    assert roboflow_stem(file_name) == stem


# ---- whole groups on sides


@st.composite
def collections(draw: st.DrawFn) -> dict[str, Kept]:
    """Pictures with sessions, tags, copies and doubles in any mixture, and at least three strangers."""
    pictures = {f"z{number}": Kept(f"z{number}.jpg", 900 + number) for number in range(3)}
    for number in range(draw(st.integers(0, 14))):
        name = draw(st.sampled_from(["a_pic{}.jpg", "b_pic{}.jpg", "{}.jpg", "{}_jpg.rf.0.jpg", "k_jpg.rf.{}.jpg"]))
        pictures[f"p{number:02}"] = Kept(
            file_name=name.format(number),
            seed=draw(st.integers(0, 20)),  # a seed twice: identical bytes
            boxes={draw(st.sampled_from(CLASSES)): draw(st.integers(1, 2))} if draw(st.booleans()) else {},
            tags=draw(st.sampled_from([[], ["session:c"], ["session:d"]])),
            outcome=draw(st.sampled_from(["kept", "kept", "kept", "excluded"])),
        )
    return pictures


@settings(max_examples=12, deadline=None)
@given(collections())
def test_no_relatives_are_on_two_sides_and_every_kept_picture_is_on_one(pictures: dict[str, Kept]) -> None:
    with TemporaryDirectory() as folder:
        sides = splitted(Path(folder), pictures)
        listed = [line for side in SIDES for line in (Path(folder) / f"splits/{side}.txt").read_text().split()]
    assert sorted(Path(line).stem for line in listed) == [i for i, p in sorted(pictures.items()) if p.outcome == "kept"]
    for one in sides:
        for other in sides:
            a, b = pictures[one], pictures[other]
            names = [set(session_names(p.file_name, p.tags, BY_NAME)) for p in (a, b)]
            if (
                names[0] & names[1]
                or a.seed == b.seed
                or (".rf." in a.file_name and a.file_name[0] == b.file_name[0] == "k")
            ):
                assert sides[one] == sides[other], (a, b)


@settings(max_examples=12, deadline=None)
@given(collections(), st.integers(1, 5))
def test_adding_sessions_moves_no_old_picture(pictures: dict[str, Kept], number: int) -> None:
    with TemporaryDirectory() as folder:
        before = splitted(Path(folder), pictures)
        after = splitted(Path(folder), pictures | sessions(number, first=100))
    assert {id_: after[id_] for id_ in before} == before


@settings(max_examples=8, deadline=None)
@given(collections(), st.randoms(use_true_random=False))
def test_neither_the_order_of_the_ledger_nor_a_second_run_changes_a_byte(
    pictures: dict[str, Kept], random: Any
) -> None:
    shuffled = list(pictures.items())
    random.shuffle(shuffled)
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        splitted(Path(one), pictures)
        splitted(Path(other), dict(shuffled))
        first = outputs(Path(one))
        assert outputs(Path(other)) == first
        splitted(Path(one), pictures)
        assert outputs(Path(one)) == first


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), min_size=7, max_size=7), min_size=3, max_size=30), st.integers(0, 9))
def test_a_class_of_three_groups_is_on_every_side_where_one_can_move(boxes: list[list[int]], seed: int) -> None:
    """A side without the class is left only if every group that has it is the last of another class on its side."""
    strata = np.array([[1 + sum(row), 0, *row] for row in boxes], np.int64)
    places = place(strata, np.full(len(strata), NEW), params(**{"split.seed": seed}).split)
    assert set(places) == {0, 1, 2}
    held = np.array([strata[places == side].sum(axis=0) for side in range(3)])
    common = [column for column in range(2, 9) if np.count_nonzero(strata[:, column]) >= 3]
    for column in common:
        for side in np.flatnonzero(held[:, column] == 0):
            for number in np.flatnonzero(strata[:, column]):
                rest = held[places[number]] - strata[number]
                assert rest[0] == 0 or any(rest[c] == 0 < strata[number, c] for c in common), (column, side)


def test_fractions_and_classes_are_respected_when_there_are_many_groups(tmp_path: Path) -> None:
    splitted(tmp_path, sessions(70, frames=3))
    sides = report(tmp_path)["sides"]
    assert [sides[side]["pictures"] for side in SIDES] == pytest.approx([168, 21, 21], abs=3)
    for name in CLASSES:
        assert [sides[side]["boxes"][name] for side in SIDES] == pytest.approx([24, 3, 3], abs=1)


def test_the_seed_decides_among_equal_splits(tmp_path: Path) -> None:
    found = []
    for seed in range(4):
        found.append(splitted(tmp_path / str(seed), sessions(12), **{"split.seed": seed}))
        assert splitted(tmp_path / f"{seed} again", sessions(12), **{"split.seed": seed}) == found[-1]
    assert len({tuple(sides.values()) for sides in found}) > 1


# ---- the memory


def rows(tmp_path: Path) -> list[str]:
    return (tmp_path / "sides.csv").read_text().splitlines()


def repin(tmp_path: Path, old: str, new: str) -> None:
    text = (tmp_path / "sides.csv").read_text()
    assert old in text
    (tmp_path / "sides.csv").write_text(text.replace(old, new))


def test_the_memory_has_a_row_for_each_session_and_each_picture_without_one(tmp_path: Path) -> None:
    pictures = sessions(3) | {"lone": Kept("a, b.jpg", 5, source='the "old" set')}
    sides = splitted(tmp_path, pictures)
    header, columns, *found = rows(tmp_path)
    assert header.startswith("# ")
    assert columns == "kind,source,name,side"
    assert found == [
        *(f"session,test,s{s},{sides[f's00{s}-0']}" for s in range(3)),
        f'picture,"the ""old"" set",lone,{sides["lone"]}',
    ]
    assert splitted(tmp_path, pictures) == sides


def test_a_session_that_a_person_moved_stays_where_it_was_put(tmp_path: Path) -> None:
    before = splitted(tmp_path, sessions(8))
    assert before["s000-0"] != "val" or before["s001-0"] != "val"
    moved = next(s for s in range(8) if before[f"s00{s}-0"] == "train")
    repin(tmp_path, f"session,test,s{moved},train", f"session,test,s{moved},test")
    after = splitted(tmp_path, sessions(8))
    assert after == before | {f"s00{moved}-{frame}": "test" for frame in range(2)}
    assert splitted(tmp_path, sessions(9)).items() >= after.items()


@pytest.mark.parametrize(("frames", "winner"), [((3, 2), "val"), ((2, 3), "test"), ((2, 2), "val")])
def test_sessions_that_turn_out_to_be_one_go_where_most_pictures_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, frames: tuple[int, int], winner: str
) -> None:
    """On a tie the earlier of train, val, test."""
    pictures = sessions(4)
    pictures |= {
        f"{name}{f}": Kept(f"{name}_pic{f}.jpg", 100 * n + f)
        for n, name in ((7, "a"), (8, "b"))
        for f in range(frames[n - 7])
    }
    splitted(tmp_path, pictures)
    for name, side in (("a", "val"), ("b", "test"), ("s0", "train"), ("s1", "val"), ("s2", "test")):
        text = re.sub(rf"(test,{name}),\w+", rf"\1,{side}", (tmp_path / "sides.csv").read_text())
        (tmp_path / "sides.csv").write_text(text)
    caplog.set_level(logging.WARNING)
    link = {"link": Kept("a_pic99.jpg", 555, tags=["session:b"])}
    sides = splitted(tmp_path, pictures | link)
    assert {sides[id_] for id_ in sides if id_[0] in "abl"} == {winner}
    loser, keeper = ("b", "a") if winner == "val" else ("a", "b")
    assert f"session '{loser}' of test moved to {winner}: belongs with session '{keeper}' now" in caplog.text
    caplog.clear()
    assert splitted(tmp_path, pictures | link) == sides
    assert not caplog.messages


def test_what_is_gone_is_forgotten(tmp_path: Path) -> None:
    splitted(tmp_path, sessions(5))
    splitted(tmp_path, sessions(4))
    assert len(rows(tmp_path)) == 2 + 4


@pytest.mark.parametrize(
    "changes",
    [
        {"split.seed": 7},
        {"split.train": 0.6, "split.val": 0.3},
        {"split.group_by": {"file_name": r"(\d)_pic", "tag": None}},
    ],
)
def test_other_params_decide_afresh(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, object]
) -> None:
    splitted(tmp_path, sessions(9))
    caplog.set_level(logging.INFO)
    splitted(tmp_path, sessions(9), **changes)
    remembering = outputs(tmp_path)
    assert "every side is decided afresh" in caplog.text
    splitted(tmp_path / "fresh", sessions(9), **changes)
    assert outputs(tmp_path / "fresh") == remembering


def test_a_memory_saved_by_a_windows_editor_is_the_same_memory(tmp_path: Path) -> None:
    before = splitted(tmp_path, sessions(6))
    moved = next(s for s in range(6) if before[f"s00{s}-0"] == "train")
    repin(tmp_path, f"s{moved},train", f"s{moved},test")
    text = (tmp_path / "sides.csv").read_text()
    (tmp_path / "sides.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert splitted(tmp_path, sessions(6))[f"s00{moved}-0"] == "test"


@pytest.mark.parametrize(
    ("line", "text", "complaint"),
    [
        (1, "", "first line"),
        (1, "<<<<<<< HEAD", "first line"),
        (2, "kind;source;name;side", "columns are kind,source,name,side"),
        (3, "session,test,s0,trian", "side train or val or test"),
        (3, "sesion,test,s0,train", "kind session or picture"),
        (4, "session,test,train", "a row is kind,source,name,side"),
        (4, ">>>>>>> theirs", "a row is kind,source,name,side"),
        (4, "session,test,s0,train", "stands twice"),
        (5, 'session,test,"s2"x,train', "expected after"),
        (5, 'session,test,"s2,train', "unexpected end of data"),
    ],
)
def test_a_memory_that_is_malformed_is_an_error_with_its_line(
    tmp_path: Path, line: int, text: str, complaint: str
) -> None:
    splitted(tmp_path, sessions(3))
    before = outputs(tmp_path)
    lines = rows(tmp_path)
    lines[line - 1] = text
    (tmp_path / "sides.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(StageError, match=rf"sides\.csv:{line}: .*{complaint}.*; put it right, or delete"):
        splitted(tmp_path, sessions(3))
    assert outputs(tmp_path) == before | {"sides.csv": (tmp_path / "sides.csv").read_bytes()}


def test_a_memory_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "sides.csv").write_bytes(b"# \xff\xfe")
    with pytest.raises(StageError, match=r"sides\.csv: not UTF-8"):
        splitted(tmp_path, sessions(3))


# ---- the report and the proof


def test_the_report_counts_every_picture_group_box_and_join(tmp_path: Path) -> None:
    pictures = sessions(5, frames=3)
    pictures |= {"copy": Kept("c_jpg.rf.1.jpg", 71, {}), "copy2": Kept("c_jpg.rf.2.jpg", 72, {"5": 2})}
    pictures |= {"double": Kept("d.jpg", 0), "gone": Kept("e.jpg", 3, outcome="excluded")}  # 0: as s000-0
    pictures |= {"near": Kept("f.jpg", 0, content=encode_jpeg(noise(1), 90))}  # as s000-1
    splitted(tmp_path, pictures)
    found = report(tmp_path)
    assert found["joined_by"] == {"session": 10, "roboflow": 1, "bytes": 1, "likeness": 1}
    sides = found["sides"].values()
    assert sum(side["pictures"] for side in sides) == 19
    assert sum(side["groups"] for side in sides) == 19 - 13
    assert sum(side["background"] for side in sides) == 1
    kept = [Counter(picture.boxes) for picture in pictures.values() if picture.outcome == "kept"]
    assert sum((Counter(side["boxes"]) for side in sides), Counter()) == sum(kept, Counter())


def test_the_report_tells_what_a_random_split_would_have_leaked(tmp_path: Path) -> None:
    burst = {f"s{s}-{f}": Kept(f"s{s}_pic{f}.jpg", s) for s in range(10) for f in range(10)}
    splitted(tmp_path, burst)
    assert report(tmp_path)["random_split_leaks"] > 50
    splitted(tmp_path, sessions(10))
    assert report(tmp_path)["random_split_leaks"] == 0


PLANTED: dict[str, tuple[str, list[tuple[str, int]]]] = {
    "nothing": ("", []),
    "a session on two sides": ("session", [("b.png", 1)]),
    "copies by Roboflow on two sides": ("roboflow", [("d.png", 1)]),
    "the same bytes on two sides": ("bytes", [("f.png", 1)]),
    "a near-duplicate on another side": ("likeness", [("h.png", 1)]),
}


@pytest.mark.parametrize(("reason", "moved"), PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_leak_is_found(tmp_path: Path, reason: str, moved: list[tuple[str, int]]) -> None:
    pairs = {
        "a": Kept("x_pic1.jpg", 1),
        "b": Kept("x_pic2.jpg", 2),
        "c": Kept("k_jpg.rf.1.jpg", 3),
        "d": Kept("k.jpg", 4),
        "e": Kept("e.jpg", 0, content=png(np.zeros((48, 64, 3), np.uint8))),
        "f": Kept("f.jpg", 0, content=png(np.zeros((48, 64, 3), np.uint8))),
        "g": Kept("g.jpg", 5),
        "h": Kept("h.jpg", 6),
    }
    _, pictures = read_pictures(write_yolo(tmp_path, pairs) / "ledger.json", BY_NAME)
    hashes = [0xF << 60, 0xF << 40, 0xF << 50, 0xFF, None, None, 0xF0F0F0F0, 0xF0F0F0F1]
    listed = dict.fromkeys((f"{id_}.png" for id_ in pairs), 0) | dict(moved)
    torn = crossings(pictures, hashes, list(listed.items()), max_bits=2)
    expected = dict.fromkeys(["not_listed_once", "session", "roboflow", "bytes", "likeness"], 0)
    if reason:
        expected[reason] = 2 if reason == "likeness" else 1  # pictures, not pairs
    assert torn == expected


@pytest.mark.parametrize(
    "listed",
    [[], [("a.png", 0)], [("a.png", 0), ("b.png", 0), ("b.png", 0)], [("a.png", 0), ("b.png", 0), ("stranger.png", 0)]],
)
def test_lists_that_miss_repeat_or_invent_a_picture_are_found(tmp_path: Path, listed: list[tuple[str, int]]) -> None:
    yolo = write_yolo(tmp_path, {"a": Kept("a.jpg", 1), "b": Kept("b.jpg", 2)})
    _, pictures = read_pictures(yolo / "ledger.json", BY_NAME)
    assert crossings(pictures, [1, 1 << 30], listed, max_bits=2)["not_listed_once"] > 0


# ---- what train reads, and what a person can mend


def test_the_lists_lead_to_the_pictures_from_wherever_they_stand(tmp_path: Path) -> None:
    sides = splitted(tmp_path, sessions(4))
    assert set(sides) == set(sessions(4))
    for side in SIDES:
        lines = (tmp_path / f"splits/{side}.txt").read_text().splitlines()
        assert lines == sorted(lines)
        assert all(line.startswith("./../yolo/images/") for line in lines)
        assert all((tmp_path / "splits" / line).is_file() for line in lines)
    assert (tmp_path / "splits/data.yaml").read_text() == (
        "train: train.txt\nval: val.txt\ntest: test.txt\n"
        "names:\n  0: '0'\n  1: '1'\n  2: '2'\n  3: '3'\n  4: '4'\n  5: '5'\n  6: unknown\n"
    )


@pytest.mark.slow
def test_ultralytics_finds_the_pictures_and_classes(tmp_path: Path) -> None:
    splitted(tmp_path, sessions(4))
    script = (
        "import sys\n"
        "from ultralytics.data.dataset import YOLODataset\n"
        "from ultralytics.data.utils import check_det_dataset\n"
        "data = check_det_dataset(sys.argv[1])\n"
        "found = [f for side in ('train', 'val', 'test') for f in YOLODataset.get_img_files(\n"
        "    type('', (), {'prefix': '', 'fraction': 1.0})(), data[side])]\n"
        "print(len(found), data['names'][6], data['nc'])\n"
    )
    environment = os.environ | {"YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(tmp_path)}
    command = [sys.executable, "-c", script, str(tmp_path / "splits/data.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.splitlines()[-1:] == ["8 unknown 7"], done.stderr


MENDABLE: dict[str, tuple[dict[str, Kept], str]] = {
    "nothing kept": ({"a": Kept("a.jpg", 1, outcome="excluded")}, r"ledger\.json: keeps none of 1 assets"),
    "one session": (sessions(1), r"2 pictures in 1 groups; .*split\.group_by"),
    "two sessions": (sessions(2), r"4 pictures in 2 groups; .*split\.near_duplicate_bits"),
    "an unreadable picture": (
        sessions(3) | {"bad": Kept("x.jpg", 0, content=b"no picture")},
        r"bad\.png: not a JPEG, PNG, WEBP or BMP picture",
    ),
}


@pytest.mark.parametrize(("pictures", "message"), MENDABLE.values(), ids=MENDABLE.keys())
def test_what_cannot_be_split_is_an_error_and_leaves_nothing(
    tmp_path: Path, pictures: dict[str, Kept], message: str
) -> None:
    with pytest.raises(StageError, match=message):
        splitted(tmp_path, pictures)
    assert [path.name for path in tmp_path.iterdir()] == ["yolo"]


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    yolo = write_yolo(tmp_path / "yolo", sessions(3))
    (yolo / "images/s001-1.png").unlink()
    with pytest.raises(StageError, match=r"s001-1\.png: not found"):
        split(params(), yolo, tmp_path / "splits", tmp_path / "sides.csv")


def test_a_side_that_the_memory_leaves_empty_is_named(tmp_path: Path) -> None:
    splitted(tmp_path, sessions(3))
    repin(tmp_path, ",val\n", ",train\n")
    with pytest.raises(StageError, match=r"sides\.csv: leaves no group for val; "):
        splitted(tmp_path, sessions(3))
    assert set(splitted(tmp_path, sessions(4)).values()) == set(SIDES)


def test_it_says_how_many_pictures_and_groups_went_where(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    splitted(tmp_path, sessions(10))
    assert caplog.messages == ["20 pictures, 7 classes", "20 pictures in 10 groups (10 new): train 12, val 4, test 4"]


def test_it_runs_as_a_command(tmp_path: Path) -> None:
    write_yolo(tmp_path / "data/yolo", sessions(3))
    command = [
        sys.executable,
        "-m",
        "stages.split",
        *(str(tmp_path / p) for p in ("data/yolo", "data/splits", "sides.csv")),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith("split: 6 pictures in 3 groups (3 new): train 2, val 2, test 2")


def test_real_recordings_are_split_by_session_with_every_class_on_each_side(tmp_path: Path) -> None:
    if not (folder := os.environ.get("HANDS_DATA")):
        pytest.skip("HANDS_DATA is not set")
    (tmp_path / "yolo/images").mkdir(parents=True)
    assets = {}
    for path in sorted(Path(folder).glob("images/*.jpg")):
        (tmp_path / "yolo/images" / path.name).symlink_to(path.resolve())
        document = defusedxml.ElementTree.parse(Path(folder) / f"annotations/{path.stem}.xml")
        assets[path.stem] = {
            "outcome": "kept",
            "file": f"images/{path.name}",
            "file_name": path.name,
            "source": "folder",
            "tags": [],
            "sha256": sha256(path.read_bytes()).hexdigest(),
            "boxes": Counter(str(name.text)[0] for name in document.iterfind("object/name")),
        }
    write_json(tmp_path / "yolo/ledger.json", {"classes": CLASSES, "assets": assets})
    split(params(), tmp_path / "yolo", tmp_path / "splits", tmp_path / "sides.csv")
    found = report(tmp_path)
    assert sum(side["groups"] for side in found["sides"].values()) == 11  # of 12 sessions two are one scene
    assert [found["sides"][side]["pictures"] for side in SIDES] == pytest.approx([970, 121, 121], abs=40)
    assert all(found["sides"][side]["boxes"][name] >= 10 for side in SIDES for name in "012345")
    assert found["random_split_leaks"] > 100

"""data/yolo -> train.txt, val.txt, test.txt: whole groups of related pictures on one side each, and the proof of it."""

import csv
import json
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import yaml

from stages.balance import NEW, SIDES, Counts, Places, fractions, place
from stages.files import read_json, whole_directory, write_json, write_text
from stages.launch import launch
from stages.params import GroupBy, Params, SplitParams, StageError
from stages.vision.likeness import clusters, hash_pictures, torn_apart

logger = logging.getLogger(__name__)

NAMED_TIES = ("session", "roboflow", "bytes")  # those that the ledger tells; likeness is seen in the pixels

COLUMNS = ["kind", "source", "name", "side"]
KINDS = ("session", "picture")


class Key(NamedTuple):
    """Under what a picture's side is remembered: its session, or itself if it has none."""

    kind: str
    source: str
    name: str


@dataclass(frozen=True)
class Picture:
    """A kept picture, and what ties it to others."""

    id: str
    file: str  # under data/yolo
    keys: Sequence[Key]
    ties: Mapping[str, Sequence[Hashable]]  # for each of NAMED_TIES what it shares with the pictures it belongs with
    boxes: Mapping[str, int]  # class -> how many


def split(params: Params, yolo: Path, splits: Path, sides: Path) -> None:
    """sides is the memory of the splits before: read if it exists, written last."""
    rules = params.split
    classes, pictures = read_pictures(yolo / "ledger.json", rules.group_by)
    logger.info("%d pictures, %d classes", len(pictures), len(classes))
    hashes = hash_pictures([yolo / picture.file for picture in pictures])
    groups, joined_by = group(pictures, clusters(hashes, rules.near_duplicate_bits))
    if len(groups) < len(SIDES):
        raise StageError(
            f"{yolo / 'ledger.json'}: {len(pictures)} pictures in {len(groups)} groups; train, val and test need one "
            "each: let split.group_by tell more sessions apart, or lower split.near_duplicate_bits"
        )
    remembered = settle(groups, read_sides(sides, rules))
    places = place(strata(groups, classes), remembered, rules)
    if bare := [side for number, side in enumerate(SIDES) if number not in places]:
        raise StageError(f"{sides}: leaves no group for {' and '.join(bare)}; move one there, or delete the file")

    side_of = {picture.id: SIDES[at] for at, members in zip(places, groups, strict=True) for picture in members}
    tallies = {side: tally(groups, places == number, classes) for number, side in enumerate(SIDES)}
    with whole_directory(splits) as out:
        write_lists(out, pictures, side_of, Path(os.path.relpath(yolo, splits)))
        write_text(out / "data.yaml", data_yaml(classes))
        crossing = crossings(pictures, hashes, read_lists(out), rules.near_duplicate_bits)
        if any(crossing.values()):
            raise StageError(f"{splits}: relatives on different sides ({crossing}): a bug in split, please report it")
        leaks = torn_apart(hashes, random_places(len(pictures), rules), rules.near_duplicate_bits)
        report = {"sides": tallies, "joined_by": joined_by, "crossing": crossing, "random_split_leaks": leaks}
        write_json(out / "report.json", report)
    write_text(sides, sides_csv(pictures, side_of, rules))
    sizes = ", ".join(f"{side} {tallies[side]['pictures']}" for side in SIDES)
    new = int(np.count_nonzero(remembered == NEW))
    logger.info("%d pictures in %d groups (%d new): %s", len(pictures), len(groups), new, sizes)


def read_pictures(ledger_file: Path, group_by: GroupBy) -> tuple[list[str], list[Picture]]:
    """The classes, and the kept pictures by rising id. Raises StageError when there is none."""
    ledger = read_json(ledger_file)
    kept = {id_: entry for id_, entry in sorted(ledger["assets"].items()) if entry["outcome"] == "kept"}
    if not kept:
        raise StageError(f"{ledger_file}: keeps none of {len(ledger['assets'])} assets; it says why: nothing to split")
    copied = {(entry["source"], stem) for entry in kept.values() if (stem := roboflow_stem(entry["file_name"]))}
    pictures = []
    for id_, entry in kept.items():
        source, file_name = entry["source"], entry["file_name"]
        sessions = [Key("session", source, name) for name in session_names(file_name, entry["tags"], group_by)]
        original = (source, roboflow_stem(file_name) or as_stem(file_name))
        ties: dict[str, Sequence[Hashable]] = {
            "session": sessions,
            "roboflow": [original] if original in copied else [],
            "bytes": [entry["sha256"]],
        }
        pictures.append(Picture(id_, entry["file"], sessions or [Key("picture", source, id_)], ties, entry["boxes"]))
    return ledger["classes"], pictures


def session_names(file_name: str, tags: Iterable[str], group_by: GroupBy) -> list[str]:
    """Each once. An empty capture is a session too: the `pic0001.jpg` that lie beside `2_pic0001.jpg`."""
    searched = [(group_by.file_name, file_name), *((group_by.tag, tag) for tag in tags)]
    found = (re.search(regex, text) for regex, text in searched if regex is not None)
    return sorted({match[1] for match in found if match and match[1] is not None})


def roboflow_stem(file_name: str) -> str | None:
    """What Roboflow's copies of one picture share: `hand_jpg.rf.<hash>.jpg`, augmented or not, -> `hand-jpg`."""
    stem, mark, _ = file_name.partition(".rf.")
    return as_stem(stem) if mark else None


def as_stem(file_name: str) -> str:
    """`hand.jpg` and `hand_jpg` -> `hand-jpg`: Roboflow puts other marks for some characters of a name."""
    return re.sub(r"[\W_]+", "-", PurePosixPath(file_name).name)


def group(pictures: Sequence[Picture], alike: Sequence[int | None]) -> tuple[list[list[Picture]], dict[str, int]]:
    """Whoever shares a tie, or a number in alike, is in one group, and so on through third parties.

    Groups by their first picture; and how often each reason joined two groups that were apart until then, so that
    groups and joins add up to the pictures.
    """
    first_in = list(range(len(pictures)))

    def first(position: int) -> int:
        while first_in[position] != position:
            first_in[position] = position = first_in[first_in[position]]
        return position

    relations = {reason: [picture.ties[reason] for picture in pictures] for reason in NAMED_TIES}
    relations["likeness"] = [[] if number is None else [number] for number in alike]
    joined_by = dict.fromkeys(relations, 0)
    for reason, ties_of_each in relations.items():
        holder: dict[Hashable, int] = {}
        for position, ties in enumerate(ties_of_each):
            for tie in ties:
                low, high = sorted((first(position), first(holder.setdefault(tie, position))))
                first_in[high] = low
                joined_by[reason] += low != high
    members: dict[int, list[Picture]] = defaultdict(list)
    for position, picture in enumerate(pictures):
        members[first(position)].append(picture)
    return list(members.values()), joined_by


def settle(groups: Sequence[Sequence[Picture]], memory: Mapping[Key, int]) -> Places:
    """The remembered side of each group, or NEW. Groups that a new picture joined go where most of their pictures are:
    staying put matters less than leakage.
    """
    settled = np.full(len(groups), NEW)
    for number, members in enumerate(groups):
        keys = [key for picture in members for key in picture.keys if key in memory]
        if not keys:
            continue
        votes = Counter(memory[key] for key in keys)
        settled[number] = chosen = min(votes, key=lambda at: (-votes[at], at))
        if moved := sorted({key for key in keys if memory[key] != chosen}):
            shown = ", ".join(f"{key.kind} {key.name!r} of {key.source}" for key in moved[:5])
            more = f" and {len(moved) - 5} more" if len(moved) > 5 else ""
            others = next(key for key in keys if memory[key] == chosen)
            logger.warning(
                "%s%s moved to %s: belongs with %s %r now", shown, more, SIDES[chosen], others.kind, others.name
            )
    return settled


def strata(groups: Sequence[Sequence[Picture]], classes: Sequence[str]) -> Counts:
    """(groups, strata)."""
    return np.array(
        [
            [len(members), sum(not picture.boxes for picture in members)]
            + [sum(picture.boxes.get(name, 0) for picture in members) for name in classes]
            for members in groups
        ],
        np.int64,
    )


def random_places(number: int, rules: SplitParams) -> list[int]:
    """What a split without groups does, in the same fractions."""
    ranks = np.random.default_rng(rules.seed).permutation(number)
    ends = np.cumsum(fractions(rules))[:-1] * number
    return [int(place) for place in np.searchsorted(ends, ranks, side="right")]


def read_sides(path: Path, rules: SplitParams) -> dict[Key, int]:
    """Empty without a file, or when other params made it. Raises StageError, naming the line, for any other text."""
    try:
        header, _, table = path.read_text(encoding="utf-8-sig").partition("\n")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise StageError(
            f"{path}: not UTF-8 ({error.reason}); save it as such, or delete it to decide afresh"
        ) from None
    if header.startswith("# ") and header != made_with(rules):
        logger.info("%s: made with other fractions, seed or group_by: every side is decided afresh", path)
        return {}
    memory: dict[Key, int] = {}
    for line, row in numbered_rows(path, header, table):
        match row:
            case [kind, source, name, side] if kind in KINDS and side in SIDES:
                key = Key(kind, source, name)
            case _:
                allowed = f"a row is {','.join(COLUMNS)} with kind {' or '.join(KINDS)}, side {' or '.join(SIDES)}"
                raise malformed(path, line, f"{','.join(row)!r}: {allowed}")
        if key in memory:
            raise malformed(path, line, f"{kind} {name!r} of {source} stands twice")
        memory[key] = SIDES.index(side)
    return memory


def numbered_rows(path: Path, header: str, table: str) -> Iterator[tuple[int, list[str]]]:
    if not header.startswith("# "):
        raise malformed(path, 1, f"{header!r}: the first line says '# ' and which params the sides were made with")
    rows = csv.reader(StringIO(table), strict=True)
    try:
        if (columns := next(rows, [])) != COLUMNS:
            raise malformed(path, 2, f"{','.join(columns)!r}: the columns are {','.join(COLUMNS)}")
        yield from ((rows.line_num + 1, row) for row in rows if row)
    except csv.Error as error:
        raise malformed(path, rows.line_num + 1, str(error)) from None


def malformed(path: Path, line: int, what: str) -> StageError:
    return StageError(f"{path}:{line}: {what}; put it right, or delete the file to decide every side afresh")


def sides_csv(pictures: Iterable[Picture], side_of: Mapping[str, str], rules: SplitParams) -> str:
    """Sessions first, for people who look for one to move."""
    rows = {(*key, side_of[picture.id]) for picture in pictures for key in picture.keys}
    text = StringIO()
    text.write(made_with(rules) + "\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *sorted(rows, key=lambda row: (KINDS.index(row[0]), row))])
    return text.getvalue()


def made_with(rules: SplitParams) -> str:
    decisive = rules.model_dump(include={"train", "val", "test", "seed", "group_by"})
    return f"# kept as long as split has {json.dumps(decisive, sort_keys=True, ensure_ascii=False)}"


def write_lists(folder: Path, pictures: Iterable[Picture], side_of: Mapping[str, str], yolo: Path) -> None:
    """Paths start with ./, which Ultralytics takes to mean: from the list's own folder. yolo: relative to it."""
    lines: dict[str, list[str]] = {side: [] for side in SIDES}
    for picture in pictures:
        lines[side_of[picture.id]].append(f"./{(yolo / picture.file).as_posix()}\n")
    for side in SIDES:
        write_text(folder / f"{side}.txt", "".join(sorted(lines[side])))


def read_lists(folder: Path) -> list[tuple[str, int]]:
    """(file name, side) as written."""
    texts = ((folder / f"{side}.txt").read_text(encoding="utf-8") for side in SIDES)
    return [(PurePosixPath(line).name, side) for side, text in enumerate(texts) for line in text.splitlines()]


def data_yaml(classes: Sequence[str]) -> str:
    """Without `path`, Ultralytics looks for the lists beside this file, wherever it stands."""
    names = dict(enumerate(classes))
    return yaml.safe_dump({**{side: f"{side}.txt" for side in SIDES}, "names": names}, sort_keys=False)


def crossings(
    pictures: Sequence[Picture], hashes: Sequence[int | None], listed: Iterable[tuple[str, int]], max_bits: int
) -> dict[str, int]:
    """What the lists tear apart, counted without the groups: sessions, stems and identical bytes found on more than one
    side, pictures with a near-duplicate on another, and pictures not listed exactly once. All must be 0.
    """
    sides_of: dict[str, list[int]] = defaultdict(list)
    for file_name, side in listed:
        sides_of[file_name].append(side)
    sides = [sides_of.pop(PurePosixPath(picture.file).name, []) for picture in pictures]
    torn = {"not_listed_once": sum(len(found) != 1 for found in sides) + len(sides_of)}
    for reason in NAMED_TIES:
        reached: dict[Hashable, set[int]] = defaultdict(set)
        for picture, found in zip(pictures, sides, strict=True):
            for tie in picture.ties[reason]:
                reached[tie].update(found)
        torn[reason] = sum(len(found) > 1 for found in reached.values())
    listed_hashes = [value if found else None for value, found in zip(hashes, sides, strict=True)]
    torn["likeness"] = torn_apart(listed_hashes, [found[0] if found else 0 for found in sides], max_bits)
    return torn


def tally(groups: Sequence[Sequence[Picture]], chosen: npt.NDArray[np.bool_], classes: Sequence[str]) -> dict[str, Any]:
    here = strata([members for members, is_here in zip(groups, chosen, strict=True) if is_here], classes)
    pictures, background, *boxes = here.sum(axis=0).tolist()
    by_class = dict(zip(classes, boxes, strict=True))
    return {"groups": len(here), "pictures": pictures, "background": background, "boxes": by_class}


if __name__ == "__main__":
    launch(split)

"""A dataset version on Picsellia -> assets, by the real SDK, from a stand-in that speaks its protocol and fails."""

import logging
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from benchmarks.cost import cost_of
from stages.convert import convert, orders_compared
from stages.files import read_json
from stages.params import Params, PicselliaParams, StageError
from stages.pull import pull
from stages.sources import picsellia as source
from stages.sources import store
from stages.sources.picsellia import Redaction, check_token
from tests import native
from tests.native import accepted, noise, png, rectangle
from tests.picsellia_platform import TOKEN, VERSION, Fault, Picture, Platform, Serve, serve

__all__ = ["serve"]

ONE = accepted(rectangle("1"))


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.local/` below tmp_path, the stand-in's token, and nobody waits between two tries."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("PICSELLIA_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("PICSELLIA_TOKEN_FILE", raising=False)
    monkeypatch.setattr(source, "BACKOFF", 0)
    monkeypatch.setenv("PICSELLIA_SDK_CUSTOM_LOGGING", "1")  # the next line imports the SDK
    monkeypatch.setattr("picsellia.decorators.time", SimpleNamespace(sleep=lambda _: None))


def section(platform: Platform, **changes: str) -> dict[str, str]:
    return {"dataset": "hands", "version": "v1", "organization": "", "host": platform.host, **changes}


def params_for(platform: Platform, **changes: object) -> Params:
    named = {"pull.sources": ["picsellia"], "pull.picsellia": section(platform), "convert.max_excluded": 0.9}
    return native.params(**{**named, "convert.may_be_absent": [*"012345", "unknown"], **changes})


def pulled(platform: Platform, folder: Path) -> dict[str, bytes]:
    """File name on the platform: what was pulled, of pictures whose names differ."""
    pull(params_for(platform), folder / "raw")
    assets = read_json(folder / "raw/assets.json")
    return {asset["file_name"]: (folder / "raw/images" / asset["file"]).read_bytes() for asset in assets}


PULL = [sys.executable, "-m", "stages.pull", "raw"]


def start_pull(platform: Platform, folder: Path) -> subprocess.Popen[bytes]:
    """The stage as a process of its own, with folder as its repository."""
    write_params(platform, folder)
    return subprocess.Popen(PULL, cwd=folder, env=environment(), stderr=subprocess.PIPE)


def write_params(platform: Platform, folder: Path) -> None:
    document = yaml.safe_load((native.ROOT / "params.yaml").read_text(encoding="utf-8"))
    document["pull"] |= {"sources": ["picsellia"], "picsellia": section(platform)}
    (folder / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(native.ROOT)}


def some(count: int) -> list[Picture]:
    return [Picture(f"{number}.png", [ONE]) for number in range(count)]


def kept(folder: Path) -> list[str]:
    return sorted(os.listdir(folder / ".local/picsellia" / VERSION))


def test_every_asset_of_the_platform_has_its_place_in_the_ledger(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    polygon = {"polygons": [{"coords": [[1, 1], [9, 1], [9, 9]], "label": {"name": "1"}}]}
    pictures = {
        "one.png": (Picture("one.png", [ONE], tags=["session:a"]), None),
        "as an object.png": (Picture("as an object.png", [accepted(rectangle("x") | {"label": {"name": "2"}})]), None),
        "several.png": (Picture("several.png", [{"status": "REFUSED"}, accepted(rectangle("3")), ONE]), None),
        "background.png": (Picture("background.png", [accepted(classifications=[], polygons=[])]), None),
        "../evil.jpg": (Picture("../evil.jpg", [ONE]), None),
        "without a size.png": (Picture("without a size.png", [ONE], size=None), None),
        "bare.png": (Picture("bare.png"), "not annotated"),
        "refused.png": (Picture("refused.png", [{"status": "REFUSED"}]), "annotation refused"),
        "skipped.png": (Picture("skipped.png", [{"status": "SKIPPED"}]), "annotation skipped"),
        "polygon.png": (Picture("polygon.png", [accepted(**polygon)]), "no rectangles: 1 polygons"),
        "class.png": (Picture("class.png", [accepted(classifications=[{}])]), "no rectangles: 1 classifications"),
        "pending.png": (Picture("pending.png", [ONE], status="PENDING", size=None), "upload pending"),
        "error.png": (Picture("error.png", status="ERROR", size=None), "upload error"),
        "film.mp4": (Picture("film.mp4", [{"rectangles": [{"frame": 1}]}], type="VIDEO"), "video"),
        "broken.png": (Picture("broken.png", [ONE], content=png(noise(1))[:-40]), "unreadable: truncated"),
        "turned.png": (Picture("turned.png", [ONE], size=(48, 64)), "size differs: 64x48 decoded, 48x64 annotated"),
    }
    twins = [Picture("twin.png", [accepted(rectangle(label))]) for label in ("4", "5")]
    labels = ["5", "4", "3", "2", "1", "0", "unknown", "thumb"]
    platform = serve([*(picture for picture, _ in pictures.values()), *twins], labels=labels)

    with caplog.at_level(logging.INFO, "stages"):
        pull(params_for(platform), tmp_path / "raw")
        convert(params_for(platform), tmp_path / "raw", tmp_path / "yolo")

    entries = read_json(tmp_path / "yolo/ledger.json")["assets"].values()
    assert Counter(entry["file_name"] for entry in entries) == {**dict.fromkeys(pictures, 1), "twin.png": 2}
    assert {entry["file_name"]: entry["reason"] for entry in entries} == {
        **{name: reason for name, (_, reason) in pictures.items()},
        "twin.png": None,
    }
    boxes = {entry["file_name"]: entry["boxes"] for entry in entries}
    assert boxes["several.png"] == {"3": 1}
    assert boxes["as an object.png"] == {"2": 1}
    assert sorted(list(entry["boxes"]) for entry in entries if entry["file_name"] == "twin.png") == [["4"], ["5"]]
    assert {entry["source"] for entry in entries} == {"picsellia:hands"}
    assert next(entry["tags"] for entry in entries if entry["file_name"] == "one.png") == ["session:a"]
    assert sorted(os.listdir(tmp_path)) == [".local", "raw", "yolo"]
    assert read_json(tmp_path / "raw/labels.json") == {"picsellia:hands": labels}
    reasons = sorted(str(entry["reason"]) for entry in entries)
    copy = {"pull.sources": ["folder"], "pull.folder.paths": [str(tmp_path / "raw")]}
    pull(params_for(platform, **copy), tmp_path / "copy")
    convert(params_for(platform), tmp_path / "copy", tmp_path / "again")
    entries = read_json(tmp_path / "again/ledger.json")["assets"].values()
    assert sorted(str(entry["reason"]) for entry in entries) == reasons
    said = "\n".join(caplog.messages)
    assert f"picsellia:hands orders its labels {', '.join(labels)}; ids follow convert.classes all the same" in said
    assert "picsellia:hands has labels that mean no class, and no box uses them: thumb" in said
    assert "18 pictures from picsellia (hands/v1: 18 assets, 14 annotated; DVC does not watch the platform" in said


@pytest.mark.parametrize(
    ("labels", "lines"),
    [
        ({}, []),
        ({"a": []}, []),
        ({"a": ["0", "1_doigt", "5"]}, []),
        ({"a": ["1", "0"]}, ["a orders its labels 1, 0; ids follow convert.classes all the same"]),
        ({"a": ["0", "toe"]}, ["a has labels that mean no class, and no box uses them: toe"]),
    ],
)
def test_orders_of_labels_are_compared_with_the_classes(labels: dict[str, list[str]], lines: list[str]) -> None:
    assert list(orders_compared(labels, native.params().convert)) == lines


def test_pulling_again_fetches_nothing_and_writes_the_same_bytes(serve: Serve, tmp_path: Path) -> None:
    platform = serve(some(5))
    first = pulled(platform, tmp_path)
    index = [(tmp_path / "raw" / name).read_bytes() for name in ("assets.json", "annotations.json", "labels.json")]
    platform.expire()
    assert pulled(platform, tmp_path) == first
    assert platform.fetched() == 5
    assert index == [
        (tmp_path / "raw" / name).read_bytes() for name in ("assets.json", "annotations.json", "labels.json")
    ]


def test_a_picture_keeps_its_id_in_the_next_version(serve: Serve, tmp_path: Path) -> None:
    ids = []
    for version, count in (("v1", 3), ("v2", 4)):
        platform = serve(some(count), version=version)
        params = params_for(platform, **{"pull.picsellia": section(platform, version=version)})
        pull(params, tmp_path / version)
        ids.append([asset["id"] for asset in read_json(tmp_path / version / "assets.json")])
    assert ids[0] == ids[1][:3]


@pytest.mark.parametrize(
    "faults",
    [(500, 503), (429,), (403,), ("short",), ("unsized",), ("dropped",), ("slow",), (500,) * 5],
    ids=["500", "429", "403", "short", "unsized", "dropped", "slow", "a second turn"],
)
def test_a_file_that_fails_to_come_is_asked_for_again(serve: Serve, tmp_path: Path, faults: Sequence[Fault]) -> None:
    platform = serve(some(3))
    platform.fail("^/files/", *faults)
    assert pulled(platform, tmp_path) == {f"{number}.png": png(noise(number)) for number in range(3)}


def test_addresses_that_have_expired_are_asked_for_again(serve: Serve, tmp_path: Path) -> None:
    platform = serve(some(3))
    platform.on("annotations/ids$", platform.expire)
    assert len(pulled(platform, tmp_path)) == 3
    assert sum(count for path, count in platform.asked.items() if path.endswith("/presigned-url")) == 3


def test_addresses_that_the_listing_does_not_carry_are_asked_for(serve: Serve, tmp_path: Path) -> None:
    assert len(pulled(serve(some(3), addresses=False), tmp_path)) == 3


@pytest.mark.parametrize("fault", [404, 500, "unsized", "dropped"])
def test_files_that_do_not_come_are_named_and_the_others_kept(serve: Serve, tmp_path: Path, fault: Fault) -> None:
    platform = serve(some(6))
    lost = [platform.stored[platform.asset_id(f"{number}.png")].data_id for number in (1, 4)]
    for data_id in lost:
        platform.fail(f"/files/{data_id}", *[fault] * 10)
    with pytest.raises(StageError, match=r"^2 of 6 pictures could not be fetched: 1\.png \(.*; 4\.png \(") as error:
        pulled(platform, tmp_path)
    assert not (tmp_path / "raw").exists()
    assert_nothing_secret(str(error.value))
    platform.heal()
    asked = platform.fetched()
    assert len(pulled(platform, tmp_path)) == 6
    assert platform.fetched() - asked == 2


def test_when_no_file_comes_at_all_the_rest_is_not_asked_for(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BATCH", 4)
    platform = serve(some(40))
    platform.fail("^/files/", *[404] * 80)
    with pytest.raises(StageError, match=r"^40 of 40 pictures could not be fetched: 0\.png .*; and 36 more\."):
        pulled(platform, tmp_path)
    assert platform.fetched() == 8


def test_a_pull_that_was_killed_goes_on_where_it_was(serve: Serve, tmp_path: Path) -> None:
    platform = serve(some(24))
    platform.fail("^/files/", *("slow",) * 24)
    with start_pull(platform, tmp_path) as process:
        deadline = time.monotonic() + 30
        while platform.fetched() <= 16:  # the third eight are under way
            assert time.monotonic() < deadline and process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.kill()
        process.wait()
    assert not (tmp_path / "raw").exists()
    done = [name for name in kept(tmp_path) if "." in name]
    asked = platform.fetched()
    assert len(done) >= 8
    platform.heal()
    assert len(pulled(platform, tmp_path)) == 24
    assert platform.fetched() - asked == 24 - len(done)


def test_a_kept_file_that_has_changed_on_the_disk_is_fetched_again(serve: Serve, tmp_path: Path) -> None:
    platform = serve(some(3))
    whole = pulled(platform, tmp_path)
    spoilt = tmp_path / ".local/picsellia" / VERSION / kept(tmp_path)[0]
    spoilt.write_bytes(spoilt.read_bytes()[:-1])
    assert pulled(platform, tmp_path) == whole
    assert platform.fetched() == 4


def test_what_the_platform_drops_is_dropped_here(serve: Serve, tmp_path: Path) -> None:
    platform = serve(some(3))
    pulled(platform, tmp_path)
    gone = platform.asset_id("1.png")
    del platform.stored[gone]
    assert list(pulled(platform, tmp_path)) == ["0.png", "2.png"]
    assert not [name for name in kept(tmp_path) if name.startswith(gone)]


def test_a_file_that_the_platform_holds_broken_is_asked_for_twice_a_pull_and_heals(
    serve: Serve, tmp_path: Path
) -> None:
    platform = serve([Picture("0.png", [ONE], content=b"half a pict"), *some(2)[1:]])
    assert pulled(platform, tmp_path)["0.png"] == b"half a pict"
    assert platform.fetched() == 3
    platform.stored[platform.asset_id("0.png")].content = png(noise(0))
    assert pulled(platform, tmp_path)["0.png"] == png(noise(0))
    assert platform.fetched() == 4


def test_annotations_in_many_answers_stay_newest_first(serve: Serve, tmp_path: Path) -> None:
    several = [{"status": "REFUSED"}, *(accepted(rectangle(str(number % 6))) for number in range(250))]
    platform = serve([Picture("0.png", several), *some(3)])
    platform.fail("annotations$", "slow")
    pulled(platform, tmp_path)
    (found,) = [each for each in read_json(tmp_path / "raw/annotations.json").values() if len(each) > 1]
    assert found == several


@pytest.mark.parametrize(("kind", "answers"), [("OBJECT_DETECTION", 1), ("SEGMENTATION", 3)])
def test_fewer_annotations_are_asked_for_at_once_where_they_are_large(
    serve: Serve, tmp_path: Path, kind: str, answers: int
) -> None:
    platform = serve(some(25), version_type=kind)
    pulled(platform, tmp_path)
    assert platform.asked[f"XGET /api/dataset/version/{VERSION}/annotations"] == answers


@pytest.mark.parametrize(
    ("pictures", "settings", "message"),
    [
        ([], {}, "has no assets (pull.picsellia.version)"),
        (some(3), {"unlisted": 2}, "announces 5 assets and lists 3; pull when nobody changes it"),
        (some(3), {"keep": lambda each: each["rectangles"] == []}, "lists 3 annotations and hands over 0; pull again"),
        (
            [*some(2), Picture("gone.png", [ONE], status="GONE")],
            {},
            "has annotations of 1 assets that it does not list",
        ),
        (
            [Picture("0.png", [accepted(rectangle("1", x=float("nan")))])],
            {},
            "0.png: annotation {annotation}: rectangles.0.x: input should be a finite number; correct it",
        ),
    ],
    ids=["empty", "assets missing", "annotations missing", "strangers", "malformed"],
)
def test_a_version_in_part_is_refused(
    serve: Serve, tmp_path: Path, pictures: list[Picture], settings: dict[str, Any], message: str
) -> None:
    platform = serve(pictures, **settings)
    with pytest.raises(StageError) as error:
        pulled(platform, tmp_path)
    first = next((stored.annotation_ids[0] for stored in platform.stored.values()), "")
    assert str(error.value).startswith(f"{platform.host}: hands/v1: {message.format(annotation=first)}")
    assert not (tmp_path / "raw").exists()


def test_an_asset_that_is_listed_twice_is_refused(serve: Serve, tmp_path: Path) -> None:
    platform = serve(some(2))
    platform.stored["again"] = platform.stored[platform.asset_id("0.png")]
    with pytest.raises(StageError, match=r"hands/v1: lists asset .* 2 times"):
        pulled(platform, tmp_path)


def test_annotations_without_a_status_count_as_accepted_and_are_told(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    platform = serve([Picture("0.png", [{"rectangles": [rectangle("1")]}]), *some(2)])
    pulled(platform, tmp_path)
    assert "1 annotations come without a status, and count as accepted" in caplog.text


@pytest.mark.parametrize("fault", [429, 500, 502, 503, "dropped"])
def test_the_api_is_asked_again_while_it_is_busy(serve: Serve, tmp_path: Path, fault: Fault) -> None:
    platform = serve(some(2))
    for path in ("ping$", "assets$", "annotations/ids$", "annotations$"):
        platform.fail(path, fault, fault)
    assert len(pulled(platform, tmp_path)) == 2


@pytest.mark.parametrize(
    ("path", "fault", "message"),
    [
        ("ping$", 401, "refuses the token; make one in the platform's Profile Settings > Token"),
        ("ping$", 503, "[503] Something went wrong, the platform says 503; try again later"),
        ("ping$", "dropped", "cannot be reached (pull.picsellia.host, or the network): "),
        ("ping$", "html", "is no Picsellia (pull.picsellia.host): its answer is not JSON"),
        ("assets$", 401, "refuses the token"),
        ("assets$", 403, "the token's user may not do this: the platform says 403; ask the organization's owner"),
        ("assets$", 429, "the platform says 429; try again later"),
        ("assets$", "html", "hands/v1: assets: the answer: invalid json"),
        ("annotations$", 500, "the platform says 500; try again later"),
    ],
)
def test_what_stays_wrong_is_said_in_one_line(
    serve: Serve, tmp_path: Path, path: str, fault: Fault, message: str
) -> None:
    platform = serve(some(2))
    platform.fail(path, *[fault] * 40)
    with pytest.raises(StageError) as error:
        pulled(platform, tmp_path)
    assert str(error.value).startswith(f"{platform.host}: {message}")
    assert error.value.__cause__ is None and error.value.__suppress_context__
    assert "\n" not in str(error.value)
    assert_nothing_secret(str(error.value))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "feet"}, "{host}: no 'feet' in acme, where there is hands (pull.picsellia.dataset)"),
        ({"version": "v9"}, "{host}: no 'v9' of hands, of which there is v1 (pull.picsellia.version)"),
        ({"organization": "globex"}, "pull.picsellia.organization: 'globex' is none of those of the token's user"),
    ],
)
def test_a_name_that_is_not_there_is_told_with_those_that_are(
    serve: Serve, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    platform = serve(some(1))
    params = params_for(platform, **{"pull.picsellia": section(platform, **change)})
    with pytest.raises(StageError) as error:
        pull(params, tmp_path / "raw")
    assert str(error.value).startswith(message.format(host=platform.host))


def test_an_organization_may_be_named(serve: Serve) -> None:
    platform = serve(some(1))
    assert check_token(PicselliaParams(**section(platform, organization="acme"))) == "alice"


def test_nobody_at_the_address_is_one_line() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    params = PicselliaParams(dataset="", version="", organization="", host=f"http://127.0.0.1:{port}")
    with pytest.raises(StageError, match=r"cannot be reached .*Connection refused") as error:
        check_token(params)
    assert_nothing_secret(str(error.value))


@pytest.mark.parametrize(
    ("variable", "file", "message"),
    [
        ("", None, "PICSELLIA_TOKEN: no token; make one"),
        ("two words", None, "PICSELLIA_TOKEN: holds more than a token"),
        ("", "", "PICSELLIA_TOKEN_FILE: {path}: no token; make one"),
        ("", "a\nb", "PICSELLIA_TOKEN_FILE: {path}: holds more than a token"),
        ("", "é".encode("latin-1"), "PICSELLIA_TOKEN_FILE: {path}: is not text"),
        ("", "absent", "PICSELLIA_TOKEN_FILE: {path}: no such file or directory"),
        ("", "folder", "PICSELLIA_TOKEN_FILE: {path}: is a directory"),
        ("", f"{TOKEN}\n", None),
        (TOKEN, "absent", None),
    ],
)
def test_the_token_comes_from_the_environment_or_a_file(
    serve: Serve,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    file: str | bytes | None,
    message: str | None,
) -> None:
    path = tmp_path / "token"
    monkeypatch.setenv("PICSELLIA_TOKEN", variable)
    if file is not None:
        monkeypatch.setenv("PICSELLIA_TOKEN_FILE", str(path))
    if file == "folder":
        path.mkdir()
    elif file is not None and file != "absent":
        path.write_bytes(file if isinstance(file, bytes) else file.encode())
    params = PicselliaParams(**section(serve(some(1))))
    if message is None:
        assert check_token(params) == "alice"
    else:
        with pytest.raises(StageError) as error:
            check_token(params)
        assert str(error.value).startswith(message.format(path=path))


def test_a_token_that_is_refused_is_not_shown(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = serve(some(1))
    monkeypatch.setenv("PICSELLIA_TOKEN", "pxl-of-somebody-else")
    with pytest.raises(StageError, match="refuses the token") as error:
        check_token(PicselliaParams(**section(platform)))
    assert "somebody" not in str(error.value)


def test_nothing_secret_is_logged_whatever_goes_wrong_and_at_any_level(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    platform = serve(some(4))
    platform.fail("^/files/", 500, "short", "dropped", 403, "unsized")
    platform.fail("assets$", 429)
    with caplog.at_level(logging.DEBUG):
        pulled(platform, tmp_path)
    assert any(record.name == "urllib3.connectionpool" for record in caplog.records)
    assert_nothing_secret(caplog.text)
    assert capfd.readouterr() == ("", "")  # no bar, no greeting
    written = b"".join(path.read_bytes() for path in (tmp_path / "raw").glob("*.json"))
    assert_nothing_secret(written.decode())


def test_a_traceback_is_not_logged_with_what_it_shows(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("tests.redaction")
    log.addFilter(Redaction(SecretStr(TOKEN)))
    error = OSError(f"https://bucket/picture?X-Amz-Signature=0 {TOKEN}")
    log.error("cannot send: %s", error, exc_info=error)
    assert "cannot send: https://bucket/picture?[...] [PICSELLIA_TOKEN]" in caplog.text
    assert_nothing_secret(caplog.text)


def test_the_sdk_leaves_the_logging_of_others_alone(serve: Serve) -> None:
    platform = serve(some(1))
    code = (
        "import logging, sys\n"
        "from stages.launch import configure_logging\n"
        "from stages.params import PicselliaParams\n"
        "configure_logging('pull')\n"
        "before = logging.getLogger('stages'), list(logging.root.handlers), logging.root.level\n"
        "from stages.sources.picsellia import check_token\n"
        "check_token(PicselliaParams(dataset='', version='', organization='', host=sys.argv[1]))\n"
        "assert before == (logging.getLogger('stages'), logging.root.handlers, logging.root.level)\n"
        "assert not before[0].disabled\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, platform.host]
    environment = {name: value for name, value in os.environ.items() if name != "PICSELLIA_SDK_CUSTOM_LOGGING"}
    done = subprocess.run(command, cwd=native.ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_listing_is_read_to_its_last_page(serve: Serve, tmp_path: Path) -> None:
    platform = serve(some(10), page=3)
    assert len(pulled(platform, tmp_path)) == 10
    assert platform.asked[f"GET /api/dataset/version/{VERSION}/assets"] == 4


@pytest.mark.slow
def test_ten_thousand_assets_are_pulled_a_few_at_a_time(serve: Serve, tmp_path: Path) -> None:
    content = png(noise(1, 8, 8))
    platform = serve([Picture(f"{number}.png", [ONE], content=content, size=(8, 8)) for number in range(10_000)])

    write_params(platform, tmp_path)
    cost = cost_of(PULL, folder=tmp_path, environment=environment(), report=tmp_path / "cost.json")
    assert len(read_json(tmp_path / "raw/assets.json")) == platform.fetched() == 10_000
    assert cost.peak_mb < 400


def assert_nothing_secret(text: str) -> None:
    assert TOKEN not in text
    assert "Signature" not in text

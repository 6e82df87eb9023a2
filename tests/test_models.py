"""Versions listed, made champion, and taken back, in a real registry."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from ops.models import champions, listed, open_registry, promote, rollback
from stages.mlflow_client import connect, tracking_uri
from stages.params import StageError
from stages.registry import Promotion, Registry
from tests.native import ROOT
from tests.platform import Platform
from tests.released import model, registered

PASSED = {"passed": True, "failures": []}
FAILED = {"passed": False, "failures": [{"gate": "mAP50", "value": 0.7, "needed": 0.8, "text": "mAP50 0.7000 too low"}]}


@pytest.fixture
def registry(local_store: Path) -> Registry:
    """Three versions: 1, which is champion, 2, and 3, which failed a gate."""
    registry = Registry("fingers")
    for count, gates in enumerate((PASSED, PASSED, FAILED), 1):
        registered(registry, model(local_store / f"{count}.onnx", count), gates=gates)
    registry.set_alias("champion", registry.find("1"))
    return registry


def champion(registry: Registry) -> str:
    return registry.find("champion").number


def stored_files(root: Path, version: str) -> list[Path]:
    sha256 = Registry("fingers").find(version).identity[:12]
    return list((root / ".local/mlflow/artifacts").rglob(f"{sha256}/detector.onnx"))


@pytest.mark.parametrize(
    ("promotions", "present", "expected"),
    [
        ([], None, []),
        ([], "1", ["1"]),  # made champion before there was a record
        (["1", "1>2"], "2", ["1", "2"]),
        (["1", "1>2", "2>3", "3<2"], "2", ["1", "2"]),  # rolled back once
        (["1", "1>2", "2>3", "3<2", "2<1"], "1", ["1"]),  # and twice
        (["1", "1>2", "2<1", "1>3"], "3", ["1", "3"]),  # 2 was taken back: it is not gone back to
        (["1", "1>2", "2>1"], "1", ["1", "2", "1"]),  # promoted again
        (["4>5"], "5", ["4", "5"]),  # 4 was champion before there was a record
        (["1", "1>2", "2>3"], "9", ["1", "2", "3", "9"]),  # 9 by hand in MLflow's pages
        (["1", "1>2", "2>3", "1>4"], "4", ["1", "4"]),  # back to 1 by hand, then 4
        (["1", "1>2", "2<1", "2<1"], "1", ["1"]),  # two people rolled back at once
    ],
)
def test_the_champions_that_a_rollback_goes_through(
    promotions: Sequence[str], present: str | None, expected: list[str]
) -> None:
    assert champions(map(promotion, promotions), present) == expected


def promotion(text: str) -> Promotion:
    """1>2: 2 replaced 1; 2<1: a rollback from 2 to 1; 1: the first."""
    before, version = text.replace("<", ">").split(">") if len(text) > 1 else (None, text)
    return Promotion(
        at="", by="", command="rollback" if "<" in text else "promote", version=version or "", before=before
    )


def test_versions_are_listed_newest_first_with_what_was_measured(registry: Registry) -> None:
    found = listed(registry)
    assert [(row.version, row.aliases, row.gates) for row in found] == [
        ("3", [], "failed"),
        ("2", [], "passed"),
        ("1", ["champion"], "passed"),
    ]
    assert (found[0].map50, found[0].count_accuracy, found[0].count_accuracy_low) == (0.95, 0.9, 0.8)
    assert found[0].sha256 == registry.find("3").sha256
    assert listed(Registry("other")) == []


def test_a_version_of_somebody_else_is_listed_too(registry: Registry) -> None:
    connect(tracking_uri()).create_model_version("fingers", "file:///theirs")
    theirs = listed(registry)[0]
    assert (theirs.version, theirs.sha256, theirs.run_id, theirs.map50) == ("4", "", "", None)


def test_promote_moves_the_champion_and_says_from_where(registry: Registry) -> None:
    change = promote(registry, "2", force=False)
    assert str(change) == "version 2 is champion; before: version 1"
    assert champion(registry) == "2"
    assert str(promote(registry, "2", force=False)) == "version 2 is champion already"
    assert [one.version for one in registry.promotions()] == ["1", "2"]


def test_a_version_that_failed_its_gates_is_promoted_by_force_only_and_that_is_on_record(registry: Registry) -> None:
    with pytest.raises(StageError, match=r"version 3 failed its gates: mAP50 0.7000 too low; .*promote 3 --force"):
        promote(registry, "3", force=False)
    assert champion(registry) == "1"
    promote(registry, "3", force=True)
    assert champion(registry) == "3"
    assert registry.promotions()[-1].command == "promote --force"


def test_a_version_whose_file_was_changed_is_not_promoted_even_by_force(registry: Registry, tmp_path: Path) -> None:
    (stored,) = stored_files(tmp_path, "2")
    stored.write_bytes(b"rubbish")
    with pytest.raises(StageError, match=r"version 2: detector.onnx has the sha256"):
        promote(registry, "2", force=True)
    assert champion(registry) == "1"


def test_rollback_goes_back_one_champion_at_a_time(registry: Registry) -> None:
    promote(registry, "2", force=False)
    promote(registry, "3", force=True)
    assert str(rollback(registry)) == "version 2 is champion; before: version 3"
    assert str(rollback(registry)) == "version 1 is champion; before: version 2"
    with pytest.raises(StageError, match="version 1 is the first champion on record; fingers promote VERSION"):
        rollback(registry)
    assert [one.command for one in registry.promotions()][-2:] == ["rollback", "rollback"]


def test_rollback_does_not_move_to_a_model_that_cannot_be_fetched(registry: Registry, tmp_path: Path) -> None:
    promote(registry, "2", force=False)
    (stored,) = stored_files(tmp_path, "1")
    stored.unlink()
    with pytest.raises(StageError):
        rollback(registry)
    assert champion(registry) == "2"


def test_rollback_passes_over_a_version_that_was_deleted(registry: Registry) -> None:
    promote(registry, "2", force=False)
    promote(registry, "3", force=True)
    connect(tracking_uri()).delete_model_version("fingers", "2")
    assert rollback(registry).version == "1"


def test_without_any_champion_there_is_nothing_to_go_back_to(local_store: Path) -> None:
    registry = Registry("fingers")
    registered(registry, model(local_store / "1.onnx"))
    with pytest.raises(StageError, match="fingers: no champion is on record"):
        rollback(registry)


@pytest.mark.usefixtures("local_store")
def test_the_model_is_the_one_named_else_that_of_the_environment_else_that_of_params(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DEFAULT_MODEL_NAME", raising=False)
    assert open_registry(ROOT).name == "yolo11-finger-counter"
    monkeypatch.setenv("DEFAULT_MODEL_NAME", "other")
    assert open_registry(ROOT).name == "other"
    assert open_registry(ROOT, "fingers").name == "fingers"


def test_on_the_real_platform(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in platform.environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    registry = Registry("fingers-in-terminal")
    for count in (1, 2):
        registered(registry, model(tmp_path / f"{count}.onnx", count), key=f"registry {count}")
    promote(registry, "1", force=False)
    promote(registry, "2", force=False)
    assert [(row.version, row.aliases) for row in listed(registry)] == [("2", ["champion"]), ("1", [])]
    assert rollback(registry).version == "1"
    assert [one.before for one in registry.promotions()] == [None, "1", "2"]

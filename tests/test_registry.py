"""Versions in a real MLflow registry: registered, found, aliased, downloaded and checked."""

import hashlib
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stages.files import sha256_of
from stages.mlflow_client import ServerAway, connect, tracking_uri
from stages.params import StageError
from stages.registry import Registry, Version
from stages.release import INT8_FILE, INT8_WEIGHTS_FILE, ONNX_FILE
from stages.tracking import open_run
from tests.mlflow_server import MlflowServer
from tests.released import FACES, model, registered, release

BOX, ELLIPSE = {"shape": "box"}, {"shape": "ellipse"}


@pytest.fixture
def registry(local_store: Path) -> Registry:
    assert local_store
    return Registry("fingers")


def test_an_empty_registry_has_no_champion_and_no_version(registry: Registry, tmp_path: Path) -> None:
    assert registry.with_alias("champion") is None
    assert registry.with_identity(release(model(tmp_path / "a.onnx"), "run").identity) is None
    registered(registry, tmp_path / "a.onnx")
    assert registry.with_alias("champion") is None


def test_a_version_is_found_by_number_alias_and_the_words_of_older_teams(registry: Registry, tmp_path: Path) -> None:
    first = registered(registry, model(tmp_path / "a.onnx"))
    second = registered(registry, model(tmp_path / "b.onnx", count=4))
    registry.set_alias("champion", first)
    registry.set_alias("challenger", second)
    for reference in ("1", "champion", "Production", "production"):
        assert registry.find(reference) == first
    for reference in ("2", "challenger", "Staging"):
        assert registry.find(reference) == second
    with pytest.raises(StageError, match="fingers: no version '3'; there is 2, challenger; 1, champion"):
        registry.find("3")
    with pytest.raises(StageError, match="other: no version 'champion'; there is none yet here: dvc repro"):
        Registry("other").find("champion")


def test_a_parameter_that_came_later_leaves_what_was_registered_before_as_it_was(tmp_path: Path) -> None:
    onnx = model(tmp_path / "a.onnx")
    before, now, other = ({k: v for k, v in FACES.items() if k != "shape"} | later for later in ({}, BOX, ELLIPSE))
    assert release(onnx, "run", faces=now).identity == release(onnx, "run", faces=before).identity
    assert release(onnx, "run", faces=other).identity != release(onnx, "run", faces=before).identity


def test_a_list_of_versions_tells_what_their_releases_say(registry: Registry, tmp_path: Path) -> None:
    assert registry.versions() == []
    onnx = model(tmp_path / "a.onnx")
    registered(registry, onnx, gates={"passed": False, "failures": []})
    (version,) = registry.versions()
    assert (version.tags["map50"], version.tags["count_accuracy"], version.tags["gates"]) == ("0.95", "0.9", "failed")
    assert "git" not in version.tags
    registered(registry, onnx)
    (again,) = registry.versions()
    assert again.tags["gates"] == "passed"


def test_who_became_champion_is_on_record_and_nothing_else(registry: Registry, tmp_path: Path) -> None:
    first, second = (registered(registry, model(tmp_path / f"{n}.onnx", count=n)) for n in (1, 2))
    assert registry.promotions() == []
    registry.set_alias("challenger", first)
    registry.set_alias("champion", first)
    registry.set_alias("champion", first)  # it is already
    registry.set_alias("champion", second, "promote")
    found = [(one.version, one.before, one.command) for one in registry.promotions()]
    assert found == [("1", None, "register"), ("2", "1", "promote")]
    assert all(one.by and one.at for one in registry.promotions())


def test_two_who_promote_at_once_are_both_on_record(registry: Registry, tmp_path: Path) -> None:
    first, *others = (registered(registry, model(tmp_path / f"{n}.onnx", count=n)) for n in range(4))
    registry.set_alias("champion", first)
    with ThreadPoolExecutor(3) as people:
        list(people.map(lambda version: Registry("fingers").set_alias("champion", version, "promote"), others))
    assert registry.with_alias("champion") in others
    assert {one.version for one in registry.promotions()} == {"1", "2", "3", "4"}


def test_a_record_that_somebody_changed_is_named(registry: Registry, tmp_path: Path) -> None:
    registered(registry, model(tmp_path / "a.onnx"))
    connect(tracking_uri()).set_model_version_tag("fingers", "1", "became_champion.x", "rubbish")
    with pytest.raises(StageError, match=r"the tag became_champion\.x of a version is not as it was written"):
        registry.promotions()


def test_the_same_model_is_one_version_also_from_another_training(registry: Registry, tmp_path: Path) -> None:
    onnx = model(tmp_path / "a.onnx")
    first = registered(registry, onnx)
    assert registered(registry, onnx) == first
    assert registered(registry, onnx, key="again") == first
    assert registered(registry, model(tmp_path / "b.onnx", count=4)).number == "2"


def test_the_same_file_with_another_threshold_answers_otherwise_and_is_another_version(
    registry: Registry, tmp_path: Path
) -> None:
    onnx = model(tmp_path / "a.onnx")
    first = registered(registry, onnx)
    second = registered(registry, onnx, thresholds={"confidence": 0.1, "iou": 0.6, "max_boxes": 20})
    assert registry.download(first, tmp_path / "first").thresholds.confidence == 0.4
    assert registry.download(second, tmp_path / "second").thresholds.confidence == 0.1


def test_registering_again_brings_release_and_card_up_to_date(registry: Registry, tmp_path: Path) -> None:
    onnx = model(tmp_path / "a.onnx")
    registered(registry, onnx, gates={"passed": False, "failures": []})
    version = registered(registry, onnx)
    assert registry.download(version, tmp_path / "files").gates.passed


def test_a_version_comes_back_as_it_was_registered(registry: Registry, tmp_path: Path) -> None:
    onnx = model(tmp_path / "models/another_name.onnx")
    registry.set_alias("champion", registered(registry, onnx))
    champion = registry.with_alias("champion")
    assert champion
    found = registry.download(champion, tmp_path / "files")
    assert found == release(onnx, champion.run_id)
    assert (tmp_path / "files" / found.file).read_bytes() == onnx.read_bytes()
    assert (tmp_path / "files/README.md").read_text() == "# fingers\n"


def test_a_file_that_the_store_changed_is_not_handed_out(registry: Registry, tmp_path: Path) -> None:
    version = registered(registry, model(tmp_path / "a.onnx"))
    (stored,) = (tmp_path / ".local/mlflow/artifacts").rglob("detector.onnx")
    stored.write_bytes(stored.read_bytes() + b"x")
    with pytest.raises(StageError, match=r"fingers version 1: detector.onnx has the sha256"):
        registry.download(version, tmp_path / "files")
    assert not (tmp_path / "files").exists()


def quantized(registry: Registry, folder: Path) -> Version:
    """A version with the two files of int8, whatever is in them."""
    files = {ONNX_FILE: model(folder / "a.onnx"), INT8_FILE: folder / "a.xml", INT8_WEIGHTS_FILE: folder / "a.bin"}
    files[INT8_FILE].write_text("<net/>")
    files[INT8_WEIGHTS_FILE].write_bytes(b"weights")
    run_id = open_run("k", name="", resume=True).run_id
    int8 = {name: sha256_of(files[name]) for name in (INT8_FILE, INT8_WEIGHTS_FILE)}
    return registry.register(release(files[ONNX_FILE], run_id, int8=int8), files, "# fingers\n")


def test_int8_comes_along_and_makes_another_version(registry: Registry, tmp_path: Path) -> None:
    version = quantized(registry, tmp_path)
    found = registry.download(version, tmp_path / "files")
    assert (tmp_path / "files" / INT8_FILE).read_text() == "<net/>"
    assert {name: sha256_of(tmp_path / "files" / name) for name in found.files()} == found.files()
    assert registered(registry, tmp_path / "a.onnx").number == "2"


def test_int8_that_the_store_changed_is_not_handed_out(registry: Registry, tmp_path: Path) -> None:
    version = quantized(registry, tmp_path)
    (stored,) = (tmp_path / ".local/mlflow/artifacts").rglob(INT8_WEIGHTS_FILE)
    stored.write_bytes(b"others")
    with pytest.raises(StageError, match=rf"fingers version 1: {INT8_WEIGHTS_FILE} has the sha256"):
        registry.download(version, tmp_path / "files")
    (manifest,) = (tmp_path / ".local/mlflow/artifacts").rglob("release.json")
    text = manifest.read_text().replace(hashlib.sha256(b"weights").hexdigest(), hashlib.sha256(b"others").hexdigest())
    manifest.write_text(text)
    with pytest.raises(StageError, match=r"fingers version 1: release.json is not the one that was registered"):
        registry.download(version, tmp_path / "files")
    assert not (tmp_path / "files").exists()


def test_mlflow_shows_card_and_signature(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.models import get_model_info

    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri())
    version = registered(registry, model(tmp_path / "a.onnx"))
    shown = connect(tracking_uri()).get_model_version("fingers", version.number)
    assert shown.description == "# fingers\n"
    info = get_model_info("models:/fingers/1")
    assert list(info.flavors) == ["onnx"]
    assert info.signature.inputs.to_dict() == [
        {"name": "images", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": (1, 3, 64, 64)}}
    ]
    assert info.signature.outputs.input_names() == ["output0"]


def test_a_champion_that_somebody_made_by_hand_equals_none_of_ours(registry: Registry, tmp_path: Path) -> None:
    client = connect(tracking_uri())
    client.create_registered_model("fingers")
    made = client.create_model_version("fingers", (tmp_path / "theirs").as_uri())
    client.set_registered_model_alias("fingers", "champion", made.version)
    champion = registry.with_alias("champion")
    assert champion
    assert champion.identity == ""
    with pytest.raises(StageError):
        registry.download(champion, tmp_path / "files")


@pytest.mark.usefixtures("local_store")
def test_a_registry_out_of_reach_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(ServerAway, match=r"MLflow at http://127.0.0.1:9 cannot be reached"):
        Registry("fingers")


@pytest.mark.slow
def test_a_server_keeps_versions_as_a_file_store_does(
    local_store: Path, running_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running_server.address)
    registry = Registry("fingers")
    onnx = model(local_store / "a.onnx")
    version = registered(registry, onnx)
    assert registered(registry, onnx) == version
    registry.set_alias("champion", version)
    assert registry.with_alias("champion") == version
    assert registry.download(version, local_store / "files").sha256 == version.sha256
    # the request by which MLflow's own page of a version finds the signature
    page = f"{running_server.address}/model-versions/get-artifact?path=MLmodel&name=fingers&version={version.number}"
    with urllib.request.urlopen(page, timeout=10) as answer:  # noqa: S310 -- loopback
        assert b"signature:" in answer.read()

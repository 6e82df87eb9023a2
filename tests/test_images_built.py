"""The images without an engine: what their Dockerfiles say; and that what they install starts, answers and is well."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from packaging.utils import canonicalize_name

from tests.built_image import BuiltImage, built_image
from tests.checkout import clone, shrink
from tests.dockerfile import lets_through, read
from tests.native import ROOT
from tests.pictures import saved
from tests.server import free_port, write_repository

FOLDER = ROOT / "deploy/images"
FILES = sorted(FOLDER.glob("*.Dockerfile"))
TRAINING_ALONE = {"dvc", "nncf", "picsellia", "torch", "torchvision", "triton", "ultralytics-opencv-headless"}
NOWHERE = {"opencv-python", "openvino-telemetry", "pip", "pytest", "uv"}
KEY = "a-key-of-a-user-in-tests"

each_image = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


@pytest.mark.skipif(sys.platform == "win32", reason="hadolint has no wheel for Windows")
@each_image
def test_hadolint_has_nothing_to_say(file: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_all_images_begin_from_one_exact_python() -> None:
    (source,) = {read(file)[0].source for file in FILES}
    assert re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", source)


@each_image
def test_an_image_runs_as_nobody_in_particular_and_starts_without_a_shell(file: Path) -> None:
    stage = read(file)[-1]
    assert stage.the("USER").text == "10001:10001"
    assert all(stage.the(keyword).text.startswith("[") for keyword in ("ENTRYPOINT", "CMD"))
    assert stage.the("HEALTHCHECK").text.startswith(("CMD [", "NONE"))


@each_image
def test_nothing_is_installed_that_the_lock_does_not_constrain(file: Path) -> None:
    runs = (step.text for stage in read(file) for step in stage.all("RUN"))
    installs = [one for run in runs for one in re.split("&&|;", run) if re.search("pip install|uvx", one)]
    assert len(installs) >= 4, "uv, the packages, the project, what writes the bill of materials"
    assert [one for one in installs if not re.search(r"--(build-)?constraints? requirements\.lock", one)] == []


@each_image
def test_the_installers_of_the_base_are_gone(file: Path) -> None:
    """A scan finds them, and what was mended in them since; nothing runs them."""
    runs = [step.text for step in read(file)[-1].all("RUN")]
    assert [run.split()[-3:] for run in runs if "pip uninstall --yes" in run] == [["setuptools", "wheel", "pip"]]


def test_an_engine_is_sent_what_images_copy_and_nothing_else() -> None:
    copies = (step for file in FILES for stage in read(file) for step in stage.all("COPY") if "from" not in step.flags)
    copied = {source for step in copies for source in step.words[:-1]}
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied
    assert [name for name in copied if not ((ROOT / name).exists() and lets_through(ROOT / name))] == []
    private = (".env", ".git/config", ".local/platform/settings.env", "data/raw/a.jpg", "deploy/secrets/api_keys")
    assert [name for name in (*private, "serve/__pycache__/api.pyc") if lets_through(ROOT / name)] == []


@pytest.fixture(scope="module")
def serving() -> Iterator[BuiltImage]:
    with built_image(FOLDER / "serving.Dockerfile") as built:
        yield built


@pytest.fixture(scope="module")
def mlflow() -> Iterator[BuiltImage]:
    with built_image(FOLDER / "platform.Dockerfile") as built:
        yield built


@pytest.fixture(scope="module")
def training() -> Iterator[BuiltImage]:
    with built_image(FOLDER / "training.Dockerfile") as built:
        yield built


@pytest.mark.slow
def test_the_serving_image_has_no_torch_and_says_what_it_has(serving: BuiltImage) -> None:
    assert not installed(serving) & TRAINING_ALONE
    assert listed(serving, "serving.cdx.json") == serving.packages()


@pytest.mark.slow
def test_the_serving_image_counts_with_its_volume_alone_to_write_to(serving: BuiltImage, tmp_path: Path) -> None:
    assert serving.tree.left_out[:-1] == [], "all was run but for the making of a user"
    write_repository(serving.path("/var/lib/fingers"))
    serving.give(serving.path("/var/lib/fingers"))
    key = secret(serving, "api_keys", KEY)
    address = {"HOST": "127.0.0.1", "PORT": str(free_port()), "API_KEYS_FILE": str(key)}
    with serving.running(tmp_path / "log", address):
        answer = httpx.post(
            f"http://127.0.0.1:{address['PORT']}/predict",
            content=saved("JPEG"),
            headers={"X-API-Key": KEY, "Content-Type": "image/jpeg"},
            timeout=60,
        )
    assert answer.json()["finger_count"] == 3
    assert not serving.is_well(address), "whoever is gone is not well"
    assert all(name.startswith(("tmp/", "var/lib/fingers")) for name in serving.written())


@pytest.mark.slow
def test_the_serving_image_lets_nobody_in_as_long_as_there_are_no_keys(serving: BuiltImage) -> None:
    assert "HOST: 0.0.0.0 is reached by others" in serving.run(code=1)


@pytest.mark.slow
def test_the_platform_image_has_no_torch_and_says_what_it_has(mlflow: BuiltImage) -> None:
    assert not installed(mlflow) & TRAINING_ALONE
    assert listed(mlflow, "platform.cdx.json") == mlflow.packages()


@pytest.mark.slow
def test_the_platform_image_is_an_mlflow_and_its_backup(mlflow: BuiltImage, tmp_path: Path) -> None:
    state = mlflow.path("/var/lib/fingers")
    port = str(free_port())
    server = {
        "MLFLOW_HOST": "127.0.0.1",
        "MLFLOW_PORT": port,
        "MLFLOW_BACKEND_STORE_URI_FILE": str(secret(mlflow, "uri", f"sqlite:///{state}/mlflow.db")),
        "MLFLOW_ARTIFACTS_DESTINATION": str(state / "artifacts"),
    }
    address = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    backup = str(state / "backup.zip")
    with mlflow.running(tmp_path / "log", server):
        created = httpx.post(f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/create", json={"name": "kept"})
        assert created.status_code == 200
        mlflow.run("fingers", "backup", backup, environment=address)
        assert '"kept"' in mlflow.run("fingers", "restore", backup, "--dry-run", "--json", environment=address)
    mlflow.run("python", "-c", "import boto3, psycopg2, prometheus_client")
    assert all(name.startswith(("tmp/", "var/lib/fingers")) for name in mlflow.written())


@pytest.mark.slow
def test_the_training_image_says_what_it_has(training: BuiltImage) -> None:
    assert installed(training) >= TRAINING_ALONE
    assert listed(training, "training.cdx.json") == training.packages()


@pytest.mark.slow
def test_the_training_image_makes_a_release_in_a_checkout_of_its_users(training: BuiltImage) -> None:
    training.path("/workspace").rmdir()
    checkout = clone(training.path("/workspace"))
    shrink(checkout)
    training.give(checkout.root)
    training.run()
    assert (checkout.root / "models/release.json").exists()
    assert all(name.startswith(("tmp/", "workspace")) for name in training.written())


def installed(image: BuiltImage) -> set[str]:
    """Names of its packages. Fails when one has another version than requirements.lock says."""
    packages = image.packages()
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = set(re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE))
    assert {name for name, _ in packages.items() - locked} == {"finger-counter"}
    assert not packages.keys() & NOWHERE
    assert not list(image.path("/usr/local/lib").glob("python*/site-packages/pip*")), "nor beside /opt/venv"
    return set(packages)


def listed(image: BuiltImage, name: str) -> dict[str, str]:
    """Name: version of each component in its bill of materials."""
    bill = json.loads((image.stages["sbom"].root / name).read_bytes())
    assert bill["bomFormat"] == "CycloneDX"
    components = [bill["metadata"]["component"], *bill["components"]]
    return {canonicalize_name(one["name"]): one["version"] for one in components}


def secret(image: BuiltImage, name: str, content: str) -> Path:
    """As a file that its user alone may read."""
    path = image.path("/tmp") / name  # noqa: S108 -- the image's
    path.write_text(content, encoding="utf-8")
    path.chmod(0o400)
    return image.give(path)

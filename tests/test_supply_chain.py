"""What comes from others and what goes to them: no secret in git, each licence known, a release only when all agree."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.licences import COMPATIBLE, NOTES, PAGE, locked
from scripts.release import notes, promote_released, section_of
from stages.files import write_json
from stages.params import StageError
from stages.registry import Registry
from tests.checkout import git_lines
from tests.native import ROOT
from tests.released import model, registered, release
from tests.test_workflows import program

CHANGELOG = """# Changelog

## [Unreleased]
- not yet

## [1.2.0] - 2026-11-23
### Added
- a hand

## [1.1.0] - 2026-10-01
- the first
"""
REFRESH = "./run detect-secrets scan --slim --no-verify --baseline .secrets.baseline, and read its diff"


# Kinds that go by a word beside it, or by its looks. Tests hold made-up ones all over.
GUESSES = {"Base64 High Entropy String", "Basic Auth Credentials", "Hex High Entropy String", "Secret Keyword"}


def secrets_in(*files: str, baseline: Path, cwd: Path) -> list[str]:
    """What the scanner finds beyond the baseline: file, line and kind, never the secret itself."""
    hook = [program("detect-secrets-hook"), "--json", "--no-verify", "--baseline", str(baseline)]
    done = subprocess.run([*hook, *files], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1, 3), done.stderr  # 3: nothing new, and some of the known ones are gone
    found = json.loads(done.stdout)["results"] if done.returncode == 1 else {}
    return [
        f"{file}:{one['line_number']}: {one['type']}"
        for file, ones in found.items()
        for one in ones
        if not (file.startswith("tests/") and one["type"] in GUESSES)
    ]


@pytest.mark.slow
def test_no_secret_is_in_git(tmp_path: Path) -> None:
    baseline = Path(shutil.copy(ROOT / ".secrets.baseline", tmp_path))  # the scanner writes to it
    files = [name for name in git_lines("ls-files") if (ROOT / name).is_file()]
    found = secrets_in(*files, baseline=baseline, cwd=ROOT)
    assert not found, f"replace it wherever it is used, then take it out. If it is none: {REFRESH}"


@pytest.mark.parametrize("name", ["settings.py", "tests/settings.py"])
def test_a_key_that_slips_in_is_found(tmp_path: Path, name: str) -> None:
    baseline = Path(shutil.copy(ROOT / ".secrets.baseline", tmp_path))
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)  # the scanner looks nowhere else
    (tmp_path / "tests").mkdir()
    (tmp_path / name).write_text(f'KEY = "{"AKIA" + "Q3EGRIDZ7TSH5LWN"}"\npassword = "{"correct" + "horse"}"\n')
    guessed = [] if name.startswith("tests/") else [f"{name}:2: Secret Keyword"]
    assert sorted(secrets_in(name, baseline=baseline, cwd=tmp_path)) == [f"{name}:1: AWS Access Key", *guessed]


def test_the_licence_is_the_one_that_everything_says() -> None:
    text = (ROOT / "LICENSE").read_bytes()
    # gnu.org's own text, byte for byte
    assert hashlib.sha256(text).hexdigest() == "0d96a4ff68ad6d4b6f1f30f713b18d5184912ba8dd389f86aa7710db079abcb0"
    assert 'license = "AGPL-3.0-only"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "AGPL-3.0" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_page_of_licences_is_that_of_the_lock_and_none_is_there_without_a_reason() -> None:
    rows = re.findall(r"^\| (.+) \| (.+) \|$", PAGE.read_text(encoding="utf-8").partition("\nThose")[0], re.MULTILINE)
    licences = {name: licence for licence, names in rows[1:] for name in names.split(", ")}
    assert sorted(licences) == locked(ROOT / "requirements.lock"), "run: ./run python scripts/licences.py"
    doubtful = {name for name, its in licences.items() if not all(map(COMPATIBLE.search, re.split(", | AND ", its)))}
    assert not {name for name in doubtful if not any(fnmatch(name, known) for known in NOTES)}
    assert not {known for known in NOTES if not any(fnmatch(name, known) for name in doubtful)}, "no longer doubtful"


def test_the_lock_has_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    for line in (*project["dependencies"], *chain(*project["optional-dependencies"].values())):
        asked = Requirement(line)
        found = [pin for pin in pins if canonicalize_name(pin.name) == canonicalize_name(asked.name)]
        assert found, f"{line}: not in requirements.lock"
        for pin in found:  # several, where operating systems differ
            (version,) = pin.specifier
            assert version.version in asked.specifier, f"{line}: requirements.lock has {pin}"


@pytest.mark.parametrize(
    ("version", "section"),
    [
        ("1.2.0", "### Added\n- a hand"),
        ("1.1.0", "- the first"),
        ("1.3.0", ""),
        ("Unreleased", ""),
        ("1.2", ""),
    ],
)
def test_the_notes_of_a_release_are_its_section_of_the_changelog(version: str, section: str) -> None:
    assert section_of(CHANGELOG, version) == section


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """One that may be released as v1.2.0."""
    (tmp_path / "models").mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    write_release(tmp_path)
    return tmp_path


def write_release(root: Path, **changes: object) -> None:
    made = release(model(root / "models/detector.onnx"), "run", **changes)
    write_json(root / "models/release.json", made.model_dump(mode="json"))


def test_a_tag_is_released_when_version_changelog_and_gates_agree(checkout: Path) -> None:
    assert notes(checkout, "v1.2.0") == "### Added\n- a hand\n"


def test_a_tag_of_another_version_is_refused(checkout: Path) -> None:
    with pytest.raises(StageError, match=r"pyproject.toml: version is 1.2.0, so its tag is v1.2.0, not v1.3.0"):
        notes(checkout, "v1.3.0")


def test_a_model_that_failed_its_gates_is_not_released(checkout: Path) -> None:
    failure = {"gate": "map50", "value": 0.2, "needed": 0.85, "text": "map50 0.2 is below 0.85"}
    write_release(checkout, gates={"passed": False, "failures": [failure]})
    with pytest.raises(StageError, match=r"release.json: the model failed its gates: map50 0.2 is below 0.85"):
        notes(checkout, "v1.2.0")


def test_a_version_without_words_is_not_released(checkout: Path) -> None:
    (checkout / "CHANGELOG.md").write_text("# Changelog\n\n## [1.2.0] - 2026-11-23\n\n## [1.1.0] - 2026-10-01\n- x\n")
    with pytest.raises(StageError, match=r"CHANGELOG.md: no text under '## \[1.2.0\] - YYYY-MM-DD'"):
        notes(checkout, "v1.2.0")


def test_the_released_model_becomes_champion_and_no_other(checkout: Path, local_store: Path) -> None:
    assert local_store
    registry = Registry("fingers")
    with pytest.raises(
        StageError, match=r"fingers: no version has the file of models/release.json, sha256 \w{12}; reg"
    ):
        promote_released(checkout, registry)
    ours = registered(registry, checkout / "models/detector.onnx")
    registry.set_alias("champion", registered(registry, model(checkout / "other.onnx", count=5), key="other"))
    assert promote_released(checkout, registry).version == ours.number
    assert registry.with_alias("champion") == ours
    assert promote_released(checkout, registry).before == ours.number, "again, it changes nothing"


def test_a_model_that_failed_its_gates_becomes_no_champion(checkout: Path, local_store: Path) -> None:
    assert local_store
    registered(Registry("fingers"), checkout / "models/detector.onnx", gates={"passed": False, "failures": []})
    with pytest.raises(StageError, match="version 1 failed its gates"):
        promote_released(checkout, Registry("fingers"))


def test_a_release_that_cannot_be_says_why_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/release.py", "notes", "v0.0.0"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "pyproject.toml: version is " in done.stderr

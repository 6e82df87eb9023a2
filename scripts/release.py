"""A tag -> the notes of its release, when the checkout may be released under it; and its model as champion.

python scripts/release.py notes v1.2.0    prints the section of CHANGELOG.md; exit 1 with the reason, if there is one
python scripts/release.py promote         in the registry of MLFLOW_TRACKING_URI
"""

import logging
import re
import sys
import tomllib
from pathlib import Path

from ops.models import Change, open_registry, promote
from stages.launch import configure_logging
from stages.params import StageError
from stages.registry import Registry
from stages.release import read_release

logger = logging.getLogger("release")

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    configure_logging("release")
    try:
        match sys.argv[1:]:
            case ["notes", tag]:
                sys.stdout.write(notes(ROOT, tag))
            case ["promote"]:
                logger.info("%s", promote_released(ROOT, open_registry(ROOT)))
            case _:
                sys.exit(__doc__)
    except StageError as error:
        logger.error("%s", error)
        sys.exit(1)


def notes(root: Path, tag: str) -> str:
    """Raises StageError when tag, pyproject.toml and CHANGELOG.md name different versions, or a gate failed."""
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if tag != f"v{version}":
        raise StageError(f"pyproject.toml: version is {version}, so its tag is v{version}, not {tag}")
    gates = read_release(root / "models/release.json").gates
    if not gates.passed:
        failures = "; ".join(failure.text for failure in gates.failures)
        raise StageError(f"models/release.json: the model failed its gates: {failures}")
    section = section_of((root / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    if not section:
        raise StageError(f"CHANGELOG.md: no text under '## [{version}] - YYYY-MM-DD'; say there what changed")
    return f"{section}\n"


def section_of(changelog: str, version: str) -> str:
    """What stands under the version's dated heading, up to the next; empty when there is none."""
    heading = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$"
    found = re.search(rf"{heading}\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else ""


def promote_released(root: Path, registry: Registry) -> Change:
    """The newest version with the very file of models/release.json. Raises StageError when there is none."""
    sha256 = read_release(root / "models/release.json").sha256
    registered = [version for version in registry.versions() if version.sha256 == sha256]
    if not registered:
        raise StageError(
            f"{registry.name}: no version has the file of models/release.json, sha256 {sha256[:12]}; "
            "register it from a checkout that has it: dvc repro -sf register"
        )
    return promote(registry, registered[0].number, force=False)


if __name__ == "__main__":
    main()

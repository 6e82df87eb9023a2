"""README and docs: what they name exists, what they quote is said, and their commands run."""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.claims import faults
from tests.documents import documents, read
from tests.native import ROOT
from tests.repository import params
from tests.symptoms import QUOTE, TROUBLESHOOTING, quoted, said

HERE = Path("docs/here.md")
DOCUMENTS = documents()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", None),
        ("[x](https://example.org/absent.md)", None),
        ("[x](privacy.md#what-it-does-not-promise)", None),
        ("[x](absent.md)", "absent.md"),
        ("![x](images/absent.png)", "images/absent.png"),
        ("[x](privacy.md#no-such-heading)", "no such heading"),
        ("# One\n[x](#one) [x](#two)", "#two"),
        ("`serve/api.py`, `docs/*.md`, `data/yolo/images/<id>.jpg`, `.local/train`, `api.py`, `release.json`", None),
        ("`serve/absent.py`", "serve/absent.py"),
        ("`models/absent.json`", "models/absent.json"),
        ("`absent.py`", "absent.py"),
        ("`/health`, `/mnt/nas`, `~/camera`", None),
        ("`/no/such/route`", "/no/such/route"),
        ("`train.epochs`, `train.ultralytics.mosaic`, `faces.method: solid`", None),
        ("`train.epoch`", "train.epoch"),
        ("`faces.method: pixelate`", "'pixelate' is not allowed"),
        ("`train.ultralytics.mosaics`", "train.ultralytics.mosaics"),
        ("`API_KEYS_FILE`, `PORT=9`, `PIP_INDEX_URL`", None),
        ("`API_KEIES`", "API_KEIES"),
        ("`count_accuracy`, `fingers_drift`, `convert()`", None),
        ("`count_acuracy`", "count_acuracy"),
        ("`test_documents.py::test_nothing_that_a_document_names_is_missing`", None),
        ("`test_documents.py::test_absent`", "no such test"),
        ("`--on-conflict`", None),
        ("`--on-conflicts`", "--on-conflicts"),
        ("`fingers predict`, `./run fingers promote 7 --force`", None),
        ("`fingers promot 7`", "fingers promot: no such command"),
        ("`fingers promote 7 --forced`", "No such option"),
        ("    ./run fingers predict a.jpg --every twice", "valid integer"),
        ("    ./run dvc exp run -S train.epochs=3 && ./run dvc push | tail -1 > log 2>&1", None),
        ("    ./run dvc repro -f absent", "absent"),
        ("    ./run dvc repro --absent", "not understood"),
        ("    ./run dvc exp run -S train.epochs=none", "'none' is not allowed"),
        ("    ./run dvc exp run -S 'convert.classes=[a]' -S 'convert.counts=[1,2]'", "2 values for 1 classes"),
        ("    ./run dvc exp run -S +train.ultralytics.absent=1", "train.ultralytics.absent"),
        ("    true ||\n      ./run absent", "absent: no such program"),
        ("    ./run fingers sweep train.seed=1,2 +train.ultralytics.mosaic=0.5", None),
        ("    ./run fingers sweep train.sead=1,2", "train.sead"),
        ("    ./run python -m benchmarks.absent", "no such module"),
        ("    ./run python -m benchmarks.noop_repro --absent", "--absent"),
        ("    ./run python -m stages.convert data/raw", "takes 2 paths"),
        ("    ./scripts/absent.sh", "scripts/absent.sh"),
        ("    cat docs/absent.md", "docs/absent.md"),
        ("    API_KEIES=x ./run fingers serve", "API_KEIES"),
        ("    export API_KEIES=x", "API_KEIES"),
        ("    git absent", "git absent"),
        ("    git clone --absent .", "--absent"),
        ("    uv pip install --absent x", "--absent"),
        ("    docker compose -f deploy/compose.yaml up -d --wait serving", None),
        ("    docker compose -f deploy/compose.absent.yaml up -d", "compose.absent.yaml"),
        ("    docker compose -f deploy/compose.yaml up --absent", "--absent"),
        ("    docker compose -f deploy/compose.yaml logs --tail 5 absent", "absent: no such service"),
        ("    alias dc='docker compose -f deploy/compose.yaml'\n    dc ps absent", "absent: no such service"),
        ("    echo 'open", "No closing quotation"),
        ("```bat\nset \"API_KEYS=x\"\nrun dvc repro -f pull\nscripts\\serve.bat\n```", None),
        ("```bat\nset \"API_KEIES=x\"\n```", "API_KEIES"),
        ("```bat\nscripts\\absent.bat\n```", "scripts/absent.bat"),
        ("```powershell\n$env:API_KEIES = \"x\"\n```", "API_KEIES"),
        ("```console\n$ ./run dvc absent\nwhat it prints\n```", "dvc absent"),
        ("```yaml\nfaces:\n  method: solid\n```", None),
        ("```yaml\nfaces:\n  method: pixelate\n```", "'pixelate' is not allowed"),
        ("```yaml\n[\n```", "not YAML"),
        ("```json\n{\n```", "not json"),
        ("```python\nprint(\n```", "not python"),
        ("```pyhton\nx\n```", "'pyhton', which nothing reads"),
        ("```\nany drawing\n```", None),
    ],
)  # fmt: skip
def test_what_is_not_so_is_found(text: str, fault: str | None) -> None:
    found = faults(read(text), HERE)
    if fault is None:
        assert found == []
    else:
        assert len(found) == 1
        assert fault in found[0]


@pytest.mark.parametrize("path", DOCUMENTS, ids=Path.as_posix)
def test_nothing_that_a_document_names_is_missing(path: Path) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    assert faults(read(QUOTE.sub("| |", text) if path == TROUBLESHOOTING else text), path) == []


def test_every_page_is_found_from_the_readme() -> None:
    reached, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        links = read(page.read_text(encoding="utf-8")).links
        places = [(page.parent / link.partition("#")[0]).resolve() for link in links if ":" not in link]
        waiting += [place for place in places if place.suffix == ".md" and place.exists()]
    assert {path for path in DOCUMENTS if path.parts[0] == "docs"} <= {path.relative_to(ROOT) for path in reached}


def test_training_explains_every_parameter() -> None:
    explained = read((ROOT / "docs/training.md").read_text(encoding="utf-8")).code
    free = ("convert.aliases.", "train.ultralytics.")  # whose keys are the reader's
    keys = {key for key in leaves(json.loads(params())) if not key.startswith(free)}
    assert keys - {*explained, *(code.partition(":")[0] for code in explained)} == set()


def leaves(document: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in document.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


THEIRS = {  # said by what the project calls: where
    "Could not override '…'": ("hydra", "_internal/config_loader_impl.py"),
    "Unable to locate credentials": ("botocore", "exceptions.py"),
    "Checkout failed for following targets": ("dvc", "exceptions.py"),
    "Unable to acquire lock": ("dvc", "lock.py"),
    "CUDA out of memory": ("torch", "lib/libc10_cuda.so"),
}


@pytest.mark.parametrize("symptom", quoted())
def test_what_troubleshooting_quotes_is_said_by_the_code(symptom: str) -> None:
    assert len(symptom.replace("…", "")) > 10, "too little to search for"
    if symptom not in THEIRS:
        assert any(symptom in text for text in said())
        return
    package, name = THEIRS[symptom]
    spec = find_spec(package)
    assert spec
    assert spec.origin
    file = Path(spec.origin).with_name(name.partition("/")[0]).joinpath(name.partition("/")[2])
    if not file.exists():
        pytest.skip(f"{package} is installed without {name}")
    content = file.read_bytes()
    assert all(part.encode() in content for part in symptom.split("…"))

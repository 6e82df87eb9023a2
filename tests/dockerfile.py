"""A Dockerfile -> what it says, and what its install steps leave on this machine, in a folder that stands for `/`.

No engine is needed: each step is read from the file, paths that the image owns are moved into the folder, and what
would change the system around it (packages of Debian, users) is left out and named. The base image's Python is a copy
of ours. Packages come from uv's cache, which `./run` has filled from the same lock: no step goes to the network.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.native import ROOT

OWNED = ("/build", "/opt", "/sbom", "/tmp", "/usr/local", "/var/lib/fingers", "/workspace")  # noqa: S108 -- the image's
RUN_HERE = {"[", "install", "mkdir", "python", "uv", "uvx"}  # what changes nothing outside of those


@dataclass(frozen=True)
class Step:
    """An instruction: COPY, {"from": "build"}, "/opt/venv /opt/venv"."""

    keyword: str
    flags: Mapping[str, str]
    text: str

    @property
    def words(self) -> list[str]:
        """Of the exec form as of the other; of a HEALTHCHECK its command's."""
        text = self.text.removeprefix("CMD ")
        return list(json.loads(text)) if text.startswith("[") else shlex.split(text)


@dataclass(frozen=True)
class Stage:
    name: str
    source: str  # an image, or an earlier stage
    steps: Sequence[Step]

    def all(self, keyword: str) -> list[Step]:
        return [step for step in self.steps if step.keyword == keyword]

    def the(self, keyword: str) -> Step:
        (step,) = self.all(keyword)
        return step

    @property
    def environment(self) -> dict[str, str]:
        """What ENV sets, $NAME as it stands."""
        return dict(word.split("=", 1) for step in self.all("ENV") for word in step.words)


@dataclass
class Tree:
    """A stage that is being built, or was: the folder that is its `/`, and what it says of processes in it."""

    root: Path
    environment: dict[str, str]
    workdir: str = "/"
    left_out: list[str] = field(default_factory=list)  # the commands that were not run

    def here(self, text: str) -> str:
        """With the paths that the image owns where they are on this machine."""
        return re.sub(rf"(?<![\w./-])({'|'.join(OWNED)})(?![\w-])", rf"{self.root}\1", text)

    def path(self, name: str) -> Path:
        return Path(f"{self.root}{Path(self.workdir, name)}")

    def real_environment(self, more: Mapping[str, str]) -> dict[str, str]:
        return {name: self.here(value) for name, value in {**self.environment, **more}.items()}


def read(file: Path) -> list[Stage]:
    stages: list[Stage] = []
    for step in _steps(file.read_text(encoding="utf-8")):
        if step.keyword == "FROM":
            source, *named = step.words
            stages.append(Stage(named[1] if named else "", source, []))
        else:
            assert stages, f"{file.name}: {step.keyword} before FROM"
            stages[-1] = Stage(stages[-1].name, stages[-1].source, [*stages[-1].steps, step])
    return stages


def _steps(text: str) -> Iterator[Step]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for instruction in re.findall(r"(?:.*\\\n)*.+", "\n".join(lines)):
        keyword, rest = re.sub(r"\\\n\s*", "", instruction).split(maxsplit=1)
        flags = re.match(r"(?:--[a-z-]+=\S+\s+)*", rest)
        assert flags is not None
        given = dict(flag.removeprefix("--").split("=", 1) for flag in flags[0].split())
        yield Step(keyword, given, rest[flags.end() :].strip())


def build(file: Path, folder: Path) -> tuple[Tree, Mapping[str, Tree]]:
    """The last stage, at folder/root, and by name all others, each of them in folder/NAME.

    Each is built at folder/root, since a venv knows its own path, and set aside when it is done.
    """
    *stages, last = read(file)
    done: dict[str, Tree] = {}
    for stage in stages:
        tree = _built(stage, folder / "root", done)
        done[stage.name] = replace(tree, root=tree.root.rename(folder / stage.name))
    return _built(last, folder / "root", done), done


def _built(stage: Stage, root: Path, done: Mapping[str, Tree]) -> Tree:
    tree = _begin(stage, root, done.get(stage.source))
    for step in stage.steps:
        _do(step, tree, done)
    return tree


def _begin(stage: Stage, root: Path, parent: Tree | None) -> Tree:
    if parent:
        copy(parent.root, root)
        return Tree(root, dict(parent.environment), parent.workdir, list(parent.left_out))
    root.mkdir()
    if stage.source != "scratch":
        _put_python(root / "usr/local", stage.source)
        (root / "tmp").mkdir()
        (root / "tmp").chmod(0o1777)
    return Tree(root, {"PATH": "/usr/local/bin:/usr/bin:/bin"})


def _put_python(prefix: Path, image: str) -> None:
    """The Python of the tests, and the pip and uv of requirements.lock, which are there already when pip looks."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not image.startswith(f"python:{version}."):
        pytest.skip(f"the image is {image}, and this is Python {version}")
    library = prefix / f"lib/python{version}"
    left_out = shutil.ignore_patterns("site-packages", "test", "idlelib", "ensurepip", "config-*", "__pycache__")
    shutil.copytree(sysconfig.get_path("stdlib"), library, symlinks=True, ignore=left_out, copy_function=link)
    for shared in (Path(sys.base_prefix) / "lib").glob(f"libpython{version}*"):
        link(shared, prefix / "lib" / shared.name)
    (prefix / "bin").mkdir()
    link(Path(sys._base_executable).resolve(), prefix / f"bin/python{version}")  # type: ignore[attr-defined]
    for name in ("python", "python3"):
        (prefix / "bin" / name).symlink_to(f"python{version}")
    for name in ("pip", "uv"):
        for entry in distribution(name).files or ():
            if "__pycache__" not in entry.parts:
                destination = Path(os.path.normpath(library / "site-packages" / entry))
                destination.parent.mkdir(parents=True, exist_ok=True)
                link(Path(str(entry.locate())), destination)


def _do(step: Step, tree: Tree, done: Mapping[str, Tree]) -> None:
    match step.keyword:
        case "ARG":
            name, _, value = step.text.partition("=")
            tree.environment[name] = value
        case "ENV":
            for name, value in (word.split("=", 1) for word in step.words):
                tree.environment[name] = value.replace("$PATH", tree.environment["PATH"])
        case "WORKDIR":
            tree.workdir = step.text
            tree.path(".").mkdir(parents=True, exist_ok=True)
        case "COPY":
            *sources, destination = step.words
            for name in sources:
                other = done.get(step.flags.get("from", ""))
                source = Path(f"{other.root}{name}") if other else ROOT / name
                into = destination.endswith("/") and source.is_file()
                copy(source, tree.path(destination) / source.name if into else tree.path(destination))
        case "RUN":
            for command in step.text.split("&&"):
                if shlex.split(command)[0] in RUN_HERE:
                    _run(tree.here(command.strip()), tree)
                else:
                    tree.left_out.append(command.strip())


def _run(command: str, tree: Tree) -> None:
    strange = [word for word in re.findall(r"(?<![\w.-])/[\w./-]+", command) if not word.startswith(str(tree.root))]
    assert not strange, f"{command}: {strange} is not the image's own"
    cache = os.environ.get("UV_CACHE_DIR") or str(Path.home() / ".cache/uv")
    ours = {"HOME": "/tmp", "LD_LIBRARY_PATH": "/usr/local/lib"}  # noqa: S108 -- the image's
    uv = {"UV_CACHE_DIR": cache, "UV_LINK_MODE": "hardlink", "UV_OFFLINE": "1"}
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=tree.path("."),
        env={**tree.real_environment(ours), **uv},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}"


def copy(source: Path, destination: Path) -> None:
    """A folder's content, or a file; of the repository only what .dockerignore lets through."""
    if not source.is_relative_to(ROOT):  # of another stage: as links, which takes a tenth of the time
        destination.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "--archive", "--link", f"{source}/.", destination], check=True)
        return
    assert lets_through(source), f"{source}: .dockerignore keeps it out"

    def kept_out(at: str, names: list[str]) -> list[str]:
        return [name for name in names if not lets_through(Path(at, name))]

    if source.is_dir():
        shutil.copytree(source, destination, ignore=kept_out)
    else:
        shutil.copy(source, destination)


def lets_through(path: Path) -> bool:
    """Whether the engine would be sent it. Of the patterns of .dockerignore, the last that fits decides."""
    name, sent = path.relative_to(ROOT).as_posix(), True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!")
            anywhere = pattern.startswith("**/") and pattern.removeprefix("**/") in name.split("/")
            if pattern == "*" or anywhere or f"{name}/".startswith(f"{pattern}/"):
                sent = line.startswith("!")
    return sent


def link(source: str | Path, destination: str | Path) -> None:
    """The same file under a second name where the disk is the same, else a copy; a link stays one."""
    try:
        os.link(source, destination, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, destination, follow_symlinks=False)

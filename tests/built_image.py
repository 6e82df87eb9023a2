"""A Dockerfile -> what it builds, and processes in that as an engine would start them: user, environment, folder."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pytest
from packaging.utils import canonicalize_name

from tests.dockerfile import Stage, Tree, build, read

START_SECONDS = 60  # on a busy machine
STOP_SECONDS = 30
NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
LIST = "from importlib.metadata import distributions; [print(one.name, one.version) for one in distributions()]"


@dataclass(frozen=True)
class BuiltImage:
    """Its files are root's, and its processes are not: to them all but its volumes and /tmp is read-only."""

    stage: Stage
    tree: Tree
    stages: Mapping[str, Tree]  # that it was made from, or that stand beside it

    def path(self, name: str) -> Path:
        return Path(self.tree.here(name))

    @property
    def user(self) -> int:
        return int(self.stage.the("USER").text.partition(":")[0])

    def give(self, path: Path) -> Path:
        """What is at path and below belongs to its user then."""
        for one in (path, *path.rglob("*")):
            os.chown(one, self.user, self.user, follow_symlinks=False)
        return path

    def run(self, *command: str, code: int = 0, environment: Mapping[str, str] = NOTHING) -> str:
        """What a command, or its own, printed. Fails with it when the exit code is another."""
        words = self._behind_entry(command)
        done = subprocess.run(
            words,
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **self._as_it_is(environment),
        )
        assert done.returncode == code, f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}"
        return str(done.stdout)

    @contextmanager
    def running(self, log: Path, environment: Mapping[str, str]) -> Iterator[None]:
        """Its own command, from when its own health check finds it well; it must end well when it is told to."""
        with log.open("ab") as file:
            process = subprocess.Popen(
                self._behind_entry(()), stdout=file, stderr=file, start_new_session=True, **self._as_it_is(environment)
            )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not self.is_well(environment):
                assert process.poll() is None, f"ended with {process.returncode}:\n{log.read_text()}"
                assert time.monotonic() < deadline, f"is not well:\n{log.read_text()}"
            yield
            process.terminate()
            assert process.wait(STOP_SECONDS) == 0, f"SIGTERM is a good end:\n{log.read_text()}"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def is_well(self, environment: Mapping[str, str] = NOTHING) -> bool:
        """What its health check says, once."""
        words = [self.tree.here(word) for word in self.stage.the("HEALTHCHECK").words]
        return subprocess.run(words, check=False, capture_output=True, **self._as_it_is(environment)).returncode == 0

    def packages(self) -> dict[str, str]:
        """Name: version of everything installed."""
        found = (line.split() for line in self.run("python", "-c", LIST).splitlines())
        return {canonicalize_name(name): version for name, version in found}

    def written(self) -> set[str]:
        """The folders and files, relative to its `/`, that belong to its user."""
        return {
            Path(folder, name).relative_to(self.tree.root).as_posix()
            for folder, folders, names in os.walk(self.tree.root)
            for name in (*folders, *names)
            if os.lstat(Path(folder, name)).st_uid == self.user
        }

    def _behind_entry(self, command: tuple[str, ...]) -> list[str]:
        return [*self.stage.the("ENTRYPOINT").words, *(command or self.stage.the("CMD").words)]

    def _as_it_is(self, environment: Mapping[str, str]) -> dict[str, Any]:
        here = {"LD_LIBRARY_PATH": "/usr/local/lib", "TMPDIR": "/tmp"}  # noqa: S108 -- the image's
        return {
            "cwd": self.tree.path("."),
            "env": {**self.tree.real_environment(here), **environment},
            "stdin": subprocess.DEVNULL,
            "user": self.user,
            "group": self.user,
            "extra_groups": (),
        }


@contextmanager
def built_image(file: Path) -> Iterator[BuiltImage]:
    """In a folder that others than us can reach, unlike pytest's."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root starts processes as another user, which those of an image are")
    folder = Path(tempfile.mkdtemp(prefix="fingers-image-"))
    folder.chmod(0o755)
    try:
        yield BuiltImage(read(file)[-1], *build(file, folder))
    finally:
        shutil.rmtree(folder)

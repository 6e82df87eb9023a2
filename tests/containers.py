"""A service of deploy/compose.yaml -> its command, its environment and its health check as processes of this machine.

No container engine is needed: addresses, ports and paths are those of this machine, all else is what Compose resolved
and what the image's Dockerfile sets. A folder stands for the container's `/`; secrets and volumes are links in it,
where an engine would mount them.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ops import cluster
from ops.processes import as_user, free_ports
from tests.composed import DEPLOY, Service, config, services
from tests.dockerfile import Stage, read
from tests.native import ROOT

PORTS = ("5000", "5432", "8000", "9000", "9090", "9101")
ADDRESS = re.compile(rf"\b(?:(?:frontend|mlflow|postgres|s3|serving):)?({'|'.join(PORTS)})\b")
PATHS = (
    "/data",
    "/etc/prometheus",
    "/etc/seaweedfs",
    "/opt/fingers",
    "/prometheus",
    "/run/secrets",
    "/var/lib/fingers",
)
PATH = re.compile(rf"(?<![\w./-])({'|'.join(PATHS)}|/tmp)(?![\w-])")
PATIENCE = 60  # s until a service is healthy
STOP = 30  # s, as stop_grace_period


@dataclass(frozen=True)
class Host:
    """What containers of one platform share: a folder, and who has which port."""

    folder: Path
    ports: Mapping[str, int] = field(default_factory=lambda: dict(zip(PORTS, free_ports(len(PORTS)), strict=True)))
    # MinIO is to be had as an image alone; weed is what the image of SeaweedFS holds.
    overrides: Sequence[str] = ("seaweedfs",)

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    def volume(self, name: str) -> Path:
        path = self.folder / "volumes" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def url(self, port: str) -> str:
        return f"http://127.0.0.1:{self.ports[port]}"

    def container(self, name: str, **changes: str) -> "Container":
        """changes: of its environment, for one that is to be told something else."""
        service = services(*self.overrides)[name]
        root = self.folder / "containers" / name
        if not root.exists():
            for target, source in self._mounts(service):
                place = Path(f"{root}{target}")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(source)
            for folder in ("/opt/fingers", "/tmp"):  # noqa: S108 -- the container's
                Path(f"{root}{folder}").mkdir(parents=True)
            for file in (DEPLOY / "images/healthy.py", ROOT / "dvc.yaml", ROOT / "params.yaml"):
                shutil.copy(file, f"{root}/opt/fingers")
        return Container(name, service, root, self.ports, changes)

    def _mounts(self, service: Service) -> Iterator[tuple[str, Path]]:
        files = config(*self.overrides)["secrets"]
        for secret in service.get("secrets", []):
            yield secret["target"], self.secrets / Path(files[secret["source"]]["file"]).name
        for mount in service.get("volumes", []):
            volume = mount["type"] == "volume"
            yield mount["target"], self.volume(mount["source"]) if volume else Path(mount["source"])


@dataclass(frozen=True)
class Container:
    name: str
    service: Service
    root: Path
    ports: Mapping[str, int]
    changes: Mapping[str, str]

    @property
    def image(self) -> Stage | None:
        """None for one of others'."""
        same = [one for one in services().values() if one["image"] == self.service["image"] and "build" in one]
        return read(Path(same[0]["build"]["context"], same[0]["build"]["dockerfile"]))[-1] if same else None

    @property
    def command(self) -> list[str]:
        """Entry point and all."""
        entry = self.service.get("entrypoint") or (self.image.the("ENTRYPOINT").words if self.image else [])
        given = self.service.get("command") or (self.image.the("CMD").words if self.image else [])
        return [self.here(word) for word in (*entry, *given)]

    @property
    def environment(self) -> dict[str, str]:
        """The image's, the service's, and programs of this machine that the image would have."""
        kept = {"LANG", "LD_LIBRARY_PATH", "PYTHONWARNINGS", "TZ"}
        known = {name: value for name, value in os.environ.items() if name in kept}
        image = self.image.environment if self.image else {}
        given = {name: value for name, value in self.service.get("environment", {}).items() if value is not None}
        moved = {name: self.here(value) for name, value in {**image, **given}.items() if name != "PATH"}
        if hosts := given.get("MLFLOW_SERVER_ALLOWED_HOSTS"):
            moved["MLFLOW_SERVER_ALLOWED_HOSTS"] = hosts  # names that clients use, not an address
        folders = (self.root.parent / "bin", Path(sys.executable).parent, cluster.program("postgres").parent)
        return {**known, **moved, "PATH": os.pathsep.join([*map(str, folders), os.environ["PATH"]]), **self.changes}

    def here(self, text: str) -> str:
        """With addresses, ports and paths as they are on this machine."""
        text = ADDRESS.sub(
            lambda found: f"127.0.0.1:{self.ports[found[1]]}" if ":" in found[0] else str(self.ports[found[1]]),
            text.replace("0.0.0.0", "127.0.0.1"),  # noqa: S104 -- a test is nobody else's to reach
        )
        return PATH.sub(rf"{self.root}\1", text)

    @contextmanager
    def running(
        self, *more: str, command: Sequence[str] = (), user: str | None = None
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """Healthy, where it has a check. more: arguments; command: in place of that of an image of others."""
        words = [*(command or self.command), *more]
        with (self.root / "log").open("ab") as log:
            process = subprocess.Popen(
                [Path(words[0]).name, *words[1:]],
                cwd=f"{self.root}/opt/fingers",
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **as_user(user),
            )
        try:
            self.wait(process)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP)
            finally:
                with suppress(ProcessLookupError):  # as it should be: nothing of it is left
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def wait(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + PATIENCE
        while "test" in self.service.get("healthcheck", {}) and self.check().returncode:
            assert process.poll() is None, f"{self.name} ended:\n{self.log}"
            assert time.monotonic() < deadline, f"{self.name} is not healthy: {self.check().stdout}\n{self.log}"
            time.sleep(0.2)

    def check(self, **changes: str) -> "subprocess.CompletedProcess[str]":
        """Its health check, once."""
        _, *words = self.service["healthcheck"]["test"]
        return self._run([self.here(word) for word in words], changes)

    def run(self, *more: str) -> "subprocess.CompletedProcess[str]":
        """To its end, as `docker compose run` does; more takes the place of the command."""
        entry = len(self.command) - len(self.service["command"])
        return self._run([*self.command[:entry], *map(self.here, more)] if more else self.command, {})

    def _run(self, words: Sequence[str], changes: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            words,
            cwd=f"{self.root}/opt/fingers",
            env={**self.environment, **changes},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    @property
    def log(self) -> str:
        return (self.root / "log").read_text(encoding="utf-8", errors="replace")

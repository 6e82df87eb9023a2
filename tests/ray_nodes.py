"""A Ray cluster of two nodes on this machine, each a tree of processes with ports and a folder of its own."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from ops.processes import free_ports

CPUS = 2  # of each node, as Ray counts them
STORE_BYTES = 300_000_000
STARTS = 8  # tries: on a busy machine Ray's own processes wait for each other for 15 s, and give up
PORTS = ("node-manager", "object-manager", "runtime-env-agent", "dashboard-agent-listen", "dashboard-agent-grpc")
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}  # Ray listens on every address of the machine


@dataclass(frozen=True)
class Node:
    """`ray start --block`, whose children are the node's other processes."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def is_up(self) -> bool:
        """Raises nothing: False when it has given up."""
        while self.process.poll() is None:
            if "Ray runtime started." in self.log.read_text(errors="replace"):
                return True
            time.sleep(0.2)
        return False

    def kill(self) -> None:
        """As a machine goes that loses its power: all of it at once."""
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.process.pid)
            for process in (first, *first.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        self.process.wait()


@dataclass(frozen=True)
class Cluster:
    folder: Path
    port: int
    token: str
    nodes: list[Node] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What a program finds it by."""
        return {**QUIET, "RAY_ADDRESS": f"127.0.0.1:{self.port}", "RAY_AUTH_TOKEN": self.token}

    def grow(self) -> Node:
        """By a node. The first is the head, to which tests talk."""
        for attempt in range(STARTS):
            node = self._start(self.folder / f"{len(self.nodes)}-{attempt}")
            if node.is_up():
                self.nodes.append(node)
                return node
            node.kill()
        raise AssertionError(node.log.read_text(errors="replace")[-2000:])

    def stop(self) -> None:
        for node in reversed(self.nodes):
            node.kill()
        shutil.rmtree(self.folder)

    def _start(self, folder: Path) -> Node:
        role = [f"--address=127.0.0.1:{self.port}"]
        if not self.nodes:
            role = ["--head", f"--port={self.port}", "--include-dashboard=false"]
        options = {
            "node-ip-address": "127.0.0.1",
            "temp-dir": folder,
            "num-cpus": CPUS,
            "object-store-memory": STORE_BYTES,
            "metrics-export-port": 0,
            "min-worker-port": 0,
            "max-worker-port": 0,
            **{f"{name}-port": port for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)},
        }
        log = folder.with_suffix(".log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"),
                    *(*role, *(f"--{name}={value}" for name, value in options.items())),
                ],
                env={**os.environ, **self.environment},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return Node(process, log)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Of two nodes; a test that kills the second has to let it grow again."""
    (port,) = free_ports(1)
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="ray-")), port, secrets.token_hex(16))
    try:
        cluster.grow()
        cluster.grow()
        yield cluster
    finally:
        cluster.stop()

"""deploy/prometheus and addresses -> a real Prometheus (Debian's) that reads them every few seconds."""

import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from stages.files import write_text
from tests.native import ROOT
from tests.server import free_port

FOLDER = ROOT / "deploy/prometheus"
START_SECONDS = 30
installed = pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool; apt-get install prometheus")


@dataclass(frozen=True)
class Prometheus:
    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Of an instant: [{metric: labels, value: [s, text]}]."""
        result: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return result

    def ask(self, what: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{what}", params=parameters, timeout=30).json()
        assert answer["status"] == "success", answer
        return answer["data"]


@contextmanager
def prometheus(folder: Path, targets: Mapping[str, str], key: str, alertmanager: str) -> Iterator[Prometheus]:
    """targets: host:port by job."""
    port = free_port()
    configuration = written(folder, {**targets, "prometheus": f"127.0.0.1:{port}"}, key)
    write_text(folder / "alertmanagers.yml", yaml.safe_dump([{"targets": [alertmanager]}]))
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={configuration}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stderr=log,
        )
    running = Prometheus(f"http://127.0.0.1:{port}")
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_ready(running):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "prometheus.log").read_text()
            time.sleep(0.05)
        yield running
    finally:
        process.terminate()
        process.wait()


def written(folder: Path, targets: Mapping[str, str], key: str) -> Path:
    """prometheus.yml as it is deployed, but for where targets are, how often they are read, and the key's place."""
    document = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    document["global"] = dict.fromkeys(document["global"], "2s")
    document["rule_files"] = [str(FOLDER / "rules/*.yml")]
    write_text(folder / "metrics_key", f"{key}\n")  # as make_secrets writes it
    for job in document["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
        job.pop("dns_sd_configs", None)
        if "scrape_interval" in job:
            job["scrape_interval"] = job["scrape_timeout"] = "5s"
        if "authorization" in job:
            job["authorization"]["credentials_file"] = str(folder / "metrics_key")
    write_text(folder / "prometheus.yml", yaml.safe_dump(document))
    return folder / "prometheus.yml"


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)


def rules() -> Sequence[Mapping[str, Any]]:
    """Of all files, in their order."""
    files = sorted(FOLDER.glob("rules/*.yml"))
    return [rule for file in files for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def is_ready(running: Prometheus) -> bool:
    try:
        return httpx.get(f"{running.url}/-/ready").status_code == 200
    except httpx.TransportError:
        return False

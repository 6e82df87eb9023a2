"""The server asked whatever its own description allows, and what that forbids: schemathesis finds nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.native import ROOT
from tests.team import address, founded

pytestmark = pytest.mark.slow
# More files than MAX_BATCH are a 413, which the description cannot say: the number is a setting.
CONFIGURATION = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "413", "429", "5xx"]
"""


def test_schemathesis_finds_nothing(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a registry, since without one /runs answers 503, which would be taken for a bug."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address(tmp_path))
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    server = founded(tmp_path, empty_store).server
    program = str(Path(sys.executable).with_name("schemathesis"))
    command = [program, "run", f"{server.url}/openapi.json", "--checks", "all"]
    try:
        done = subprocess.run(
            [*command, "--max-examples", "40", "--no-color", "--seed", "1"],
            cwd=tmp_path,  # it leaves a folder of its own
            env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.api_bodies", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    finally:
        code = server.stop()
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]
    assert code == 0

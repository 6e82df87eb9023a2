"""The pipeline as its users know it: repro, experiments, queues, diffs, plots, a kill on the way."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import Checkout, clone, shrink, stored

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A clone whose committed params are tiny, after one repro, with the result committed."""
    checkout = clone(tmp_path_factory.mktemp("tiny") / "clone")
    shrink(checkout)
    checkout.run("dvc", "repro")
    checkout.git("add", "--all")
    checkout.git("commit", "--quiet", "--message", "tiny")
    return checkout


def runs(checkout: Checkout) -> list[dict[str, Any]]:
    """All runs of the clone's own MLflow store, oldest first."""
    found: list[dict[str, Any]] = stored(checkout)["runs"]
    return found


def test_a_second_repro_does_nothing(tiny: Checkout) -> None:
    said = tiny.run("dvc", "repro")
    assert said.count("didn't change, skipping") == 8 or "up to date" in said
    assert "Running stage" not in said
    assert tiny.git("status", "--porcelain") == ""


def test_one_training_is_one_run_with_its_epochs_its_scores_and_its_lineage(tiny: Checkout) -> None:
    (run,) = runs(tiny)
    assert run["status"] == "FINISHED"
    assert run["steps"]["box_loss"] == [1, 2]
    assert run["metrics"]["test/map50"] == json.loads((tiny.root / "models/evaluate/metrics.json").read_text())["map50"]
    assert len(run["tags"]["training_key"]) == 64
    release = json.loads((tiny.root / "models/release.json").read_text())
    assert release["lineage"]["run_id"] == run["id"]


def test_no_output_holds_an_absolute_path_or_a_date(tiny: Checkout) -> None:
    for path in [*tiny.root.glob("data/**/*.*"), *tiny.root.glob("models/**/*.*")]:
        content = path.read_bytes()
        assert os.fsencode(tiny.root) not in content, path
        assert os.fsencode(Path.home()) + b"/" not in content, path
        assert not re.search(rb"20\d\d-\d\d-\d\d[T ]\d\d:\d\d", content), path


def test_an_experiment_changes_what_it_names_and_carries_its_name(tiny: Checkout) -> None:
    said = tiny.run("dvc", "exp", "run", "--name", "seven", "-S", "train.seed=7")
    assert "Running stage 'train'" in said
    assert "Running stage 'pull'" not in said
    assert "seven" in [run["name"] for run in runs(tiny)]
    shown = tiny.run("dvc", "exp", "show", "--csv")
    assert "seven" in shown
    assert "train.seed" in tiny.run("dvc", "params", "diff")
    assert "map50" in tiny.run("dvc", "metrics", "diff", "--all")
    tiny.git("checkout", "--", ".")
    tiny.run("dvc", "checkout", "--force")


def test_queued_experiments_log_to_the_store_of_the_main_checkout(tiny: Checkout) -> None:
    before = len(runs(tiny))
    tiny.run("dvc", "exp", "run", "--queue", "-S", "train.batch_size=4,6")
    tiny.run("dvc", "exp", "run", "--run-all")
    after = runs(tiny)
    assert len(after) == before + 2
    assert {run["params"]["train.batch_size"] for run in after[before:]} == {"4", "6"}
    assert all(run["status"] == "FINISHED" for run in after)


def test_a_restored_training_makes_no_second_run(tiny: Checkout) -> None:
    before = runs(tiny)
    for name in ("detector.pt", "detector.onnx"):
        (tiny.root / "models" / name).unlink()
    said = tiny.run("dvc", "repro")
    assert "Running stage 'train'" not in said
    assert len(runs(tiny)) == len(before)


def test_plots_open_without_a_network(tiny: Checkout) -> None:
    tiny.run("dvc", "plots", "show")
    page = (tiny.root / "dvc_plots/index.html").read_text()
    assert not re.findall(r"<(?:script|link)[^>]+(?:src|href)=", page)
    for title in ("training loss", "validation mAP", "confusion"):
        assert title in page


def test_a_training_killed_on_the_way_goes_on_in_the_same_run(tiny: Checkout) -> None:
    before = runs(tiny)
    command = ["dvc", "repro"]
    tiny.run("python", "-c", CHANGE, "train", "epochs", "6")
    child = subprocess.Popen(
        command,
        cwd=tiny.root,
        env=tiny.environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    epochs = tiny.root / "models/train/epochs.csv"
    try:
        wait_until(lambda: epochs.exists() and epochs.read_text().count("\n") >= 3, seconds=180)
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    said = tiny.run("dvc", "repro")
    assert "Running stage 'train'" in said
    (run,) = [run for run in runs(tiny) if run["id"] not in {r["id"] for r in before}]
    assert run["steps"]["map50"] == [1, 2, 3, 4, 5, 6]
    assert run["status"] == "FINISHED"
    lines = epochs.read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "1", "2", "3", "4", "5", "6"]
    tiny.git("checkout", "--", ".")
    tiny.run("dvc", "checkout", "--force")


CHANGE = """
import sys, yaml, pathlib
path, (section, key, value) = pathlib.Path("params.yaml"), sys.argv[1:]
params = yaml.safe_load(path.read_text())
params[section][key] = int(value)
path.write_text(yaml.safe_dump(params, sort_keys=False))
"""


def wait_until(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"nothing happened in {seconds} s"
        time.sleep(0.1)


def test_wrong_params_stop_the_pipeline_with_one_line(tiny: Checkout) -> None:
    said = tiny.run("dvc", "exp", "run", "-S", "split.test=0.3", code=255)
    assert "split: error: params.yaml: split: train + val + test is 1.2; make it 1" in said
    assert "Traceback" not in said
    tiny.git("checkout", "--", ".")
    tiny.run("dvc", "checkout", "--force")

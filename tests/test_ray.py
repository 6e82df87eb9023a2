"""Beyond one machine: a Ray cluster trains, sweeps and looks at pictures, and one of its nodes dies on the way."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from typer.testing import CliRunner

from ops import leash
from ops.bucket import READS, Folder, Stored
from ops.cli import app
from stages.nodes import below
from stages.params import StageError
from tests.buckets import Bucket
from tests.checkout import clone, shrink
from tests.names import serving
from tests.native import ROOT, noise, png
from tests.platform import Platform
from tests.ray_nodes import Cluster
from tests.server import write_repository
from tests.test_train import PATHS, count_epochs, draw, logged_steps, params_with, weights_in

if TYPE_CHECKING:
    from ops.parts import Line

# Without a cluster


@pytest.mark.parametrize(
    "command",
    [
        ["predict", "s3://camera/a", "--ray", "--out", "s3://counted/a"],
        ["audit", "s3://camera/a", "--ray", "--out", "s3://checked/a"],
        ["sweep", "train.seed=1,2"],
    ],
)
def test_without_ray_one_line_says_how_to_install_it(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(StageError, match=r"^Ray is not installed: it is the extra `ray`: uv pip install '\.\[ray\]'"):
        CliRunner().invoke(app, command, catch_exceptions=False)


def test_without_a_cluster_one_line_says_how_to_start_one(tmp_path: Path) -> None:
    write_repository(tmp_path)
    command = [str(Path(sys.executable).with_name("fingers")), "sweep", "train.seed=1"]
    environment = {**os.environ, "RAY_ADDRESS": "auto", "RAY_TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if not line.startswith("[")]  # Ray's own, of somebody's cluster
    assert [line.partition(";")[0] for line in said] == [
        "fingers: error: no Ray cluster (RAY_ADDRESS: auto): none runs on this machine"
    ]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["predict", "s3://camera/a"], "add --ray"),
        (["audit", "s3://camera/a", "--out", "b"], "add --ray"),
        (["predict", "s3://camera/a", "--ray"], "another as --out"),
        (["predict", "s3://camera/a", "--ray", "--out", "s3://b/a", "--save", "c"], "are for one machine"),
        (["audit", "s3://camera/a", "--ray", "--out", "s3://b/a", "--boxes", "c.json"], "is for one machine"),
    ],
)
def test_what_does_not_go_together_is_refused(
    command: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_repository(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert message in " ".join(done.output.replace("│", "").split())


def test_importing_the_command_line_does_not_import_ray() -> None:
    code = "import sys, ops.cli, ops.predict, ops.audit, stages.train; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("url", ["", "camera", "s3://", "s3://A", "http://a/b"])
def test_what_is_no_folder_on_s3_is_refused(url: str) -> None:
    with pytest.raises(StageError, match=r"no folder on S3; give s3://BUCKET/FOLDER"):
        Folder.at(url)


def test_a_folder_tells_what_is_in_it_and_shows_no_key() -> None:
    folder = Folder("s3://camera/a", {"AWS_SECRET_ACCESS_KEY": "very secret"})
    assert folder.holds(Folder.at("s3://camera/a/b"))
    assert folder.holds(folder)
    assert not folder.holds(Folder.at("s3://camera/ab"))
    assert "very secret" not in repr(folder)


def test_the_part_of_a_picture_follows_from_its_name_alone() -> None:
    from ops.parts import parts_of

    few = [Stored(f"{n}.jpg", "") for n in range(10)]
    many = [*few, *(Stored(f"{n}.jpg", "") for n in range(10, 1000))]
    assert parts_of([], 2) == [[], []]
    for before, after in zip(parts_of(few, 7), parts_of(many, 7), strict=True):
        assert set(before) <= set(after)
    assert max(map(len, parts_of(many, 7))) < 200


class Naming:
    """A task that needs no model: it says that it saw three faces."""

    made_by = "naming"

    def open(self, _: Path) -> Callable[["Line", bytes], "Line"]:
        return lambda line, _: line.model_copy(update={"faces": 3})


def test_a_picture_that_s3_withholds_or_that_is_too_large_is_a_line_and_no_end(
    platform: Platform, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ops.parts import LARGEST, Processor, Totals

    for name, value in aws(platform).items():
        monkeypatch.setenv(name, value)
    for name in ("archived.png", "small.png"):
        bucket.s3.put_object(Bucket=bucket.name, Key=f"camera/{name}", Body=b"png")
    source, out = Folder.at(f"{bucket.url}/camera"), Folder.at(f"{bucket.url}/counted")
    listed = {stored.name: stored for stored in source.listed()}
    pictures = [*listed.values(), Stored("large.png", "etag", LARGEST + 1)]
    row = {
        "file": "part.jsonl",
        "names": [one.name for one in pictures],
        "etags": [one.etag for one in pictures],
        "sizes": [one.size for one in pictures],
    }
    with bucket.withheld("camera/archived.png"):
        done = Processor(source, out, Naming())(row)
    assert done == {"refusal": "", **asdict(Totals(pictures=3, failed=2, faces=3))}
    lines = [json.loads(line) for line in (out.read("part.jsonl") or b"").splitlines()]
    assert [line.get("error", {}).get("message") for line in lines] == [
        "refused: AccessDenied",
        None,
        "100,000,001 bytes; a picture may have 100,000,000",
    ]
    again = Processor(source, out, Naming())(row)
    assert again["there_already"] == 1, "what failed is tried again"
    assert again["failed"] == 1


@pytest.mark.parametrize("breaks", [0, READS - 1, READS])
def test_an_answer_of_s3_that_breaks_off_is_asked_for_again(breaks: int) -> None:
    """And temporary keys are shown whole, token included."""
    tokens: list[str | None] = []

    class Breaking(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            tokens.append(self.headers["x-amz-security-token"])
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"x" * (100 if len(tokens) > breaks else 10))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Breaking) as listening, serving(listening):
        keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"}
        folder = Folder("s3://camera", {**keys, "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{listening.server_port}"})
        if breaks < READS:
            assert folder.read("a.png") == b"x" * 100
        else:
            with pytest.raises(StageError, match="s3://camera: "):
                folder.read("a.png")
    assert tokens == ["t"] * min(breaks + 1, READS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.absent": 1}, r"train\.absent: Could not override 'train\.absent'"),
        ({"train.epochs": 0}, r"params\.yaml: train\.epochs"),
        ({"train.optimizer": "auto", "train.ultralytics.lr0": 0.1}, "optimizer auto would ignore it"),
    ],
)
def test_values_that_no_stage_would_take_are_refused_before_the_first_trial(
    changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ops.sweep import params_with as tried

    monkeypatch.setenv("DVC_ROOT", str(ROOT))
    assert tried({"train.epochs": 3, "+train.ultralytics.degrees": 5.0}).train.epochs == 3
    with pytest.raises(StageError, match=message):
        tried(changes)


def test_each_value_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from ops.sweep import params_of_trials, parsed

    monkeypatch.setenv("DVC_ROOT", str(ROOT))
    keys = ("train.seed=1,2,3", "train.epochs=5,6", "train.ultralytics.lr0=uniform(0.1,0.2)")
    found = [(params.train.seed, params.train.epochs) for params in params_of_trials(dict(map(parsed, keys)))]
    assert found == [(1, 5), (2, 5), (3, 5), (1, 5), (1, 6), (1, 5)]


def test_weights_that_lie_here_go_along_to_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from ultralytics.models import YOLO

    from ops.sweep import weights_below

    (tmp_path / "here/.local/weights").mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "here"))
    monkeypatch.chdir(tmp_path / "here")
    (elsewhere, official, own) = (tmp_path / "a.pt", Path(".local/weights/yolo11n.pt"), Path("own.pt"))
    for file in (elsewhere, official, own):
        torch.save({"model": YOLO("yolo11n.yaml").model}, file)
    found = weights_below(tmp_path / "here", {str(elsewhere), "yolo11n.pt", "own.pt", "yolo11s.yaml"})
    assert {name: path.is_file() for name, path in found.items()} == {".local/weights/yolo11n.pt": True, "own.pt": True}


@pytest.mark.parametrize("text", ["", "train.seed", "=1", "train seed=1", "train.seed=", "a=uniform(1)", "a=range(x)"])
def test_values_that_are_none_are_refused(text: str) -> None:
    from ops.sweep import parsed

    with pytest.raises(StageError, match=r"give KEY=a,b,c, KEY=range\(1,4\), KEY=uniform"):
        parsed(text)


def test_values_are_what_params_yaml_would_hold() -> None:
    from ops.sweep import parsed

    assert parsed("train.seed=1,2") == ("train.seed", {"grid_search": [1, 2]})
    assert parsed("train.seed=range(1,4)") == ("train.seed", {"grid_search": [1, 2, 3]})
    assert parsed("train.optimizer=SGD,AdamW") == ("train.optimizer", {"grid_search": ["SGD", "AdamW"]})
    assert parsed("+train.ultralytics.degrees=1.5") == ("+train.ultralytics.degrees", {"grid_search": [1.5]})
    _, domain = parsed("train.ultralytics.lr0=loguniform(1e-4, 1e-2)")
    assert 1e-4 <= domain.sample() <= 1e-2


def test_what_is_not_drawn_is_not_drawn_several_times() -> None:
    from ops.sweep import Wish, sweep

    with pytest.raises(StageError, match="--trials 3: nothing is drawn"):
        sweep(Wish(["train.seed=1,2"], trials=3, at_once=0, cpus=1, gpus=0, seed=0, name="sweep"))


STAGES: dict[str, Any] = {
    "pull": {"params": ["pull"], "outs": ["raw"]},
    "split": {"params": ["split"], "deps": ["raw"], "outs": ["splits", {"sides.csv": {"cache": False}}]},
    "train": {"params": ["train"], "deps": ["splits", "raw", "train.py"], "outs": ["detector"]},
    "evaluate": {"params": ["evaluate", "split"], "deps": ["detector", "splits"], "outs": []},
}


@pytest.mark.parametrize(
    ("keys", "first", "outs"),
    [
        (["train.seed"], "train", ["raw", "splits"]),
        (["+train.ultralytics.degrees", "evaluate.seed"], "train", ["raw", "splits"]),
        (["split.seed"], "split", ["raw"]),
    ],
)
def test_a_trial_begins_with_the_first_stage_that_a_value_changes(keys: list[str], first: str, outs: list[str]) -> None:
    from ops.sweep import first_changed, wanted_outs

    assert first_changed(STAGES, keys) == first
    assert wanted_outs(STAGES, first) == outs


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("trian.seed", "no stage has a section 'trian'"),
        ("pull.demo.seed", "fetch all pictures again"),
        ("evaluate.seed", "nothing would be trained"),
    ],
)
def test_what_no_trial_could_change_is_refused(key: str, message: str) -> None:
    from ops.sweep import first_changed

    with pytest.raises(StageError, match=message):
        first_changed(STAGES, [key])


def test_files_are_named_below_a_folder(tmp_path: Path) -> None:
    assert below(tmp_path / "absent", "a") == {}
    (tmp_path / "b").mkdir()
    (tmp_path / "b/c").touch()
    assert below(tmp_path, "") == {"b/c": tmp_path / "b/c"}
    assert below(tmp_path, "a") == {"a/b/c": tmp_path / "b/c"}


def test_a_command_on_the_leash_ends_with_whoever_wanted_it(tmp_path: Path) -> None:
    asks = f"""
import sys, time
from pathlib import Path
from ops import leash
command = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]
leash.start(command, Path({str(tmp_path)!r}), {{}}, Path({str(tmp_path / "log")!r}))
time.sleep(600)
"""
    wants = subprocess.Popen([sys.executable, "-c", asks], cwd=ROOT)
    pid = int(waited_for(lambda: (tmp_path / "log").exists() and (tmp_path / "log").read_text()))
    assert psutil.pid_exists(pid)
    wants.kill()
    wants.wait()
    waited_for(lambda: not psutil.pid_exists(pid))


def test_a_command_on_the_leash_ends_with_its_own_exit_code(tmp_path: Path) -> None:
    with leash.start([sys.executable, "-c", "raise SystemExit(3)"], tmp_path, {}, tmp_path / "log") as process:
        assert process.wait(60) == 3


def waited_for(found: Callable[[], Any], seconds: float = 300) -> Any:
    """What found answers, once that is something."""
    deadline = time.monotonic() + seconds
    while not (something := found()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return something


# On two nodes


@pytest.fixture
def second(cluster: Cluster) -> Cluster:
    """With a second node, whatever became of it in the test before."""
    if cluster.nodes[1].process.poll() is not None:
        del cluster.nodes[1]
        cluster.grow()
    return cluster


def fingers(cluster: Cluster, folder: Path, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    given = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MLFLOW_"))}
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("fingers")), *arguments],
        cwd=folder,
        env={**given, "DVC_ROOT": str(folder), **cluster.environment, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process: "subprocess.Popen[str]", code: int = 0) -> Any:
    """The JSON that it printed."""
    out, errors = process.communicate()
    assert process.returncode == code, errors
    return json.loads(out)


def photographed(bucket: Bucket, count: int) -> None:
    for number in range(count):
        bucket.s3.put_object(Bucket=bucket.name, Key=f"camera/day/{number:03}.png", Body=png(noise(number)))
    bucket.s3.put_object(Bucket=bucket.name, Key="camera/broken.jpg", Body=b"\xff\xd8 no picture")
    bucket.s3.put_object(Bucket=bucket.name, Key="camera/note.txt", Body=b"no picture")


def planned(bucket: Bucket, source: str, out: str, parts: int) -> None:
    """More parts than so few pictures would be given."""
    plan = json.dumps({"source": source, "parts": parts})
    bucket.s3.put_object(Bucket=bucket.name, Key=f"{out}/plan.json", Body=plan.encode())


def parts_in(bucket: Bucket, out: str) -> list[str]:
    return [key for key in sorted(bucket.keys()) if key.startswith(f"{out}/part-")]


def lines_in(bucket: Bucket, out: str) -> list[dict[str, Any]]:
    contents = [bucket.s3.get_object(Bucket=bucket.name, Key=key)["Body"].read() for key in parts_in(bucket, out)]
    return [json.loads(line) for content in contents for line in content.splitlines()]


@pytest.mark.slow
def test_each_picture_has_one_result_also_when_a_node_dies_and_again_only_what_is_missing(
    second: Cluster, platform: Platform, bucket: Bucket, tmp_path: Path
) -> None:
    write_repository(tmp_path)
    photographed(bucket, 120)
    planned(bucket, f"{bucket.url}/camera", "counted", 24)
    command = ["predict", f"{bucket.url}/camera", "--ray", "--out", f"{bucket.url}/counted", "--json"]
    counting = fingers(second, tmp_path, *command, **aws(platform))
    waited_for(lambda: parts_in(bucket, "counted") or counting.poll() is not None)
    second.nodes[1].kill()
    (totals,) = said(counting, code=1)
    assert totals == {"pictures": 121, "there_already": 0, "failed": 1, "faces": 0}
    lines = lines_in(bucket, "counted")
    assert sorted(line["file"] for line in lines) == ["broken.jpg", *(f"day/{n:03}.png" for n in range(120))]
    assert {line["answer"]["finger_count"] for line in lines if "answer" in line} == {3}
    assert all(line["answer"]["preprocessing_applied"] for line in lines if "answer" in line)

    bucket.s3.put_object(Bucket=bucket.name, Key="camera/broken.jpg", Body=png(noise(500)))
    bucket.s3.put_object(Bucket=bucket.name, Key="camera/day/007.png", Body=png(noise(501)))
    bucket.s3.put_object(Bucket=bucket.name, Key="camera/new.png", Body=png(noise(502)))
    (totals,) = said(fingers(second, tmp_path, *command, **aws(platform)))
    assert totals == {"pictures": 122, "there_already": 119, "failed": 0, "faces": 0}
    again = {line["file"]: line for line in lines_in(bucket, "counted")}
    assert len(again) == len(lines_in(bucket, "counted")) == 122
    assert [line for line in lines if again[line["file"]] != line] == [
        line for line in lines if line["file"] in ("broken.jpg", "day/007.png")
    ]


DEADLY = """
import os, sys
from ops import parts
from ops.bucket import Folder
from stages.nodes import connected

class Deadly:
    made_by = "deadly"

    def open(self, folder):
        return lambda line, content: os._exit(1)

parts.TRIES = 1
with connected():
    parts.work_off(*map(Folder.at, sys.argv[1:]), Deadly())
"""


@pytest.mark.slow
def test_a_picture_that_ends_whatever_process_looks_at_it_is_not_tried_for_ever(
    second: Cluster, platform: Platform, bucket: Bucket
) -> None:
    """In a process of its own: Ray looks a token up once in each."""
    bucket.s3.put_object(Bucket=bucket.name, Key="camera/a.png", Body=b"png")
    done = subprocess.run(
        [sys.executable, "-c", DEADLY, f"{bucket.url}/camera", f"{bucket.url}/counted"],
        cwd=ROOT,
        env={**os.environ, **second.environment, **aws(platform)},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"StageError: {bucket.url}/camera: whatever looks at one of its parts ends (Actor" in done.stderr


@pytest.mark.slow
def test_an_audit_leaves_copies_without_faces_and_one_line_a_picture(
    second: Cluster, platform: Platform, bucket: Bucket, tmp_path: Path
) -> None:
    write_repository(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    photographed(bucket, 4)
    faces = Path(os.environ.get("FACES_DATA", "")) / "images"
    shown = sorted(faces.glob("*.jpg"))[:2] if "FACES_DATA" in os.environ else []
    for picture in shown:
        bucket.s3.put_object(Bucket=bucket.name, Key=f"camera/{picture.name}", Body=picture.read_bytes())
    command = ["audit", f"{bucket.url}/camera", "--ray", "--out", f"{bucket.url}/checked", "--json"]
    (totals,) = said(fingers(second, tmp_path, *command, **aws(platform)), code=1)
    assert (totals["pictures"], totals["failed"]) == (5 + len(shown), 1)
    assert totals["faces"] >= len(shown)
    copies = set(filter(re.compile("checked/pictures/").match, bucket.keys()))
    assert copies == {f"checked/pictures/day/{n:03}.png.jpg" for n in range(4)} | {
        f"checked/pictures/{picture.name}" for picture in shown
    }


@pytest.mark.slow
def test_results_of_another_folder_are_not_mixed_in(
    second: Cluster, platform: Platform, bucket: Bucket, tmp_path: Path
) -> None:
    write_repository(tmp_path)
    photographed(bucket, 1)
    planned(bucket, "s3://elsewhere/camera", "counted", 1)
    for out, message in (("counted", "holds results of s3://elsewhere/camera"), ("camera/out", "one in the other")):
        command = ["predict", f"{bucket.url}/camera", "--ray", "--out", f"{bucket.url}/{out}"]
        counting = fingers(second, tmp_path, *command, **aws(platform))
        assert message in counting.communicate()[1]
        assert counting.returncode == 1


def aws(platform: Platform) -> dict[str, str]:
    return {name: value for name, value in platform.environment.items() if name.startswith("AWS_")}


EPOCHS = 40  # after half of them both see the drawings' discs and squares
LEARNING = {"optimizer": "AdamW", "batch_size": 4, "ultralytics": {"lr0": 0.002, "mosaic": 0.0, "nbs": 4}}


def training(root: Path, environment: dict[str, str], **changed: Any) -> "subprocess.Popen[str]":
    """The stage, on drawings in root, as DVC runs it."""
    draw(root)
    document = params_with(epochs=EPOCHS, **LEARNING, **changed).model_dump(by_alias=True)
    (root / "params.yaml").write_text(json.dumps(document))
    given = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    with (root / "errors").open("w") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "stages.train", *map(str, PATHS)],
            cwd=root,
            env={**given, "DVC_ROOT": str(root), "PYTHONPATH": str(ROOT), **environment},
            stderr=errors,
            text=True,
        )


@pytest.mark.slow
def test_workers_on_two_nodes_train_the_same_kind_of_model_and_a_node_that_dies_costs_an_epoch(
    second: Cluster, tmp_path: Path
) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert training(alone, {}).wait() == 0
    process = training(together, second.environment, executor="ray", workers=2)
    waited_for(lambda: count_epochs(together) >= 3 or process.poll() is not None)
    second.nodes[1].kill()
    assert process.wait() == 0

    assert logged_steps(together) == [list(range(1, EPOCHS + 1))]
    assert not list((together / ".local/train").iterdir())
    ours, theirs = (weights_in(root / "models/detector.pt") for root in (together, alone))
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}
    report = json.loads((together / "models/train/run.json").read_text())
    assert (report["device"], report["threads"], report["workers"], report["epochs"]) == ("cpu", 1, 2, EPOCHS)
    best = [max(float(row.split(",")[10]) for row in rows_of(root)) for root in (together, alone)]
    assert min(best) > 0.8, best


def rows_of(root: Path) -> list[str]:
    return (root / "models/train/epochs.csv").read_text().splitlines()[1:]


@pytest.mark.slow
def test_what_a_worker_finds_wrong_is_said_in_one_line(second: Cluster, tmp_path: Path) -> None:
    root = tmp_path / "torn"
    process = training(root, second.environment, executor="ray", workers=2)
    picture = root / "data/yolo/images/a003.jpg"
    picture.write_bytes(picture.read_bytes()[:-200])  # the header is whole
    assert process.wait() == 1
    said = (root / "errors").read_text()
    assert "Traceback" not in said
    assert "a003.jpg" in said.splitlines()[-1]


@pytest.mark.slow
def test_each_trial_is_an_experiment_and_one_run_also_when_its_node_dies(
    second: Cluster, platform: Platform, tmp_path: Path
) -> None:
    checkout = clone(tmp_path / "clone")
    shrink(checkout)
    checkout.run("dvc", "repro")
    checkout.git("add", "--all")
    checkout.git("commit", "--quiet", "--message", "tiny")
    servers = {**platform.environment, "MLFLOW_EXPERIMENT_NAME": "sweep"}
    command = ["sweep", "train.seed=1,2", "+train.ultralytics.degrees=5.0", "--name", "tilt", "--json"]

    sweeping = fingers(second, checkout.root, *command, **servers)
    waited_for(lambda: len(list(checkout.root.glob(".local/sweep/*/.local/train/*/*.checkpoint"))) == 2, 900)
    second.nodes[1].kill()
    rows = said(sweeping)
    assert [row["state"] for row in rows] == ["done", "done"]
    assert sorted(row["train.seed"] for row in rows) == [1, 2]
    names = {row["experiment"] for row in rows}
    assert names == set(checkout.run("dvc", "exp", "list", "--name-only").split())

    listing = fingers(second, checkout.root, "runs", "--json", **servers)
    runs = said(listing)
    assert {run["name"] for run in runs} == names
    assert len(runs) == 2
    assert not list(checkout.root.glob(".local/sweep/*"))

    assert {row["state"] for row in said(fingers(second, checkout.root, *command, **servers))} == {"there already"}
    best = rows[0]
    checkout.run("dvc", "exp", "apply", best["experiment"])
    metrics = json.loads((checkout.root / "models/evaluate/metrics.json").read_text())
    assert metrics["count_accuracy"] == best["count_accuracy"]
    assert (checkout.root / "models/detector.onnx").is_file()

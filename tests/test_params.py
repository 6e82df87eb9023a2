"""params.yaml: right, or one line that says what to mend."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from stages.params import StageError, load_params, parse_params
from tests.native import ROOT, params


@pytest.mark.parametrize("file", ["params.yaml", "params.full.yaml"])
def test_the_committed_files_are_right(file: str) -> None:
    assert load_params(ROOT / file).convert.classes == [*"012345", "unknown"]


def test_both_files_have_the_same_keys_so_that_either_can_replace_the_other() -> None:
    demo, full = (yaml.safe_load((ROOT / name).read_text()) for name in ("params.yaml", "params.full.yaml"))
    for document in (demo, full):
        del document["train"]["ultralytics"]
    assert keys(demo) == keys(full)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"device": "cuda:1"}, "device: 'cuda:1' differs from node to node"),
        ({"threads": 0}, "threads: 0 differs from node to node; with executor ray say how many each worker has"),
        ({"workers": 3}, "batch_size: 8 cannot be shared evenly by 3 workers"),
    ],
)
def test_what_nodes_of_a_cluster_would_each_decide_for_themselves_is_asked_for(
    changed: dict[str, object], message: str
) -> None:
    right = {"executor": "ray", "device": "cpu", "threads": 1, "workers": 2, "batch_size": 8}
    assert params(**{f"train.{key}": value for key, value in right.items()}).train.workers == 2
    with pytest.raises(StageError, match=message):
        params(**{f"train.{key}": value for key, value in {**right, **changed}.items()})


def keys(value: object, prefix: str = "") -> set[str]:
    if not isinstance(value, dict):
        return {prefix}
    return {key for name, inner in value.items() for key in keys(inner, f"{prefix}.{name}")}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.epoch", 5, "train.epoch: no such key; allowed here: weights, image_size, epochs"),
        ("trains", {}, "trains: no such key; allowed here: pull, convert, split, train"),
        ("train.epochs", "5", "train.epochs: '5' is not allowed: input should be a valid integer"),
        ("train.epochs", 0, "train.epochs: 0 is not allowed: input should be greater than or equal to 1"),
        ("train.epochs", 2.5, "train.epochs: 2.5 is not allowed"),
        ("train.image_size", 100, "train.image_size: 100 is not allowed: input should be a multiple of 32"),
        ("train.device", "gpu", "train.device: 'gpu' is not allowed"),
        ("train.executor", "spark", "train.executor: 'spark' is not allowed: input should be 'local' or 'ray'"),
        ("train.executor", "ray", "train: device: 'auto' differs from node to node; with executor ray say cpu or cuda"),
        ("train.optimizer", "adamw", "train.optimizer: 'adamw' is not allowed: input should be 'auto', 'SGD'"),
        ("split.test", 0.2, "split: train + val + test is 1.1; make it 1"),
        ("split.test", -0.1, "split.test: -0.1 is not allowed"),
        ("split.group_by.file_name", "(", "split.group_by: '(' is not a regular expression"),
        ("split.group_by.file_name", "pic", "split.group_by: 'pic' needs exactly one (group)"),
        ("pull.sources", ["ftp"], "pull.sources.0: 'ftp' is not allowed: input should be 'demo'"),
        ("pull.sources", [], "pull.sources: [] is not allowed"),
        ("pull.sources", ["demo", "demo"], "pull: sources: ['demo', 'demo'] names a source twice"),
        ("pull.sources", ["picsellia"], "pull: picsellia.dataset: empty; name it, as the platform does, or take"),
        ("pull.picsellia.host", "https://a.com/b", "pull.picsellia.host: 'https://a.com/b' is not allowed"),
        ("convert.counts", [0, 1], "convert: counts: 2 values for 7 classes; give one each"),
        ("convert.may_be_absent", ["6"], "convert: may_be_absent: '6' is none of the classes 0 1 2 3 4 5 unknown"),
        ("convert.aliases", {"1": ["one"], "2": ["One"]}, "convert: aliases: 'One' stands for both '1' and '2'"),
        ("evaluate.precisions", ["bf16"], "evaluate: precisions: f32 is the reference; keep it in the list"),
        ("register.min_map50", 85, "register.min_map50: 85 is not allowed: input should be less than or equal to 1"),
    ],
)
def test_a_wrong_value_names_key_value_and_what_is_allowed(key: str, value: object, message: str) -> None:
    with pytest.raises(StageError) as error:
        params(**{key: value})
    assert str(error.value).startswith(f"params.yaml: {message}")
    assert "\n" not in str(error.value)


def test_a_missing_key_says_where_all_are_shown() -> None:
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    del document["split"]["seed"]
    with pytest.raises(StageError, match=r"split.seed: missing; params.full.yaml shows every key"):
        parse_params(document)


@pytest.mark.parametrize(("text", "message"), [("a: [", "not YAML"), ("", "is not allowed"), ("\xff", "not YAML")])
def test_another_document_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "params.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(StageError, match=message) as error:
        load_params(tmp_path / "params.yaml")
    assert "\n" not in str(error.value)


def test_numbers_given_on_the_command_line_name_classes() -> None:
    assert params(**{"convert.may_be_absent": [5]}).convert.may_be_absent == ["5"]


def test_a_stage_refuses_wrong_params_of_any_section_before_it_does_anything(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text().replace("epochs:", "epoch:")
    (tmp_path / "params.yaml").write_text(text)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "stages.convert", "raw", "yolo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "params.yaml: train.epoch" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
    assert time.monotonic() - started < 5  # a second on a quiet machine; this one may be busy

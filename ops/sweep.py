"""Values for parameters -> a DVC experiment and an MLflow run for each combination, tried out by a Ray cluster.

A trial is `dvc exp run` in a clone of HEAD on some node. The clone, the data and the results travel through Ray's
memory, so that the nodes need no disk and no DVC remote in common; an MLflow server they do need. What a trial has
reached is kept on this machine as it goes, and given to whoever begins it again: a node that dies costs an epoch.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import yaml
from dvc.exceptions import DvcException
from dvc.utils.hydra import apply_overrides
from ray import tune
from ray.tune.search.basic_variant import BasicVariantGenerator

from ops import leash
from ops.backup.cache import cache_folder, cached_objects, commits_of, git
from ops.backup.cache import root as repository
from stages.files import write_bytes
from stages.journal import JOURNAL
from stages.lineage import local_folder
from stages.mlflow_client import tracking_uri
from stages.nodes import File, below, on_this_node, received, sent
from stages.params import PARAMS_FILE, Params, StageError, load_params
from stages.training.settings import find_weights, settings_for

logger = logging.getLogger(__name__)

RETRIES = 10  # of a trial whose node was lost
POLL = 1.0  # s
SCORES = ("count_accuracy", "map50")
COLUMNS = ("experiment", "state", *SCORES)
CACHE = ".dvc/cache"
DVC = (sys.executable, "-m", "dvc")
RANDOM = {"uniform": tune.uniform, "loguniform": tune.loguniform}
THEIRS = ("AWS_", "MLFLOW_")  # settings of servers that the stages talk to
OURS = {"AUTO_PROMOTE": "false"}  # the last trial to pass its gates is not the best one


@dataclass(frozen=True)
class Wish:
    """What a person asks for."""

    values: Sequence[str]  # KEY=VALUES each
    trials: int  # drawings of the random ones, for each combination of the others
    at_once: int  # 0: as many as the cluster has room for
    cpus: int  # for each trial
    gpus: int
    seed: int
    name: str  # of the sweep: its experiments' names begin with it


@dataclass(frozen=True)
class Baseline:
    """What each trial starts from."""

    commit: str
    repository: "ray.ObjectRef[bytes]"  # a git bundle
    outs: Sequence[str]  # what the first changed stage and those after it want from those before
    objects: "list[ray.ObjectRef[list[File]]]"  # the same, as in the DVC cache
    weights: "list[ray.ObjectRef[list[File]]]"  # that trainings start from, where they are files here
    first: str  # the first stage that a value changes
    environment: Mapping[str, str] = field(repr=False)  # with keys of servers


def sweep(wish: Wish) -> list[dict[str, Any]]:
    """A row a trial, the best first. What an earlier sweep tried with the same values at this commit is there already.

    Raises StageError.
    """
    space = dict(map(parsed, wish.values))
    if wish.trials > 1 and all(isinstance(domain, dict) for domain in space.values()):
        raise StageError(f"--trials {wish.trials}: nothing is drawn; give uniform(LOW,HIGH) or loguniform(LOW,HIGH)")
    baseline = prepared(space)
    logger.info("each trial: %s and what follows, from %s", baseline.first, baseline.commit[:12])
    desk = Desk.options(**on_this_node()).remote(str(repository()), baseline.commit)  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as storage:
        found = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(trial, baseline=baseline, desk=desk, wish=wish),
                {"CPU": wish.cpus, "GPU": wish.gpus},
            ),
            param_space=space,
            tune_config=tune.TuneConfig(
                num_samples=wish.trials,
                search_alg=BasicVariantGenerator(max_concurrent=wish.at_once, random_state=wish.seed),
            ),
            run_config=tune.RunConfig(
                storage_path=storage, verbose=0, failure_config=tune.FailureConfig(max_failures=RETRIES)
            ),
        ).fit()
    results = [found[number] for number in range(len(found))]
    if lost := next((result.error for result in results if result.error), None):
        raise lost
    rows = [row_of(result.metrics or {}, result.config or {}) for result in results]
    return sorted(rows, key=lambda row: row["count_accuracy"] or -1.0, reverse=True)


def row_of(metrics: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: metrics.get(name) for name in COLUMNS}, **config}


def trial(config: dict[str, Any], *, baseline: Baseline, desk: Any, wish: Wish) -> dict[str, Any]:
    """One combination, in a process of the cluster: its scores, or why there are none. Ray tries errors again."""
    device = "cuda" if wish.gpus else "cpu"
    changes = {"train.device": device, "train.threads": wish.cpus, **config}
    experiment = experiment_name(wish.name, baseline.commit, changes)
    if scores := ray.get(desk.scores.remote(experiment)):
        return {"experiment": experiment, "state": "there already", **scores}
    try:
        with tempfile.TemporaryDirectory(prefix="fingers-") as folder:
            clone = Clone(Path(folder) / "clone", baseline)
            clone.add(ray.get(desk.reached.remote(experiment)))
            clone.run(experiment, changes, lambda files: ray.get(desk.keep.remote(experiment, files)))
            ray.get(desk.take_in.remote(experiment, *clone.results(experiment)))
    except StageError as error:
        return {"experiment": experiment, "state": f"failed: {error}"}
    return {"experiment": experiment, "state": "done", **ray.get(desk.scores.remote(experiment))}


def experiment_name(sweep: str, commit: str, changes: Mapping[str, Any]) -> str:
    """The same for the same trial, so that a sweep that was killed goes on when it is started again."""
    told = json.dumps([commit, changes], sort_keys=True)
    return f"{sweep}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


class Clone:
    """Of the repository, on a node, with what the first changed stage wants from those before it."""

    def __init__(self, root: Path, baseline: Baseline) -> None:
        """Raises StageError."""
        self._root = root
        self._baseline = baseline
        write_bytes(root.with_name("bundle"), ray.get(baseline.repository))
        root.mkdir()
        self._call("git", "init", "--quiet", "--initial-branch=sweep")
        self._call("git", "pull", "--quiet", "../bundle", "HEAD")
        self._call("git", "config", "user.name", "fingers sweep")
        self._call("git", "config", "user.email", "fingers@localhost")
        self.add([(".dvc/config.local", b"[cache]\n    dir = cache\n")])
        received(baseline.weights, root)
        received(baseline.objects, root / CACHE / "files/md5")
        self._sent = set(below(root / CACHE, ""))
        self._call(*DVC, "checkout", "--quiet", *baseline.outs)

    def add(self, files: Sequence[File]) -> None:
        for name, content in files:
            write_bytes(self._root / name, content)

    def run(self, experiment: str, changes: Mapping[str, Any], keep: Callable[[list[File]], object]) -> None:
        """keep gets what training and run have reached, as it changes. Raises StageError with what the stage said."""
        options = [f"--set-param={key}={json.dumps(value)}" for key, value in changes.items()]
        command = [*DVC, "exp", "run", "--name", experiment, "--downstream", self._baseline.first, *options]
        log = self._root.with_name("log")
        process = leash.start(command, self._root, self._environment(), log)
        kept: set[tuple[Path, int]] = set()
        while process.poll() is None:
            time.sleep(POLL)
            for news in set(self._reached()) - kept:
                with suppress(FileNotFoundError):  # removed meanwhile
                    keep([(news[0].relative_to(self._root).as_posix(), news[0].read_bytes())])
                kept.add(news)
        if process.returncode:
            raise StageError(last_words(log.read_text(encoding="utf-8", errors="replace")))

    def results(self, experiment: str) -> tuple[bytes, list[File]]:
        """The experiment as a git bundle, and what was added to the DVC cache."""
        commit = self._baseline.commit
        ref = f"refs/exps/{commit[:2]}/{commit[2:]}/{experiment}"
        self._call("git", "bundle", "create", "--quiet", "../experiment", f"{commit}..{ref}")
        made = below(self._root / CACHE, "")
        objects = [(name, file.read_bytes()) for name, file in made.items() if name not in self._sent]
        return self._root.with_name("experiment").read_bytes(), objects

    def _reached(self) -> Iterator[tuple[Path, int]]:
        """The newest checkpoint, and the journal of the run; and how large they are."""
        checkpoints = sorted(self._root.glob(".local/train/*/*.checkpoint"), key=lambda path: path.name)
        for file in (*checkpoints[-1:], *self._root.glob(f".local/tracking/*/*/{JOURNAL}")):
            with suppress(FileNotFoundError):
                yield file, file.stat().st_size

    def _call(self, *command: str) -> None:
        done = subprocess.run(
            command, cwd=self._root, env=self._environment(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise StageError(f"{' '.join(command[:4])}: {last_words(done.stderr)}")

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**kept, **self._baseline.environment, "PATH": path}


def last_words(said: str) -> str:
    """The error that a stage ended with, or else the last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["it said nothing"]
    return next((line for line in reversed(lines) if ": error: " in line), lines[-1])


def parsed(text: str) -> tuple[str, Any]:
    """KEY=VALUES -> the key, and what Tune draws from or goes through. Raises StageError.

    VALUES: a,b,c  range(1,4)  uniform(0.1,0.5)  loguniform(0.0001,0.01)
    """
    key, sign, values = text.partition("=")
    wrong = StageError(f"{text}: give KEY=a,b,c, KEY=range(1,4), KEY=uniform(LOW,HIGH) or KEY=loguniform(LOW,HIGH)")
    if not sign or not re.fullmatch(r"\+?[\w.]+", key):
        raise wrong
    call = re.fullmatch(r"(\w+)\((.*)\)", values)
    try:
        given = yaml.safe_load(f"[{call[2] if call else values}]")
        match call and call[1], given:
            case None, [_, *_]:
                return key, tune.grid_search(given)
            case "range", [int(), *_]:
                return key, tune.grid_search(list(range(*given)))
            case ("uniform" | "loguniform") as name, [low, high]:
                return key, RANDOM[str(name)](float(low), float(high))
    except (yaml.YAMLError, TypeError, ValueError):
        raise wrong from None
    raise wrong


def prepared(space: Mapping[str, Any]) -> Baseline:
    """Raises StageError when trials could not be reproduced from a commit, would fail, or their runs reach nobody."""
    if not tracking_uri().startswith(("http://", "https://")):
        raise StageError("MLFLOW_TRACKING_URI: not set; trials on other machines log to a server: fingers up, or yours")
    if changed := git("status", "--porcelain", "--untracked-files=no"):
        raise StageError(f"{changed.split()[-1]}: changed since the last commit, which every trial begins with; commit")
    stages = yaml.safe_load((repository() / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    first = first_changed(stages, list(space))
    outs = wanted_outs(stages, first)
    wanted = params_of_trials(space)
    weights = weights_below(repository(), {params.train.weights for params in wanted})
    commit = git("rev-parse", "HEAD")
    objects = cached_objects(commits_of(["HEAD"]), outs)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        git("bundle", "create", "--quiet", str(bundle), "HEAD")
        cloned = ray.put(bundle.read_bytes())
    environment = {name: value for name, value in os.environ.items() if name.startswith(THEIRS)} | OURS
    return Baseline(commit, cloned, outs, sent(objects), sent(weights), first, environment)


def params_of_trials(space: Mapping[str, Any]) -> list[Params]:
    """With each value once, the other keys at their first. Raises StageError for what a trial would fail at."""
    values = {
        key: domain["grid_search"] if isinstance(domain, dict) else [domain.sample()] for key, domain in space.items()
    }
    first = {key: some[0] for key, some in values.items()}
    return [params_with(first | {key: value}) for key, some in values.items() for value in some]


def params_with(changes: Mapping[str, Any]) -> Params:
    """As `dvc exp run --set-param` would change params.yaml. Raises StageError."""
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder) / PARAMS_FILE.name
        shutil.copyfile(repository() / PARAMS_FILE, changed)
        try:
            apply_overrides(changed, [f"{key}={json.dumps(value)}" for key, value in changes.items()])
        except DvcException as error:
            why = str(error.__cause__ or error).partition("\n")[0]
            raise StageError(f"{' '.join(changes)}: {why} ({PARAMS_FILE})") from None
        params = load_params(changed)
    settings_for(params.train)
    return params


def weights_below(root: Path, names: Collection[str]) -> dict[str, Path]:
    """Those that are files in root, by their path from there; others are names of architectures, or the nodes' own.

    Official ones are fetched here, once. Raises StageError.
    """
    found = [Path(find_weights(name)).absolute() for name in names]
    return {file.relative_to(root).as_posix(): file for file in found if file.is_file() and file.is_relative_to(root)}


def first_changed(stages: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The first stage, in the order of dvc.yaml, whose params hold one of keys. Raises StageError."""
    sections = {key: key.removeprefix("+").partition(".")[0] for key in keys}
    for key, section in sections.items():
        if not any(section in stage.get("params", []) for stage in stages.values()):
            raise StageError(f"{key}: no stage has a section {section!r} of params.yaml")
    first = next(name for name, stage in stages.items() if set(stage.get("params", [])) & set(sections.values()))
    if list(stages).index(first) > list(stages).index("train"):
        raise StageError(f"{' '.join(keys)}: nothing would be trained; use dvc exp run --queue, and --run-all")
    if first == "pull":
        raise StageError(f"{' '.join(keys)}: each trial would fetch all pictures again; sweep what comes after pull")
    return first


def wanted_outs(stages: Mapping[str, Any], first: str) -> list[str]:
    """What first and the stages after it depend on, and stages before it make."""
    names = list(stages)
    before, after = names[: names.index(first)], names[names.index(first) :]
    made = {path(out) for name in before for out in stages[name].get("outs", [])}
    return sorted(made & {path(dep) for name in after for dep in stages[name].get("deps", [])})


def path(entry: str | Mapping[str, Any]) -> str:
    """Of an entry in dvc.yaml, which may have settings."""
    return entry if isinstance(entry, str) else next(iter(entry))


@ray.remote
class Desk:
    """Where the sweep was asked for: it gives a trial what an earlier try had reached, and takes its experiment in."""

    def __init__(self, repository: str, baseline: str) -> None:
        os.environ["DVC_ROOT"] = repository
        self._refs = f"refs/exps/{baseline[:2]}/{baseline[2:]}"
        self._cache = cache_folder().parent.parent

    def scores(self, experiment: str) -> dict[str, float | None] | None:
        """None: there is no such experiment yet."""
        ref = f"{self._refs}/{experiment}"
        if not git("for-each-ref", ref):
            return None
        metrics = json.loads(git("show", f"{ref}:models/evaluate/metrics.json"))
        return {name: metrics[name] for name in SCORES}

    def reached(self, experiment: str) -> list[File]:
        return [(name, file.read_bytes()) for name, file in below(self._folder(experiment), "").items()]

    def keep(self, experiment: str, files: Sequence[File]) -> None:
        for name, content in files:
            file = self._folder(experiment) / name
            write_bytes(file, content)
            for older in file.parent.glob("*.checkpoint"):
                if older != file:
                    older.unlink()

    def take_in(self, experiment: str, bundle: bytes, objects: Sequence[File]) -> None:
        for name, content in objects:
            file = self._cache / name
            if not file.exists():
                write_bytes(file, content)
                file.chmod(0o444)  # as DVC protects what it may link to
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "bundle").write_bytes(bundle)
            ref = f"{self._refs}/{experiment}"
            git("fetch", "--quiet", str(Path(folder) / "bundle"), f"{ref}:{ref}")
        shutil.rmtree(self._folder(experiment), ignore_errors=True)

    def _folder(self, experiment: str) -> Path:
        return local_folder() / "sweep" / experiment

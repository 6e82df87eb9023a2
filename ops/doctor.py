"""A checkout and its environment -> findings: what works, and for each piece that does not the cause and the remedy."""

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from urllib.parse import urlsplit

from ops.artifacts import probe_artifacts
from ops.ask import NoAnswer, ask_mlflow, ask_postgres
from ops.finding import Finding, failed, failed_by, ok, skipped
from ops.remote import check_remote, first_line
from stages.files import sha256_of
from stages.lineage import local_folder
from stages.mlflow_client import ServerAway, redacted, tracking_uri
from stages.params import PARAMS_FILE, StageError, load_params
from stages.registry import Registry
from stages.release import Release, read_release

LIMIT = 30  # s for all checks together, which run at once; each gives its own requests a few seconds
ENOUGH_GB = 2  # of free disk: a training's checkpoints, and the copy of its data in the cache

Check = Callable[[Path], Finding]


def checks() -> dict[str, Check]:
    return {
        "python": python,
        "git": git,
        "disk": disk,
        ".env": dotenv,
        "remote": check_remote,
        "mlflow": mlflow,
        "artifacts": artifacts,
        "database": database,
        "picsellia": picsellia,
        "model": model,
    }


def examine(root: Path, names: Sequence[str] = ()) -> dict[str, Finding]:
    """What the named checks find in the checkout at root; no names: all. StageError for a name that is none."""
    known = checks()
    if unknown := [name for name in names if name not in known]:
        raise StageError(f"{unknown[0]!r} is no check; there are {', '.join(known)}")
    deadline = time.monotonic() + LIMIT
    begun = {name: begin(known[name], root) for name in names or known}
    return {name: outcome(finding, deadline) for name, finding in begun.items()}


def begin(check: Check, root: Path) -> "Future[Finding]":
    """In a thread that the program does not wait for when it ends: a name server may keep silent for minutes."""
    future: Future[Finding] = Future()

    def run() -> None:
        try:
            future.set_result(check(root))
        except BaseException as error:  # noqa: BLE001 -- raised again by whoever asks for the result
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


def outcome(finding: "Future[Finding]", deadline: float) -> Finding:
    try:
        return finding.result(max(0, deadline - time.monotonic()))
    except TimeoutError:
        return failed(
            f"no answer within {LIMIT} s", "check the address, and the way there: proxy, firewall, name server"
        )


def python(root: Path) -> Finding:
    from packaging.requirements import Requirement  # noqa: PLC0415

    lock = root / "requirements.lock"
    wrong = []
    for line in lock.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pinned = Requirement(line)
        if pinned.marker and not pinned.marker.evaluate():
            continue
        try:
            installed = metadata.version(pinned.name)
        except metadata.PackageNotFoundError:  # a part was installed: finger-counter[serve]
            continue
        if not pinned.specifier.contains(installed, prereleases=True):
            wrong.append(f"{pinned.name} is {installed}, not {pinned.specifier}")
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return failed(f"{wrong[0]}{more}", f"install what {lock.name} names: rm -r .venv, then ./run again")
    return ok(f"{sys.version.split()[0]}, packages as in {lock.name}")


def git(root: Path) -> Finding:
    def said(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        version = said("--version").removeprefix("git version ")
        commit = said("rev-parse", "--short", "HEAD")
        branch = said("branch", "--show-current") or "no branch"
        changed = len(said("status", "--porcelain").splitlines())
    except FileNotFoundError:
        return failed("git is not installed", "install it: apt install git, brew install git, winget install Git.Git")
    except subprocess.CalledProcessError as error:
        line = next(iter(error.stderr.splitlines()), f"exit {error.returncode}")
        return failed(f"git {error.cmd[1]}: {line}", "DVC needs a repository with a commit: git clone, or git init")
    return ok(f"{version}, {branch} at {commit}" + (f", changed files: {changed}" if changed else ""))


def disk(root: Path) -> Finding:
    """The smaller of what is free for `.local/` and for DVC's cache, which may lie on another disk."""
    from dvc.exceptions import DvcException  # noqa: PLC0415 -- half a second
    from dvc.repo import Repo  # noqa: PLC0415

    try:
        with Repo(str(root)) as repo:
            cache = Path(repo.cache.local.path)
    except DvcException as error:
        return failed(f"DVC: {first_line(error)}", "look at .dvc/config and .dvc/config.local")
    free_gb, folder = min((free_bytes(folder) / 1e9, folder) for folder in (local_folder(), cache))
    where = f"{free_gb:.1f} GB free for {folder}"
    if free_gb < ENOUGH_GB:
        return failed(
            f"{where}, {ENOUGH_GB} are needed", "free some: dvc gc --workspace --all-experiments, or dvc cache dir PATH"
        )
    return ok(where)


def free_bytes(folder: Path) -> int:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


def dotenv(root: Path) -> Finding:
    path = root / ".env"
    if not path.exists():
        return skipped("there is none: settings come from the environment alone")
    if tracked(path):
        return failed(".env is in git, with every secret in it", "git rm --cached .env, and replace the secrets")
    if os.name == "posix" and path.stat().st_mode & 0o077:
        return failed(f".env may be read by others: mode {path.stat().st_mode & 0o777:o}", "chmod 600 .env")
    return ok("read by its owner only, not in git")


def tracked(path: Path) -> bool:
    found = subprocess.run(
        ["git", "ls-files", "--error-unmatch", path], cwd=path.parent, capture_output=True, check=False
    )
    return found.returncode == 0


def mlflow(_: Path) -> Finding:
    address, ours = tracking_uri(), metadata.version("mlflow-skinny")
    if not is_server(address):
        return skipped("MLFLOW_TRACKING_URI names no server: runs and models are kept in .local/mlflow")
    where = redacted(address)
    try:
        theirs = ask_mlflow(os.environ).removeprefix("MLflow ")
    except NoAnswer as error:
        cause = f"{where}: {error}"
        if "Invalid Host header" in cause:
            host = urlsplit(address).netloc.rpartition("@")[2]
            return failed(cause, f"start that server with MLFLOW_SERVER_ALLOWED_HOSTS={host},127.0.0.1:*,localhost:*")
        return failed(cause, "start it: fingers up; or look at MLFLOW_TRACKING_URI, _USERNAME, _PASSWORD and _TOKEN")
    if theirs != ours:
        return failed(f"{where}: MLflow is {theirs} there, {ours} here", "install the same version on both sides")
    return ok(f"{where}: MLflow {theirs}, as here")


def artifacts(_: Path) -> Finding:
    address = tracking_uri()
    if not is_server(address):
        return skipped("MLFLOW_TRACKING_URI names no server: artifacts are kept in .local/mlflow")
    try:
        where = probe_artifacts(address, f"doctor-{secrets.token_hex(8)}")
    except StageError as error:
        return failed_by(error, "look at the server's --artifacts-destination, its bucket and its key")
    return ok(f"{where}: written, read, deleted")


def database(_: Path) -> Finding:
    if not (uri := os.environ.get("MLFLOW_BACKEND_STORE_URI")):
        return skipped("MLFLOW_BACKEND_STORE_URI is not set: the database is the MLflow server's own affair")
    match uri.partition("://")[0]:
        case "postgresql+psycopg2":
            pass
        case "postgresql" | "postgres":  # SQLAlchemy 2.1 takes it for psycopg 3
            return failed("MLFLOW_BACKEND_STORE_URI names no driver that is installed", "write postgresql+psycopg2://")
        case other:
            return skipped(f"MLFLOW_BACKEND_STORE_URI is of {other!r}, not of PostgreSQL")
    try:
        return ok(ask_postgres(os.environ))
    except NoAnswer as error:
        return failed(str(error), "start it: fingers up; or correct MLFLOW_BACKEND_STORE_URI")


def picsellia(root: Path) -> Finding:
    if not (os.environ.get("PICSELLIA_TOKEN") or os.environ.get("PICSELLIA_TOKEN_FILE")):
        return skipped("PICSELLIA_TOKEN is not set")
    from stages.sources.picsellia import check_token  # noqa: PLC0415 -- seconds

    try:
        params = load_params(root / PARAMS_FILE).pull.picsellia
        return ok(f"{params.host}: the token of {check_token(params)}")
    except StageError as error:
        return failed_by(error, "look at PICSELLIA_TOKEN, and at pull.picsellia in params.yaml")


def model(root: Path) -> Finding:
    """The registry's champion, or where there is none the release of this checkout: its file is what was released."""
    try:
        name = os.environ.get("DEFAULT_MODEL_NAME") or load_params(root / PARAMS_FILE).register_.model_name
        return champion(name) or released(root)
    except StageError as error:
        return failed_by(error, "register it again: dvc repro -sf register")


def champion(name: str) -> Finding | None:
    """None when there is none, or when nobody can be asked: that is the finding of another check."""
    try:
        registry = Registry(name)
        version = registry.with_alias("champion")
        if version is None:
            return None
        with TemporaryDirectory() as folder:
            registry.download(version, Path(folder) / "champion")
    except ServerAway:
        return None
    return ok(f"{name} version {version.number} is champion, sha256 {version.sha256[:12]}")


def released(root: Path) -> Finding:
    manifest = root / "models/release.json"
    if not manifest.exists():
        return skipped("none is registered or released yet: dvc repro makes one")
    release: Release = read_release(manifest)
    for name, sha256 in release.files().items():
        file = manifest.with_name(name)
        if not file.exists():
            return failed(f"models/release.json is here, models/{name} is not", "dvc pull, or dvc repro")
        if sha256_of(file) != sha256:
            return failed(f"models/{name} is not the file of models/release.json", "dvc checkout, or dvc repro")
    return ok(f"models/release.json, sha256 {release.sha256[:12]}")


def is_server(address: str) -> bool:
    return address.startswith(("http://", "https://"))

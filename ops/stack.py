"""A repository -> its own S3, PostgreSQL and MLflow on loopback: up, down, what they answer, what they logged."""

import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from subprocess import Popen

import psutil
from filelock import FileLock

from ops import processes, servers
from ops.ask import ASK, NoAnswer
from ops.buckets import make_buckets
from ops.credentials import settings_for
from ops.dotenv import add_to_dotenv, read_dotenv
from ops.servers import Server
from stages.mlflow_client import redacted
from stages.params import StageError

START_SECONDS = 60
RELEASE_SECONDS = 3
LARGE_LOG = 10_000_000  # bytes
FOLLOW_SECONDS = 0.3


@dataclass(frozen=True)
class Status:
    """Of one server; what follows answer is None when it is not ours."""

    server: str
    state: str  # up, down
    address: str
    answer: str  # its version, or why it is down
    pid: int | None
    memory_mb: int | None
    uptime_s: int | None
    data_mb: float | None


def up(root: Path, environment: Mapping[str, str]) -> list[Status]:
    """All three answer when it returns, whatever ran before, and .env says where.

    Raises StageError when one does not; those that it started are stopped then.
    """
    folder = home(root)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        memory = folder / "settings.env"
        before = read_dotenv(memory)
        running = {name for name in ASK if processes.marked(str(folder / name))}
        settings = settings_for(environment, before, database=folder / "postgres", running=running)
        if {**settings.hidden, **settings.published} != before:
            stop_all(folder)
        add_to_dotenv(memory, settings.hidden)
        s3, postgres, mlflow = servers.all_three(folder, settings)
        for server in (s3, postgres, mlflow):
            refuse_taken_port(server)
        with ExitStack() as undo:
            storage = launch(s3, undo)
            wait(postgres, launch(postgres, undo))
            wait(mlflow, launch(mlflow, undo))
            wait(s3, storage)
            make_buckets(settings.published)
            for file in (root / ".env", memory):  # in this order: what memory holds is known to be ours in .env
                if settings.published.items() - read_dotenv(file).items():
                    add_to_dotenv(file, settings.published)
            undo.pop_all()
    return status(root, {**environment, **settings.published})


def down(root: Path) -> list[str]:
    """The names of those that ran."""
    folder = home(root)
    if not folder.exists():
        return []
    with FileLock(folder / "lock"):
        return stop_all(folder)


def status(root: Path, environment: Mapping[str, str]) -> list[Status]:
    """Of each server that the environment names, here or elsewhere. Each is asked: none is taken to be up."""
    named = [name for name, (variable, _) in ASK.items() if environment.get(variable)]
    with ThreadPoolExecutor(len(ASK)) as pool:
        return list(pool.map(lambda name: _status(home(root) / name, environment), named))


def logs(root: Path, names: Collection[str], *, lines: int, follow: bool) -> Iterator[str]:
    """The last lines of each, then, with follow, every new one. With several, each line opens with its server."""
    positions = dict.fromkeys(names, 0)
    while True:
        for name in names:
            new, positions[name] = _lines_from(home(root) / f"{name}.log", positions[name])
            yield from (f"{name:8} | {line}" if len(names) > 1 else line for line in new[max(0, len(new) - lines) :])
        if not follow:
            return
        lines = LARGE_LOG
        time.sleep(FOLLOW_SECONDS)


def home(root: Path) -> Path:
    """Everything of the servers: settings, and a folder and a log of each."""
    return root.resolve() / ".local/platform"


def refuse_taken_port(server: Server) -> None:
    """Raises StageError when another program has it; one that was just killed gives it back a moment later."""
    deadline = time.monotonic() + RELEASE_SECONDS
    while server.port and not processes.marked(server.mark) and not processes.is_free(server.port):
        if time.monotonic() > deadline:
            raise StageError(
                f"port {server.port} for {server.name} is taken by {processes.owner(server.port)}: "
                f"stop that, or set {server.port_setting} to another in .env"
            )
        time.sleep(0.05)


def launch(server: Server, undo: ExitStack) -> "Popen[bytes] | None":
    """None when it runs and answers; undo stops what was started."""
    ours = processes.marked(server.mark)
    if ours and _answers(server):
        return None
    processes.stop(ours)  # it hangs, or is what a kill left
    server.prepare()
    if server.log.exists() and server.log.stat().st_size > LARGE_LOG:
        server.log.replace(server.log.with_suffix(".log.1"))
    process = processes.start(
        server.command,
        mark=server.mark,
        folder=server.folder,
        log=server.log,
        environment=server.whole_environment(),
        user=server.user,
    )
    undo.callback(_give_up, server, process)
    return process


def wait(server: Server, process: "Popen[bytes] | None") -> None:
    """Until it answers. Raises StageError, with the end of its log."""
    if process is None:
        return
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            server.ask()
            break
        except NoAnswer as error:
            if process.poll() is not None:
                raise _not_started(server, f"ended with {process.returncode}") from None
            if time.monotonic() > deadline:
                raise _not_started(server, f"does not answer: {error}") from None
        time.sleep(0.05)
    process.returncode = 0  # it outlives us, and Popen need not warn of that


def stop_all(folder: Path) -> list[str]:
    found = {name: processes.marked(str(folder / name)) for name in ASK}
    processes.stop(chain.from_iterable(found.values()))
    return [name for name, ours in found.items() if ours]


def _give_up(server: Server, process: "Popen[bytes]") -> None:
    processes.stop(processes.marked(server.mark))
    process.wait()


def _answers(server: Server) -> bool:
    try:
        server.ask()
    except NoAnswer:
        return False
    return True


def _not_started(server: Server, reason: str) -> StageError:
    lines, _ = _lines_from(server.log, 0)
    return StageError("\n".join([f"{server.name} {reason}; the end of {server.log}:", *lines[-12:]]))


def _status(folder: Path, environment: Mapping[str, str]) -> Status:
    variable, ask = ASK[folder.name]
    try:
        state, answer = "up", ask(environment)
    except NoAnswer as error:
        state, answer = "down", str(error)
    ours = processes.marked(str(folder))
    return Status(
        server=folder.name,
        state=state,
        address=redacted(environment[variable]),
        answer=answer,
        pid=ours[0].pid if ours else None,
        memory_mb=round(sum(map(_memory, ours)) / 1e6) if ours else None,
        uptime_s=round(time.time() - ours[0].create_time()) if ours else None,
        data_mb=round(sum(map(_size, folder.rglob("*"))) / 1e6, 1) if ours else None,
    )


def _memory(process: psutil.Process) -> int:
    """Bytes that its end would free: those that PostgreSQL's processes share are not counted for each."""
    with suppress(psutil.Error):
        return int(process.memory_full_info().uss)
    return 0


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):  # servers delete, too
        return path.lstat().st_size
    return 0


def _lines_from(log: Path, position: int) -> tuple[list[str], int]:
    """Whole lines after the byte at position, and the position after them. A log that got shorter began anew."""
    if not log.exists():
        return [], 0
    with log.open("rb") as file:
        file.seek(position if position <= log.stat().st_size else 0)
        begin, text = file.tell(), file.read()
    text = text[: text.rfind(b"\n") + 1]
    return text.decode(errors="replace").splitlines(), begin + len(text)

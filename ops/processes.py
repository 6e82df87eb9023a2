"""A command -> processes that outlive us, found again by a mark in their environment; and who listens on a port.

There is no pid file that could lie: a pid is given to another program sooner or later, while an environment is the
process's own, and is inherited by its children, which are so found when their parent was killed.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

MARK = "FINGERS_SERVER"
STOP_SECONDS = 20


def start(
    command: Sequence[str], *, mark: str, folder: Path, log: Path, environment: Mapping[str, str], user: str | None
) -> "subprocess.Popen[bytes]":
    """Runs in folder, apart from our terminal; user is the operating system's, None for ours."""
    if sys.platform == "win32":
        apart = {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    else:
        apart = {"start_new_session": True}
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            command,
            cwd=folder,
            env={**environment, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            **apart,
            **as_user(user),
        )


def as_user(name: str | None) -> dict[str, Any]:
    """What subprocess wants to run something as that user of the operating system; None: as us."""
    return {"user": name, "group": name, "extra_groups": []} if name else {}


def marked(mark: str) -> list[psutil.Process]:
    """Those alive that were started under it, and their children; oldest first.

    PostgreSQL's children write their title over their environment; they live in the folder that is their mark.
    """
    found = []
    for pid in psutil.pids():
        with suppress(psutil.Error, OSError):  # another user's, or gone meanwhile
            process = psutil.Process(pid)
            if process.environ().get(MARK) == mark or (process.name() == "postgres" and process.cwd() == mark):
                found.append(process)
    return sorted(alive(found), key=lambda process: (process.create_time(), process.pid))


def stop(processes: Iterable[psutil.Process]) -> None:
    """Asks each to end, then makes it; returns when none is left.

    SIGINT means so to all three servers, and to PostgreSQL, unlike SIGTERM, that it shall not wait for its clients.
    Windows has no such signal: there they recover at the next start, as after a kill.
    """
    left = alive(processes)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.terminate() if sys.platform == "win32" else process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + STOP_SECONDS
    while (left := alive(left)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    while left := alive(left):
        time.sleep(0.02)


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """A zombie is not: it waits for a parent that may never ask, as the first process of many containers."""
    left = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                left.append(process)
    return left


def free_ports(count: int) -> list[int]:
    """Different ones, below those that systems give to outgoing connections: at the next start they are free still."""
    tried = random.sample(range(20000, 32768), 1000)
    return list(islice(filter(is_free, tried), count))


def is_free(port: int) -> bool:
    with socket.socket() as trial:
        if sys.platform != "win32":  # there the option means to share the port
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def owner(port: int) -> str:
    """Who has it, as `weed (pid 123)`."""
    with suppress(psutil.AccessDenied):  # macOS tells root alone
        for connection in psutil.net_connections("tcp"):
            if connection.laddr[1:] == (port,) and connection.pid:
                with suppress(psutil.NoSuchProcess):
                    return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "a program of another user"

"""Each process of the server killed under load -> what eight clients saw, as a Markdown table.

./run python -m benchmarks.faults
"""

import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.load import Load, children, is_gone, pid, queue, wait_until
from tests.server import Server, start_server

BEFORE = 30  # good answers
TIMEOUT = 5  # s a request may take

FAULTS: dict[str, Callable[[Server], tuple[int, signal.Signals]]] = {
    "a worker, kill -9": lambda server: (pid(server, "worker-0"), signal.SIGKILL),
    "a worker, stopped (stuck)": lambda server: (pid(server, "worker-0"), signal.SIGSTOP),
    "the API process, kill -9": lambda server: (pid(server, "api"), signal.SIGKILL),
    "the queue process, kill -9": lambda server: (queue(server), signal.SIGKILL),
    "the main process, kill -9": lambda server: (server.pid, signal.SIGKILL),
    "the main process, SIGTERM": lambda server: (server.pid, signal.SIGTERM),
}


def main() -> None:
    sys.stdout.write(f"{os.cpu_count()} cores; a request may take {TIMEOUT} s\n\n")
    sys.stdout.write("| what | good answers | others | slowest, s | then |\n|---|---:|---|---:|---|\n")
    for name, victim in FAULTS.items():
        with tempfile.TemporaryDirectory() as folder:
            server = start_server(Path(folder), REQUEST_TIMEOUT=str(TIMEOUT))
            try:
                sys.stdout.write(line(name, server, *victim(server)))
                sys.stdout.flush()
            finally:
                server.stop()


def line(name: str, server: Server, victim: int, how: signal.Signals) -> str:
    others, was_worker = children(server), victim == pid(server, "worker-0")
    with Load(server).running() as load:
        load.answered(BEFORE)
        struck = time.monotonic()
        os.kill(victim, how)
        if was_worker:
            wait_until(lambda: pid(server, "worker-0") not in (0, victim), 60)
            then = f"as before after {time.monotonic() - struck:.1f} s"
            load.answered(BEFORE)
        else:
            code = server.process.wait(60)
            wait_until(lambda: all(map(is_gone, others)), 30)
            then = f"exit code {code}, nothing left after {time.monotonic() - struck:.1f} s"
    return f"| {name} | {load.answers.pop(200)} | {told(load.answers)} | {load.slowest:.1f} | {then} |\n"


def told(answers: Counter[int | str]) -> str:
    refused = answers.pop("ConnectError", 0)
    listed = [f"{number} × {what}" for what, number in sorted(answers.items(), key=str)]
    return ", ".join([*listed, *(["connections refused from then on"] if refused else [])]) or "none"


if __name__ == "__main__":
    main()

"""Clients that ask a server all the time, and what they got; and its processes by name, for those who kill them."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import psutil

from tests.pictures import saved
from tests.server import Server

CLIENTS = 8


class Load:
    """How many of each status were answered; an error of the connection by its name."""

    def __init__(self, server: Server, key: str = "") -> None:
        self.answers: Counter[int | str] = Counter()
        self.slowest = 0.0  # s
        self._url = f"{server.url}/predict"
        self._headers = {"Content-Type": "image/jpeg"} | ({"X-API-Key": key} if key else {})
        self._content = saved("JPEG", size=(640, 480))
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def _ask(self) -> None:
        with httpx.Client(timeout=60, headers=self._headers) as client:
            while not self._stopped.is_set():
                started = time.monotonic()
                try:
                    answer: int | str = client.post(self._url, content=self._content).status_code
                except httpx.TransportError as error:
                    answer = type(error).__name__
                    self._stopped.wait(0.05)
                self.slowest = max(self.slowest, time.monotonic() - started)
                self.answers[answer] += 1

    @contextmanager
    def running(self) -> Iterator["Load"]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stopped.set()
            for thread in self._threads:
                thread.join()

    def answered(self, more: int) -> None:
        """Waits for that many good answers from now."""
        wanted = self.answers[200] + more
        wait_until(lambda: self.answers[200] >= wanted, 30)


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def pid(server: Server, name: str, key: str = "") -> int:
    """Of a process by its name in the metrics: api, worker-0, ...; 0 while it is being started."""
    headers = {"Accept": "application/json"} | ({"X-API-Key": key} if key else {})
    pids = httpx.get(f"{server.url}/metrics", headers=headers).json()["fingers_process_pid"]
    return int(next((one["value"] for one in pids if one["labels"]["process"] == name), 0))


def children(server: Server) -> list[psutil.Process]:
    return psutil.Process(server.pid).children(recursive=True)


def queue(server: Server) -> int:
    """The process that holds the queues: the other fork of the main one, since those that are spawned say so."""
    api = pid(server, "api")
    others = [child for child in children(server) if child.pid != api]
    return next(child.pid for child in others if not any("multiprocessing" in word for word in child.cmdline()))


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE

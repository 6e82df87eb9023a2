"""What clients see when a process of the server is killed, stopped or told to end, and what is left then."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.pictures import saved
from tests.server import Server, start_server

pytestmark = pytest.mark.slow
CLIENTS = 8


class Load:
    """Clients that ask all the time, and how many of each answer they got; a connection's error by its name."""

    def __init__(self, server: Server) -> None:
        self.answers: Counter[int | str] = Counter()
        self.slowest = 0.0
        self._url = f"{server.url}/predict"
        self._content = saved("JPEG", size=(640, 480))
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def _ask(self) -> None:
        with httpx.Client(timeout=60, headers={"Content-Type": "image/jpeg"}) as client:
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


def processes(server: Server) -> list[psutil.Process]:
    return psutil.Process(server.pid).children(recursive=True)


def pid(server: Server, name: str) -> int:
    """Of a process by its name in the metrics: api, worker-0, ...; 0 while it is being started."""
    pids = httpx.get(f"{server.url}/metrics", headers={"Accept": "application/json"}).json()["fingers_process_pid"]
    return int(next((one["value"] for one in pids if one["labels"]["process"] == name), 0))


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Server]:
    running = start_server(tmp_path, REQUEST_TIMEOUT="5")
    yield running
    running.stop()


def test_a_killed_worker_costs_what_it_worked_on_a_503_and_comes_back(fresh: Server) -> None:
    with Load(fresh).running() as load:
        load.answered(20)
        victim = psutil.Process(pid(fresh, "worker-0"))
        victim.kill()
        load.answered(20)
        wait_until(lambda: pid(fresh, "worker-0") not in (0, victim.pid), 20)
        load.answered(20)
    assert set(load.answers) <= {200, 503}
    assert load.answers[503] <= CLIENTS
    assert load.slowest < 5
    assert httpx.get(f"{fresh.url}/health").json()["status"] == "ok"


def test_a_stuck_worker_is_a_504_and_is_replaced(fresh: Server) -> None:
    with Load(fresh).running() as load:
        load.answered(10)
        victim = psutil.Process(pid(fresh, "worker-0"))
        victim.suspend()
        wait_until(lambda: is_gone(victim), 15)
        load.answered(10)
    assert load.answers[504] >= 1
    assert set(load.answers) <= {200, 503, 504}
    assert load.slowest < 8


def test_sigterm_finishes_what_is_under_way_and_leaves_nothing(fresh: Server) -> None:
    children = processes(fresh)
    with Load(fresh).running() as load:
        load.answered(20)
        os.kill(fresh.pid, signal.SIGTERM)
        assert fresh.process.wait(20) == 0
    assert set(load.answers) <= {200, "ConnectError", "RemoteProtocolError", "ReadError"}
    assert sum(load.answers[name] for name in ("RemoteProtocolError", "ReadError")) <= CLIENTS, "idle connections only"
    wait_until(lambda: all(map(is_gone, children)), 5)


def test_a_request_under_way_at_sigterm_is_answered(fresh: Server) -> None:
    """Many pictures in one, so that it takes a while."""
    files = [("file", saved("JPEG", size=(1600, 1200)))] * 16
    answers: list[httpx.Response] = []
    asking = threading.Thread(
        target=lambda: answers.append(httpx.post(f"{fresh.url}/predict", files=files, timeout=60))
    )
    asking.start()
    wait_until(lambda: queued(fresh) > 0, 10)
    os.kill(fresh.pid, signal.SIGTERM)
    asking.join()
    assert answers[0].status_code == 200
    assert fresh.process.wait(20) == 0


def queued(server: Server) -> float:
    document = httpx.get(f"{server.url}/metrics", headers={"Accept": "application/json"}).json()
    return float(document["fingers_queue_pictures"][0]["value"])


@pytest.mark.parametrize("victim", ["main", "api", "queue"])
def test_whichever_other_process_is_killed_all_end_and_the_port_is_free(fresh: Server, victim: str) -> None:
    children = processes(fresh)
    pids = {"main": fresh.pid, "api": pid(fresh, "api")}
    pids["queue"] = next(child.pid for child in children if is_queue(child, pids["api"]))
    with Load(fresh).running() as load:
        load.answered(10)
        os.kill(pids[victim], signal.SIGKILL)
        assert fresh.process.wait(20) == (-signal.SIGKILL if victim == "main" else 1)
        wait_until(lambda: all(map(is_gone, children)), 10)
    assert load.slowest < 10, "nobody hangs"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{fresh.url}/livez")


def is_queue(child: psutil.Process, api: int) -> bool:
    """The other fork of the main process: those that are spawned say so."""
    return child.pid != api and not any("multiprocessing" in word for word in child.cmdline())

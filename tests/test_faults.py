"""What clients see when a process of the server is killed, stopped or told to end, and what is left then."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.load import CLIENTS, Load, children, is_gone, pid, queue, wait_until
from tests.pictures import saved
from tests.server import Server, start_server

pytestmark = pytest.mark.slow


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


def test_prometheus_is_told_when_no_worker_is_left(fresh: Server) -> None:
    def is_ready() -> bool:
        return "\nfingers_ready 1.0\n" in httpx.get(f"{fresh.url}/metrics").text

    assert is_ready()
    for name in ("worker-0", "worker-1"):
        psutil.Process(pid(fresh, name)).kill()
    wait_until(lambda: not is_ready(), 10)
    wait_until(is_ready, 30)


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
    others = children(fresh)
    with Load(fresh).running() as load:
        load.answered(20)
        os.kill(fresh.pid, signal.SIGTERM)
        assert fresh.process.wait(20) == 0
    assert set(load.answers) <= {200, "ConnectError", "RemoteProtocolError", "ReadError"}
    assert sum(load.answers[name] for name in ("RemoteProtocolError", "ReadError")) <= CLIENTS, "idle connections only"
    wait_until(lambda: all(map(is_gone, others)), 5)


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
    others = children(fresh)
    pids = {"main": fresh.pid, "api": pid(fresh, "api"), "queue": queue(fresh)}
    with Load(fresh).running() as load:
        load.answered(10)
        os.kill(pids[victim], signal.SIGKILL)
        assert fresh.process.wait(20) == (-signal.SIGKILL if victim == "main" else 1)
        wait_until(lambda: all(map(is_gone, others)), 10)
    assert load.slowest < 10, "nobody hangs"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{fresh.url}/livez")

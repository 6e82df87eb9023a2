"""Servers that go, come back, move and die behind nginx, and clients that are slow on purpose."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.load import Load, wait_until
from tests.names import Names, relay
from tests.nginx import UNREACHED, Nginx, needs_nginx, nginx_before
from tests.server import Server, start_server

pytestmark = [needs_nginx, pytest.mark.slow]

FOLLOWED = 5  # s, of the resolver's `valid`


@contextmanager
def running(folder: Path, port: int | None = None) -> Iterator[Server]:
    server = start_server(folder, port)
    try:
        yield server
    finally:
        server.stop()


def status(nginx: Nginx) -> int:
    with nginx.client() as client:
        return client.get("/health").status_code


def says_only(wanted: int, nginx: Nginx) -> bool:
    """Each of its workers looks names up for itself."""
    return all(status(nginx) == wanted for _ in range(10))


def test_a_server_that_restarts_is_found_again(tmp_path: Path) -> None:
    with running(tmp_path) as server, nginx_before(server.port) as nginx:
        assert status(nginx) == 200
        server.stop()
        assert status(nginx) == 502
        with running(tmp_path, server.port):
            assert status(nginx) == 200


def test_a_server_that_moves_is_found_too(server: Server) -> None:
    moving = Names(["127.0.0.3"])
    with moving.running() as names, nginx_before(server.port, names, FRONTEND_RATE=UNREACHED) as nginx:
        assert says_only(502, nginx)
        names.addresses = ["127.0.0.1"]
        wait_until(lambda: says_only(200, nginx), FOLLOWED + 5)
        names.addresses = []
        wait_until(lambda: says_only(502, nginx), FOLLOWED + 5)


def test_no_client_sees_that_one_of_two_servers_is_killed(tmp_path: Path, server: Server) -> None:
    """With questions under way at it, and its name still leading there, as it does until the engine has noticed."""
    with (
        running(tmp_path) as killed,
        relay("127.0.0.2", killed.port, server.port),
        Names(["127.0.0.1", "127.0.0.2"]).running() as both,
        nginx_before(killed.port, both, FRONTEND_RATE=UNREACHED) as nginx,
    ):
        load = Load(nginx)
        with load.running():
            load.answered(100)
            killed.kill()
            load.answered(100)
        assert set(load.answers) == {200}, f"{load.answers}\n{nginx.log}"
        assert f"127.0.0.1:{killed.port}, 127.0.0.2:{killed.port}" in nginx.lines, "questions were handed on"


def slow_head(client: socket.socket) -> None:
    """A piece now and then: the head as a whole has its time."""
    client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n")
    for n in range(4):
        time.sleep(2)
        client.sendall(b"X-%d: x\r\n" % n)


def half_a_body(client: socket.socket) -> None:
    client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")


def no_reading(client: socket.socket) -> None:
    """As many questions as fit, and not a byte of the answers is taken."""
    client.setblocking(False)
    question = b"GET /dashboard/app.js HTTP/1.1\r\nHost: x\r\n\r\n" * 100
    with pytest.raises(BlockingIOError):
        while True:
            client.send(question)


@pytest.mark.parametrize(("behave", "patience"), [(slow_head, 10), (half_a_body, 10), (no_reading, 30)])
def test_a_client_that_is_slow_on_purpose_is_cut_off(
    behave: Callable[[socket.socket], None], patience: int, server: Server
) -> None:
    with nginx_before(server.port, FRONTEND_RATE=UNREACHED) as nginx, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", nginx.port))
        wait_until(lambda: nginx.has_client(client), 5)
        began = time.monotonic()
        behave(client)
        wait_until(lambda: not nginx.has_client(client), 2 * patience)
        assert patience - 1 < time.monotonic() - began < patience + 5
        assert status(nginx) == 200

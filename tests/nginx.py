"""The system's nginx, running deploy/nginx as its container would, before a server that it finds by a name."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.names import Names
from tests.native import ROOT
from tests.server import Server, free_port

UNREACHED = "10000r/s"  # FRONTEND_RATE of who tests something else
PROGRAMS = {"nginx": "nginx-light", "envsubst": "gettext-base", "openssl": "openssl"}  # and their packages
START_SECONDS = 10
UNPRIVILEGED = 10001  # a user that owns nothing here but the folder
TEMPLATES = sorted((ROOT / "deploy/nginx").glob("*.template"))
SERVICE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text(encoding="utf-8"))["services"]["frontend"]
DEFAULT = re.compile(r"\$\{\w+:-(.*)\}")  # ${NAME:-default}
ENVIRONMENT = {name: DEFAULT.sub(r"\1", value) for name, value in SERVICE["environment"].items()}

needs_nginx = pytest.mark.skipif(
    not all(map(shutil.which, PROGRAMS)), reason=f"Debian and Ubuntu: apt-get install {' '.join(PROGRAMS.values())}"
)


@dataclass(frozen=True)
class Nginx(Server):
    """A server to whoever asks it. url: without TLS."""

    tls_port: int

    @property
    def https(self) -> str:
        return f"https://127.0.0.1:{self.tls_port}"

    @property
    def certificate(self) -> Path:
        return self.folder / "secrets/certificates/certificate.pem"

    @property
    def trust(self) -> ssl.SSLContext:
        """Of a client that knows the certificate."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def client(self, address: str = "127.0.0.1") -> httpx.Client:
        """That asks over TLS, from one of this machine's addresses."""
        transport = httpx.HTTPTransport(verify=self.trust, local_address=address)
        return httpx.Client(base_url=self.https, transport=transport, timeout=30)

    def reload(self) -> None:
        """As docs/deployment.md has it done, after a certificate was renewed."""
        subprocess.run([*command(self.folder), "-s", "reload"], check=True, **unprivileged())

    @property
    def lines(self) -> str:
        """One a request."""
        return (self.folder / "access.log").read_text(encoding="utf-8")

    def has_client(self, client: socket.socket) -> bool:
        """Whether one of its workers still holds the other end."""
        workers = psutil.Process(self.pid).children()
        return client.getsockname() in [tcp.raddr for worker in workers for tcp in worker.net_connections("tcp")]


@contextmanager
def nginx_before(
    port: int, names: Names | None = None, changes: Mapping[str, str] | None = None, **environment: str
) -> Iterator[Nginx]:
    """Before port of 127.0.0.1, or of the addresses in names. changes: of the configuration, from what to what."""
    with ExitStack() as stack:
        found = names or stack.enter_context(Names(["127.0.0.1"]).running())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fingers-nginx-")))
        plain, tls = free_port(), free_port()
        places = {
            "listen 8080": f"listen 127.0.0.1:{plain}",
            "listen 8443": f"listen 127.0.0.1:{tls}",
            "serving:8000": f"serving:{port}",
            "/etc/nginx/certificates": str(folder / "secrets/certificates"),
            "/usr/share/nginx/html": str(folder / "dashboard"),
            "/dev/stdout": "access.log",
        }
        given = ENVIRONMENT | {"NGINX_LOCAL_RESOLVERS": f"127.0.0.1:{found.port}"} | environment
        write_configuration(folder, {**places, **older(), **(changes or {})}, given)
        shutil.copytree(ROOT / "serve/dashboard", folder / "dashboard")
        certify(folder)
        nginx = Nginx(f"http://127.0.0.1:{plain}", folder, started(folder), tls)
        try:
            wait_for(nginx, plain)
            yield nginx
        finally:
            nginx.stop()


def write_configuration(folder: Path, changes: Mapping[str, str], environment: Mapping[str, str]) -> None:
    """As the stock image writes it, by the same program; with changes, each of which must find its place."""
    names = " ".join(f"${{{name}}}" for name in environment)
    written = {
        template.stem: subprocess.run(
            ["envsubst", names],
            input=template.read_text(),
            env=dict(environment),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        for template in TEMPLATES
    }
    for there, here in changes.items():
        assert any(there in text for text in written.values()), f"deploy/nginx has no {there!r}"
        written = {name: text.replace(there, here) for name, text in written.items()}
    for name, text in written.items():
        (folder / name).write_text(text)


def older() -> dict[str, str]:
    """Before 1.25.1 HTTP/2 was a word of `listen`; since then nginx warns about that word."""
    return {"ssl;": "ssl http2;", "http2 on;": ""} if version() < (1, 25, 1) else {}


def version() -> tuple[int, ...]:
    said = subprocess.run(["nginx", "-v"], stderr=subprocess.PIPE, text=True, check=True).stderr
    return tuple(int(number) for number in re.findall(r"\d+", said)[:3])


def certify(folder: Path) -> None:
    """By the script, which writes beside the folder that it lies in."""
    (folder / "nginx").mkdir(exist_ok=True)
    script = shutil.copy(ROOT / "deploy/nginx/trial_certificate.sh", folder / "nginx")
    subprocess.run([script], check=True, stderr=subprocess.DEVNULL)
    if os.geteuid() == 0:
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, UNPRIVILEGED, UNPRIVILEGED)


def started(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "server.log").open("ab") as log:
        return subprocess.Popen(command(folder), stdout=log, stderr=log, start_new_session=True, **unprivileged())


def command(folder: Path) -> list[str]:
    """The service's, in this folder; of Debian's nginx the first words do not go to a file of root's."""
    words = (word.replace("/tmp", str(folder)).rstrip("/") for word in SERVICE["command"])  # noqa: S108 -- its own
    program, *rest = words
    return [program, "-e", "stderr", *rest]


def unprivileged() -> dict[str, Any]:
    """A user without any right, where this one could give itself up."""
    if os.geteuid() != 0:
        return {}
    return {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}


def wait_for(nginx: Nginx, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while nginx.process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.01)
        else:
            return
    raise AssertionError(f"nginx does not listen:\n{nginx.log}")

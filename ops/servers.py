"""Settings -> the three servers of the platform: how each is prepared, started and asked."""

import os
import secrets
import shutil
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ops import cluster
from ops.ask import ask_mlflow, ask_postgres, ask_s3
from ops.cluster import NOT_INSTALLED
from ops.credentials import Settings
from stages.params import StageError

FOREIGN = ("AWS_", "DVC_", "FINGERS_", "MLFLOW_", "PG", "PICSELLIA_", "S3_", "WEED_")  # meant for others


@dataclass(frozen=True)
class Server:
    """It lives in folder: its data, and its working directory."""

    name: str
    folder: Path
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    ask: Callable[[], str]  # its version; raises NoAnswer
    prepare: Callable[[], None]  # makes the folder
    port: int | None = None  # that people type, and
    port_setting: str = ""  # where they choose it
    user: str | None = None  # of the operating system

    @property
    def mark(self) -> str:
        return str(self.folder)

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    def whole_environment(self) -> dict[str, str]:
        """Ours, without settings that are meant for other programs, and its own."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        return {**kept, **self.environment}


def all_three(folder: Path, settings: Settings) -> tuple[Server, Server, Server]:
    """S3, PostgreSQL, MLflow. Raises StageError without the extra `local`."""
    return s3(folder / "s3", settings), postgres(folder / "postgres", settings), mlflow(folder / "mlflow", settings)


def s3(folder: Path, settings: Settings) -> Server:
    """SeaweedFS. Only its S3 server wants a key by itself; the others serve no HTTP, or tokens made for this start."""
    ports = (f"{part}.port{kind}" for part in ("master", "volume", "filer", "admin") for kind in ("", ".grpc"))
    options = {
        "dir": folder,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3.port": settings.s3_port,
        **dict(zip(("s3.port.grpc", *ports), settings.weed_ports, strict=True)),
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.autoCreateBucket": "false",  # a misspelt bucket is an error
        "s3.allowDeleteBucketNotEmpty": "false",
        "admin.ui": "false",
        "disableHttp": "true",  # of the filer and the master: there anybody reads, and a link in a page deletes
        "master.telemetry": "false",
        "webdav": "false",
    }
    logging_options = {  # what it says at length, it keeps short by itself
        "logdir": folder / "log",
        "logtostderr": "false",
        "alsologtostderr": "false",
        "stderrthreshold": "ERROR",
        "log_max_size_mb": 4,
        "log_max_files": 1,
    }
    token = secrets.token_urlsafe(32)
    return Server(
        name="s3",
        folder=folder,
        command=(str(program("weed")), *_flags(logging_options), "mini", *_flags(options)),
        environment={
            **{name: settings.published[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")},
            **{f"WEED_JWT_{what}SIGNING_{how}KEY": token for what in ("", "FILER_") for how in ("", "READ_")},
        },
        ask=partial(ask_s3, settings.published),
        prepare=partial(make_private, folder, folder / "log"),
        port=settings.s3_port,
        port_setting="FINGERS_S3_PORT",
    )


def postgres(folder: Path, settings: Settings) -> Server:
    """On a Unix socket in its folder, or on a loopback port where there is none; with a password in both cases."""
    socket = settings.database_socket
    options = {
        "listen_addresses": "" if socket else "127.0.0.1",
        "port": 5432 if socket else settings.database_port,
        "unix_socket_directories": socket or "",
        "unix_socket_permissions": "0700",
    }
    user = cluster.system_user()
    return Server(
        name="postgres",
        folder=folder,
        command=(str(cluster.program("postgres")), "-D", str(folder), *_flags(options, "--")),
        environment={},
        ask=partial(ask_postgres, settings.published),
        prepare=partial(cluster.prepare, folder, settings.database_password, user),
        user=user,
    )


def mlflow(folder: Path, settings: Settings) -> Server:
    port = settings.mlflow_port
    return Server(
        name="mlflow",
        folder=folder,
        command=(sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1"),
        environment={
            **settings.published,
            "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow",
            "MLFLOW_SERVER_ALLOWED_HOSTS": f"127.0.0.1:{port},localhost:{port}",  # a page elsewhere sends its own name
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 2 processes in place of 15
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "WHEN_REQUIRED",
            "NO_PROXY": "127.0.0.1",
        },
        ask=partial(ask_mlflow, settings.published),
        prepare=partial(make_private, folder),
        port=port,
        port_setting="FINGERS_MLFLOW_PORT",
    )


def _flags(options: Mapping[str, object], dashes: str = "-") -> list[str]:
    return [f"{dashes}{name}={value}" for name, value in options.items()]


def make_private(*folders: Path) -> None:
    """What is in them is for their owner alone, whatever a server makes of its files."""
    for folder in folders:
        folder.mkdir(mode=0o700, exist_ok=True)


def program(name: str) -> Path:
    """Raises StageError without the extra `local`."""
    path = shutil.which(name, path=sysconfig.get_path("scripts"))
    if not path:
        raise StageError(NOT_INSTALLED)
    return Path(path)

"""The environment, and what was made before -> ports and keys of the servers here, made once and published in .env."""

import os
import re
import secrets
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from ops.processes import free_ports, is_free
from stages.mlflow_client import redacted
from stages.params import StageError

WEED_PORTS = 9  # beside the one of S3: weed is several servers in one
LONGEST_SOCKET = 100  # bytes of its path, which every Unix takes
OWN_DATABASE = re.compile(r"postgresql\+psycopg2://fingers:[^@]*@(127\.0\.0\.1:\d+)?/mlflow($|\?)")


@dataclass(frozen=True)
class Settings:
    s3_port: int
    mlflow_port: int
    weed_ports: list[int]
    database_port: int
    database_socket: Path | None  # its folder; None: PostgreSQL listens on the port
    access_key: str
    secret_key: str = field(repr=False)
    database_password: str = field(repr=False)

    @property
    def published(self) -> dict[str, str]:
        """What dvc, mlflow and fingers find the servers by."""
        s3 = f"http://127.0.0.1:{self.s3_port}"
        socket = self.database_socket
        place = f"/mlflow?host={quote(str(socket))}" if socket else f"127.0.0.1:{self.database_port}/mlflow"
        return {
            "AWS_ENDPOINT_URL_S3": s3,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.mlflow_port}",
            "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg2://fingers:{self.database_password}@{place}",
            "MLFLOW_S3_ENDPOINT_URL": s3,
        }

    @property
    def hidden(self) -> dict[str, str]:
        """What nobody but the servers needs, at each start again."""
        return {
            "WEED_PORTS": ",".join(map(str, self.weed_ports)),
            "DATABASE_PORT": str(self.database_port),
            "DATABASE_PASSWORD": self.database_password,
        }


def settings_for(
    environment: Mapping[str, str], before: Mapping[str, str], *, database: Path, running: Collection[str]
) -> Settings:
    """A person's ports and keys win over those made before; before holds what was hidden and what was published.

    database is the folder of PostgreSQL. A server that is running keeps its ports; those of another are made anew when
    somebody took them. Raises StageError when a key is half set, and for an address elsewhere: nobody would use
    the servers here.
    """
    given = {name: value for name, value in environment.items() if value and value != before.get(name)}
    keys = {name: given.get(name, before.get(name)) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    match [name for name, value in keys.items() if not value]:
        case [missing]:
            raise StageError(f"{missing} is not set, while the other half of the key is: set both, or neither")
    weed_ports = [int(port) for port in before.get("WEED_PORTS", "").split(",") if port]
    if not weed_ports or ("s3" not in running and not all(map(is_free, weed_ports))):
        weed_ports = free_ports(WEED_PORTS)
    database_port = int(before.get("DATABASE_PORT", 0))
    if not database_port or ("postgres" not in running and not is_free(database_port)):
        (database_port,) = free_ports(1)
    settings = Settings(
        s3_port=_port(environment, "FINGERS_S3_PORT", 9000),
        mlflow_port=_port(environment, "FINGERS_MLFLOW_PORT", 5000),
        weed_ports=weed_ports,
        database_port=database_port,
        database_socket=database if _takes_socket(database) else None,
        access_key=keys["AWS_ACCESS_KEY_ID"] or secrets.token_hex(10),
        secret_key=keys["AWS_SECRET_ACCESS_KEY"] or secrets.token_urlsafe(30),
        database_password=before.get("DATABASE_PASSWORD") or secrets.token_urlsafe(30),
    )
    _refuse_elsewhere(given, settings.published)
    return settings


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name) or str(default)
    if not value.isdecimal() or not 0 < int(value) < 65536:
        raise StageError(f"{name}: {value!r} is no port; give a number from 1 to 65535")
    return int(value)


def _takes_socket(folder: Path) -> bool:
    return sys.platform != "win32" and len(os.fsencode(folder / ".s.PGSQL.5432")) <= LONGEST_SOCKET


def _refuse_elsewhere(given: Mapping[str, str], published: Mapping[str, str]) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "MLFLOW_S3_ENDPOINT_URL", "MLFLOW_TRACKING_URI"):
        value = given.get(name, published[name])
        if value.replace("//localhost:", "//127.0.0.1:").rstrip("/") != published[name]:
            raise StageError(
                f"{name} is {redacted(value)}, so servers here would not be used: to have them, remove it from "
                f".env or the environment; to use the one there, no `fingers up` is needed"
            )
    if "MLFLOW_BACKEND_STORE_URI" in given and not OWN_DATABASE.match(given["MLFLOW_BACKEND_STORE_URI"]):
        raise StageError("MLFLOW_BACKEND_STORE_URI names a database elsewhere; remove it to have your own server's")

"""An address -> a client of the MLflow there, and what goes wrong on the way told apart: away, refused, not MLflow."""

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

from stages.lineage import local_folder
from stages.params import StageError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.store.entities import PagedList

T = TypeVar("T")

PROBE_TIMEOUT = 3  # s
MLFLOW_SETTINGS = {  # those of the environment win
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the default waits minutes for a server that is down
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # s
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}


class ServerAway(StageError):
    """MLflow cannot be reached now; later it may."""


class Refused(StageError):
    """MLflow answers that it will not, and would answer so again."""


def tracking_uri() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(local_folder() / 'mlflow' / 'mlflow.db').as_posix()}"


def experiment_name() -> str:
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or "finger-counter"


def connect(address: str) -> "MlflowClient":
    """Raises ServerAway, and StageError when it is no MLflow server or refuses the credentials."""
    for name, value in MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with mlflow_errors(address):
        from mlflow import MlflowClient  # noqa: PLC0415 -- seconds

        probe(address)
        return MlflowClient(address)


def probe(address: str) -> None:
    """One request that only MLflow answers as it should; a database needs none. Raises as connect does."""
    if not address.startswith(("http://", "https://")):
        return
    from mlflow.utils.credentials import get_default_host_creds  # noqa: PLC0415 -- seconds
    from mlflow.utils.rest_utils import http_request  # noqa: PLC0415

    with mlflow_errors(address):
        answer = http_request(  # type: ignore[no-untyped-call]
            get_default_host_creds(address),  # type: ignore[no-untyped-call]
            "/api/2.0/mlflow/experiments/get-by-name",
            "GET",
            params={"experiment_name": experiment_name()},
            timeout=PROBE_TIMEOUT,
            raise_on_status=False,
        )
    try:
        document = answer.json()
    except ValueError:
        document = None
    known = isinstance(document, dict) and ("experiment" in document or "error_code" in document)
    if answer.status_code in (401, 403):
        raise _no_entry(address, answer.text)
    if answer.status_code == 429 or answer.status_code >= 500:
        raise ServerAway(f"MLflow at {redacted(address)} answers {answer.status_code}")
    if not known:
        raise StageError(
            f"MLFLOW_TRACKING_URI: {redacted(address)} is no MLflow server: it answers {answer.status_code} "
            f"{_first_line(answer.text)!r}; give the address of one, or unset it to use {local_folder() / 'mlflow'}"
        )


def pages(search: Callable[[str | None], "PagedList[T]"]) -> Iterator[T]:
    """All that a search finds, whose pages are fetched as they are needed: search(token) is one of them."""
    token: str | None = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return


@contextmanager
def mlflow_errors(address: str) -> Iterator[None]:
    """What MLflow and the libraries under it raise -> ServerAway, Refused, or StageError for credentials."""
    try:
        yield
    except _unreachable() as error:
        raise _away(address, error) from None
    except mlflow_exception() as error:
        status = error.get_http_status_code()  # type: ignore[no-untyped-call]
        if status in (401, 403):
            raise _no_entry(address, str(error)) from None
        if status >= 500 or status == 429:
            raise _away(address, error) from None
        raise Refused(f"MLflow at {redacted(address)} refuses: {_first_line(str(error))}") from None


def mlflow_exception() -> "type[MlflowException]":
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 -- seconds

    return MlflowException


def _unreachable() -> tuple[type[Exception], ...]:
    """What a dead connection or a locked database raises in requests, sqlalchemy and boto3, of those installed."""
    names = {
        "sqlalchemy.exc": "SQLAlchemyError",
        "botocore.exceptions": "BotoCoreError",
        "boto3.exceptions": "Boto3Error",
    }
    found: list[type[Exception]] = [OSError]  # requests' are OSErrors
    for module, name in names.items():
        with suppress(ImportError):
            found.append(getattr(import_module(module), name))
    return tuple(found)


def _away(address: str, error: Exception) -> ServerAway:
    found = re.search(r"\[Errno -?\d+\] ([^'\")]+)|(timed out)", str(error))
    reason = (found[1] or found[2]).lower() if found else _first_line(str(error))
    return ServerAway(
        f"MLflow at {redacted(address)} cannot be reached ({reason}); "
        "start it: fingers up; or correct MLFLOW_TRACKING_URI"
    )


def _no_entry(address: str, answer: str) -> StageError:
    return StageError(
        f"MLflow at {redacted(address)} lets nobody in: {_first_line(answer)!r}; check "
        "MLFLOW_TRACKING_USERNAME, _PASSWORD or _TOKEN, and the server's MLFLOW_SERVER_ALLOWED_HOSTS"
    )


def redacted(text: str) -> str:
    """Without what opens doors in the addresses in it: a password, or a query, which may sign one (S3's presigned)."""
    without_query = re.sub(r"\?[^\s'\"<>()]*=[^\s'\"<>()]*", "?[...]", text)
    return re.sub(r"//[^/@\s]*@", "//", without_query)


def _first_line(text: str) -> str:
    return redacted(next((line.strip() for line in text.splitlines() if line.strip()), ""))[:200]

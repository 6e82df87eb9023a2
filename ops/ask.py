"""An address -> the version of the server there, asked of itself with the keys that the programs use; or why not."""

import re
from collections.abc import Callable, Mapping
from typing import Final

from stages.mlflow_client import redacted
from stages.params import StageError

SECONDS = 5


class NoAnswer(StageError):
    """The server is away, refuses our keys, or is another program."""


def ask_s3(environment: Mapping[str, str]) -> str:
    """Lists the buckets. Raises NoAnswer."""
    from botocore.exceptions import (  # noqa: PLC0415 -- half a second
        BotoCoreError,
        ClientError,
    )

    try:
        answer = s3_client(environment).list_buckets()
    except ClientError as error:
        raise NoAnswer(
            f"refused: {error.response['Error'].get('Code')}; check AWS_ACCESS_KEY_ID and its secret"
        ) from None
    except (BotoCoreError, ValueError) as error:  # ValueError: the address is none
        raise NoAnswer(_one_line(str(error))) from None
    return str(answer["ResponseMetadata"]["HTTPHeaders"].get("server", "S3"))


def s3_client(environment: Mapping[str, str], seconds: int = SECONDS, attempts: int = 1):  # type: ignore[no-untyped-def]  # noqa: ANN201 -- boto3 makes the class at run time
    import boto3  # noqa: PLC0415 -- half a second
    from botocore.config import Config  # noqa: PLC0415

    return boto3.client(
        "s3",
        endpoint_url=environment.get("AWS_ENDPOINT_URL_S3"),
        aws_access_key_id=environment.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=environment.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=environment.get("AWS_SESSION_TOKEN"),
        region_name=environment.get("AWS_DEFAULT_REGION") or environment.get("AWS_REGION") or "us-east-1",
        config=Config(connect_timeout=seconds, read_timeout=seconds, retries={"total_max_attempts": attempts}),
    )


def ask_postgres(environment: Mapping[str, str]) -> str:
    """One query. Raises NoAnswer."""
    try:
        import psycopg2  # noqa: PLC0415 -- only with the extra `local`
    except ImportError:
        raise NoAnswer("cannot be asked: psycopg2 is not installed, it comes with the extra `local`") from None
    address = environment["MLFLOW_BACKEND_STORE_URI"].replace("+psycopg2", "", 1)
    try:
        connection = psycopg2.connect(
            address,
            connect_timeout=SECONDS,
            options=f"-c statement_timeout={SECONDS}s",
            tcp_user_timeout=SECONDS * 1000,
        )
        try:
            with connection.cursor() as cursor:
                cursor.execute("SHOW server_version")
                return f"PostgreSQL {cursor.fetchone()[0]}"
        finally:
            connection.close()
    except psycopg2.Error as error:
        raise NoAnswer(_one_line(str(error).partition("\n")[0])) from None


def ask_mlflow(environment: Mapping[str, str]) -> str:
    """Searches one experiment, as a client would: /health answers also those whom the host check turns away.

    MLflow's own client takes seconds to import. Raises NoAnswer.
    """
    import requests  # noqa: PLC0415 -- a fifth of a second

    address = environment["MLFLOW_TRACKING_URI"].rstrip("/")
    with requests.Session() as session:
        if token := environment.get("MLFLOW_TRACKING_TOKEN"):
            session.headers["Authorization"] = f"Bearer {token}"
        elif name := environment.get("MLFLOW_TRACKING_USERNAME"):
            session.auth = (name, environment.get("MLFLOW_TRACKING_PASSWORD", ""))
        try:
            found = session.get(f"{address}/api/2.0/mlflow/experiments/search?max_results=1", timeout=SECONDS)
            version = session.get(f"{address}/version", timeout=SECONDS)
        except requests.RequestException as error:
            raise NoAnswer(re.sub(r".*Errno -?\d+\] ", "", _one_line(str(error))).rstrip("'\")")) from None
    if not found.ok:
        raise NoAnswer(f"answers {found.status_code}: {_one_line(found.text)}")
    try:
        document = found.json()
    except ValueError:
        document = None
    if not isinstance(document, dict) or "experiments" not in document:
        raise NoAnswer("is no MLflow server")
    return f"MLflow {version.text}"


def _one_line(text: str) -> str:
    return redacted(" ".join(text.split()))[:300]


ASK: Final[Mapping[str, tuple[str, Callable[[Mapping[str, str]], str]]]] = {  # by server: what names it, and how
    "s3": ("AWS_ENDPOINT_URL_S3", ask_s3),
    "postgres": ("MLFLOW_BACKEND_STORE_URI", ask_postgres),
    "mlflow": ("MLFLOW_TRACKING_URI", ask_mlflow),
}

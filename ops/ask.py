"""An address -> the version of the server there, asked of itself with the keys that the programs use; or why not."""

import base64
import http.client
import json
from collections.abc import Mapping
from urllib.parse import urlsplit

from stages.mlflow_client import without_password
from stages.params import StageError

SECONDS = 5


class NoAnswer(StageError):
    """The server is away, refuses our keys, or is another program."""


def ask_s3(environment: Mapping[str, str]) -> str:
    """Lists the buckets. Raises NoAnswer."""
    from botocore.exceptions import (  # type: ignore[import-untyped]  # noqa: PLC0415 -- half a second
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
        raise NoAnswer(str(error)) from None
    return str(answer["ResponseMetadata"]["HTTPHeaders"].get("server", "S3"))


def s3_client(environment: Mapping[str, str]):  # type: ignore[no-untyped-def]  # noqa: ANN201 -- boto3 makes the class at run time
    import boto3  # type: ignore[import-untyped]  # noqa: PLC0415 -- half a second
    from botocore.config import Config  # type: ignore[import-untyped]  # noqa: PLC0415

    return boto3.client(
        "s3",
        endpoint_url=environment.get("AWS_ENDPOINT_URL_S3"),
        aws_access_key_id=environment.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=environment.get("AWS_SECRET_ACCESS_KEY"),
        region_name=environment.get("AWS_DEFAULT_REGION", "us-east-1"),
        config=Config(connect_timeout=SECONDS, read_timeout=SECONDS, retries={"total_max_attempts": 1}),
    )


def ask_postgres(environment: Mapping[str, str]) -> str:
    """One query. Raises NoAnswer."""
    import psycopg2  # type: ignore[import-untyped]  # noqa: PLC0415 -- only with the extra `local`

    address = environment["MLFLOW_BACKEND_STORE_URI"].replace("+psycopg2", "", 1)
    try:
        connection = psycopg2.connect(address, connect_timeout=SECONDS)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SHOW server_version")
                return f"PostgreSQL {cursor.fetchone()[0]}"
        finally:
            connection.close()
    except psycopg2.Error as error:
        raise NoAnswer(without_password(" ".join(str(error).split()))) from None


def ask_mlflow(environment: Mapping[str, str]) -> str:
    """Searches one experiment, as a client would: /health answers also those whom the host check turns away.

    Raises NoAnswer.
    """
    address = urlsplit(environment["MLFLOW_TRACKING_URI"])
    if address.scheme not in ("http", "https") or not address.hostname:
        raise NoAnswer("is no server's address")
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(address.hostname, address.port, timeout=SECONDS)
    path = address.path.rstrip("/")
    try:
        connection.request(
            "GET", f"{path}/api/2.0/mlflow/experiments/search?max_results=1", headers=_entry(environment)
        )
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise NoAnswer(f"answers {answer.status}: {' '.join(body[:200].decode(errors='replace').split())}")
        if "experiments" not in json.loads(body):
            raise NoAnswer("is no MLflow server")
        connection.request("GET", f"{path}/version", headers=_entry(environment))
        return f"MLflow {connection.getresponse().read().decode()}"
    except ValueError:
        raise NoAnswer("is no MLflow server") from None
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(str(error) or type(error).__name__) from None
    finally:
        connection.close()


def _entry(environment: Mapping[str, str]) -> dict[str, str]:
    """The header that MLflow's own client sends."""
    if token := environment.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    name, password = (environment.get(f"MLFLOW_TRACKING_{part}", "") for part in ("USERNAME", "PASSWORD"))
    if name:
        return {"Authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}
    return {}

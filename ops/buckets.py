"""An S3 server -> the same with the buckets that DVC and MLflow write to: `python -m ops.buckets`.

MinIO's own client is no longer to be had as an image; boto3 speaks to every S3 server.
"""

import logging
import os
import sys
import time
from collections.abc import Mapping

from ops.ask import NoAnswer, ask_s3, s3_client
from stages.launch import configure_logging
from stages.params import StageError

logger = logging.getLogger(__name__)

BUCKETS = ("dvc", "mlflow")
PATIENCE = 60  # s; a server that is healthy may not take its first request yet


def main() -> None:
    configure_logging("buckets")
    try:
        wait(os.environ)
        made = make_buckets(os.environ)
        logger.info("made: %s", ", ".join(made) or "none, all are there")
    except StageError as error:
        logger.error("%s", error)
        sys.exit(1)


def wait(environment: Mapping[str, str], patience: float = PATIENCE) -> None:
    """Until S3 answers. Raises NoAnswer."""
    deadline = time.monotonic() + patience
    while True:
        try:
            ask_s3(environment)
            return
        except NoAnswer:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def make_buckets(environment: Mapping[str, str]) -> list[str]:
    """Those that were missing. Raises StageError when one must not be made."""
    from botocore.exceptions import ClientError  # noqa: PLC0415 -- half a second

    client = s3_client(environment)
    there = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    missing = sorted(set(BUCKETS) - there)
    for bucket in missing:
        try:
            client.create_bucket(Bucket=bucket)
        except ClientError as error:
            code = error.response["Error"].get("Code")
            raise StageError(f"bucket {bucket}: {code}; make it yourself, or let this key make buckets") from None
    return missing


if __name__ == "__main__":
    main()

"""DVC's remote -> whether it can be written, read and deleted from; and if not, whose fault that is."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from ops.finding import Finding, failed, ok, skipped
from stages.mlflow_client import redacted

if TYPE_CHECKING:
    from dvc.fs import FileSystem

AWAY = ("nobody answers", "start it: fingers up; or correct AWS_ENDPOINT_URL_S3")
NO_KEY = (
    "no key is set",
    "fingers up makes one; or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in .env or the environment",
)
# Of S3, https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and of botocore: cause and remedy.
REFUSALS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "ConnectTimeoutError": AWAY,
        "ConnectionClosedError": AWAY,
        "EndpointConnectionError": AWAY,
        "ReadTimeoutError": AWAY,
        "NoCredentialsError": NO_KEY,
        "PartialCredentialsError": NO_KEY,
        "InvalidAccessKeyId": ("the server does not know the key", "correct AWS_ACCESS_KEY_ID"),
        "SignatureDoesNotMatch": ("the secret does not fit the key", "correct AWS_SECRET_ACCESS_KEY"),
        "NoSuchBucket": ("there is no such bucket", "create it; or: dvc remote modify --local NAME url s3://BUCKET"),
    }
)


def check_remote(root: Path) -> Finding:
    """By DVC's own means, so that its configuration counts as it will for push and pull."""
    os.environ.setdefault("AWS_MAX_ATTEMPTS", "1")  # botocore's five take seconds on a server that is down
    from dvc.config import NoRemoteError  # noqa: PLC0415 -- half a second
    from dvc.exceptions import DvcException  # noqa: PLC0415
    from dvc.repo import Repo  # noqa: PLC0415

    try:
        with Repo(str(root)) as repo:
            chosen = repo.cloud.get_remote()
    except NoRemoteError:
        return skipped("DVC has no default remote: dvc remote default NAME")
    except DvcException as error:
        return failed(f"DVC: {first_line(error)}", "look at .dvc/config and .dvc/config.local")
    where = chosen.fs.unstrip_protocol(chosen.path)
    if where.startswith("s3://"):
        chosen.fs.fs.retries = 1
        where += f" at {chosen.fs.fs.s3.meta.endpoint_url}"
    return stored_and_deleted(chosen.fs, chosen.path, where)


def stored_and_deleted(filesystem: "FileSystem", folder: str, where: str) -> Finding:
    """One small object in the folder, under a name that nothing else has."""
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415 -- half a second

    name = f"doctor-{secrets.token_hex(8)}"
    path, content, doing = filesystem.join(folder, name), name.encode(), "write"
    try:
        filesystem.makedirs(folder)  # as DVC does: of object storages it makes no bucket
        filesystem.pipe_file(path, content)
        doing = "read"
        if filesystem.cat_file(path) != content:
            return failed(
                f"{where}: what is read is not what was written", "another server answers: look at its address"
            )
        doing = "delete"
        filesystem.rm_file(path)
    except (OSError, BotoCoreError) as error:
        return unstored(error, doing, where)
    return ok(f"{where}: written, read, deleted")


def unstored(error: Exception, doing: str, where: str) -> Finding:
    answer = getattr(error.__cause__, "response", {})
    code = answer.get("Error", {}).get("Code") or type(error).__name__
    if code in ("AccessDenied", "PermissionError"):
        return failed(
            f"{where}: the key may not {doing}", f"allow it to {doing} there; for dvc pull, to read is enough"
        )
    cause, remedy = REFUSALS.get(code, (f"cannot {doing}: {code}: {first_line(error)}", "ask who runs the server"))
    return failed(f"{where}: {cause}", remedy)


def first_line(error: Exception) -> str:
    return redacted(next(iter(str(error).splitlines()), type(error).__name__))
